/**
 * Makes web/screenshots/: a hall with a Redis, people who talk in it by the SDK, and a reader in a real Chromium who was away
 * for a while. Everything is as it is in a real hall, but that the older messages are moved into the past.
 *
 *     cargo build && node tests/browser/screenshots.mjs        (or: make screenshots)
 */

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import WebSocket from "ws";
import { Townhall } from "../../web/client.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const pictures = join(root, "web/screenshots");
const townhall = process.env.TOWNHALL || join(process.env.CARGO_TARGET_DIR || join(root, "target"), "debug/townhall");
/** Pictures that are larger have no place in a repository. */
const MOST_BYTES = 150 * 1024;
const WIDTHS = { 360: 740, 768: 900, 1440: 900 };

/** What is said in the room on screen: `ago` in minutes, or what comes while the reader is elsewhere. */
const ENGLISH = {
  locale: "en-GB",
  reader: "Nora",
  room: "release",
  welcome: "lobby",
  others: { design: 3, kitchen: 12, oncall: 0 },
  typist: "Tomás",
  said: [
    { ago: 1512, who: "Tomás", text: "The drill is done: one node killed every ten minutes, all afternoon." },
    { ago: 1511, who: "Tomás", text: "Nobody noticed. I had to check twice that I was killing the right one 😅" },
    { ago: 1507, who: "Ada", text: "Same here. My page never even said “offline”." },
    { ago: 1490, who: "Wei", text: "The notes are at https://notes.example.org/drill?day=monday – please add what you saw." },
    { ago: 92, who: "Ada", text: "Morning! Who has the tag?" },
    { ago: 90, who: "Tomás", text: "Me. One question before I push it: do we keep the old address for the bots?" },
    { ago: 86, who: "Wei", text: "Yes, they speak the plain protocol. Nothing changes for them:" },
    { ago: 85, who: "Wei", text: "```sh\nwebsocat 'wss://hall.example.org/ws?name=bot'\n```" },
    { ago: 71, who: "Nora", text: "Good. I’ll tell support." },
    { who: "Tomás", text: "Tag is pushed, first replica is draining." },
    { who: "Tomás", text: "`reconnect` is out, the clients are moving over" },
    { who: "Ada", text: "🎉" },
    { who: "Wei", text: "@Nora all three replicas are new. You can tell them it is out." },
  ],
};

const CHINESE = {
  locale: "zh-CN",
  reader: "小雨",
  room: "chatroom",
  welcome: "lobby",
  others: { go: 3, django: 7, nginx: 0 },
  typist: "李雷",
  said: [
    { ago: 1512, who: "张三", text: "昨天的问题找到了：nginx 默认 60 秒没有数据就断开。" },
    { ago: 1511, who: "张三", text: "所以页面看起来连着，其实早就收不到消息了 😅" },
    { ago: 1490, who: "李雷", text: "那现在有心跳了，断线会自己重连，漏掉的消息也会补上。" },
    { ago: 1484, who: "韩梅梅", text: "我试过把服务器直接杀掉，一条都没少。" },
    { ago: 92, who: "李雷", text: "早！今天把聊天室接到网站的登录上。" },
    { ago: 90, who: "韩梅梅", text: "登录后往 Redis 放一个五分钟的令牌就行：" },
    { ago: 89, who: "韩梅梅", text: "```python\nredis.set(f\"ChatroomToken{name}\", token, ex=300)\n```" },
    { ago: 71, who: "小雨", text: "文档在哪里？" },
    { who: "李雷", text: "在这里：https://example.org/docs/django，例子可以直接跑。" },
    { who: "张三", text: "部署好了，开了三个副本。" },
    { who: "韩梅梅", text: "🎉" },
    { who: "张三", text: "@小雨 你那边能看到吗？" },
  ],
};

const ended = [];

/** Starts something that ends with us. @param {string} command @param {string[]} words */
function start(command, words) {
  const child = spawn(command, words, { stdio: ["ignore", "ignore", "pipe"] });
  child.stderr.resume();
  ended.push(() => child.kill());
  return child;
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Until something holds: for a minute, and no longer. @param {string} what @param {() => Promise<boolean>} holds */
async function until(what, holds) {
  const end = Date.now() + 60_000;
  while (!(await holds().catch(() => false))) {
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`);
    await new Promise((resume) => setTimeout(resume, 50));
  }
}

async function startRedis() {
  const port = await freePort();
  const directory = mkdtempSync(join(tmpdir(), "townhall-screenshots-"));
  ended.push(() => rmSync(directory, { recursive: true, force: true }));
  start("redis-server", ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]);
  const cli = (...words) => execFileSync("redis-cli", ["-p", String(port), ...words], { encoding: "utf8", stdio: "pipe" }).trim();
  await until("Redis answers", async () => cli("PING") === "PONG");
  return { url: `redis://127.0.0.1:${port}`, cli };
}

async function startHall(redis) {
  const [port, ops] = [await freePort(), await freePort()];
  const listen = ["--listen", `127.0.0.1:${port}`, "--ops", `127.0.0.1:${ops}`];
  const child = start(townhall, ["serve", ...listen, "--redis", redis.url, "--rooms", "open", "--rate", "0"]);
  await until("the hall is ready", async () => (await fetch(`http://127.0.0.1:${ops}/readyz`)).ok);
  return { url: `http://127.0.0.1:${port}/`, child };
}

/** The same keys every time, so that everybody has their colour. @type {string[]} */
const NAMES = [ENGLISH, CHINESE].flatMap(({ said }) => [...new Set(said.map(({ who }) => who))]);
const keyOf = (name) => `00000000-0000-4000-8000-0000000000${20 + NAMES.indexOf(name)}`;

/** Somebody in some rooms, always the same person by their name. @param {string} url @param {string} name @param {string[]} rooms */
async function come(url, name, rooms) {
  const hall = new Townhall(new URL("ws", url), { name, key: keyOf(name), WebSocket });
  ended.push(() => hall.close());
  let joined = 0;
  const all = new Promise((resolve) => hall.addEventListener("caughtup", () => (joined += 1) === rooms.length && resolve()));
  for (const room of rooms) hall.join(room);
  hall.connect();
  await all;
  return hall;
}

/** Moves the messages of a room into the past. */
function age(redis, room, minutes) {
  const script = `
    local aged = redis.call("XRANGE", KEYS[1], "-", "+")
    redis.call("DEL", KEYS[1])
    for index, entry in ipairs(aged) do
      local fields = entry[2]
      for at = 1, #fields, 2 do
        if fields[at] == "at" then
          fields[at + 1] = string.format("%.0f", tonumber(fields[at + 1]) - 60000 * tonumber(ARGV[index]))
        end
      end
      redis.call("XADD", KEYS[1], entry[1], unpack(fields))
    end
    return #aged`;
  redis.cli("EVAL", script, "1", `townhall:{${room}}:log`, ...minutes.map(String));
}

/** A zone in which it is early in the afternoon, so that an hour ago was today and a day ago was not. */
function afternoon() {
  const west = new Date().getUTCHours() - 14;
  return west === 0 ? "Etc/UTC" : `Etc/GMT${west > 0 ? "+" : "-"}${Math.abs(west)}`;
}

/** Has a conversation, and shows it to `look`, which is called with the reader's page. */
async function converse(browser, talk, look) {
  const redis = await startRedis();
  const rooms = [talk.room, talk.welcome, ...Object.keys(talk.others)];
  const before = await startHall(redis);
  const past = talk.said.filter(({ ago }) => ago !== undefined);
  const speakers = [...new Set(talk.said.map(({ who }) => who))];
  const early = {};
  for (const who of speakers) early[who] = await come(before.url, who, rooms);
  for (const { who, text } of past) await early[who].send(talk.room, text);
  for (const hall of Object.values(early)) hall.close();
  before.child.kill();
  await once(before.child, "exit");
  age(redis, talk.room, past.map(({ ago }) => ago));

  const { url } = await startHall(redis);
  const late = {};
  for (const who of speakers.filter((who) => who !== talk.reader)) late[who] = await come(url, who, rooms);
  const context = await browser.newContext({ locale: talk.locale, timezoneId: afternoon(), deviceScaleFactor: 1 });
  await context.addInitScript(([key, name]) => {
    localStorage.setItem("townhall.key", key);
    localStorage.setItem("townhall.name", name);
  }, [keyOf(talk.reader), talk.reader]);
  const page = await context.newPage();
  await page.setViewportSize({ width: 1440, height: 900 });
  const visit = async (room) => {
    await page.goto(`${url}#${room}`);
    await page.locator(`#rooms a[href="#${room}"][aria-current="page"]`).waitFor();
    await page.locator("body[data-state=open]").waitFor();
  };
  for (const room of Object.keys(talk.others)) await visit(room);
  await visit(talk.room);
  await page.locator(`.message[data-offset="${past.length}"]`).waitFor();
  await visit(talk.welcome);
  for (const { who, text } of talk.said.filter(({ ago }) => ago === undefined)) await late[who].send(talk.room, text);
  for (const [room, count] of Object.entries(talk.others)) {
    for (let number = 1; number <= count; number += 1) await late[talk.typist].send(room, `number ${number}`);
    if (count) await page.locator(`#rooms a[href="#${room}"] .count`, { hasText: String(count) }).waitFor();
  }
  await page.locator(`#rooms a[href="#${talk.room}"]`).click();
  await page.locator(".unread").waitFor();
  await page.mouse.move(0, 0); // what is pointed at has a toolbar
  await look(page, () => until("somebody types", async () => {
    late[talk.typist].typing(talk.room);
    return (await page.locator("#typing").textContent()) !== "";
  }));
  await context.close();
}

async function photograph(page, name) {
  const path = join(pictures, `${name}.png`);
  await page.screenshot({ path, animations: "disabled", caret: "hide" });
  const { size } = statSync(path);
  if (size > MOST_BYTES) throw new Error(`${path} has ${size} bytes, and may have ${MOST_BYTES}`);
  console.log(`${path}: ${Math.ceil(size / 1024)} KiB`);
}

mkdirSync(pictures, { recursive: true });
const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
try {
  await converse(browser, ENGLISH, async (page, somebodyTypes) => {
    for (const [width, height] of Object.entries(WIDTHS)) {
      await page.setViewportSize({ width: Number(width), height });
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        await somebodyTypes();
        await photograph(page, `${width}-${colorScheme}`);
      }
    }
  });
  await converse(browser, CHINESE, async (page, somebodyTypes) => {
    await somebodyTypes();
    await photograph(page, "zh-1440-light");
  });
} finally {
  await browser.close();
  for (const end of ended.reverse()) end();
}
process.exit(0);
