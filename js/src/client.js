import { Choice, transports } from "./choice.js";
import { clock as realClock } from "./clock.js";
import { Commands } from "./commands.js";
import { Connector } from "./connector.js";
import { Credentials } from "./credentials.js";
import { Following } from "./following.js";
import { makeSecret, originHash } from "./origin.js";
import { Resets } from "./resets.js";
import { Topic } from "./topic.js";

/** @import {Clock} from "./clock.js" */
/** @import {State} from "./connector.js" */
/** @import {Context, Start} from "./following.js" */
/** @import {Token} from "./credentials.js" */
/** @import {Frame, Name} from "./links.js" */

/**
 * @typedef {object} Options
 * @property {string | URL} url Where the app is mounted, such as `/realtime/`.
 * @property {string | null} [user] The key of the user that the page was rendered for, or null.
 * @property {string | null} [since] When the page's request began, as `@` and seconds since 1970.
 * @property {string} [transport] The only one to use, or `auto`.
 * @property {Token} [token] For a page without a session of its own; asked for again when refused.
 * @property {Clock} [clock]
 * @property {Pick<Storage, "getItem" | "setItem"> | null} [storage]
 */

/** The client's state became another one. */
export class StateChange extends Event {
  /** @param {State} state @param {number | null} code @param {string | null} reason */
  constructor(state, code, reason) {
    super("statechange");
    this.state = state;
    this.code = code;
    this.reason = reason;
  }
}

/** The server takes this page's connection for another user's than before. */
export class UserChange extends Event {
  /** @param {string | null} userId @param {string | null} previous */
  constructor(userId, previous) {
    super("userchange");
    this.userId = userId;
    this.previous = previous;
  }
}

/** The client came through over another transport than before. */
export class TransportChange extends Event {
  /** @param {Name} transport @param {Name} previous */
  constructor(transport, previous) {
    super("transportchange");
    this.transport = transport;
    this.previous = previous;
  }
}

/** Follows topics over one connection, which it keeps. */
export class Client extends EventTarget {
  /** @type {string | null | undefined} */
  userId;
  /** @type {Readonly<Record<string, string>>} */
  headers;
  /** @type {string | null} */
  since;
  /** @type {Connector} @internal */
  connector;
  #choice;
  #transport;
  #commands;
  /** @type {Context} */
  #context;
  /** @type {Set<Following>} */
  #followings = new Set();
  #isUp = false;
  /** @type {string[]} */
  #offered = [];
  /** @type {Following | null} */
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
    const secret = makeSecret();
    this.since = since ?? null;
    this.userId = user;
    this.headers = Object.freeze({ "X-Realtime-Origin": secret });
    this.#choice = new Choice(transport, clock, storage);
    this.#transport = this.#choice.current.name;
    this.#commands = new Commands(clock);
    this.#context = {
      clock,
      commands: this.#commands,
      resets: new Resets(clock, storage),
      originHash: originHash(secret),
      forget: (following) => this.#forget(following),
    };
    const tools = { clock, credentials: new Credentials(token), headers: this.headers };
    this.connector = new Connector(this.#choice, folder(url), tools, {
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

  /** The name of the transport in use, or of the last one that was. */
  get transport() {
    return this.#transport;
  }

  /** Change to another transport, for a test of changing. @internal @param {string} name */
  move(name) {
    const transport = transports.find((one) => one.name === name);
    if (transport) this.connector.move(transport);
  }

  /** The topic of the user that is signed in. */
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
   * @param {Start} [start] `last` asks for the newest events, `since` for those after a place: a
   *   cursor, or `@` and seconds since 1970.
   * @returns {Topic}
   */
  subscribe(name, start = {}) {
    if (typeof name !== "string" || !name) throw new TypeError("a topic's name is a string");
    if (start.last !== undefined && (start.since ?? null) !== null) {
      throw new TypeError("give since or last, not both");
    }
    return new Topic(this.#find(name) ?? this.#follow(name), start);
  }

  /** Follow the topic of the user that is signed in. @internal @param {Start} start */
  subscribeUser(start) {
    if (!this.#user || !this.#followings.has(this.#user)) {
      this.#user = this.#find(this.#userName) ?? this.#follow(this.#userName);
    }
    return new Topic(this.#user, start);
  }

  /** Connect anew, with the cookies of now: after signing in or out without leaving the page. */
  reconnect() {
    this.connector.reopen();
  }

  /** Disconnect; `reconnect()` is the way back. */
  close() {
    this.connector.close();
  }

  /** @param {string | null} name */
  #find(name) {
    return name === null ? undefined : [...this.#followings].find((one) => one.name === name);
  }

  get #userName() {
    return this.#offered.find((name) => name.startsWith("user.")) ?? null;
  }

  /** @param {string | null} name */
  #follow(name) {
    const following = new Following(this.#context, name);
    this.#followings.add(following);
    // In a moment, so that who asked can add listeners, and others can ask for what they need.
    queueMicrotask(() => {
      if (!this.#followings.has(following)) return;
      if (this.#isUp) following.up();
      else this.connector.start();
    });
    return following;
  }

  /** @param {Following} following */
  #forget(following) {
    this.#followings.delete(following);
  }

  /** @param {State} state @param {number | null} code @param {string | null} reason */
  #changed(state, code, reason) {
    const isOver = state === "denied" || state === "closed";
    this.#commands.end(isOver ? state : null);
    if (isOver && code !== null) {
      // Nothing on the page may listen for it, and nothing comes any more.
      console.warn(`realtime: the server ended the connection: ${reason ?? "no reason"} (${code})`);
    }
    this.dispatchEvent(new StateChange(state, code, reason));
  }

  /** @param {Frame} welcome */
  #up(welcome) {
    const previous = this.userId;
    this.userId = welcome.user ?? null;
    this.#offered = Array.isArray(welcome.topics) ? welcome.topics : [];
    const before = this.#transport;
    this.#transport = this.#choice.current.name;
    if (before !== this.#transport) this.dispatchEvent(new TransportChange(this.#transport, before));
    if (!this.#isUp) {
      this.#isUp = true;
      this.#renameUser();
      this.#commands.up((frame) => this.connector.send(frame));
      for (const following of [...this.#followings]) following.up();
    }
    if (previous !== undefined && previous !== this.userId) {
      this.dispatchEvent(new UserChange(welcome.user ?? null, previous));
    }
  }

  #renameUser() {
    const [user, name] = [this.#user, this.#userName];
    if (!user || !this.#followings.has(user)) return;
    const twin = name === user.name ? undefined : this.#find(name);
    user.rename(name);
    if (twin && twin !== user) user.absorb(twin);
  }

  #down(keepsAnswering = false) {
    this.#isUp = false;
    for (const following of this.#followings) following.down();
    if (!keepsAnswering) this.#commands.down();
  }

  /** @param {Frame} frame */
  #frame(frame) {
    if (frame.id !== undefined && this.#commands.answer(frame)) return;
    for (const following of [...this.#followings]) {
      if (following.name === frame.topic) following.receive(frame);
    }
  }
}

/** @param {string | URL} url @returns {URL} it, with the slash that makes it a folder. */
function folder(url) {
  const base = new URL(url, globalThis.document?.baseURI);
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  return base;
}

/** @returns {Storage | null} */
function tabStorage() {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    return null; // refused by the browser's settings
  }
}
