// The types say what is there: the compiler reads a program that uses all of them, and they are the same set as the code's.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import * as client from "../client.js";
import { MODULES } from "./harness.mjs";

const web = fileURLToPath(new URL("..", import.meta.url));
const read = (name) => readFileSync(path.join(web, name), "utf8");
const types = read("client.d.ts");
const code = read("client.js");
const manual = read("README.md");

/** What a pattern's first group finds, sorted, each once. */
const found = (text, pattern) => [...new Set([...text.matchAll(pattern)].map(([, name]) => name))].sort();
/** The lines of a declaration. */
const declared = (head) => types.slice(types.indexOf(head)).split("\n}")[0];
/** The first column of the table under a heading of its own. */
const column = (head) => found(manual.slice(manual.indexOf(head)).split("\n\n")[0], /^\| `(\w+)/gm);

/** @param {...string} options */
function tsc(...options) {
  try {
    const common = ["--ignoreConfig", "--noEmit", "--strict", "--target", "es2023", "--lib", "es2023,dom,dom.iterable", "--types", ""];
    execFileSync(path.join(MODULES, ".bin/tsc"), [...common, ...options], { cwd: path.join(web, "test"), encoding: "utf8" });
  } catch (error) {
    assert.fail(`${error.stdout}${error.stderr}`);
  }
}

test("a program that uses every member compiles, and what is wrong does not", () => {
  // The package by its own name: so `exports` is read as well.
  for (const module of [["nodenext"], ["esnext", "--moduleResolution", "bundler"]]) {
    tsc("--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--module", ...module, "types.ts");
  }
});

test("the code keeps to the types, and so does the page", () => {
  tsc("--allowJs", "--checkJs", "--module", "nodenext", "../client.js", "../page/page.js");
});

test("every member of the class is declared, and every one that is declared is there", () => {
  const members = Object.getOwnPropertyNames(client.Townhall.prototype).filter((name) => name !== "constructor");
  const known = ["constructor", ...Object.getOwnPropertyNames(EventTarget.prototype)];
  const typed = found(declared("export class Townhall extends EventTarget"), /^ {2}(?:readonly )?(\w+)[(<:]/gm);
  assert.deepEqual(typed.filter((name) => !known.includes(name)), members.sort());
  assert.deepEqual(found(types, /^export (?:class|function) (\w+)/gm), Object.keys(client).sort());
});

test("every event that is dispatched is declared and in the manual, and so is every option", () => {
  const events = found(declared("export interface TownhallEventMap"), /^ {2}(\w+): /gm);
  const dispatched = found(code, /#tell\(([^,]*"),/g).join();
  assert.deepEqual(found(dispatched, /"(\w+)"/g), events);
  assert.deepEqual(column("| event |"), events);
  assert.deepEqual(column("| option |"), found(declared("export interface Options"), /^ {2}(\w+)\?: /gm));
});

test("every code of an error of our own is declared and in the manual", () => {
  const codes = ["banned", "kicked", "unauthorized", "closed"].concat(
    found(code, /(?:TownhallError\(|#giveUp\(ref,|refuse\()\s*"(\w+)"/g), found(code, /return \["(\w+)", /g),
  );
  const known = ["Client", "Server"].flatMap((whose) => found(types.split(`export type ${whose}ErrorCode`)[1].split(";")[0], /"(\w+)"/g));
  const told = found(manual, /^\| ((?:`\w+`(?:, )?)+) \| /gm).flatMap((names) => found(names, /`(\w+)`/g));
  for (const code of codes) {
    assert.ok(known.includes(code), `${code} is not declared`);
    assert.ok(told.includes(code) || code === "too_long", `${code} is not in the manual`);
  }
});
