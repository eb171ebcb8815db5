import { clock as realClock } from "./clock.js";
import { Commands } from "./commands.js";
import { Connector } from "./connector.js";
import { Following } from "./following.js";
import { makeSecret, originHash } from "./origin.js";
import { Resets } from "./resets.js";
import { Topic } from "./topic.js";
import { websocket } from "./websocket.js";

/** @import {Clock} from "./clock.js" */
/** @import {State} from "./connector.js" */
/** @import {Context, Start} from "./following.js" */
/** @import {Frame, Transport} from "./websocket.js" */

/**
 * @typedef {object} Options
 * @property {string | URL} url Where the app is mounted, such as `/realtime/`.
 * @property {string | null} [user] The key of the user that the page was rendered for, or null.
 * @property {Transport} [transport]
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

/** Follows topics over one connection, which it keeps. */
export class Client extends EventTarget {
  /** @type {string | null | undefined} */
  userId;
  /** @type {Readonly<Record<string, string>>} */
  headers;
  /** @type {Connector} @internal */
  connector;
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
  constructor({ url, user, transport = websocket, clock = realClock, storage = tabStorage() }) {
    super();
    const secret = makeSecret();
    this.userId = user;
    this.headers = Object.freeze({ "X-Realtime-Origin": secret });
    this.#transport = transport;
    this.#commands = new Commands(clock);
    this.#context = {
      clock,
      commands: this.#commands,
      resets: new Resets(clock, storage),
      originHash: originHash(secret),
      forget: (following) => this.#forget(following),
    };
    this.connector = new Connector(transport, folder(url), clock, {
      state: (state, code, reason) => this.#changed(state, code, reason),
      up: (welcome) => this.#up(welcome),
      down: () => this.#down(),
      frame: (frame) => this.#frame(frame),
    });
  }

  /** `connecting`, `connected`, `waiting`, `denied` or `closed`. */
  get state() {
    return this.connector.state;
  }

  /** The name of the transport in use. */
  get transport() {
    return this.#transport.name;
  }

  /** The topic of the user that is signed in. */
  get user() {
    if (!this.#userTopic?.isFollowed) {
      const name = this.#userName;
      this.#user = this.#find(name) ?? this.#follow(name, {});
      this.#userTopic = new Topic(this.#user);
    }
    return this.#userTopic;
  }

  /** The topic that reaches every signed-in user. */
  get everyone() {
    if (!this.#everyone?.isFollowed) this.#everyone = this.subscribe("everyone");
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
    const there = this.#find(name);
    there?.widen(start);
    return new Topic(there ?? this.#follow(name, start));
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

  /** @param {string | null} name @param {Start} start */
  #follow(name, start) {
    const following = new Following(this.#context, name, start);
    this.#followings.add(following);
    // In a moment, so that who asked can add listeners, and others can ask for an earlier start.
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
    this.#commands.end(state === "denied" || state === "closed" ? state : null);
    this.dispatchEvent(new StateChange(state, code, reason));
  }

  /** @param {Frame} welcome */
  #up(welcome) {
    const previous = this.userId;
    this.userId = welcome.user ?? null;
    this.#offered = Array.isArray(welcome.topics) ? welcome.topics : [];
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

  #down() {
    this.#isUp = false;
    for (const following of this.#followings) following.down();
    this.#commands.down();
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
