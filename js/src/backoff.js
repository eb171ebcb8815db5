/** @import {Clock} from "./clock.js" */

const FIRST = 500; // ms: a server that restarts quickly is found again quickly
const LAST = 20_000; // ms: a herd of thousands then comes back at a rate that a server can bear

/** Delays with full jitter: anywhere between zero and a bound that doubles up to 20 seconds. */
export class Backoff {
  #clock;
  #attempts = 0;

  /** @param {Clock} clock */
  constructor(clock) {
    this.#clock = clock;
  }

  /** Return the next delay in milliseconds. */
  next() {
    const bound = Math.min(LAST, FIRST * 2 ** this.#attempts);
    this.#attempts += 1;
    return this.#clock.random() * bound;
  }

  /** Begin with the shortest bound again. */
  reset() {
    this.#attempts = 0;
  }
}
