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
 * - A room's events are dispatched in the order of their offsets, each once, over any number of reconnections. What could
 *   not be had is told by `gap`, or by `joined` with `recovered: false`.
 * - `send` resolves when the message is stored. Until then it is kept over reconnections under the same id, and sent again
 *   only when the room's backlog has been read without finding it.
 * - It reconnects by itself until `close()` is called or the server says never to come back.
 *
 * Where a login is needed, `getToken` brings what the site gives to those who have logged in:
 *
 *     const getToken = async () => {
 *       const answer = await fetch("/chat/token", { method: "POST", headers: { "X-CSRFToken": csrf } });
 *       if (answer.status === 401) hall.close(); // logged out: no further attempt
 *       if (!answer.ok) throw new Error(`no token: ${answer.status}`);
 *       return answer.json(); // {"name": "lewin", "token": "…"}
 *     };
 *     const hall = new Townhall("wss://example.org/ws", { getToken });
 *
 * ## Events
 * All are `CustomEvent`s; `detail` is the server's frame unless another shape is given.
 *
 * | event | when | detail |
 * |---|---|---|
 * | `state` | the connection's state changed | {@link StateDetail} |
 * | `welcome` | the server let us in | the frame: `user`, `rooms`, `limits`, … |
 * | `joined` | a room begins here: `recovered: true` goes on where we were; `false`: something was lost; absent: a fresh view. Replace the view unless it is `true` | the frame |
 * | `caughtup` | the backlog that `joined` announced has been dispatched | `{room, epoch, offset}` |
 * | `message` | somebody said something | the frame |
 * | `gap` | the offsets `from` to `to` are lost for good | the frame |
 * | `event` | an event of a type that this version does not know | the frame |
 * | `presence`, `typing`, `members` | as they come | the frame |
 * | `accepted` | a message of ours is stored | `{room, id, epoch, offset}` |
 * | `failed` | a message of ours was given up | `{room, id, error}` with a {@link TownhallError} |
 * | `refused` | a join was refused for good; the room is forgotten | the `error` frame |
 * | `left` | the server confirmed `leave` | the frame |
 * | `reconnect` | the server will be left in `after_ms`, and another found | the frame |
 * | `error` | an error that belongs to none of the above | the frame |
 *
 * @module
 */

const SUBPROTOCOL = "townhall.v1";
/** A subprotocol that is a token: it stands in no address, so in no log. */
const BEARER = "bearer.";
/** What a subprotocol may consist of (RFC 9110, `token`); any other token goes into the address. */
const SUBPROTOCOL_CHARS = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** Full jitter: a wait is anything between nothing and a bound that doubles from the first to the second. */
const BACKOFF_FIRST_MS = 500;
const BACKOFF_LAST_MS = 20_000;
/** A connection that lived this long was a good one: the next one is tried quickly again. */
const STABLE_MS = 5_000;
/** From asking for a token, or opening a socket, to the `welcome`. */
const WELCOME_DEADLINE_MS = 10_000;
/** Of the server's `beat`: without a text frame for so many of them the line is dead. */
const DEAD_BEATS = 2.5;
/** Messages that wait to be accepted; one more is refused at once. */
const PENDING_CAPACITY = 200;
/** Where the server did not say when to try again. */
const RETRY_MS = 1_000;

/** The token with which we came is no longer valid; with a new one we may come back at once. */
const EXPIRED = 4101;
/** What the server means by the close codes after which nobody comes back by himself; others of 40xx are `closed`. */
const FAREWELLS = new Map([[4001, "unauthorized"], [4003, "banned"], [4004, "kicked"]]);
/** Refusals that pass: the same command may be sent again. */
const PASSING = new Set(["unavailable", "rate_limited"]);
/** Frames that have neither a position nor a request behind them. */
const EPHEMERAL = new Set(["presence", "typing", "members"]);

/**
 * @typedef {"closed" | "connecting" | "open" | "waiting"} State
 *   `closed`: not wanted, or never to come back. `waiting`: between two attempts.
 *
 * @typedef {object} StateDetail
 * @property {State} state
 * @property {number} [code] why a connection ended: a close code, as the server or the browser gave it
 * @property {string} [reason] in the server's words; or why there was no token
 * @property {number} [retry_ms] when `waiting`: how long
 *
 * @typedef {{epoch: string, offset: number}} Position a place in a room's log
 * @typedef {Position & {room: string, id: string}} Accepted
 * @typedef {{id: string, name: string, info?: object}} User
 * @typedef {{type: string, room: string, offset: number, at: number, id: string, from: User, text: string, data?: object}} Message
 *   `at` is Unix milliseconds by the server's clock.
 * @typedef {{room: string, epoch: string, messages: Message[], more: boolean}} History
 *
 * @typedef {object} Options
 * @property {string} [name] how others see us; without it, our address
 * @property {() => Promise<string | {name?: string, token: string}>} [getToken] asked before every attempt to connect;
 *   when it fails, so has the attempt, and the next one asks again. A ticket is for a name: that beside it, or `name`
 * @property {string} [key] a secret UUID that makes a guest the same person after a reconnection. One is made for this
 *   object's lifetime when it is absent
 * @property {any} [WebSocket] the class to use where there is no global one
 *
 * @typedef {object} Room
 * @property {string} name
 * @property {number} last how much to replay where there is nothing to resume
 * @property {Position | null} position where we are
 * @property {boolean} joined on this connection
 * @property {number} until the last offset of the announced backlog
 * @property {boolean} caughtUp joined, and the backlog is in
 * @property {number | null} awaiting the `ref` of the join that was not answered yet
 * @property {any} timer when a join is to be tried again
 *
 * @typedef {object} Say
 * @property {string} room
 * @property {string} id
 * @property {string} text
 * @property {object} [data]
 * @property {number} made when `send` was called, in Unix milliseconds
 * @property {boolean} sent on this connection, and not answered
 * @property {Promise<Accepted>} promise
 * @property {(accepted: Accepted) => void} resolve
 * @property {(error: Error) => void} reject
 */

/** Why something that was asked for did not happen. */
export class TownhallError extends Error {
  /**
   * @param {string} code one of the server's error codes, or of ours: `offline`, `closed`, `left`, `expired`,
   *   `too_many`, `other_user`
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
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

/**
 * The server's limit on commands, kept on this side too: a queue that is emptied after an outage must not run into
 * refusals, a hundred of which in a row end the connection.
 */
class Pace {
  /**
   * @param {number} rate commands a second; 0: no limit
   * @param {number} burst
   */
  constructor(rate, burst) {
    this.rate = rate;
    this.burst = burst;
    this.left = burst;
    this.at = Date.now();
  }

  /** How long to wait, in milliseconds, until a command may go. */
  wait_ms() {
    if (!this.rate) return 0;
    const now = Date.now();
    this.left = Math.min(this.burst, this.left + (Math.max(0, now - this.at) * this.rate) / 1000);
    this.at = now;
    return this.left >= 1 ? 0 : Math.ceil(((1 - this.left) * 1000) / this.rate);
  }

  take() {
    this.left -= 1;
  }
}

export class Townhall extends EventTarget {
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
  /** @type {Map<number, {resolve: Function, reject: Function}>} */ #asked = new Map();
  /** @type {any} */ #welcome = null;
  #pace = new Pace(0, 0);
  #ref = 0;
  #attempt = 0;
  #heardAt = 0;
  #welcomedAt = 0;
  #offlineAt = 0;
  /** Until then no message is sent, because the last one was refused for a while. */
  #holdUntil = 0;
  /** @type {any} */ #retryTimer;
  /** @type {any} */ #deadTimer;
  /** @type {any} */ #moveTimer;
  /** @type {any} */ #flushTimer;

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

  /** Where we are in a room; `null` before it was joined. @param {string} room @returns {Position | null} */
  position(room) {
    const position = this.#rooms.get(room)?.position;
    return position ? { ...position } : null;
  }

  /** Connects, and stays connected. While it waits to try again: tries now. Otherwise a second call changes nothing. */
  connect() {
    if (this.#state === "closed") {
      this.#attempt = 0;
      globalThis.addEventListener?.("online", this.#online);
      globalThis.addEventListener?.("offline", this.#offline);
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
   * Joins a room, now and after every reconnection. In a room that is joined already it begins anew: the last messages are
   * replayed once more.
   *
   * @param {string} name
   * @param {{last?: number}} [options] `last`: how many messages to replay, 200 at most
   */
  join(name, { last = 50 } = {}) {
    clearTimeout(this.#rooms.get(name)?.timer);
    /** @type {Room} */
    const room = { name, last, position: null, joined: false, until: 0, caughtUp: false, awaiting: null, timer: undefined };
    this.#rooms.set(name, room);
    if (this.#state === "open") this.#sendJoin(room);
  }

  /** Leaves a room. Messages to it that were not accepted fail with `left`. @param {string} name */
  leave(name) {
    const room = this.#rooms.get(name);
    if (!room) return;
    this.#forget(room, new TownhallError("left", "the room was left", { room: name }));
    if (this.#state === "open") this.#command({ type: "leave", room: name });
  }

  /**
   * Says something. It may be called at any time after `connect`: what cannot be sent now waits for the line and the room.
   *
   * @param {string} room one that was joined
   * @param {string} text
   * @param {{data?: object, id?: string}} [options] `data` rides on the message. `id`: of a message that failed, to send it
   *   again as the same one
   * @returns {Promise<Accepted>} where it was stored; rejected with a {@link TownhallError} if it was refused or given up
   */
  send(room, text, { data, id = uuid() } = {}) {
    const known = this.#pending.get(id);
    if (known) return known.promise;
    const refusal = this.#refusal(room);
    if (refusal) return Promise.reject(new TownhallError(refusal[0], refusal[1], { room, id }));
    /** @type {any} */
    const say = { room, id, text, data, made: Date.now(), sent: false };
    say.promise = new Promise((resolve, reject) => Object.assign(say, { resolve, reject }));
    say.promise.catch(() => {}); // `failed` tells it, too: who listens there need not look at the promise.
    this.#pending.set(id, say);
    this.#flush();
    return say.promise;
  }

  /**
   * Reads older messages. They are returned, not dispatched, and move no position.
   *
   * @param {string} room one that is joined
   * @param {{before?: number, limit?: number}} [options] `before`: an offset, exclusive; absent: from the newest.
   *   `limit`: 200 at most
   * @returns {Promise<History>} oldest first; rejected with `offline` when the connection is not there
   */
  history(room, { before, limit = 50 } = {}) {
    if (!this.#rooms.get(room)?.joined) {
      return Promise.reject(new TownhallError("offline", "the room is not connected", { room }));
    }
    return new Promise((resolve, reject) => {
      this.#asked.set(this.#command({ type: "history", room, before, limit }), { resolve, reject });
    });
  }

  // --- The connection ---

  #open() {
    clearTimeout(this.#retryTimer);
    this.#deadTimer = setTimeout(() => this.#dead(), WELCOME_DEADLINE_MS);
    if (this.#getToken) this.#askForToken(this.#getToken);
    else this.#knock({ key: this.#key, name: this.#name }, [SUBPROTOCOL]);
    this.#become("connecting");
  }

  /** @param {NonNullable<Options["getToken"]>} getToken */
  async #askForToken(getToken) {
    const asking = (this.#asking = {});
    try {
      const brought = await Promise.resolve().then(getToken);
      const { name = this.#name, token } = typeof brought === "string" ? { token: brought } : (brought ?? {});
      if (typeof token !== "string" || !token) throw new TypeError("getToken gave no token");
      if (asking !== this.#asking) return;
      if (SUBPROTOCOL_CHARS.test(token)) this.#knock({ name }, [SUBPROTOCOL, BEARER + token]);
      else this.#knock({ name, token }, [SUBPROTOCOL]);
    } catch (error) {
      if (asking === this.#asking) this.#lost(undefined, error instanceof Error ? error.message : String(error));
    }
  }

  /** Opens a socket. @param {Record<string, string>} query @param {string[]} protocols */
  #knock(query, protocols) {
    const url = new URL(this.#url);
    for (const [name, value] of Object.entries(query)) {
      if (value) url.searchParams.set(name, value);
    }
    const socket = new this.#WebSocket(url.href, protocols);
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
    if (this.#welcomedAt && Date.now() - this.#welcomedAt >= STABLE_MS) this.#attempt = 0;
    this.#welcomedAt = 0;
    for (const timer of [this.#retryTimer, this.#deadTimer, this.#moveTimer, this.#flushTimer]) clearTimeout(timer);
    this.#holdUntil = 0;
    for (const say of this.#pending.values()) say.sent = false;
    for (const room of this.#rooms.values()) {
      clearTimeout(room.timer);
      Object.assign(room, { joined: false, caughtUp: false, awaiting: null });
    }
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    for (const { reject } of asked) reject(new TownhallError("offline", "the connection was lost"));
    socket?.close(code, reason);
  }

  /**
   * The socket is closed, by whomever, or there was no token for one.
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

  /** Leaves this connection for the next one without waiting. @param {string} reason */
  #again(reason) {
    this.#drop(1000, reason);
    this.#open();
  }

  /** @param {string} code @param {{code: number, reason: string}} why */
  #end(code, why) {
    globalThis.removeEventListener?.("online", this.#online);
    globalThis.removeEventListener?.("offline", this.#offline);
    for (const say of [...this.#pending.values()]) {
      this.#fail(say, new TownhallError(code, why.reason || "the connection is over", say));
    }
    this.#become("closed", why);
  }

  /** A dead line looks like a silent one: nobody tells us, so we count. */
  #watch() {
    if (!this.#welcome.beat) return;
    const left_ms = this.#heardAt + DEAD_BEATS * this.#welcome.beat * 1000 - Date.now();
    if (left_ms <= 0) this.#dead();
    else this.#deadTimer = setTimeout(() => this.#watch(), left_ms);
  }

  #dead() {
    this.#lost(1006, "no sign of life");
  }

  #online = () => {
    if (this.#state === "waiting") this.#open();
    // Whatever line there was before the network went away has said nothing since: it is likely another network now.
    else if (this.#state === "open" && this.#offlineAt && this.#heardAt <= this.#offlineAt) this.#again("the network changed");
    this.#offlineAt = 0;
  };

  #offline = () => {
    this.#offlineAt = Date.now();
  };

  // --- What the server says ---

  /** @param {unknown} data */
  #heard(data) {
    if (typeof data !== "string") return;
    this.#heardAt = Date.now();
    const frame = parsed(data);
    if (frame) this.#take(frame);
    else this.#tell("error", { type: "error", code: "bad_frame", message: "the server sent something that is no JSON object" });
  }

  /** @param {any} frame */
  #take(frame) {
    switch (frame.type) {
      case "beat": return;
      case "welcome": return this.#welcomed(frame);
      case "joined": return this.#joined(frame);
      case "gap": return this.#gap(frame);
      case "accepted": return this.#accepted(frame);
      case "history": return this.#answer(frame);
      case "error": return this.#refused(frame);
      case "reconnect": return this.#reconnect(frame);
      case "left": return this.#tell("left", frame);
    }
    if (Number.isInteger(frame.offset) && Number.isInteger(frame.at)) this.#event(frame);
    else this.#tell(EPHEMERAL.has(frame.type) ? frame.type : "event", frame);
  }

  /** @param {any} frame */
  #welcomed(frame) {
    clearTimeout(this.#deadTimer);
    if (this.user && this.user.id !== frame.user.id) this.#disown();
    this.#welcome = frame;
    this.#welcomedAt = Date.now();
    this.#pace = new Pace(frame.limits?.rate ?? 0, frame.limits?.burst ?? 1);
    this.#watch();
    for (const room of this.#rooms.values()) this.#sendJoin(room);
    this.#become("open");
    this.#tell("welcome", frame);
  }

  /** @param {any} frame */
  #joined(frame) {
    const room = this.#rooms.get(frame.room);
    // While a join of ours is on its way, an unasked one belongs to the membership before it.
    if (!room || (room.awaiting !== null && frame.ref !== room.awaiting)) return;
    room.awaiting = null;
    room.joined = true;
    room.position = { epoch: frame.epoch, offset: frame.offset - frame.backlog };
    room.until = frame.offset;
    room.caughtUp = false;
    this.#tell("joined", frame);
    this.#moved(room);
  }

  /** @param {any} frame */
  #gap(frame) {
    const room = this.#rooms.get(frame.room);
    if (!room?.joined || !room.position || frame.to <= room.position.offset) return;
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
    const known = frame.type === "message";
    if (known && frame.from?.id === this.user?.id) {
      this.#accepted({ room: room.name, id: frame.id, epoch, offset: frame.offset });
    }
    this.#tell(known ? "message" : "event", frame);
    this.#moved(room);
  }

  /** @param {Room} room one whose events were just dispatched; a listener may have left it since, or joined it anew */
  #moved(room) {
    if (room.caughtUp || !room.joined || !room.position || room.position.offset < room.until) return;
    if (this.#rooms.get(room.name) !== room) return;
    room.caughtUp = true;
    this.#tell("caughtup", { room: room.name, ...room.position });
    this.#flush();
  }

  /** @param {any} frame */
  #answer(frame) {
    const asked = this.#asked.get(frame.ref);
    this.#asked.delete(frame.ref);
    asked?.resolve(frame);
  }

  /** @param {any} frame */
  #reconnect(frame) {
    clearTimeout(this.#moveTimer);
    this.#moveTimer = setTimeout(() => this.#again("asked to reconnect"), frame.after_ms);
    this.#tell("reconnect", frame);
  }

  /** Brings an `error` to whoever asked for what was refused. @param {any} frame */
  #refused(frame) {
    const say = this.#pending.get(frame.id);
    if (say) return this.#sayRefused(say, frame);
    const asked = this.#asked.get(frame.ref);
    if (asked) {
      this.#asked.delete(frame.ref);
      asked.reject(new TownhallError(frame.code, frame.message, frame));
      return;
    }
    for (const room of this.#rooms.values()) {
      if (room.awaiting !== null && room.awaiting === frame.ref) return this.#joinRefused(room, frame);
    }
    this.#tell("error", frame);
  }

  // --- Rooms ---

  /** @param {Room} room */
  #sendJoin(room) {
    clearTimeout(room.timer);
    const after = room.position ?? undefined;
    room.awaiting = this.#command({ type: "join", room: room.name, after, last: room.last });
  }

  /** @param {Room} room @param {any} frame */
  #joinRefused(room, frame) {
    if (PASSING.has(frame.code)) {
      // Everybody in this room was told the same moment: spread a little.
      const wait_ms = (frame.retry_after_ms ?? RETRY_MS) * (1 + Math.random() / 5);
      room.timer = setTimeout(() => this.#sendJoin(room), wait_ms);
      return;
    }
    this.#forget(room, new TownhallError(frame.code, frame.message, { room: room.name }));
    this.#tell("refused", frame);
  }

  /** @param {Room} room @param {TownhallError} error */
  #forget(room, error) {
    clearTimeout(room.timer);
    this.#rooms.delete(room.name);
    for (const say of [...this.#pending.values()]) {
      if (say.room === room.name) this.#fail(say, new TownhallError(error.code, error.message, say));
    }
  }

  // --- Our messages ---

  /** Why a message cannot even wait. @param {string} room @returns {[string, string] | null} */
  #refusal(room) {
    if (this.#state === "closed") return ["closed", "the connection is closed"];
    if (!this.#rooms.has(room)) return ["not_joined", "join the room first"];
    if (this.#pending.size >= PENDING_CAPACITY) return ["too_many", `${PENDING_CAPACITY} messages wait already`];
    return null;
  }

  /** Sends what waits, in order, as far as rooms, pace and refusals allow; called again whenever one of them changes. */
  #flush() {
    clearTimeout(this.#flushTimer);
    for (const say of this.#pending.values()) {
      if (say.sent || !this.#rooms.get(say.room)?.caughtUp) continue;
      if (Date.now() - say.made > this.#dedupe_ms()) {
        this.#fail(say, new TownhallError("expired", "it waited too long to be sent again safely", say));
        continue;
      }
      const wait_ms = Math.max(this.#holdUntil - Date.now(), this.#pace.wait_ms());
      if (wait_ms > 0) {
        this.#flushTimer = setTimeout(() => this.#flush(), wait_ms);
        return;
      }
      say.sent = true;
      const { room, id, text, data } = say;
      this.#command({ type: "say", room, id, text, data });
    }
  }

  /** For how long the server recognises a message that it has stored. */
  #dedupe_ms() {
    return (this.#welcome?.limits?.dedupe_s ?? Infinity) * 1000;
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
    this.#holdUntil = Math.max(this.#holdUntil, Date.now() + (frame.retry_after_ms ?? RETRY_MS));
    this.#flush();
  }

  /** A new token may be another person's, who said nothing of what waits. */
  #disown() {
    for (const say of [...this.#pending.values()]) {
      this.#fail(say, new TownhallError("other_user", "it was said by somebody else, who is no longer here", say));
    }
  }

  /** @param {Say} say @param {TownhallError} error */
  #fail(say, error) {
    this.#pending.delete(say.id);
    say.reject(error);
    this.#tell("failed", { room: say.room, id: say.id, error });
  }

  // --- Small things ---

  /** @param {object} frame @returns {number} its `ref` */
  #command(frame) {
    const ref = ++this.#ref;
    this.#pace.take();
    this.#socket.send(JSON.stringify({ ...frame, ref }));
    return ref;
  }

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
