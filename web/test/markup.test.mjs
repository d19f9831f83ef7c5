// What texts look like, without a browser: tokens, and the nodes that are made of them, recorded by a document that
// only notes down what is done to it. How a browser takes the same hostile texts, names and rooms (xss.json) is tested
// in one. Run by `node --test web/test/*.test.mjs`; nothing to install.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { mentions, onlyEmoji, parse, render } from "../page/markup.js";

const KIB = 1024;
const corpus = JSON.parse(readFileSync(new URL("xss.json", import.meta.url), "utf8"));

/** Tokens as one string: ⟦links⟧, ⟨code⟩, ⟪blocks⟫ and ⟪language|blocks⟫. */
function drawn(text) {
  const draw = {
    text: (token) => token.text,
    link: (token) => `⟦${token.text}⟧`,
    code: (token) => `⟨${token.text}⟩`,
    block: (token) => (token.language ? `⟪${token.language}|${token.text}⟫` : `⟪${token.text}⟫`),
  };
  return parse(text).map((token) => draw[token.type](token)).join("");
}

/** @param {[string, string][]} table texts, and how they are drawn */
function allDrawn(table) {
  for (const [text, due] of table) assert.equal(drawn(text), due, JSON.stringify(text));
}

/** @param {string[]} texts */
function allPlain(texts) {
  for (const text of texts) assert.deepEqual(parse(text), text ? [{ type: "text", text }] : [], JSON.stringify(text));
}

const hrefs = (text) => parse(text).filter(({ type }) => type === "link").map(({ href }) => href);

// --- Texts ---

test("markup of any other kind is shown as it was written", () => {
  allPlain([
    "", " ", "hello", "你好，世界", "*bold* **bold** _em_ ~no~", "# heading", "> quoted", "- item", "a\n\n\nb\n", "\ttab",
    "<b>bold</b> &amp; &lt;", "<!-- x -->", "[x](y)", "![x](y)", "{{x}} ${x}", "\\`", "\u2028\u2029", "nul\0between",
    "\uD800", "\uDC00x\uD83D", "\u202Edegrof:ada", "שלום", "x\u0301\u0316",
  ]);
});

test("line breaks of every system are one", () => {
  allDrawn([["a\r\nb\rc\nd", "a\nb\nc\nd"], ["```\r\na\r\nb\r\n```\r\nc", "⟪a\nb⟫c"], ["`a\rb`", "`a\nb`"],
    ["https://a.b/c\rd", "⟦https://a.b/c⟧\nd"]]);
});

// --- Links ---

test("an address becomes a link, and the sentence around it does not", () => {
  allDrawn([
    ["https://example.com", "⟦https://example.com⟧"],
    ["HTTPS://Example.COM/Path", "⟦HTTPS://Example.COM/Path⟧"],
    ["see http://example.com/a?b=c&d=%20#e-f, then", "see ⟦http://example.com/a?b=c&d=%20#e-f⟧, then"],
    ["http://localhost:8080", "⟦http://localhost:8080⟧"],
    ["http://a.b?q http://a.b#f", "⟦http://a.b?q⟧ ⟦http://a.b#f⟧"],
    ["https://a.b/. https://a.b/... https://a.b/?!", "⟦https://a.b/⟧. ⟦https://a.b/⟧... ⟦https://a.b/⟧?!"],
    ["https://a.b. https://a.b: https://a.b; https://a.b!",
      "⟦https://a.b⟧. ⟦https://a.b⟧: ⟦https://a.b⟧; ⟦https://a.b⟧!"],
    ["'https://a.b/' \"https://a.b/\" <https://a.b/> “https://a.b/” «https://a.b/»",
      "'⟦https://a.b/⟧' \"⟦https://a.b/⟧\" <⟦https://a.b/⟧> “⟦https://a.b/⟧” «⟦https://a.b/⟧»"],
    ["**https://a.b/** |https://a.b/|", "**⟦https://a.b/⟧** |⟦https://a.b/⟧|"],
    ["https://a.b/it's/a.b,c;d", "⟦https://a.b/it's/a.b,c;d⟧"],
    ["https://a.b,https://c.d", "⟦https://a.b⟧,⟦https://c.d⟧"],
    ["https://a.b\nhttps://c.d\thttps://e.f", "⟦https://a.b⟧\n⟦https://c.d⟧\t⟦https://e.f⟧"],
    ["https://web.archive.org/web/https://a.b/", "⟦https://web.archive.org/web/https://a.b/⟧"],
    ["https://a.b/-_~=&#", "⟦https://a.b/-_~=&#⟧"],
    ["https://a.b…", "⟦https://a.b⟧…"],
    ["https://a.b/—", "⟦https://a.b/⟧—"],
    ["https://a.b👍 https://a.b/x❤️ https://a.b/🇨🇳", "⟦https://a.b⟧👍 ⟦https://a.b/x⟧❤️ ⟦https://a.b/⟧🇨🇳"],
    ["https://a.b/\\x https://a.b\\x", "⟦https://a.b/⟧\\x ⟦https://a.b⟧\\x"],
    ["https://a.b/`x https://a.b/<b> https://a.b/>b https://a.b/\"b",
      "⟦https://a.b/⟧`x ⟦https://a.b/⟧<b> ⟦https://a.b/⟧>b ⟦https://a.b/⟧\"b"],
    ["https://a.b/x“y https://a.b/x”y", "⟦https://a.b/x⟧“y ⟦https://a.b/x⟧”y"],
    ["https://de.wikipedia.org/wiki/Tür", "⟦https://de.wikipedia.org/wiki/Tür⟧"],
    ["http://https://a.b/", "http://⟦https://a.b/⟧"],
    ["view-source:https://a.b/", "view-source:⟦https://a.b/⟧"],
  ]);
});

test("an address ends where Chinese, Japanese or Korean goes on", () => {
  allDrawn([
    ["请看https://example.com/路径，谢谢", "请看⟦https://example.com/⟧路径，谢谢"],
    ["打开https://example.com看看", "打开⟦https://example.com⟧看看"],
    ["文档：https://example.com/a。", "文档：⟦https://example.com/a⟧。"],
    ["（https://example.com/a）《https://example.com/b》「https://example.com/c」",
      "（⟦https://example.com/a⟧）《⟦https://example.com/b⟧》「⟦https://example.com/c⟧」"],
    ["https://a.b/x、https://a.b/y；https://a.b/z！", "⟦https://a.b/x⟧、⟦https://a.b/y⟧；⟦https://a.b/z⟧！"],
    ["https://a.b/x——就是它", "⟦https://a.b/x⟧——就是它"],
    ["https://a.b:8080端口", "⟦https://a.b:8080⟧端口"],
    ["https://a.b:中文", "⟦https://a.b⟧:中文"],
    ["https://a.b，联系zoe@example.com", "⟦https://a.b⟧，联系zoe@example.com"],
    ["https://a.b/?q=1的结果", "⟦https://a.b/?q=1⟧的结果"],
    ["https://a.b/ですか https://a.b/カー https://a.b/입니다", "⟦https://a.b/⟧ですか ⟦https://a.b/⟧カー ⟦https://a.b/⟧입니다"],
    ["https://a.b/ｘ https://a.b/ㄅ https://a.b/〒1", "⟦https://a.b/⟧ｘ ⟦https://a.b/⟧ㄅ ⟦https://a.b/⟧〒1"],
    ["以http://或https://开头", "以http://或https://开头"],
    ["http://例子.中国/", "http://例子.中国/"],
  ]);
});

test("brackets that an address opened belong to it, others do not", () => {
  allDrawn([
    ["https://en.wikipedia.org/wiki/Rust_(programming_language)",
      "⟦https://en.wikipedia.org/wiki/Rust_(programming_language)⟧"],
    ["(https://en.wikipedia.org/wiki/Rust_(video_game))", "(⟦https://en.wikipedia.org/wiki/Rust_(video_game)⟧)"],
    ["(see https://a.b/c).", "(see ⟦https://a.b/c⟧)."],
    ["https://a.b(see below)", "⟦https://a.b⟧(see below)"],
    ["[x](https://a.b/c) [y](https://a.b)", "[x](⟦https://a.b/c⟧) [y](⟦https://a.b⟧)"],
    ["(https://a.b/)(https://c.d/)", "(⟦https://a.b/⟧)(⟦https://c.d/⟧)"],
    ["{{https://a.b/x}} [https://a.b/x]", "{{⟦https://a.b/x⟧}} [⟦https://a.b/x⟧]"],
    ["https://a.b/?x[0]={1}", "⟦https://a.b/?x[0]={1}⟧"],
    ["https://a.b/(x]", "⟦https://a.b/(x⟧]"],
    ["https://a.b/(", "⟦https://a.b/⟧("],
    ["https://a.b/(x.)", "⟦https://a.b/(x.)⟧"],
  ]);
});

test("ports and IPv6 addresses are part of a host", () => {
  allDrawn([
    ["http://[::1]:8080/x http://[2001:db8::1]", "⟦http://[::1]:8080/x⟧ ⟦http://[2001:db8::1]⟧"],
    ["[http://[::1]/]", "[⟦http://[::1]/⟧]"],
    ["http://127.0.0.1:8080.", "⟦http://127.0.0.1:8080⟧."],
    ["http://a.b:0/ http://a.b:65535/", "⟦http://a.b:0/⟧ ⟦http://a.b:65535/⟧"],
  ]);
  allPlain(["http://a.b:65536/", "http://a.b:99999999999/", "http://a.b:8080x/", "http://a.b:x/", "http://[::1",
    "http://[:::1]/", "http://[x]/", "http://1.2.3.256/"]);
});

test("what is no http or https address stays text", () => {
  allPlain([
    "http://", "https://", "http:// x", "http:///evil.example", "http:/evil.example", "http:evil.example", "https://.",
    "https://...",
    "https://-/", "https://_/", "https:\\\\evil.example", "www.example.com", "//example.com", "example.com",
    "zoe@example.com",
    "javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\tscript:alert(1)", "java\nscript:alert(1)",
    "javascript:/*x*/alert(1)",
    "data:text/html,<script>", "DATA:text/html;base64,eA==", "vbscript:msgbox(1)", "VBScript:x", "file:///etc/passwd",
    "ftp://a.b/", "blob:x",
    "xhttp://a.b", "XHTTP://a.b", "1https://a.b/", "_https://a.b/", "git+https://a.b/x", "ht\ntp://a.b",
    "h\u200Bttps://a.b", "http\uFF1A//a.b", "hſſps://a.b", "httpſ://a.b",
    "http://%61.com/", "http://a%2eb/", "http://a.b%40evil.example/",
  ]);
  allDrawn([["http://ht\ntp://a.b", "⟦http://ht⟧\ntp://a.b"], ["javascript://a.b/%0ax", "javascript://a.b/%0ax"]]);
  for (const text of corpus.texts) {
    for (const href of hrefs(text)) assert.match(href, /^https?:\/\/[^/@\\]+\/[^\s<>"`\\]*$/, JSON.stringify(text));
  }
});

test("an address with credentials is no link, since it leads elsewhere than it seems", () => {
  allPlain([
    "https://example.com@evil.example/", "https://zoe:secret@evil.example/", "https://@evil.example/",
    "https://:@evil.example/",
    "https://example.com:443@evil.example/", "https://a!b@evil.example/", "https://a.b,c@evil.example",
    "https://a.b;@evil.example", "https://a%40b@evil.example/",
    "https://a.b:@evil.example/",
  ]);
  allDrawn([
    ["https://a.b/@zoe?x=@y#@z", "⟦https://a.b/@zoe?x=@y#@z⟧"],
    ["https://a.b/c@d https://a.b?c@d https://a.b#c@d", "⟦https://a.b/c@d⟧ ⟦https://a.b?c@d⟧ ⟦https://a.b#c@d⟧"],
    ["https://example.com\\@evil.example/", "⟦https://example.com⟧\\@evil.example/"],
    ["https://example.com＠evil.example/", "⟦https://example.com⟧＠evil.example/"],
  ]);
});

test("an address with something that nobody sees in it is no link", () => {
  const unseen = "\0\u0001\u0008\u001B\u007F\u00AD\u034F\u061C\u180E\u200B\u200C\u200D\u200E\u200F"
    + "\u202A\u202B\u202C\u202D\u202E\u2060\u2061\u2066\u2067\u2068\u2069\u206F"
    + "\u2800\uFE0F\uFEFF\uFFF9\uE000\u{E0001}\u{E0041}\u{F0000}";
  for (const c of unseen) {
    allPlain([`https://exam${c}ple.com/`, `https://example.com${c}`, `https://example.com/${c}x`,
      `https://example.com/x${c}`, `https://${c}example.com/`, `https:${c}//example.com/`]);
  }
  allPlain(["https://example.com/\uD800", "https://exam\uDFFFple.com/"]);
  assert.deepEqual(hrefs("\u202Ehttps://example.com/"), ["https://example.com/"],
    "what stands before it is none of its own");
});

test("a link is shown as it was written, and its href tells where it leads", () => {
  for (const [text, href] of [
    ["http://bücher.example/ü?ö#ä", "http://xn--bcher-kva.example/%C3%BC?%C3%B6#%C3%A4"],
    ["https://\u0430pple.com/", "https://xn--pple-43d.com/"],
    ["https://xn--pple-43d.com/", "https://xn--pple-43d.com/"],
    ["https://𝐞xample.com/", "https://example.com/"],
    ["https://пример.рф", "https://xn--e1afmkfd.xn--p1ai/"],
    ["https://مثال.إختبار/", "https://xn--mgbh0fb.xn--kgbechtv/"],
    ["https://EXAMPLE.com:443/a/../b", "https://example.com/b"],
    ["http://0x7f.1/", "http://127.0.0.1/"],
    ["http://2130706433", "http://127.0.0.1/"],
  ]) {
    assert.deepEqual(parse(text), [{ type: "link", text, href }]);
  }
  for (const slash of "\u2044\u2215\u29F8\uFF0F\u2571\u3002\uFF0E\uFF61\u2024") {
    const [shown] = hrefs(`https://example.com${slash}evil.example/`);
    assert.equal(shown, "https://example.com/", `what looks like a slash or a dot is none: ${slash}`);
  }
});

test("an address of more than 2,000 characters is no link", () => {
  const longest = `https://a.b/${"x".repeat(1988)}`;
  allDrawn([[longest, `⟦${longest}⟧`], [`${longest}y`, `${longest}y`], [`${longest}... x`, `⟦${longest}⟧... x`]]);
  allDrawn([[`${longest}y https://c.d`, `${longest}y ⟦https://c.d⟧`]]);
});

// --- Code ---

test("code stands between two single backticks on one line", () => {
  allDrawn([
    ["run `ls -l`, then", "run ⟨ls -l⟩, then"],
    ["`a``b`", "⟨a``b⟩"],
    ["`a` `b`", "⟨a⟩ ⟨b⟩"],
    ["` a `", "⟨ a ⟩"],
    ["中文`代码`中文", "中文⟨代码⟩中文"],
    ["a `b\nc` d", "a `b\nc` d"],
    ["it's 5` long\nand `x`", "it's 5` long\nand ⟨x⟩"],
    ["`a` b` c", "⟨a⟩ b` c"],
    ["``a``", "``a``"],
    ["`", "`"], ["``", "``"], ["` `", "` `"], ["` ` `x`", "` ` ⟨x⟩"],
    ["`<b>`", "⟨<b>⟩"],
    ["`\uD800`", "⟨\uD800⟩"],
  ]);
});

test("a block stands between two fences, and its line breaks make no empty lines", () => {
  allDrawn([
    ["```\ncode\n```", "⟪code⟫"],
    ["```js\nlet a;\n\nlet b;\n```", "⟪js|let a;\n\nlet b;⟫"],
    ["before\n```c++\ncode\n```\nafter", "before⟪c++|code⟫after"],
    ["before\n\n \n```\ncode\n```\n \n\nafter", "before⟪code⟫after"],
    ["```x```", "⟪x⟫"],
    ["see ```x``` there", "see⟪x⟫ there"],
    ["```\n\n  indented\n\n```", "⟪\n  indented\n⟫"],
    ["```\ncode\n  ```", "⟪code⟫"],
    ["```\ncode```", "⟪code⟫"],
    ["``` js \ncode\n```", "⟪ js \ncode⟫"],
    ["```js \ncode\n```", "⟪js|code⟫"],
    ["```two words\ncode\n```", "⟪two words\ncode⟫"],
    ["```js```", "⟪js⟫"],
    ["```中文\ncode\n```", "⟪中文\ncode⟫"],
    [`\`\`\`${"x".repeat(33)}\ncode\`\`\``, `⟪${"x".repeat(33)}\ncode⟫`],
    ["```\na\n```\n\n```\nb\n```", "⟪a⟫⟪b⟫"],
    ["```a``` \n ```b```  ", "⟪a⟫⟪b⟫"],
    ["```\na\n```\n  b", "⟪a⟫  b"],
    ["```html\n<script>x</script>\n```", "⟪html|<script>x</script>⟫"],
  ]);
});

test("a fence without a partner, or around nothing, is text", () => {
  allPlain(["```", "```js\ncode", "code\n```", "``````", "``` ```", "```\n```", "```js\n```", "```\n \n```",
    "``` ``` x ``` ```"]);
  allDrawn([["```js\nrun `ls` at https://a.b/", "```js\nrun ⟨ls⟩ at ⟦https://a.b/⟧"],
    ["```\na\n```\n```\nb", "⟪a⟫```\nb"]]);
});

test("a fence of four holds fences of three, and a block holds backticks of other lengths", () => {
  allDrawn([
    ["````\n```js\ncode\n```\n````", "⟪```js\ncode\n```⟫"],
    ["````md\n```\n````", "⟪md|```⟫"],
    ["```\n`a` ``b`` ````\n```", "⟪`a` ``b`` ````⟫"],
    ["`a```b`", "⟨a```b⟩"],
    ["```\na ` b\n``` `c`", "⟪a ` b⟫ ⟨c⟩"],
  ]);
});

test("an address in code is code", () => {
  allDrawn([
    ["`https://a.b/` https://c.d/", "⟨https://a.b/⟩ ⟦https://c.d/⟧"],
    ["```\nhttps://a.b/\n```\nhttps://c.d/", "⟪https://a.b/⟫⟦https://c.d/⟧"],
    ["https://a.b/`x`", "⟦https://a.b/⟧⟨x⟩"],
    ["`https://a.b/", "`⟦https://a.b/⟧"],
  ]);
});

// --- Everything at once ---

/** Numbers that look random and are the same in every run. */
function* numbers(seed) {
  for (;;) {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    yield seed >>> 8;
  }
}

/** What a reader must see of a text: all but backticks and white space. */
const seen = (text) => text.replace(/[\s`]/g, "");

test("nothing that was written disappears, whatever it was", () => {
  const parts = [
    "`", "``", "```", "````", "\n", "\r\n", " ", "\t", "js", "x", "中", "。", "https://", "http://a.b", "https://c.d/e",
    "/", "@", ":", "8", "(", ")",
    "[", "]", "{", "}", ".", "!", "'", "<", "\"", "👍", "\u200B", "\u202E", "\uD800", "é", "%", "\\", "#", "?",
  ];
  const random = numbers(7);
  const texts = Array.from({ length: 20_000 }, () => {
    const length = 1 + random.next().value % 24;
    return Array.from({ length }, () => parts[random.next().value % parts.length]).join("");
  });
  const met = new Set();
  for (const text of [...texts, ...corpus.texts]) {
    const tokens = parse(text);
    const shown = tokens.map((token) => (token.language ?? "") + token.text).join("");
    assert.equal(seen(shown), seen(text), JSON.stringify(text));
    for (const [i, { type, text: part }] of tokens.entries()) {
      met.add(type);
      assert.notEqual(part, "", JSON.stringify(text));
      assert.ok(type !== "text" || tokens[i + 1]?.type !== "text", `one stretch is one token: ${JSON.stringify(text)}`);
    }
    if (!text.includes("`")) assert.equal(shown, text.replace(/\r\n?/g, "\n"));
  }
  assert.deepEqual([...met].sort(), ["block", "code", "link", "text"], "the texts have everything in them");
});

// --- Work ---

/**
 * How many characters are looked at or copied while something runs. No expression of ours has two ways to match the
 * same characters, so what one looks at is what lies between where it begins and where it ends, or, where it finds
 * nothing, the rest of the text; one that must match where it stands and does not has seen an address' beginning at
 * most.
 */
function work(run) {
  const { exec } = RegExp.prototype;
  const { slice, indexOf } = String.prototype;
  let looked = 0;
  RegExp.prototype.exec = function (text) {
    const from = this.sticky || this.global ? this.lastIndex : 0;
    const found = exec.call(this, text);
    const until = found ? found.index + found[0].length : this.sticky ? from + 64 : text.length;
    looked += 1 + until - from;
    return found;
  };
  String.prototype.slice = function (...bounds) {
    const part = slice.apply(this, bounds);
    looked += 1 + part.length;
    return part;
  };
  String.prototype.indexOf = function (part, from = 0) {
    const at = indexOf.call(this, part, from);
    looked += part.length + (at < 0 ? this.length : at) - from;
    return at;
  };
  try {
    run();
  } finally {
    RegExp.prototype.exec = exec;
    Object.assign(String.prototype, { slice, indexOf });
  }
  return looked;
}

const HOSTILE = [
  "`", "``", "`a", "` ", "`\n", "```", "```\n", "``` ", "```a\n```\n", "` `` ``` ```` ", "` ``` ", "\n```a```\n \n",
  "\n", " \n", " ",
  "(", ")", "[", "]", "{", "}", "()", ")(", ".", "!", "…", "😀", "中", "\u0301", "\u200D", "\uD800", "\u202E", "x", "@",
  "@ada",
  "http", "http:", "http://", "https://a", "https://a ", "https://a/", "https://a,", "https://a/)", "https://a/(",
  "https://a/(]", "https://a/.",
  "https://a...", "https://a@", "https://a:", "https://a:1", "https://a!", "https://a/\u200B", "https://a中",
  "https://[", "https://[:", "https://[::1]",
  "https://a%", "https://[::1]/]", "`https://a/` ", "https://a/`", "http://x,@", "https://a\n",
];

/** Of each of these, what repeats it, what begins like it and what ends it. */
const shapes = (chars) => HOSTILE.flatMap((part) => {
  const flood = part.repeat(Math.ceil(chars / part.length)).slice(0, chars);
  return [flood, `https://a.b/${flood}`, `https://a.b${flood}`, `https://${flood}`, `\`\`\`${flood}\`\`\``,
    `\`${flood}\``, `${flood}https://a.b/`, `@${flood}`];
});

test("the work for a text is proportional to its length, whatever is in it", () => {
  for (const text of [...shapes(64 * KIB), ...corpus.texts]) {
    const looked = work(() => parse(text));
    assert.ok(looked <= 16 * text.length + 1_000,
      `${looked} for ${text.length} of ${JSON.stringify(text.slice(0, 40))}`);
  }
});

test("so is the work of finding a name or emoji in it", () => {
  const names = ["ada", "@", "@@@@", "@".repeat(32), "aaaaaaaaaaaaaaaaaaab", "`", "小明"];
  for (const text of shapes(16 * KIB)) {
    assert.ok(work(() => onlyEmoji(text)) <= 100, "a long text is none, and is not looked at");
    for (const name of names) {
      const looked = work(() => mentions(text, name));
      assert.ok(looked <= 32 * text.length + 1_000,
        `${looked} for ${text.length} of ${JSON.stringify(text.slice(0, 40))}, ${name}`);
    }
  }
});

test("ten thousand backticks, brackets or addresses are what they are", () => {
  const many = 10_000;
  allPlain(["`".repeat(many), "`\n".repeat(many), "[](){}".repeat(many), "(".repeat(many), "](".repeat(many),
    "http://".repeat(many), "x".repeat(64 * KIB)]);
  allDrawn([["`a".repeat(many), "⟨a⟩a".repeat(many / 2)],
    ["https://a.b ".repeat(many), "⟦https://a.b⟧ ".repeat(many)]]);
  const nested = `https://a.b/${"(".repeat(900)}${")".repeat(900)}`;
  allDrawn([[nested, `⟦${nested}⟧`], [`${nested})`, `⟦${nested}⟧)`]]);
});

// --- Nodes ---

/** A document that notes down what is made in it: tags, whatever is set, and what is put into what. */
function recorder() {
  const note = (made) => Object.assign(made, { append: undefined }) && new Proxy(made, {
    get: (target, key) => (key === "append" ? (...parts) => void (target.parts ??= []).push(...parts) : target[key]),
  });
  const plain = ({ append, dataset, ...made }) => ({
    ...made,
    ...(Object.keys(dataset ?? {}).length > 0 && { dataset: { ...dataset } }),
    ...(made.parts && { parts: made.parts.map(plain) }),
  });
  return {
    document: {
      createDocumentFragment: () => note({}),
      createElement: (tag) => note({ tag, dataset: {} }),
      createTextNode: (text) => note({ text }),
    },
    plain,
  };
}

/** The nodes that a text becomes. */
function nodes(text) {
  const { document, plain } = recorder();
  return plain(render(text, document)).parts ?? [];
}

const code = (textContent) => ({ tag: "code", dir: "ltr", textContent });

test("tokens become nodes with texts and known attributes, and nothing else", () => {
  assert.deepEqual(nodes("<b> http://\u0430.example/'x `a<i>`\n```js\n<u>\n```\n```\ny```"), [
    { text: "<b> " },
    {
      tag: "a", href: "http://xn--80a.example/'x", title: "http://xn--80a.example/'x", target: "_blank",
      rel: "noopener noreferrer nofollow",
      dir: "ltr", textContent: "http://\u0430.example/'x",
    },
    { text: " " },
    code("a<i>"),
    { tag: "pre", dataset: { language: "js" }, parts: [code("<u>")] },
    { tag: "pre", parts: [code("y")] },
  ]);
  assert.deepEqual(nodes(""), []);
});

test("no hostile text becomes any other node than those", () => {
  const allowed = {
    undefined: ["text"], a: ["dir", "href", "rel", "tag", "target", "textContent", "title"],
    code: ["dir", "tag", "textContent"],
    pre: ["dataset", "parts", "tag"],
  };
  const walk = (node) => {
    const keys = Object.keys(node).sort();
    assert.deepEqual(keys.filter((key) => !allowed[node.tag]?.includes(key)), [], JSON.stringify(node));
    const own = (node.text ?? node.textContent ?? "") + (node.dataset?.language ?? "");
    return own + (node.parts ?? []).map(walk).join("");
  };
  for (const text of corpus.texts) assert.equal(seen(nodes(text).map(walk).join("")), seen(text));
});

// --- Emoji ---

const EMOJI = [
  "👍", "👍🏽", "😀", "❤️", "☎️", "1️⃣", "#️⃣", "*️⃣", "🇨🇳", "🇪🇺", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "👩‍🔬", "👩🏽‍⚕️", "👨‍👩‍👧‍👦", "👨🏻‍❤️‍💋‍👨🏿",
  "🏳️‍🌈", "🏳️‍⚧️", "❤️‍🔥", "⌚", "©️",
];
const NO_EMOJI = [
  "", " ", "a", "1", "#", "*", "123", "❤", "©", "™", "👍a", "a👍", "👍 👍", " 👍", "👍\n", "👍👍👍👍", "🇨", "🇨🇳🇨", "中", "\u200D",
  "\uFE0F", "\u20E3", "👍\u200D", "\u200D👍",
  "\uD83D", "\u{1F3F4}\u{E0067}\u{E0062}\u{E0065}", "☎", ":)", "👍\u0301", "🇨🇳".repeat(4),
];

test("one to three emoji alone are big", () => {
  for (const emoji of EMOJI) {
    const some = [emoji, emoji + emoji, emoji.repeat(3), `${emoji}👍`];
    for (const text of some) assert.ok(onlyEmoji(text), JSON.stringify(text));
    const others = [emoji.repeat(4), `${emoji}x`, `${emoji} `, emoji.slice(0, -1) + "x"];
    for (const text of others) assert.ok(!onlyEmoji(text), JSON.stringify(text));
  }
  for (const text of NO_EMOJI) assert.ok(!onlyEmoji(text), JSON.stringify(text));
  assert.ok(!onlyEmoji("👍".repeat(30_000)));
});

test("every character, flag and colour of skin that Unicode recommends as an emoji is one, and no letter", () => {
  const recommended = new RegExp(String.raw`^\p{RGI_Emoji}$`, "v");
  let met = 0;
  for (let code = 0; code < 0x20000; code += 1) {
    const c = String.fromCodePoint(code);
    if (!/[\p{Emoji}\p{ExtPict}]/u.test(c)) {
      if (onlyEmoji(c) || onlyEmoji(`${c}\uFE0F`)) assert.fail(`U+${code.toString(16)}`);
      continue;
    }
    const ends = ["", "\uFE0F", "\u{1F3FB}", "\u{1F3FF}", "\uFE0F\u20E3", "\u200D\u2642\uFE0F"];
    const flags = /\p{RI}/u.test(c) ? Array.from({ length: 26 }, (_, i) => c + String.fromCodePoint(0x1F1E6 + i)) : [];
    for (const emoji of [...ends.map((end) => c + end), ...flags].filter((text) => recommended.test(text))) {
      assert.ok(onlyEmoji(emoji), JSON.stringify(emoji));
      met += 1;
    }
  }
  assert.ok(met > 1_800, `${met} were met`);
});

// --- Mentions ---

test("a text calls somebody by @name as a word, in whatever case", () => {
  for (const [text, name] of [
    ["@ada", "ada"], ["hi @ada!", "ada"], ["@Ada, look", "ada"], ["@ADA", "Ada"], ["(@ada)", "ada"], ["@ada's", "ada"],
    ["@ada.", "ada"], ["x\n@ada\ny", "ada"],
    ["@adam @ada", "ada"], ["@@ada", "ada"], ["@ada:hi", "ada"], ["zoe@ada @ada", "ada"],
    ["@zoë", "ZOË"], ["@Zoe\u0308", "zo\u00EB"], ["@STRASSE", "straße"], ["@ΣΟΦΟΣ", "σοφος"], ["@ЖЕНЯ", "женя"],
    ["@小明", "小明"], ["@小明你好", "小明"], ["你好@小明，在吗", "小明"], ["你好＠小明", "小明"], ["@小明hello", "小明"], ["你好@ada你好", "ada"],
    ["@ada，在吗", "ada"], ["@さくらさん", "さくら"],
    ["@Zoe Bell, hi", "zoe bell"], ["@O'Neill", "o'neill"], ["@a.b", "a.b"], ["@<b>", "<b>"], ["@$&", "$&"],
    ["@(.*)", "(.*)"], ["@__proto__", "__proto__"],
    ["@👩 hi", "👩"], ["@👩hi", "👩"], ["https://a.b @ada", "ada"], ["`x` @ada", "ada"], ["@ada`x`", "ada"],
    ["@127.0.0.1:80", "127.0.0.1:80"],
  ]) {
    assert.ok(mentions(text, name), `${text} calls ${name}`);
  }
});

test("a longer word, an address, code or a link calls nobody", () => {
  for (const [text, name] of [
    ["", "ada"], ["ada", "ada"], ["@", "ada"], ["@ ada", "ada"], ["@ad", "ada"], ["@adam", "ada"], ["@ada1", "ada"],
    ["@ada_x", "ada"], ["@adaé", "ada"], ["@ada\u0301", "ada"], ["@ada\u0316", "ada"], ["@小明\u0316", "小明"],
    ["zoe@ada.example", "ada"], ["1@ada", "ada"], ["_@ada", "ada"], ["é@ada", "ada"], ["𝐞@ada", "ada"],
    ["@ada𝐞", "ada"],
    ["`@ada`", "ada"], ["```\n@ada\n```", "ada"], ["https://a.b/@ada", "ada"], ["https://a.b/?x=@ada", "ada"],
    ["@小红", "小明"], ["@小", "小明"], ["@👩‍🔬", "👩"], ["@👍🏽", "👍"], ["@", ""], ["@ada", ""], ["@.x", "..x"], ["@aXb", "a.b"],
  ]) {
    assert.ok(!mentions(text, name), `${text} does not call ${name}`);
  }
});

// --- The corpus ---

test("the corpus of hostile texts, names and rooms is one that a hall takes and a test can see fail", () => {
  const { texts, names, rooms } = corpus;
  assert.ok(texts.length >= 120 && names.length >= 40 && rooms.length >= 20,
    `${texts.length} ${names.length} ${rooms.length}`);
  for (const list of [texts, names, rooms]) assert.equal(new Set(list).size, list.length, "each is another");
  // What a hall makes of a text; two that it makes the same could not be told from each other.
  const kept = texts.map((text) => text.replace(/[\u2028\u2029]/g, "\n").replace(/(?![\t\n])\p{Cc}/gu, ""));
  assert.equal(new Set(kept).size, kept.length);
  for (const text of texts) {
    assert.ok(text.trimEnd() === text && text.isWellFormed() && Buffer.byteLength(text) <= 4 * KIB,
      JSON.stringify(text.slice(0, 80)));
  }
  for (const text of kept) assert.notEqual(text.trim(), "");
  for (const name of names) {
    const bare = name.replace(/[\u200D\uFE0F]/gu, "");
    assert.ok(name === name.trim().normalize("NFC") && [...name].length >= 1 && [...name].length <= 32, name);
    assert.doesNotMatch(bare, /^[!/~\p{M}]|[:\uFF1A\p{Cc}\p{DI}\p{Zl}\p{Zp}\u202A-\u202E\u2066-\u2069\u2800]/u, name);
  }
  const executing = texts.filter((text) => /__xss|document\.title/.test(text));
  assert.ok(executing.length >= 120, `${executing.length}`);
});
