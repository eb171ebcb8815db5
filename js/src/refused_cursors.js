/** @import {Clock} from "./clock.js" */

const KEY = "realtime:reset:";
const KEEP = 300_000; // ms: long enough to reload the page and connect again
const MOST = 50; // cursors per topic: a page that stays open for weeks must not fill the storage

/**
 * Remembers across reloads which cursors the server refused lately.
 *
 * A page that reloads in `onReset` can come from a cache, with the cursor that was just refused.
 * Without this memory it would be reset again, and reload for ever.
 */
export class RefusedCursors {
  #clock;
  #storage;

  /**
   * @param {Clock} clock
   * @param {Pick<Storage, "getItem" | "setItem"> | null} storage The tab's; null without a storage.
   */
  constructor(clock, storage) {
    this.#clock = clock;
    this.#storage = storage;
  }

  /**
   * @param {string} topic
   * @param {(string | null | undefined)[]} cursors The refused cursors, and those that the page's
   *   HTML has for the same parts; values other than strings are ignored.
   */
  add(topic, cursors) {
    const at = this.#clock.now();
    const added = [...new Set(cursors)].filter((cursor) => typeof cursor === "string");
    const all = [...this.#read(topic), ...added.map((cursor) => [at, cursor])];
    try {
      this.#storage?.setItem(keyOf(topic), JSON.stringify(all.slice(-MOST)));
    } catch {
      // The storage is full or forbidden: the page is reset once more than needed.
    }
  }

  /** @param {string} topic @param {string} cursor @returns {boolean} */
  has(topic, cursor) {
    return this.#read(topic).some(([, refused]) => refused === cursor);
  }

  /** @param {string} topic @returns {[number, string][]} when each cursor was refused, and the cursor. */
  #read(topic) {
    try {
      /** @type {[number, string][]} */
      const all = JSON.parse(this.#storage?.getItem(keyOf(topic)) ?? "[]");
      return all.filter(([at]) => Math.abs(this.#clock.now() - at) < KEEP);
    } catch {
      return [];
    }
  }
}

/**
 * Return the storage key of a topic on this page: the frames of one site in a tab share the
 * storage but show different pages.
 *
 * @param {string} topic
 */
function keyOf(topic) {
  const { pathname = "", search = "" } = globalThis.location ?? {};
  return `${KEY}${pathname}${search}:${topic}`;
}
