// What the tests over real sockets need: nodes and Redis servers as processes of their own, a wire between a client and
// its node that can be cut, and a person who takes notes. Everything started here is stopped, by its pid, when the test
// file ends, however it ends.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { Townhall } from "../client.js";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
/** Where `tests/setup` installs what the tests need from npm. */
export const MODULES = path.join(ROOT, "tests/browser/node_modules");
const built = path.join(process.env.CARGO_TARGET_DIR ?? "target", "debug/townhall");
export const BINARY = path.resolve(ROOT, process.env.TOWNHALL ?? built);

/** A state that is not there after so long will not come. Nothing is timed by it; who breaks the code on purpose may set less. */
const PATIENCE_MS = Number(process.env.PATIENCE_MS || 60_000);
const LOOK_AGAIN_MS = 20;

for (const [needed, how] of [[BINARY, "cargo build (or name a binary in TOWNHALL)"], [path.join(MODULES, "ws"), "tests/setup"]]) {
  if (!existsSync(needed)) throw new Error(`${needed} is not there; it comes by ${how}`);
}

/** The class that Node before version 22 lacks. */
export const { WebSocket } = createRequire(path.join(MODULES, "ws/package.json"))("./index.js");

/** What is running. @type {Set<import("node:child_process").ChildProcess>} */
const running = new Set();
const directories = [];
process.on("exit", () => {
  for (const child of running) {
    child.kill("SIGCONT");
    child.kill("SIGKILL");
  }
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));

export function temporaryDirectory() {
  const directory = mkdtempSync(path.join(tmpdir(), "townhall-sdk-"));
  directories.push(directory);
  return directory;
}

/**
 * Waits for a state, and gives what was found then.
 *
 * @template T
 * @param {string} what
 * @param {() => T | Promise<T>} look
 */
export async function until(what, look) {
  const give_up = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > give_up) throw new Error(`it did not come to this: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
  }
}

/** Starts a program, and keeps what it says. @param {string} program @param {string[]} options */
function start(program, options, extra = {}) {
  const child = spawn(program, options, { stdio: ["ignore", "pipe", "pipe"], ...extra });
  const process = { child, log: "", over: new Promise((resolve) => child.once("exit", resolve)) };
  running.add(child);
  child.once("exit", () => running.delete(child));
  child.once("error", (error) => (process.log += `${program}: ${error.message}`));
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (process.log += data));
  return process;
}

/** One replica, on free ports. */
export class Node {
  /** Starts one and waits until it lets people in. @param {string[]} options */
  static async start(...options) {
    const node = new Node();
    const env = { PATH: process.env.PATH, RUST_LOG: "townhall=info" };
    node.process = start(BINARY, ["--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", ...options], { env });
    const { listen, ops } = await until("a node says where it listens", () => {
      if (node.process.child.exitCode !== null) throw new Error(`the node ended: ${node.process.log}`);
      return node.process.log.split("\n").filter(Boolean).map(parsed).find((line) => line?.listen);
    });
    Object.assign(node, { port: Number(listen.split(":").at(-1)), url: `ws://${listen}/ws`, ops });
    await until("a node is ready", async () => (await fetch(`http://${ops}/readyz`)).ok);
    return node;
  }

  /** A sample of `/metrics`; 0 where there is none yet. @param {string} sample */
  async metric(sample) {
    const metrics = await (await fetch(`http://${this.ops}/metrics`)).text();
    const line = metrics.split("\n").find((line) => line.startsWith(`${sample} `));
    return line ? Number(line.split(" ").at(-1)) : 0;
  }

  /** `SIGKILL` and `SIGTERM`: whether it has ended can be awaited. @param {NodeJS.Signals} signal */
  stop(signal = "SIGKILL") {
    this.process.child.kill(signal);
    return this.process.over;
  }
}

/** @param {string} line */
function parsed(line) {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}

/** A Redis without persistence: what is killed is forgotten. */
export class Redis {
  static async start() {
    const redis = new Redis();
    redis.port = await freePort();
    redis.url = `redis://127.0.0.1:${redis.port}`;
    await redis.#launch();
    return redis;
  }

  async #launch() {
    const options = ["--port", String(this.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    this.process = start("redis-server", [...options, "--dir", temporaryDirectory()]);
    await until("Redis takes commands", () => {
      if (this.process.child.exitCode !== null) throw new Error(`Redis ended: ${this.process.log}`);
      return this.process.log.includes("Ready to accept connections");
    });
  }

  pause() {
    this.process.child.kill("SIGSTOP");
  }

  resume() {
    this.process.child.kill("SIGCONT");
  }

  async restartEmpty() {
    this.process.child.kill("SIGKILL");
    await this.process.over;
    await this.#launch();
  }

  stop() {
    this.process.child.kill("SIGKILL");
    return this.process.over;
  }
}

/** A port that nobody has; somebody else may take it before you do. */
async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = /** @type {net.AddressInfo} */ (server.address());
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A wire to the first of some nodes that is there, as through a load balancer; it can be cut, and it can fall silent. */
export class Wire {
  /** @param {Node[]} nodes */
  static async to(...nodes) {
    const wire = new Wire();
    wire.nodes = nodes;
    /** Every connection that is there. */
    wire.pairs = new Set();
    wire.refusing = false;
    wire.server = net.createServer((client) => wire.#connect(client, [...wire.nodes]));
    wire.server.listen(0, "127.0.0.1");
    await new Promise((resolve) => wire.server.once("listening", resolve));
    wire.url = `ws://127.0.0.1:${wire.server.address().port}/ws`;
    return wire;
  }

  /** @param {net.Socket} client @param {Node[]} nodes */
  #connect(client, nodes) {
    client.on("error", () => {});
    const node = nodes.shift();
    if (!node || this.refusing) return void client.resetAndDestroy();
    const server = net.connect(node.port, "127.0.0.1");
    server.once("error", () => pair.open || this.#connect(client, nodes));
    const pair = { client, server, open: false };
    server.once("connect", () => {
      pair.open = true;
      this.pairs.add(pair);
      client.pipe(server).pipe(client);
      for (const end of [client, server]) end.once("close", () => this.#end(pair));
    });
  }

  #end(pair) {
    this.pairs.delete(pair);
    pair.client.destroy();
    pair.server.destroy();
  }

  /** Every connection is gone, and its ends are told. */
  cut() {
    for (const { client } of [...this.pairs]) client.resetAndDestroy();
  }

  /** On every connection nothing arrives any more, and nobody is told; new ones are good. */
  fallSilent() {
    for (const { client, server } of this.pairs) {
      client.unpipe(server);
      server.unpipe(client);
      for (const end of [client, server]) end.resume();
    }
  }

  stop() {
    this.server.close();
    for (const pair of [...this.pairs]) this.#end(pair);
  }
}

/** A client, and what it heard. */
export class Person {
  /** @param {string} url @param {any} options those of {@link Townhall}, and `room` and `join` for the room to go to */
  constructor(url, { room = "lobby", join = {}, ...options } = {}) {
    this.room = room;
    this.hall = new Townhall(url, { WebSocket, ...options });
    /** Every event, in order: `[type, detail]`. */
    this.heard = [];
    for (const type of EVENTS) this.hall.addEventListener(type, ({ detail }) => void this.heard.push([type, detail]));
    this.hall.join(room, join);
    this.hall.connect();
  }

  /** One who is there. */
  static async in(url, options = {}) {
    const person = new Person(url, options);
    await until(`${options.name ?? "somebody"} is in`, () => person.all("caughtup").length);
    return person;
  }

  /** The details of all events of a type. */
  all(type) {
    return this.heard.filter(([heard]) => heard === type).map(([, detail]) => detail);
  }

  get texts() {
    return this.all("message").map(({ text }) => text);
  }

  get states() {
    return this.all("state").map(({ state }) => state);
  }

  /** Where it was stored. A message of which nothing becomes is a test that fails, and not one that hangs. */
  say(text, options) {
    let timer;
    const nothing = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`nothing became of ${text}`)), PATIENCE_MS);
    });
    return Promise.race([this.hall.send(this.room, text, options), nothing]).finally(() => clearTimeout(timer));
  }

  hears(text) {
    return until(`${text} is heard`, () => this.texts.includes(text));
  }

  /** Says all of them, never more at a time than may wait. */
  async sayAll(texts, meanwhile = () => {}) {
    const waiting = new Set();
    const places = [];
    for (const text of texts) {
      const said = this.say(text).then((place) => {
        waiting.delete(said);
        places.push(place);
        meanwhile(places.length);
      });
      waiting.add(said);
      if (waiting.size >= 150) await Promise.race(waiting);
    }
    await Promise.all(waiting);
    return places;
  }

  leave() {
    this.hall.close();
  }
}

const EVENTS = [
  "state", "welcome", "joined", "caughtup", "message", "gap", "event", "presence", "members", "typing", "accepted", "failed", "refused",
  "left", "reconnect", "error",
];

/** 0 to n, as words. @param {number} n */
export const numbers = (n, word = "") => Array.from({ length: n }, (_, i) => `${word}${i}`);
