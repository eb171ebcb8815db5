/** @typedef {string | (() => string | Promise<string>)} Token */

/** The token of a page that its cookies do not identify. */
export class Credentials {
  #source;
  /** @type {Promise<string> | null} */
  #token = null;
  #isRenewed = false; // whether a new token was requested since the server last accepted one

  /** @param {Token | undefined} source */
  constructor(source) {
    this.#source = source;
  }

  /** Whether the page uses a token at all. */
  get hasToken() {
    return this.#source !== undefined;
  }

  /** @returns {Promise<string | null>} null without a token; rejects if the function fails. */
  async get() {
    const source = this.#source;
    if (source === undefined) return null;
    this.#token ??= Promise.resolve(typeof source === "function" ? source() : source);
    try {
      return await this.#token;
    } catch (error) {
      this.#token = null; // the next attempt calls the function again
      throw error;
    }
  }

  /** Record that the server accepted the token. */
  accepted() {
    this.#isRenewed = false;
  }

  /** Record that the server refused the token. @returns {boolean} whether to try a new one. */
  renew() {
    if (typeof this.#source !== "function" || this.#isRenewed) return false;
    this.#isRenewed = true;
    this.#token = null;
    return true;
  }
}
