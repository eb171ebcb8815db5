import { Listeners } from "./listeners.js";

/** @import {Following, Start} from "./following.js" */
/** @import {Frame} from "./links.js" */
/** @import {Change, Member} from "./members.js" */

/**
 * @typedef {object} Event
 * @property {string} topic
 * @property {string} event The event's name.
 * @property {any} data
 * @property {string} [cursor] The place just after it; an ephemeral event has none.
 * @property {number} [seq] Its number in the topic; an ephemeral event has none.
 * @property {number} [time] Seconds since 1970 on the clock of the log.
 */

/** @typedef {{code: string, message: string}} Denial */

/** What a part of the page follows; each `subscribe()` makes one, of one connection's topic. */
export class Topic {
  #following;
  /** @type {Map<string, Listeners<[any, Event]>>} */
  #listeners = new Map();
  /** @type {Listeners<[]>} */
  #resets = new Listeners();
  /** @type {Listeners<[Denial]>} */
  #denials = new Listeners();
  /** @type {Listeners<[Member[], Change | null]>} */
  #meetings = new Listeners();

  /** @param {Following} following @param {Start} start */
  constructor(following, start) {
    this.#following = following;
    /** @internal */
    this.since = start.since;
    following.add(this, start);
  }

  /** The topic's name; null for `.user` until the server said who that is. */
  get name() {
    return this.#following.name;
  }

  /** @internal */
  get isFollowed() {
    return this.#following.has(this);
  }

  /**
   * Call a function with the data of each event of a name, or of all of them with `"*"`.
   *
   * @param {string} event
   * @param {(data: any, event: Event) => unknown} run
   * @returns {() => void} a function that removes it.
   */
  on(event, run) {
    let listeners = this.#listeners.get(event);
    if (!listeners) this.#listeners.set(event, (listeners = new Listeners()));
    return listeners.add(run);
  }

  /**
   * Call a function when events were missed that cannot be had any more: fetch the state anew.
   *
   * @param {() => unknown} run
   * @returns {() => void} a function that removes it.
   */
  onReset(run) {
    return this.#resets.add(run);
  }

  /**
   * Call a function when the server does not let us follow this, or does no longer.
   *
   * @param {(denial: Denial) => unknown} run
   * @returns {() => void} a function that removes it.
   */
  onDenied(run) {
    return this.#denials.add(run);
  }

  /**
   * Call a function with who is on the topic, now and whenever that changes.
   *
   * Only for topics with `presence = True`; for others it is never called.
   *
   * @param {(members: Member[], change: Change | null) => unknown} run The members in the order in
   * which they came, and the join or leave that made the difference; null where the list is new.
   * @returns {() => void} a function that removes it.
   */
  onMembers(run) {
    const remove = this.#meetings.add(run);
    let isRemoved = false;
    queueMicrotask(() => {
      const members = this.members;
      if (members && !isRemoved && this.isFollowed) run(members, null);
    });
    return () => {
      isRemoved = true;
      remove();
    };
  }

  /** Who is on the topic, in the order in which they came; null as long as it was not told. */
  get members() {
    return this.#following.members;
  }

  /**
   * Publish one of the events that the topic lets its clients publish.
   *
   * @param {string} event
   * @param {any} [data]
   * @returns {Promise<void>} It rejects with a `RealtimeError`.
   */
  async publish(event, data = null) {
    await this.#following.ask({ type: "publish", event, data });
  }

  /**
   * Run an action of the topic.
   *
   * @param {string} action
   * @param {any} [data]
   * @returns {Promise<any>} what it returned; it rejects with a `RealtimeError`.
   */
  call(action, data = null) {
    return this.#following.ask({ type: "call", action, data });
  }

  /** Follow it no longer; nothing that was given to `on…()` is called from now on. */
  unsubscribe() {
    for (const listeners of [
      ...this.#listeners.values(),
      this.#resets,
      this.#denials,
      this.#meetings,
    ]) {
      listeners.clear();
    }
    this.#following.remove(this);
  }

  /** @internal @param {Following} following It follows the same topic, and knows of this. */
  move(following) {
    this.#following = following;
  }

  /** @internal @param {Event} event */
  deliver(event) {
    this.#listeners.get(event.event)?.call(event.data, event);
    this.#listeners.get("*")?.call(event.data, event);
  }

  /** @internal @param {Member[]} members @param {Change | null} change */
  meet(members, change) {
    this.#meetings.call(members, change);
  }

  /** @internal */
  reset() {
    if (this.#resets.size) this.#resets.call();
    else console.warn(`realtime: ${this.name}: events were missed, and nothing has onReset()`);
  }

  /** @internal @param {Denial} denial */
  deny(denial) {
    if (this.#denials.size) this.#denials.call(denial);
    else console.warn(`realtime: ${this.name ?? "the user's topic"}: ${denial.message}`);
  }
}
