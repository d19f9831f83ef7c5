/**
 * Our own messages until they are seen in the log: on their way, accepted and not read back yet, or failed.
 *
 * They outlive a reload of this tab: what was on its way then is sent again under its id, so it is said once whatever became
 * of it. At most `CAPACITY` of all rooms together: each is a row on screen.
 */

import { uuid } from "../client.js";
import { session } from "./kept.js";
import { to } from "./listen.js";

export const CAPACITY = 100;

/**
 * @typedef {object} Unsent
 * @property {string} room
 * @property {string} id
 * @property {string} text
 * @property {string} by the id of who said it; empty while the hall has not told it yet
 * @property {number} made when it was written, in Unix milliseconds
 * @property {"pending" | "accepted" | "failed"} state
 * @property {{epoch: string, offset: number} | null} place where it is stored, once accepted
 * @property {boolean} restored whether it is of the page before the reload, and not given to the SDK yet
 * @property {{code?: string, message?: string}} [error] why it failed
 */

export class Outbox extends EventTarget {
  /** In the order written. @type {Map<string, Unsent>} */
  #unsent = new Map();

  /** @param {import("../client.js").Townhall} hall */
  constructor(hall) {
    super();
    this.hall = hall;
    for (const kept of session.read("outbox", /** @type {any[]} */ ([])).filter(isWhole).slice(0, CAPACITY)) {
      this.#unsent.set(kept.id, { ...kept, place: null, restored: kept.state === "pending" });
    }
    const on = to(hall);
    on("joined", ({ room }) => this.#resume(room));
    on("refused", (refusal) => this.#giveUp(refusal));
    on("caughtup", ({ room }) => this.#settle(room, true));
    on("message", ({ room, id, from }) => {
      if (from.id === hall.user?.id && this.#unsent.get(id)?.room === room) this.discard(id);
    });
  }

  /** What was written before the hall had said who we are is nobody's, once somebody else may be here. */
  static forgetNameless() {
    session.write("outbox", session.read("outbox", /** @type {any[]} */ ([])).filter((kept) => kept?.by));
  }

  /** Forgets everything: its writer has gone. */
  clear() {
    this.#unsent.clear();
    session.set("outbox", "");
  }

  /** @param {string} room @returns {Unsent[]} */
  of(room) {
    return [...this.#unsent.values()].filter((message) => message.room === room);
  }

  /** Those where something is; or only where something is still on its way. @param {{pending?: boolean}} [which] @returns {Set<string>} */
  rooms({ pending = false } = {}) {
    const wanted = [...this.#unsent.values()].filter(({ state }) => !pending || state !== "failed");
    return new Set(wanted.map(({ room }) => room));
  }

  get full() {
    return this.#unsent.size >= CAPACITY;
  }

  /** @param {string} room one that is joined @param {string} text */
  say(room, text) {
    const by = this.hall.user?.id ?? "";
    /** @type {Unsent} */
    const message = { room, id: uuid(), text, by, made: Date.now(), state: "pending", place: null, restored: false };
    this.#unsent.set(message.id, message);
    this.#send(message);
    this.#changed(room);
  }

  /** Sends what failed again, as the same message. @param {string} id */
  retry(id) {
    const message = this.#unsent.get(id);
    if (message?.state !== "failed") return;
    if (message.by && message.by !== this.hall.user?.id) {
      this.#fail(message, { code: "other_user" });
      return;
    }
    // Which the server no longer knows cannot be the same one any more: it was given up, and is now said anew.
    if (message.error?.code === "expired") message.made = Date.now();
    Object.assign(message, { state: "pending", error: undefined });
    this.#send(message);
    this.#changed(message.room);
  }

  /** @param {string} id */
  discard(id) {
    const room = this.#unsent.get(id)?.room;
    this.#unsent.delete(id);
    if (room !== undefined) this.#changed(room);
  }

  /** @param {Unsent} message */
  #send(message) {
    const { room, text, id, made } = message;
    this.hall.send(room, text, { id, made }).then(
      ({ epoch, offset }) => {
        Object.assign(message, { state: "accepted", place: { epoch, offset } });
        this.#settle(room, false);
        this.#changed(room);
      },
      ({ code, message: words }) => {
        if (this.#unsent.has(id)) this.#fail(message, { code, message: words });
      },
    );
  }

  /** What was on its way when the page was left goes on, now that its room is there. @param {string} room */
  #resume(room) {
    for (const message of this.of(room).filter(({ restored }) => restored)) {
      message.restored = false;
      if (!message.by || message.by === this.hall.user?.id) this.#send(message);
      else this.#fail(message, { code: "other_user" });
    }
  }

  /** @param {any} refusal of a room */
  #giveUp({ room, code, message: words }) {
    for (const message of this.of(room).filter(({ restored }) => restored)) {
      message.restored = false;
      this.#fail(message, { code, message: words });
    }
  }

  /** @param {Unsent} message @param {{code?: string, message?: string}} error */
  #fail(message, error) {
    Object.assign(message, { state: "failed", place: null, error });
    this.#changed(message.room);
  }

  /**
   * Lets go of what was accepted at a place that we have passed already: its message will not come any more. Where the room
   * goes on in another epoch, it would have come if it were still there.
   *
   * @param {string} room
   * @param {boolean} caughtUp whether all that there is has come
   */
  #settle(room, caughtUp) {
    const here = this.hall.position(room);
    for (const message of this.of(room)) {
      const { id, state, place } = message;
      if (state !== "accepted" || !place || (here && place.offset > here.offset)) continue;
      if (!here || here.epoch === place.epoch) this.discard(id);
      else if (caughtUp) this.#fail(message, { code: "lost" });
    }
  }

  /** @param {string} room */
  #changed(room) {
    const kept = [...this.#unsent.values()].filter(({ state }) => state !== "accepted");
    session.write("outbox", kept.map(({ place, restored, ...message }) => message));
    this.dispatchEvent(new CustomEvent("change", { detail: { room } }));
  }
}

/** @param {any} kept */
function isWhole(kept) {
  const texts = [kept?.room, kept?.id, kept?.text, kept?.by].every((text) => typeof text === "string");
  return texts && Number.isFinite(kept.made) && ["pending", "failed"].includes(kept.state);
}
