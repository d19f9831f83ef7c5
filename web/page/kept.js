/** What the browser keeps for us. One that keeps nothing, or is full, is no reason to fail. */

const PREFIX = "townhall.";

class Kept {
  /** @param {() => Storage} storage a function, since merely naming one throws where it is forbidden */
  constructor(storage) {
    this.storage = storage;
  }

  /** @param {string} key @returns {string} empty where there is none */
  get(key) {
    try {
      return this.storage().getItem(PREFIX + key) ?? "";
    } catch {
      return "";
    }
  }

  /** @param {string} key @param {string} value the empty one keeps nothing */
  set(key, value) {
    try {
      if (value) this.storage().setItem(PREFIX + key, value);
      else this.storage().removeItem(PREFIX + key);
    } catch {
      return;
    }
  }

  /** Forgets everything whose key begins so. @param {string} prefix */
  forget(prefix) {
    try {
      const keys = Object.keys(this.storage()).filter((key) => key.startsWith(PREFIX + prefix));
      for (const key of keys) this.storage().removeItem(key);
    } catch {
      return;
    }
  }

  /**
   * @template T
   * @param {string} key
   * @param {T} fallback where nothing is kept, or something else than JSON of this kind
   * @returns {T}
   */
  read(key, fallback) {
    try {
      const value = JSON.parse(this.get(key));
      return typeof value === typeof fallback && Array.isArray(value) === Array.isArray(fallback) && value !== null ? value : fallback;
    } catch {
      return fallback;
    }
  }

  /** @param {string} key @param {unknown} value */
  write(key, value) {
    this.set(key, JSON.stringify(value));
  }
}

/** For all tabs, and for the next visit. */
export const local = new Kept(() => localStorage);
/** For this tab, over reloads. */
export const session = new Kept(() => sessionStorage);

/**
 * Calls back when another tab has kept something under a key.
 *
 * @param {(key: string, value: string) => void} listener
 */
export function onKept(listener) {
  addEventListener("storage", ({ key, newValue }) => {
    if (key?.startsWith(PREFIX)) listener(key.slice(PREFIX.length), newValue ?? "");
  });
}
