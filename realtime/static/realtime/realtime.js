// The client of django-channels-realtime, BSD-3-Clause. Made from js/src by `make js`; do not edit.

// src/clock.js
var clock = {
  now: () => Date.now(),
  random: () => Math.random(),
  after(ms, run) {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  }
};

// src/backoff.js
var FIRST = 500;
var LAST = 2e4;
var Backoff = class {
  #clock;
  #attempts = 0;
  /** @param {Clock} clock */
  constructor(clock2) {
    this.#clock = clock2;
  }
  /** Return the next delay in milliseconds. */
  next() {
    const bound = Math.min(LAST, FIRST * 2 ** this.#attempts);
    this.#attempts += 1;
    return this.#clock.random() * bound;
  }
  /** Begin with the shortest bound again. */
  reset() {
    this.#attempts = 0;
  }
};

// src/errors.js
var RealtimeError = class extends Error {
  /**
   * @param {string} code The server's code, or one of ours: `disconnected` (sent, but the answer
   *   was lost: it may have happened), `timeout` (never sent), `denied` and `closed` (never sent).
   * @param {string} message For people.
   * @param {boolean} [retry] Whether the same may succeed a few seconds later.
   */
  constructor(code, message, retry = false) {
    super(message);
    this.name = "RealtimeError";
    this.code = code;
    this.retry = retry;
  }
};

// src/commands.js
var PATIENCE = 1e4;
var ATTEMPTS = 5;
var Commands = class {
  #clock;
  /** @type {((frame: Frame) => void) | null} */
  #send = null;
  #id = 0;
  /** @type {string | null} */
  #over = null;
  /** @type {Map<number, (answer: Frame | null) => void>} */
  #open = /* @__PURE__ */ new Map();
  /** @type {Set<{go: () => void, fail: (code: string) => void}>} */
  #held = /* @__PURE__ */ new Set();
  /** @param {Clock} clock */
  constructor(clock2) {
    this.#clock = clock2;
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
    const id = this.#id += 1;
    this.#open.set(id, done);
    this.#send({ ...frame, id });
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
};
function failure(answer) {
  if (answer) return new RealtimeError(answer.code, answer.message, answer.retry === true);
  const message = "the connection broke before the answer came; the command may have been run";
  return new RealtimeError("disconnected", message);
}

// src/connector.js
var CONNECT = 15e3;
var GRACE = 1e4;
var HEARTBEAT = 25;
var PROBE = 5e3;
var LATE = 5e3;
var STABLE = 1e4;
var CLOSING = 5e3;
var RETRY_AFTER = 300;
var Connector = class {
  /** @type {State} */
  state = "waiting";
  #transport;
  #base;
  #clock;
  #hearer;
  #backoff;
  /** @type {Link | null} */
  #link = null;
  #timer = () => {
  };
  // cancels the one timer: a retry, the deadline of an attempt, or the watch
  #heardAt = 0;
  #upAt = 0;
  #silence = HEARTBEAT * 1e3 + GRACE;
  #isIdle = true;
  // nobody needs a connection yet
  #paused = false;
  /** @type {Frame | null} */
  #closing = null;
  #told = false;
  // the server said when to come back
  /** @param {Transport} transport @param {URL} base @param {Clock} clock @param {Hearer} hearer */
  constructor(transport, base, clock2, hearer) {
    this.#transport = transport;
    this.#base = base;
    this.#clock = clock2;
    this.#hearer = hearer;
    this.#backoff = new Backoff(clock2);
  }
  /** Connect, and stay so, if nobody asked for it before. */
  start() {
    if (!this.#isIdle || this.#isOver) return;
    this.#isIdle = false;
    if (!this.#paused) this.#connect();
  }
  /** Connect now, with a new connection if there is one: for another user, or after the end. */
  reopen() {
    this.#isIdle = this.#paused = false;
    this.#backoff.reset();
    this.#drop();
    this.#connect();
  }
  /** End for good, or until `reopen()`. */
  close() {
    this.#drop();
    this.#change("closed", null, null);
  }
  /** Let go of the connection while the page is in the back/forward cache. */
  pause() {
    if (this.#isOver) return;
    this.#paused = true;
    this.#drop();
    this.#change("waiting", null, null);
  }
  /** Go on after `pause()`. */
  resume() {
    if (!this.#paused) return;
    this.#paused = false;
    if (!this.#isIdle) this.#connect();
  }
  /** Find out now whether the connection lives, and do not wait with the next attempt. */
  wake() {
    if (this.state === "connected") this.#probe();
    else if (this.state === "waiting" && !this.#isIdle && !this.#paused && !this.#told) {
      this.#connect();
    }
  }
  /** @param {Frame} frame */
  send(frame) {
    this.#link?.send(frame);
  }
  get #isOver() {
    return this.state === "closed" || this.state === "denied";
  }
  #connect() {
    this.#timer();
    this.#told = false;
    this.#closing = null;
    this.#change("connecting", null, null);
    if (this.state !== "connecting" || this.#link) return;
    this.#timer = this.#clock.after(CONNECT, () => this.#lost());
    this.#link = this.#transport.open(
      this.#base,
      (frame) => this.#receive(frame),
      (code) => this.#closed(code)
    );
  }
  /** @param {Frame} frame */
  #receive(frame) {
    this.#heardAt = this.#clock.now();
    if (frame.type === "welcome") this.#welcome(frame);
    else if (frame.type === "closing") this.#announced(frame);
    else if (frame.type !== "heartbeat" && frame.type !== "pong") this.#hearer.frame(frame);
  }
  /** @param {Frame} welcome */
  #welcome(welcome) {
    const heartbeat = welcome.heartbeat > 0 ? Number(welcome.heartbeat) : HEARTBEAT;
    this.#silence = heartbeat * 1e3 + GRACE;
    if (this.state !== "connected") this.#upAt = this.#clock.now();
    this.#watch(this.#silence);
    const link = this.#link;
    this.#change("connected", null, null);
    if (this.#link === link) this.#hearer.up(welcome);
  }
  /** @param {Frame} frame What is sent from now on is not read, so this counts as the end. */
  #announced(frame) {
    this.#closing = frame;
    this.#timer();
    this.#timer = this.#clock.after(CLOSING, () => this.#lost());
    this.#hearer.down();
  }
  // The watch
  /** @param {number} ms until the silence would have been too long. */
  #watch(ms) {
    this.#timer();
    const due = this.#clock.now() + ms;
    this.#timer = this.#clock.after(ms, () => {
      const now = this.#clock.now();
      const quiet = now - this.#heardAt;
      if (now - due > LATE || quiet < 0) this.#probe();
      else if (quiet < this.#silence) this.#watch(this.#silence - quiet);
      else this.#lost();
    });
  }
  #probe() {
    if (this.#closing) return;
    this.#timer();
    this.send({ type: "ping" });
    this.#heardAt = Number.NaN;
    this.#timer = this.#clock.after(PROBE, () => {
      if (Number.isNaN(this.#heardAt)) return this.#lost();
      this.#watch(this.#silence);
    });
  }
  // The end of a connection
  #lost() {
    this.#link?.close();
    this.#closed(1006);
  }
  /** @param {number} code */
  #closed(code) {
    const reason = this.#closing?.reason ?? null;
    const after = this.#closing?.retry_after;
    if (this.state === "connected" && this.#clock.now() - this.#upAt > STABLE) this.#backoff.reset();
    this.#drop();
    if (code >= 4400 && code <= 4499) {
      return this.#change(code === 4401 || code === 4403 ? "denied" : "closed", code, reason);
    }
    this.#told = Number.isFinite(after) && after >= 0;
    const delay = this.#told ? Math.min(after, RETRY_AFTER) * 1e3 : this.#backoff.next();
    this.#timer = this.#clock.after(delay, () => this.#connect());
    this.#change("waiting", code, reason);
  }
  #drop() {
    this.#timer();
    const [link, wasUp] = [this.#link, this.state === "connected"];
    this.#link = null;
    link?.close();
    if (wasUp) this.#hearer.down();
    this.#closing = null;
  }
  /** @param {State} state @param {number | null} code @param {string | null} reason */
  #change(state, code, reason) {
    if (this.state === state) return;
    this.state = state;
    this.#hearer.state(state, code, reason);
  }
};

// src/following.js
var JITTER = 5e3;
var Following = class {
  /** @type {string | null} */
  name;
  /** @type {Set<Topic>} */
  #topics = /* @__PURE__ */ new Set();
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
  #attempt = {};
  // of the newest subscribe; an answer to an older one is passed over
  #cancelRetry = () => {
  };
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
    if ((since ?? null) === null && last === void 0) return;
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
      `this page follows ${this.name} already, from another place: subscribe without since and last, or unsubscribe the other first`
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
    const attempt = this.#attempt = {};
    const since = this.#cursor ?? this.#start.since ?? void 0;
    const last = this.#cursor === null ? this.#start.last : void 0;
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
    this.#context.commands.request({ type: "unsubscribe", topic: this.name }, () => {
    });
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
    if (error.code !== "bad_cursor" || since === void 0) return this.#deny(
      /** @type {any} */
      error
    );
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
    if (!this.#isLive) return;
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
    for (const topic of [...this.#topics]) topic.deliver(
      /** @type {any} */
      event
    );
  }
  /** An event is missing: ask for everything after the last one that we have. */
  #repair() {
    this.#leave();
    this.#subscribeLater();
  }
  /** @param {Frame} frame */
  #reset(frame) {
    this.#hole(this.#cursor ?? void 0);
    this.#seq = null;
    this.#cursor = frame.cursor;
  }
  /** @param {string} [since] Events after this place cannot be had: say so once, and not at once. */
  #hole(since) {
    const { clock: clock2, resets } = this.#context;
    const topic = String(this.name);
    if (since !== void 0) {
      if (resets.knows(topic, since)) {
        console.warn(`realtime: ${topic}: this page was just loaded again with what it lacks`);
        return;
      }
      resets.note(topic, [since, this.#start.since]);
    }
    this.#cancelReset ??= clock2.after(clock2.random() * JITTER, () => {
      this.#cancelReset = null;
      for (const each of [...this.#topics]) each.reset();
    });
  }
  /** @param {Denial} denial */
  #deny({ code, message }) {
    if (this.#denial) return;
    const denial = this.#denial = { code, message };
    for (const topic of [...this.#topics]) topic.deny(denial);
  }
};
function earlier(one, other) {
  const moments = [one.since, other.since].map((since) => moment(since));
  if (moments[0] !== null && moments[1] !== null) {
    return moments[0] <= moments[1] ? one : other;
  }
  if (one.last !== void 0 && other.last !== void 0) {
    return one.last >= other.last ? one : other;
  }
  return (one.since ?? null) === null && one.last === void 0 ? other : null;
}
var moment = (since) => since?.startsWith("@") ? Number(since.slice(1)) : null;

// src/sha256.js
function primes(count) {
  const found = [];
  for (let number = 2; found.length < count; number += 1) {
    if (found.every((prime) => number % prime)) found.push(number);
  }
  return found;
}
var fraction = (value) => (value - Math.floor(value)) * 2 ** 32 | 0;
var rotate = (word, bits) => word >>> bits | word << 32 - bits;
var ROUNDS = primes(64).map((prime) => fraction(Math.cbrt(prime)));
var START = primes(8).map((prime) => fraction(Math.sqrt(prime)));
function pad(bytes) {
  const padded = new Uint8Array((bytes.length + 8 >> 6) * 64 + 64);
  padded.set(bytes);
  padded[bytes.length] = 128;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, bytes.length << 3);
  return view;
}
function schedule(view, offset) {
  const words = Array.from({ length: 16 }, (_, index) => view.getInt32(offset + index * 4));
  for (let index = 16; index < 64; index += 1) {
    const [early, late] = [words[index - 15], words[index - 2]];
    const first = rotate(early, 7) ^ rotate(early, 18) ^ early >>> 3;
    const second = rotate(late, 17) ^ rotate(late, 19) ^ late >>> 10;
    words.push(words[index - 16] + first + words[index - 7] + second | 0);
  }
  return words;
}
function compress(state, words) {
  let [a, b, c, d, e, f, g, h] = state;
  for (let index = 0; index < 64; index += 1) {
    const high = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
    const first = h + high + (e & f ^ ~e & g) + ROUNDS[index] + words[index] | 0;
    const low = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
    const second = low + (a & b ^ a & c ^ b & c) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, d + first | 0, c, b, a, first + second | 0];
  }
  return [a, b, c, d, e, f, g, h].map((word, index) => word + state[index] | 0);
}
function sha256(text) {
  const view = pad(new TextEncoder().encode(text));
  let state = START;
  for (let offset = 0; offset < view.byteLength; offset += 64) {
    state = compress(state, schedule(view, offset));
  }
  return state.map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

// src/origin.js
var ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
var LENGTH = 22;
function makeSecret() {
  const bytes = crypto.getRandomValues(new Uint8Array(LENGTH));
  return Array.from(bytes, (byte) => ALPHABET[byte & 63]).join("");
}
function originHash(secret) {
  return sha256(secret).slice(0, 16);
}

// src/resets.js
var KEY = "realtime:reset:";
var KEEP = 3e5;
var Resets = class {
  #clock;
  #storage;
  /**
   * @param {Clock} clock
   * @param {Pick<Storage, "getItem" | "setItem"> | null} storage The tab's; null where it has none.
   */
  constructor(clock2, storage) {
    this.#clock = clock2;
    this.#storage = storage;
  }
  /**
   * @param {string} topic
   * @param {(string | null | undefined)[]} refused The place itself, and that of the page's source.
   */
  note(topic, refused) {
    try {
      this.#storage?.setItem(KEY + topic, JSON.stringify([this.#clock.now(), ...refused]));
    } catch {
    }
  }
  /** @param {string} topic @param {string} since @returns {boolean} */
  knows(topic, since) {
    try {
      const [at, ...refused] = JSON.parse(this.#storage?.getItem(KEY + topic) ?? "[]");
      return refused.includes(since) && Math.abs(this.#clock.now() - at) < KEEP;
    } catch {
      return false;
    }
  }
};

// src/listeners.js
var Listeners = class {
  /** @type {{run: (...values: A) => unknown}[]} */
  #all = [];
  get size() {
    return this.#all.length;
  }
  /**
   * Add a function, a second time as well; the answer removes it.
   *
   * @param {(...values: A) => unknown} run
   * @returns {() => void}
   */
  add(run) {
    if (typeof run !== "function") throw new TypeError("a listener must be a function");
    const entry = { run };
    this.#all = [...this.#all, entry];
    return () => {
      this.#all = this.#all.filter((one) => one !== entry);
    };
  }
  /** @param {A} values */
  call(...values) {
    for (const entry of this.#all) {
      if (!this.#all.includes(entry)) continue;
      try {
        entry.run(...values);
      } catch (error) {
        report(error);
      }
    }
  }
  clear() {
    this.#all = [];
  }
};
function report(error) {
  if (typeof reportError === "function") reportError(error);
  else console.error(error);
}

// src/topic.js
var Topic = class {
  #following;
  /** @type {Map<string, Listeners<[any, Event]>>} */
  #listeners = /* @__PURE__ */ new Map();
  /** @type {Listeners<[]>} */
  #resets = new Listeners();
  /** @type {Listeners<[Denial]>} */
  #denials = new Listeners();
  /** @param {Following} following */
  constructor(following) {
    this.#following = following;
    following.add(this);
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
    if (!listeners) this.#listeners.set(event, listeners = new Listeners());
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
    for (const listeners of [...this.#listeners.values(), this.#resets, this.#denials]) {
      listeners.clear();
    }
    this.#following.remove(this);
  }
  /** @internal @param {Following} following It follows the same topic. */
  move(following) {
    this.#following = following;
    following.add(this);
  }
  /** @internal @param {Event} event */
  deliver(event) {
    this.#listeners.get(event.event)?.call(event.data, event);
    this.#listeners.get("*")?.call(event.data, event);
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
};

// src/websocket.js
var VERSION = 1;
var websocket = {
  name: "websocket",
  open(base, frame, closed) {
    const url = new URL(`ws?v=${VERSION}`, base);
    url.protocol = base.protocol.replace("http", "ws");
    const socket = new WebSocket(url);
    socket.onmessage = ({ data }) => {
      const value = parse(data);
      if (value) frame(value);
    };
    socket.onclose = ({ code }) => closed(code);
    return {
      send(value) {
        if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(value));
      },
      close() {
        socket.onmessage = socket.onclose = null;
        socket.close();
      }
    };
  }
};
function parse(data) {
  try {
    const value = JSON.parse(String(data));
    return value && typeof value.type === "string" ? value : null;
  } catch {
    return null;
  }
}

// src/client.js
var StateChange = class extends Event {
  /** @param {State} state @param {number | null} code @param {string | null} reason */
  constructor(state, code, reason) {
    super("statechange");
    this.state = state;
    this.code = code;
    this.reason = reason;
  }
};
var UserChange = class extends Event {
  /** @param {string | null} userId @param {string | null} previous */
  constructor(userId, previous) {
    super("userchange");
    this.userId = userId;
    this.previous = previous;
  }
};
var Client = class extends EventTarget {
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
  #followings = /* @__PURE__ */ new Set();
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
  constructor({ url, user, transport = websocket, clock: clock2 = clock, storage = tabStorage() }) {
    super();
    const secret = makeSecret();
    this.userId = user;
    this.headers = Object.freeze({ "X-Realtime-Origin": secret });
    this.#transport = transport;
    this.#commands = new Commands(clock2);
    this.#context = {
      clock: clock2,
      commands: this.#commands,
      resets: new Resets(clock2, storage),
      originHash: originHash(secret),
      forget: (following) => this.#forget(following)
    };
    this.connector = new Connector(transport, folder(url), clock2, {
      state: (state, code, reason) => this.#changed(state, code, reason),
      up: (welcome) => this.#up(welcome),
      down: () => this.#down(),
      frame: (frame) => this.#frame(frame)
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
    if (start.last !== void 0 && (start.since ?? null) !== null) {
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
    return name === null ? void 0 : [...this.#followings].find((one) => one.name === name);
  }
  get #userName() {
    return this.#offered.find((name) => name.startsWith("user.")) ?? null;
  }
  /** @param {string | null} name @param {Start} start */
  #follow(name, start) {
    const following = new Following(this.#context, name, start);
    this.#followings.add(following);
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
    if (previous !== void 0 && previous !== this.userId) {
      this.dispatchEvent(new UserChange(welcome.user ?? null, previous));
    }
  }
  #renameUser() {
    const [user, name] = [this.#user, this.#userName];
    if (!user || !this.#followings.has(user)) return;
    const twin = name === user.name ? void 0 : this.#find(name);
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
    if (frame.id !== void 0 && this.#commands.answer(frame)) return;
    for (const following of [...this.#followings]) {
      if (following.name === frame.topic) following.receive(frame);
    }
  }
};
function folder(url) {
  const base = new URL(url, globalThis.document?.baseURI);
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  return base;
}
function tabStorage() {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    return null;
  }
}

// src/page.js
function watchPage(connector, window2 = globalThis.window) {
  if (!window2) return;
  const { document } = window2;
  const wake = () => connector.wake();
  window2.addEventListener("online", wake);
  window2.addEventListener("offline", wake);
  document.addEventListener("resume", wake);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") connector.wake();
  });
  window2.addEventListener("pagehide", () => connector.pause());
  window2.addEventListener("pageshow", ({ persisted }) => {
    if (persisted) connector.resume();
  });
}

// src/index.js
function createClient(options) {
  const client = new Client(options);
  watchPage(client.connector);
  return (
    /** @type {PublicClient} */
    /** @type {EventTarget} */
    client
  );
}
function pageClient() {
  const script = globalThis.document?.querySelector("script[data-realtime-url]");
  if (!(script instanceof HTMLElement)) return void 0;
  const { realtimeUrl = "", realtimeUser } = script.dataset;
  const user = realtimeUser === void 0 ? void 0 : realtimeUser || null;
  window.realtime ??= createClient({ url: realtimeUrl, user });
  return window.realtime;
}
var realtime = pageClient();
export {
  RealtimeError,
  createClient,
  realtime
};
