import { bindMembers } from "./bound.js";
import { clock as realClock } from "./clock.js";
import { Commands } from "./commands.js";
import { Connector } from "./connector.js";
import { Credentials } from "./credentials.js";
import { Fallback, transports } from "./fallback.js";
import { makeSecret, originHash } from "./origin.js";
import { RefusedCursors } from "./refused_cursors.js";
import { SharedSubscription } from "./subscription.js";
import { Topic } from "./topic.js";

/** @import {Clock} from "./clock.js" */
/** @import {State} from "./connector.js" */
/** @import {Token} from "./credentials.js" */
/** @import {Context, Start} from "./subscription.js" */
/** @import {Frame, Name} from "./transport.js" */

/**
 * @typedef {object} Options
 * @property {string | URL} url Where the app is mounted, such as `/realtime/`.
 * @property {string | null} [user] The key of the user that the page was rendered for, or null.
 * @property {string | null} [since] When the page's request began: `@` followed by seconds since
 *   1970.
 * @property {string} [transport] The only transport to use, or `auto`.
 * @property {Token} [token] Identifies the user of a page without a session. If it is a function,
 *   it is called again when the server refuses the token.
 * @property {Clock} [clock]
 * @property {Pick<Storage, "getItem" | "setItem"> | null} [storage]
 */

/** The event for a new state of the client. */
export class StateChange extends Event {
  /** @param {State} state @param {number | null} code @param {string | null} reason */
  constructor(state, code, reason) {
    super("statechange");
    this.state = state;
    this.code = code;
    this.reason = reason;
  }
}

/** The event for a connection that belongs to a different user than the previous one. */
export class UserChange extends Event {
  /** @param {string | null} userId @param {string | null} previous */
  constructor(userId, previous) {
    super("userchange");
    this.userId = userId;
    this.previous = previous;
  }
}

/** The event for a connection over a different transport than the previous one. */
export class TransportChange extends Event {
  /** @param {Name} transport @param {Name} previous */
  constructor(transport, previous) {
    super("transportchange");
    this.transport = transport;
    this.previous = previous;
  }
}

/** Follows topics over one connection and keeps it open. */
export class Client extends EventTarget {
  /** @type {string | null | undefined} */
  userId;
  /** @type {Readonly<Record<string, string>>} */
  headers;
  /** @type {string | null} */
  since;
  /** @type {Connector} @internal */
  connector;
  #fallback;
  #transport;
  #commands;
  /** @type {Context} */
  #context;
  /** @type {Set<SharedSubscription>} */
  #subscriptions = new Set();
  #isUp = false;
  /** @type {string[]} The topics that the welcome names. */
  #welcomeTopics = [];
  /** @type {SharedSubscription | null} */
  #user = null;
  /** @type {Topic | null} */
  #userTopic = null;
  /** @type {Topic | null} */
  #everyone = null;

  /** @param {Options} options */
  constructor(options) {
    const { url, user, since, transport = "auto", token } = options;
    const { clock = realClock, storage = tabStorage() } = options;
    super();
    bindMembers(this);
    const secret = makeSecret();
    this.since = since ?? null;
    this.userId = user;
    this.headers = Object.freeze({ "X-Realtime-Origin": secret });
    this.#fallback = new Fallback(transport, clock, storage);
    this.#transport = this.#fallback.current.name;
    this.#commands = new Commands(clock);
    this.#context = {
      clock,
      commands: this.#commands,
      refusedCursors: new RefusedCursors(clock, storage),
      originHash: originHash(secret),
      remove: (subscription) => this.#remove(subscription),
    };
    const tools = { clock, credentials: new Credentials(token), headers: this.headers };
    this.connector = new Connector(this.#fallback, directory(url), tools, {
      state: (state, code, reason) => this.#changed(state, code, reason),
      up: (welcome) => this.#up(welcome),
      down: (keepsAnswering) => this.#down(keepsAnswering),
      frame: (frame) => this.#frame(frame),
    });
  }

  /** `connecting`, `connected`, `waiting`, `denied` or `closed`. */
  get state() {
    return this.connector.state;
  }

  /** The name of the transport in use, or of the last one in use. */
  get transport() {
    return this.#transport;
  }

  /** Switch to another transport, in tests. @internal @param {string} name */
  switchTo(name) {
    const transport = transports.find((one) => one.name === name);
    if (transport) this.connector.switchTo(transport);
  }

  /** The topic of the signed-in user. */
  get user() {
    const start = this.#userTopic ? {} : { since: this.since };
    if (!this.#userTopic?.isFollowed) this.#userTopic = this.subscribeUser(start);
    return this.#userTopic;
  }

  /** The topic that reaches every signed-in user. */
  get everyone() {
    const start = this.#everyone ? {} : { since: this.since };
    if (!this.#everyone?.isFollowed) this.#everyone = this.subscribe("everyone", start);
    return this.#everyone;
  }

  /**
   * Follow a topic.
   *
   * @param {string} name
   * @param {Start} [start] `last` asks for that many of the newest events; `since` asks for the
   *   events after a cursor, or after a time: `@` followed by seconds since 1970.
   * @returns {Topic}
   */
  subscribe(name, start = {}) {
    if (typeof name !== "string" || !name) throw new TypeError("a topic's name is a non-empty string");
    if (start.last !== undefined && (start.since ?? null) !== null) {
      throw new TypeError("give since or last, not both");
    }
    return new Topic(this.#find(name) ?? this.#follow(name), start);
  }

  /** Follow the topic of the signed-in user. @internal @param {Start} start */
  subscribeUser(start) {
    if (!this.#user || !this.#subscriptions.has(this.#user)) {
      this.#user = this.#find(this.#userName) ?? this.#follow(this.#userName);
    }
    return new Topic(this.#user, start);
  }

  /** Connect again with the current cookies, after signing in or out without leaving the page. */
  reconnect() {
    this.connector.reconnect();
  }

  /** Disconnect until `reconnect()`. */
  close() {
    this.connector.close();
  }

  /** @param {string | null} name */
  #find(name) {
    return name === null ? undefined : [...this.#subscriptions].find((one) => one.name === name);
  }

  get #userName() {
    return this.#welcomeTopics.find((name) => name.startsWith("user.")) ?? null;
  }

  /** @param {string | null} name */
  #follow(name) {
    const subscription = new SharedSubscription(this.#context, name);
    this.#subscriptions.add(subscription);
    // Deferred, so that the caller can add listeners, and other parts of the page can subscribe.
    queueMicrotask(() => {
      if (!this.#subscriptions.has(subscription)) return;
      if (this.#isUp) subscription.up();
      else this.connector.start();
    });
    return subscription;
  }

  /** @param {SharedSubscription} subscription */
  #remove(subscription) {
    this.#subscriptions.delete(subscription);
  }

  /** @param {State} state @param {number | null} code @param {string | null} reason */
  #changed(state, code, reason) {
    const isOver = state === "denied" || state === "closed";
    this.#commands.setClosed(isOver ? state : null);
    if (isOver && code !== null) {
      // Warn, since the page may have no listener, and no events will arrive.
      console.warn(`realtime: the server ended the connection: ${reason ?? "no reason"} (${code})`);
    }
    this.dispatchEvent(new StateChange(state, code, reason));
  }

  /** @param {Frame} welcome */
  #up(welcome) {
    const previous = this.userId;
    this.userId = welcome.user ?? null;
    this.#welcomeTopics = Array.isArray(welcome.topics) ? welcome.topics : [];
    const before = this.#transport;
    this.#transport = this.#fallback.current.name;
    if (before !== this.#transport) this.dispatchEvent(new TransportChange(this.#transport, before));
    if (!this.#isUp) {
      this.#isUp = true;
      this.#renameUser();
      this.#commands.up((frame) => this.connector.send(frame));
      for (const subscription of [...this.#subscriptions]) subscription.up();
    }
    if (previous !== undefined && previous !== this.userId) {
      this.dispatchEvent(new UserChange(welcome.user ?? null, previous));
    }
  }

  #renameUser() {
    const [user, name] = [this.#user, this.#userName];
    if (!user || !this.#subscriptions.has(user)) return;
    const other = name === user.name ? undefined : this.#find(name);
    user.rename(name);
    if (other && other !== user) user.absorb(other);
  }

  #down(keepsAnswering = false) {
    this.#isUp = false;
    for (const subscription of this.#subscriptions) subscription.down();
    if (!keepsAnswering) this.#commands.down();
  }

  /** @param {Frame} frame */
  #frame(frame) {
    if (frame.id !== undefined && this.#commands.answer(frame)) return;
    for (const subscription of [...this.#subscriptions]) {
      if (subscription.name === frame.topic) subscription.receive(frame);
    }
  }
}

/**
 * Return a URL with a slash at the end, so that relative paths are appended to it.
 *
 * @param {string | URL} url
 */
function directory(url) {
  const base = new URL(url, globalThis.document?.baseURI);
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  return base;
}

/** @returns {Storage | null} */
function tabStorage() {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    return null; // forbidden by the browser's settings
  }
}
