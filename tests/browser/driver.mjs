/**
 * A real Chromium that does what it is told: one JSON object a line on stdin, one answer a line on stdout, in order.
 * The sentences of the tests stand in tests/hall/; here is only what a hand and an eye do.
 *
 * Every page that is opened has a browser profile of its own, so every page is somebody else; only tabs share one. Whatever
 * a page complains of (an error in its console, an uncaught exception, a broken Content-Security-Policy, which Chromium puts
 * in the console) is kept.
 */

import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

/** More than anything takes, so that the test that waits says what it waited for. */
const PATIENCE_MS = 30_000;

const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
// Test machines are containers, where Chromium's own sandbox finds no namespaces to be made of.
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });

/** @type {{page: import("playwright-core").Page, complaints: string[]}[]} */
const people = [];

/** A page of a browser profile at an address; the answer is its number. */
async function look(context, url) {
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(`uncaught: ${error.message}`));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(`${message.type()}: ${message.text()}`);
  });
  people.push({ page, complaints });
  const who = people.length - 1;
  await page.goto(url);
  return who;
}

const actions = {
  /** Somebody new opens an address; the answer is who. */
  async open({ url }) {
    const context = await browser.newContext({ locale: "en-US" });
    context.setDefaultTimeout(PATIENCE_MS);
    return look(context, url);
  },
  /** The same person opens an address in one more tab, which counts as one more of them. */
  async tab({ who, url }) {
    return look(people[who].page.context(), url);
  },
  /** What an expression comes to on the page. */
  async evaluate({ who, script }) {
    return people[who].page.evaluate(script);
  },
  async goto({ who, url }) {
    await people[who].page.goto(url);
  },
  async reload({ who }) {
    await people[who].page.reload();
  },
  async close({ who }) {
    await people[who].page.context().close();
  },
  async fill({ who, at, text }) {
    await people[who].page.locator(at).fill(text);
  },
  async press({ who, at, key }) {
    await people[who].page.locator(at).press(key);
  },
  async click({ who, at }) {
    await people[who].page.locator(at).click();
  },
  /** What stands in all elements of a selector, now: their text, or what was typed into them. */
  async read({ who, at }) {
    const read = () => people[who].page.locator(at).evaluateAll((elements) =>
      elements.map((element) => (element.matches("input, textarea") ? element.value : element.textContent)));
    return read().catch((error) => {
      if (!error.message.includes("because of a navigation")) throw error;
      return read(); // of the page that has come
    });
  },
  async attribute({ who, at, name }) {
    return people[who].page.locator(at).getAttribute(name);
  },
  async address({ who }) {
    return people[who].page.url();
  },
  async complaints({ who }) {
    return people[who].complaints;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { action, ...details } = JSON.parse(line);
  const answer = await actions[action](details).then(
    (value) => ({ value: value ?? null }),
    (error) => ({ error: `${action} ${JSON.stringify(details)}: ${error.message}` }),
  );
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
