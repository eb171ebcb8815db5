import { Backoff } from "./backoff.js";
import { RealtimeError } from "./errors.js";
import { Members } from "./members.js";

/** @import {Clock} from "./clock.js" */
/** @import {Commands} from "./commands.js" */
/** @import {RefusedCursors} from "./refused_cursors.js" */
/** @import {Denial, Event, Topic} from "./topic.js" */
/** @import {Frame} from "./transport.js" */

/** @typedef {{last?: number, since?: string | null}} Start Where to begin; at most one of the two. */

/**
 * @typedef {object} Group Parts of the page that have the same position in the topic.
 * @property {Start} position Where their events begin; if it is empty, they need only new events.
 * @property {number | null} seq The number of the last event before the position, if known.
 * @property {Set<Topic>} topics
 */

/**
 * @typedef {object} Context What all topics of a client share.
 * @property {Clock} clock
 * @property {Commands} commands
 * @property {RefusedCursors} refusedCursors
 * @property {string} originHash
 * @property {(subscription: SharedSubscription) => void} remove Called when no part of the page
 *   follows the topic any longer.
 */

const JITTER = 5_000; // ms over which pages spread their resets, so that they do not fetch together

/**
 * The one subscription of the connection to a topic, shared by the parts of the page that follow it.
 *
 * The parts can have different positions: a fragment that arrives late starts at the state that it
 * shows. The subscription serves the active group; the other groups wait until it reaches their
 * position, and join it there. A group that still waits when the replay has ended is behind, so
 * the client subscribes again from that group's position. Positions are compared as cursors only,
 * because two sequence numbers can be of different epochs of the log.
 */
export class SharedSubscription {
  /** @type {string | null} */
  name;
  #context;
  #retries;
  /** @type {Group} The group that receives events; its position is that of the subscription. */
  #active = group();
  /** @type {Set<Group>} */
  #waiting = new Set();
  #isLive = false; // whether the server has confirmed the subscription
  #replayLeft = Number.POSITIVE_INFINITY; // events of the replay that have not arrived yet
  /** @type {Denial | null} */
  #denial = null;
  #attempt = {}; // identifies the newest subscribe; answers to older ones are ignored
  #cancelRetry = () => {};
  /** @type {Map<Topic, (string | null | undefined)[]>} Parts to reset, and the refused cursors. */
  #resets = new Map();
  #cancelResets = () => {};
  #members = new Members();

  /** @param {Context} context @param {string | null} name */
  constructor(context, name) {
    this.name = name;
    this.#context = context;
    this.#retries = new Backoff(context.clock);
  }

  // Called by the page

  /** @param {Topic} topic @param {Start} start */
  add(topic, { since, last }) {
    const position = (since ?? null) !== null ? { since } : last !== undefined ? { last } : {};
    this.#wait({ position, seq: null, topics: new Set([topic]) });
    this.#join();
    // Deferred, so that all parts that start now share one subscribe.
    if (this.#waiting.size) queueMicrotask(() => this.#advance());
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
      this.#resets.delete(topic);
      if (!one.topics.size) this.#waiting.delete(one);
      if (!this.#topics.length) this.#close();
    }
  }

  /** Send a command about this topic. @param {Frame} frame @returns {Promise<any>} */
  command(frame) {
    return this.#context.commands.send(() => {
      if (this.name === null) throw new RealtimeError("forbidden", "nobody is signed in");
      return { ...frame, topic: this.name };
    });
  }

  /** The members of the topic; null until the first list has arrived. */
  get members() {
    return this.#members.isKnown ? this.#members.list : null;
  }

  /** How many members the topic has; null until the first list or number has arrived. */
  get memberCount() {
    return this.#members.isKnown ? this.#members.count : null;
  }

  get #groups() {
    return [this.#active, ...this.#waiting];
  }

  get #topics() {
    return this.#groups.flatMap(({ topics }) => [...topics]);
  }

  #close() {
    this.#unsubscribe();
    this.#cancelResets();
    this.#context.remove(this);
  }

  // Called by the client

  /** The connection is open. */
  up() {
    this.#retries.reset();
    if (this.name === null) this.#deny({ code: "forbidden", message: "nobody is signed in" });
    else this.#subscribeNext();
  }

  /** The connection ended. */
  down() {
    this.#isLive = false;
    this.#attempt = {};
    this.#cancelRetry();
    this.#members.down();
  }

  /**
   * Change the topic's name: another user has another topic, with other positions.
   *
   * @param {string | null} name
   */
  rename(name) {
    if (name === this.name) return;
    if (this.name !== null) {
      this.#active = group(this.#topics);
      this.#waiting.clear();
    }
    this.#members.clear();
    this.name = name;
  }

  /** Take over the parts of another subscription to the same topic. @param {SharedSubscription} other */
  absorb(other) {
    for (const one of other.#groups) {
      for (const topic of one.topics) topic.attachTo(this);
      this.#wait(one);
    }
    for (const [topic, refused] of other.#resets) this.#scheduleReset(topic, refused);
    other.#cancelResets();
    this.#context.remove(other);
  }

  // Positions

  /** @param {Group} one */
  #wait(one) {
    if (!one.topics.size) return;
    const same = [...this.#waiting].find(({ position }) => isSame(position, one.position));
    if (!same) this.#waiting.add(one);
    for (const topic of one.topics) same?.topics.add(topic);
  }

  /** Move the groups whose position the subscription has reached into the active group. */
  #join() {
    for (const one of this.#waiting) {
      const isReached = isSame(one.position, this.#active.position);
      if (!isReached && (hasStart(one.position) || this.#replayLeft)) continue;
      this.#waiting.delete(one);
      for (const topic of one.topics) this.#active.topics.add(topic);
    }
  }

  /** Join the groups that can join; after the replay, subscribe again for those that still wait. */
  #advance() {
    this.#join();
    if (!this.#isLive || this.#replayLeft || !this.#waiting.size) return;
    this.#unsubscribe();
    this.#subscribeNext();
  }

  /** Subscribe for the first group with a start; groups that need only new events join it later. */
  #subscribeNext() {
    this.#wait(this.#active);
    const waiting = [...this.#waiting];
    const next = waiting.find(({ position }) => hasStart(position)) ?? waiting[0];
    if (!next) return; // all parts have just unsubscribed
    this.#waiting.delete(next);
    this.#active = next;
    this.#subscribe();
  }

  #subscribe() {
    const attempt = (this.#attempt = {});
    const { position } = this.#active;
    this.#replayLeft = Number.POSITIVE_INFINITY;
    const frame = { type: "subscribe", topic: this.name, ...position };
    this.#context.commands.request(frame, (answer) => {
      if (attempt !== this.#attempt || !answer) return;
      if (answer.type === "subscribed") this.#subscribed(answer, position.since);
      else if (answer.type === "error") this.#refused(answer, position.since);
    });
  }

  #unsubscribe() {
    this.down();
    if (this.name === null) return;
    this.#context.commands.request({ type: "unsubscribe", topic: this.name }, () => {});
  }

  /** @param {Frame} answer @param {string | null} [since] */
  #subscribed(answer, since) {
    this.#isLive = true;
    this.#denial = null;
    if (answer.recovered === false) this.#missed(since);
    if (answer.recovered !== true) this.#active.seq = null;
    this.#active.position = { since: answer.cursor };
    this.#replayLeft = answer.replayed > 0 ? answer.replayed : 0;
    this.#advance();
  }

  /** @param {Frame} error @param {string | null} [since] */
  #refused(error, since) {
    if (error.code === "already_subscribed") return this.#repair(); // the unsubscribe was refused
    if (error.retry === true) return this.#subscribeLater();
    if (error.code !== "bad_cursor" || since === undefined) return this.#deny(/** @type {any} */ (error));
    this.#missed(since);
    this.#active.position = {};
    this.#active.seq = null;
    this.#subscribeNext();
  }

  #subscribeLater() {
    this.#cancelRetry = this.#context.clock.after(this.#retries.next(), () => this.#subscribe());
  }

  /** Handle a frame about this topic that answers no command. @param {Frame} frame */
  receive(frame) {
    if (!this.#isLive) return; // the frame belongs to an earlier subscription
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
    if (news === "missed") this.#repair(); // a new subscription starts with the whole list
    else if (news) {
      const { list, count } = this.#members;
      for (const topic of this.#topics) topic.updateMembers(list, news.change, count);
    }
  }

  /** @param {Frame} frame */
  #event(frame) {
    const { seq } = this.#active;
    if (typeof frame.seq === "number") {
      const next = seq === null ? frame.seq : seq + 1;
      if (frame.seq < next) return;
      if (frame.seq > next) return this.#repair();
      this.#active.seq = frame.seq;
      this.#active.position = { since: frame.cursor };
      if (this.#replayLeft) this.#replayLeft -= 1;
      this.#retries.reset();
    }
    if (frame.origin !== this.#context.originHash) {
      const { type, origin, ...event } = frame;
      for (const topic of [...this.#active.topics]) topic.deliver(/** @type {any} */ (event));
    }
    if (this.#waiting.size) this.#advance();
  }

  /** Events are missing: subscribe again after the last one that arrived. */
  #repair() {
    this.#unsubscribe();
    this.#subscribeLater();
  }

  /** @param {Frame} frame */
  #reset(frame) {
    this.#missed(this.#active.position.since);
    this.#active.position = { since: frame.cursor };
    this.#active.seq = null;
    this.#replayLeft = 0;
    this.#advance();
  }

  /** The active group missed events after a cursor for good. @param {string | null} [since] */
  #missed(since) {
    const name = String(this.name);
    if (typeof since === "string" && this.#context.refusedCursors.has(name, since)) {
      console.warn(`realtime: ${name}: events were missed again after a reload; not reset again`);
      return;
    }
    for (const topic of this.#active.topics) this.#scheduleReset(topic, [since, topic.since]);
  }

  /**
   * Reset a part of the page once, after a random delay.
   *
   * @param {Topic} topic @param {(string | null | undefined)[]} refused Cursors.
   */
  #scheduleReset(topic, refused) {
    const { clock } = this.#context;
    if (!this.#resets.size) {
      this.#cancelResets = clock.after(clock.random() * JITTER, () => this.#runResets());
    }
    this.#resets.set(topic, [...(this.#resets.get(topic) ?? []), ...refused]);
  }

  #runResets() {
    const resets = [...this.#resets];
    this.#resets.clear();
    this.#context.refusedCursors.add(String(this.name), resets.flatMap(([, refused]) => refused));
    for (const [topic] of resets) topic.reset();
  }

  /** @param {Denial} denial */
  #deny({ code, message }) {
    if (this.#denial) return; // reported once, however often the client reconnects
    const denial = (this.#denial = { code, message });
    for (const topic of this.#topics) topic.deny(denial);
  }
}

/** @param {Iterable<Topic>} [topics] @returns {Group} a group that needs only new events. */
function group(topics = []) {
  return { position: {}, seq: null, topics: new Set(topics) };
}

/** @param {Start} position */
const hasStart = ({ since, last }) => since !== undefined || last !== undefined;

/** @param {Start} one @param {Start} other */
const isSame = (one, other) => one.since === other.since && one.last === other.last;
