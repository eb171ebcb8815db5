import { longpoll, poll } from "./polling.js";
import { sse } from "./sse.js";
import { websocket } from "./websocket.js";

/** @import {Clock} from "./clock.js" */
/** @import {Fault, Transport} from "./links.js" */

export const transports = [websocket, sse, longpoll, poll]; // the best one first

const KEY = "realtime:transport";
const FAILURES = 3; // in a row, of the one that is used: its server is away, most of the time
const SHORT = 10_000; // ms of a connection that hardly counts as one
const SHORTS = 3; // in a row: the network lets it begin and then cuts it
const TRIAL = 60_000; // ms of a better one until it counts: longer than the 35 s of silence that end it
const FIRST_RETRY = 30_000; // ms until a better one is tried again
const LAST_RETRY = 600_000; // ms

/**
 * Which transport is tried next.
 *
 * Attempts begin with the one at home: the first, the one that worked on the page before, or the
 * one that works on this page. Where it is not let through, those after it are tried at once, and
 * the one that works is the new home. A better one that is changed to later is on trial until it
 * has lasted; if it ends before, those below it are tried, down to the one at home.
 *
 * A server that is away fails them all. It costs one attempt a time, and one more at every third:
 * an HTTP transport that gets no answer either shows that the network is not to blame.
 */
export class Choice {
  #all;
  #clock;
  #storage;
  #index = 0; // the one to try, or in use
  #home = 0; // the one that attempts begin with
  #reached = 0; // the last one that was tried instead of it
  /** @type {Set<Transport>} */
  #proven = new Set();
  #failures = 0;
  #shorts = 0;
  #retries = 0;

  /**
   * @param {string} wanted `auto`, or the name of the only one that is used.
   * @param {Clock} clock
   * @param {Pick<Storage, "getItem" | "setItem"> | null} storage Remembers the one that worked.
   */
  constructor(wanted, clock, storage) {
    this.#clock = clock;
    this.#storage = storage;
    this.#all = wanted === "auto" ? transports : transports.filter(({ name }) => name === wanted);
    if (!this.#all.length) {
      const names = ["auto", ...transports.map(({ name }) => name)].join(", ");
      throw new TypeError(`no transport is called "${wanted}"; there are ${names}`);
    }
    const found = this.#all.findIndex(({ name }) => name === this.#remembered);
    this.#index = this.#home = this.#reached = Math.max(0, found);
  }

  /** The one to try, or in use. */
  get current() {
    return /** @type {Transport} */ (this.#all[this.#index]);
  }

  /** Whether there is another one to try if this one fails. */
  get hasOther() {
    return this.#all.length > 1;
  }

  /** Those that are worth another try while this one is in use, the best one first. */
  get better() {
    return this.#all.slice(0, this.#index);
  }

  /** How long to wait with that, in milliseconds. */
  get retryDelay() {
    const delay = Math.min(LAST_RETRY, FIRST_RETRY * 2 ** this.#retries);
    return delay * (0.5 + this.#clock.random());
  }

  /** The better ones are being tried; the next time is later, until one of them has lasted. */
  seeks() {
    this.#retries += 1;
  }

  /** @param {Transport} transport It works, and is the one in use. */
  works(transport) {
    this.#index = Math.max(0, this.#all.indexOf(transport));
    if (this.#index >= this.#home) this.#settle();
    this.#failures = 0;
    this.#reached = this.#home;
    this.#proven.add(transport);
  }

  /** The one in use has worked that long, and may have ended. @param {number} ms */
  lasted(ms) {
    if (ms < TRIAL || this.#index >= this.#home) return;
    this.#settle();
    this.#retries = 0;
  }

  /**
   * The current one failed, or ended.
   *
   * @param {number | null} lasted How many milliseconds it worked; null if it did not.
   * @param {Fault} [fault]
   * @returns {boolean} whether to try another one, at once.
   */
  failed(lasted, fault) {
    if (lasted !== null) return this.#ended(lasted, fault);
    if (this.#index !== this.#home) {
      if (fault !== "away") return this.#step();
      this.#index = this.#home;
      return false;
    }
    this.#failures += 1;
    const isNew = this.#failures === 1 && !this.#proven.has(this.current) && fault !== "away";
    if (fault !== "blocked" && !isNew && this.#failures % FAILURES) return false;
    this.#index = this.#reached;
    return this.#step();
  }

  /** @param {number} lasted @param {Fault} [fault] @returns {boolean} */
  #ended(lasted, fault) {
    this.#shorts = lasted < SHORT ? this.#shorts + 1 : 0;
    const isOnTrial = this.#index < this.#home;
    if (!isOnTrial && fault !== "blocked" && this.#shorts < SHORTS) return false;
    this.#shorts = 0;
    if (!isOnTrial) return this.#step();
    this.#index += 1;
    return true;
  }

  /** @returns {boolean} whether there is one that was not tried instead of the one at home. */
  #step() {
    this.#index = this.#reached = (this.#index + 1) % this.#all.length;
    return this.#index !== this.#home;
  }

  #settle() {
    this.#home = this.#index;
    if (!this.hasOther) return;
    try {
      this.#storage?.setItem(KEY, this.current.name);
    } catch {
      // Full or forbidden: the next page begins with the first one.
    }
  }

  get #remembered() {
    try {
      return this.#storage?.getItem(KEY);
    } catch {
      return null;
    }
  }
}
