/** @import {Clock} from "./clock.js" */

const KEY = "realtime:reset:";
const KEEP = 300_000; // ms: time enough to reload and connect again, and to begin anew after that

const MOST = 50; // a topic, so that a page in a tab for weeks does not fill the storage

/**
 * Which resume points were refused lately, remembered across reloads of the page.
 *
 * A page that reloads when it is reset may come out of a cache with the resume point that was just
 * refused; resetting it again would reload it for ever.
 */
export class Resets {
  #clock;
  #storage;

  /**
   * @param {Clock} clock
   * @param {Pick<Storage, "getItem" | "setItem"> | null} storage The tab's; null where it has none.
   */
  constructor(clock, storage) {
    this.#clock = clock;
    this.#storage = storage;
  }

  /**
   * @param {string} topic
   * @param {(string | null | undefined)[]} refused The place itself, and those of the page's source.
   */
  note(topic, refused) {
    const at = this.#clock.now();
    const fresh = [...new Set(refused)].filter((since) => typeof since === "string");
    const all = [...this.#read(topic), ...fresh.map((since) => [at, since])];
    try {
      this.#storage?.setItem(keyOf(topic), JSON.stringify(all.slice(-MOST)));
    } catch {
      // Full or forbidden: the page is reset once more than needed.
    }
  }

  /** @param {string} topic @param {string} since @returns {boolean} */
  knows(topic, since) {
    return this.#read(topic).some(([, refused]) => refused === since);
  }

  /** @param {string} topic @returns {[number, string][]} what was refused lately, and when. */
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

/** @param {string} topic Frames of one site in one tab share the storage, and are several pages. */
function keyOf(topic) {
  const { pathname = "", search = "" } = globalThis.location ?? {};
  return `${KEY}${pathname}${search}:${topic}`;
}
