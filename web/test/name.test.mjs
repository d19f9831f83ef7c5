// The page's rule for names is the hall's: what the one takes the other takes.

import assert from "node:assert/strict";
import { test } from "node:test";

import { tidy } from "../page/name.js";
import { Node, WebSocket } from "./harness.mjs";

const FAIR = ["zoe", " zoe ", "李雷", "Zoë", "e\u0301", "O'Neil", "a b", "👩‍💻", "❤️", "नि‍क", "نام‌ها", "©️", "x".repeat(32), "a!", "a~b", ""];
const FOUL = [
  "a:b", "小明：北京", "a\u2236b", "a\u02F8", "a\u200Bb", "Li\u200BLei", "a\u00ADb", "a\u3164", "\u2800", "a\u202Eb", "a\u2066", "a\u2028b", "a\nb", "a\u0000", "a\u007F",
  "a\u200Db", "\u200Da", "李\u200D", "a\uFE0F", "\u0301a", "❤\uFE0F\uFE0F", "\uFE0Fa", "!a", "/a", "~a", "x".repeat(33), "a\u{E0041}", "a\uFEFFb", "a\uFFF9b", "a\u115Fb",
];

test("a name that the page takes lets in, and one that it refuses would not", async () => {
  const node = await Node.start();
  try {
    const letsIn = (name) => new Promise((resolve) => {
      const address = new URL(node.url);
      if (name) address.searchParams.set("name", name);
      const socket = new WebSocket(address.href, "townhall.v1");
      socket.on("error", () => {});
      socket.on("open", () => resolve(101)).on("unexpected-response", (_, { statusCode }) => resolve(statusCode));
    });
    for (const name of FAIR) {
      assert.equal(tidy(name), name.trim().normalize("NFC"), JSON.stringify(name));
      assert.equal(await letsIn(name), 101, JSON.stringify(name));
    }
    for (const name of FOUL) {
      assert.equal(tidy(name), null, JSON.stringify(name));
      assert.equal(await letsIn(name), 400, JSON.stringify(name));
    }
  } finally {
    await node.stop();
  }
});
