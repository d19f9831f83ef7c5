// Which offsets of a room one receiver got. The protocol has them dense: from where somebody joined, every offset comes once, in
// order, as an event or inside of a `gap`.

export class Ledger {
  // `null` before the first `joined`; then { epoch, offset }: everything up to there has come, or is held against the hall.
  position = null;
  doubled = 0;
  swapped = 0;
  // Offsets, and broken views, of which the hall itself said that they are lost.
  told = 0;
  // Passed over: they may still come, late.
  #skipped = new Set();
  #lostBefore = 0;

  joined({ epoch, offset, backlog, recovered }) {
    const from = offset - backlog;
    if (this.position === null) {
      this.position = { epoch, offset: from };
    } else if (recovered === true) {
      this.#pass(from);
      this.position.epoch = epoch;
    } else {
      this.told += 1;
      this.#lostBefore += this.#skipped.size;
      this.#skipped.clear();
      this.position = { epoch, offset: from };
    }
  }

  event(offset) {
    if (offset > this.position.offset) {
      this.#pass(offset - 1);
      this.position.offset = offset;
    } else if (this.#skipped.delete(offset)) {
      this.swapped += 1;
    } else {
      this.doubled += 1;
    }
  }

  gap(from, to) {
    this.#pass(from - 1);
    this.told += to - from + 1;
    this.position.offset = Math.max(this.position.offset, to);
  }

  // How many never came, where the newest one is `head`.
  lost(head) {
    return this.#lostBefore + this.#skipped.size + Math.max(0, head - this.position.offset);
  }

  // What comes next follows `offset`.
  #pass(offset) {
    while (this.position.offset < offset) {
      this.position.offset += 1;
      this.#skipped.add(this.position.offset);
    }
  }
}
