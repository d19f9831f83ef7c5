/** Who is not looking: the number in the title, and notifications where the reader asked for them. */

import { local } from "./kept.js";
import { to } from "./listen.js";
import { mentions } from "./markup.js";
import { part } from "./part.js";
import { onLanguage, words } from "./words.js";

const BODY_CHARS = 200;

export class Notifier {
  #on = local.get("notify") === "on" && globalThis.Notification?.permission === "granted";

  /**
   * @param {import("../client.js").Townhall} hall
   * @param {import("./rooms.js").Rooms} rooms
   * @param {(say?: () => string) => void} notice
   */
  constructor(hall, rooms, notice) {
    this.hall = hall;
    this.rooms = rooms;
    this.notice = notice;
    /** The rooms whose backlog is in: what comes now is new. @type {Set<string>} */
    this.live = new Set();
    const on = to(hall);
    on("joined", ({ room }) => this.live.delete(room));
    on("caughtup", ({ room }) => this.live.add(room));
    on("message", (message) => this.#said(message));
    rooms.addEventListener("change", () => this.#title());
    part("bell").addEventListener("click", () => this.#toggle());
    onLanguage(() => this.#draw());
  }

  #title() {
    const { current, wanted, unread } = this.rooms;
    const room = current || wanted;
    const title = `${unread ? `(${unread}) ` : ""}${room && `#${room} · `}Townhall`;
    if (document.title !== title) document.title = title;
  }

  async #toggle() {
    const wanted = !this.#on;
    if (wanted && (await globalThis.Notification?.requestPermission()) !== "granted") {
      this.notice(() => words.bellDenied);
      return;
    }
    this.#on = wanted;
    local.set("notify", wanted ? "on" : "");
    this.#draw();
  }

  #draw() {
    part("bell").setAttribute("aria-pressed", String(this.#on));
    part("bell").title = this.#on ? words.bellOn : words.bellOff;
  }

  /** One notification a room: the newest takes the place of the one before. @param {any} message */
  #said({ room, from, text }) {
    if (!this.#on || !this.live.has(room) || !document.hidden || from.id === this.hall.user?.id) return;
    const loud = mentions(text, this.hall.user?.name ?? "");
    try {
      const body = text.slice(0, BODY_CHARS);
      const notification = new Notification(`${from.name} · #${room}`, { body, tag: `townhall ${room}`, silent: !loud });
      notification.onclick = () => {
        focus();
        location.hash = `#${room}`;
        notification.close();
      };
    } catch {
      return; // Some phones let only service workers notify.
    }
  }
}
