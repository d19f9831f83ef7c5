/**
 * A real Chromium that does what it is told: one JSON object a line on stdin, one answer a line on stdout, in order.
 * The sentences of the tests stand in tests/hall/browser/; here is only what a hand and an eye do.
 *
 * Every page that is opened has a browser profile of its own, so every page is somebody else; only tabs share one. Whatever
 * a page complains of is kept: an error in its console, an uncaught exception, a broken Content-Security-Policy. So is
 * what it did behind the reader's back: a dialog, a window that opens by itself, a host that it asked for something.
 */

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

/** More than anything takes, so that the test that waits says what it waited for. */
const PATIENCE_MS = 30_000;

const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
const browser = await chromium.launch({
  executablePath,
  // Test machines are containers, where Chromium's own sandbox finds no namespaces to be made of. A name that is not this
  // machine's leads here all the same, so that a page can be somebody else's.
  args: ["--no-sandbox", "--host-resolver-rules=MAP site.example 127.0.0.1"],
});

/**
 * @typedef {object} Person
 * @property {import("playwright-core").Page} page
 * @property {string[]} complaints
 * @property {Set<string>} hosts that were asked for anything
 * @property {string[]} sent the text frames that the page sent, by any WebSocket
 */

/** @type {Person[]} */
const people = [];

/** Runs in every page before anything of its own: keeps which states of the connection it showed, and says what its policy refused. */
function watch() {
  const states = [];
  Object.defineProperty(globalThis, "shownStates", { value: states });
  new MutationObserver(() => {
    const state = document.body?.dataset.state;
    if (state && state !== states.at(-1)) states.push(state);
  }).observe(document, { subtree: true, childList: true, attributeFilter: ["data-state"] });
  addEventListener("securitypolicyviolation", (event) =>
    console.error(`policy: ${event.effectiveDirective} refuses ${event.blockedURI} ${event.sample}`));
}

/** A page of a browser profile at an address; the answer is its number. */
async function look(context, url) {
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  await page.addInitScript(watch);
  /** @type {Person} */
  const person = { page, complaints: [], hosts: new Set(), sent: [] };
  const complain = (complaint) => person.complaints.push(complaint);
  page.on("pageerror", (error) => complain(`uncaught: ${error.message}`));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complain(`${message.type()}: ${message.text()}`);
  });
  page.on("dialog", (dialog) => {
    complain(`dialog: ${dialog.message()}`);
    dialog.dismiss().catch(() => {}); // of a page that is gone
  });
  page.on("popup", (popup) => complain(`window: ${popup.url()}`));
  page.on("request", (request) => person.hosts.add(new URL(request.url()).host));
  page.on("websocket", (socket) => {
    person.hosts.add(new URL(socket.url()).host);
    socket.on("framesent", ({ payload }) => person.sent.push(String(payload)));
  });
  people.push(person);
  const who = people.length - 1;
  await page.goto(url);
  return who;
}

/**
 * A browser of somebody's own, in which a tab hides the others as tabs do: those that Playwright starts believe to be seen
 * always. It ends with us, however we end.
 */
async function startWindow() {
  const words = ["--pdeathsig", "KILL", executablePath, "--headless", "--no-sandbox", "--remote-debugging-port=0"];
  const child = spawn("setpriv", [...words, `--user-data-dir=${process.env.PROFILE}`, "about:blank"], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  const address = await new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", () => reject(new Error(`Chromium has ended: ${said}`)));
    child.stderr.on("data", (words) => {
      said += words;
      const listening = /DevTools listening on (ws:\S+)/.exec(said);
      if (listening) resolve(listening[1]);
    });
  });
  const own = await chromium.connectOverCDP(address, { noDefaults: true });
  return own.contexts()[0];
}

/** Whatever stands in elements: their text, or what was typed into them. @param {Element[]} elements */
const texts = (elements) =>
  elements.map((element) => (element.matches("input, textarea") ? element.value : element.textContent));

/** Asks again when the page that was asked has gone, as often as pages go. @template T @param {() => Promise<T>} ask @returns {Promise<T>} */
async function patiently(ask) {
  const giveUp = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!/because of a navigation|context was destroyed/.test(error.message) || Date.now() > giveUp) throw error;
    }
  }
}

const actions = {
  /** Somebody new opens an address; the answer is who. `like`: of Playwright's options of a context, those that are not usual. */
  async open({ url, like }) {
    return look(await browser.newContext({ locale: "en-US", ...like }), url);
  },
  /** Somebody new, with a browser of their own whose tabs hide one another. */
  async window({ url, permissions }) {
    const context = await startWindow();
    await context.grantPermissions(permissions, { origin: new URL(url).origin });
    return look(context, url);
  },
  /** The same person opens an address in one more tab, which counts as one more of them. */
  async tab({ who, url }) {
    return look(people[who].page.context(), url);
  },
  /** Turns to this tab. */
  async front({ who }) {
    await people[who].page.bringToFront();
  },
  /** What an expression comes to on the page. */
  async evaluate({ who, script }) {
    return patiently(() => people[who].page.evaluate(script));
  },
  async goto({ who, url }) {
    await people[who].page.goto(url);
  },
  async back({ who }) {
    await people[who].page.goBack();
  },
  async forward({ who }) {
    await people[who].page.goForward();
  },
  async reload({ who }) {
    await people[who].page.reload();
  },
  async close({ who }) {
    await people[who].page.context().close();
  },
  /** Pulls the plug of the whole machine, or puts it in again. */
  async offline({ who, offline }) {
    await people[who].page.context().setOffline(offline);
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
  async hover({ who, at }) {
    await people[who].page.locator(at).hover();
  },
  /** A click where nothing has to be. */
  async tap({ who, x, y }) {
    await people[who].page.mouse.click(x, y);
  },
  /** Presses keys one after the other, wherever the focus is: `Tab`, `Shift+Enter`, `a`. */
  async keys({ who, keys }) {
    for (const key of keys) await people[who].page.keyboard.press(key);
  },
  /** Types a text key by key, wherever the focus is. */
  async type({ who, text }) {
    await people[who].page.keyboard.type(text);
  },
  /** Composes a text with an input method, as far as it is not confirmed yet. */
  async compose({ who, text }) {
    const devtools = await people[who].page.context().newCDPSession(people[who].page);
    await devtools.send("Input.imeSetComposition", { text, selectionStart: text.length, selectionEnd: text.length });
    await devtools.detach();
  },
  /** Confirms a composition by Enter as Chromium does it: the key comes first, while it is composed still. */
  async confirm({ who, text }) {
    const devtools = await people[who].page.context().newCDPSession(people[who].page);
    const enter = { key: "Enter", code: "Enter" };
    await devtools.send("Input.dispatchKeyEvent", { type: "rawKeyDown", windowsVirtualKeyCode: 229, ...enter });
    await devtools.send("Input.insertText", { text });
    await devtools.send("Input.dispatchKeyEvent", { type: "keyUp", windowsVirtualKeyCode: 13, ...enter });
    await devtools.detach();
  },
  /** Turns the wheel over an element; up is negative. */
  async wheel({ who, at, by }) {
    const { page } = people[who];
    const { x, y, width, height } = await page.locator(at).boundingBox();
    await page.mouse.move(x + width / 2, y + height / 2);
    await page.mouse.wheel(0, by);
  },
  /** What stands in all elements of a selector, now. */
  async read({ who, at }) {
    return patiently(() => people[who].page.locator(at).evaluateAll(texts));
  },
  async shown({ who, at }) {
    return patiently(() => people[who].page.locator(at).first().isVisible());
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
  async hosts({ who }) {
    return [...people[who].hosts];
  },
  async sent({ who }) {
    return people[who].sent;
  },
  /** What hinders people who do not see, or see or move otherwise, as axe judges it: a line each. */
  async hindrances({ who }) {
    const { page } = people[who];
    await page.evaluate(readFileSync(new URL(import.meta.resolve("axe-core/axe.min.js")), "utf8"));
    const { violations } = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })");
    return violations.flatMap(({ id, nodes }) =>
      nodes.map((node) => `${id}: ${node.target.join(" ")}: ${node.failureSummary} ${node.html}`));
  },
  /** What somebody sees, as a picture at a path. */
  async screenshot({ who, path }) {
    await people[who].page.screenshot({ path });
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
