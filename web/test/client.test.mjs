// The SDK's own logic, against a socket that the test holds the other end of and a clock that it turns. Run by
// `node --test web/test/`; nothing to install.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { Townhall, uuid } from "../client.js";

const KEY = "7d444840-9dc0-41d1-b245-5ffdce74fad2";
const US = { id: "guest-us", name: "us" };
const THEM = { id: "guest-them", name: "them" };
const LIMITS = { text_bytes: 4096, rate: 0, burst: 0, dedupe_s: 600 };

/** The browser's end of a connection; the methods after the line are the server's. */
class FakeSocket {
  /** @type {FakeSocket[]} every one that was opened, in order */
  static opened = [];

  constructor(url, protocols) {
    Object.assign(this, { url: new URL(url), protocols, sent: [], closed: false });
    FakeSocket.opened.push(this);
  }

  send(text) {
    assert.ok(!this.closed, "nothing is sent on a closed socket");
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
  }

  // ---

  say(...frames) {
    for (const frame of frames) this.onmessage({ data: JSON.stringify(frame) });
  }

  welcome(more = {}) {
    const { limits, ...rest } = more;
    this.say({ type: "welcome", user: US, node: "n", session: "s", beat: 0, rooms: ["lobby"], limits: { ...LIMITS, ...limits }, ...rest });
  }

  /** Answers the newest join. */
  join(more) {
    const { room, ref } = this.all("join").at(-1);
    this.say({ type: "joined", room, epoch: "e1", backlog: 0, offset: 0, ref, ...more });
  }

  presence(count, joined, left) {
    this.say({ type: "presence", room: "lobby", count, joined, left });
  }

  /** Answers the newest question who is here. */
  list(count, members) {
    const question = this.all("who").at(-1);
    question.answered = true;
    this.say({ type: "members", room: "lobby", ref: question.ref, count, members });
  }

  drop(code = 1006, reason = "") {
    this.closed = true;
    this.onclose({ code, reason });
  }

  all(type) {
    return this.sent.filter((frame) => frame.type === type);
  }
}

const message = (offset, more = {}) => ({ type: "message", room: "lobby", offset, at: 1000 + offset, id: `m${offset}`, from: THEM, text: `t${offset}`, ...more });
const newest = () => FakeSocket.opened.at(-1);
const pass_ms = (ms) => mock.timers.tick(ms);

/** @type {Townhall[]} */
let halls = [];

/** A hall with a record of what it dispatched, connected and in the lobby up to the answers that the test gives. */
function hall(options = {}) {
  const made = new Townhall("http://hall.test/gin/ws", { name: "us", key: KEY, WebSocket: FakeSocket, ...options });
  made.heard = [];
  for (const type of ["state", "welcome", "joined", "caughtup", "message", "gap", "event", "accepted", "failed", "refused", "left", "error", "typing"]) {
    made.addEventListener(type, ({ detail }) => made.heard.push([type, detail]));
  }
  made.offsets = () => made.heard.filter(([type]) => type === "message").map(([, { offset }]) => offset);
  made.count = (type) => made.heard.filter(([heard]) => heard === type).length;
  halls.push(made);
  return made;
}

/** One that is in the lobby at (e1, `offset`). */
function settled(offset = 0, welcome = {}) {
  const made = hall();
  made.connect();
  made.join("lobby");
  newest().welcome(welcome);
  newest().join({ offset });
  return made;
}

/** What a promise came to by now. */
async function outcome(promise) {
  pass_ms(0);
  const now = new Promise((resolve) => setImmediate(resolve, "pending"));
  return Promise.race([promise.then((value) => ({ value }), (error) => ({ error: error.code })), now]);
}

let random = 0.5;
beforeEach(() => {
  FakeSocket.opened = [];
  halls = [];
  random = 0.5;
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  mock.method(Math, "random", () => random);
});
afterEach(() => {
  for (const made of halls) made.close();
  mock.timers.reset();
  mock.restoreAll();
});

test("it knocks with its name and key, as the protocol wants it", () => {
  const made = hall({ name: "李 雷" });
  made.connect();
  const { url, protocols } = newest();
  assert.equal(`${url.origin}${url.pathname}`, "ws://hall.test/gin/ws");
  assert.deepEqual([...url.searchParams].sort(), [["key", KEY], ["name", "李 雷"]]);
  assert.deepEqual(protocols, ["townhall.v1"]);
  newest().welcome();
  assert.equal(made.user.id, US.id);
  assert.equal(made.state, "open");
});

test("a nameless guest without a key stays the same person over reconnections", () => {
  const made = hall({ name: undefined, key: undefined });
  made.connect();
  newest().drop();
  pass_ms(500);
  const [first, second] = FakeSocket.opened.map(({ url }) => url.searchParams);
  assert.match(first.get("key"), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(first.get("key"), second.get("key"));
  assert.equal(first.has("name"), false);
  assert.notEqual(uuid(), uuid());
});

test("a fresh join replays the last messages and then is caught up", () => {
  const made = hall();
  made.connect();
  made.join("lobby", { last: 2 });
  assert.equal(newest().sent.length, 0, "nothing is sent before the welcome");
  newest().welcome();
  const { ref, ...join } = newest().sent[0];
  assert.deepEqual(join, { type: "join", room: "lobby", last: 2 });
  newest().join({ offset: 9, backlog: 2 });
  assert.deepEqual(made.position("lobby"), { epoch: "e1", offset: 7 });
  newest().say(message(8));
  assert.equal(made.count("caughtup"), 0);
  newest().say(message(9), message(10));
  assert.deepEqual(made.heard.map(([type]) => type).slice(-5), ["joined", "message", "message", "caughtup", "message"]);
  assert.deepEqual(made.offsets(), [8, 9, 10]);
});

test("a position moves by joined, by gaps and by what is stored, and by nothing else", async () => {
  const made = settled(5);
  const at = () => made.position("lobby");
  newest().say({ type: "accepted", room: "lobby", id: "x", epoch: "e1", offset: 77 });
  newest().say({ type: "typing", room: "lobby", from: THEM });
  newest().say({ type: "someday", room: "lobby", offset: 6 });
  newest().say({ type: "someday", room: "lobby", at: 6 });
  const history = made.history("lobby", { before: 3, limit: 2 });
  const { ref, ...asked } = newest().all("history")[0];
  assert.deepEqual(asked, { type: "history", room: "lobby", before: 3, limit: 2 });
  newest().say({ type: "history", room: "lobby", epoch: "e1", messages: [message(8)], more: true, ref });
  assert.deepEqual((await history).messages, [message(8)]);
  assert.deepEqual(at(), { epoch: "e1", offset: 5 });
  assert.deepEqual(made.offsets(), [], "what history returned is not dispatched");

  newest().say({ type: "someday", room: "lobby", offset: 6, at: 6 });
  assert.deepEqual(at(), { epoch: "e1", offset: 6 });
  newest().say({ type: "gap", room: "lobby", epoch: "e1", from: 7, to: 9 });
  assert.deepEqual(at(), { epoch: "e1", offset: 9 });
  newest().say(message(10));
  assert.deepEqual(at(), { epoch: "e1", offset: 10 });
  newest().say({ type: "joined", room: "lobby", epoch: "e2", offset: 12, backlog: 2, recovered: true });
  assert.deepEqual(at(), { epoch: "e2", offset: 10 });
});

test("what comes twice is dispatched once, and what never came is told", () => {
  const made = settled(5);
  newest().say(message(6), message(6), message(5), message(9));
  assert.deepEqual(made.offsets(), [6, 9]);
  const [, { from, to }] = made.heard.find(([type]) => type === "gap");
  assert.deepEqual([from, to], [7, 8]);
});

test("events of rooms that were never joined go nowhere", () => {
  const made = settled(0);
  newest().say(message(1, { room: "elsewhere" }), { type: "joined", room: "elsewhere", epoch: "e", offset: 0, backlog: 0 });
  assert.deepEqual(made.offsets(), []);
  assert.equal(made.position("elsewhere"), null);
});

test("after a cut it resumes where it was", () => {
  const made = settled(5);
  newest().say(message(6));
  newest().drop();
  assert.equal(made.state, "waiting");
  pass_ms(250);
  assert.equal(FakeSocket.opened.length, 2);
  newest().welcome();
  assert.deepEqual(newest().all("join")[0].after, { epoch: "e1", offset: 6 });
  newest().join({ offset: 8, backlog: 2, recovered: true });
  newest().say(message(7), message(8));
  assert.deepEqual(made.offsets(), [6, 7, 8]);
});

test("an empty room's position is one to resume from", () => {
  const made = hall();
  made.connect();
  made.join("lobby");
  newest().welcome();
  newest().join({ epoch: "", offset: 0 });
  newest().drop();
  pass_ms(250);
  newest().welcome();
  assert.deepEqual(newest().all("join")[0].after, { epoch: "", offset: 0 });
});

test("a room of which too much was lost begins anew at the position that the server gives", () => {
  const made = settled(5);
  newest().drop();
  pass_ms(250);
  newest().welcome();
  newest().join({ epoch: "e9", offset: 3, backlog: 1, recovered: false });
  newest().say(message(3));
  assert.deepEqual(made.offsets(), [3]);
  assert.deepEqual(made.position("lobby"), { epoch: "e9", offset: 3 });
});

test("send resolves with the place where the message is stored", async () => {
  const made = settled(5);
  const sent = made.send("lobby", "hello", { data: { mood: "good" } });
  const [{ id, ref, ...said }] = newest().all("say");
  assert.deepEqual(said, { type: "say", room: "lobby", text: "hello", data: { mood: "good" } });
  newest().say({ type: "accepted", room: "lobby", id, epoch: "e1", offset: 6 });
  assert.deepEqual(await sent, { room: "lobby", id, epoch: "e1", offset: 6 });
  newest().say(message(6, { id, from: US }));
  assert.equal(made.count("accepted"), 1, "the message itself says nothing new then");
});

test("our own message is as good as accepted, and another's under the same id is not", async () => {
  const made = settled(5);
  const sent = made.send("lobby", "hello");
  const [{ id }] = newest().all("say");
  newest().say(message(6, { id, from: THEM }));
  assert.equal(await outcome(sent), "pending");
  newest().say(message(7, { id, from: US }));
  assert.deepEqual(await sent, { room: "lobby", id, epoch: "e1", offset: 7 });
});

test("what was not accepted is sent again under its id, only after joined and the backlog", async () => {
  const made = settled(5);
  made.send("lobby", "one");
  made.send("lobby", "two");
  const before = newest().all("say");
  newest().drop();
  made.send("lobby", "three");
  pass_ms(250);
  newest().welcome();
  newest().join({ offset: 7, backlog: 2, recovered: true });
  newest().say(message(6));
  made.send("lobby", "four");
  assert.deepEqual(newest().all("say"), [], "not before the backlog is in");
  newest().say(message(7));
  const after = newest().all("say");
  assert.deepEqual(after.map(({ text }) => text), ["one", "two", "three", "four"]);
  assert.deepEqual(after.slice(0, 2).map(({ id }) => id), before.map(({ id }) => id));
});

test("what is found in the backlog is accepted and not sent again", async () => {
  const made = settled(5);
  const sent = made.send("lobby", "one");
  const other = made.send("lobby", "two");
  const [{ id }] = newest().all("say");
  newest().drop();
  pass_ms(250);
  newest().welcome();
  newest().join({ offset: 6, backlog: 1, recovered: true });
  newest().say(message(6, { id, from: US }));
  assert.deepEqual(await sent, { room: "lobby", id, epoch: "e1", offset: 6 });
  assert.deepEqual(newest().all("say").map(({ text }) => text), ["two"]);
  assert.equal(await outcome(other), "pending");
});

test("what is older than the server remembers is given up, unless the backlog has it", async () => {
  const made = settled(5, { limits: { dedupe_s: 60 } });
  const found = made.send("lobby", "found");
  const gone = made.send("lobby", "gone");
  const [{ id }] = newest().all("say");
  newest().drop();
  pass_ms(61_000);
  made.send("lobby", "young");
  newest().welcome({ limits: { dedupe_s: 60 } });
  newest().join({ offset: 6, backlog: 1, recovered: true });
  newest().say(message(6, { id, from: US }));
  assert.equal((await found).offset, 6);
  assert.deepEqual(await outcome(gone), { error: "expired" });
  assert.deepEqual(newest().all("say").map(({ text }) => text), ["young"]);
  const [, { error }] = made.heard.find(([type]) => type === "failed");
  assert.equal(error.code, "expired");
});

test("a failed message can be sent again as the same one", async () => {
  const made = settled(5);
  const refused = made.send("lobby", "rude");
  const [{ id }] = newest().all("say");
  newest().say({ type: "error", code: "muted", message: "hush", id, room: "lobby" });
  assert.deepEqual(await outcome(refused), { error: "muted" });
  const again = made.send("lobby", "rude", { id });
  assert.equal(made.send("lobby", "rude", { id }), again, "and only once at a time");
  assert.deepEqual(newest().all("say").map((say) => say.id), [id, id]);
});

test("a message that came too fast waits, and so does what follows it", async () => {
  const made = settled(5);
  const sent = made.send("lobby", "one");
  const [{ id }] = newest().all("say");
  newest().say({ type: "error", code: "rate_limited", message: "slowly", id, room: "lobby", retry_after_ms: 300 });
  made.send("lobby", "two");
  pass_ms(299);
  assert.equal(newest().all("say").length, 1);
  pass_ms(1);
  assert.deepEqual(newest().all("say").map(({ text }) => text), ["one", "one", "two"]);
  assert.equal(newest().all("say")[1].id, id);
  assert.equal(await outcome(sent), "pending");
});

test("while the broker is away a message is tried again under its id", () => {
  const made = settled(5);
  made.send("lobby", "one");
  const [{ id }] = newest().all("say");
  newest().say({ type: "error", code: "unavailable", message: "away", id, room: "lobby", retry_after_ms: 700 });
  pass_ms(700);
  assert.deepEqual(newest().all("say").map((say) => say.id), [id, id]);
});

test("a queue is emptied no faster than the server allows", () => {
  const made = settled(5, { limits: { rate: 10, burst: 4 } });
  const accept = (n) => newest().all("say").slice(-n).forEach(({ id, ref }) => newest().say({ type: "accepted", room: "lobby", id, ref, epoch: "e1", offset: 6 }));
  for (let i = 0; i < 6; i++) made.send("lobby", `${i}`);
  assert.equal(newest().sent.length, 4, "the join and three messages");
  accept(3);
  pass_ms(100);
  assert.equal(newest().all("say").length, 3, "a little slower than that: two clocks are never the same");
  pass_ms(110);
  assert.equal(newest().all("say").length, 5);
  pass_ms(100);
  assert.deepEqual(newest().all("say").map(({ text }) => text), ["0", "1", "2", "3", "4", "5"]);
});

test("what is not answered may be read all at once, so it holds back what follows", () => {
  const made = settled(5, { limits: { rate: 10, burst: 4 } });
  for (let i = 0; i < 6; i++) made.send("lobby", `${i}`);
  pass_ms(110);
  pass_ms(10_000);
  assert.equal(newest().all("say").length, 4, "a burst, however long it takes");
  const [{ id, ref }] = newest().all("say");
  newest().say({ type: "accepted", room: "lobby", id, ref, epoch: "e1", offset: 6 });
  pass_ms(101);
  assert.equal(newest().all("say").length, 4, "all four may have been read just now");
  pass_ms(2);
  assert.equal(newest().all("say").length, 5);
});

test("more than can wait is refused at once", async () => {
  const made = settled(5);
  newest().drop();
  for (let i = 0; i < 200; i++) made.send("lobby", "x");
  assert.deepEqual(await outcome(made.send("lobby", "one too many")), { error: "too_many" });
});

test("a message to a room that was not joined, or without a connection, is refused", async () => {
  assert.deepEqual(await outcome(settled(5).send("elsewhere", "x")), { error: "not_joined" });
  assert.deepEqual(await outcome(hall().send("lobby", "x")), { error: "closed" });
});

for (const [code, name] of [[4001, "unauthorized"], [4003, "banned"], [4004, "kicked"], [4042, "closed"]]) {
  test(`after ${code} it does not come back by itself`, async () => {
    const made = settled(5);
    const sent = made.send("lobby", "one");
    newest().drop(code, "go away");
    assert.deepEqual(made.heard.at(-1), ["state", { state: "closed", code, reason: "go away" }]);
    pass_ms(60_000);
    assert.equal(FakeSocket.opened.length, 1);
    assert.deepEqual(await outcome(sent), { error: name });
  });
}

for (const code of [1000, 1001, 1006, 1012, 1013, 4101, 4102, 4108, 4129]) {
  test(`after ${code} it comes back`, () => {
    settled(5);
    newest().drop(code);
    pass_ms(250);
    assert.equal(FakeSocket.opened.length, 2);
  });
}

test("it waits at random up to a bound that doubles from half a second to twenty", () => {
  const made = hall();
  random = 0.999;
  made.connect();
  for (const bound_ms of [500, 1000, 2000, 4000, 8000, 16000, 20000, 20000]) {
    newest().drop();
    assert.equal(made.heard.at(-1)[1].retry_ms, 0.999 * bound_ms);
    pass_ms(bound_ms);
  }
  random = 0.1;
  newest().drop();
  assert.equal(made.heard.at(-1)[1].retry_ms, 2000);
});

test("a connection that lasted makes the next one quick again, one that flaps does not", () => {
  const made = settled(5);
  const retry_ms = () => made.heard.at(-1)[1].retry_ms;
  newest().drop();
  pass_ms(250);
  newest().welcome();
  newest().drop();
  assert.equal(retry_ms(), 500);
  pass_ms(500);
  newest().welcome();
  pass_ms(5000);
  newest().drop();
  assert.equal(retry_ms(), 250);
});

test("a second call to connect does not wait any longer", () => {
  const made = settled(5);
  newest().drop();
  made.connect();
  assert.equal(FakeSocket.opened.length, 2);
  made.connect();
  pass_ms(500);
  assert.equal(FakeSocket.opened.length, 2, "and does not open a third");
});

test("asked to reconnect it stays to the end of its slot, then goes without waiting", () => {
  const made = settled(5);
  const old = newest();
  old.say({ type: "reconnect", after_ms: 4000 });
  pass_ms(3999);
  old.say(message(6));
  assert.equal(old.closed, false);
  pass_ms(1);
  assert.equal(old.closed, true);
  assert.equal(FakeSocket.opened.length, 2);
  old.onclose({ code: 1000, reason: "" });
  old.onmessage({ data: JSON.stringify(message(7)) });
  assert.equal(made.state, "connecting", "the old socket has no say any more");
  newest().welcome();
  assert.deepEqual(newest().all("join")[0].after, { epoch: "e1", offset: 6 });
});

test("servers that send us from one to the next are not obeyed without a pause for ever", () => {
  const made = settled(5);
  const sendOn = () => {
    newest().welcome();
    newest().say({ type: "reconnect", after_ms: 0 });
    pass_ms(1);
  };
  newest().say({ type: "reconnect", after_ms: 0 });
  pass_ms(1);
  assert.equal(FakeSocket.opened.length, 2, "the first time at once");
  for (let turn = 0; turn < 50; turn += 1) {
    if (!newest().closed) sendOn();
  }
  assert.equal(FakeSocket.opened.length, 2);
  assert.equal(made.state, "waiting");
  pass_ms(500);
  assert.equal(FakeSocket.opened.length, 3, "then after a pause");
});

test("what said good-bye is what a later message is refused for", async () => {
  const made = hall();
  assert.deepEqual(await outcome(made.send("lobby", "too early")), { error: "closed" });
  made.connect();
  made.join("lobby");
  newest().drop(4001, "not signed");
  assert.deepEqual(await outcome(made.send("lobby", "too late")), { error: "unauthorized" });
});

test("a line without a text frame for two and a half beats is dead", () => {
  const made = settled(5, { beat: 10 });
  pass_ms(20_000);
  newest().say({ type: "beat" });
  pass_ms(24_999);
  assert.equal(made.state, "open");
  pass_ms(1);
  assert.equal(made.state, "waiting");
  assert.equal(FakeSocket.opened[0].closed, true);
  pass_ms(250);
  assert.equal(FakeSocket.opened.length, 2);
});

test("a server that does not beat is never taken for dead", () => {
  const made = settled(5, { beat: 0 });
  pass_ms(3_600_000);
  assert.equal(made.state, "open");
});

test("a socket that opens and says nothing is given up", () => {
  const made = hall();
  made.connect();
  pass_ms(9_999);
  assert.equal(made.state, "connecting");
  pass_ms(1);
  assert.equal(made.state, "waiting");
});

test("a join that nobody can answer now is tried again from the same position", () => {
  const made = settled(5);
  newest().drop();
  pass_ms(250);
  newest().welcome();
  random = 0;
  const { ref } = newest().all("join")[0];
  newest().say({ type: "error", code: "unavailable", message: "away", room: "lobby", ref, retry_after_ms: 2000 });
  pass_ms(1999);
  assert.equal(newest().all("join").length, 1);
  pass_ms(1);
  assert.deepEqual(newest().all("join")[1].after, { epoch: "e1", offset: 5 });
  assert.equal(made.count("refused"), 0);
});

test("a join refused for good is told, and its messages fail", async () => {
  const made = hall();
  made.connect();
  made.join("lobby");
  const sent = made.send("lobby", "one");
  newest().welcome();
  const { ref } = newest().all("join")[0];
  newest().say({ type: "error", code: "forbidden", message: "not here", room: "lobby", ref });
  assert.equal(made.count("refused"), 1);
  assert.deepEqual(await outcome(sent), { error: "forbidden" });
  newest().drop();
  pass_ms(250);
  newest().welcome();
  assert.deepEqual(newest().sent, []);
});

test("after a fork it goes on from the new position, and what is on its way is not sent twice", () => {
  const made = settled(5);
  made.send("lobby", "on its way");
  newest().say({ type: "joined", room: "lobby", epoch: "e2", offset: 4, backlog: 1, recovered: false });
  newest().say(message(4));
  assert.deepEqual(made.offsets(), [4]);
  assert.deepEqual(made.position("lobby"), { epoch: "e2", offset: 4 });
  assert.equal(newest().all("say").length, 1);
});

test("joining a room again begins it anew, without a word of the former membership", () => {
  const made = settled(5);
  made.join("lobby", { last: 1 });
  assert.equal("after" in newest().all("join")[1], false);
  newest().say(message(6), { type: "joined", room: "lobby", epoch: "e1", offset: 6, backlog: 0, recovered: true }, message(7));
  assert.deepEqual(made.offsets(), []);
  newest().join({ offset: 7, backlog: 1 });
  newest().say(message(7), message(8));
  assert.deepEqual(made.offsets(), [7, 8]);
});

test("a listener may join anew in the middle of things", () => {
  const made = settled(5);
  made.addEventListener("joined", () => made.join("lobby"), { once: true });
  const before = made.count("caughtup");
  newest().say({ type: "joined", room: "lobby", epoch: "e2", offset: 0, backlog: 0, recovered: false });
  assert.equal(made.count("caughtup"), before, "the room that was caught up is not this one any more");
  newest().join({ offset: 0 });
  assert.equal(made.count("caughtup"), before + 1);
});

test("an error that belongs to no command of ours is told as it is", () => {
  const made = settled(5);
  newest().say({ type: "error", code: "bad_frame", message: "what?", ref: null });
  assert.equal(made.count("error"), 1);
  newest().say(message(6));
  assert.deepEqual(made.offsets(), [6]);
});

test("nothing of a room comes after it was left", async () => {
  const made = settled(5);
  const sent = made.send("lobby", "one");
  made.leave("lobby");
  newest().say(message(6), { type: "typing", room: "lobby", from: THEM });
  assert.deepEqual([made.offsets(), made.count("typing")], [[], 0]);
  assert.equal(newest().all("leave")[0].room, "lobby");
  assert.deepEqual(await outcome(sent), { error: "left" });
});

test("history fails with the line and with the server's words", async () => {
  const made = settled(5);
  const refused = made.history("lobby");
  newest().say({ type: "error", code: "unavailable", message: "away", room: "lobby", ref: newest().all("history")[0].ref, retry_after_ms: 500 });
  assert.equal(await refused.catch(({ retry_after_ms }) => retry_after_ms), 500);
  const cut = made.history("lobby");
  newest().drop();
  assert.deepEqual(await outcome(cut), { error: "offline" });
  assert.deepEqual(await outcome(made.history("lobby")), { error: "offline" });
});

/** One that comes in with tokens; `bring` is what `getToken` does for the attempt of a number, from 1. */
function known(bring, options = {}) {
  let attempts = 0;
  const made = hall({ name: undefined, getToken: async () => bring(++attempts), ...options });
  made.attempts = () => attempts;
  made.connect();
  return made;
}

/** Lets promises have their turn. */
const turn = () => new Promise((resolve) => setImmediate(resolve));

test("a token comes as subprotocol, beside the name that it is for, and in no address", async () => {
  const made = known(() => ({ name: "李 雷", token: "a-_~.1" }));
  assert.equal(made.state, "connecting");
  assert.equal(FakeSocket.opened.length, 0, "nobody knocks before the token is there");
  await turn();
  assert.deepEqual(newest().protocols, ["townhall.v1", "bearer.a-_~.1"]);
  assert.deepEqual([...newest().url.searchParams], [["name", "李 雷"]], "and a guest's key is none of its business");
  newest().welcome();
  assert.equal(made.state, "open");
});

test("a token alone is for the name that was given, if any", async () => {
  known(() => "t1", { name: "us" });
  await turn();
  assert.deepEqual([newest().protocols[1], newest().url.search], ["bearer.t1", "?name=us"]);
  known(() => "t2");
  await turn();
  assert.deepEqual([newest().protocols[1], newest().url.search], ["bearer.t2", ""]);
});

test("a token that can be no subprotocol comes in the address", async () => {
  for (const token of ["a b", "YQ==", "a/b", "a,b", "密"]) {
    known(() => token);
    await turn();
    assert.deepEqual(newest().protocols, ["townhall.v1"]);
    assert.equal(newest().url.searchParams.get("token"), token);
  }
});

test("every attempt to connect brings a token of its own", async () => {
  const made = known((attempt) => `t${attempt}`);
  made.join("lobby");
  await turn();
  newest().welcome();
  newest().join({ offset: 5 });
  newest().drop();
  pass_ms(250);
  await turn();
  assert.equal(newest().protocols[1], "bearer.t2");
  newest().welcome();
  assert.deepEqual(newest().all("join")[0].after, { epoch: "e1", offset: 5 });
  newest().say({ type: "reconnect", after_ms: 10 });
  pass_ms(10);
  await turn();
  assert.equal(newest().protocols[1], "bearer.t3");
});

test("without a token an attempt has failed, and the next one asks again", async () => {
  const away = () => Promise.reject(new Error("the site is away"));
  const failures = [away, () => "", () => undefined, () => ({ name: "us" }), () => Promise.reject("up")];
  const made = known((attempt) => (failures[attempt - 1] ?? (() => "t"))());
  made.join("lobby");
  const sent = made.send("lobby", "one");
  for (const bound_ms of [500, 1000, 2000, 4000, 8000]) {
    await turn();
    const [, { state, code, retry_ms }] = made.heard.at(-1);
    assert.deepEqual([state, code, retry_ms], ["waiting", undefined, bound_ms / 2]);
    pass_ms(bound_ms / 2);
  }
  await turn();
  const reasons = made.heard.filter(([, { state }]) => state === "waiting").map(([, { reason }]) => reason);
  const none = "getToken gave no token";
  assert.deepEqual(reasons, ["the site is away", none, none, none, "up"]);
  assert.equal(FakeSocket.opened.length, 1, "nobody knocked without a token");
  newest().welcome();
  newest().join();
  assert.deepEqual(newest().all("say").map(({ text }) => text), ["one"]);
  assert.equal(await outcome(sent), "pending");
});

test("a getToken that throws at once is an attempt that failed, too", async () => {
  const made = hall({ getToken: () => { throw new Error("broken"); } });
  made.connect();
  await turn();
  assert.deepEqual([made.state, made.heard.at(-1)[1].reason], ["waiting", "broken"]);
});

test("a token that comes too late is not used", async () => {
  const waiting = [];
  const made = known(() => new Promise((resolve) => waiting.push(resolve)));
  await turn();
  pass_ms(9_999);
  assert.equal(made.state, "connecting");
  pass_ms(1);
  assert.equal(made.state, "waiting");
  pass_ms(250);
  await turn();
  assert.equal(made.attempts(), 2);
  waiting[0]("late");
  await turn();
  assert.equal(FakeSocket.opened.length, 0);
  waiting[1]("fresh");
  await turn();
  assert.deepEqual(FakeSocket.opened.map(({ protocols }) => protocols[1]), ["bearer.fresh"]);
});

test("who closes while a token is being got is closed, and getToken may do so itself", async () => {
  let bring;
  const left = known(() => new Promise((resolve) => { bring = resolve; }));
  await turn();
  left.close();
  bring("t");
  const out = known(() => {
    out.close();
    throw new Error("logged out");
  });
  await turn();
  pass_ms(60_000);
  await turn();
  for (const made of [left, out]) assert.deepEqual([made.state, made.attempts()], ["closed", 1]);
  assert.equal(FakeSocket.opened.length, 0);
});

test("after its token has expired it comes at once with a new one, but not over and over", async () => {
  const made = known((attempt) => `t${attempt}`);
  await turn();
  newest().welcome();
  newest().drop(4101, "expired");
  assert.equal(made.state, "connecting");
  await turn();
  assert.equal(newest().protocols[1], "bearer.t2");
  newest().welcome();
  newest().drop(4101, "expired");
  assert.deepEqual([made.state, made.heard.at(-1)[1].retry_ms], ["waiting", 500]);
  pass_ms(500);
  await turn();
  newest().welcome();
  pass_ms(5_000);
  newest().drop(4101, "expired");
  assert.equal(made.state, "connecting", "a token that lasted is another matter");
});

test("a token that nobody wants is the end", async () => {
  const made = known((attempt) => `t${attempt}`);
  await turn();
  newest().say({ type: "error", code: "unauthorized", message: "that is not your token" });
  newest().drop(4001, "unauthorized");
  pass_ms(60_000);
  await turn();
  assert.deepEqual([made.state, made.attempts()], ["closed", 1]);
});

test("what one person said is not said by another who has the next token", async () => {
  const made = known((attempt) => `t${attempt}`);
  made.join("lobby");
  await turn();
  newest().welcome();
  newest().join();
  const sent = made.send("lobby", "mine");
  for (const user of [US, THEM]) {
    newest().drop();
    pass_ms(500);
    await turn();
    newest().welcome({ user });
    newest().join({ recovered: true });
    assert.equal(newest().all("say").length, user === US ? 1 : 0);
  }
  assert.deepEqual(await outcome(sent), { error: "other_user" });
});

test("a new name is taken by the same person, who misses nothing", async () => {
  const made = settled(5);
  const sent = made.send("lobby", "one");
  const old = newest();
  made.rename("somebody else");
  assert.equal(old.closed, true);
  assert.deepEqual([...newest().url.searchParams].sort(), [["key", KEY], ["name", "somebody else"]]);
  newest().welcome();
  assert.deepEqual(newest().all("join")[0].after, { epoch: "e1", offset: 5 });
  newest().join({ offset: 5, recovered: true });
  const [{ id }] = newest().all("say");
  assert.equal(id, old.all("say")[0].id);
  newest().say({ type: "accepted", room: "lobby", id, epoch: "e1", offset: 6 });
  assert.equal((await sent).offset, 6);
});

test("close ends it: what waits fails and nothing is opened again", async () => {
  const made = settled(5, { beat: 10 });
  const sent = made.send("lobby", "one");
  made.close();
  assert.equal(newest().closed, true);
  pass_ms(3_600_000);
  assert.equal(FakeSocket.opened.length, 1);
  assert.deepEqual(await outcome(sent), { error: "closed" });
  made.connect();
  newest().welcome();
  assert.deepEqual(newest().all("join")[0].after, { epoch: "e1", offset: 5 }, "but it may come back");
});

test("the browser's word that the network is back, or gone, is taken at once", async () => {
  const events = new EventTarget();
  for (const method of ["addEventListener", "removeEventListener"]) globalThis[method] = events[method].bind(events);
  try {
    const made = settled(5);
    newest().drop();
    events.dispatchEvent(new Event("online"));
    assert.equal(FakeSocket.opened.length, 2);
    newest().welcome();
    events.dispatchEvent(new Event("offline"));
    pass_ms(1);
    newest().say({ type: "beat" });
    events.dispatchEvent(new Event("online"));
    assert.equal(FakeSocket.opened.length, 2, "a line that was heard since is good");
    events.dispatchEvent(new Event("offline"));
    pass_ms(1);
    events.dispatchEvent(new Event("online"));
    assert.equal(FakeSocket.opened.length, 3, "a silent one is likely another network's");
    newest().welcome();
    newest().join({ offset: 5 });
    events.dispatchEvent(new Event("offline"));
    const { room, ref } = newest().all("history")[0];
    newest().say({ type: "history", room, ref, epoch: "e1", messages: [], more: false });
    pass_ms(30_000);
    assert.equal(made.state, "open", "who answers is there, whatever the browser says");
    events.dispatchEvent(new Event("offline"));
    pass_ms(9_999);
    assert.equal(made.state, "open");
    pass_ms(1);
    await turn();
    assert.equal(made.state, "waiting", "who does not is gone");
    made.close();
    events.dispatchEvent(new Event("online"));
    assert.equal(FakeSocket.opened.length, 3, "closed is closed");
  } finally {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  }
});

test("what is no JSON object does no harm", () => {
  const made = settled(5);
  for (const data of ["{", "null", "7", "[]", new ArrayBuffer(1)]) newest().onmessage({ data });
  newest().say(message(6));
  assert.equal(made.count("error"), 4);
  assert.deepEqual(made.offsets(), [6]);
});

// --- Joining ---

test("nothing may be replayed, and a room may be resumed from an earlier life", () => {
  const made = hall();
  made.connect();
  newest().welcome();
  made.join("lobby", { last: 0 });
  made.join("help", { after: { epoch: "e1", offset: 7, more: "than that" } });
  const joins = newest().all("join").map(({ ref, ...join }) => join);
  assert.deepEqual(joins, [
    { type: "join", room: "lobby", last: 0 },
    { type: "join", room: "help", after: { epoch: "e1", offset: 7 }, last: 50 },
  ]);
  assert.deepEqual(made.position("help"), { epoch: "e1", offset: 7 });
  assert.deepEqual(made.rooms, ["lobby", "help"]);
  made.leave("lobby");
  assert.deepEqual(made.rooms, ["help"]);
});

test("options of the wrong shape are refused where they are given", () => {
  const made = hall();
  const wrong = [
    { last: -1 }, { last: 1.5 }, { last: "50" }, { after: 7 }, { after: {} }, { after: { epoch: "e", offset: -1 } },
    { after: { epoch: null, offset: 1 } }, { after: { epoch: "e", offset: "1" } }, { after: { epoch: "e", offset: NaN } },
  ];
  for (const options of wrong) assert.throws(() => made.join("lobby", options), TypeError, JSON.stringify(options));
  assert.throws(() => made.join(""), TypeError);
  assert.throws(() => made.join(undefined), TypeError);
  assert.deepEqual(made.rooms, []);
  for (const url of ["ftp://hall/ws", "data:,x", "no address"]) {
    assert.throws(() => new Townhall(url, { WebSocket: FakeSocket }), TypeError, url);
  }
});

test("thirty-two rooms and two hundred messages are nothing that the server refuses", () => {
  const rate = 20, burst = 40;
  const made = hall();
  made.connect();
  for (let i = 0; i < 32; i++) made.join(`r${i}`, { members: true });
  for (let i = 0; i < 200; i++) made.send(`r${i % 32}`, `${i}`);
  newest().welcome({ limits: { rate, burst } });
  const read = [];
  for (let now_ms = 0, done = 0; now_ms < 20_000; pass_ms(10), now_ms += 10) {
    const { sent } = newest();
    for (; done < sent.length; done++) {
      read.push(now_ms);
      answer(sent[done]);
    }
  }
  assert.equal(newest().all("say").length, 200);
  assert.equal(newest().all("who").length, 32);
  assert.equal(read.length, 264);
  // Whatever the window, no more than a burst and what the rate allows in it.
  read.forEach((from, i) => read.slice(i).forEach((to, n) => assert.ok(n + 1 <= burst + 1 + ((to - from) * rate) / 1000, `${n + 1} in ${to - from} ms`)));
});

/** What a server says to a command. */
function answer({ type, room, id, ref }) {
  if (type === "join") newest().say({ type: "joined", room, epoch: "e1", offset: 0, backlog: 0, members: 1, ref });
  if (type === "say") newest().say({ type: "accepted", room, id, ref, epoch: "e1", offset: 1 });
  if (type === "who") newest().say({ type: "members", room, ref, count: 1, members: [US] });
}

test("a join that waits for the pace is forgotten with its room", () => {
  const made = settled(0, { limits: { rate: 10, burst: 1 } });
  made.join("one");
  made.join("two");
  made.leave("one");
  made.leave("two");
  made.join("three");
  made.join("three");
  pass_ms(10_000);
  answer(newest().sent.at(-1));
  pass_ms(10_000);
  assert.deepEqual(newest().sent.slice(1).map(({ type, room }) => [type, room]), [["join", "three"]]);
});

test("a leave that came too fast is said again, unless we want to be there again", () => {
  const made = settled(0);
  const tooFast = ({ ref, room }) => newest().say({ type: "error", code: "rate_limited", message: "slowly", ref, room, retry_after_ms: 100 });
  made.leave("lobby");
  tooFast(newest().all("leave")[0]);
  pass_ms(100);
  assert.equal(newest().all("leave").length, 2);
  made.join("lobby");
  tooFast(newest().all("leave")[1]);
  pass_ms(1000);
  assert.equal(newest().all("leave").length, 2);
  assert.equal(made.count("error"), 0);
});

// --- Who is here ---

const ADA = { id: "ada", name: "Ada" };
const BEN = { id: "ben", name: "Ben" };

/** One in the lobby with the list of who is here. */
function among(count, people) {
  const made = hall();
  made.lists = [];
  made.addEventListener("members", ({ detail: { count, members } }) => made.lists.push([count, members.map(({ name }) => name).join()]));
  made.connect();
  made.join("lobby", { members: true });
  newest().welcome();
  newest().join({ members: count });
  pass_ms(0);
  if (people) newest().list(count, people);
  return made;
}

test("who is here is asked after joined, and kept by what is told", async () => {
  const made = among(2);
  assert.deepEqual(made.members("lobby"), { count: 2, members: [] }, "how many is known at once");
  newest().list(2, [US, ADA]);
  await turn();
  newest().presence(3, [BEN], []);
  newest().presence(3, [BEN], []);
  newest().presence(3, [{ id: "ada", name: "Countess" }], []);
  newest().presence(2, [], [BEN]);
  newest().presence(2, [], [BEN]);
  assert.deepEqual(made.lists, [[2, ""], [2, "us,Ada"], [3, "us,Ada,Ben"], [3, "us,Countess,Ben"], [2, "us,Countess"]]);
  assert.deepEqual(made.members("lobby"), { count: 2, members: [US, { id: "ada", name: "Countess" }] });
  pass_ms(60_000);
  assert.equal(newest().all("who").length, 1, "one question was enough");
  assert.equal(made.members("elsewhere"), null);
});

test("without the wish for a list presence is told as it comes, and nothing is asked", () => {
  const made = settled(0);
  let told = 0;
  made.addEventListener("presence", () => (told += 1));
  newest().presence(9, [BEN], []);
  pass_ms(60_000);
  assert.deepEqual([told, newest().all("who").length, made.members("lobby")], [1, 0, null]);
});

test("a list that disagrees with the count is asked for again, one question at a time and ever less often", async () => {
  const made = among(2, [US, ADA]);
  await turn();
  const asked = () => newest().all("who").length;
  newest().presence(5, [BEN], []);
  newest().presence(5, [], []);
  pass_ms(749);
  assert.equal(asked(), 1);
  pass_ms(1);
  assert.equal(asked(), 2);
  newest().presence(4, [], []);
  pass_ms(9_000);
  assert.equal(asked(), 2, "never a second question before the first is answered");
  const times = [];
  for (let seconds = 0; seconds < 600; seconds++) {
    if (!newest().all("who").at(-1).answered) {
      newest().list(4, [US, ADA]);
      times.push(seconds);
      await turn();
    }
    pass_ms(1000);
  }
  assert.ok(times.length < 35, `${times.length} questions in ten minutes`);
  assert.ok(times.length > 15, "but it does not give up");
  while (newest().all("who").at(-1).answered) pass_ms(1_000);
  newest().list(2, [US, ADA]);
  await turn();
  assert.deepEqual(made.members("lobby"), { count: 2, members: [US, ADA] });
  const before = asked();
  pass_ms(600_000);
  assert.equal(asked(), before);
});

test("a count without names, where there should be some, makes the list doubtful", async () => {
  const made = among(2, [US, ADA]);
  await turn();
  newest().presence(2);
  pass_ms(1_000);
  newest().list(2, [US, BEN]);
  await turn();
  assert.deepEqual(made.lists.at(-1), [2, "us,Ben"]);
});

test("in a crowd there is only a count, and with fewer than that the list is back", async () => {
  const made = among(201);
  pass_ms(60_000);
  assert.deepEqual([newest().all("who").length, made.lists], [0, [[201, ""]]]);
  newest().presence(2);
  pass_ms(1_000);
  newest().list(2, [US, ADA]);
  await turn();
  newest().presence(1_000);
  assert.deepEqual(made.lists, [[201, ""], [2, ""], [2, "us,Ada"], [1000, ""]]);
});

test("after a reconnection the list is asked for at another moment by everybody, and stands meanwhile", async () => {
  const made = among(2, [US, ADA]);
  await turn();
  newest().drop();
  pass_ms(250);
  assert.deepEqual(made.members("lobby").count, 2);
  newest().welcome();
  random = 0.7;
  newest().join({ recovered: true, members: 2 });
  pass_ms(699);
  assert.equal(newest().all("who").length, 0);
  pass_ms(1);
  newest().list(2, [BEN, US]);
  assert.deepEqual(made.lists.at(-1), [2, "us,Ben"], "who stayed keeps his place");
});

test("a question about members that fails is asked again, and a lost one dies with its line", async () => {
  const made = among(2);
  const refuse = () => newest().say({ type: "error", code: "unavailable", message: "away", ref: newest().all("who").at(-1).ref, room: "lobby" });
  refuse();
  await turn();
  pass_ms(1_500);
  assert.equal(newest().all("who").length, 2);
  newest().drop();
  await turn();
  pass_ms(250);
  newest().welcome();
  newest().join({ members: 2 });
  pass_ms(1_000);
  assert.equal(newest().all("who").length, 1);
  assert.equal(made.count("error"), 0);
});

test("who() gives the server's list, and its refusal", async () => {
  const made = settled(0);
  const asked = made.who("lobby");
  newest().list(2, [US, ADA]);
  const { count, members } = await asked;
  assert.deepEqual([count, members], [2, [US, ADA]]);
  const refused = made.who("lobby");
  newest().say({ type: "error", code: "unavailable", message: "away", ref: newest().all("who").at(-1).ref, room: "lobby" });
  assert.deepEqual(await outcome(refused), { error: "unavailable" });
  assert.deepEqual(await outcome(made.who("elsewhere")), { error: "not_joined" });
});

test("a history holds what can be shown, and nothing else", async () => {
  const made = settled(5);
  const asked = made.history("lobby");
  const { room, ref } = newest().all("history")[0];
  const poll = { type: "poll", room, offset: 2, at: 1 };
  const broken = [null, 7, message(3, { from: undefined }), message(4, { text: 7 }), message("5"), { type: "poll" }];
  newest().say({ type: "history", room, ref, epoch: "e1", messages: [message(1), poll, ...broken], more: false });
  assert.deepEqual((await asked).messages, [message(1), poll]);
});

test("a question that is not answered ends after ten seconds, and with its room", async () => {
  const made = settled(0);
  const history = made.history("lobby"), who = made.who("lobby");
  pass_ms(9_999);
  assert.equal(await outcome(history), "pending");
  pass_ms(1);
  assert.deepEqual([await outcome(history), await outcome(who)], [{ error: "unavailable" }, { error: "unavailable" }]);
  newest().say({ type: "history", room: "lobby", epoch: "e1", messages: [], more: false, ref: newest().all("history")[0].ref });
  const left = made.history("lobby");
  made.leave("lobby");
  assert.deepEqual(await outcome(left), { error: "left" });
});

test("more questions than can wait are refused at once", async () => {
  const made = settled(0);
  for (let i = 0; i < 100; i++) made.history("lobby").catch(() => {});
  assert.deepEqual(await outcome(made.history("lobby")), { error: "too_many" });
});

// --- Typing ---

test("that we type is said once in three seconds and a room, and not where it cannot be", () => {
  const made = settled(0);
  made.join("help");
  made.typing("help");
  made.typing("elsewhere");
  newest().join();
  for (const room of ["lobby", "lobby", "help"]) made.typing(room);
  pass_ms(2_999);
  made.typing("lobby");
  assert.deepEqual(newest().all("typing").map(({ room }) => room), ["lobby", "help"]);
  pass_ms(1);
  made.typing("lobby");
  assert.equal(newest().all("typing").length, 3);
  newest().drop();
  pass_ms(10_000);
  made.typing("lobby");
  assert.deepEqual(newest().all("typing"), []);
});

test("typing waits for nothing: what the pace does not allow is not said", () => {
  const made = settled(0, { limits: { rate: 1, burst: 2 } });
  made.send("lobby", "one");
  made.send("lobby", "two");
  made.typing("lobby");
  pass_ms(60_000);
  assert.equal(newest().all("typing").length, 0);
});

// --- Our messages ---

test("what was made in an earlier life is as old as it is", async () => {
  const made = settled(0, { limits: { dedupe_s: 60 } });
  const id = uuid();
  const old = made.send("lobby", "old", { id, made: Date.now() - 60_001 });
  const young = made.send("lobby", "young", { made: Date.now() - 59_000 });
  const tomorrow = made.send("lobby", "tomorrow", { made: Date.now() + 86_400_000 });
  assert.deepEqual(await outcome(old), { error: "expired" });
  assert.deepEqual([await outcome(young), await outcome(tomorrow)], ["pending", "pending"]);
  assert.deepEqual(newest().all("say").map(({ text }) => text), ["young", "tomorrow"]);
  assert.equal(made.pending[1].made, Date.now(), "nobody made it in the future");
});

test("a clock that is set back makes nothing younger, and no dead line alive", async () => {
  let back_ms = 0;
  const now = Date.now;
  mock.method(Date, "now", () => now() - back_ms);
  const made = settled(0, { limits: { dedupe_s: 60 } });
  const sent = made.send("lobby", "one");
  newest().drop();
  for (let seconds = 0; seconds < 100; seconds++) pass_ms(1_000);
  back_ms = 3_600_000;
  made.connect();
  newest().welcome({ beat: 10, limits: { dedupe_s: 60 } });
  newest().join({ recovered: true });
  assert.deepEqual([newest().all("say"), await outcome(sent)], [[], { error: "expired" }]);
  back_ms = 7_200_000;
  pass_ms(50_000);
  assert.ok(made.heard.some(([, { reason }]) => reason === "no sign of life"));
});

test("what waits can be looked at", () => {
  const made = settled(0);
  made.send("lobby", "one", { data: { a: 1 } });
  const [{ id }] = newest().all("say");
  assert.deepEqual(made.pending, [{ room: "lobby", id, text: "one", data: { a: 1 }, made: 1_000_000 }]);
  newest().say({ type: "accepted", room: "lobby", id, epoch: "e1", offset: 1 });
  assert.deepEqual(made.pending, []);
});

test("a message is said as it was when it was given", () => {
  const made = settled(0);
  const data = { mood: "good" };
  made.send("lobby", "one", { data });
  data.mood = "changed";
  newest().drop();
  pass_ms(250);
  newest().welcome();
  newest().join({ recovered: true });
  assert.deepEqual(newest().all("say")[0].data, { mood: "good" });
});

test("half a character is no reason for the server not to understand", () => {
  const made = settled(0);
  made.send("lobby", "a\ud83db 😀", { data: { x: ["\ude00"] } });
  const { text, data } = newest().all("say")[0];
  assert.deepEqual([text, data], ["a\ufffdb 😀", { x: ["\ufffd"] }]);
});

test("what could never be said fails by itself, and what follows goes on", async () => {
  const made = settled(0, { limits: { text_bytes: 6, data_bytes: 20 } });
  const loop = {};
  loop.loop = loop;
  const told = [];
  made.addEventListener("failed", ({ detail }) => told.push(detail.error.code));
  const sent = [
    made.send("lobby", "大大大"), made.send("lobby", "x", { data: { much: "too much of this" } }), made.send("lobby", "x", { data: loop }),
    made.send("lobby", "x", { id: "no uuid" }), made.send("lobby", "大大"),
  ];
  const codes = [];
  for (const promise of sent) codes.push((await outcome(promise)).error);
  assert.deepEqual(codes, ["too_long", "too_long", "bad_frame", "bad_frame", undefined]);
  assert.deepEqual(told, ["too_long", "too_long", "bad_frame", "bad_frame"], "by event, too");
  assert.deepEqual(newest().all("say").map(({ text }) => text), ["大大"]);
});

test("an id is the same however it is written", async () => {
  const made = settled(0);
  const id = uuid();
  const sent = made.send("lobby", "one", { id: id.toUpperCase() });
  newest().say({ type: "accepted", room: "lobby", id, epoch: "e1", offset: 1 });
  assert.equal((await sent).id, id);
});

test("a message in one room waits for none in another", () => {
  const made = settled(0);
  made.join("help");
  newest().join();
  made.send("lobby", "one");
  const [{ id }] = newest().all("say");
  newest().say({ type: "error", code: "unavailable", message: "away", id, room: "lobby", retry_after_ms: 500 });
  made.send("lobby", "two");
  made.send("help", "three");
  assert.deepEqual(newest().all("say").map(({ text }) => text), ["one", "three"]);
  pass_ms(500);
  assert.deepEqual(newest().all("say").map(({ text }) => text), ["one", "three", "one", "two"]);
});

// --- Bad company ---

test("listeners may do anything in the middle of things", async () => {
  const made = settled(0, { beat: 10 });
  made.send("lobby", "one");
  made.addEventListener("failed", ({ detail: { error } }) => {
    if (error.code === "closed" && made.count("failed") < 9) made.send("lobby", "again, while closing");
  });
  made.addEventListener("gap", () => made.leave("lobby"));
  newest().say(message(9));
  assert.deepEqual([made.count("message"), made.count("caughtup"), made.state], [0, 1, "open"], "left in the middle of a gap");
  made.join("lobby");
  newest().join();
  made.send("lobby", "two");
  made.close();
  pass_ms(0);
  assert.deepEqual([made.state, made.pending], ["closed", []]);
  assert.equal(made.heard.at(-1)[1].error.code, "closed", "what was said to a closed hall");
  made.addEventListener("state", () => made.close(), { once: true });
  made.connect();
  assert.deepEqual([made.state, FakeSocket.opened.length], ["closed", 1], "closed while connecting");
  made.connect();
  made.addEventListener("state", () => made.rename("quick"), { once: true });
  const before = made.count("welcome");
  newest().welcome({ beat: 10 });
  assert.deepEqual([made.state, made.count("welcome")], ["connecting", before], "renamed while it opened");
  made.addEventListener("state", () => made.close(), { once: true });
  newest().welcome({ beat: 10 });
  assert.deepEqual([made.state, made.count("welcome")], ["closed", before], "closed while it opened");
  const { length } = FakeSocket.opened;
  pass_ms(3_600_000);
  assert.deepEqual([made.state, FakeSocket.opened.length], ["closed", length]);
});

test("a socket that cannot be made is an attempt that failed, and says why", async () => {
  let broken = true;
  class Refused extends FakeSocket {
    constructor(...args) {
      if (broken) throw new Error("an insecure connection may not be made");
      super(...args);
    }
  }
  for (const options of [{}, { getToken: () => "t" }]) {
    broken = true;
    const made = hall({ WebSocket: Refused, ...options });
    made.connect();
    await turn();
    assert.deepEqual(made.heard.at(-1), ["state", { state: "waiting", code: undefined, reason: "an insecure connection may not be made", retry_ms: 250 }]);
    broken = false;
    pass_ms(250);
    await turn();
    newest().welcome();
    assert.equal(made.state, "open");
  }
});

test("a socket that throws or swallows what is sent loses nothing", () => {
  const made = settled(0, { beat: 0 });
  newest().send = () => {
    throw new Error("closing");
  };
  made.send("lobby", "one");
  pass_ms(29_999);
  assert.equal(made.state, "open");
  pass_ms(1);
  assert.deepEqual([made.state, made.heard.at(-1)[1].reason], ["waiting", "no answer"]);
  pass_ms(250);
  newest().welcome();
  newest().join({ recovered: true });
  assert.deepEqual(newest().all("say").map(({ text }) => text), ["one"]);
});

test("a line that answers what is asked is never taken for a mute one", () => {
  const made = settled(0);
  for (let i = 0; i < 10; i++) {
    pass_ms(20_000);
    made.history("lobby").catch(() => {});
    pass_ms(5_000);
    newest().say({ type: "history", room: "lobby", epoch: "e1", messages: [], more: false, ref: newest().all("history").at(-1).ref });
  }
  pass_ms(3_600_000);
  assert.equal(made.state, "open");
});

for (const [what, frame] of [
  ["a welcome to nobody", { type: "welcome" }],
  ["a welcome to somebody without a name", { type: "welcome", user: { id: "x" } }],
]) {
  test(`${what} is none`, () => {
    const made = hall();
    made.connect();
    newest().say(frame);
    assert.equal(made.state, "waiting");
    assert.equal(newest().closed, true);
  });
}

for (const frame of [
  { type: "joined" }, { type: "joined", epoch: "e", offset: "3", backlog: 0 }, { type: "joined", epoch: 1, offset: 3, backlog: 0 },
  { type: "joined", epoch: "e", offset: 3, backlog: 4 }, { type: "joined", epoch: "e", offset: 3, backlog: -1 },
  { type: "joined", epoch: "e", offset: 1.5, backlog: 0 }, { type: "gap" }, { type: "gap", epoch: "e", from: 1, to: "9" },
]) {
  test(`${JSON.stringify(frame)} is no place to go on from, so the server is asked anew`, () => {
    const made = settled(5);
    newest().say({ room: "lobby", ...frame });
    assert.equal(made.state, "waiting");
    assert.deepEqual(made.position("lobby"), { epoch: "e1", offset: 5 });
  });
}

test("a welcome that allows nothing in particular lets us speak", () => {
  for (const limits of [undefined, {}, { rate: "much", burst: null, dedupe_s: -1, text_bytes: NaN }, { rate: 5, burst: 0 }]) {
    const made = hall();
    made.connect();
    made.join("lobby");
    newest().say({ type: "welcome", user: US, limits, beat: "soon" });
    newest().join();
    pass_ms(1_000);
    made.send("lobby", "one");
    assert.equal(newest().all("say").length, 1, JSON.stringify(limits));
  }
});

test("times that make no sense are bounded", () => {
  for (const [after_ms, stays_ms] of [[NaN, 0], ["soon", 0], [-5, 0], [undefined, 0], [1e12, 600_000], [Infinity, 0]]) {
    const made = settled(0, { beat: 1e9 });
    const before = FakeSocket.opened.length;
    newest().onmessage({ data: JSON.stringify({ type: "reconnect", after_ms }) });
    if (stays_ms) pass_ms(stays_ms - 1);
    if (stays_ms) assert.equal(FakeSocket.opened.length, before);
    pass_ms(1);
    assert.equal(FakeSocket.opened.length, before + 1, `${after_ms}`);
    made.close();
  }
  const made = settled(0);
  made.send("lobby", "one");
  for (const [retry_after_ms, wait_ms] of [[0, 20], [-1, 1000], ["x", 1000], [1e15, 60_000]]) {
    const before = newest().all("say").length;
    const { id, ref } = newest().all("say").at(-1);
    newest().say({ type: "error", code: "unavailable", message: "", id, ref, room: "lobby", retry_after_ms });
    pass_ms(wait_ms - 1);
    assert.equal(newest().all("say").length, before, `${retry_after_ms}`);
    pass_ms(1);
    assert.equal(newest().all("say").length, before + 1, `${retry_after_ms}`);
  }
});

test("frames of the wrong shape do no harm", async () => {
  const made = among(2, [US, ADA]);
  await turn();
  newest().say(
    { type: "welcome", user: THEM }, { type: "presence" }, { type: "presence", room: "lobby" }, { type: "presence", room: {} },
    { type: "presence", room: "lobby", count: 2, joined: [null, 7, {}], left: [null, { id: 1 }] }, { type: "members", room: "lobby" },
    { type: "history" }, { type: "accepted" }, { type: "left" }, { type: "typing" }, { type: "error" }, [], {}, { type: null },
    { type: "message", room: "lobby", offset: 1, at: 1 },
  );
  assert.equal(made.user.id, US.id, "who we are is said once");
  assert.equal(made.count("message"), 0, "a message has somebody who said something");
  assert.deepEqual(made.members("lobby").members, [US, ADA]);
  newest().say(message(2));
  assert.deepEqual(made.offsets(), [2]);
  const asked = made.history("lobby");
  newest().say({ type: "history", room: "lobby", ref: newest().all("history")[0].ref });
  assert.deepEqual(await outcome(asked), { error: "offline" }, "what is no answer ends the line");
});

test("a page that comes out of the browser's cache, or is looked at again, does not wait", () => {
  const events = new EventTarget();
  let listeners = 0;
  globalThis.addEventListener = (...listener) => void (events.addEventListener(...listener), (listeners += 1));
  globalThis.removeEventListener = (...listener) => void (events.removeEventListener(...listener), (listeners -= 1));
  const shown = (persisted) => events.dispatchEvent(Object.assign(new Event("pageshow"), { persisted }));
  try {
    const made = settled(5);
    shown(false);
    assert.equal(FakeSocket.opened.length, 1);
    shown(true);
    assert.equal(FakeSocket.opened.length, 2, "there was no line while it was there");
    newest().drop();
    shown(true);
    assert.equal(FakeSocket.opened.length, 3);
    newest().drop();
    events.dispatchEvent(new Event("visibilitychange"));
    assert.equal(FakeSocket.opened.length, 4);
    newest().welcome();
    events.dispatchEvent(new Event("visibilitychange"));
    assert.equal(FakeSocket.opened.length, 4);
    assert.notEqual(listeners, 0);
    made.close();
    shown(true);
    assert.deepEqual([FakeSocket.opened.length, listeners], [4, 0]);
  } finally {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  }
});
