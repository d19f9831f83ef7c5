// The package as others get it: packed, installed into an empty directory, and every example of its README run there
// against a real hall.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import http from "node:http";
import path from "node:path";
import { after, before, test } from "node:test";

import { uuid } from "../client.js";
import { BINARY, MODULES, Node, Person, ROOT, temporaryDirectory, until } from "./harness.mjs";

const web = path.join(ROOT, "web");
const manifest = JSON.parse(readFileSync(path.join(web, "package.json"), "utf8"));
const SECRET = "a secret of thirty-two bytes and more";

/** Where the package is installed. */ let home = "";
/** @type {Node} */ let hall;
/** @type {Node} */ let guarded;
/** A site that gives tokens to zoe. @type {http.Server} */ let site;
/** Who listens in the lobby. @type {Person} */ let ada;
/** Who listens in the room `help`. @type {Person} */ let ben;

/** npm, which asks nobody else for anything. */
const npm = (cwd, ...options) =>
  execFileSync("npm", [...options, "--offline", "--no-audit", "--no-fund", "--loglevel", "error"], { cwd, encoding: "utf8" });

before(async () => {
  home = temporaryDirectory();
  const [{ filename }] = JSON.parse(npm(web, "pack", "--json", "--pack-destination", home));
  writeFileSync(path.join(home, "package.json"), "{}");
  npm(home, "install", "--install-links", `./${filename}`, path.join(MODULES, "ws"));
  [hall, guarded] = await Promise.all([Node.start(), Node.start("--auth", "jwt", "--jwt-secret", SECRET)]);
  site = http.createServer(giveToken).listen(0, "127.0.0.1");
  ada = await Person.in(hall.url, { name: "ada" });
  ben = await Person.in(hall.url, { name: "ben", room: "help" });
});
after(() => {
  for (const person of [ada, ben]) person?.leave();
  site?.close();
  return Promise.all([hall?.stop(), guarded?.stop()]);
});

/** @param {http.IncomingMessage} request @param {http.ServerResponse} answer */
function giveToken({ method, url }, answer) {
  assert.deepEqual([method, url], ["POST", "/chat/token"]);
  const token = execFileSync(BINARY, ["token", "zoe", "--jwt-secret", SECRET], { encoding: "utf8" }).trim();
  answer.end(JSON.stringify({ name: "zoe", token }));
}

test("what is packed is the client, its types and its manual, of the hall's version", () => {
  const installed = path.join(home, "node_modules/townhall-client");
  assert.deepEqual(readdirSync(installed).sort(), ["README.md", "client.d.ts", "client.js", "package.json"]);
  const [, version] = readFileSync(path.join(ROOT, "Cargo.toml"), "utf8").match(/^version = "(.*)"$/m) ?? [];
  assert.equal(manifest.version, version);
  const exported = Object.values(manifest.exports["."]).map((file) => path.basename(file));
  assert.deepEqual(exported, ["client.d.ts", "client.js"]);
  assert.deepEqual([manifest.dependencies, manifest.private], [undefined, undefined]);
});

const manual = readFileSync(path.join(web, "README.md"), "utf8");
const examples = [...manual.matchAll(/^```js\n([\s\S]*?)^```$/gm)].map(([, code]) => code);
const tried = new Set();

/** The example in which these words are; there is one. @param {string} words */
function example(words) {
  const [found, ...more] = examples.filter((code) => code.includes(words));
  assert.ok(found && !more.length, `${1 + more.length} examples have ${words}`);
  tried.add(found);
  return found;
}

/** What an example leaves out that stands before it: the imports, and somebody who is in the lobby. */
const IMPORTS = `
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { Townhall, uuid } from "townhall-client";
import WebSocket from "ws";
globalThis.WebSocket ??= WebSocket;
`;
const SOMEBODY = `
const hall = new Townhall("wss://hall.example/ws", { name: "somebody" });
hall.join("lobby");
hall.connect();
await new Promise((resolve) => hall.addEventListener("caughtup", resolve, { once: true }));
`;
/** What a browser has and Node has not. */
const BROWSER = `
const events = new EventTarget();
const addEventListener = events.addEventListener.bind(events);
const storage = (kept) => ({ getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => void kept.set(key, value) });
`;

let programs = 0;
/** Runs a program in a directory of its own beside the installed package, until what it says is enough. */
async function run(program, enough, { node = hall, directory = String(++programs) } = {}) {
  const cwd = path.join(home, directory);
  mkdirSync(cwd, { recursive: true });
  const { port } = site.address();
  const here = program.replaceAll("wss://hall.example/ws", node.url).replaceAll("https://site.example", `http://127.0.0.1:${port}`);
  writeFileSync(path.join(cwd, "example.mjs"), here);
  const child = spawn(process.execPath, ["example.mjs"], { cwd, stdio: ["ignore", "pipe", "pipe"] });
  const over = new Promise((resolve) => child.once("exit", resolve));
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (said += data));
  try {
    await until(`an example has done its work: ${program}`, () => {
      assert.equal(child.exitCode, null, `it ended: ${said}`);
      return enough(() => said);
    });
  } catch (error) {
    throw new Error(`${error.message}\nit said: ${said}`);
  } finally {
    child.kill("SIGKILL");
    await over;
  }
  return said;
}

const says = (...texts) => (said) => texts.every((text) => said().includes(text));

test("the bot answers", async () => {
  let asked = false;
  await run(example("echo-bot"), async () => {
    const { members } = await ada.hall.who("lobby");
    if (!asked && members.some(({ name }) => name === "echo-bot")) asked = Boolean(await ada.say("!echo hello there"));
    return ada.all("message").some(({ from, text }) => from.name === "echo-bot" && text === "hello there");
  });
});

test("what is sent is stored or fails", async () => {
  await run(IMPORTS + SOMEBODY + example("stored as"), says("stored as", "not sent: bad_frame"));
  const { data } = ada.all("message").find(({ text }) => text === "hello");
  assert.deepEqual(data, { mood: "good" });
});

test("a site's token lets in", async () => {
  const done = `hall.addEventListener("joined", () => console.log("in as", hall.user.id));`;
  await run(IMPORTS + example("chat/token") + done, says("in as zoe"), { node: guarded });
});

test("a guest who keeps the key is the same one", async () => {
  const kept = `const localStorage = storage(new Map([["key", "7d444840-9dc0-41d1-b245-5ffdce74fad2"]]));`;
  const done = `hall.addEventListener("welcome", () => console.log(hall.user.id, hall.user.name)); hall.connect();`;
  const program = IMPORTS + BROWSER + kept + example('"key"') + done;
  const first = await run(program, says("lewin"));
  assert.equal(await run(program, says("lewin")), first);
  assert.match(first, /^guest-/);
});

test("history is read to its beginning", async () => {
  const { offset } = await ada.say("for those who read");
  await ada.hears("for those who read");
  const first = ada.all("message")[0].text;
  const inSmallPages = example("messages.unshift").replace("limit: 200", "limit: 2");
  await run(IMPORTS + SOMEBODY + inSmallPages, says(`${offset} messages, the first: ${first}`));
});

test("who is here and who types is told", async () => {
  await run(IMPORTS + SOMEBODY + example('hall.typing("help")'), (said) => {
    ben.hall.typing("help");
    return says("2 here: ", "ben", "somebody", "ben types")(said);
  });
});

test("a program goes on where it was", async () => {
  const program = IMPORTS + SOMEBODY + example("position.json");
  const directory = "bot";
  const { offset } = await ada.say("before its death");
  const kept = () => readFileSync(path.join(home, directory, "position.json"), "utf8").includes(`"offset":${offset}}`);
  await run(program, (said) => says(`${offset} before its death`)(said) && kept(), { directory });
  await ada.say("while it was dead");
  const again = await run(program, says(`${offset + 1} while it was dead`), { directory });
  assert.equal(again.trim(), `${offset + 1} while it was dead`, "and nothing twice");
});

test("what a page left unsent is sent by the next one", async () => {
  const left = JSON.stringify([{ room: "lobby", text: "left by another page", id: uuid(), made: Date.now() }]);
  const kept = `const sessionStorage = storage(new Map([["outbox", ${JSON.stringify(left)}]]));`;
  const done = `
    hall.send("lobby", "left by this one");
    events.dispatchEvent(new Event("pagehide"));
    console.log(sessionStorage.getItem("outbox"));`;
  await run(IMPORTS + BROWSER + SOMEBODY + kept + example("pagehide") + done, says("left by this one"));
  await ada.hears("left by another page");
});

test("what is unread is counted", async () => {
  await run(IMPORTS + SOMEBODY + example("unread:") + `hall.send("lobby", "and another");`, says("unread: 2"));
});

test("there is no example that was not tried, and a page is the first of all", () => {
  assert.deepEqual(examples.filter((code) => !tried.has(code)), []);
  assert.match(manual.match(/^```(\w+)\n/m)?.[1] ?? "", /^html$/);
});
