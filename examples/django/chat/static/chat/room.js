/** The chat page of the site: one room, with a ticket from the site for every connection. */

import { Townhall, uuid } from "/hall/client.js";

const ROOM = "lobby";
/** Nearer to the end than this, a reader is taken along to what is new. */
const NEAR_PX = 100;
const STATES = { connecting: "connecting…", open: "connected", waiting: "reconnecting…", closed: "disconnected" };

const part = (id) => document.getElementById(id);
const view = part("view"), messages = part("messages"), input = part("text");
const { name, token: tokenAddress } = document.body.dataset;

/** What is on its way: rows by the messages' ids. */
const unsent = new Map();

const hall = new Townhall("/hall/ws", { getToken });

/** Asks the site for a ticket. What fails here is tried again by the hall's client, after a while. */
async function getToken() {
  // From the cookie, which is right also when somebody has logged in anew in another tab; sites that hide it have it in the
  // page's form.
  const inForm = document.querySelector("[name=csrfmiddlewaretoken]")?.value ?? "";
  const csrf = document.cookie.match(/(?:^|; )csrftoken=([^;]*)/)?.[1] ?? inForm;
  const answer = await fetch(tokenAddress, { method: "POST", headers: { "X-CSRFToken": csrf } });
  if (answer.status === 401 || answer.status === 403) {
    end(answer.headers.get("Content-Type")?.startsWith("text/plain") ? await answer.text() : "You cannot come in.");
    hall.close();
  }
  if (!answer.ok) throw new Error(`no ticket: ${answer.status}`);
  const ticket = await answer.json();
  if (ticket.name !== name) {
    // Somebody else has logged in, in another tab. An answer would be asked for again, and every reload ends the one before.
    location.reload();
    return new Promise(() => {});
  }
  return ticket;
}

/** The end: nothing is tried again. */
function end(words) {
  part("ended").hidden = false;
  part("ended").querySelector("span").textContent = words;
}

/** Changes what is on screen, and takes a reader along who is at its end. */
function show(change) {
  const near = view.scrollHeight - view.scrollTop - view.clientHeight < NEAR_PX;
  change();
  if (near) view.scrollTop = view.scrollHeight;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text; // text, never markup: whoever speaks could write anything
  return made;
}

function row(speaker, text, own, at = new Date()) {
  const made = element("li", own ? "message own" : "message", "");
  const time = element("time", "", at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  made.append(element("span", "name", speaker), time, element("p", "text", text));
  return made;
}

/** Says something, or says it again: under the same id it is stored once. */
function say(id, text) {
  const pending = unsent.get(id) ?? row(name, text, true);
  pending.querySelector("button")?.remove();
  pending.classList.remove("failed");
  unsent.set(id, pending);
  show(() => part("unsent").append(pending));
  hall.send(ROOM, text, { id }).catch((error) => {
    const again = element("button", "", `Not sent (${error.message}). Again?`);
    again.addEventListener("click", () => say(id, text), { once: true });
    pending.classList.add("failed");
    pending.append(again);
  });
}

hall.addEventListener("state", ({ detail }) => {
  document.body.dataset.state = detail.state;
  part("state").textContent = STATES[detail.state];
  if (detail.state === "closed" && part("ended").hidden) end("The hall has shown you out.");
});

hall.addEventListener("joined", ({ detail }) => {
  if (detail.recovered !== true) show(() => messages.replaceChildren()); // a fresh view, or something is lost
});

hall.addEventListener("message", ({ detail: { id, from, at, text } }) => {
  const own = from.id === hall.user?.id;
  show(() => {
    if (own) {
      unsent.get(id)?.remove();
      unsent.delete(id);
    }
    messages.append(row(from.name, text, own, new Date(at)));
  });
});

hall.addEventListener("gap", ({ detail: { from, to } }) => {
  show(() => messages.append(element("li", "break", `${to - from + 1} messages were lost here`)));
});

// Instead of a welcome: the hall's own words.
hall.addEventListener("error", ({ detail }) => {
  if (detail.code === "unauthorized") end(detail.message);
});

hall.addEventListener("refused", ({ detail }) => end(detail.message));

part("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = input.value.trim();
  if (!text) return;
  input.value = "";
  say(uuid(), text);
});

hall.join(ROOM);
hall.connect();
