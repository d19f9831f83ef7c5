/**
 * The rooms at the side: which there are, where the reader has read to, and how much is unread.
 *
 * They are those that the hall names and those that were visited. All are joined, as many as the hall allows, so that what is
 * said there counts. Offsets are dense, so what is unread is the room's last offset less the last one that was read.
 */

import { local, onKept } from "./kept.js";
import { to } from "./listen.js";
import { arrange, button, element, part } from "./part.js";
import { onLanguage, words } from "./words.js";

const NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/;
/** Visited rooms that are remembered. */
const VISITED = 20;
/** More than so many are not counted on screen. */
const COUNTED = 99;
/** What the hall allows to be joined, until it says so itself. */
const ROOMS = 32;

/** How much is replayed when a room is entered: what is unread and a little before it, within these. */
const REPLAY = { least: 50, before: 20, most: 200 };

export class Rooms extends EventTarget {
  /** The one on screen; empty while the address names none. */
  current = "";
  /** What the room on screen was called in the address, whether it is a name or not. */
  wanted = "";
  /** `epoch`: the one in which `read` and `head` are. @type {Map<string, {read: number | null, head: number, epoch: string}>} */
  #places = new Map();
  #enteredTwice = false;
  /** In the order joined. @type {Set<string>} */
  #joined = new Set();
  /** @type {string[]} */
  #visited = local.read("rooms", []).filter((room) => NAME.test(room)).slice(0, VISITED);

  /** @param {import("../client.js").Townhall} hall @param {import("./outbox.js").Outbox} outbox */
  constructor(hall, outbox) {
    super();
    this.hall = hall;
    this.outbox = outbox;
    const on = to(hall);
    on("welcome", () => this.#joinOthers());
    on("state", ({ state }) => state === "waiting" && this.#forgetPlaces());
    on("joined", (frame) => this.#arrived(frame));
    on("gap", ({ room, to }) => this.#moved(room, to, false));
    on("event", ({ room, offset }) => offset && this.#moved(room, offset, false));
    on("message", ({ room, offset, from }) => this.#moved(room, offset, from.id === hall.user?.id));
    on("refused", ({ room }) => this.forget(room));
    outbox.addEventListener("change", () => this.#changed());
    onKept((key, value) => {
      const [, room] = /^read\.(.+)$/.exec(key) ?? [];
      const { epoch, read } = place(value);
      if (room && read !== null && this.#places.get(room)?.epoch === epoch) this.read(room, read);
    });
    part("goto").addEventListener("submit", (/** @type {Event} */ event) => this.#goto(event));
    onLanguage(() => this.draw());
  }

  /** Those that are shown, in their order. @returns {string[]} */
  get names() {
    const current = this.current ? [this.current] : [];
    return [...new Set([...this.#configured, ...this.#visited, ...this.outbox.rooms(), ...current])];
  }

  /** @returns {string[]} */
  get #configured() {
    return this.hall.welcome?.rooms ?? [];
  }

  /** How much is unread in all rooms together. */
  get unread() {
    return this.names.reduce((sum, room) => sum + this.count(room), 0);
  }

  /** @param {string} room */
  count(room) {
    const place = this.#places.get(room);
    return place && place.read !== null ? Math.max(0, place.head - place.read) : 0;
  }

  /** The last offset that was read, where there is anything unread. @param {string} room @returns {number | null} */
  mark(room) {
    return this.count(room) > 0 ? (this.#places.get(room)?.read ?? null) : null;
  }

  /** Enters the room that the address names. @param {string} wanted */
  enter(wanted) {
    this.wanted = wanted;
    this.#enteredTwice = false;
    this.current = NAME.test(wanted) ? wanted : "";
    if (this.current) {
      if (!this.#configured.includes(wanted) && !this.#visited.includes(wanted)) {
        this.#visited = [wanted, ...this.#visited];
        for (const oldest of this.#visited.slice(VISITED)) this.forget(oldest);
        local.write("rooms", this.#visited);
      }
      this.join();
    }
    this.#changed();
  }

  /** Joins the room on screen anew: its last messages come once more. */
  join() {
    const last = Math.min(Math.max(this.count(this.current) + REPLAY.before, REPLAY.least), REPLAY.most);
    this.#join(this.current, { last, members: true });
  }

  /** @param {string} room */
  forget(room) {
    this.#visited = this.#visited.filter((visited) => visited !== room);
    local.write("rooms", this.#visited);
    local.set(`read.${room}`, "");
    this.#places.delete(room);
    if (this.#joined.delete(room)) this.hall.leave(room);
    this.#changed();
  }

  /** The reader has seen everything up to an offset. @param {string} room @param {number} offset */
  read(room, offset) {
    const place = this.#place(room);
    if (place.read !== null && place.read >= offset) return;
    place.read = offset;
    local.set(`read.${room}`, `${offset} ${place.epoch}`);
    this.#changed();
  }

  #joinOthers() {
    for (const room of new Set([...this.outbox.rooms({ pending: true }), ...this.names])) {
      if (this.#joined.size < this.#most && !this.#joined.has(room)) this.#join(room, { last: 0 });
    }
    this.#changed();
  }

  /** Where nobody looks, what was missed need not be read to be counted: such rooms begin anew after a lost line. */
  #forgetPlaces() {
    const kept = this.outbox.rooms({ pending: true }).add(this.current);
    for (const room of this.#joined) if (!kept.has(room)) this.hall.join(room, { last: 0 });
  }

  get #most() {
    return this.hall.welcome?.limits?.rooms || ROOMS;
  }

  /** @param {string} room @param {object} options */
  #join(room, options) {
    this.#place(room);
    for (const other of this.#joined) {
      if (this.#joined.size < this.#most || this.#joined.has(room)) break;
      if (other === room || this.outbox.rooms({ pending: true }).has(other)) continue;
      this.#joined.delete(other);
      this.hall.leave(other);
    }
    this.#joined.add(room);
    this.hall.join(room, options);
  }

  /** @param {string} room */
  #place(room) {
    const known = this.#places.get(room);
    if (known) return known;
    const kept = { ...place(local.get(`read.${room}`)), head: 0 };
    this.#places.set(room, kept);
    return kept;
  }

  /**
   * A room never seen before has nothing unread. In another epoch, unless nothing was lost, offsets may be those of other
   * messages: then all that is replayed is new.
   *
   * @param {any} frame `joined`
   */
  #arrived({ room, epoch, offset, backlog, recovered }) {
    const place = this.#place(room);
    const read = place.read ?? offset;
    const same = place.epoch === epoch || place.read === null || recovered === true;
    Object.assign(place, { head: offset, epoch, read: same ? Math.min(read, offset) : Math.min(read, offset - backlog) });
    local.set(`read.${room}`, `${place.read} ${epoch}`);
    this.#changed();
    const short = recovered !== true && this.count(room) > backlog && backlog < Math.min(offset, REPLAY.most);
    if (room !== this.current || !short || this.#enteredTwice) return;
    // How much is unread is known only now: once more with all of it.
    this.#enteredTwice = true;
    this.join();
  }

  /** @param {string} room @param {number} offset @param {boolean} own nobody has to read what he said himself */
  #moved(room, offset, own) {
    const place = this.#place(room);
    place.head = Math.max(place.head, offset);
    if (own && place.read === offset - 1) this.read(room, offset);
    else this.#changed();
  }

  /** @param {Event} event */
  #goto(event) {
    event.preventDefault();
    const other = part("other");
    const wanted = other.value.trim().replace(/^#/, "").toLowerCase();
    if (!NAME.test(wanted)) {
      other.setCustomValidity(words.badRoom);
      other.reportValidity();
      other.addEventListener("input", () => other.setCustomValidity(""), { once: true });
      return;
    }
    other.value = "";
    location.hash = `#${wanted}`;
  }

  #planned = false;

  #changed() {
    this.dispatchEvent(new Event("change"));
    if (this.#planned) return;
    this.#planned = true;
    setTimeout(() => {
      this.#planned = false;
      this.draw();
    });
  }

  /** Rows stay the same elements, so that whoever is on one with the keyboard stays there. */
  draw() {
    const names = this.names;
    for (const room of this.#rows.keys()) if (!names.includes(room)) this.#rows.delete(room);
    const rows = names.map((room) => {
      const row = this.#rows.get(room) ?? this.#row(room);
      this.#rows.set(room, row);
      this.#fill(row, room);
      return row;
    });
    arrange(part("rooms").firstElementChild, rows);
    part("menu").toggleAttribute("data-unread", names.some((room) => room !== this.current && this.count(room) > 0));
  }

  /** @type {Map<string, HTMLElement>} */
  #rows = new Map();

  /** @param {string} room */
  #row(room) {
    const row = element("li");
    const link = /** @type {HTMLAnchorElement} */ (element("a"));
    link.href = `#${room}`;
    const forget = button("forget", "×", () => {
      for (const { id } of this.outbox.of(room)) this.outbox.discard(id);
      local.set(`draft.${room}`, "");
      this.forget(room);
      part("other").focus();
    });
    row.append(link, forget);
    return row;
  }

  /** @param {HTMLElement} row @param {string} room */
  #fill(row, room) {
    const [link, forget] = /** @type {any} */ (row.children);
    const here = room === this.current;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    link.replaceChildren(element("span", "room-name", room));
    const count = this.count(room);
    if (this.outbox.of(room).some(({ state }) => state === "failed")) sign(link, "failed-mark", "!", words.unsentHere);
    if (count) sign(link, "count", count > COUNTED ? `${COUNTED}+` : String(count), words.unread(count));
    forget.hidden = here || this.#configured.includes(room) || this.outbox.rooms({ pending: true }).has(room);
    forget.title = words.forget(room);
    forget.setAttribute("aria-label", words.forget(room));
  }
}

/** What is kept of a room: `OFFSET EPOCH`. @param {string} kept @returns {{read: number | null, epoch: string}} */
function place(kept) {
  const [, offset, epoch = ""] = /^(\d{1,15}) (\w*)$/.exec(kept) ?? [];
  return { read: offset === undefined ? null : Number(offset), epoch };
}

/** A sign, and its words for those who do not see it.
 * @param {HTMLElement} where @param {string} className @param {string} shown @param {string} said */
function sign(where, className, shown, said) {
  const made = element("span", className, shown);
  made.setAttribute("aria-hidden", "true");
  where.append(made, element("span", "spoken", ` ${said}`));
}
