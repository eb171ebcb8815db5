/** @typedef {string | (() => string | Promise<string>)} Token */

/** What tells the server who the page is, where its cookies do not. */
export class Credentials {
  #source;
  /** @type {Promise<string> | null} */
  #token = null;
  #isFresh = false; // asked for since the server last took one

  /** @param {Token | undefined} source */
  constructor(source) {
    this.#source = source;
  }

  /** Whether there is a token at all. */
  get exist() {
    return this.#source !== undefined;
  }

  /** @returns {Promise<string | null>} null if there is no token; it rejects if there is none now. */
  async get() {
    const source = this.#source;
    if (source === undefined) return null;
    this.#token ??= Promise.resolve(typeof source === "function" ? source() : source);
    try {
      return await this.#token;
    } catch (error) {
      this.#token = null; // asked again at the next attempt
      throw error;
    }
  }

  /** The server took it. */
  taken() {
    this.#isFresh = false;
  }

  /** The server refused it. @returns {boolean} whether another one can be had. */
  renew() {
    if (typeof this.#source !== "function" || this.#isFresh) return false;
    this.#isFresh = true;
    this.#token = null;
    return true;
  }
}
