/**
 * What a text looks like: links, code and big emoji. Everything else is shown as it was written; there is no bold,
 * there are no headings, and there is no HTML.
 *
 * Two layers. `parse` is pure: a text in, a list of tokens out. `render` makes nodes of them, and only ever sets texts
 * and known attributes, so nothing that somebody says can become an element. What is not certainly a link or code stays
 * text, and nothing disappears but the backticks around code, a block's language (which goes beside it) and empty lines
 * around blocks.
 *
 * Texts are hostile and up to 64 KiB long, so the work is proportional to the length: no expression here has two
 * repetitions that could share characters, and no stretch is looked at again for each of its parts.
 */

/**
 * @typedef {{type: "text", text: string}
 *   | {type: "link", text: string, href: string}
 *   | {type: "code", text: string}
 *   | {type: "block", text: string, language: string}} Token
 */

const LINK_CHARS = 2_000;
/** No emoji is longer than a quarter of this, in UTF-16. */
const BIG_CHARS = 64;

/** What Chinese, Japanese and Korean are written with, their punctuation and full-width forms included. */
const CJK = String.raw`\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Hang}\p{scx=Bopo}\u3000-\u303F\uFF00-\uFFEF`;
/** What nobody sees, or what turns the direction of what follows: controls, joiners, fillers, half characters. */
const UNSEEN = String.raw`\p{C}\p{DI}\u2800`;
/**
 * What ends an address. Foreign letters are legal in one, but in a Chinese text the next word follows without a space,
 * and so do emoji everywhere.
 */
const STOPS = String.raw`\p{White_Space}<>"\x60\\\p{Pi}\p{Pf}\p{Extended_Pictographic}\p{RI}${CJK}`;
const BRACKETS = String.raw`()[\]{}`;

/**
 * Letters, digits and `. _ -`, or an IPv6 address; then a port. No `@`, so no credentials; no `%`, and nothing that
 * only looks like a slash. What IDNA makes of foreign letters stands in the link's title.
 */
const HOST = new RegExp(
  String.raw`https?:\/\/(?:\[[\da-f:.]{2,45}\]|(?![${CJK}])[\p{L}\p{N}](?:(?![${CJK}])[\p{L}\p{M}\p{N}._-])*)(?::\d+)?`,
  "iuy",
);
/** If an `@` follows, what seemed to be a host was somebody's name and password. */
const UP_TO_AT = new RegExp(`[^${STOPS}${BRACKETS}/?#@]*`, "uy");
/** What a host does not end before: it is another one than it seems. */
const GOES_ON = new RegExp(String.raw`%|:\/\/|(?!\p{White_Space})[${UNSEEN}]|:?(?![${CJK}])[\p{L}\p{M}\p{N}_]`, "uy");
/** The rest of an address, up to a bracket. */
const REST = new RegExp(`[^${STOPS}${BRACKETS}]*`, "uy");
const HAS_UNSEEN = new RegExp(`[${UNSEEN}]`, "u");
/** What belongs to the sentence if an address ends with it. */
const PUNCTUATION = /[.,;:!?'*|([{]|(?![\0-\x7F])\p{P}/u;
/** After one of these a scheme is part of a longer word. */
const PART_OF_WORD = /[A-Za-z\d+_]/;
/** @type {Record<string, string>} */
const CLOSES = { "(": ")", "[": "]", "{": "}" };

/** What may follow an opening fence, if its line then ends: a language or nothing. Anything else is code already. */
const LANGUAGE = /[\w+#.-]{0,32}/y;
const SPACES = /[ \t]*/y;
const EMPTY_LINES = /(?:[ \t]*\n)*(?:[ \t]+$)?/y;

/** @param {string} text @returns {Token[]} what a text consists of, in order */
export function parse(text) {
  return [...tokens(text.replace(/\r\n?/g, "\n"))];
}

/** @param {string} text @returns {Generator<Token>} */
function* tokens(text) {
  let from = 0;
  for (const { start, end, token } of codes(text)) {
    yield* links(text.slice(from, start));
    yield token;
    from = end;
  }
  yield* links(text.slice(from));
}

// --- Code ---

/**
 * Code stands between two runs of equally many backticks: one on the same line, or three and more, so that a block of
 * four can hold fences of three. A run that has no partner is text.
 * @param {string} text
 */
function* codes(text) {
  const marks = [...text.matchAll(/`+|\n/g)];
  const partners = partnersOf(marks);
  for (let i = 0; i < marks.length; i += 1) {
    const partner = partners[i];
    if (partner === undefined) continue;
    const found = code(text, marks[i], marks[partner]);
    if (found) yield found;
    i = partner;
  }
}

/**
 * @param {RegExpExecArray[]} marks runs of backticks, and line breaks
 * @returns {(number | undefined)[]} which one closes each
 */
function partnersOf(marks) {
  /** @type {Map<number, number>} by length, the nearest one further on */
  const nearest = new Map();
  const partners = new Array(marks.length);
  for (let i = marks.length - 1; i >= 0; i -= 1) {
    const [mark] = marks[i];
    if (mark === "\n") {
      nearest.delete(1);
    } else if (mark.length !== 2) {
      partners[i] = nearest.get(mark.length);
      nearest.set(mark.length, i);
    }
  }
  return partners;
}

/**
 * @param {string} text @param {RegExpExecArray} open @param {RegExpExecArray} close
 * @returns {{start: number, end: number, token: Token} | null} nothing where there would be nothing to see
 */
function code(text, open, close) {
  const fence = open[0].length;
  const from = open.index + fence;
  const end = close.index + fence;
  if (fence === 1) {
    const inline = text.slice(from, close.index);
    return inline.trim() ? { start: open.index, end, token: { type: "code", text: inline } } : null;
  }
  const languageEnd = from + lengthAt(LANGUAGE, text, from);
  const lineEnd = languageEnd + lengthAt(SPACES, text, languageEnd);
  const named = text[lineEnd] === "\n";
  const block = text.slice(named ? lineEnd + 1 : from, lastLineEnd(text, close.index));
  if (!block.trim()) return null;
  return {
    start: seenEnd(text, open.index),
    end: end + lengthAt(EMPTY_LINES, text, end),
    token: { type: "block", text: block, language: named ? text.slice(from, languageEnd) : "" },
  };
}

/** @param {RegExp} sticky @param {string} text @param {number} at @returns {number} how much it matches there */
function lengthAt(sticky, text, at) {
  sticky.lastIndex = at;
  return sticky.exec(text)?.[0].length ?? 0;
}

/** @param {string} text @param {number} end @returns {number} the end without spaces and line breaks before it */
function seenEnd(text, end) {
  while (end > 0 && " \t\n".includes(text[end - 1])) end -= 1;
  return end;
}

/** @param {string} text @param {number} end @returns {number} the end without a line break that only a fence follows */
function lastLineEnd(text, end) {
  let before = end;
  while (before > 0 && " \t".includes(text[before - 1])) before -= 1;
  return text[before - 1] === "\n" ? before - 1 : end;
}

// --- Links ---

/** @param {string} text a stretch without code @returns {Generator<Token>} */
function* links(text) {
  const schemes = /https?:\/\//gi;
  let from = 0;
  let scheme;
  while ((scheme = schemes.exec(text))) {
    const start = scheme.index;
    const end = PART_OF_WORD.test(text[start - 1] ?? "") ? 0 : addressEnd(text, start);
    if (end === 0) continue;
    const token = link(text.slice(start, trimmedEnd(text, end)));
    if (token) {
      if (from < start) yield { type: "text", text: text.slice(from, start) };
      yield token;
      from = start + token.text.length;
    }
    schemes.lastIndex = end;
  }
  if (from < text.length) yield { type: "text", text: text.slice(from) };
}

/**
 * @param {string} text @param {number} start
 * @returns {number} where an address ends, the sentence's punctuation included; 0: there is none
 */
function addressEnd(text, start) {
  const end = start + lengthAt(HOST, text, start);
  if (end === start) return 0;
  // This does not reach into the next address, whose slashes are in its way.
  const at = end + lengthAt(UP_TO_AT, text, end);
  if (text[at] === "@" || lengthAt(GOES_ON, text, end) > 0) return 0;
  return "/?#".includes(text[end] ?? " ") ? restEnd(text, end) : end;
}

/** To what ends an address, or a bracket that closes none of its own. @param {string} text @param {number} end */
function restEnd(text, end) {
  /** @type {Record<string, number>} */
  const open = { ")": 0, "]": 0, "}": 0 };
  for (;;) {
    end += lengthAt(REST, text, end);
    const bracket = text[end];
    if (bracket in CLOSES) open[CLOSES[bracket]] += 1;
    else if (open[bracket] > 0) open[bracket] -= 1;
    else return end;
    end += 1;
  }
}

/** @param {string} text @param {number} end */
function trimmedEnd(text, end) {
  while (PUNCTUATION.test(text[end - 1])) end -= 1;
  return end;
}

/** @param {string} text @returns {Token & {type: "link"} | null} */
function link(text) {
  if (text.length > LINK_CHARS || HAS_UNSEEN.test(text)) return null;
  try {
    // The expressions above let nothing else through; that it is so does not hang on them alone.
    const { href, protocol, username, password } = new URL(text);
    const safe = (protocol === "http:" || protocol === "https:") && !username && !password;
    return safe ? { type: "link", text, href } : null;
  } catch {
    return null; // `http://1.2.3.256`, a port above 65535, …
  }
}

// --- Nodes ---

/** @param {string} text @param {Document} document @returns {DocumentFragment} what a text looks like */
export function render(text, document) {
  const fragment = document.createDocumentFragment();
  for (const token of parse(text)) fragment.append(node(token, document));
  return fragment;
}

/** @param {Token} token @param {Document} document @returns {Node} */
function node(token, document) {
  switch (token.type) {
    case "link":
      return linkNode(token, document);
    case "code":
      return codeNode(token.text, document);
    case "block": {
      const block = document.createElement("pre");
      if (token.language) block.dataset.language = token.language;
      block.append(codeNode(token.text, document));
      return block;
    }
    default:
      return document.createTextNode(token.text);
  }
}

/**
 * The title is where it really leads, with the host as it is looked up.
 * @param {{text: string, href: string}} token @param {Document} document
 */
function linkNode({ text, href }, document) {
  const made = document.createElement("a");
  made.href = made.title = href;
  made.target = "_blank";
  made.rel = "noopener noreferrer nofollow";
  // By itself, so that nothing around it can turn it round.
  made.dir = "ltr";
  made.textContent = text;
  return made;
}

/** @param {string} text @param {Document} document */
function codeNode(text, document) {
  const made = document.createElement("code");
  made.dir = "ltr";
  made.textContent = text;
  return made;
}

// --- Emoji ---

/**
 * One to three of what is built like an emoji: a flag, a key, a region, or pictures that are joined. `\p{RGI_Emoji}`
 * would know which there are, but V8 takes 40 ms to a second to make ready for it, and it is only about size.
 */
const ONLY_EMOJI = (() => {
  const flag = String.raw`\p{RI}\p{RI}`;
  const key = String.raw`[\d#*]\uFE0F\u20E3`;
  const region = String.raw`\u{1F3F4}[\u{E0030}-\u{E0039}\u{E0061}-\u{E007A}]{3,6}\u{E007F}`;
  const picture = String.raw`(?!\p{RI})(?:\p{EBase}\p{EMod}|\p{ExtPict}\uFE0F|\p{EPres})`;
  return new RegExp(String.raw`^(?:${flag}|${key}|${region}|${picture}(?:\u200D${picture})*){1,3}$`, "u");
})();

/** @param {string} text @returns {boolean} whether it is one to three emoji and nothing else: those are shown big */
export function onlyEmoji(text) {
  return text.length <= BIG_CHARS && ONLY_EMOJI.test(text);
}

// --- Mentions ---

const LETTER = String.raw`(?![${CJK}])[\p{L}\p{N}_]`;
const ENDS_IN_LETTER = new RegExp(`${LETTER}$`, "u");
const BEGINS_WITH_LETTER = new RegExp(`^${LETTER}`, "u");
/** What changes the character before it into another. */
const BEGINS_WITH_MARK = /^[\p{M}\p{Emoji_Modifier}\u200D]/u;

/**
 * Whether a text calls somebody by `@name`, in whatever case. An address is no call, and neither is what stands in code
 * or in a link. Chinese is written without spaces, so there a name ends where it ends: `@小明你好`.
 * @param {string} text @param {string} name
 */
export function mentions(text, name) {
  if (!name || !/[@＠]/.test(text)) return false;
  const call = `@${folded(name)}`;
  return parse(text).some((token) => token.type === "text" && calls(folded(token.text), call));
}

/** @param {string} text */
function folded(text) {
  return text.replaceAll("＠", "@").toLowerCase().toUpperCase().normalize("NFC");
}

/** @param {string} text @param {string} call */
function calls(text, call) {
  for (let at = text.indexOf(call); at >= 0; at = text.indexOf(call, at + 1)) {
    const end = at + call.length;
    const next = text.slice(end, end + 2);
    const begins = !ENDS_IN_LETTER.test(text.slice(Math.max(0, at - 2), at));
    const ends = !BEGINS_WITH_MARK.test(next) && !(ENDS_IN_LETTER.test(call) && BEGINS_WITH_LETTER.test(next));
    if (begins && ends) return true;
  }
  return false;
}
