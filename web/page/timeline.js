/**
 * The room on screen: a slice of its log, and below it what we said and was not seen there yet.
 *
 * The slice grows downwards only in `#paint`, once a frame, so that whether the reader is at the end can be told between two
 * changes. Rows that stay are never touched: screen readers read out what is added to `#log`, and nothing twice. What was
 * there before the reader came is in `#older`, which is not read out.
 */

import { inside } from "./listen.js";
import { arrange, button, element, hueOf, part } from "./part.js";
import { mentions, onlyEmoji, render } from "./markup.js";
import { CAPACITY } from "./outbox.js";
import { gap, said, seams, Slice } from "./slice.js";
import { dayOf, momentOf, onLanguage, timeOf, why, words } from "./words.js";

/** Messages in the document, however long one scrolls; those of the outbox have their places. */
const ROWS = 500;
const PAGE = 50;
/** Closer to the end than this counts as being there. */
const NEAR_PX = 100;
/** Closer than this to where the slice ends, more is asked for. */
const AHEAD_PX = 400;
/** Hidden pages have no frames; they are painted all the same. */
const HIDDEN_PAINT_MS = 250;
const COPIED_MS = 1_500;

export class Timeline {
  #room = "";
  #slice = new Slice(ROWS - CAPACITY);
  /** The rows of entries, and of messages of the outbox. @type {WeakMap<object, HTMLElement>} */
  #rows = new WeakMap();
  /** The last offset that had been read when the reader came here; `null`: all had been. @type {number | null} */
  #mark = null;
  /** Whether the mark is to be brought into sight, once what is unread is there. */
  #showMark = false;
  /** Whether the reader asked for the end, whatever is unread. */
  #straight = false;
  /** Counts the times that the slice began anew; what was asked for before is of no use after. */
  #views = 0;
  /** Whether the reader is at the end of the slice. */
  #following = true;
  /** Messages that came while he was not. */
  #unseen = 0;
  /** Whether what comes was said before we came. */
  #backlog = true;
  /** The view for which history is read. @type {number | null} */
  #loading = null;
  #planned = false;
  /** Where the view was scrolled to, by us or by the reader. */
  #top = 0;
  #actions = this.#makeActions();

  /**
   * @param {import("../client.js").Townhall} hall
   * @param {import("./rooms.js").Rooms} rooms
   * @param {import("./outbox.js").Outbox} outbox
   */
  constructor(hall, rooms, outbox) {
    this.hall = hall;
    this.rooms = rooms;
    this.outbox = outbox;
    this.view = part("view");
    this.#listen();
    onLanguage(() => this.#redraw());
  }

  /** Empties the view for a room; the room's `joined` fills it. */
  enter() {
    this.#room = this.rooms.current;
    this.#straight = false;
    this.#begin(1, false);
  }

  /** To the newest message, wherever the slice is. */
  toNewest() {
    if (this.#slice.live) {
      this.#showMark = false;
      this.#following = true;
      this.#plan();
    } else {
      this.#straight = true;
      this.rooms.join();
    }
  }

  #listen() {
    const on = inside(this.hall, () => this.#room);
    on("joined", ({ recovered, offset, backlog }) => {
      if (recovered !== true) this.#begin(offset - backlog + 1, recovered === false);
    });
    on("caughtup", () => {
      this.#backlog = this.#straight = false;
      this.#plan();
    });
    on("message", (message) => this.#grow(said(message, this.#backlog)));
    on("gap", ({ from, to }) => this.#grow(gap(from, to, this.#backlog)));
    this.hall.addEventListener("welcome", () => this.#welcomed());
    this.outbox.addEventListener("change", (event) => {
      if (/** @type {CustomEvent} */ (event).detail.room === this.#room) this.#plan();
    });
    this.view.addEventListener("scroll", () => this.#scrolled());
    new ResizeObserver(() => this.#following && this.#toEnd()).observe(this.view);
    part("more").addEventListener("click", () => this.#loadOlder());
    part("newest").addEventListener("click", () => this.toNewest());
    document.addEventListener("visibilitychange", () => this.#looked());
    this.#listenToHands();
  }

  /** Rows tell which are ours: those of another name, or another person, are others. */
  #welcomed() {
    const who = `${this.hall.user?.id} ${this.hall.user?.name}`;
    if (who !== this.#who) this.#redraw();
    this.#who = who;
  }

  #who = "";

  // --- What is there ---

  /** @param {number} from @param {boolean} broken */
  #begin(from, broken) {
    this.#views += 1;
    this.#slice.begin(from, broken);
    this.#following = this.#backlog = true;
    this.#showMark = !this.#straight;
    this.#mark = this.rooms.mark(this.#room);
    this.#unseen = 0;
    this.#plan();
  }

  /** @param {import("./slice.js").Entry} entry */
  #grow(entry) {
    if (!this.#following && entry.message) this.#unseen += 1;
    this.#slice.grow(entry, this.#following);
    this.#plan();
  }

  /** @param {(views: number) => Promise<void>} load */
  async #load(load) {
    const views = this.#views;
    if (this.#loading === views) return;
    this.#loading = views;
    part("more").disabled = true;
    try {
      await load(views);
    } catch {
      // Offline, or the broker is away: scrolling on, or the button, asks again.
    } finally {
      if (this.#loading === views) {
        this.#loading = null;
        part("more").disabled = false;
      }
    }
  }

  #loadOlder() {
    return this.#load(async (views) => {
      const before = this.#slice.from;
      const { messages, more } = await this.hall.history(this.#room, { before, limit: PAGE });
      if (views !== this.#views || before !== this.#slice.from) return;
      this.#slice.prepend(messages, more);
      if (!this.#slice.live) this.#following = false;
      this.#paint();
    });
  }

  #loadNewer() {
    return this.#load(async (views) => {
      const { to } = this.#slice;
      const newest = () => this.hall.position(this.#room)?.offset ?? to;
      const through = Math.min(to + PAGE, newest());
      const messages = await this.#between(to, through);
      if (views !== this.#views || to !== this.#slice.to) return;
      this.#slice.append(messages, through, newest());
      this.#paint();
    });
  }

  /** What follows an offset, up to another; a reply that has no place for all of it lacks the oldest.
   * @param {number} after @param {number} through */
  async #between(after, through) {
    /** @type {any[]} */
    let messages = [];
    for (let before = through + 1; before > after + 1;) {
      const reply = await this.hall.history(this.#room, { before, limit: before - after - 1 });
      messages = [...reply.messages, ...messages];
      if (!reply.more || reply.messages.length === 0) break;
      before = reply.messages[0].offset;
    }
    return messages.filter(({ offset }) => offset > after);
  }

  // --- On screen ---

  #plan() {
    if (this.#planned) return;
    this.#planned = true;
    const once = () => this.#planned && this.#paint();
    requestAnimationFrame(once);
    setTimeout(once, HIDDEN_PAINT_MS);
  }

  #paint() {
    this.#planned = false;
    const keepPlace = this.#following ? null : this.#place();
    const keepFocus = this.#focus();
    const entries = this.#slice.entries;
    const unsent = this.outbox.of(this.#room);
    const hung = [...entries, ...unsent.map((message) => ({ message: this.#asMessage(message) }))];
    const between = seams(hung, this.#mark);
    const nodes = hung.map((entry, index) => {
      const row = index < entries.length ? this.#entryRow(entries[index]) : this.#unsentRow(unsent[index - entries.length]);
      row.classList.toggle("continued", between[index].continued);
      return [...this.#separators(row, between[index]), row];
    });
    const loud = entries.findIndex(({ quiet }) => !quiet);
    const seam = loud < 0 ? entries.length : loud;
    arrange(part("older"), nodes.slice(0, seam).flat());
    arrange(part("log"), nodes.slice(seam, entries.length).flat());
    arrange(part("unsent"), nodes.slice(entries.length).flat());
    part("more").hidden = !this.#slice.more;
    part("empty").hidden = hung.length > 0 || this.#slice.more || this.hall.position(this.#room) === null;
    keepFocus();
    if (keepPlace) keepPlace();
    else this.#toEnd();
    if (this.#showMark && !this.#backlog) this.#bringMark();
    this.#drawNewest();
    this.#reads();
    this.#rove();
    const short = this.view.scrollHeight <= this.view.clientHeight;
    if (short && this.#slice.more && !this.#backlog) this.#loadOlder();
  }

  /** Everything anew, in another language. */
  #redraw() {
    this.#slice.hush();
    this.#rows = new WeakMap();
    this.#actions = this.#makeActions();
    this.#plan();
  }

  /** Remembers what is at the top of the view. @returns {() => void} brings it back there */
  #place() {
    const top = this.view.getBoundingClientRect().top;
    const rows = [...this.view.querySelectorAll(".message, .break")];
    const row = rows.find((candidate) => candidate.getBoundingClientRect().bottom > top);
    const before = row?.getBoundingClientRect().top ?? 0;
    return () => {
      if (row?.isConnected) this.#scrollTo(this.view.scrollTop + row.getBoundingClientRect().top - before);
    };
  }

  /** Remembers the message that has the focus. @returns {() => void} brings it back, should its element have gone */
  #focus() {
    const row = /** @type {HTMLElement | null} */ (document.activeElement?.closest("#view .message"));
    return () => {
      if (!row || this.view.contains(document.activeElement)) return;
      const again = row.isConnected ? row : this.view.querySelector(`.message[data-id="${CSS.escape(row.dataset.id ?? "")}"]`);
      (again ?? this.view).focus({ preventScroll: true });
    };
  }

  #toEnd() {
    this.#scrollTo(this.view.scrollHeight);
    this.#unseen = 0;
  }

  /** @param {number} top */
  #scrollTo(top) {
    this.view.scrollTop = top;
    this.#top = this.view.scrollTop;
  }

  /** Goes to where the reader left, if the end is farther than what fits below it. */
  #bringMark() {
    this.#showMark = false;
    const mark = this.view.querySelector(".unread");
    if (!mark) return;
    const above_px = this.view.getBoundingClientRect().top - mark.getBoundingClientRect().top;
    if (above_px <= 0) return;
    this.#scrollTo(this.view.scrollTop - above_px - this.view.clientHeight / 6);
    this.#following = false;
    this.#unseen = this.rooms.count(this.#room);
  }

  /** Back at the page: what came meanwhile begins with a mark. */
  #looked() {
    if (document.hidden) return;
    const mark = this.rooms.mark(this.#room);
    if (mark !== null && this.#following) {
      this.#mark = mark;
      this.#showMark = true;
    }
    this.#plan();
  }

  /** Who is at the end has read it; but not before they were led to where they had left. */
  #reads() {
    const looks = !this.#backlog && !this.#showMark && !document.hidden;
    if (looks && this.#following && this.#slice.live) this.rooms.read(this.#room, this.#slice.to);
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.view;
    const left_px = scrollHeight - scrollTop - clientHeight;
    // Upwards, however little, is away from the end: else what pours in would undo it. Where the view only grew, nothing is left.
    if (scrollTop < this.#top && left_px > 1) this.#following = false;
    else if (scrollTop !== this.#top) this.#following = this.#slice.live && left_px < NEAR_PX;
    this.#top = scrollTop;
    if (this.#following) this.#unseen = 0;
    this.#drawNewest();
    this.#reads();
    if (scrollTop < AHEAD_PX && this.#slice.more && !this.#following) this.#loadOlder();
    if (left_px < AHEAD_PX && !this.#slice.live) this.#loadNewer();
  }

  #drawNewest() {
    // It lies over the last lines: a step away from them, with nothing new below, nobody needs it.
    const { scrollTop, scrollHeight, clientHeight } = this.view;
    const near = this.#slice.live && !this.#unseen && scrollHeight - scrollTop - clientHeight < NEAR_PX;
    const hidden = this.#following || near;
    // Who chose it by a key goes on where it led.
    if (hidden && document.activeElement === part("newest")) this.view.focus();
    part("newest").hidden = hidden;
    part("newest").textContent = this.#unseen ? words.newer(this.#unseen) : words.newest;
  }

  // --- Rows ---

  /** @param {import("./outbox.js").Unsent} unsent */
  #asMessage({ id, text, made }) {
    const { id: user = "", name = words.guest } = this.hall.user ?? {};
    return { id, text, at: made, from: { id: user, name } };
  }

  /** @param {HTMLElement} row @param {import("./slice.js").Seam} seam */
  #separators(row, { day, unread }) {
    const kept = /** @type {{day?: HTMLElement, unread?: HTMLElement}} */ (this.#above.get(row) ?? {});
    this.#above.set(row, kept);
    const separators = [];
    if (day !== null) {
      kept.day ??= separator("day", "");
      const date = dayOf(day);
      if (kept.day.textContent !== date) kept.day.firstElementChild?.replaceChildren(date);
      separators.push(kept.day);
    }
    if (unread) separators.push((kept.unread ??= separator("unread", words.mark)));
    return separators;
  }

  /** The separators that stand, or stood, above a row. @type {WeakMap<HTMLElement, object>} */
  #above = new WeakMap();

  /** @param {import("./slice.js").Entry} entry */
  #entryRow(entry) {
    const known = this.#rows.get(entry);
    if (known) return known;
    const row = entry.message ? this.#messageRow(entry.message)
      : separator("break", entry.lost ? words.lost(entry.lost) : words.broken);
    row.dataset.offset = String(entry.offset);
    this.#rows.set(entry, row);
    return row;
  }

  /** @param {any} message */
  #messageRow({ id, from, at, text, data }) {
    const own = from.id === this.hall.user?.id;
    const row = element("article", own ? "message own" : "message");
    row.dataset.id = id;
    row.tabIndex = -1;
    row.style.setProperty("--hue", String(hueOf(from.id)));
    const avatar = element("span", "avatar", [...from.name.replace(/^~/, "")][0]?.toUpperCase());
    avatar.setAttribute("aria-hidden", "true");
    const heading = element("p", "heading");
    heading.append(element("bdi", "name", from.name));
    if (typeof from.info?.title === "string") heading.append(element("bdi", "title", from.info.title.slice(0, 40)));
    if (own) heading.append(element("span", "you", words.you));
    heading.append(moment(at));
    const shown = text || (data ? JSON.stringify(data) : "");
    const body = element("div", onlyEmoji(text) ? "text emoji-only" : "text");
    body.dir = "auto";
    body.append(render(shown, document));
    for (const block of body.querySelectorAll("pre")) block.tabIndex = 0; // It scrolls: the keyboard can, too.
    if (!own && mentions(text, this.hall.user?.name ?? "")) row.classList.add("mention");
    row.append(avatar, heading, body);
    return row;
  }

  /** @param {import("./outbox.js").Unsent} unsent */
  #unsentRow(unsent) {
    const row = this.#rows.get(unsent) ?? this.#messageRow(this.#asMessage(unsent));
    this.#rows.set(unsent, row);
    row.classList.add("own");
    if (row.dataset.state !== unsent.state) this.#drawFate(row, unsent);
    return row;
  }

  /** @param {HTMLElement} row @param {import("./outbox.js").Unsent} unsent */
  #drawFate(row, { id, state, error }) {
    row.dataset.state = state;
    row.classList.toggle("pending", state === "pending");
    row.classList.toggle("failed", state === "failed");
    row.querySelector(".fate")?.remove();
    const fate = element("p", "fate", { pending: words.pending, accepted: "", failed: words.failed(why(error ?? {})) }[state]);
    if (state === "failed") {
      fate.setAttribute("role", "alert");
      const retry = button("retry", words.retry, () => this.outbox.retry(id));
      const discard = button("discard", words.discard, () => {
        this.outbox.discard(id);
        part("text").focus();
      });
      fate.append(" ", retry, " ", discard);
    }
    row.append(fate);
  }

  // --- Hands: one message is in reach of the keyboard, arrows reach the others; one toolbar serves them all ---

  #listenToHands() {
    const reach = (/** @type {Event} */ { target }) => {
      const row = /** @type {HTMLElement} */ (target).closest?.(".message");
      if (row && this.#actions.parentElement !== row) row.append(this.#actions);
    };
    this.view.addEventListener("pointerover", reach);
    this.view.addEventListener("focusin", (/** @type {Event} */ event) => {
      reach(event);
      const { target } = event;
      if (/** @type {HTMLElement} */ (target).matches(".message")) this.#rove(/** @type {HTMLElement} */ (target));
    });
    this.view.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#key(event));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const { key, target, altKey, ctrlKey, metaKey } = event;
    const row = /** @type {HTMLElement} */ (target);
    if (key === "Escape") part("text").focus();
    if (!row.matches(".message") || altKey || ctrlKey || metaKey) return;
    const rows = [...this.view.querySelectorAll(".message")];
    const at = rows.indexOf(row);
    const to = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: rows.length - 1 }[key];
    if (to === undefined) return;
    event.preventDefault();
    if (to < 0) this.#loadOlder();
    rows[Math.max(0, Math.min(to, rows.length - 1))]?.focus();
  }

  /** Leaves one message, the newest or that which has the focus, in the order of Tab. @param {HTMLElement} [to] */
  #rove(to) {
    const now = this.view.querySelector('.message[tabindex="0"]');
    const focused = document.activeElement?.closest(".message");
    const next = to ?? (this.view.contains(focused ?? null) ? focused : [...this.view.querySelectorAll(".message")].at(-1));
    if (now === next) return;
    if (now) now.tabIndex = -1;
    if (next) next.tabIndex = 0;
  }

  #makeActions() {
    const actions = element("div", "actions");
    actions.setAttribute("aria-live", "off");
    const copy = button("copy", words.copy, async () => {
      const row = actions.closest(".message");
      if (!row) return;
      await copyText(this.#textOf(row));
      copy.textContent = words.copied;
      setTimeout(() => (copy.textContent = words.copy), COPIED_MS);
    });
    actions.append(copy);
    return actions;
  }

  /** What was said in a row, as it was written. @param {Element} row */
  #textOf(row) {
    const entry = this.#slice.entries.find((candidate) => this.#rows.get(candidate) === row);
    const unsent = this.outbox.of(this.#room).find((candidate) => this.#rows.get(candidate) === row);
    const { text, data } = entry?.message ?? unsent ?? {};
    return text || (data ? JSON.stringify(data) : "");
  }
}

/** @param {string} className @param {string} content */
function separator(className, content) {
  const made = element("p", className);
  made.append(element("span", "", content));
  return made;
}

/** @param {number} at_ms */
function moment(at_ms) {
  const made = /** @type {HTMLTimeElement} */ (element("time", "", timeOf(at_ms)));
  made.dateTime = new Date(at_ms).toISOString();
  made.title = momentOf(at_ms);
  return made;
}

/** The clipboard is for secure contexts; a hall in the house is often plain http. @param {string} text */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = /** @type {HTMLTextAreaElement} */ (element("textarea", "spoken"));
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    focused?.focus();
  }
}
