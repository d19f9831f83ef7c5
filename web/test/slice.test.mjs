// What the page shows of a room's log, without a document.

import assert from "node:assert/strict";
import { test } from "node:test";

import { gap, said, seams, Slice } from "../page/slice.js";

const ZOE = { id: "guest-zoe", name: "zoe" };
const LEI = { id: "guest-lei", name: "李雷" };
const NOON = new Date(2026, 10, 24, 12).getTime();
const MINUTE = 60_000;

const message = (offset, more = {}) => ({ type: "message", offset, at: NOON + offset, from: ZOE, text: `t${offset}`, ...more });
/** Messages from one offset to another. */
const messages = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => message(from + index));
const offsets = (slice) => slice.entries.map(({ offset }) => offset);
const range = (from, to) => messages(from, to).map(({ offset }) => offset);

/** One that has shown everything to `to`, from the end. */
function slice(capacity, from, to) {
  const made = new Slice(capacity);
  made.begin(from);
  for (const one of messages(from, to)) made.grow(said(one, false), true);
  return made;
}

/** What must hold whatever was done: no hole, no more than it can hold, nothing twice. */
function whole(made) {
  assert.ok(made.entries.length <= made.capacity, `${made.entries.length} of ${made.capacity}`);
  let next = made.from;
  for (const entry of made.entries) {
    assert.equal(entry.offset, next);
    next = entry.through + 1;
  }
  assert.equal(next, made.to + 1);
}

test("it grows at the end and lets go of the oldest", () => {
  const made = slice(5, 11, 18);
  assert.deepEqual(offsets(made), range(14, 18));
  assert.deepEqual([made.from, made.to, made.live, made.more], [14, 18, true, true]);
  whole(made);
});

test("whoever reads the oldest keeps them, and what is said passes by", () => {
  const made = slice(5, 1, 5);
  made.grow(said(message(6), false), false);
  assert.deepEqual([offsets(made), made.live, made.to], [range(1, 5), false, 5]);
  made.grow(said(message(7), false), true);
  assert.deepEqual([offsets(made), made.live], [range(1, 5), false], "also when the reader is at its end by then");
  whole(made);
});

test("history before it pushes out what is at the end", () => {
  const made = slice(5, 11, 14);
  made.prepend(messages(8, 10), true);
  assert.deepEqual([offsets(made), made.live, made.more, made.to], [range(8, 12), false, true, 12]);
  made.prepend(messages(1, 7), false);
  assert.deepEqual([offsets(made), made.more], [range(1, 5), false]);
  whole(made);
});

test("history after it pushes out what is at the beginning, and at the newest it is live again", () => {
  const made = slice(5, 1, 5);
  made.grow(said(message(6), false), false);
  made.append(messages(6, 8), 8, 9);
  assert.deepEqual([offsets(made), made.live, made.from, made.more], [range(4, 8), false, 4, true]);
  made.append(messages(9, 9), 9, 9);
  assert.deepEqual([offsets(made), made.live], [range(5, 9), true]);
  assert.ok(made.entries.every(({ quiet }) => quiet), "nothing of it is new to whoever listens");
  made.grow(said(message(10), false), true);
  assert.equal(made.to, 10);
  whole(made);
});

test("what was said while history was read is asked for again", () => {
  const made = slice(5, 1, 5);
  made.grow(said(message(6), false), false);
  made.append(messages(6, 6), 6, 7);
  assert.equal(made.live, false);
  whole(made);
});

test("where offsets are missing there is a break that counts them", () => {
  const made = new Slice(10);
  made.begin(20);
  made.prepend([message(10), message(13), message(14)], true);
  const breaks = made.entries.filter(({ lost }) => lost !== undefined).map(({ offset, through, lost }) => [offset, through, lost]);
  assert.deepEqual(breaks, [[11, 12, 2], [15, 19, 5]]);
  whole(made);
  made.grow(gap(20, 29, false), true);
  made.append([message(31)], 32, 32);
  assert.deepEqual(offsets(made), [10, 11, 13, 14, 15, 20, 30, 31, 32]);
  assert.deepEqual(made.entries.at(-1).lost, 1);
  whole(made);
});

test("events of other types take their offsets and no place", () => {
  const made = new Slice(10);
  made.begin(4);
  made.prepend([message(1), { ...message(2), type: "poll" }, message(3)], false);
  assert.deepEqual(offsets(made), [1, 3]);
  assert.equal(made.entries.some(({ lost }) => lost !== undefined), false);
});

test("a history that has nothing before it is the beginning", () => {
  const made = slice(5, 3, 4);
  made.prepend([], false);
  assert.deepEqual([offsets(made), made.from, made.more], [[3, 4], 3, false]);
  const trimmed = slice(5, 3, 4);
  trimmed.prepend([], true);
  assert.equal(trimmed.more, false, "and a server that promises more and gives none is not asked for ever");
});

test("a view that begins anew may begin with a loss", () => {
  const made = slice(5, 1, 5);
  made.begin(8, true);
  made.grow(said(message(8), true), true);
  assert.deepEqual(made.entries.map(({ offset, lost }) => [offset, lost]), [[8, 0], [8, undefined]]);
  assert.deepEqual([made.from, made.to, made.live], [8, 8, true]);
});

test("whatever is done to it, it has no hole, and not more than it can hold", () => {
  let seed = 7;
  const random = (most) => (seed = (seed * 48271) % 2147483647) % most;
  for (let round = 0; round < 200; round += 1) {
    const made = new Slice(1 + random(40));
    let newest = 100 + random(50);
    made.begin(newest + 1 - random(30));
    for (const one of messages(made.from, newest)) made.grow(said(one, true), true);
    for (let step = 0; step < 60; step += 1) {
      const turn = random(3);
      if (turn === 0) made.grow(said(message((newest += 1)), false), random(2) === 0);
      if (turn === 1 && made.from > 1) made.prepend(messages(Math.max(1, made.from - 10), made.from - 1), made.from > 11);
      const through = Math.min(made.to + 10, newest);
      if (turn === 2 && !made.live) made.append(messages(made.to + 1, through), through, newest);
      whole(made);
      assert.equal(made.live, made.to === newest);
    }
  }
});

const entries = (...list) => list.map((one) => ({ offset: one.offset, message: one }));

test("what one person says within five minutes stands under one heading", () => {
  const list = entries(message(1), message(2), message(3, { from: LEI }), message(4), message(5, { at: NOON + 6 * MINUTE }));
  assert.deepEqual(seams(list, null).map(({ continued }) => continued), [false, true, false, false, false]);
  const renamed = entries(message(1), message(2, { from: { ...ZOE, name: "Zoë" } }));
  assert.equal(seams(renamed, null)[1].continued, false, "a new name is shown");
});

test("a break, a day and the mark end what stands under a heading", () => {
  const broken = [{ offset: 1, message: message(1) }, { offset: 2, lost: 3 }, { offset: 5, message: message(5) }];
  assert.equal(seams(broken, null)[2].continued, false);
  const midnight = new Date(2026, 10, 25).getTime();
  const days = seams(entries(message(1, { at: midnight - MINUTE }), message(2, { at: midnight + MINUTE })), null);
  assert.deepEqual(days.map(({ day, continued }) => [day, continued]), [[midnight - MINUTE, false], [midnight + MINUTE, false]]);
  assert.deepEqual(seams(entries(message(1), message(2)), 1).map(({ continued }) => continued), [false, false]);
});

test("the mark stands once, above the first here that was not read", () => {
  const marks = (list, mark) => seams(list, mark).map(({ unread }) => unread);
  const list = entries(message(5), message(6), message(7));
  assert.deepEqual(marks(list, 5), [false, true, false]);
  assert.deepEqual(marks(list, 4), [true, false, false], "also at the top, where what was read ends right above");
  assert.deepEqual(marks(list, 3), [true, false, false], "and where there is more above that is not here yet");
  assert.deepEqual(marks(list, 7), [false, false, false]);
  assert.deepEqual(marks(list, null), [false, false, false]);
  assert.deepEqual(marks([...list, { message: message(0) }], 7), [false, false, false, false], "our own on their way are no news");
});
