// The SDK when what is behind the nodes goes away: Redis, and a node with everybody who was at it.

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { Node, numbers, Person, Redis, until, Wire } from "./harness.mjs";

/** @type {any[]} */
const things = [];
const keep = (thing) => (things.push(thing), thing);
after(() => Promise.all(things.map((thing) => (thing.leave ?? thing.stop).call(thing))));

const person = async (url, options) => keep(await Person.in(url, options));

/** A hall of so many replicas with a Redis of its own. @param {number} count @param {string[]} options */
async function hall(count, ...options) {
  const redis = keep(await Redis.start());
  const nodes = await Promise.all(numbers(count).map(() => Node.start("--redis", redis.url, "--rate", "0", ...options)));
  return { redis, nodes: nodes.map(keep) };
}

test("while Redis says nothing what is said waits, and nobody is disconnected", async () => {
  const { redis, nodes: [one, two] } = await hall(2);
  const ada = await person(one.url, { name: "ada" });
  const ben = await person(two.url, { name: "ben" });
  await ada.say("before");
  await ben.hears("before");
  redis.pause();
  const said = numbers(100).map((text) => ada.say(text));
  await until("the node has refused some", async () => (await one.metric('townhall_errors_total{code="unavailable"}')) > 0);
  assert.equal(ada.hall.pending.length, 100);
  await assert.rejects(ada.hall.history("lobby", { before: 1 }), { code: "unavailable" });
  redis.resume();
  const places = await Promise.all(said);
  assert.equal(new Set(places.map(({ offset }) => offset)).size, 100);
  await until("everybody has everything", () => ben.texts.length >= 101 && ada.texts.length >= 101);
  assert.deepEqual(ben.texts, ada.texts);
  assert.deepEqual([...ben.texts].sort(), ["before", ...numbers(100)].sort());
  for (const { states, hall } of [ada, ben]) assert.deepEqual([states, hall.pending], [["connecting", "open"], []]);
  assert.deepEqual([...ada.all("failed"), ...ada.all("error"), ...ada.all("gap"), ...ben.all("gap")], []);
});

test("what a Redis that comes back empty has lost is told, and what was not accepted is said again", async () => {
  const { redis, nodes: [one] } = await hall(1);
  const through = keep(await Wire.to(one));
  const ada = await person(through.url, { name: "ada" });
  const ben = await person(one.url, { name: "ben" });
  await ada.sayAll(numbers(10));
  await until("he has heard all", () => ben.texts.length === 10);
  through.refusing = true;
  through.cut();
  await until("she waits", () => ada.hall.state === "waiting");
  const waiting = ada.say("said meanwhile");
  await redis.restartEmpty();
  through.refusing = false;
  const { epoch } = await waiting;
  for (const someone of [ada, ben]) await someone.hears("said meanwhile");
  for (const someone of [ada, ben]) {
    const told = someone.all("joined").filter(({ recovered }) => recovered === false);
    assert.equal(told.length, 1, "something was lost, and it is told once");
    assert.deepEqual(someone.hall.position("lobby"), { epoch, offset: 1 });
    assert.deepEqual(someone.texts, [...numbers(10), "said meanwhile"]);
  }
  assert.deepEqual(ada.all("failed"), []);
});

test("who is here is the same at both replicas, also after one has died with somebody at it", async () => {
  const { nodes: [mortal, other] } = await hall(2, "--presence-grace", "1s");
  const through = keep(await Wire.to(mortal, other));
  const members = { join: { members: true } };
  const ada = await person(other.url, { name: "ada", ...members });
  const ben = await person(through.url, { name: "ben", ...members });
  const lost = keep(new Person(mortal.url, { name: "lost", ...members }));
  const names = ({ hall }) => hall.members("lobby")?.members.map(({ name }) => name).sort().join();
  const all = (who, expected) => until(`they are ${expected}`, () => who.every((someone) => names(someone) === expected));
  await all([ada, ben, lost], "ada,ben,lost");
  assert.deepEqual((await ada.hall.who("lobby")).count, 3);

  await mortal.stop();
  await all([ada, ben], "ada,ben");
  ben.hall.rename("benjamin");
  await all([ada, ben], "ada,benjamin");
  ben.leave();
  await all([ada], "ada");
  assert.ok(ada.all("members").every(({ count, members }) => members.length <= count || count === 0));
  assert.deepEqual(ada.hall.members("lobby"), { count: 1, members: [ada.hall.user] });
});
