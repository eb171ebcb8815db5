import { longpoll, poll } from "./polling.js";
import { sse } from "./sse.js";
import { websocket } from "./websocket.js";

/** @import {Clock} from "./clock.js" */
/** @import {Fault, Transport} from "./transport.js" */

export const transports = [websocket, sse, longpoll, poll]; // best first

const KEY = "realtime:transport";
// Failures in a row of the preferred transport before another one is tried. Usually the server is
// down, and no transport works.
const FAILURES = 3;
const SHORT = 10_000; // ms; a connection that ends sooner counts as short
const SHORT_CONNECTIONS = 3; // in a row: the network lets the transport connect, then cuts it
// Milliseconds that a better transport must last to become preferred: longer than the silence
// timeout of 35 s.
const TRIAL = 60_000;
const FIRST_UPGRADE = 30_000; // ms before the first attempt to return to a better transport
const LAST_UPGRADE = 600_000; // ms

/**
 * Decides which transport to try next.
 *
 * Attempts start with the preferred transport: the best one, the one that worked on the previous
 * page, or the one that works on this page. If the network blocks it, the next ones are tried at
 * once, and the first that works becomes the preferred one. A better transport that the client
 * switches to later is on trial for a minute; if its connection ends earlier, the transports below
 * it are tried, down to the preferred one.
 *
 * When the server is down, every transport fails. Then each attempt tries only the preferred
 * transport, and every third attempt one more. If that one uses HTTP and gets no answer either, the
 * network is not the cause, and the others are not tried.
 */
export class Fallback {
  #all;
  #clock;
  #storage;
  #index = 0; // the transport to try, or in use
  #preferred = 0; // the transport that attempts start with
  #lastTried = 0; // the last alternative that was tried instead of the preferred transport
  /** @type {Set<Transport>} */
  #proven = new Set();
  #failures = 0;
  #shortConnections = 0;
  #upgradeAttempts = 0;

  /**
   * @param {string} name `auto`, or the only transport to use.
   * @param {Clock} clock
   * @param {Pick<Storage, "getItem" | "setItem"> | null} storage Keeps the name of the preferred
   *   transport for the next page.
   */
  constructor(name, clock, storage) {
    this.#clock = clock;
    this.#storage = storage;
    this.#all = name === "auto" ? transports : transports.filter((one) => one.name === name);
    if (!this.#all.length) {
      const names = ["auto", ...transports.map(({ name }) => name)].join(", ");
      throw new TypeError(`unknown transport "${name}"; use one of ${names}`);
    }
    const stored = this.#all.findIndex(({ name }) => name === this.#stored);
    this.#index = this.#preferred = this.#lastTried = Math.max(0, stored);
  }

  /** The transport to try, or in use. */
  get current() {
    return /** @type {Transport} */ (this.#all[this.#index]);
  }

  /** Whether another transport can be tried if this one fails. */
  get hasAlternative() {
    return this.#all.length > 1;
  }

  /** The transports that are better than the one in use, best first. */
  get better() {
    return this.#all.slice(0, this.#index);
  }

  /** How long to wait before trying the better transports, in milliseconds. */
  get upgradeDelay() {
    const delay = Math.min(LAST_UPGRADE, FIRST_UPGRADE * 2 ** this.#upgradeAttempts);
    return delay * (0.5 + this.#clock.random());
  }

  /** Record that better transports are being tried; the delay doubles until one of them lasts. */
  upgradeStarted() {
    this.#upgradeAttempts += 1;
  }

  /** Record that a transport connected and is now in use. @param {Transport} transport */
  connected(transport) {
    this.#index = Math.max(0, this.#all.indexOf(transport));
    if (this.#index >= this.#preferred) this.#prefer();
    this.#failures = 0;
    this.#lastTried = this.#preferred;
    this.#proven.add(transport);
  }

  /** Record how long the connection in use has lasted; it can have ended. @param {number} ms */
  lasted(ms) {
    if (ms < TRIAL || this.#index >= this.#preferred) return;
    this.#prefer();
    this.#upgradeAttempts = 0;
  }

  /**
   * Record that the current transport failed to connect, or that its connection ended.
   *
   * @param {number | null} lasted How many milliseconds it was connected; null if it never was.
   * @param {Fault} [fault]
   * @returns {boolean} whether to try another transport at once.
   */
  failed(lasted, fault) {
    if (lasted !== null) return this.#ended(lasted, fault);
    if (this.#index !== this.#preferred) {
      if (fault !== "unreachable") return this.#next();
      this.#index = this.#preferred;
      return false;
    }
    this.#failures += 1;
    const isNew =
      this.#failures === 1 && !this.#proven.has(this.current) && fault !== "unreachable";
    if (fault !== "blocked" && !isNew && this.#failures % FAILURES) return false;
    this.#index = this.#lastTried;
    return this.#next();
  }

  /** @param {number} lasted @param {Fault} [fault] @returns {boolean} */
  #ended(lasted, fault) {
    this.#shortConnections = lasted < SHORT ? this.#shortConnections + 1 : 0;
    const isOnTrial = this.#index < this.#preferred;
    if (!isOnTrial && fault !== "blocked" && this.#shortConnections < SHORT_CONNECTIONS) return false;
    this.#shortConnections = 0;
    if (!isOnTrial) return this.#next();
    this.#index += 1;
    return true;
  }

  /** @returns {boolean} false once all alternatives to the preferred transport were tried. */
  #next() {
    this.#index = this.#lastTried = (this.#index + 1) % this.#all.length;
    return this.#index !== this.#preferred;
  }

  #prefer() {
    this.#preferred = this.#index;
    if (!this.hasAlternative) return;
    try {
      this.#storage?.setItem(KEY, this.current.name);
    } catch {
      // The storage is full or forbidden: the next page starts with the best transport.
    }
  }

  get #stored() {
    try {
      return this.#storage?.getItem(KEY);
    } catch {
      return null;
    }
  }
}
