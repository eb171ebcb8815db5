import { Backoff } from "./backoff.js";
import { RealtimeError } from "./errors.js";
import { Members } from "./members.js";

/** @import {Clock} from "./clock.js" */
/** @import {Commands} from "./commands.js" */
/** @import {Resets} from "./resets.js" */
/** @import {Denial, Event, Topic} from "./topic.js" */
/** @import {Frame} from "./links.js" */

/** @typedef {{last?: number, since?: string | null}} Start Where to begin; at most one of them. */

/**
 * @typedef {object} Group Parts of the page that are at one place in the topic.
 * @property {Start} place They lack what comes after it; with neither field, what comes from now on.
 * @property {number | null} seq The number of the last event before the place, if it is known.
 * @property {Set<Topic>} topics
 */

/**
 * @typedef {object} Context What all topics of a client share.
 * @property {Clock} clock
 * @property {Commands} commands
 * @property {Resets} resets
 * @property {string} originHash
 * @property {(following: Following) => void} forget Nobody follows this any more.
 */

const JITTER = 5_000; // ms over which the pages of a site spread when all of them are reset

/**
 * One topic on the connection, and the parts of the page that follow it.
 *
 * The connection has one subscription to a topic, but parts of the page may be at different places
 * in it: a fragment that arrives late begins at the state that it shows. The subscription serves
 * one group of them; the others wait until it passes by their place, and join. Whoever still waits
 * when nothing is left to replay is earlier than that, and the next one to subscribe for. Places
 * are compared as cursors only: two numbers may be of two lives of the log.
 */
export class Following {
  /** @type {string | null} */
  name;
  #context;
  #retries;
  /** @type {Group} Its place is that of the subscription. */
  #served = group();
  /** @type {Set<Group>} */
  #waiting = new Set();
  #isLive = false;
  #lacking = Number.POSITIVE_INFINITY; // events of the replay that are still to come
  /** @type {Denial | null} */
  #denial = null;
  #attempt = {}; // of the newest subscribe; an answer to an older one is passed over
  #cancelRetry = () => {};
  /** @type {Map<Topic, (string | null | undefined)[]>} Those to be reset, and why: refused places. */
  #missing = new Map();
  #cancelReset = () => {};
  #members = new Members();

  /** @param {Context} context @param {string | null} name */
  constructor(context, name) {
    this.name = name;
    this.#context = context;
    this.#retries = new Backoff(context.clock);
  }

  // The page's side

  /** @param {Topic} topic @param {Start} start */
  add(topic, { since, last }) {
    const place = (since ?? null) !== null ? { since } : last !== undefined ? { last } : {};
    this.#wait({ place, seq: null, topics: new Set([topic]) });
    this.#join();
    // In a moment, so that all that begin now are served together.
    if (this.#waiting.size) queueMicrotask(() => this.#goOn());
    const denial = this.#denial;
    if (denial) queueMicrotask(() => topic.deny(denial));
  }

  /** @param {Topic} topic */
  has(topic) {
    return this.#groups.some(({ topics }) => topics.has(topic));
  }

  /** @param {Topic} topic */
  remove(topic) {
    for (const one of this.#groups) {
      if (!one.topics.delete(topic)) continue;
      this.#missing.delete(topic);
      if (!one.topics.size) this.#waiting.delete(one);
      if (!this.#topics.length) this.#end();
    }
  }

  /** @param {Frame} frame @returns {Promise<any>} */
  ask(frame) {
    return this.#context.commands.ask(() => {
      if (this.name === null) throw new RealtimeError("forbidden", "nobody is signed in");
      return { ...frame, topic: this.name };
    });
  }

  /** Who is on the topic; null as long as it was not told. */
  get members() {
    return this.#members.isKnown ? this.#members.list : null;
  }

  get #groups() {
    return [this.#served, ...this.#waiting];
  }

  get #topics() {
    return this.#groups.flatMap(({ topics }) => [...topics]);
  }

  #end() {
    this.#leave();
    this.#cancelReset();
    this.#context.forget(this);
  }

  // The connection's side

  /** The connection is there. */
  up() {
    this.#retries.reset();
    if (this.name === null) this.#deny({ code: "forbidden", message: "nobody is signed in" });
    else this.#begin();
  }

  /** The connection broke. */
  down() {
    this.#isLive = false;
    this.#attempt = {};
    this.#cancelRetry();
    this.#members.down();
  }

  /** @param {string | null} name Another user has another topic, with places of its own. */
  rename(name) {
    if (name === this.name) return;
    if (this.name !== null) {
      this.#served = group(this.#topics);
      this.#waiting.clear();
    }
    this.#members.clear();
    this.name = name;
  }

  /** @param {Following} twin Another of the same name, which ends in favour of this one. */
  absorb(twin) {
    for (const one of twin.#groups) {
      for (const topic of one.topics) topic.move(this);
      this.#wait(one);
    }
    for (const [topic, refused] of twin.#missing) this.#miss(topic, refused);
    twin.#cancelReset();
    this.#context.forget(twin);
  }

  // Places

  /** @param {Group} one */
  #wait(one) {
    if (!one.topics.size) return;
    const twin = [...this.#waiting].find(({ place }) => isSame(place, one.place));
    if (!twin) this.#waiting.add(one);
    for (const topic of one.topics) twin?.topics.add(topic);
  }

  /** Let those go with the subscription whose place it has reached. */
  #join() {
    for (const one of this.#waiting) {
      const isHere = isSame(one.place, this.#served.place);
      if (!isHere && (hasStart(one.place) || this.#lacking)) continue;
      this.#waiting.delete(one);
      for (const topic of one.topics) this.#served.topics.add(topic);
    }
  }

  /** Let join who can; once nothing is left to replay, subscribe for those who still wait. */
  #goOn() {
    this.#join();
    if (!this.#isLive || this.#lacking || !this.#waiting.size) return;
    this.#leave();
    this.#begin();
  }

  /** Subscribe for those who wait longest; who only wants what comes joins them. */
  #begin() {
    this.#wait(this.#served);
    const waiting = [...this.#waiting];
    const next = waiting.find(({ place }) => hasStart(place)) ?? waiting[0];
    if (!next) return; // all have left, a moment ago
    this.#waiting.delete(next);
    this.#served = next;
    this.#subscribe();
  }

  #subscribe() {
    const attempt = (this.#attempt = {});
    const { place } = this.#served;
    this.#lacking = Number.POSITIVE_INFINITY;
    const frame = { type: "subscribe", topic: this.name, ...place };
    this.#context.commands.request(frame, (answer) => {
      if (attempt !== this.#attempt || !answer) return;
      if (answer.type === "subscribed") this.#subscribed(answer, place.since);
      else if (answer.type === "error") this.#refused(answer, place.since);
    });
  }

  /** End the subscription on the connection, if there is one. */
  #leave() {
    this.down();
    if (this.name === null) return;
    this.#context.commands.request({ type: "unsubscribe", topic: this.name }, () => {});
  }

  /** @param {Frame} answer @param {string | null} [since] */
  #subscribed(answer, since) {
    this.#isLive = true;
    this.#denial = null;
    if (answer.recovered === false) this.#hole(since);
    if (answer.recovered !== true) this.#served.seq = null;
    this.#served.place = { since: answer.cursor };
    this.#lacking = answer.replayed > 0 ? answer.replayed : 0;
    this.#goOn();
  }

  /** @param {Frame} error @param {string | null} [since] */
  #refused(error, since) {
    if (error.code === "already_subscribed") return this.#repair(); // the unsubscribe was refused
    if (error.retry === true) return this.#subscribeLater();
    if (error.code !== "bad_cursor" || since === undefined) return this.#deny(/** @type {any} */ (error));
    this.#hole(since);
    this.#served.place = {};
    this.#served.seq = null;
    this.#begin();
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
      const { reason, message = "the server ended the subscription" } = frame;
      this.#deny({ code: reason, message });
    } else if (["members", "join", "leave"].includes(frame.type)) this.#presence(frame);
  }

  /** @param {Frame} frame */
  #presence(frame) {
    const news = this.#members.receive(frame);
    if (news === "missed") this.#repair(); // a new subscription begins with the list
    else if (news) for (const topic of this.#topics) topic.meet(this.#members.list, news.change);
  }

  /** @param {Frame} frame */
  #event(frame) {
    const { seq } = this.#served;
    if (typeof frame.seq === "number") {
      const next = seq === null ? frame.seq : seq + 1;
      if (frame.seq < next) return;
      if (frame.seq > next) return this.#repair();
      this.#served.seq = frame.seq;
      this.#served.place = { since: frame.cursor };
      if (this.#lacking) this.#lacking -= 1;
      this.#retries.reset();
    }
    if (frame.origin !== this.#context.originHash) {
      const { type, origin, ...event } = frame;
      for (const topic of [...this.#served.topics]) topic.deliver(/** @type {any} */ (event));
    }
    if (this.#waiting.size) this.#goOn();
  }

  /** An event is missing: ask for everything after the last one that we have. */
  #repair() {
    this.#leave();
    this.#subscribeLater();
  }

  /** @param {Frame} frame */
  #reset(frame) {
    this.#hole(this.#served.place.since);
    this.#served.place = { since: frame.cursor };
    this.#served.seq = null;
    this.#lacking = 0;
    this.#goOn();
  }

  /** @param {string | null} [since] What came after this place is lost for those who are there. */
  #hole(since) {
    const name = String(this.name);
    if (typeof since === "string" && this.#context.resets.knows(name, since)) {
      console.warn(`realtime: ${name}: this page was just loaded again with what it lacks`);
      return;
    }
    for (const topic of this.#served.topics) this.#miss(topic, [since, topic.since]);
  }

  /** @param {Topic} topic Reset it once, and not at once. @param {(string | null | undefined)[]} refused */
  #miss(topic, refused) {
    const { clock } = this.#context;
    if (!this.#missing.size) {
      this.#cancelReset = clock.after(clock.random() * JITTER, () => this.#tell());
    }
    this.#missing.set(topic, [...(this.#missing.get(topic) ?? []), ...refused]);
  }

  #tell() {
    const missing = [...this.#missing];
    this.#missing.clear();
    this.#context.resets.note(String(this.name), missing.flatMap(([, refused]) => refused));
    for (const [topic] of missing) topic.reset();
  }

  /** @param {Denial} denial */
  #deny({ code, message }) {
    if (this.#denial) return; // once, however often we come back
    const denial = (this.#denial = { code, message });
    for (const topic of this.#topics) topic.deny(denial);
  }
}

/** @param {Iterable<Topic>} [topics] @returns {Group} of those who want what comes from now on. */
function group(topics = []) {
  return { place: {}, seq: null, topics: new Set(topics) };
}

/** @param {Start} place */
const hasStart = ({ since, last }) => since !== undefined || last !== undefined;

/** @param {Start} one @param {Start} other */
const isSame = (one, other) => one.since === other.since && one.last === other.last;
