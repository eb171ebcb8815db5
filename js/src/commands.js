import { Backoff } from "./backoff.js";
import { RealtimeError } from "./errors.js";

/** @import {Clock} from "./clock.js" */
/** @import {Frame} from "./links.js" */

const PATIENCE = 10_000; // ms that a command waits for a connection
const ATTEMPTS = 5; // of a command that the server had no room for

/** Frames that want an answer, and the answers. */
export class Commands {
  #clock;
  /** @type {((frame: Frame) => void) | null} */
  #send = null;
  #id = 0;
  /** @type {string | null} */
  #over = null;
  /** @type {Map<number, (answer: Frame | null) => void>} */
  #open = new Map();
  /** @type {Set<{go: () => void, fail: (code: string) => void}>} */
  #held = new Set();

  /** @param {Clock} clock */
  constructor(clock) {
    this.#clock = clock;
  }

  /** @param {(frame: Frame) => void} send The connection is there. */
  up(send) {
    this.#send = send;
    for (const held of [...this.#held]) held.go();
  }

  /** The connection broke: what was sent has no answer any more. */
  down() {
    this.#send = null;
    const open = [...this.#open.values()];
    this.#open.clear();
    for (const done of open) done(null);
  }

  /** @param {string | null} code Why there will be no connection; null if there may be one. */
  end(code) {
    this.#over = code;
    if (!code) return;
    for (const held of [...this.#held]) held.fail(code);
  }

  /**
   * Send a frame now; `done` gets its answer, or null if the connection breaks before.
   *
   * @param {Frame} frame
   * @param {(answer: Frame | null) => void} done
   */
  request(frame, done) {
    if (!this.#send) return;
    const id = (this.#id += 1);
    this.#open.set(id, done);
    try {
      // The id goes first, where the server reads it however large or deep the rest is.
      this.#send({ id, ...frame });
    } catch (error) {
      this.#open.delete(id); // no JSON, such as a BigInt
      throw error;
    }
  }

  /** @param {Frame} frame @returns {boolean} whether it was the answer to a request. */
  answer(frame) {
    const done = this.#open.get(frame.id);
    if (!done) return false;
    this.#open.delete(frame.id);
    done(frame);
    return true;
  }

  /**
   * Send a command as soon as there is a connection, once.
   *
   * It is repeated only where the server says that it did not run: when it had no room for it.
   *
   * @param {() => Frame} make Called when it is sent; what it throws rejects.
   * @returns {Promise<any>} the answer's data.
   */
  ask(make) {
    const backoff = new Backoff(this.#clock);
    return new Promise((resolve, reject) => {
      let attempts = 0;
      const again = () => this.#clock.after(backoff.next(), () => this.#whenUp(send, reject));
      const send = () => {
        attempts += 1;
        this.request(make(), (answer) => {
          if (answer?.type !== "error" && answer) return resolve(answer.data);
          if (attempts < ATTEMPTS && ["rate_limited", "busy"].includes(answer?.code)) return again();
          reject(failure(answer));
        });
      };
      this.#whenUp(send, reject);
    });
  }

  /** @param {() => void} send @param {(error: unknown) => void} reject */
  #whenUp(send, reject) {
    const go = () => {
      drop();
      try {
        send();
      } catch (error) {
        reject(error);
      }
    };
    /** @param {string} code */
    const fail = (code) => {
      drop();
      reject(new RealtimeError(code, "there is no connection; the command was not sent", true));
    };
    const held = { go, fail };
    const cancel = this.#clock.after(PATIENCE, () => fail("timeout"));
    const drop = () => {
      cancel();
      this.#held.delete(held);
    };
    if (this.#over) fail(this.#over);
    else if (this.#send) go();
    else this.#held.add(held);
  }
}

/** @param {Frame | null} answer */
function failure(answer) {
  if (answer) return new RealtimeError(answer.code, answer.message, answer.retry === true);
  const message = "the connection broke before the answer came; the command may have been run";
  return new RealtimeError("disconnected", message);
}
