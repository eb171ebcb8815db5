import { Backoff } from "./backoff.js";
import { RealtimeError } from "./errors.js";

/** @import {Clock} from "./clock.js" */
/** @import {Commands} from "./commands.js" */
/** @import {Resets} from "./resets.js" */
/** @import {Denial, Event, Topic} from "./topic.js" */
/** @import {Frame} from "./websocket.js" */

/** @typedef {{last?: number, since?: string | null}} Start Where to begin; at most one of them. */

/**
 * @typedef {object} Context What all topics of a client share.
 * @property {Clock} clock
 * @property {Commands} commands
 * @property {Resets} resets
 * @property {string} originHash
 * @property {(following: Following) => void} forget Nobody follows this any more.
 */

const JITTER = 5_000; // ms over which the pages of a site spread when all of them are reset

/** One topic on the connection: its position, and the parts of the page that follow it. */
export class Following {
  /** @type {string | null} */
  name;
  /** @type {Set<Topic>} */
  #topics = new Set();
  #context;
  #start;
  #retries;
  /** @type {string | null} */
  #cursor = null;
  /** @type {number | null} */
  #seq = null;
  #isLive = false;
  /** @type {Denial | null} */
  #denial = null;
  #attempt = {}; // of the newest subscribe; an answer to an older one is passed over
  #cancelRetry = () => {};
  /** @type {(() => void) | null} */
  #cancelReset = null;

  /** @param {Context} context @param {string | null} name @param {Start} start */
  constructor(context, name, start) {
    this.name = name;
    this.#context = context;
    this.#start = start;
    this.#retries = new Backoff(context.clock);
  }

  // The page's side

  /** @param {Topic} topic */
  add(topic) {
    this.#topics.add(topic);
    const denial = this.#denial;
    if (denial) queueMicrotask(() => topic.deny(denial));
  }

  /** @param {Topic} topic */
  has(topic) {
    return this.#topics.has(topic);
  }

  /** @param {Topic} topic */
  remove(topic) {
    if (!this.#topics.delete(topic) || this.#topics.size) return;
    this.#leave();
    this.#cancelReset?.();
    this.#context.forget(this);
  }

  /**
   * Take the start of another part of the page into account.
   *
   * Raises an Error if this page is at its own place in the topic already.
   *
   * @param {Start} start
   */
  widen(start) {
    const { since, last } = start;
    if ((since ?? null) === null && last === undefined) return;
    const same = since === this.#start.since && last === this.#start.last;
    if (same) return;
    if (this.#cursor === null) {
      const merged = earlier(this.#start, start);
      if (merged) {
        this.#start = merged;
        return;
      }
    }
    throw new Error(
      `this page follows ${this.name} already, from another place: ` +
        "subscribe without since and last, or unsubscribe the other first",
    );
  }

  /** @param {Frame} frame @returns {Promise<any>} */
  ask(frame) {
    return this.#context.commands.ask(() => {
      if (this.name === null) throw new RealtimeError("forbidden", "nobody is signed in");
      return { ...frame, topic: this.name };
    });
  }

  // The connection's side

  /** The connection is there. */
  up() {
    this.#retries.reset();
    if (this.name === null) this.#deny({ code: "forbidden", message: "nobody is signed in" });
    else this.#subscribe();
  }

  /** The connection broke. */
  down() {
    this.#isLive = false;
    this.#attempt = {};
    this.#cancelRetry();
  }

  /** @param {string | null} name Another user has another topic, with a position of its own. */
  rename(name) {
    if (name === this.name) return;
    this.name = name;
    this.#cursor = this.#seq = null;
    this.#start = {};
  }

  /** @param {Following} twin Another of the same name, which ends in favour of this one. */
  absorb(twin) {
    this.#start = twin.#start;
    for (const topic of twin.#topics) topic.move(this);
    twin.#topics.clear();
    twin.#cancelReset?.();
    this.#context.forget(twin);
  }

  #subscribe() {
    const attempt = (this.#attempt = {});
    const since = this.#cursor ?? this.#start.since ?? undefined;
    const last = this.#cursor === null ? this.#start.last : undefined;
    const frame = { type: "subscribe", topic: this.name, since, last };
    this.#context.commands.request(frame, (answer) => {
      if (attempt !== this.#attempt || !answer) return;
      if (answer.type === "subscribed") this.#subscribed(answer, since);
      else if (answer.type === "error") this.#refused(answer, since);
    });
  }

  /** End the subscription on the connection, if there is one. */
  #leave() {
    this.down();
    if (this.name === null) return;
    this.#context.commands.request({ type: "unsubscribe", topic: this.name }, () => {});
  }

  /** @param {Frame} answer @param {string} [since] */
  #subscribed(answer, since) {
    this.#isLive = true;
    this.#denial = null;
    if (answer.recovered === false) this.#hole(since);
    if (answer.recovered !== true) this.#seq = null;
    this.#cursor = answer.cursor;
  }

  /** @param {Frame} error @param {string} [since] */
  #refused(error, since) {
    if (error.retry === true) return this.#subscribeLater();
    if (error.code !== "bad_cursor" || since === undefined) return this.#deny(/** @type {any} */ (error));
    this.#hole(since);
    this.#cursor = this.#seq = null;
    this.#start = {};
    this.#subscribe();
  }

  #subscribeLater() {
    this.#cancelRetry = this.#context.clock.after(this.#retries.next(), () => this.#subscribe());
  }

  /** @param {Frame} frame A frame about this topic that answers nothing. */
  receive(frame) {
    if (!this.#isLive) return; // of a subscription before this one
    if (frame.type === "event") this.#event(frame);
    else if (frame.type === "reset") this.#reset(frame);
    else if (frame.type === "unsubscribed") {
      this.#isLive = false;
      this.#deny({ code: frame.reason, message: "the server ended the subscription" });
    }
  }

  /** @param {Frame} frame */
  #event(frame) {
    if (typeof frame.seq === "number") {
      const next = this.#seq === null ? frame.seq : this.#seq + 1;
      if (frame.seq < next) return;
      if (frame.seq > next) return this.#repair();
      this.#seq = frame.seq;
      this.#cursor = frame.cursor;
      this.#retries.reset();
    }
    if (frame.origin === this.#context.originHash) return;
    const { type, origin, ...event } = frame;
    for (const topic of [...this.#topics]) topic.deliver(/** @type {any} */ (event));
  }

  /** An event is missing: ask for everything after the last one that we have. */
  #repair() {
    this.#leave();
    this.#subscribeLater();
  }

  /** @param {Frame} frame */
  #reset(frame) {
    this.#hole(this.#cursor ?? undefined);
    this.#seq = null;
    this.#cursor = frame.cursor;
  }

  /** @param {string} [since] Events after this place cannot be had: say so once, and not at once. */
  #hole(since) {
    const { clock, resets } = this.#context;
    const topic = String(this.name);
    if (since !== undefined) {
      if (resets.knows(topic, since)) {
        console.warn(`realtime: ${topic}: this page was just loaded again with what it lacks`);
        return;
      }
      resets.note(topic, [since, this.#start.since]);
    }
    this.#cancelReset ??= clock.after(clock.random() * JITTER, () => {
      this.#cancelReset = null;
      for (const each of [...this.#topics]) each.reset();
    });
  }

  /** @param {Denial} denial */
  #deny({ code, message }) {
    if (this.#denial) return; // once, however often we come back
    const denial = (this.#denial = { code, message });
    for (const topic of [...this.#topics]) topic.deny(denial);
  }
}

/** @param {Start} one @param {Start} other @returns {Start | null} a start that serves both. */
function earlier(one, other) {
  const moments = [one.since, other.since].map((since) => moment(since));
  if (moments[0] !== null && moments[1] !== null) {
    return moments[0] <= moments[1] ? one : other;
  }
  if (one.last !== undefined && other.last !== undefined) {
    return one.last >= other.last ? one : other;
  }
  return (one.since ?? null) === null && one.last === undefined ? other : null;
}

/** @param {string | null} [since] @returns {number | null} */
const moment = (since) => (since?.startsWith("@") ? Number(since.slice(1)) : null);
