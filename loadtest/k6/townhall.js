// A client of townhall.v1 for k6: it joins one room, keeps books of what it gets there, comes back where it was when its connection
// ends, and says again under the same id what was not accepted.

import { check } from 'k6';
import { Counter, Trend } from 'k6/metrics';
import { setInterval, clearInterval, setTimeout } from 'k6/timers';
import { WebSocket } from 'k6/websockets';

import { Ledger } from './ledger.js';

const metrics = {
  delivery: new Trend('delivery', true),
  heard: new Counter('messages_heard'),
  accepted: new Counter('messages_accepted'),
  lost: new Counter('messages_lost'),
  doubled: new Counter('messages_doubled'),
  swapped: new Counter('messages_swapped'),
  told: new Counter('messages_told_lost'),
  connects: new Counter('connects'),
  resumed: new Counter('resumed'),
  errors: new Counter('errors'),
  closes: new Counter('closes'),
};

// What has to hold in every script.
export function thresholds(p99Ms) {
  return {
    messages_lost: ['count==0'],
    messages_doubled: ['count==0'],
    messages_swapped: ['count==0'],
    messages_accepted: ['count>0'],
    messages_heard: ['count>0'],
    delivery: [`p(99)<${p99Ms}`],
    checks: ['rate==1'],
  };
}

// Close codes after which coming back by oneself is of no use: the client broke the rules, or may not come in.
const FINAL = [1002, 1007, 1009, 4001, 4101];
const BACKOFF_MS = { first: 50, most: 2000 };
const LOOK_AGAIN_MS = 50;

export class Client {
  over = false;
  #urls;
  #room;
  #heard;
  #address;
  #door;
  #ledger = new Ledger();
  // What is not accepted yet: its frame and the socket that it went out by, under its id.
  #said = new Map();
  #socket = null;
  // The newest offset when it joined, so what comes later is live; `null`: it is not in the room.
  #live = null;
  // The newest offset, as asked for at the end by this socket.
  #head = null;
  #asked = null;
  #failures = 0;
  #returns = 0;
  #resumed = 0;
  #beatMs = 0;
  #heardAt = 0;
  #watch;

  // `heard` is given every frame, after the books were kept.
  constructor({ urls, number, room, heard = () => {} }) {
    this.#urls = urls;
    this.#room = room;
    this.#heard = heard;
    this.#door = number;
    // The key says who it is, wherever it comes back: otherwise what is said again would be stored again.
    this.#address = `/ws?name=k6-${number}&key=${crypto.randomUUID()}`;
    // Not where it is declared: k6's engine panics at private methods there.
    this.#watch = setInterval(() => this.#lookForLife(), 1000);
    this.#connect();
  }

  get isIn() {
    return this.#live !== null;
  }

  // What is said while it is not in the room goes out when it is.
  say(text) {
    const id = crypto.randomUUID();
    this.#said.set(id, { frame: { type: 'say', room: this.#room, id, text }, socket: null });
    if (this.isIn) this.#sayAgain(id);
  }

  // Anything else about the room, where it is in.
  ask(type) {
    if (this.isIn) this.#send({ type, room: this.#room });
  }

  // Loses its connection, and comes back `ms` later.
  away(ms) {
    const socket = this.#socket;
    if (socket === null) return;
    this.#gone(socket, ms);
    socket.close();
  }

  // Waits until it has all that was said so far, and all that it said is accepted; that, or what is missing after `ms`, goes into
  // the metrics.
  finish(ms) {
    const until = Date.now() + ms;
    const look = () => {
      if (this.isIn && this.#asked !== this.#socket) {
        this.#asked = this.#socket;
        this.#send({ type: 'history', room: this.#room, limit: 1 });
      }
      const whole = this.#head !== null && this.#ledger.lost(this.#head) === 0 && this.#said.size === 0;
      if (whole || this.over || Date.now() >= until) this.#end();
      else setTimeout(look, LOOK_AGAIN_MS);
    };
    look();
  }

  #connect() {
    const socket = new WebSocket(this.#urls[this.#door % this.#urls.length] + this.#address, ['townhall.v1']);
    this.#socket = socket;
    this.#heardAt = Date.now();
    socket.onopen = () => {
      metrics.connects.add(1);
      this.#join();
    };
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#take(JSON.parse(data));
    };
    socket.onerror = () => {
      if (!this.over) metrics.errors.add(1, { code: 'connection' });
      this.#gone(socket, this.#backoff());
    };
    socket.onclose = ({ code }) => {
      metrics.closes.add(1, { code: String(code) });
      if (FINAL.includes(code)) this.over = true;
      this.#gone(socket, code === 1012 ? 0 : this.#backoff());
    };
  }

  // Comes back in a while, through the next door; once for each socket.
  #gone(socket, ms) {
    if (socket !== this.#socket) return;
    if (this.isIn) this.#returns += 1;
    this.#socket = null;
    this.#live = null;
    this.#door += 1;
    setTimeout(() => {
      if (!this.over) this.#connect();
    }, ms);
  }

  #backoff() {
    this.#failures += 1;
    return Math.random() * Math.min(BACKOFF_MS.most, BACKOFF_MS.first * 2 ** this.#failures);
  }

  #send(frame) {
    this.#socket.send(JSON.stringify(frame));
  }

  #join() {
    const after = this.#ledger.position;
    this.#send({ type: 'join', room: this.#room, ...(after === null ? { last: 0 } : { after }) });
  }

  #take(frame) {
    this.#heardAt = Date.now();
    if (frame.type === 'joined') this.#joined(frame);
    else if (frame.type === 'gap') this.#ledger.gap(frame.from, frame.to);
    else if (frame.offset !== undefined && frame.at !== undefined) this.#event(frame);
    else if (frame.type === 'welcome') this.#beatMs = frame.beat * 1000;
    else if (frame.type === 'accepted') this.#accepted(frame.id);
    else if (frame.type === 'history') this.#head = frame.messages.length === 0 ? 0 : frame.messages[0].offset;
    else if (frame.type === 'reconnect') this.#move(frame.after_ms);
    else if (frame.type === 'error') this.#refused(frame);
    this.#heard(frame);
  }

  #joined(frame) {
    const isBack = !this.isIn && this.#ledger.position !== null;
    if (isBack && frame.recovered === true) {
      this.#resumed += 1;
      metrics.resumed.add(1);
    }
    this.#ledger.joined(frame);
    this.#live = frame.offset;
    this.#failures = 0;
    this.#sayAgainWhenCaughtUp();
  }

  #event({ offset, id, text }) {
    this.#ledger.event(offset);
    metrics.heard.add(1);
    const stamp = offset > this.#live ? /^@(\d+) /.exec(text) : null;
    if (stamp) metrics.delivery.add(Date.now() - Number(stamp[1]));
    // Its own, by a connection that ended before the hall could say so.
    const said = this.#said.get(id);
    if (said && said.socket !== this.#socket) this.#accepted(id);
    if (offset <= this.#live) this.#sayAgainWhenCaughtUp();
  }

  // Not before the backlog was seen: what is in it is accepted.
  #sayAgainWhenCaughtUp() {
    if (this.#ledger.position.offset < this.#live) return;
    for (const [id, { socket }] of this.#said) {
      if (socket !== this.#socket) this.#sayAgain(id);
    }
  }

  #sayAgain(id) {
    const said = this.#said.get(id);
    if (!said || !this.isIn) return;
    said.socket = this.#socket;
    this.#send(said.frame);
  }

  #accepted(id) {
    if (this.#said.delete(id)) metrics.accepted.add(1);
  }

  #refused({ code, id, retry_after_ms: again }) {
    metrics.errors.add(1, { code });
    if (again === undefined) return;
    setTimeout(() => {
      if (id !== undefined) this.#sayAgain(id);
      else if (this.isIn) this.#asked = null;
      else if (this.#socket !== null) this.#join();
    }, again);
  }

  // The node is leaving: stays and is served so long, then goes elsewhere at once.
  #move(ms) {
    const socket = this.#socket;
    setTimeout(() => {
      if (socket !== this.#socket || this.over) return;
      this.#gone(socket, 0);
      socket.close();
    }, ms);
  }

  // A hall that says nothing for two beats is not there any more.
  #lookForLife() {
    const silent = Date.now() - this.#heardAt;
    if (this.#beatMs > 0 && this.#socket !== null && silent > 2 * this.#beatMs) this.away(this.#backoff());
  }

  #end() {
    const { doubled, swapped, told, position } = this.#ledger;
    metrics.lost.add(position === null ? 0 : this.#ledger.lost(this.#head ?? 0));
    metrics.doubled.add(doubled);
    metrics.swapped.add(swapped);
    metrics.told.add(told);
    check(this, {
      'is in the room at the end': () => this.isIn && this.#head !== null,
      'all that it said is accepted': () => this.#said.size === 0,
      'came back where it was': () => this.#resumed === this.#returns,
    });
    this.over = true;
    clearInterval(this.#watch);
    if (this.#socket !== null) this.#socket.close();
  }
}

// Says something at its time, whether or not the hall keeps up, so latencies count from when it was due.
export function sayAt(dueMs, client, before = () => {}) {
  setTimeout(() => {
    before();
    client.say(`@${dueMs} how long this takes is for whoever hears it to say`);
  }, dueMs - Date.now());
}
