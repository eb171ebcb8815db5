/** @import {Clock} from "./clock.js" */

const FIRST = 500; // ms: reconnects soon after a quick restart of the server
const LAST = 20_000; // ms: spreads the reconnects of thousands of clients

/** Delays with full jitter: random from zero to a bound that doubles from 0.5 to 20 seconds. */
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

  /** Start again with the shortest bound. */
  reset() {
    this.#attempts = 0;
  }
}
