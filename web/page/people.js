/** Who is in the room on screen, and who of them is typing. */

import { inside } from "./listen.js";
import { arrange, button, element, hueOf, part } from "./part.js";
import { onLanguage, words } from "./words.js";

/** How long somebody is shown as typing; the protocol says so. */
const TYPING_MS = 5_000;

export class People extends EventTarget {
  #room = "";
  /** @type {Map<string, {name: string, timer: any}>} */
  #typing = new Map();
  /** @type {Map<string, {row: HTMLElement, name: string}>} */
  #rows = new Map();
  #count = 0;

  /** Dispatches `mention` with a name that was chosen. @param {import("../client.js").Townhall} hall */
  constructor(hall) {
    super();
    this.hall = hall;
    const on = inside(hall, () => this.#room);
    on("joined", ({ members }) => this.#counted(members));
    on("members", () => this.#draw());
    on("presence", ({ count }) => this.#counted(count));
    on("typing", ({ from }) => this.#types(from));
    on("message", ({ from }) => this.#stops(from.id));
    onLanguage(() => {
      this.#rows.clear();
      this.#draw();
      this.#drawTyping();
    });
  }

  /** @param {string} room */
  enter(room) {
    this.#room = room;
    for (const { timer } of this.#typing.values()) clearTimeout(timer);
    this.#typing.clear();
    this.#count = 0;
    this.#draw();
    this.#drawTyping();
  }

  /** @param {number} count */
  #counted(count) {
    this.#count = count;
    this.#draw();
  }

  #draw() {
    const { count = this.#count, members = [] } = this.hall.members(this.#room) ?? {};
    this.#count = count;
    part("here").hidden = !count;
    part("here").textContent = words.here(count);
    part("crowd").hidden = members.length > 0 || !count;
    const sorted = [...members].sort((one, other) => one.name.localeCompare(other.name, words.lang));
    const ids = new Set(sorted.map(({ id }) => id));
    for (const id of this.#rows.keys()) if (!ids.has(id)) this.#rows.delete(id);
    arrange(part("members"), sorted.map((member) => this.#row(member)));
  }

  /** @param {{id: string, name: string}} member */
  #row({ id, name }) {
    const known = this.#rows.get(id);
    if (known?.name === name) return known.row;
    const row = element("li", "member");
    row.style.setProperty("--hue", String(hueOf(id)));
    const mention = button("", "", () => this.dispatchEvent(new CustomEvent("mention", { detail: name })));
    mention.title = words.mention(name);
    mention.append(element("bdi", "name", name));
    if (id === this.hall.user?.id) mention.append(" ", element("span", "you", words.you));
    row.append(mention);
    this.#rows.set(id, { row, name });
    return row;
  }

  /** @param {{id: string, name: string}} from */
  #types({ id, name }) {
    if (id === this.hall.user?.id) return;
    clearTimeout(this.#typing.get(id)?.timer);
    this.#typing.set(id, { name, timer: setTimeout(() => this.#stops(id), TYPING_MS) });
    this.#drawTyping();
  }

  /** @param {string} id */
  #stops(id) {
    clearTimeout(this.#typing.get(id)?.timer);
    if (this.#typing.delete(id)) this.#drawTyping();
  }

  #drawTyping() {
    const names = [...this.#typing.values()].map(({ name }) => name);
    part("typing").textContent = names.length ? words.typing(names) : "";
  }
}
