import { longpoll, poll } from "./polling.js";
import { sse } from "./sse.js";
import { websocket } from "./websocket.js";

/** @import {Clock} from "./clock.js" */
/** @import {Transport} from "./links.js" */

export const transports = [websocket, sse, longpoll, poll]; // the best one first

const KEY = "realtime:transport";
const FAILURES = 3; // in a row, of one that has worked: its server is away, most of the time
const SHORT = 10_000; // ms of a connection that hardly counts as one
const SHORTS = 3; // in a row: the network lets it begin and then cuts it
const FIRST_RETRY = 30_000; // ms until a better one is tried again
const LAST_RETRY = 600_000; // ms

/**
 * Which transport is tried next: each that fails is followed by the one after it, at once.
 *
 * None is given up because a server is away, since the next ones fail then too, and all begins
 * with the first again.
 */
export class Choice {
  #all;
  #clock;
  #storage;
  #index = 0;
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
    this.#index = Math.max(0, this.#all.findIndex(({ name }) => name === this.#remembered));
  }

  /** The one to try, or in use. */
  get current() {
    return /** @type {Transport} */ (this.#all[this.#index]);
  }

  /** Whether there is another one to try if this one fails. */
  get hasOther() {
    return this.#all.length > 1;
  }

  /** Those that are worth another try while this one is in use. */
  get better() {
    return this.#all
      .slice(0, this.#index)
      .filter((one) => one.isStream || this.#proven.has(one));
  }

  /** How long to wait with that, in milliseconds. */
  get retryDelay() {
    const delay = Math.min(LAST_RETRY, FIRST_RETRY * 2 ** this.#retries);
    this.#retries += 1;
    return delay * (0.5 + this.#clock.random());
  }

  /** @param {Transport} transport It works, and is the one in use. */
  works(transport) {
    if (transport !== this.current) this.#retries = 0;
    this.#index = Math.max(0, this.#all.indexOf(transport));
    this.#failures = 0;
    this.#proven.add(transport);
    if (!this.hasOther) return;
    try {
      this.#storage?.setItem(KEY, transport.name);
    } catch {
      // Full or forbidden: the next page begins with the first one.
    }
  }

  /**
   * The current one failed, or ended.
   *
   * @param {number | null} lasted How many milliseconds it worked; null if it did not.
   * @param {boolean} isBlocked
   * @returns {boolean} whether to try the next one, at once.
   */
  failed(lasted, isBlocked) {
    if (lasted === null) this.#failures += 1;
    else this.#shorts = lasted < SHORT ? this.#shorts + 1 : 0;
    const isOften = lasted === null ? this.#failures >= FAILURES : this.#shorts >= SHORTS;
    const isTrusted = lasted !== null || this.#proven.has(this.current);
    if (isTrusted && !isOften && !isBlocked) return false;
    this.#shorts = 0;
    this.#index = (this.#index + 1) % this.#all.length;
    return this.#index > 0;
  }

  get #remembered() {
    try {
      return this.#storage?.getItem(KEY);
    } catch {
      return null;
    }
  }
}
