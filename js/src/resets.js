/** @import {Clock} from "./clock.js" */

const KEY = "realtime:reset:";
const KEEP = 300_000; // ms: time enough to reload and connect again, and to begin anew after that

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
   * @param {(string | null | undefined)[]} refused The place itself, and that of the page's source.
   */
  note(topic, refused) {
    try {
      this.#storage?.setItem(KEY + topic, JSON.stringify([this.#clock.now(), ...refused]));
    } catch {
      // Full or forbidden: the page is reset once more than needed.
    }
  }

  /** @param {string} topic @param {string} since @returns {boolean} */
  knows(topic, since) {
    try {
      const [at, ...refused] = JSON.parse(this.#storage?.getItem(KEY + topic) ?? "[]");
      return refused.includes(since) && Math.abs(this.#clock.now() - at) < KEEP;
    } catch {
      return false;
    }
  }
}
