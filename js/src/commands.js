import { Backoff } from "./backoff.js";
import { RealtimeError } from "./errors.js";

/** @import {Clock} from "./clock.js" */
/** @import {Frame} from "./transport.js" */

const TIMEOUT = 10_000; // ms that a command waits for a connection
const ATTEMPTS = 5; // to send a command that the server is too busy to run

/** Sends frames that need an answer, and matches the answers to them. */
export class Commands {
  #clock;
  /** @type {((frame: Frame) => void) | null} null while there is no connection. */
  #send = null;
  #id = 0;
  /** @type {string | null} Why there will be no connection. */
  #closed = null;
  /** @type {Map<number, (answer: Frame | null) => void>} Callbacks of the unanswered frames. */
  #pending = new Map();
  /** @type {Set<{go: () => void, fail: (code: string) => void}>} They wait for a connection. */
  #queue = new Set();

  /** @param {Clock} clock */
  constructor(clock) {
    this.#clock = clock;
  }

  /** The connection is open: send what is queued. @param {(frame: Frame) => void} send */
  up(send) {
    this.#send = send;
    for (const queued of [...this.#queue]) queued.go();
  }

  /** The connection ended: pending frames get no answer. */
  down() {
    this.#send = null;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const done of pending) done(null);
  }

  /** @param {string | null} code Why there will be no connection; null if there can be one. */
  setClosed(code) {
    this.#closed = code;
    if (!code) return;
    for (const queued of [...this.#queue]) queued.fail(code);
  }

  /**
   * Send a frame now; do nothing without a connection.
   *
   * @param {Frame} frame
   * @param {(answer: Frame | null) => void} done Called with the answer, or with null if the
   *   connection ends first.
   */
  request(frame, done) {
    if (!this.#send) return;
    const id = (this.#id += 1);
    this.#pending.set(id, done);
    try {
      // The id comes first, so that the server finds it even in a frame that is too large or deep.
      this.#send({ id, ...frame });
    } catch (error) {
      this.#pending.delete(id); // the frame is not serialisable: it has a BigInt, for example
      throw error;
    }
  }

  /** @param {Frame} frame @returns {boolean} whether the frame answers a request. */
  answer(frame) {
    const done = this.#pending.get(frame.id);
    if (!done) return false;
    this.#pending.delete(frame.id);
    done(frame);
    return true;
  }

  /**
   * Send a command as soon as there is a connection.
   *
   * The command is sent again only if the server answers that it was too busy to run it.
   *
   * @param {() => Frame} makeFrame Called just before sending; an error in it rejects the promise.
   * @returns {Promise<any>} the answer's data.
   */
  send(makeFrame) {
    const backoff = new Backoff(this.#clock);
    return new Promise((resolve, reject) => {
      let attempts = 0;
      const retry = () => this.#clock.after(backoff.next(), () => this.#whenUp(send, reject));
      const send = () => {
        attempts += 1;
        this.request(makeFrame(), (answer) => {
          if (answer?.type !== "error" && answer) return resolve(answer.data);
          if (attempts < ATTEMPTS && ["rate_limited", "busy"].includes(answer?.code)) return retry();
          reject(errorOf(answer));
        });
      };
      this.#whenUp(send, reject);
    });
  }

  /** @param {() => void} send @param {(error: unknown) => void} reject */
  #whenUp(send, reject) {
    const go = () => {
      dequeue();
      try {
        send();
      } catch (error) {
        reject(error);
      }
    };
    /** @param {string} code */
    const fail = (code) => {
      dequeue();
      reject(new RealtimeError(code, "there is no connection; the command was not sent", true));
    };
    const queued = { go, fail };
    const cancel = this.#clock.after(TIMEOUT, () => fail("timeout"));
    const dequeue = () => {
      cancel();
      this.#queue.delete(queued);
    };
    if (this.#closed) fail(this.#closed);
    else if (this.#send) go();
    else this.#queue.add(queued);
  }
}

/** @param {Frame | null} answer */
function errorOf(answer) {
  if (answer) return new RealtimeError(answer.code, answer.message, answer.retry === true);
  const message = "the connection broke before the answer came; the command may have been run";
  return new RealtimeError("disconnected", message);
}
