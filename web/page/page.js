/**
 * The chat page: the room named by `#room`, and what became of our own words.
 *
 * What is on screen is a window onto the room's log, `WINDOW` rows at most. While its lower end is the room's newest
 * message the window is *live* and grows there. Reading older messages may push that end out; then the way back is to join
 * the room anew. Below the log is the outbox: messages of ours that were not seen in the log yet, as they were written.
 *
 * The log grows downwards only in `paint`, once a frame, so that whether the reader is at the end can be told between two
 * changes.
 */

import { Townhall, uuid } from "../client.js";

const WINDOW = 500;
const PAGE = 50;
/** Closer to the end than this counts as being there. */
const NEAR_PX = 100;
/** Closer to the beginning than this asks for more of it. */
const TOP_PX = 200;
/** Nobody needs to hear of an interruption that is shorter. */
const OFFLINE_AFTER_MS = 5_000;
/** What one person says within this time stands under one heading. */
const TOGETHER_MS = 5 * 60_000;
/** Hidden pages have no frames; they are painted all the same. */
const HIDDEN_PAINT_MS = 250;

const ROOM = /^[a-z0-9][a-z0-9._-]{0,63}$/;
const NAME_CHARS = 32;
const BAD_NAME = /^[!/~]|[:\p{Cc}\u2028\u2029]/u;

const ENGLISH = {
  name: "Name", guest: "Guest", send: "Send", say: "Say something", you: "you", more: "Show older messages",
  newest: "Jump to newest", retry: "Retry", discard: "Discard", pending: "sending…", empty: "Nobody has said anything here yet.",
  connecting: "connecting…", open: "connected", offline: "offline, reconnecting…", ended: "disconnected",
  broken: "Some messages before this point may be lost",
  badName: "1 to 32 characters, no colon, and not beginning with ! / or ~",
  badRoom: "A room is 1 to 64 of a–z 0–9 . _ - and begins with a letter or a digit.",
  lost: (/** @type {number} */ n) => (n === 1 ? "1 message was lost here" : `${n} messages were lost here`),
  unseen: (/** @type {number} */ n) => (n === 1 ? "1 new message" : `${n} new messages`),
  failed: (/** @type {string} */ why) => `Not sent (${why})`,
  long: (/** @type {number} */ n, /** @type {number} */ most) => `Too long: ${n} of ${most} bytes.`,
  refused: (/** @type {string} */ room) => `You cannot enter #${room}`,
};
/** @type {typeof ENGLISH} */
const CHINESE = {
  name: "名字", guest: "访客", send: "发送", say: "说点什么", you: "我", more: "显示更早的消息",
  newest: "回到最新消息", retry: "重试", discard: "丢弃", pending: "发送中…", empty: "这里还没有人说话。",
  connecting: "正在连接…", open: "已连接", offline: "离线，重连中…", ended: "连接已断开",
  broken: "此处之前的部分消息可能已丢失",
  badName: "1 到 32 个字符，不含冒号，且不以 ! / ~ 开头",
  badRoom: "房间名为 1 到 64 个字符，可用 a–z 0–9 . _ -，以字母或数字开头。",
  lost: (n) => `此处丢失了 ${n} 条消息`,
  unseen: (n) => `${n} 条新消息`,
  failed: (why) => `未发送（${why}）`,
  long: (n, most) => `太长了：${n} 字节，最多 ${most} 字节。`,
  refused: (room) => `无法进入 #${room}`,
};
const chinese = navigator.language.toLowerCase().startsWith("zh");
const words = chinese ? CHINESE : ENGLISH;

const part = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const view = part("view"), older = part("older"), log = part("log"), unsent = part("unsent");
const more = part("more"), newest = part("newest"), text = part("text"), name = part("name");

/** What the browser keeps for us; one that keeps nothing is no reason to fail. */
const kept = {
  /** @param {string} key */
  get(key) {
    try {
      return localStorage.getItem(`townhall.${key}`);
    } catch {
      return null;
    }
  },
  /** @param {string} key @param {string} value */
  set(key, value) {
    try {
      localStorage.setItem(`townhall.${key}`, value);
    } catch {
      return;
    }
  },
};

/** The room on screen; empty while `#room` names none. */
let room = "";
/** Counts the times the window began anew; what was asked for before is of no use after. */
let views = 0;
/** The lowest offset on screen. */
let lowest = 1;
/** Whether the log's end is the room's newest message. */
let live = true;
/** Whether the reader is at that end. */
let following = true;
/** Messages that came while he was not. */
let unseen = 0;
/** Whether what comes was said before we came: not to be read aloud. */
let backlog = true;
let loading = false;

/** What `paint` is to do. `gone`: rows of the outbox that are in the log now. */
const next = {
  empty: false,
  /** @type {{row: HTMLElement, quiet: boolean}[]} */ rows: [],
  /** @type {HTMLElement[]} */ gone: [],
  planned: false,
};

/** @typedef {{room: string, id: string, text: string, state: "pending" | "accepted" | "failed", offset: number, row: HTMLElement}} Unsent */
/** Of all rooms, in the order written. @type {Map<string, Unsent>} */
const outbox = new Map();
/** What was begun in other rooms. @type {Map<string, string>} */
const drafts = new Map();

const key = kept.get("key") ?? uuid();
kept.set("key", key);
name.value = tidy(kept.get("name") ?? "") ?? "";
const hall = new Townhall("ws", { name: name.value, key });

// --- Rows ---

/** @param {string} tag @param {string} className @param {string} [content] */
function element(tag, className, content = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = content;
  return made;
}

const clock = new Intl.DateTimeFormat(navigator.language, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(navigator.language, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
const exactly = new Intl.DateTimeFormat(navigator.language, { dateStyle: "full", timeStyle: "medium" });

/** @param {number} at_ms */
function time(at_ms) {
  const date = new Date(at_ms);
  const today = date.toDateString() === new Date().toDateString();
  const made = /** @type {HTMLTimeElement} */ (element("time", "", (today ? clock : calendar).format(date)));
  made.dateTime = date.toISOString();
  made.title = exactly.format(date);
  return made;
}

/** @param {{id: string, from: {id: string, name: string}, at: number, text: string, offset?: number}} message */
function messageRow({ id, from, at, text, offset }) {
  const own = from.id === hall.user?.id;
  const made = element("article", own ? "message own" : "message");
  Object.assign(made.dataset, { id, at, speaker: `${from.id} ${from.name}` });
  if (offset !== undefined) made.dataset.offset = String(offset);
  const heading = element("p", "heading");
  heading.append(element("bdi", "name", from.name));
  if (own) heading.append(element("span", "you", words.you));
  heading.append(time(at));
  const body = element("p", "text", text);
  body.dir = "auto";
  made.append(heading, body);
  return made;
}

/** @param {string} content @param {number} offset the first that it stands for */
function breakRow(content, offset) {
  const made = element("p", "break");
  made.dataset.offset = String(offset);
  made.append(element("span", "", content));
  return made;
}

/**
 * The rows of a stretch of the log, with a break wherever offsets are missing: those are lost for good.
 * @param {any[]} events oldest first
 * @param {number} end the offset that follows the stretch
 */
function stretch(events, end) {
  const rows = [];
  let expected = events[0]?.offset ?? end;
  for (const event of events) {
    if (event.offset > expected) rows.push(breakRow(words.lost(event.offset - expected), expected));
    if (event.type === "message") rows.push(messageRow(event));
    expected = event.offset + 1;
  }
  if (end > expected) rows.push(breakRow(words.lost(end - expected), expected));
  return rows;
}

/** @param {Element} row @returns {any} the row above, over the seams between history, log and outbox */
function above(row) {
  if (row.previousElementSibling) return row.previousElementSibling;
  if (row.parentElement === unsent) return last();
  return row.parentElement === log ? older.lastElementChild : null;
}

/** Leaves out the heading of a row that only continues the one above. @param {any} row */
function head(row) {
  if (!row) return;
  const begun = above(row);
  const continues = begun !== null && row.dataset.speaker !== undefined && begun.dataset.speaker === row.dataset.speaker
    && row.dataset.at - begun.dataset.at < TOGETHER_MS;
  row.classList.toggle("continued", continues);
}

// --- The window onto the log ---

const first = () => older.firstElementChild ?? log.firstElementChild;
const last = () => log.lastElementChild ?? older.lastElementChild;
const rowCount = () => older.childElementCount + log.childElementCount + unsent.childElementCount;
const toEnd_px = () => view.scrollHeight - view.scrollTop - view.clientHeight;

/** Begins the window anew at an offset. @param {number} from */
function begin(from) {
  views += 1;
  lowest = from;
  live = following = backlog = true;
  unseen = 0;
  next.empty = true;
  next.rows = [];
  more.hidden = from <= 1;
  plan();
}

/** @param {HTMLElement} row */
function append(row) {
  next.rows.push({ row, quiet: backlog });
  if (next.rows.length < WINDOW) plan();
  else paint();
}

function plan() {
  if (next.planned) return;
  next.planned = true;
  const once = () => next.planned && paint();
  requestAnimationFrame(once);
  setTimeout(once, HIDDEN_PAINT_MS);
}

function paint() {
  const { empty, rows, gone } = next;
  Object.assign(next, { empty: false, rows: [], gone: [], planned: false });
  if (empty) {
    older.replaceChildren();
    log.replaceChildren();
  }
  for (const row of gone) row.remove();
  for (const { row, quiet } of rows) grow(row, quiet ? older : log);
  for (const row of unsent.children) head(row);
  part("empty").hidden = rowCount() > 0 || hall.position(room) === null;
  if (following) showEnd();
  drawNewest();
}

/** @param {HTMLElement} row @param {HTMLElement} where */
function grow(row, where) {
  if (!following && row.classList.contains("message")) unseen += 1;
  // Nobody looks at the oldest rows while following; while reading them, it is the newest that have no place.
  if (rowCount() >= WINDOW) {
    if (following) dropFirst();
    else live = false;
  }
  if (!live) return;
  where.append(row);
  head(row);
}

function dropFirst() {
  first()?.remove();
  head(first());
  lowest = Number(first()?.dataset.offset ?? lowest);
  more.hidden = lowest <= 1;
}

async function showOlder() {
  if (loading || more.hidden) return;
  loading = more.disabled = true;
  const view = views;
  const before = lowest;
  try {
    const history = await hall.history(room, { before, limit: PAGE });
    if (view === views && before === lowest) prepend(history.messages, history.more);
  } catch {
    // Offline, or the broker is away: the button is still there.
  } finally {
    loading = more.disabled = false;
  }
}

/** @param {any[]} events @param {boolean} hasMore */
function prepend(events, hasMore) {
  const fromEnd_px = view.scrollHeight - view.scrollTop;
  const below = first();
  more.hidden = !hasMore;
  older.prepend(...stretch(events, lowest));
  lowest = events[0]?.offset ?? lowest;
  head(first());
  head(below);
  view.scrollTop = view.scrollHeight - fromEnd_px;
  while (rowCount() > WINDOW && last()) {
    last().remove();
    live = following = false;
  }
  drawNewest();
}

function showEnd() {
  view.scrollTop = view.scrollHeight;
  unseen = 0;
}

function toNewest() {
  if (live) {
    following = true;
    showEnd();
    drawNewest();
  } else {
    hall.join(room);
  }
}

function drawNewest() {
  newest.hidden = following;
  newest.textContent = unseen ? words.unseen(unseen) : words.newest;
}

// --- Our own messages ---

/** @param {string} content */
function say(content) {
  const id = uuid();
  const from = { id: hall.user?.id ?? "", name: hall.user?.name ?? (name.value || words.guest) };
  const row = messageRow({ id, from, at: Date.now(), text: content });
  row.classList.add("own");
  row.append(element("p", "fate"));
  outbox.set(id, { room, id, text: content, state: "pending", offset: 0, row });
  unsent.append(row);
  head(row);
  part("empty").hidden = true;
  send(id);
  toNewest();
}

/** Sends a message of the outbox, for the first time or again as the same one. @param {string} id */
function send(id) {
  const message = /** @type {Unsent} */ (outbox.get(id));
  message.state = "pending";
  drawFate(message, "");
  hall.send(message.room, message.text, { id }).then(
    ({ offset }) => {
      message.state = "accepted";
      message.offset = offset;
      drawFate(message, "");
      settle();
    },
    (error) => {
      message.state = "failed";
      drawFate(message, error.message);
    },
  ).finally(() => depart(message.room));
}

/** Removes what was accepted at a place that the window has passed already: its message will not come any more. */
function settle() {
  for (const message of outbox.values()) {
    const here = hall.position(message.room);
    if (message.state === "accepted" && (!here || message.offset <= here.offset)) remove(message);
  }
}

/** @param {Unsent} message */
function remove(message) {
  outbox.delete(message.id);
  next.gone.push(message.row);
  plan();
}

/** @param {Unsent} message @param {string} why */
function drawFate(message, why) {
  message.row.classList.toggle("pending", message.state === "pending");
  message.row.classList.toggle("failed", message.state === "failed");
  const fate = /** @type {HTMLElement} */ (message.row.querySelector(".fate"));
  fate.textContent = { pending: words.pending, accepted: "", failed: words.failed(why) }[message.state];
  if (message.state !== "failed") return;
  const retry = element("button", "", words.retry);
  retry.addEventListener("click", () => send(message.id));
  const discard = element("button", "", words.discard);
  discard.addEventListener("click", () => remove(message));
  fate.append(" ", retry, " ", discard);
}

// --- Rooms ---

function enter() {
  const wanted = decodeURIComponentOr(location.hash.slice(1)) || "lobby";
  if (wanted === room) return;
  if (room) drafts.set(room, text.value);
  const left = room;
  room = ROOM.test(wanted) ? wanted : "";
  depart(left);
  text.value = drafts.get(room) ?? "";
  resize();
  begin(1);
  unsent.replaceChildren(...[...outbox.values()].filter((message) => message.room === room).map(({ row }) => row));
  part("room").textContent = wanted;
  part("room").href = `#${wanted}`;
  document.title = `#${wanted} · Townhall`;
  notice(room ? "" : words.badRoom);
  text.disabled = !room;
  if (room) hall.join(room);
  drawRooms();
}

/** Leaves a room that is not on screen, once nothing of ours is on its way there. @param {string} left */
function depart(left) {
  const busy = [...outbox.values()].some((message) => message.room === left && message.state === "pending");
  if (left !== room && !busy) hall.leave(left);
}

/** @param {string} encoded */
function decodeURIComponentOr(encoded) {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return encoded;
  }
}

/** The rooms that the hall names, where there is a choice. */
function drawRooms() {
  const rooms = /** @type {string[]} */ (hall.welcome?.rooms ?? []);
  const links = rooms.map((other) => {
    const link = /** @type {HTMLAnchorElement} */ (element("a", "", `#${other}`));
    link.href = `#${other}`;
    if (other === room) link.setAttribute("aria-current", "page");
    return link;
  });
  part("rooms").replaceChildren(...links);
  part("rooms").hidden = !rooms.some((other) => other !== room);
}

// --- Notices and the connection ---

/** @param {string} content */
function notice(content) {
  part("notice").textContent = content;
  part("notice").hidden = content === "";
}

/** @param {"connecting" | "open" | "offline" | "ended"} state @param {string} [why] */
function showState(state, why) {
  document.body.dataset.state = state;
  part("state").textContent = why ? `${words[state]}: ${why}` : words[state];
}

/** @type {any} */
let offlineTimer;

/** @param {string} type @param {(detail: any) => void} listener */
function on(type, listener) {
  hall.addEventListener(type, (event) => listener(/** @type {CustomEvent} */ (event).detail));
}

on("state", ({ state, reason }) => {
  if (state === "connecting" || state === "waiting") {
    offlineTimer ??= setTimeout(() => showState("offline"), OFFLINE_AFTER_MS);
    return;
  }
  clearTimeout(offlineTimer);
  offlineTimer = undefined;
  showState(state === "open" ? "open" : "ended", state === "open" ? "" : reason);
});

on("welcome", ({ user }) => {
  if (room) notice("");
  name.placeholder = user.name;
  drawRooms();
});

on("joined", (frame) => {
  if (frame.room !== room || frame.recovered === true) return;
  const from = frame.offset - frame.backlog + 1;
  begin(from);
  if (frame.recovered === false) append(breakRow(words.broken, from));
});

on("caughtup", (where) => {
  settle();
  if (where.room !== room) return;
  backlog = false;
  plan();
});

on("message", (message) => {
  const ours = message.from.id === hall.user?.id && outbox.get(message.id);
  if (ours) remove(ours);
  if (message.room === room) append(messageRow(message));
});

on("gap", (gap) => {
  if (gap.room === room) append(breakRow(words.lost(gap.to - gap.from + 1), gap.from));
});

on("refused", (error) => {
  if (error.room === room) notice(`${words.refused(room)}: ${error.message}`);
});

on("error", (error) => notice(error.message));

// --- The reader ---

let scrollTop = 0;
view.addEventListener("scroll", () => {
  const upwards = view.scrollTop < scrollTop;
  scrollTop = view.scrollTop;
  following = live && toEnd_px() < NEAR_PX;
  if (following) unseen = 0;
  drawNewest();
  if (!following && upwards && scrollTop < TOP_PX) showOlder();
});
new ResizeObserver(() => following && showEnd()).observe(view);
more.addEventListener("click", showOlder);
newest.addEventListener("click", toNewest);

/** @returns {string | null} the name as the server will have it; `null` where it would refuse the connection */
function tidy(/** @type {string} */ typed) {
  const tidied = typed.trim().normalize("NFC");
  return BAD_NAME.test(tidied) || [...tidied].length > NAME_CHARS ? null : tidied;
}

function rename() {
  const tidied = tidy(name.value);
  name.setCustomValidity(tidied === null ? words.badName : "");
  if (!name.reportValidity() || tidied === null) return;
  name.value = tidied;
  kept.set("name", tidied);
  hall.rename(tidied);
}
name.addEventListener("change", rename);
name.addEventListener("input", () => name.setCustomValidity(""));
part("who").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  rename();
  text.focus();
});

function resize() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + text.offsetHeight - text.clientHeight}px`;
}
text.addEventListener("input", () => {
  resize();
  notice("");
});
text.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
  // The Enter that ends a composition is not ours. Safari ends the composition first; 229 is what tells it there.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  part("say").requestSubmit();
});
part("say").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  const content = text.value.trimEnd();
  const most = hall.welcome?.limits?.text_bytes ?? Infinity;
  const bytes = new TextEncoder().encode(content).length;
  if (bytes > most) return notice(words.long(bytes, most));
  if (!content || !room) return;
  text.value = "";
  resize();
  notice("");
  say(content);
});

addEventListener("hashchange", enter);
document.addEventListener("visibilitychange", () => {
  // Hidden pages have slow clocks: do not make the reader wait for ours. What has ended stays so.
  if (!document.hidden && hall.state === "waiting") hall.connect();
});

document.documentElement.lang = chinese ? "zh-CN" : "en";
for (const said of document.querySelectorAll("[data-t]")) {
  said.textContent = words[/** @type {"name" | "send" | "more" | "empty"} */ (/** @type {HTMLElement} */ (said).dataset.t)];
}
text.placeholder = words.say;
text.setAttribute("aria-label", words.say);
name.placeholder = words.guest;
showState("connecting");
hall.connect();
enter();
