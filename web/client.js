/**
 * Townhall's client: one connection, any number of rooms, nothing lost and nothing twice.
 *
 * An ES module without dependencies, for browsers and for Node (which brings no WebSocket of its own before version 22:
 * pass one in).
 *
 *     import { Townhall } from "./client.js";
 *     const hall = new Townhall("wss://example.org/ws", { name: "lewin", key });
 *     hall.addEventListener("message", ({ detail }) => console.log(detail.from.name, detail.text));
 *     hall.connect();
 *     hall.join("lobby");
 *     const { epoch, offset } = await hall.send("lobby", "hello");
 *
 * It speaks `townhall.v1` and keeps these promises:
 *
 * - A room's events are dispatched in the order of their offsets, each once, over any number of reconnections. What
 *   could not be had is told by `gap`, or by `joined` with `recovered: false`.
 * - `send` resolves when the message is stored. Until then it is kept over reconnections under the same id, and sent
 *   again only when the room's backlog has been read without finding it.
 * - It reconnects by itself until `close()` is called or the server says never to come back.
 * - Whatever it sends is paced by the server's own limits, and everything that waits is bounded.
 *
 * README.md beside this file is the manual, with examples; client.d.ts has every type, event and option. Events are
 * dispatched when the state that they tell of is already there, so a listener may do anything: leave, join anew, close.
 * Whoever dispatches therefore looks afterwards whether what it works on is still the current thing.
 *
 * @module
 */

/** @import { Accepted, History, JoinOptions, Members, Options, PendingMessage, Position } from "./client.d.ts" */
/** @import { SendOptions, State, User, Welcome } from "./client.d.ts" */

const SUBPROTOCOL = "townhall.v1";
/** A subprotocol that is a token: it stands in no address, so in no log. */
const BEARER = "bearer.";
/** What a subprotocol may consist of (RFC 9110, `token`); any other token goes into the address. */
const SUBPROTOCOL_CHARS = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Full jitter: a wait is anything between nothing and a bound that doubles from the first to the second. */
const BACKOFF_FIRST_MS = 500;
const BACKOFF_LAST_MS = 20_000;
/** A connection that lived this long was a good one: the next one is tried quickly again. */
const STABLE_MS = 5_000;
/** From asking for a token, or opening a socket, to the `welcome`. */
const WELCOME_DEADLINE_MS = 10_000;
/** Of the server's `beat`: without a text frame for so many of them the line is dead. */
const DEAD_BEATS = 2.5;
/** A line that beats but on which a command is not answered for so long is no good either. */
const COMMAND_DEADLINE_MS = 30_000;
/** Who asked for history, or who is here, is not kept waiting any longer. */
const QUESTION_DEADLINE_MS = 10_000;
/** Messages that wait to be accepted, and questions that wait for an answer; one more is refused at once. */
const PENDING_CAPACITY = 200;
const QUESTION_CAPACITY = 100;
/** Where the server did not say when to try again; it can say neither at once nor never. */
const RETRY_MS = 1_000;
const RETRY_LEAST_MS = 20;
const RETRY_MOST_MS = 60_000;
/** The longest time to which the server can ask us to stay before we reconnect, and its longest `beat`. */
const MOVE_MOST_MS = 600_000;
const BEAT_MOST_S = 3_600;
/** Two clocks are never the same: we go so much slower than the server allows. */
const CAUTION = 0.98;
/** The server tells of nobody twice in this time that he types. */
const TYPING_MS = 3_000;
/** In rooms with more members nobody is told who they are. */
const LISTED = 200;
/** Whoever has the same reason to ask who is here asks at another moment within this time. */
const SPREAD_MS = 1_000;
/** Between asking again and again, when list and count will not agree. */
const ASK_AGAIN_MS = 1_000;
const ASK_AGAIN_MOST_MS = 30_000;

/** The token with which we came is no longer valid; with a new one we may come back at once. */
const EXPIRED = 4101;
/** What the server means by the close codes after which nobody comes back by himself; others of 40xx are `closed`. */
const FAREWELLS = new Map([[4001, "unauthorized"], [4003, "banned"], [4004, "kicked"]]);
/** Refusals that pass: the same command may be sent again. */
const PASSING = new Set(["unavailable", "rate_limited"]);

/**
 * @typedef {object} Room
 * @property {string} name
 * @property {number} last how much to replay where there is nothing to resume
 * @property {Position | null} position where we are
 * @property {boolean} joined on this connection
 * @property {number} until the last offset of the announced backlog
 * @property {boolean} caughtUp joined, and the backlog is in
 * @property {number | null} awaiting the `ref` of the join that was not answered yet
 * @property {any} joinTimer when a join is to be tried again
 * @property {any} sayTimer while it runs nothing is said here, because the last message was refused for a while
 * @property {number} typedAt when we said last that we type
 * @property {Roster | null} roster who is here, where that was asked for
 * @property {object | null} inquiry the question who is here that is planned or on its way; there is one at a time
 * @property {any} inquiryTimer
 *
 * @typedef {object} Say
 * @property {string} room
 * @property {string} id
 * @property {string} text
 * @property {Record<string, unknown>} [data]
 * @property {number} made when its id was first used, in Unix milliseconds
 * @property {number} since the same by our own clock
 * @property {boolean} sent on this connection, and not answered
 * @property {Promise<Accepted>} promise
 * @property {(accepted: Accepted) => void} resolve
 * @property {(error: Error) => void} reject
 *
 * @typedef {object} Question
 * @property {string} room
 * @property {(answer: any) => void} resolve
 * @property {(error: TownhallError) => void} reject
 * @property {any} timer
 */

/** Why something that was asked for did not happen. */
export class TownhallError extends Error {
  /**
   * @param {string} code one of the server's error codes, or of ours: `offline`, `closed`, `left`, `expired`,
   *   `too_many`, `other_user`; README.md says what each means
   * @param {string} message
   * @param {{room?: string, id?: string, retry_after_ms?: number}} [about]
   */
  constructor(code, message, { room, id, retry_after_ms } = {}) {
    super(message);
    this.name = "TownhallError";
    this.code = code;
    this.room = room;
    this.id = id;
    this.retry_after_ms = retry_after_ms;
  }
}

/** A random UUID. `crypto.randomUUID` exists only in secure contexts, and a hall in the house is often plain http. */
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** @param {string} text @returns {any} the object that it is the JSON of, or `null` */
function parsed(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

/** @param {unknown} error */
const wordsOf = (error) => (error instanceof Error ? error.message : String(error));

/** Half a surrogate pair is no text: JSON can say it, and the server cannot read it. @param {string} text */
const wellFormed = (text) => text.replace(/\p{Surrogate}/gu, "\ufffd");

/** @param {string} text */
const bytes = (text) => new TextEncoder().encode(text).length;

/** @param {any} value @returns {boolean} */
const isPosition = (value) =>
  typeof value?.epoch === "string" && Number.isSafeInteger(value.offset) && value.offset >= 0;

/** @param {any} frame @returns {boolean} */
const isMessage = (frame) => frame?.type === "message" && isUser(frame.from) && typeof frame.text === "string";
/** Something of a history: a message, or what a newer version keeps. @param {any} event @returns {boolean} */
const isStored = (event) => Number.isSafeInteger(event?.offset) && (event.type !== "message" || isMessage(event));
/** @param {any} value */
const isUser = (value) => typeof value?.id === "string" && typeof value.name === "string";

/**
 * What the server gave as a number, if it is one that makes sense.
 *
 * @param {any} value
 * @param {number} otherwise
 * @param {number} [most]
 */
function sensible(value, otherwise, most = Infinity) {
  return Number.isFinite(value) && value >= 0 ? Math.min(value, most) : otherwise;
}

/** @param {any} frame an `error` */
const retryAfter_ms = ({ retry_after_ms }) =>
  Math.max(RETRY_LEAST_MS, sensible(retry_after_ms, RETRY_MS, RETRY_MOST_MS));

/**
 * Milliseconds that passed: it goes on while the machine sleeps, as the wall clock does, and is never set back. When
 * that is, the time since it was last looked at is not counted; so every attempt to connect looks at it.
 */
class Clock {
  #seen = Date.now();
  #passed = 0;

  now_ms() {
    const now = Date.now();
    this.#passed += Math.max(0, now - this.#seen);
    this.#seen = now;
    return this.#passed;
  }
}

/**
 * The server's limit on commands, kept on this side too: a queue that is emptied after an outage must not run into
 * refusals, a hundred of which in a row end the connection.
 *
 * What is not answered yet may not be read yet, and be read all at once. So it counts as if it had just been sent, until
 * the very moment of its answer; then no delay on the way can make the server see more than it allows.
 */
class Pace {
  /**
   * @param {Clock} clock
   * @param {number} rate commands a second; 0: no limit
   * @param {number} burst
   */
  constructor(clock, rate, burst) {
    this.clock = clock;
    this.rate = rate * CAUTION;
    this.burst = Math.max(1, burst);
    this.left = this.burst;
    this.at = clock.now_ms();
  }

  /** The time that went by, with so many unanswered. @param {number} unanswered */
  refill(unanswered) {
    const now = this.clock.now_ms();
    this.left = Math.min(this.burst - unanswered, this.left + ((now - this.at) * this.rate) / 1000);
    this.at = now;
  }

  /** How long to wait until a command may go; `Infinity`: for an answer. @param {number} unanswered */
  wait_ms(unanswered) {
    if (!this.rate) return 0;
    this.refill(unanswered);
    if (unanswered > this.burst - 1) return Infinity;
    return this.left >= 1 ? 0 : Math.ceil(((1 - this.left) * 1000) / this.rate);
  }

  take() {
    this.left -= 1;
  }
}

/** Who is in a room, as far as we were told. */
class Roster {
  /** By the server's last word. */
  count = 0;
  /** In the order in which they became known; none where they are too many. @type {Map<string, User>} */
  people = new Map();
  /** Whether somebody may have come or gone unheard. */
  unsure = true;
  /** How often in a row asking did not help. */
  misses = 0;
  /** What was dispatched last, in JSON. */
  told = "";

  get stale() {
    return this.count <= LISTED && (this.unsure || this.people.size !== this.count);
  }

  /** @returns {{count: number, members: User[]}} */
  get now() {
    return { count: this.count, members: [...this.people.values()] };
  }

  /** @param {any} count */
  counted(count) {
    this.count = sensible(count, this.count);
    if (this.count > LISTED) this.people.clear();
  }

  /** The whole list. @param {any} frame `members` */
  listed({ count, members }) {
    const here = new Map(members.filter(isUser).map((/** @type {User} */ user) => [user.id, user]));
    const known = [...this.people.keys()].filter((id) => here.has(id));
    this.people = new Map([...known, ...here.keys()].map((id) => [id, here.get(id)]));
    this.unsure = false;
    this.counted(count);
  }

  /**
   * Who came and went; without them, in a room where they would be told, some went unheard.
   *
   * @param {any} frame `presence`
   */
  changed({ count, joined, left }) {
    if (Array.isArray(joined) && Array.isArray(left)) {
      for (const user of left) this.people.delete(user?.id);
      for (const user of joined.filter(isUser)) this.people.set(user.id, user);
    } else {
      this.unsure = true;
    }
    this.counted(count);
  }
}

export class Townhall extends EventTarget {
  #clock = new Clock();
  /** @type {State} */ #state = "closed";
  /** @type {string} */ #name;
  /** @type {string} */ #key;
  /** @type {URL} */ #url;
  /** @type {any} */ #WebSocket;
  /** @type {Options["getToken"]} */ #getToken;
  /** The attempt that waits for its token; any other's comes too late. @type {object | null} */ #asking = null;
  /** The socket whose events count; those of any other are ignored. @type {any} */ #socket = null;
  /** @type {Map<string, Room>} */ #rooms = new Map();
  /** In the order of the calls to `send`. @type {Map<string, Say>} */ #pending = new Map();
  /** Commands that wait for the pace, and go before any message. @type {any[]} */ #orders = [];
  /** What was sent on this connection, by `ref`, and when. @type {Map<number, {command: any, at: number}>} */
  #unanswered = new Map();
  /** @type {Map<number, Question>} */ #questions = new Map();
  /** Rooms that a join was sent to on this connection. @type {Set<string>} */ #entered = new Set();
  /** @type {Welcome | null} */ #welcome = null;
  #limits = limitsOf(null);
  #pace = new Pace(this.#clock, 0, 1);
  #ref = 0;
  #attempt = 0;
  #heardAt = 0;
  /** @type {number | null} */ #welcomedAt = null;
  /** @type {number | null} */ #offlineAt = null;
  /** Whether we were sent here, and are sent on, by servers that kept us for no time. */
  #hurried = false;
  /** Why nothing can be said while the state is `closed`. @type {[string, string]} */
  #farewell = ["closed", "connect() first"];
  /** Until then nothing is sent, because something came too fast. */
  #heldUntil = 0;
  /** @type {any} */ #retryTimer;
  /** @type {any} */ #deadTimer;
  /** @type {any} */ #moveTimer;
  /** @type {any} */ #flushTimer;
  /** @type {any} */ #answerTimer;

  /**
   * Connects nowhere yet: see {@link Townhall#connect}.
   *
   * @param {string | URL} url of the hall's `/ws`; relative to the page where there is one, `http` counts as `ws`
   * @param {Options} [options]
   */
  constructor(url, { name = "", key = uuid(), getToken, WebSocket = globalThis.WebSocket } = {}) {
    super();
    if (!WebSocket) throw new TypeError("there is no WebSocket here: pass one as { WebSocket }");
    this.#url = new URL(url, globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    this.#url.hash = "";
    if (!/^wss?:$/.test(this.#url.protocol)) throw new TypeError(`a hall has no address like ${this.#url.protocol}`);
    this.#name = name;
    this.#key = key;
    this.#getToken = getToken;
    this.#WebSocket = WebSocket;
  }

  get state() {
    return this.#state;
  }

  /** Who we are here, once the server has said so. @returns {User | null} */
  get user() {
    return this.#welcome?.user ?? null;
  }

  /** The last `welcome`. */
  get welcome() {
    return this.#welcome;
  }

  /** Names of the rooms that are joined, or will be. */
  get rooms() {
    return [...this.#rooms.keys()];
  }

  /** What was said and not accepted yet, in order. @returns {PendingMessage[]} */
  get pending() {
    return [...this.#pending.values()].map(({ room, id, text, data, made }) => ({ room, id, text, data, made }));
  }

  /** Where we are in a room; `null` before it was joined. @param {string} room @returns {Position | null} */
  position(room) {
    const position = this.#rooms.get(room)?.position;
    return position ? { ...position } : null;
  }

  /**
   * Who is in a room that was joined with `members`, as far as is known; `null` before anything is. The list is shorter
   * than `count` while it is being asked for, and empty where there are more than 200.
   *
   * @param {string} room
   * @returns {{count: number, members: User[]} | null}
   */
  members(room) {
    const roster = this.#rooms.get(room)?.roster;
    return roster?.told ? roster.now : null;
  }

  /** Connects, and stays connected. While it waits to try again: tries now. Otherwise a second call changes nothing. */
  connect() {
    if (this.#state === "closed") {
      this.#attempt = 0;
      for (const [event, listener] of this.#signals) globalThis.addEventListener?.(event, listener);
    }
    if (this.#state === "closed" || this.#state === "waiting") this.#open();
  }

  /** Leaves for good. What was not accepted fails with `closed`; `connect` comes back to the same rooms. */
  close() {
    this.#drop(1000, "the client left");
    this.#end("closed", { code: 1000, reason: "the client left" });
  }

  /**
   * Changes how others see us: a short reconnection as the same person, under which nothing is lost. For guests: who
   * has a token is called as that says.
   *
   * @param {string} name
   */
  rename(name) {
    if (name === this.#name) return;
    this.#name = name;
    if (this.#state === "connecting" || this.#state === "open") this.#again("a new name");
  }

  /**
   * Joins a room, now and after every reconnection. In a room that is joined already it begins anew: the last messages
   * are replayed once more.
   *
   * @param {string} name
   * @param {JoinOptions} [options]
   */
  join(name, { last = 50, after, members = false } = {}) {
    if (typeof name !== "string" || !name) throw new TypeError("a room has a name");
    if (!Number.isSafeInteger(last) || last < 0) throw new TypeError("`last` is a number of messages");
    if (after && !isPosition(after)) throw new TypeError("`after` is a position: {epoch, offset}");
    const known = this.#rooms.get(name);
    if (known) this.#rest(known);
    /** @type {Room} */
    const room = {
      name, last, position: after ? { epoch: after.epoch, offset: after.offset } : null,
      joined: false, until: 0, caughtUp: false, awaiting: null,
      joinTimer: undefined, sayTimer: undefined, typedAt: -Infinity,
      roster: members ? (known?.roster ?? new Roster()) : null, inquiry: null, inquiryTimer: undefined,
    };
    this.#rooms.set(name, room);
    this.#sendJoin(room);
  }

  /** Leaves a room. Messages to it that were not accepted fail with `left`. @param {string} name */
  leave(name) {
    const room = this.#rooms.get(name);
    if (room) this.#forget(room, new TownhallError("left", "the room was left", { room: name }));
  }

  /**
   * Says something. It may be called at any time after `connect`: what cannot be sent now waits for the line and the
   * room.
   *
   * @param {string} room one that was joined
   * @param {string} text
   * @param {SendOptions} [options]
   * @returns {Promise<Accepted>} where it was stored; rejected with a {@link TownhallError} if it was refused or given
   *   up
   */
  send(room, text, { data, id = uuid(), made = Date.now() } = {}) {
    id = id.toLowerCase();
    const known = this.#pending.get(id);
    if (known) return known.promise;
    made = sensible(made, Date.now(), Date.now());
    /** @type {any} */
    const say = { room, id, text: wellFormed(String(text)), made, sent: false };
    say.since = this.#clock.now_ms() - (Date.now() - made);
    say.promise = new Promise((resolve, reject) => Object.assign(say, { resolve, reject }));
    say.promise.catch(() => {}); // `failed` tells it, too: who listens there need not look at the promise.
    const refusal = this.#refusal(room, id) ?? snapshot(say, data);
    if (refusal) {
      // Later, and not in a microtask: a listener that sends whatever failed again must not stop the world.
      setTimeout(() => this.#fail(say, new TownhallError(refusal[0], refusal[1], say)), 0);
    } else {
      this.#pending.set(id, say);
      this.#flush();
    }
    return say.promise;
  }

  /**
   * Says that we are typing, at most once in 3 s and a room; where it cannot be said now, it is not.
   *
   * @param {string} name
   */
  typing(name) {
    const room = this.#rooms.get(name);
    const now = this.#clock.now_ms();
    if (!room?.joined || now - room.typedAt < TYPING_MS || this.#orders.length || this.#wait_ms() > 0) return;
    room.typedAt = now;
    this.#write({ type: "typing", room: name });
  }

  /**
   * Reads older messages. They are returned, not dispatched, and move no position.
   *
   * @param {string} room one that is joined
   * @param {{before?: number, limit?: number}} [options] `before`: an offset, exclusive; absent: from the newest.
   *   `limit`: 200 at most
   * @returns {Promise<History>} oldest first; rejected with `offline` when the connection is not there or is lost, with
   *   `unavailable` when there is no answer for 10 s, else with the server's refusal
   */
  history(room, { before, limit = 50 } = {}) {
    return this.#ask(room, { type: "history", room, before, limit });
  }

  /**
   * Asks who is in a room.
   *
   * @param {string} room one that is joined
   * @returns {Promise<Members>} 200 of them at most; rejected as `history` is
   */
  who(room) {
    return this.#ask(room, { type: "who", room });
  }

  // --- The connection ---

  #open() {
    clearTimeout(this.#retryTimer);
    this.#deadTimer = setTimeout(() => this.#dead(), WELCOME_DEADLINE_MS);
    const asking = (this.#asking = {});
    this.#become("connecting");
    if (asking !== this.#asking) return;
    if (this.#getToken) this.#askForToken(this.#getToken, asking);
    else this.#knock({ key: this.#key, name: this.#name }, [SUBPROTOCOL]);
  }

  /** @param {NonNullable<Options["getToken"]>} getToken @param {object} asking */
  async #askForToken(getToken, asking) {
    try {
      const brought = await Promise.resolve().then(getToken);
      const { name = this.#name, token } = typeof brought === "string" ? { token: brought } : (brought ?? {});
      if (typeof token !== "string" || !token) throw new TypeError("getToken gave no token");
      if (asking !== this.#asking) return;
      if (SUBPROTOCOL_CHARS.test(token)) this.#knock({ name }, [SUBPROTOCOL, BEARER + token]);
      else this.#knock({ name, token }, [SUBPROTOCOL]);
    } catch (error) {
      if (asking === this.#asking) this.#lost(undefined, wordsOf(error));
    }
  }

  /** Opens a socket. @param {Record<string, string>} query @param {string[]} protocols */
  #knock(query, protocols) {
    const url = new URL(this.#url);
    for (const [name, value] of Object.entries(query)) {
      if (value) url.searchParams.set(name, value);
    }
    this.#asking = null;
    let socket;
    try {
      socket = new this.#WebSocket(url.href, protocols);
    } catch (error) {
      // A page that came by https may open no ws://, say. Nothing that waiting helps; but the reason is told.
      return this.#lost(undefined, wordsOf(error));
    }
    this.#socket = socket;
    const ours = () => socket === this.#socket;
    socket.onmessage = (/** @type {any} */ { data }) => ours() && this.#heard(data);
    socket.onclose = (/** @type {any} */ { code, reason }) => ours() && this.#lost(code, reason);
    socket.onerror = () => {}; // A close follows; but some WebSockets throw what nobody listens to.
  }

  /** Lets go of the socket and of all that belonged to it alone. @param {number} code @param {string} reason */
  #drop(code, reason) {
    const socket = this.#socket;
    this.#socket = null;
    this.#asking = null;
    const now = this.#clock.now_ms();
    if (this.#welcomedAt !== null && now - this.#welcomedAt >= STABLE_MS) this.#attempt = 0;
    this.#welcomedAt = null;
    const timers = [this.#retryTimer, this.#deadTimer, this.#moveTimer, this.#flushTimer, this.#answerTimer];
    for (const timer of timers) clearTimeout(timer);
    this.#answerTimer = undefined;
    this.#heldUntil = 0;
    this.#orders = [];
    this.#unanswered.clear();
    this.#entered.clear();
    for (const say of this.#pending.values()) say.sent = false;
    for (const room of this.#rooms.values()) this.#rest(room);
    for (const ref of [...this.#questions.keys()]) this.#giveUp(ref, "offline", "the connection was lost");
    socket?.close(code, reason);
  }

  /** What a room was on a connection ends with it. @param {Room} room */
  #rest(room) {
    for (const timer of [room.joinTimer, room.sayTimer, room.inquiryTimer]) clearTimeout(timer);
    Object.assign(room, { joined: false, caughtUp: false, awaiting: null, sayTimer: undefined, inquiry: null });
    if (room.roster) Object.assign(room.roster, { unsure: true, misses: 0 });
  }

  /**
   * The socket is closed, by whomever, or there was none to be had.
   *
   * @param {number | undefined} code
   * @param {string} reason
   */
  #lost(code, reason) {
    this.#drop(1000, "");
    if (code !== undefined && code >= 4000 && code < 4100) {
      this.#end(FAREWELLS.get(code) ?? "closed", { code, reason });
      return;
    }
    const attempt = this.#attempt++;
    if (code === EXPIRED && this.#getToken && attempt === 0) {
      this.#open();
      return;
    }
    const bound_ms = Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** attempt);
    const retry_ms = Math.random() * bound_ms;
    this.#retryTimer = setTimeout(() => this.#open(), retry_ms);
    this.#become("waiting", { code, reason, retry_ms });
  }

  /** A server from which we would go on with a wrong position is left, and asked anew. @param {string} what */
  #broken(what) {
    this.#lost(undefined, `the server broke the protocol: ${what}`);
  }

  /** Leaves this connection for the next one without waiting. @param {string} reason */
  #again(reason) {
    this.#drop(1000, reason);
    this.#open();
  }

  /** @param {string} code @param {{code: number, reason: string}} why */
  #end(code, why) {
    if (this.#state === "closed") return;
    for (const [event, listener] of this.#signals) globalThis.removeEventListener?.(event, listener);
    this.#state = "closed";
    this.#farewell = [code, why.reason || "the connection is over"];
    const given = [...this.#pending.values()];
    this.#pending.clear();
    for (const say of given) this.#fail(say, new TownhallError(code, why.reason || "the connection is over", say));
    if (this.#state === "closed") this.#tell("state", { state: "closed", ...why });
  }

  /** A dead line looks like a silent one: nobody tells us, so we count. */
  #watch() {
    const beat_s = sensible(this.#welcome?.beat, 0, BEAT_MOST_S);
    if (!beat_s) return;
    const left_ms = this.#heardAt + DEAD_BEATS * beat_s * 1000 - this.#clock.now_ms();
    if (left_ms <= 0) this.#dead();
    else this.#deadTimer = setTimeout(() => this.#watch(), left_ms);
  }

  #dead() {
    this.#lost(1006, "no sign of life");
  }

  /** A line that beats and answers nothing is dead, too. Looks when the oldest command should have been answered. */
  #watchAnswers() {
    const [oldest] = this.#unanswered.values();
    this.#answerTimer = undefined;
    if (!oldest) return;
    const left_ms = oldest.at + COMMAND_DEADLINE_MS - this.#clock.now_ms();
    if (left_ms <= 0) this.#lost(1006, "no answer");
    else this.#answerTimer = setTimeout(() => this.#watchAnswers(), left_ms);
  }

  /** Without a network a hall on the same machine still answers; whoever does not is gone, and nobody tells us. */
  #doubt() {
    const room = [...this.#rooms.values()].find(({ joined }) => joined)?.name;
    if (room === undefined) return;
    this.history(room, { limit: 1 }).catch(({ code }) => {
      const silent = this.#offlineAt !== null && this.#heardAt <= this.#offlineAt;
      if (code === "unavailable" && this.#state === "open" && silent) this.#dead();
    });
  }

  /** What the browser tells its window about networks and pages. */
  #signals = Object.entries({
    offline: () => {
      this.#offlineAt = this.#clock.now_ms();
      this.#doubt();
    },
    online: () => {
      const silent = this.#offlineAt !== null && this.#heardAt <= this.#offlineAt;
      this.#offlineAt = null;
      if (this.#state === "waiting") this.#open();
      // Whatever line there was before the network went away has said nothing since: it is likely another network now.
      else if (this.#state === "open" && silent) this.#again("the network changed");
    },
    /** A page that comes out of the browser's cache had no line while it was there. */
    pageshow: (/** @type {any} */ { persisted }) => {
      if (persisted && this.#state === "waiting") this.#open();
      else if (persisted && this.#state === "open") this.#again("the page was away");
    },
    /** Somebody looks: a hidden page's timers are slow, and a long wait is for those who do not look. */
    visibilitychange: () => {
      if (!globalThis.document?.hidden && this.#state === "waiting") this.#open();
    },
  });

  // --- What the server says ---

  /** @param {unknown} data */
  #heard(data) {
    if (typeof data !== "string") return;
    this.#heardAt = this.#clock.now_ms();
    const frame = parsed(data);
    if (!frame) {
      this.#tell("error", { type: "error", code: "bad_frame", message: "what the server sent is no JSON object" });
      return;
    }
    const command = this.#unanswered.get(frame.ref)?.command;
    if (command) {
      this.#pace.refill(this.#unanswered.size);
      this.#unanswered.delete(frame.ref);
    }
    if (this.#state === "open") this.#take(frame, command);
    else if (frame.type === "welcome") this.#welcomed(frame);
    else if (frame.type === "error") this.#tell("error", frame);
    if (command) this.#flush(); // The pace waits for answers.
  }

  /** @param {any} frame @param {any} command of ours that it answers, if any */
  #take(frame, command) {
    switch (frame.type) {
      case "beat": case "welcome": return;
      case "joined": return this.#joined(frame);
      case "gap": return this.#gap(frame);
      case "accepted": return this.#accepted(frame);
      case "history": case "members": return this.#answer(frame);
      case "error": return this.#refused(frame, command);
      case "reconnect": return this.#reconnect(frame);
      case "left": return this.#tell("left", frame);
    }
    if (frame.room !== undefined && !this.#rooms.has(frame.room)) return;
    if (Number.isSafeInteger(frame.offset) && Number.isSafeInteger(frame.at)) this.#event(frame);
    else if (frame.type === "presence") this.#presence(frame);
    else this.#tell(frame.type === "typing" ? "typing" : "event", frame);
  }

  /** @param {any} frame */
  #welcomed(frame) {
    if (!isUser(frame.user)) return this.#broken("a welcome to nobody");
    clearTimeout(this.#deadTimer);
    // A new token may be another person's, who said nothing of what waits.
    const disowned = this.user && this.user.id !== frame.user.id ? [...this.#pending.values()] : [];
    for (const { id } of disowned) this.#pending.delete(id);
    this.#welcome = frame;
    this.#welcomedAt = this.#clock.now_ms();
    this.#limits = limitsOf(frame.limits);
    this.#pace = new Pace(this.#clock, this.#limits.rate, this.#limits.burst);
    this.#state = "open";
    this.#watch();
    for (const room of this.#rooms.values()) this.#sendJoin(room);
    const socket = this.#socket;
    this.#tell("state", { state: "open" });
    if (socket === this.#socket) this.#tell("welcome", frame);
    for (const say of disowned) {
      this.#fail(say, new TownhallError("other_user", "it was said by somebody else, who is no longer here", say));
    }
  }

  /** @param {any} frame */
  #joined(frame) {
    const room = this.#rooms.get(frame.room);
    // While a join of ours is on its way, an unasked one belongs to the membership before it.
    if (!room || (room.awaiting === null ? !room.joined : frame.ref !== room.awaiting)) return;
    const backlog = sensible(frame.backlog, NaN);
    if (!isPosition(frame) || !Number.isSafeInteger(backlog) || backlog > frame.offset) {
      return this.#broken("joined, but nowhere");
    }
    room.awaiting = null;
    room.joined = true;
    room.position = { epoch: frame.epoch, offset: frame.offset - backlog };
    room.until = frame.offset;
    room.caughtUp = false;
    this.#tell("joined", frame);
    if (this.#isIn(room)) this.#moved(room);
    if (this.#isIn(room)) this.#counted(room, frame.members);
  }

  /** @param {any} frame */
  #gap(frame) {
    const room = this.#rooms.get(frame.room);
    if (!room?.joined || !room.position) return;
    if (!isPosition({ epoch: frame.epoch, offset: frame.to })) return this.#broken("a gap without an end");
    if (frame.to <= room.position.offset) return;
    room.position = { epoch: frame.epoch, offset: frame.to };
    this.#tell("gap", frame);
    this.#moved(room);
  }

  /** Something stored, of a known type or not. @param {any} frame */
  #event(frame) {
    const room = this.#rooms.get(frame.room);
    if (!room?.joined || !room.position || frame.offset <= room.position.offset) return;
    const { epoch, offset: before } = room.position;
    room.position = { epoch, offset: frame.offset };
    if (frame.offset > before + 1) {
      // The server promises that this cannot happen. Should it, then not silently.
      this.#tell("gap", { type: "gap", room: room.name, epoch, from: before + 1, to: frame.offset - 1 });
    }
    const known = isMessage(frame);
    if (known && frame.from.id === this.user?.id && this.#isIn(room)) {
      this.#accepted({ room: room.name, id: frame.id, epoch, offset: frame.offset });
    }
    if (this.#isIn(room)) this.#tell(known ? "message" : "event", frame);
    this.#moved(room);
  }

  /** Whether we are still in this room: a listener may have left it, or joined it anew. @param {Room} room */
  #isIn(room) {
    return room.joined && this.#rooms.get(room.name) === room;
  }

  /** @param {Room} room one whose events were just dispatched */
  #moved(room) {
    if (room.caughtUp || !this.#isIn(room) || !room.position || room.position.offset < room.until) return;
    room.caughtUp = true;
    this.#tell("caughtup", { room: room.name, ...room.position });
    this.#flush();
  }

  /** @param {any} frame */
  #reconnect(frame) {
    clearTimeout(this.#moveTimer);
    const after_ms = sensible(frame.after_ms, 0, MOVE_MOST_MS);
    this.#moveTimer = setTimeout(() => this.#move(), after_ms);
    this.#tell("reconnect", frame);
  }

  /** At once; but servers that send us from one to the next, over and over, are not taken at their word for ever. */
  #move() {
    const lasted = this.#welcomedAt !== null && this.#clock.now_ms() - this.#welcomedAt >= STABLE_MS;
    const again = !lasted && this.#hurried;
    this.#hurried = !lasted;
    if (again) this.#lost(1012, "asked to reconnect");
    else this.#again("asked to reconnect");
  }

  /** Brings an `error` to whoever asked for what was refused. @param {any} frame @param {any} command */
  #refused(frame, command) {
    if (frame.code === "rate_limited") this.#heldUntil = this.#clock.now_ms() + retryAfter_ms(frame);
    const say = this.#pending.get(frame.id);
    if (say) return this.#sayRefused(say, frame);
    if (this.#questions.has(frame.ref)) return this.#giveUp(frame.ref, frame.code, frame.message, frame.retry_after_ms);
    for (const room of this.#rooms.values()) {
      if (room.awaiting !== null && room.awaiting === frame.ref) return this.#joinRefused(room, frame);
    }
    if (command?.type === "leave") this.#leaveRefused(command, frame);
    else this.#tell("error", frame);
  }

  // --- Rooms ---

  /** @param {Room} room */
  #sendJoin(room) {
    clearTimeout(room.joinTimer);
    this.#orders = this.#orders.filter((order) => order.type !== "join" || order.room !== room.name);
    if (this.#state !== "open") return;
    const after = room.position ?? undefined;
    room.awaiting = ++this.#ref;
    this.#order({ type: "join", room: room.name, after, last: room.last, ref: room.awaiting });
  }

  /** @param {Room} room @param {any} frame */
  #joinRefused(room, frame) {
    if (PASSING.has(frame.code)) {
      // Everybody in this room was told the same moment: spread a little.
      const wait_ms = retryAfter_ms(frame) * (1 + Math.random() / 5);
      room.joinTimer = setTimeout(() => this.#sendJoin(room), wait_ms);
      return;
    }
    this.#entered.delete(room.name);
    this.#forget(room, new TownhallError(frame.code, frame.message, { room: room.name }));
    this.#tell("refused", frame);
  }

  /**
   * Who is not in it has left it; else it is tried again, unless we want to be there again.
   *
   * @param {any} command
   * @param {any} frame
   */
  #leaveRefused(command, frame) {
    if (PASSING.has(frame.code) && !this.#rooms.has(command.room)) this.#order({ ...command, ref: ++this.#ref });
  }

  /** Leaves a room on this side, and on the other if we came so far. @param {Room} room @param {TownhallError} error */
  #forget(room, error) {
    const name = room.name;
    this.#rest(room);
    this.#rooms.delete(name);
    this.#orders = this.#orders.filter((order) => order.room !== name);
    if (this.#entered.has(name)) this.#order({ type: "leave", room: name, ref: ++this.#ref });
    for (const [ref, question] of [...this.#questions]) {
      if (question.room === name) this.#giveUp(ref, error.code, error.message);
    }
    for (const say of [...this.#pending.values()]) {
      if (say.room === name) this.#fail(say, new TownhallError(error.code, error.message, say));
    }
  }

  // --- Who is here ---

  /** How many are here says `joined`; who, is asked. @param {Room} room @param {any} count */
  #counted(room, count) {
    const roster = room.roster;
    if (!roster) return;
    const known = roster.told !== "";
    roster.counted(count);
    this.#tellMembers(room);
    // After a reconnection everybody else asks, too.
    if (this.#isIn(room) && roster.stale) this.#inquire(room, known ? Math.random() * SPREAD_MS : 0);
  }

  /** @param {any} frame */
  #presence(frame) {
    const room = this.#rooms.get(frame.room);
    this.#tell("presence", frame);
    if (!room?.roster || this.#rooms.get(room.name) !== room) return;
    room.roster.changed(frame);
    this.#tellMembers(room);
    if (this.#isIn(room)) this.#reconcile(room);
  }

  /** @param {Room} room */
  #tellMembers(room) {
    const roster = /** @type {Roster} */ (room.roster);
    const now = JSON.stringify(roster.now);
    if (now === roster.told) return;
    roster.told = now;
    this.#tell("members", { room: room.name, ...roster.now });
  }

  /** Asks who is here while list and count do not agree: again and again, less and less often. @param {Room} room */
  #reconcile(room) {
    const roster = /** @type {Roster} */ (room.roster);
    if (!roster.stale) {
      roster.misses = 0;
      return;
    }
    const wait_ms = Math.min(ASK_AGAIN_MOST_MS, ASK_AGAIN_MS * 2 ** roster.misses);
    this.#inquire(room, wait_ms * (0.5 + Math.random() / 2));
  }

  /** @param {Room} room @param {number} wait_ms */
  #inquire(room, wait_ms) {
    if (room.inquiry) return;
    const inquiry = (room.inquiry = {});
    const answered = () => {
      if (room.inquiry !== inquiry) return;
      room.inquiry = null;
      if (room.roster?.stale) room.roster.misses += 1;
      this.#reconcile(room);
    };
    room.inquiryTimer = setTimeout(() => this.who(room.name).then(answered, answered), wait_ms);
  }

  // --- Questions ---

  /** @param {string} room @param {any} command @returns {Promise<any>} */
  #ask(room, command) {
    const refuse = (/** @type {string} */ code, /** @type {string} */ message) =>
      Promise.reject(new TownhallError(code, message, { room }));
    if (!this.#rooms.has(room)) return refuse("not_joined", "join the room first");
    if (!this.#rooms.get(room)?.joined) return refuse("offline", "the room is not connected");
    const full = this.#questions.size >= QUESTION_CAPACITY;
    if (full) return refuse("too_many", `${QUESTION_CAPACITY} questions wait already`);
    return new Promise((resolve, reject) => {
      const ref = ++this.#ref;
      const late = () => this.#giveUp(ref, "unavailable", "there was no answer in time");
      const timer = setTimeout(late, QUESTION_DEADLINE_MS);
      this.#questions.set(ref, { room, resolve, reject, timer });
      this.#order({ ...command, ref });
    });
  }

  /** @param {any} frame `history` or `members` */
  #answer(frame) {
    const question = this.#questions.get(frame.ref);
    if (!question) return;
    if (!Array.isArray(frame.messages ?? frame.members)) return this.#broken("an answer without a list");
    clearTimeout(question.timer);
    this.#questions.delete(frame.ref);
    if (frame.messages) frame.messages = frame.messages.filter(isStored);
    question.resolve(frame);
    const room = this.#rooms.get(question.room);
    if (frame.type !== "members" || !room?.roster) return;
    // At once, and not when the promise has its turn: what follows on the line builds on it.
    room.roster.listed(frame);
    this.#tellMembers(room);
  }

  /** @param {number} ref @param {string} code @param {string} message @param {number} [retry_after_ms] */
  #giveUp(ref, code, message, retry_after_ms) {
    const question = this.#questions.get(ref);
    if (!question) return;
    clearTimeout(question.timer);
    this.#questions.delete(ref);
    this.#orders = this.#orders.filter((order) => order.ref !== ref);
    question.reject(new TownhallError(code, message, { room: question.room, retry_after_ms }));
  }

  // --- Our messages ---

  /** Why a message cannot even wait. @param {string} room @param {string} id @returns {[string, string] | null} */
  #refusal(room, id) {
    if (this.#state === "closed") return this.#farewell;
    if (!this.#rooms.has(room)) return ["not_joined", "join the room first"];
    if (!UUID.test(id)) return ["bad_frame", "`id` is a UUID"];
    if (this.#pending.size >= PENDING_CAPACITY) return ["too_many", `${PENDING_CAPACITY} messages wait already`];
    return null;
  }

  /** The first message that can go now. What cannot any more, or never could, fails. @returns {Say | undefined} */
  #nextSay() {
    for (const say of this.#pending.values()) {
      const room = this.#rooms.get(say.room);
      if (say.sent || !room?.caughtUp || room.sayTimer !== undefined) continue;
      const why = this.#unfit(say);
      if (!why) return say;
      this.#fail(say, new TownhallError(why[0], why[1], say));
    }
  }

  /** @param {Say} say @returns {[string, string] | null} */
  #unfit({ since, text, data }) {
    const { dedupe_s, text_bytes, data_bytes } = this.#limits;
    if (this.#clock.now_ms() - since > dedupe_s * 1000) return ["expired", "it waited too long to be sent again safely"];
    // The server says so, too, unless it is so long that it hangs up.
    const length = bytes(text);
    if (length > text_bytes) return ["too_long", `a text has at most ${text_bytes} bytes, this one ${length}`];
    const size = data ? bytes(JSON.stringify(data)) : 0;
    if (size > data_bytes) return ["too_long", `data has at most ${data_bytes} bytes, this one ${size}`];
    return null;
  }

  /** @param {any} frame an `accepted`, or the same read off our own message */
  #accepted({ room, id, epoch, offset }) {
    const say = this.#pending.get(id);
    if (!say || say.room !== room) return;
    this.#pending.delete(id);
    say.resolve({ room, id, epoch, offset });
    this.#tell("accepted", { room, id, epoch, offset });
  }

  /** @param {Say} say @param {any} frame */
  #sayRefused(say, frame) {
    if (!PASSING.has(frame.code)) {
      this.#fail(say, new TownhallError(frame.code, frame.message, frame));
      return;
    }
    say.sent = false;
    const room = this.#rooms.get(say.room);
    if (!room || frame.code === "rate_limited") return this.#flush();
    clearTimeout(room.sayTimer);
    room.sayTimer = setTimeout(() => {
      room.sayTimer = undefined;
      this.#flush();
    }, retryAfter_ms(frame));
  }

  /** @param {Say} say @param {TownhallError} error */
  #fail(say, error) {
    if (this.#pending.get(say.id) === say) this.#pending.delete(say.id);
    say.reject(error);
    this.#tell("failed", { room: say.room, id: say.id, error });
  }

  // --- What goes out ---

  /**
   * Sends a command as soon as the pace allows. Without a connection it does not: each begins with its own.
   *
   * @param {any} command
   */
  #order(command) {
    if (this.#state !== "open") return;
    this.#orders.push(command);
    this.#flush();
  }

  /**
   * Sends what waits, in order, as far as rooms, pace and refusals allow; called again whenever one of them changes.
   */
  #flush() {
    while (this.#state === "open") {
      const say = this.#orders.length ? undefined : this.#nextSay();
      if (!say && !this.#orders.length) return;
      const wait_ms = this.#wait_ms();
      if (wait_ms > 0) {
        clearTimeout(this.#flushTimer);
        if (wait_ms < Infinity) this.#flushTimer = setTimeout(() => this.#flush(), wait_ms);
        return;
      }
      if (say) this.#writeSay(say);
      else this.#write(this.#orders.shift());
    }
  }

  /** How long nothing may be sent. */
  #wait_ms() {
    return Math.max(this.#heldUntil - this.#clock.now_ms(), this.#pace.wait_ms(this.#unanswered.size));
  }

  /** @param {Say} say */
  #writeSay(say) {
    say.sent = true;
    const { room, id, text, data } = say;
    this.#write({ type: "say", room, id, text, data, ref: ++this.#ref });
  }

  /** @param {any} command one with a `ref` is answered */
  #write(command) {
    this.#pace.take();
    if (command.type === "join") this.#entered.add(command.room);
    if (command.type === "leave") this.#entered.delete(command.room);
    if (command.ref) this.#unanswered.set(command.ref, { command, at: this.#clock.now_ms() });
    if (this.#answerTimer === undefined) this.#watchAnswers();
    try {
      this.#socket.send(JSON.stringify(command));
    } catch {
      // It is closing; that will be told, or its silence will be noticed.
    }
  }

  // --- Small things ---

  /** @param {State} state @param {{code?: number, reason?: string, retry_ms?: number}} [why] */
  #become(state, why = {}) {
    if (this.#state === state) return;
    this.#state = state;
    this.#tell("state", { state, ...why });
  }

  /** @param {string} type @param {object} detail */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** What we keep to; where a server does not say what it allows, we find out by its refusals. @param {any} limits */
function limitsOf(limits) {
  return {
    rate: sensible(limits?.rate, 0),
    burst: sensible(limits?.burst, 1),
    dedupe_s: sensible(limits?.dedupe_s, Infinity),
    text_bytes: sensible(limits?.text_bytes, Infinity),
    data_bytes: sensible(limits?.data_bytes, Infinity),
  };
}

/**
 * Gives a message its data as it is now: that is what is sent again, whatever becomes of it.
 *
 * @param {any} say
 * @param {any} data
 * @returns {[string, string] | null} why it cannot be said
 */
function snapshot(say, data) {
  try {
    /** @param {string} _ @param {any} value */
    const clean = (_, value) => (typeof value === "string" ? wellFormed(value) : value);
    const json = JSON.stringify(data ?? undefined, clean);
    if (json !== undefined) say.data = JSON.parse(json);
    return null;
  } catch (error) {
    return ["bad_frame", `\`data\` is no JSON: ${wordsOf(error)}`];
  }
}
