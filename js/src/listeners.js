import { makeRemover } from "./alpine.js";

/**
 * An ordered list of callbacks; if one throws, the others still run.
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
   * Add a function. A function that is added twice is called twice.
   *
   * @param {(...values: A) => unknown} run
   * @returns {() => void} a function that removes it.
   */
  add(run) {
    if (typeof run !== "function") throw new TypeError("a listener must be a function");
    const entry = { run };
    this.#all = [...this.#all, entry];
    return makeRemover(() => {
      this.#all = this.#all.filter((one) => one !== entry);
    });
  }

  /** @param {A} values */
  call(...values) {
    for (const entry of this.#all) {
      if (!this.#all.includes(entry)) continue; // an earlier listener removed it
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

/** Report an error as the browser reports uncaught errors. @param {unknown} error */
function report(error) {
  if (typeof reportError === "function") reportError(error);
  else console.error(error);
}
