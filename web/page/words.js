/**
 * What the page says, in English and Chinese: that which the browser prefers, until the reader chooses.
 *
 * Words that stand in the document are named there: `data-t` is an element's text, `data-label` its accessible name (and what
 * it shows when pointed at), `data-hint` a placeholder. `speak` fills them in; who makes elements takes them from `words`.
 */

import { local } from "./kept.js";

/** @typedef {(n: number) => string} Counted */

const ENGLISH = {
  lang: "en",
  other: "中文",
  rooms: "Rooms", menu: "Rooms and settings", close: "Close", goto: "Go to room…", gotoLabel: "Go to another room",
  forget: (/** @type {string} */ room) => `Leave #${room}`,
  unread: /** @type {Counted} */ ((n) => `${n} unread`), unsentHere: "a message was not sent",
  name: "Your name", guest: "Guest",
  bell: "Notifications", bellOn: "Notifications are on", bellOff: "Notifications are off",
  bellDenied: "The browser does not let this page notify you. Its site settings can change that.",
  messages: "Messages", say: (/** @type {string} */ room) => `Message #${room}`, send: "Send",
  emoji: "Emoji", skip: "Skip to writing",
  you: "you", more: "Show older messages", empty: "Nobody has said anything here yet.",
  newest: "Jump to newest", newer: /** @type {Counted} */ ((n) => (n === 1 ? "1 new message" : `${n} new messages`)), mark: "New",
  retry: "Retry", discard: "Discard", pending: "sending…", copy: "Copy", copied: "Copied",
  failed: (/** @type {string} */ why) => `Not sent: ${why}`,
  today: "Today", yesterday: "Yesterday",
  people: "Who is here", here: /** @type {Counted} */ ((n) => `${n} here`), crowd: "In rooms of more than 200, nobody is listed.",
  mention: (/** @type {string} */ name) => `Mention ${name}`,
  typing: (/** @type {string[]} */ names) => (names.length > 3 ? "Several people are typing…"
    : `${names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)} are` : `${names[0]} is`} typing…`),
  connecting: "Connecting…", open: "Connected", offline: "Offline, reconnecting…", ended: "Disconnected",
  again: "Connect again", login: "Log in", logout: "Log out",
  wanted: "This hall wants to know who you are. Come in through your site, or with what it gave you:",
  loginName: "Name", loginToken: "Token",
  broken: "Some messages before this point may be lost",
  lost: /** @type {Counted} */ ((n) => (n === 1 ? "1 message is lost here" : `${n} messages are lost here`)),
  badName: "A name is 1 to 32 characters, has no colon and begins with none of ! / ~",
  badRoom: "A room is 1 to 64 of a–z 0–9 . _ - and begins with a letter or a digit.",
  long: (/** @type {number} */ n, /** @type {number} */ most) => `Too long: ${n} of ${most} bytes.`,
  full: "Too many messages wait to be sent. Send or discard some first.",
  refused: (/** @type {string} */ room) => `You cannot enter #${room}`,
  /** By the codes of errors; others are said in the server's words. @type {Record<string, string>} */
  errors: {
    muted: "you may read here, and not speak", expired: "it waited too long", closed: "the connection is over", left: "you left the room",
    unauthorized: "the hall does not let you in with that", banned: "you were banned", kicked: "you were shown out",
    forbidden: "it is not open to you", too_many_rooms: "you are in too many rooms already", other_user: "somebody else said it",
    lost: "the hall lost it",
    not_joined: "you are not in that room", too_long: "it is too long", unavailable: "the hall cannot store anything just now",
    rate_limited: "too fast", too_many: "too many messages wait already", bad_frame: "the hall does not understand it", bad_room: "that is no name for a room",
  },
};

/** @type {typeof ENGLISH} */
const CHINESE = {
  lang: "zh-CN",
  other: "English",
  rooms: "房间", menu: "房间与设置", close: "关闭", goto: "前往房间…", gotoLabel: "前往其他房间",
  forget: (room) => `离开 #${room}`,
  unread: (n) => `${n} 条未读`, unsentHere: "有消息未发送",
  name: "你的名字", guest: "访客",
  bell: "通知", bellOn: "通知已开启", bellOff: "通知已关闭",
  bellDenied: "浏览器不允许本页发送通知，可在网站设置中更改。",
  messages: "消息", say: (room) => `发消息到 #${room}`, send: "发送",
  emoji: "表情", skip: "跳到输入框",
  you: "我", more: "显示更早的消息", empty: "这里还没有人说话。",
  newest: "回到最新消息", newer: (n) => `${n} 条新消息`, mark: "新消息",
  retry: "重试", discard: "丢弃", pending: "发送中…", copy: "复制", copied: "已复制",
  failed: (why) => `未发送：${why}`,
  today: "今天", yesterday: "昨天",
  people: "谁在这里", here: (n) => `${n} 人在线`, crowd: "超过 200 人的房间不列出成员。",
  mention: (name) => `提到 ${name}`,
  typing: (names) => (names.length > 3 ? "好几个人正在输入…" : `${names.join("、")} 正在输入…`),
  connecting: "正在连接…", open: "已连接", offline: "离线，正在重连…", ended: "连接已断开",
  again: "重新连接", login: "登录", logout: "退出登录",
  wanted: "进入前需要登录。请从你的网站进入，或填写网站给你的凭据：",
  loginName: "名字", loginToken: "令牌",
  broken: "此处之前的部分消息可能已丢失",
  lost: (n) => `此处丢失了 ${n} 条消息`,
  badName: "名字为 1 到 32 个字符，不含冒号，且不以 ! / ~ 开头",
  badRoom: "房间名为 1 到 64 个字符，可用 a–z 0–9 . _ -，以字母或数字开头。",
  long: (n, most) => `太长了：${n} 字节，最多 ${most} 字节。`,
  full: "等待发送的消息太多了，请先发送或丢弃一些。",
  refused: (room) => `无法进入 #${room}`,
  errors: {
    muted: "你在这里只能阅读，不能发言", expired: "等待太久", closed: "连接已结束", left: "你已离开房间",
    unauthorized: "凭据无效", banned: "你已被封禁", kicked: "你已被请出",
    forbidden: "这个房间不对你开放", too_many_rooms: "你所在的房间太多了", other_user: "这是别人说的",
    lost: "服务器丢失了它",
    not_joined: "你不在这个房间里", too_long: "太长了", unavailable: "服务器暂时无法保存消息",
    rate_limited: "太快了", too_many: "等待发送的消息太多", bad_frame: "服务器无法理解", bad_room: "这不是房间名",
  },
};

/** The language of now. @type {typeof ENGLISH} */
export let words = ENGLISH;

/** @type {Set<() => void>} */
const listeners = new Set();

/** Calls back, now and whenever the language changes, who has words on screen. @param {() => void} draw */
export function onLanguage(draw) {
  listeners.add(draw);
  draw();
}

/** @param {string} lang `en`, `zh`, or either with a region */
export function speak(lang) {
  words = lang.toLowerCase().startsWith("zh") ? CHINESE : ENGLISH;
  document.documentElement.lang = words.lang;
  makeFormats();
  for (const element of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-t], [data-label], [data-hint]"))) {
    const { t, label, hint } = element.dataset;
    if (t) element.textContent = word(t);
    if (hint) element.setAttribute("placeholder", word(hint));
    if (label) element.setAttribute("aria-label", word(label));
    if (label && element.matches("button, a")) element.title = word(label);
  }
  for (const draw of listeners) draw();
}

/** @param {string} key */
function word(key) {
  const said = /** @type {Record<string, unknown>} */ (words)[key];
  return typeof said === "string" ? said : key;
}

/** What the reader chose, or else the first that the browser prefers and we speak. */
export function preferred() {
  const known = navigator.languages.find((lang) => /^(en|zh)\b/i.test(lang));
  return local.get("language") || known || "en";
}

export function switchLanguage() {
  const other = words === ENGLISH ? "zh" : "en";
  local.set("language", other);
  speak(other);
}

/** Why something failed, in the reader's language where we have it. @param {{code?: string, message?: string}} error */
export function why({ code = "", message = "" }) {
  return Object.hasOwn(words.errors, code) ? words.errors[code] : message;
}

// --- Times ---

/** @type {Intl.DateTimeFormat} */ let clock;
/** @type {Intl.DateTimeFormat} */ let calendar;
/** @type {Intl.DateTimeFormat} */ let exactly;

/** In the order of the region that the browser is set to, where it speaks the same language. */
function makeFormats() {
  const language = words.lang.slice(0, 2);
  const locale = navigator.languages.find((lang) => lang.toLowerCase().startsWith(language)) ?? words.lang;
  clock = new Intl.DateTimeFormat(locale, { hour: "numeric", minute: "2-digit" });
  calendar = new Intl.DateTimeFormat(locale, { weekday: "long", month: "long", day: "numeric", year: "numeric" });
  exactly = new Intl.DateTimeFormat(locale, { dateStyle: "full", timeStyle: "medium" });
}

/** @param {number} at_ms */
export const timeOf = (at_ms) => clock.format(at_ms);
/** @param {number} at_ms */
export const momentOf = (at_ms) => exactly.format(at_ms);

/** @param {number} at_ms */
export function dayOf(at_ms) {
  const day = new Date(at_ms).toDateString();
  const before = new Date();
  if (day === before.toDateString()) return words.today;
  before.setDate(before.getDate() - 1);
  return day === before.toDateString() ? words.yesterday : calendar.format(at_ms);
}
