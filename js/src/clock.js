/**
 * Time and chance, handed to whoever needs them so that tests can bring their own.
 *
 * @typedef {object} Clock
 * @property {() => number} now Milliseconds of the wall clock, which goes on while a laptop sleeps.
 * @property {() => number} random A number from 0 to 1.
 * @property {(ms: number, run: () => void) => () => void} after Run later; the answer cancels it.
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
