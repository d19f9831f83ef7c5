/**
 * The chat page: what its parts are, and how they hang together.
 *
 * | | |
 * |---|---|
 * | `rooms.js` | the rooms at the side, and what is unread in them |
 * | `timeline.js`, `slice.js`, `markup.js` | the messages on screen, which of the room they are, and what is in a text |
 * | `outbox.js` | what we said and was not seen yet |
 * | `composer.js` | what we write |
 * | `people.js` | who is here, and who types |
 * | `notify.js` | the title, and notifications |
 * | `name.js`, `panes.js`, `words.js`, `kept.js`, `part.js`, `listen.js` | names, drawers, languages, storage, the document, what the SDK tells |
 */

import { Townhall, uuid } from "../client.js";
import { Composer } from "./composer.js";
import { local, session } from "./kept.js";
import * as listen from "./listen.js";
import { tidy } from "./name.js";
import { Notifier } from "./notify.js";
import { Outbox } from "./outbox.js";
import { Pane } from "./panes.js";
import { part } from "./part.js";
import { People } from "./people.js";
import { Rooms } from "./rooms.js";
import { Timeline } from "./timeline.js";
import { onLanguage, preferred, speak, switchLanguage, why, words } from "./words.js";

/** Nobody needs to hear of an interruption that is shorter. */
const OFFLINE_AFTER_MS = 5_000;

speak(preferred());

// --- Who we are ---

const query = new URLSearchParams(location.search);

/** What a site gave us, by `?name=&token=`; it does not stay in the address. @returns {{name: string, token: string} | null} */
function login() {
  const kept = session.read("login", { name: "", token: "" });
  const token = query.get("token") ?? "";
  if (location.search) history.replaceState(null, "", location.pathname + location.hash);
  if (!token || token === kept.token) return kept.token ? kept : null;
  Outbox.forgetNameless();
  const brought = { name: query.get("name") ?? "", token };
  session.write("login", brought);
  return brought;
}

/** Who gives no name is not shown by their address, but by one that says nothing. */
function nameless() {
  const kept = tidy(local.get("guest")) || `${words.guest}-${uuid().slice(0, 4)}`;
  local.set("guest", kept);
  return kept;
}

const loggedIn = login();
const key = local.get("key") || uuid();
local.set("key", key);
const name = part("name");
name.value = tidy((!loggedIn && query.get("name")) || local.get("name")) ?? "";
const getToken = loggedIn ? async () => loggedIn : undefined;
const hall = new Townhall("ws", { name: name.value || nameless(), key, getToken });

// --- The parts ---

const outbox = new Outbox(hall);
const rooms = new Rooms(hall, outbox);
const timeline = new Timeline(hall, rooms, outbox);
const people = new People(hall);
const composer = new Composer(hall, notice);
const side = new Pane("side", "menu", "(max-width: 47.99rem)");
const peoplePane = new Pane("people", "here", "(max-width: 74.99rem)");
new Notifier(hall, rooms, notice);

people.addEventListener("mention", (event) => {
  peoplePane.close();
  composer.mention(/** @type {CustomEvent} */ (event).detail);
});
composer.addEventListener("say", (event) => {
  if (outbox.full) return event.preventDefault();
  outbox.say(rooms.current, /** @type {CustomEvent} */ (event).detail);
  timeline.toNewest();
});

// --- Where we are ---

/** Without a room in the address it is the hall that names one. */
function enter() {
  const wanted = decoded(location.hash.slice(1)) || (hall.welcome?.rooms?.[0] ?? "");
  if (!wanted || wanted === rooms.wanted) return;
  rooms.enter(wanted);
  timeline.enter();
  people.enter(rooms.current);
  composer.enter(rooms.current);
  part("room").textContent = wanted;
  notice(rooms.current ? undefined : () => words.badRoom);
  side.close(part("text"));
}

/** @param {string} encoded */
function decoded(encoded) {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return encoded;
  }
}

addEventListener("hashchange", enter);
part("skip").addEventListener("click", () => part("text").focus());

// --- How the line is ---

/** @type {any} */ let offlineTimer;
/** @type {"connecting" | "open" | "offline" | "ended"} */ let shown = "connecting";
/** Why it ended. @type {{code?: string, message?: string}} */ let ending = {};

/** What the server means by the close codes after which one does not come back. @type {Record<number, string>} */
const ENDINGS = { 4001: "unauthorized", 4003: "banned", 4004: "kicked" };

/** @param {typeof shown} state */
function showState(state) {
  shown = state;
  document.body.dataset.state = state;
  drawState();
}

function drawState() {
  const ended = shown === "ended";
  const wanted = ended && ending.code === "unauthorized";
  const reason = ended && (loggedIn || !wanted) ? why(ending) : "";
  part("state").textContent = reason ? `${words[shown]}: ${reason}` : words[shown];
  part("login").hidden = !wanted;
  part("again").hidden = !ended || wanted;
  part("say").hidden = wanted;
  part("who").hidden = wanted || loggedIn !== null;
  part("logout").hidden = loggedIn === null;
}

/** What the reader is told, in the language of now. */
let told = () => "";

/** @param {() => string} [say] nothing: what was told is over */
function notice(say = () => "") {
  told = say;
  drawNotice();
}

function drawNotice() {
  part("notice").textContent = told();
  part("notice").hidden = told() === "";
}

const on = listen.to(hall);

on("state", ({ state, code, reason }) => {
  if (state === "connecting" || state === "waiting") {
    offlineTimer ??= setTimeout(() => showState("offline"), OFFLINE_AFTER_MS);
    return;
  }
  clearTimeout(offlineTimer);
  offlineTimer = undefined;
  ending = { code: ENDINGS[code], message: reason };
  showState(state === "open" ? "open" : "ended");
});

on("welcome", ({ user }) => {
  name.placeholder = user.name;
  if (rooms.current) notice();
  enter();
});
on("refused", (error) => {
  if (error.room !== rooms.current) return;
  composer.enter("");
  notice(() => `${words.refused(error.room)}: ${why(error)}`);
});
on("error", (error) => error.code === "unauthorized" || notice(() => why(error)));

part("again").addEventListener("click", () => hall.connect());

// --- Names, logins, languages ---

function rename() {
  const tidied = tidy(name.value);
  name.setCustomValidity(tidied === null ? words.badName : "");
  if (!name.reportValidity() || tidied === null) return;
  name.value = tidied;
  local.set("name", tidied);
  hall.rename(tidied || nameless());
}

name.addEventListener("change", rename);
name.addEventListener("input", () => name.setCustomValidity(""));
part("who").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  rename();
  side.close();
  part("text").focus();
});
part("login").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  session.write("login", { name: part("loginName").value.trim(), token: part("loginToken").value.trim() });
  location.reload();
});
part("logout").addEventListener("click", () => {
  session.set("login", "");
  outbox.clear();
  composer.clear();
  location.reload();
});
part("language").addEventListener("click", switchLanguage);
onLanguage(() => {
  part("language").textContent = words.other;
  part("language").lang = words.lang === "en" ? "zh-CN" : "en";
  name.placeholder = hall.user?.name ?? words.guest;
  drawState();
  drawNotice();
});

showState("connecting");
hall.connect();
enter();
