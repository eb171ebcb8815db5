import { makeRemover } from "./alpine.js";
import { bindMembers } from "./bound.js";
import { Listeners } from "./listeners.js";

/** @import {Change, Member} from "./members.js" */
/** @import {SharedSubscription, Start} from "./subscription.js" */

/**
 * @typedef {object} Event
 * @property {string} topic
 * @property {string} event The event's name.
 * @property {any} data
 * @property {string} [cursor] An ephemeral event has none.
 * @property {number} [seq] The event's number in the topic; an ephemeral event has none.
 * @property {number} [time] Seconds since 1970 on the clock of the log.
 */

/** @typedef {{code: string, message: string}} Denial */

/** A topic that one part of the page follows; each `subscribe()` returns a new one. */
export class Topic {
  #subscription;
  /** @type {Map<string, Listeners<[any, Event]>>} */
  #listeners = new Map();
  /** @type {Listeners<[]>} */
  #resetListeners = new Listeners();
  /** @type {Listeners<[Denial]>} */
  #denialListeners = new Listeners();
  /** @type {Listeners<[Member[], Change | null, number]>} */
  #memberListeners = new Listeners();

  /** @param {SharedSubscription} subscription @param {Start} start */
  constructor(subscription, start) {
    this.#subscription = subscription;
    /** @internal */
    this.since = start.since;
    bindMembers(this);
    subscription.add(this, start);
  }

  /** The topic's name; null for `.user` until the server has sent the user. */
  get name() {
    return this.#subscription.name;
  }

  /** @internal */
  get isFollowed() {
    return this.#subscription.has(this);
  }

  /**
   * Call a function with the data of each event of one name, or of all events with `"*"`.
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
   * Call a function when events were missed for good; it should fetch the state again.
   *
   * @param {() => unknown} run
   * @returns {() => void} a function that removes it.
   */
  onReset(run) {
    return this.#resetListeners.add(run);
  }

  /**
   * Call a function when the server refuses the topic, or ends the subscription.
   *
   * @param {(denial: Denial) => unknown} run
   * @returns {() => void} a function that removes it.
   */
  onDenied(run) {
    return this.#denialListeners.add(run);
  }

  /**
   * Call a function with the members of the topic, now and after each change.
   *
   * Only for topics with `presence = True`; for others it is never called.
   *
   * @param {(members: Member[], change: Change | null, count: number) => unknown} run Gets the
   *   members in the order in which they joined; the join or leave, which is null for a new list;
   *   and the number of members. The list is empty where the server sends only the number.
   * @returns {() => void} a function that removes it.
   */
  onMembers(run) {
    const remove = this.#memberListeners.add(run);
    let isRemoved = false;
    queueMicrotask(() => {
      const { members, memberCount } = this;
      if (members && !isRemoved && this.isFollowed) run(members, null, Number(memberCount));
    });
    return makeRemover(() => {
      isRemoved = true;
      remove();
    });
  }

  /** The members in the order in which they joined; null until the first list has arrived. */
  get members() {
    return this.#subscription.members;
  }

  /**
   * The number of members, also where they are too many for a list; null until it has arrived.
   */
  get memberCount() {
    return this.#subscription.memberCount;
  }

  /**
   * Publish one of the topic's client events.
   *
   * @param {string} event
   * @param {any} [data]
   * @returns {Promise<void>} rejects with a `RealtimeError`.
   */
  async publish(event, data = null) {
    await this.#subscription.command({ type: "publish", event, data });
  }

  /**
   * Run an action of the topic.
   *
   * @param {string} action
   * @param {any} [data]
   * @returns {Promise<any>} what the action returned; rejects with a `RealtimeError`.
   */
  call(action, data = null) {
    return this.#subscription.command({ type: "call", action, data });
  }

  /** Stop following the topic; no listener of this object is called any longer. */
  unsubscribe() {
    for (const listeners of [
      ...this.#listeners.values(),
      this.#resetListeners,
      this.#denialListeners,
      this.#memberListeners,
    ]) {
      listeners.clear();
    }
    this.#subscription.remove(this);
  }

  /** Use another subscription to the same topic. @internal @param {SharedSubscription} subscription */
  attachTo(subscription) {
    this.#subscription = subscription;
  }

  /** @internal @param {Event} event */
  deliver(event) {
    this.#listeners.get(event.event)?.call(event.data, event);
    this.#listeners.get("*")?.call(event.data, event);
  }

  /** @internal @param {Member[]} members @param {Change | null} change @param {number} count */
  updateMembers(members, change, count) {
    this.#memberListeners.call(members, change, count);
  }

  /** @internal */
  reset() {
    if (this.#resetListeners.size) this.#resetListeners.call();
    else console.warn(`realtime: ${this.name}: events were missed; add onReset() to fetch the state`);
  }

  /** @internal @param {Denial} denial */
  deny(denial) {
    if (this.#denialListeners.size) this.#denialListeners.call(denial);
    else console.warn(`realtime: ${this.name ?? "the user's topic"}: ${denial.message}`);
  }
}
