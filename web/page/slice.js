/**
 * The stretch of a room's log that is on screen, without a document: what it covers, and what it lets go.
 *
 * It covers the offsets `from` to `to` without a hole: where something is lost for good, an entry says so. It has a capacity:
 * what is added at one end pushes out what is at the other. While its end is the newest event of the room it is *live* and
 * grows by what is said; otherwise what is said passes by, and is read from the history when the reader comes down again.
 */

/** What one person says within this time stands under one heading. */
const TOGETHER_MS = 5 * 60_000;

/**
 * @typedef {object} Entry
 * @property {number} offset the first that it stands for
 * @property {number} through the last
 * @property {any} [message] as the server sent it
 * @property {number} [lost] how many messages are missing here for good; 0: nobody knows
 * @property {boolean} quiet whether it was there before the reader was: not to be read aloud
 *
 * @typedef {object} Seam what stands between an entry and the one above
 * @property {number | null} day a moment of the day that begins here
 * @property {boolean} unread whether here begins what the reader has not seen
 * @property {boolean} continued whether it goes on under the same heading
 */

export class Slice {
  /** @type {Entry[]} */ entries = [];
  from = 1;
  to = 0;
  live = true;
  /** Whether there is anything before `from`. */
  more = false;

  /** @param {number} capacity in entries */
  constructor(capacity) {
    this.capacity = capacity;
  }

  /** Begins anew, before the event at an offset. @param {number} from @param {boolean} [broken] whether some before it may be lost */
  begin(from, broken = false) {
    this.entries = broken ? [{ offset: from, through: from - 1, lost: 0, quiet: true }] : [];
    this.from = from;
    this.to = from - 1;
    this.live = true;
    this.more = from > 1;
  }

  /**
   * Something was said, or is lost, at the room's end.
   *
   * @param {Entry} entry
   * @param {boolean} following whether the reader is at that end: then it is the oldest that goes
   */
  grow(entry, following) {
    if (this.entries.length >= this.capacity && !following) this.live = false;
    if (!this.live) return;
    this.entries.push(entry);
    this.to = entry.through;
    this.#dropFirst();
  }

  /** What a history says that was asked for before `from`. @param {any[]} events oldest first @param {boolean} more */
  prepend(events, more) {
    const from = events[0]?.offset ?? this.from;
    this.entries.unshift(...dense(events, from, this.from - 1));
    this.from = from;
    this.more = more && events.length > 0;
    if (this.entries.length <= this.capacity) return;
    this.entries.length = this.capacity;
    this.to = this.entries[this.capacity - 1].through;
    this.live = false;
  }

  /**
   * What a history says of what follows `to`.
   *
   * @param {any[]} events oldest first
   * @param {number} through the last offset that they were asked for, and that there was
   * @param {number} newest the last of the room by now
   */
  append(events, through, newest) {
    this.hush();
    this.entries.push(...dense(events, this.to + 1, through));
    this.to = through;
    this.live = through >= newest;
    this.#dropFirst();
  }

  /** Nothing of what is there is news any more, to whoever listens. */
  hush() {
    for (const entry of this.entries) entry.quiet = true;
  }

  #dropFirst() {
    const over = this.entries.length - this.capacity;
    if (over <= 0) return;
    this.entries.splice(0, over);
    this.from = this.entries[0].offset;
    this.more = this.from > 1;
  }
}

/**
 * The entries of a stretch, with a break wherever offsets are missing: those are lost for good.
 *
 * @param {any[]} events oldest first; of types that are not shown, too
 * @param {number} from @param {number} to
 * @returns {Entry[]}
 */
function dense(events, from, to) {
  const entries = [];
  let next = from;
  const missing = (/** @type {number} */ until) => {
    if (until > next) entries.push(gap(next, until - 1, true));
    next = until;
  };
  for (const event of events) {
    if (event.offset < next) continue;
    missing(event.offset);
    if (event.type === "message") entries.push(said(event, true));
    next += 1;
  }
  missing(to + 1);
  return entries;
}

/** @param {any} message @param {boolean} quiet @returns {Entry} */
export function said(message, quiet) {
  return { offset: message.offset, through: message.offset, message, quiet };
}

/** @param {number} from @param {number} to @param {boolean} quiet @returns {Entry} */
export function gap(from, to, quiet) {
  return { offset: from, through: to, lost: to - from + 1, quiet };
}

/**
 * How messages hang together: days, headings, and the place up to which the reader had read.
 *
 * @param {{message?: any, offset?: number}[]} entries those of a slice, and then what is on its way, without offsets
 * @param {number | null} mark the last offset that was read; `null`: there is nothing unread
 * @returns {Seam[]} one for each entry
 */
export function seams(entries, mark) {
  let day = "";
  let marked = mark === null;
  return entries.map(({ message, offset = Infinity }, index) => {
    const unread = !marked && offset !== Infinity && offset > /** @type {number} */ (mark);
    marked ||= unread;
    if (!message) return { day: null, unread, continued: false };
    const date = new Date(message.at).toDateString();
    const begins = date !== day;
    day = date;
    const before = entries[index - 1]?.message;
    const continued = !begins && !unread && before !== undefined && before.from.id === message.from.id
      && before.from.name === message.from.name && message.at - before.at < TOGETHER_MS;
    return { day: begins ? message.at : null, unread, continued };
  });
}
