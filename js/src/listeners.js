/**
 * Functions that are called one after the other; one that throws does not keep the others from it.
 *
 * @template {any[]} A
 */
export class Listeners {
  /** @type {{run: (...values: A) => unknown}[]} */
  #all = [];

  get size() {
    return this.#all.length;
  }

  /**
   * Add a function, a second time as well; the answer removes it.
   *
   * @param {(...values: A) => unknown} run
   * @returns {() => void}
   */
  add(run) {
    if (typeof run !== "function") throw new TypeError("a listener must be a function");
    const entry = { run };
    this.#all = [...this.#all, entry];
    return () => {
      this.#all = this.#all.filter((one) => one !== entry);
    };
  }

  /** @param {A} values */
  call(...values) {
    for (const entry of this.#all) {
      if (!this.#all.includes(entry)) continue; // removed by one before it
      try {
        entry.run(...values);
      } catch (error) {
        report(error);
      }
    }
  }

  clear() {
    this.#all = [];
  }
}

/** @param {unknown} error Goes where uncaught errors go. */
function report(error) {
  if (typeof reportError === "function") reportError(error);
  else console.error(error);
}
