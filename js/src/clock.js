/**
 * Time and randomness, passed in so that tests can replace them.
 *
 * @typedef {object} Clock
 * @property {() => number} now Milliseconds of the wall clock, which keeps running while a laptop
 *   sleeps.
 * @property {() => number} random A number from 0 to 1.
 * @property {(ms: number, run: () => void) => () => void} after Call `run` later; returns a function
 *   that cancels it.
 */

/** @type {Clock} */
export const clock = {
  now: () => Date.now(),
  random: () => Math.random(),
  after(ms, run) {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
};
