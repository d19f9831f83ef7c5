/** What the reader writes: drafts, one for each room, and what Enter means. */

import { button, part } from "./part.js";
import { local, onKept } from "./kept.js";
import { onLanguage, words } from "./words.js";

const EMOJI = "😀 😂 🤣 😊 😍 😘 😎 🤔 😐 😴 😭 😡 😱 🥳 🤗 🙄 😅 😇 🤯 🥲 👍 👎 👏 🙏 💪 👋 🤝 👌 ✌️ 🫶 ❤️ 💔 ✨ 🔥 🎉 🎂 ☕ 🍵 🍻 🌹 🌞 🌧️ ⭐ 🚀 ✅ ❌ ❓ ❗ 💡 📌 👀 🐛".split(" ");
const DRAFT_MS = 300;

export class Composer extends EventTarget {
  #room = "";
  /** @type {any} */ #draftTimer;
  /** Whether something was written here, and not in another tab, that is not kept yet. */
  #unkept = false;

  /**
   * Dispatches `say` with a text that is fit to be said.
   *
   * @param {import("../client.js").Townhall} hall
   * @param {(say?: () => string) => void} notice
   */
  constructor(hall, notice) {
    super();
    this.hall = hall;
    this.notice = notice;
    this.text = part("text");
    this.text.addEventListener("input", () => this.#typed());
    this.text.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#key(event));
    part("say").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#submit();
    });
    addEventListener("pagehide", () => this.#keep());
    onKept((key, value) => {
      if (key !== `draft.${this.#room}` || this.#unkept) return;
      this.text.value = value;
      this.#resize();
    });
    this.#makePicker();
    onLanguage(() => this.#draw());
  }

  /** @param {string} room empty where there is none to write to */
  enter(room) {
    this.#keep();
    this.#room = room;
    this.text.value = room && local.get(`draft.${room}`);
    this.text.disabled = part("send").disabled = part("emoji").disabled = !room;
    this.#draw();
    this.#resize();
  }

  /** Forgets all drafts: their writer has gone. */
  clear() {
    this.#unkept = false;
    this.text.value = "";
    local.forget("draft.");
  }

  /** Writes something where the cursor is. @param {string} content */
  insert(content) {
    const { selectionStart, selectionEnd } = this.text;
    this.text.focus();
    this.text.setRangeText(content, selectionStart, selectionEnd, "end");
    this.#typed();
  }

  /** @param {string} name */
  mention(name) {
    const before = this.text.value.slice(0, this.text.selectionStart);
    this.insert(`${before && !/\s$/.test(before) ? " " : ""}@${name} `);
  }

  #draw() {
    const label = words.say(this.#room);
    this.text.placeholder = this.#room && label;
    this.text.setAttribute("aria-label", label);
  }

  #typed() {
    this.#resize();
    this.#unkept = true;
    this.notice();
    if (this.text.value.trim()) this.hall.typing(this.#room);
    clearTimeout(this.#draftTimer);
    this.#draftTimer = setTimeout(() => this.#keep(), DRAFT_MS);
  }

  #keep() {
    clearTimeout(this.#draftTimer);
    if (!this.#unkept) return;
    this.#unkept = false;
    if (this.#room) local.set(`draft.${this.#room}`, this.text.value);
  }

  #resize() {
    const { style } = this.text;
    style.height = "auto";
    style.height = `${this.text.scrollHeight + this.text.offsetHeight - this.text.clientHeight}px`;
  }

  /** The Enter that ends a composition chooses words and sends nothing. Safari ends the composition first; 229 tells it there.
   * @param {KeyboardEvent} event */
  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    part("say").requestSubmit();
  }

  #submit() {
    const content = this.text.value.trimEnd();
    if (!content.trim() || !this.#room) return;
    const most = this.hall.welcome?.limits?.text_bytes ?? Infinity;
    const bytes = new TextEncoder().encode(content).length;
    if (bytes > most) return this.notice(() => words.long(bytes, most));
    if (this.dispatchEvent(new CustomEvent("say", { detail: content, cancelable: true }))) {
      this.text.value = "";
      this.#resize();
      this.#unkept = true;
      this.#keep();
    } else {
      this.notice(() => words.full);
    }
  }

  // --- Emoji ---

  #makePicker() {
    const picker = part("picker");
    const opener = part("emoji");
    const show = (/** @type {boolean} */ open) => {
      picker.hidden = !open;
      opener.setAttribute("aria-expanded", String(open));
      if (open) picker.firstElementChild?.focus();
    };
    picker.append(...EMOJI.map((emoji) => button("", emoji, () => {
      show(false);
      this.insert(emoji);
    })));
    opener.addEventListener("click", () => show(picker.hidden));
    document.addEventListener("pointerdown", ({ target }) => {
      const inside = /** @type {Element} */ (target).closest("#picker, #emoji");
      if (!picker.hidden && !inside) show(false);
    });
    picker.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape") {
        show(false);
        opener.focus();
      } else {
        moveWithin(picker, event);
      }
    });
  }
}

/** Arrows go from one emoji to the next, up and down by rows as they are laid out.
 * @param {HTMLElement} grid @param {KeyboardEvent} event */
function moveWithin(grid, event) {
  const all = /** @type {HTMLElement[]} */ ([...grid.children]);
  const at = all.indexOf(/** @type {HTMLElement} */ (event.target));
  const perRow = all.filter(({ offsetTop }) => offsetTop === all[0].offsetTop).length;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -perRow, ArrowDown: perRow }[event.key];
  if (by === undefined || at < 0) return;
  event.preventDefault();
  all[at + by]?.focus();
}
