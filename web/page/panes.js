/**
 * The panes beside the room. Where there is space they stand there; where there is none they are drawers that come over the
 * room, one at a time, and then nothing else can be reached until they are closed: by Escape, by a tap beside them, or by
 * what was chosen in them.
 */

import { part } from "./part.js";

export class Pane {
  /**
   * @param {string} id
   * @param {string} opener the button's
   * @param {string} narrow a media query: where it is a drawer
   */
  constructor(id, opener, narrow) {
    this.pane = part(id);
    this.opener = part(opener);
    this.narrow = matchMedia(narrow);
    this.narrow.addEventListener("change", () => this.#show(!this.narrow.matches));
    this.opener.addEventListener("click", () => this.#toggle());
    part("scrim").addEventListener("click", () => this.close());
    document.addEventListener("keydown", ({ key }) => key === "Escape" && this.close());
    this.pane.querySelector(".close")?.addEventListener("click", () => this.close());
    this.#show(!this.narrow.matches);
  }

  /** Closes what is a drawer. @param {HTMLElement} [next] where one goes on; without it, where one came from */
  close(next = this.opener) {
    if (!this.narrow.matches || !this.#open) return;
    this.#show(false);
    next.focus();
  }

  get #open() {
    return this.pane.classList.contains("open");
  }

  #toggle() {
    this.#show(!this.#open);
    if (this.#open && this.narrow.matches) this.pane.querySelector("a, button, input")?.focus();
  }

  /** @param {boolean} open */
  #show(open) {
    this.pane.classList.toggle("open", open);
    this.opener.setAttribute("aria-expanded", String(open));
    this.pane.classList.toggle("drawer", this.narrow.matches);
    this.#cover();
  }

  #cover() {
    const drawer = document.querySelector(".pane.drawer.open");
    part("scrim").hidden = drawer === null;
    for (const other of document.body.children) {
      if (other.id !== "scrim" && other !== drawer) /** @type {HTMLElement} */ (other).inert = drawer !== null;
    }
  }
}
