// The SDK against real nodes, one Redis, and a wire that fails.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, test } from "node:test";

import { uuid } from "../client.js";
import { BINARY, Node, numbers, Person, Redis, until, Wire } from "./harness.mjs";

/** As fast as they can. */
const FAST = ["--rate", "0"];

/** @type {Redis} */ let redis;
/** Two replicas of one hall. @type {Node} */ let one;
/** @type {Node} */ let two;
/** What the tests started and is to be stopped. @type {any[]} */
const things = [];
const keep = (thing) => (things.push(thing), thing);
let rooms = 0;
/** A room that nobody was in. */
const fresh = () => `room-${++rooms}`;

before(async () => {
  redis = keep(await Redis.start());
  [one, two] = await Promise.all([replica(), replica()]);
});
after(() => Promise.all(things.map((thing) => (thing.leave ?? thing.stop).call(thing))));

const replica = async (...options) => {
  const pace = options.includes("--rate") ? [] : FAST;
  return keep(await Node.start("--redis", redis.url, ...pace, ...options));
};
const person = async (url, options) => keep(await Person.in(url, options));
const wire = async (...nodes) => keep(await Wire.to(...nodes));

test("two at two replicas hear the same in the same order", async () => {
  const room = fresh();
  const [ada, ben] = await Promise.all([person(one.url, { name: "ada", room }), person(two.url, { name: "ben", room })]);
  await Promise.all([ada.sayAll(numbers(100, "a")), ben.sayAll(numbers(100, "b"))]);
  await until("everybody has everything", () => ada.texts.length === 200 && ben.texts.length === 200);
  assert.deepEqual(ada.texts, ben.texts);
  assert.deepEqual(ada.all("message").map(({ offset }) => offset), numbers(200).map((_, i) => i + 1));
  assert.deepEqual(ada.texts.filter((text) => text[0] === "a"), numbers(100, "a"));
  assert.deepEqual(ada.texts.filter((text) => text[0] === "b"), numbers(100, "b"));
});

for (const where of ["speaks at it", "listens at it"]) {
  test(`a replica that is killed in the midst of 300 messages loses, doubles and swaps none for who ${where}`, async () => {
    const room = fresh();
    const mortal = await replica();
    const through = await wire(mortal, two);
    const [speaker, listener] = where === "speaks at it" ? [through.url, one.url] : [one.url, through.url];
    const ada = await person(speaker, { name: "ada", room });
    const ben = await person(listener, { name: "ben", room });
    const places = await ada.sayAll(numbers(300), (accepted) => accepted === 100 && mortal.stop());
    assert.equal(new Set(places.map(({ offset }) => offset)).size, 300);
    await until("everybody has everything", () => ben.texts.length >= 300 && ada.texts.length >= 300);
    assert.deepEqual(ben.texts, numbers(300));
    assert.deepEqual(ada.texts, numbers(300));
    const { heard } = where === "speaks at it" ? ada : ben;
    assert.ok(heard.some(([type, { recovered }]) => type === "joined" && recovered), "it did go to the other one");
    assert.deepEqual([...ada.all("failed"), ...ada.all("gap"), ...ben.all("gap")], []);
  });
}

test("a line that is cut again and again loses, doubles and swaps nothing", async () => {
  const room = fresh();
  const through = await wire(one, two);
  const ben = await person(through.url, { name: "ben", room });
  const ada = await person(through.url, { name: "ada", room });
  await ada.sayAll(numbers(300), (accepted) => accepted % 60 === 0 && through.cut());
  await until("everybody has everything", () => ben.texts.length >= 300 && ada.texts.length >= 300);
  assert.deepEqual(ben.texts, numbers(300));
  assert.deepEqual(ada.texts, numbers(300));
  assert.ok(ada.all("joined").length >= 3, "it was cut");
});

test("what is said while there is no line waits for it", async () => {
  const room = fresh();
  const through = await wire(one);
  const ada = await person(through.url, { name: "ada", room });
  through.refusing = true;
  through.cut();
  await until("she waits", () => ada.hall.state === "waiting");
  const said = numbers(20).map((text) => ada.say(text));
  assert.equal(ada.hall.pending.length, 20);
  await until("it is tried again, in vain", () => ada.states.filter((state) => state === "connecting").length > 2);
  through.refusing = false;
  const places = await Promise.all(said);
  assert.deepEqual(places.map(({ offset }) => offset), numbers(20).map((_, i) => i + 1));
  assert.deepEqual(ada.hall.pending, []);
});

test("a line that died without a word is noticed by the missing beat", async () => {
  const room = fresh();
  const beating = await replica("--beat", "1s");
  const through = await wire(beating);
  const ben = await person(through.url, { name: "ben", room });
  const ada = await person(one.url, { name: "ada", room });
  through.fallSilent();
  await ada.say("while he was deaf");
  await ben.hears("while he was deaf");
  const ends = ben.all("state").filter(({ code }) => code);
  assert.deepEqual(ends.map(({ code, reason }) => [code, reason]), [[1006, "no sign of life"]]);
});

test("a replica that leaves is left without waiting, and nothing is lost", async () => {
  const room = fresh();
  const leaving = await replica("--drain", "2s");
  const through = await wire(leaving);
  const people = await Promise.all(numbers(4).map((name) => person(through.url, { name, room })));
  const ada = await person(one.url, { name: "ada", room });
  const said = ada.sayAll(numbers(200), (accepted) => {
    if (accepted === 50) leaving.stop("SIGTERM");
    through.nodes = accepted < 50 ? [leaving] : [two];
  });
  await said;
  for (const ben of people) {
    await until("he has moved", () => ben.all("welcome").length === 2);
    await until("he has everything", () => ben.texts.length >= 200);
    assert.deepEqual(ben.texts, numbers(200));
    assert.equal(ben.all("reconnect").length, 1);
    assert.deepEqual(ben.states, ["connecting", "open", "connecting", "open"], "never did he wait");
  }
});

test("history, page by page, is what was said", async () => {
  const room = fresh();
  const ada = await person(one.url, { name: "ada", room });
  await ada.sayAll(numbers(130));
  const ben = await person(two.url, { name: "ben", room, join: { last: 0 } });
  assert.deepEqual(ben.texts, []);
  const read = [];
  for (let more = true, before; more && read.length < 200; before = read[0].offset) {
    const page = await ben.hall.history(room, { before, limit: 30 });
    read.unshift(...page.messages);
    more = page.more;
  }
  assert.deepEqual(read, ada.all("message"));
  assert.deepEqual(ben.texts, [], "and none of it was dispatched");
  assert.deepEqual((await ben.hall.history(room, { before: 1 })).messages, []);
});

test("a room is resumed from an earlier life, and one that never was is told so", async () => {
  const room = fresh();
  const ada = await person(one.url, { name: "ada", room });
  await ada.sayAll(numbers(10));
  await until("she has heard all", () => ada.texts.length === 10);
  const { epoch } = ada.hall.position(room);
  const ben = await person(two.url, { name: "ben", room, join: { after: { epoch, offset: 7 }, last: 2 } });
  assert.deepEqual([ben.all("joined")[0].recovered, ben.texts], [true, ["7", "8", "9"]]);
  const zoe = await person(two.url, { name: "zoe", room, join: { after: { epoch: "another", offset: 7 }, last: 2 } });
  assert.deepEqual([zoe.all("joined")[0].recovered, zoe.texts], [false, ["8", "9"]]);
});

test("a message that was sent in an earlier life is stored once", async () => {
  const room = fresh(), key = uuid(), id = uuid(), made = Date.now();
  const ada = await person(one.url, { name: "ada", room, key });
  const first = await ada.say("only once", { id, made });
  ada.leave();
  const again = await person(two.url, { name: "ada", room, key, join: { last: 0 } });
  assert.deepEqual(await again.say("only once", { id, made }), first);
  assert.deepEqual((await again.hall.history(room)).messages.map(({ text }) => text), ["only once"]);
});

test("two tabs are one person, and what both have left to send is stored once", async () => {
  const room = fresh(), key = uuid(), id = uuid();
  const [left, right] = await Promise.all([one, two].map(({ url }) => person(url, { name: "ada", room, key })));
  const [first, second] = await Promise.all([left.say("from both", { id }), right.say("from both", { id })]);
  assert.deepEqual(first, second);
  await left.say("from the left");
  await right.say("from the right");
  for (const tab of [left, right]) {
    await tab.hears("from the right");
    assert.deepEqual(tab.texts, ["from both", "from the left", "from the right"]);
  }
  assert.deepEqual([left.all("accepted").length, right.all("accepted").length], [2, 2]);
  assert.equal((await left.hall.who(room)).count, 1);
});

test("that somebody types is heard at the other replica", async () => {
  const room = fresh();
  const [ada, ben] = await Promise.all([person(one.url, { name: "ada", room }), person(two.url, { name: "ben", room })]);
  ada.hall.typing(room);
  await until("it is heard", () => ben.all("typing").length);
  await ada.say("typed");
  await ben.hears("typed");
  assert.deepEqual(ben.all("typing").map(({ from }) => from.name), ["ada"]);
  assert.deepEqual(ada.all("error"), []);
});

test("whatever a text holds arrives, or is refused in so many words", async () => {
  const room = fresh();
  const ada = await person(one.url, { name: "ada", room });
  await ada.say("a\ud83d😀", { data: { half: "\ude00", more: [1, null] } });
  await ada.hears("a\ufffd😀");
  assert.deepEqual(ada.all("message")[0].data, { half: "\ufffd", more: [1, null] });
  const codes = [];
  const wrong = [
    ["", {}], ["大".repeat(1366), {}], ["x".repeat(200_000), {}], ["x", { data: [] }], ["x", { data: { x: "x".repeat(4096) } }],
  ];
  for (const [text, options] of wrong) {
    codes.push(await ada.say(text, options).then(() => "accepted", ({ code }) => code));
  }
  assert.deepEqual(codes, ["bad_frame", "too_long", "too_long", "bad_frame", "too_long"]);
  assert.equal(ada.states.length, 2, "and the line stays");
});

test("two hundred messages and thirty-two rooms after an outage are no reason for a single refusal", async () => {
  const strict = await replica("--rate", "20", "--burst", "40");
  const through = await wire(strict);
  const ada = await person(through.url, { name: "ada", room: fresh(), join: { members: true } });
  for (let i = 1; i < 32; i++) ada.hall.join(fresh(), { members: true });
  await until("she is everywhere", () => ada.all("caughtup").length === 32);
  through.refusing = true;
  through.cut();
  await until("she waits", () => ada.hall.state === "waiting");
  for (const [i, text] of numbers(200).entries()) ada.hall.send(ada.hall.rooms[i % 32], text);
  through.refusing = false;
  await until("all is accepted", () => ada.all("accepted").length === 200);
  const limited = 'townhall_errors_total{code="rate_limited"}';
  assert.equal(await strict.metric(limited), 0);
  assert.deepEqual([ada.all("failed"), ada.all("error")], [[], []]);
  const leafing = await person(strict.url, { name: "leafing", room: fresh() });
  for (const name of numbers(100, "passing-")) {
    leafing.hall.join(name);
    leafing.hall.leave(name);
  }
  await leafing.say("who leafs through a hundred rooms is not refused either");
  assert.equal(await strict.metric(limited), 0);
});

test("who finds a full hall keeps trying and gets in", async () => {
  const small = keep(await Node.start("--max-connections", "1"));
  const ada = await person(small.url, { name: "ada" });
  const ben = keep(new Person(small.url, { name: "ben" }));
  await until("he was turned away twice", () => ben.states.filter((state) => state === "waiting").length > 1);
  const said = ben.say("at last");
  ada.leave();
  assert.equal((await said).offset, 1);
});

const SECRET = "a secret of thirty-two bytes and more";
const token = (...options) =>
  execFileSync(BINARY, ["token", "zoe", "--jwt-secret", SECRET, ...options], { encoding: "utf8" }).trim();

test("whose token runs out goes on at once with another, and nobody with none comes in", async () => {
  const guarded = keep(await Node.start("--auth", "jwt", "--jwt-secret", SECRET, "--jwt-leeway", "0s"));
  let tokens = 0;
  const getToken = async () => token("--for", `${++tokens === 1 ? 3 : 600}s`, "--info", '{"title":"Dr"}');
  const zoe = await person(guarded.url, { getToken });
  assert.deepEqual([zoe.hall.user.id, zoe.hall.user.info], ["zoe", { title: "Dr" }]);
  await zoe.say("with the first");
  await until("it has run out", () => zoe.all("welcome").length === 2);
  await zoe.say("with the second");
  await until("it is heard, too", () => zoe.texts.includes("with the second"));
  assert.deepEqual(zoe.states, ["connecting", "open", "connecting", "open"], "never did she wait");
  assert.deepEqual(zoe.texts, ["with the first", "with the second"]);

  const forger = keep(new Person(guarded.url, { getToken: () => "forged" }));
  const waiting = forger.say("let me in");
  await assert.rejects(waiting, { code: "unauthorized" });
  assert.deepEqual(forger.all("state").at(-1).code, 4001);
  assert.equal(forger.all("error")[0].code, "unauthorized");
  assert.equal(forger.hall.state, "closed");
});
