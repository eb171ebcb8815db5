// The client of django-channels-realtime, BSD-3-Clause. Made from js/src by `make js`; do not edit.

// src/links.js
var VERSION = 1;
function parse(data) {
  try {
    const value = JSON.parse(String(data));
    return value && typeof value.type === "string" ? value : null;
  } catch {
    return null;
  }
}

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

// src/places.js
var CURSOR = /^([A-Za-z0-9_-]{1,32})\.(0|[1-9][0-9]{0,17})\.([0-9a-f]{8})$/;
function isCursor(since) {
  return typeof since === "string" && CURSOR.test(since);
}
function compose(places, told = "", asked = []) {
  const epochs = /* @__PURE__ */ new Map();
  const add = (epoch, entry) => {
    epochs.set(epoch, [...epochs.get(epoch) ?? [], entry]);
  };
  const keys = new Set([...asked].map((topic) => base64(sha256(topic))));
  for (const [topic, cursor] of places) {
    const [, epoch, seq, tag] = (
      /** @type {RegExpExecArray} */
      CURSOR.exec(cursor)
    );
    add(epoch, `${base64(sha256(topic))}${base64(tag)}${seq}`);
  }
  for (const group2 of told.split("!")) {
    const [epoch, entries] = group2.split("~");
    for (const entry of entries?.split(".") ?? []) {
      if (!keys.has(entry.slice(0, 6))) add(epoch, entry);
    }
  }
  return [...epochs].map(([epoch, entries]) => `${epoch}~${entries.join(".")}`).join("!");
}
function base64(digits) {
  const bytes = [0, 2, 4, 6].map((at) => parseInt(digits.slice(at, at + 2), 16));
  const text = btoa(String.fromCharCode(...bytes));
  return text.slice(0, 6).replaceAll("+", "-").replaceAll("/", "_");
}

// src/http.js
var GAP = 50;
var LONG = 8e3;
var MOMENT = /^@\d{1,12}(\.\d{1,9})?$/;
var FETCH = { cache: "no-store", credentials: "include" };
var CODES = { bad: 4400, signed_out: 4401, forbidden: 4403, version: 4406, limit: 4429 };
var Refusal = class extends Error {
  /** @param {number} status @param {any} error What our server says about it; null if it is not ours. */
  constructor(status, error = null) {
    super(`HTTP ${status}`);
    this.status = status;
    this.error = error;
  }
};
var Ended = class extends Error {
};
var HttpLink = class {
  #run;
  #base;
  #hearing;
  #tools;
  /** @type {Map<string, Entry>} */
  #entries = /* @__PURE__ */ new Map();
  /** @type {Map<string, Entry>} Those that the request under way names. */
  #asked = /* @__PURE__ */ new Map();
  #request = new AbortController();
  /** @type {(() => void) | null} */
  #planned = null;
  #askedAt = Number.NEGATIVE_INFINITY;
  #length = 0;
  // of the URL of the request under way
  #isBare = false;
  // something on the way takes the header with the places off
  #commands = new AbortController();
  #isOver = false;
  /** @type {string | null | undefined} */
  #user;
  /** @type {string | null} */
  #closing = null;
  /** What a poll said where the page is, in one text: in the topics and in who is on them. */
  told = "";
  /** @param {Run} run @param {URL} base @param {Hearing} hearing @param {Tools} tools */
  constructor(run, base, hearing, tools) {
    this.#run = run;
    this.#base = base;
    this.#hearing = hearing;
    this.#tools = tools;
    this.#ask();
  }
  /** Whether an answer is still to come, so that the next request must not wait for events. */
  get isAsking() {
    if (this.#user === void 0 || this.#planned) return true;
    return [...this.#asked.values()].some(({ isLive }) => !isLive);
  }
  get clock() {
    return this.#tools.clock;
  }
  /** What the page is known by; to another origin it would need a permission of its own. */
  get pageHeaders() {
    return this.#tools.headers;
  }
  get isSameOrigin() {
    return this.#base.origin === globalThis.location?.origin;
  }
  /** @param {Frame} frame */
  send(frame) {
    const { type, id, topic, since, last } = frame;
    if (type === "subscribe") this.#entries.set(topic, { id, isLive: false, place: { since, last } });
    else if (type === "unsubscribe") {
      this.#entries.delete(topic);
      this.#hearing.frame({ type: "unsubscribed", id, topic, reason: "asked" });
    } else if (type !== "ping") return void this.#command(frame);
    this.#plan();
  }
  close() {
    this.leave();
    this.#commands.abort();
  }
  leave() {
    this.#isOver = true;
    this.#planned?.();
    this.#request.abort();
  }
  #plan() {
    if (this.#planned || this.#isOver) return;
    const wait = Math.max(0, this.#askedAt + GAP - this.clock.now());
    this.#planned = this.clock.after(Math.min(wait, GAP), () => this.#ask());
  }
  #ask() {
    this.#planned = null;
    this.#askedAt = this.clock.now();
    this.#request.abort();
    this.#request = new AbortController();
    this.#asked = new Map(this.#entries);
    const { signal } = this.#request;
    this.#run(this, signal).catch((error) => {
      if (!signal.aborted && !this.#isOver) this.#failed(error);
    });
  }
  /**
   * Ask for the topics at their places.
   *
   * @param {string} path
   * @param {Record<string, string>} fields
   * @param {AbortSignal} signal
   * @param {Record<string, string>} [headers]
   * @returns {Promise<Response>} It rejects with a `Refusal`, or with what `fetch()` says.
   */
  get(path, fields, signal, headers = {}) {
    const url = new URL(path, this.#base);
    const query = new URLSearchParams({ v: String(VERSION), ...fields });
    const held = this.#held;
    if (!this.#asked.size) query.append("topic", "");
    for (const topic of this.#asked.keys()) query.append("topic", topic);
    for (
      const field of
      /** @type {const} */
      ["since", "last"]
    ) {
      for (const value of this.#values(field)) query.append(field, value);
    }
    url.search = String(query);
    this.#length = url.pathname.length + url.search.length;
    const places = held.length && { "Last-Event-ID": compose(held, this.told, this.#asked.keys()) };
    return this.#fetch(url, { headers: { ...headers, ...places }, signal });
  }
  /** @returns {[string, string][]} the topics whose places go into the header, and the places. */
  get #held() {
    const held = [];
    for (const [topic, { place }] of this.#asked) {
      if (!this.#isBare && isCursor(place.since)) held.push([topic, place.since]);
    }
    return held;
  }
  /**
   * Return a field's values for the URL: one where all topics without a place have it.
   *
   * @param {"since" | "last"} field @returns {string[]}
   */
  #values(field) {
    const held = new Map(this.#held);
    const all = [...this.#asked].map(([topic, { place }]) => {
      return held.has(topic) ? null : String(place[field] ?? "");
    });
    const values = new Set(all.filter((value) => value !== null));
    const [first = ""] = values;
    if (values.size < 2 && !first) return [];
    if (values.size === 1 && (field === "last" || MOMENT.test(first))) return [first];
    return all.map((value) => value ?? "");
  }
  /** @param {URL} url @param {RequestInit} options */
  async #fetch(url, options) {
    const token = await this.#tools.credentials.get();
    const headers = { ...options.headers, ...token !== null && { Authorization: `Bearer ${token}` } };
    const response = await fetch(url, { ...options, ...FETCH, headers });
    if (response.ok || response.status === 304) {
      this.#tools.credentials.taken();
      return response;
    }
    throw new Refusal(response.status, await ours(response));
  }
  // Frames
  /** @param {Frame} frame Of the request under way. */
  take(frame) {
    const { type, topic } = frame;
    if (type === "welcome") return this.#welcome(frame);
    if (type === "closing") this.#closing = frame.reason;
    if (typeof topic !== "string") return this.#hearing.frame(frame);
    const entry = this.#asked.get(topic);
    if (!entry || entry !== this.#entries.get(topic)) return;
    const { isLive, id } = entry;
    if (type === "subscribed") {
      if (this.#isStripped(entry, frame)) return;
      entry.isLive = true;
      entry.place = { since: frame.cursor };
      if (!isLive) this.#hearing.frame({ ...frame, id });
      else if (frame.recovered === false) {
        const { cursor } = frame;
        this.#hearing.frame({ type: "reset", topic, cursor, reason: "trimmed" });
      }
    } else if (type === "error" || type === "unsubscribed") {
      this.#entries.delete(topic);
      const { code, reason = code, message } = frame;
      if (isLive) this.#hearing.frame({ type: "unsubscribed", topic, reason, message });
      else this.#hearing.frame({ ...frame, id });
    } else {
      if (frame.cursor) entry.place = { since: frame.cursor };
      this.#hearing.frame(frame);
    }
  }
  /**
   * Ask again for a topic whose place did not reach the server, which begins with what is new then.
   *
   * @param {Entry} entry @param {Frame} subscribed @returns {boolean} whether it is so.
   */
  #isStripped(entry, { topic, recovered }) {
    if (this.#isBare || !isCursor(entry.place.since) || typeof recovered === "boolean") return false;
    for (const [name, one] of this.#asked) {
      if (this.#entries.get(name) === one) this.#entries.set(name, { ...one });
    }
    this.#isBare = true;
    this.#plan();
    return true;
  }
  /** @param {Frame} welcome */
  #welcome(welcome) {
    const user = welcome.user ?? null;
    if (this.#user !== void 0 && this.#user !== user) return this.#end(1012);
    this.#user = user;
    this.#hearing.frame(welcome);
  }
  // The end
  /** @param {unknown} error */
  #failed(error) {
    if (error instanceof Ended) return this.#end(CODES[this.#closing ?? ""] ?? 1006);
    if (!(error instanceof Refusal)) return this.#end(1006, "away");
    if (error.error) return this.#refused(error);
    if (this.#isTooLong(error.status)) return this.#shorten();
    this.#end(1006, faultOf(error.status));
  }
  /** @param {number} status Of something in between, or of a server that read no further. */
  #isTooLong(status) {
    const says = [414, 431].includes(status) || status === 400 && this.#length > LONG;
    return says && this.#asked.size > 0;
  }
  /** Leave out topics, the newest first, until what is asked for fits, and ask again. */
  #shorten() {
    const most = this.#length > LONG ? LONG : this.#length / 2;
    let length = this.#length;
    for (const topic of [...this.#asked.keys()].reverse()) {
      this.take({ type: "error", topic, code: "too_many_topics", message: TOO_LONG, retry: false });
      length -= String(new URLSearchParams({ topic })).length + 1;
      if (length <= most) break;
    }
    this.#plan();
  }
  /** @param {Refusal} refusal Our server's. */
  #refused({ status, error }) {
    const { code, topic } = error;
    const blamed = topic ? [topic] : this.#blamed(status, code);
    if (blamed.length && [400, 403].includes(status)) {
      for (const topic2 of blamed) this.take({ ...error, topic: topic2 });
      return this.#plan();
    }
    if (error.retry === true && error.retry_after) {
      this.#hearing.frame({ type: "closing", reason: code, retry_after: error.retry_after });
    }
    if (status === 401) this.#end(4401);
    else if (status === 403) this.#end(4403);
    else if (code === "bad_version") this.#end(4406);
    else this.#end(1006, faultOf(status));
  }
  /** @param {number} status @param {string} code @returns {string[]} whose fault a refusal is. */
  #blamed(status, code) {
    if (code === "forbidden") return [...this.#asked.keys()];
    if (status !== 400 || code === "bad_version") return [];
    return [...this.#asked].filter(([, { isLive }]) => !isLive).map(([topic]) => topic);
  }
  /** @param {number} code @param {Fault} [fault] */
  #end(code, fault) {
    if (this.#isOver) return;
    this.close();
    this.#hearing.closed(code, fault);
  }
  // Commands
  /** Run one, for as long as it takes and the connection lasts. @param {Frame} frame */
  async #command(frame) {
    const { id } = frame;
    let answer = { type: "error", code: "disconnected", message: LOST, retry: false };
    try {
      answer = await this.#post(frame, this.#commands.signal);
    } catch (error) {
      if (error instanceof Refusal) answer = error.error ?? { ...answer, message: messageOf(error) };
    }
    this.#hearing.frame({ ...answer, id });
  }
  /** @param {Frame} frame @param {AbortSignal} signal @returns {Promise<Frame>} */
  async #post(frame, signal) {
    const headers = { "Content-Type": "application/json" };
    const options = { method: "POST", headers, signal, body: JSON.stringify(frame) };
    const url = new URL(`send?v=${VERSION}`, this.#base);
    try {
      return await (await this.#fetch(url, options)).json();
    } catch (error) {
      const isRefused = error instanceof Refusal && error.status === 401;
      if (!isRefused || !this.#tools.credentials.renew()) throw error;
      return await (await this.#fetch(url, options)).json();
    }
  }
};
var LOST = "the connection broke before the answer came; the command may have been run";
var UNSENT = "something between the page and the server refused the command";
var TOO_LONG = "the topics of this page do not fit into a URL that a proxy takes: follow fewer, give them shorter names, or raise the proxy's limit (nginx: large_client_header_buffers)";
var messageOf = ({ status }) => status < 500 ? UNSENT : LOST;
function faultOf(status) {
  const isPassing = status < 500 ? [408, 429].includes(status) : ![501, 505].includes(status);
  return isPassing ? "away" : "blocked";
}
async function ours(response) {
  try {
    const error = await response.json();
    if (error?.type !== "error" || typeof error.code !== "string") return null;
    const seconds = Number(response.headers.get("Retry-After"));
    return seconds > 0 ? { ...error, retry_after: seconds } : error;
  } catch {
    return null;
  }
}

// src/polling.js
var WAIT = 25;
var PAUSE = 3e3;
var PATIENCE = 1e4;
var longpoll = transport("longpoll", WAIT);
var poll = transport("poll", 0);
function transport(name, wait) {
  return {
    name,
    patience: PATIENCE,
    isStream: false,
    open: (base, hearing, tools) => new HttpLink((link, signal) => ask(link, signal, wait), base, hearing, tools)
  };
}
async function ask(link, signal, wait) {
  const { clock: clock2 } = link;
  let etag = null;
  for (; ; ) {
    const seconds = link.isAsking ? 0 : wait;
    const from = clock2.now();
    const known = etag !== null && !wait && !link.isAsking ? { "If-None-Match": etag } : void 0;
    const headers = { ...known, ...link.isSameOrigin && link.pageHeaders };
    const response = await link.get("poll", { wait: String(seconds) }, signal, headers);
    const answer = response.status === 304 ? NOTHING : read(await response.text());
    signal.throwIfAborted();
    if (response.status !== 304) {
      etag = response.headers.get("ETag");
      link.told = answer.cursor ?? "";
    }
    for (const frame of inOrder(answer)) {
      link.take(frame);
      signal.throwIfAborted();
    }
    link.take({ type: "heartbeat" });
    if (seconds && isEmpty(answer) && clock2.now() - from < seconds * 1e3 / 2) {
      throw new Refusal(501);
    }
    if (answer.more || wait && !link.isAsking) continue;
    const pause = PAUSE * (2 + 2 * clock2.random()) / 3;
    await new Promise((go) => clock2.after(pause, () => go(null)));
    signal.throwIfAborted();
  }
}
var NOTHING = { events: [], frames: [] };
function read(text) {
  try {
    const answer = JSON.parse(text);
    if (Array.isArray(answer.events) && Array.isArray(answer.frames)) return answer;
  } catch {
  }
  throw new Refusal(415);
}
function isEmpty({ events, frames }) {
  const isNews = ({ type, recovered }) => type !== "welcome" && (type !== "subscribed" || recovered === false);
  return !events.length && !frames.some(isNews);
}
function inOrder({ events, frames }) {
  const reset = new Set(frames.filter(({ type }) => type === "reset").map(({ topic }) => topic));
  return [...frames, ...events.filter(({ topic }) => !reset.has(topic))];
}

// src/sse.js
var sse = {
  name: "sse",
  patience: 4e3,
  // a proxy that holds the stream back until it ends brings nothing
  isStream: true,
  isStalling: true,
  open: (base, hearing, tools) => new HttpLink(stream, base, hearing, tools)
};
async function stream(link, signal) {
  const response = await link.get("sse", { ids: "0" }, signal);
  const isStream = response.headers.get("Content-Type")?.startsWith("text/event-stream");
  if (!isStream || !response.body) throw new Refusal(415);
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const lines = makeSplitter();
  let data = [];
  for (; ; ) {
    const { done, value } = await reader.read();
    if (signal.aborted || done) throw new Ended();
    for (const line of lines(decoder.decode(value, { stream: true }))) {
      if (line.startsWith("data:")) data.push(line.slice(5));
      if (line) continue;
      const frame = data.length ? parse(data.join("\n")) : null;
      data = [];
      if (frame) link.take(frame);
      if (signal.aborted) throw new Ended();
    }
  }
}
function makeSplitter() {
  let rest = "";
  return (text) => {
    const lines = (rest + text).split(/\r?\n/);
    rest = lines.pop() ?? "";
    return lines;
  };
}

// src/websocket.js
var AUTH = 0;
var websocket = {
  name: "websocket",
  patience: 5e3,
  isStream: true,
  open(base, { frame, closed }, { credentials }) {
    const url = new URL(`ws?v=${VERSION}`, base);
    url.protocol = base.protocol.replace("http", "ws");
    const socket = new WebSocket(url);
    const send = (value) => {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(value));
    };
    const close = () => {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    };
    const hear = (value) => frame(value);
    const end = (code) => {
      if (!socket.onclose) return;
      close();
      closed(code);
    };
    const listen = (hear2) => {
      socket.onmessage = ({ data }) => {
        const value = parse(data);
        if (value) hear2(value);
      };
    };
    socket.onclose = ({ code }) => closed(code);
    if (!credentials.exist) listen(hear);
    else {
      listen((value) => {
        if (value.type === "closing") hear(value);
        if (value.id !== AUTH) return;
        if (value.type === "ok") listen(hear);
        else end(value.code === "unauthorized" ? 4401 : 1006);
      });
      const sign = (token) => send({ type: "auth", id: AUTH, token });
      socket.onopen = () => void credentials.get().then(sign, () => end(1006));
    }
    return { send, close };
  }
};

// src/choice.js
var transports = [websocket, sse, longpoll, poll];
var KEY = "realtime:transport";
var FAILURES = 3;
var SHORT = 1e4;
var SHORTS = 3;
var TRIAL = 6e4;
var FIRST_RETRY = 3e4;
var LAST_RETRY = 6e5;
var Choice = class {
  #all;
  #clock;
  #storage;
  #index = 0;
  // the one to try, or in use
  #home = 0;
  // the one that attempts begin with
  #reached = 0;
  // the last one that was tried instead of it
  /** @type {Set<Transport>} */
  #proven = /* @__PURE__ */ new Set();
  #failures = 0;
  #shorts = 0;
  #retries = 0;
  /**
   * @param {string} wanted `auto`, or the name of the only one that is used.
   * @param {Clock} clock
   * @param {Pick<Storage, "getItem" | "setItem"> | null} storage Remembers the one that worked.
   */
  constructor(wanted, clock2, storage) {
    this.#clock = clock2;
    this.#storage = storage;
    this.#all = wanted === "auto" ? transports : transports.filter(({ name }) => name === wanted);
    if (!this.#all.length) {
      const names = ["auto", ...transports.map(({ name }) => name)].join(", ");
      throw new TypeError(`no transport is called "${wanted}"; there are ${names}`);
    }
    const found = this.#all.findIndex(({ name }) => name === this.#remembered);
    this.#index = this.#home = this.#reached = Math.max(0, found);
  }
  /** The one to try, or in use. */
  get current() {
    return (
      /** @type {Transport} */
      this.#all[this.#index]
    );
  }
  /** Whether there is another one to try if this one fails. */
  get hasOther() {
    return this.#all.length > 1;
  }
  /** Those that are worth another try while this one is in use, the best one first. */
  get better() {
    return this.#all.slice(0, this.#index);
  }
  /** How long to wait with that, in milliseconds. */
  get retryDelay() {
    const delay = Math.min(LAST_RETRY, FIRST_RETRY * 2 ** this.#retries);
    return delay * (0.5 + this.#clock.random());
  }
  /** The better ones are being tried; the next time is later, until one of them has lasted. */
  seeks() {
    this.#retries += 1;
  }
  /** @param {Transport} transport It works, and is the one in use. */
  works(transport2) {
    this.#index = Math.max(0, this.#all.indexOf(transport2));
    if (this.#index >= this.#home) this.#settle();
    this.#failures = 0;
    this.#reached = this.#home;
    this.#proven.add(transport2);
  }
  /** The one in use has worked that long, and may have ended. @param {number} ms */
  lasted(ms) {
    if (ms < TRIAL || this.#index >= this.#home) return;
    this.#settle();
    this.#retries = 0;
  }
  /**
   * The current one failed, or ended.
   *
   * @param {number | null} lasted How many milliseconds it worked; null if it did not.
   * @param {Fault} [fault]
   * @returns {boolean} whether to try another one, at once.
   */
  failed(lasted, fault) {
    if (lasted !== null) return this.#ended(lasted, fault);
    if (this.#index !== this.#home) {
      if (fault !== "away") return this.#step();
      this.#index = this.#home;
      return false;
    }
    this.#failures += 1;
    const isNew = this.#failures === 1 && !this.#proven.has(this.current) && fault !== "away";
    if (fault !== "blocked" && !isNew && this.#failures % FAILURES) return false;
    this.#index = this.#reached;
    return this.#step();
  }
  /** @param {number} lasted @param {Fault} [fault] @returns {boolean} */
  #ended(lasted, fault) {
    this.#shorts = lasted < SHORT ? this.#shorts + 1 : 0;
    const isOnTrial = this.#index < this.#home;
    if (!isOnTrial && fault !== "blocked" && this.#shorts < SHORTS) return false;
    this.#shorts = 0;
    if (!isOnTrial) return this.#step();
    this.#index += 1;
    return true;
  }
  /** @returns {boolean} whether there is one that was not tried instead of the one at home. */
  #step() {
    this.#index = this.#reached = (this.#index + 1) % this.#all.length;
    return this.#index !== this.#home;
  }
  #settle() {
    this.#home = this.#index;
    if (!this.hasOther) return;
    try {
      this.#storage?.setItem(KEY, this.current.name);
    } catch {
    }
  }
  get #remembered() {
    try {
      return this.#storage?.getItem(KEY);
    } catch {
      return null;
    }
  }
};

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
var PATIENCE2 = 1e4;
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
    try {
      this.#send({ id, ...frame });
    } catch (error) {
      this.#open.delete(id);
      throw error;
    }
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
    const cancel = this.#clock.after(PATIENCE2, () => fail("timeout"));
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
  #choice;
  #base;
  #tools;
  #clock;
  #hearer;
  #backoff;
  /** @type {Link | null} */
  #link = null;
  #dropCandidate = () => {
  };
  // ends the search for a better transport
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
  /** @param {Choice} choice @param {URL} base @param {Tools} tools @param {Hearer} hearer */
  constructor(choice, base, tools, hearer) {
    this.#choice = choice;
    this.#base = base;
    this.#tools = tools;
    this.#clock = tools.clock;
    this.#hearer = hearer;
    this.#backoff = new Backoff(tools.clock);
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
    const { current, hasOther } = this.#choice;
    const fault = current.isStream ? void 0 : "away";
    this.#timer = this.#clock.after(hasOther ? current.patience : CONNECT, () => this.#lost(fault));
    this.#link = current.open(
      this.#base,
      {
        frame: (frame) => this.#receive(frame),
        closed: (code, fault2) => this.#closed(code, fault2)
      },
      this.#tools
    );
  }
  // Another transport
  #seekLater() {
    if (!this.#choice.better.length) return;
    this.#dropCandidate = this.#clock.after(this.#choice.retryDelay, () => {
      this.#choice.seeks();
      this.#seek(this.#choice.better);
    });
  }
  /** @param {Transport[]} transports */
  #seek([first, ...others]) {
    if (first) this.move(first, () => this.#seek(others));
    else this.#seekLater();
  }
  /**
   * Connect over another transport as well, and change to it when it works.
   *
   * @param {Transport} transport
   * @param {() => void} [failed]
   */
  move(transport2, failed = () => this.#seekLater()) {
    this.#dropCandidate();
    if (this.state !== "connected" || this.#closing) return;
    let isOurs = false;
    const end = () => {
      cancel();
      link.close();
    };
    const fail = () => {
      end();
      failed();
    };
    const cancel = this.#clock.after(transport2.patience, fail);
    const link = transport2.open(
      this.#base,
      {
        frame: (frame) => {
          if (!isOurs && frame.type === "welcome") {
            isOurs = true;
            cancel();
            this.#adopt(transport2, link);
          }
          if (isOurs) this.#receive(frame);
        },
        closed: (code, fault) => isOurs ? this.#closed(code, fault) : fail()
      },
      this.#tools
    );
    this.#dropCandidate = end;
  }
  /** @param {Transport} transport @param {Link} link Where the welcome comes from in a moment. */
  #adopt(transport2, link) {
    const old = this.#link;
    this.#link = link;
    this.#closing = null;
    this.#choice.lasted(this.#clock.now() - this.#upAt);
    this.#upAt = this.#clock.now();
    this.#choice.works(transport2);
    this.#dropCandidate = () => {
    };
    this.#seekLater();
    this.#hearer.down(old?.leave !== void 0);
    if (old?.leave) old.leave();
    else old?.close();
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
    this.#tools.credentials.taken();
    if (this.state !== "connected") {
      this.#upAt = this.#clock.now();
      this.#choice.works(this.#choice.current);
      this.#seekLater();
    }
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
      else this.#lost(this.#choice.current.isStalling ? "blocked" : void 0);
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
  /** @param {Fault} [fault] */
  #lost(fault) {
    this.#link?.close();
    this.#closed(1006, fault);
  }
  /** @param {number} code @param {Fault} [fault] */
  #closed(code, fault) {
    const reason = this.#closing?.reason ?? null;
    const after = this.#closing?.retry_after;
    const wasUp = this.state === "connected";
    const lasted = wasUp ? this.#clock.now() - this.#upAt : null;
    if (lasted !== null && lasted > STABLE) this.#backoff.reset();
    const isAnnounced = this.#closing !== null;
    this.#drop();
    const isRenewed = code === 4401 && this.#tools.credentials.renew();
    if (code >= 4400 && code <= 4499 && !isRenewed) {
      return this.#change(code === 4401 || code === 4403 ? "denied" : "closed", code, reason);
    }
    const isOwn2 = isAnnounced || isRenewed;
    if (!isOwn2 && this.#choice.failed(lasted, fault)) return this.#connect();
    this.#told = Number.isFinite(after) && after >= 0;
    const delay = this.#told ? Math.min(after, RETRY_AFTER) * 1e3 : this.#backoff.next();
    this.#timer = this.#clock.after(delay, () => this.#connect());
    this.#change("waiting", code, reason);
  }
  #drop() {
    this.#timer();
    this.#dropCandidate();
    const [link, wasUp] = [this.#link, this.state === "connected"];
    this.#link = null;
    link?.close();
    if (wasUp) {
      this.#choice.lasted(this.#clock.now() - this.#upAt);
      this.#hearer.down();
    }
    this.#closing = null;
  }
  /** @param {State} state @param {number | null} code @param {string | null} reason */
  #change(state, code, reason) {
    if (this.state === state) return;
    this.state = state;
    this.#hearer.state(state, code, reason);
  }
};

// src/credentials.js
var Credentials = class {
  #source;
  /** @type {Promise<string> | null} */
  #token = null;
  #isFresh = false;
  // asked for since the server last took one
  /** @param {Token | undefined} source */
  constructor(source) {
    this.#source = source;
  }
  /** Whether there is a token at all. */
  get exist() {
    return this.#source !== void 0;
  }
  /** @returns {Promise<string | null>} null if there is no token; it rejects if there is none now. */
  async get() {
    const source = this.#source;
    if (source === void 0) return null;
    this.#token ??= Promise.resolve(typeof source === "function" ? source() : source);
    try {
      return await this.#token;
    } catch (error) {
      this.#token = null;
      throw error;
    }
  }
  /** The server took it. */
  taken() {
    this.#isFresh = false;
  }
  /** The server refused it. @returns {boolean} whether another one can be had. */
  renew() {
    if (typeof this.#source !== "function" || this.#isFresh) return false;
    this.#isFresh = true;
    this.#token = null;
    return true;
  }
};

// src/members.js
var Members = class {
  /** @type {Map<string, Member>} */
  #all = /* @__PURE__ */ new Map();
  /** @type {Map<string, Member> | null} A list of which parts are still to come. */
  #coming = null;
  /** @type {number | null} Of the list that is coming. */
  #comingVersion = null;
  /** @type {number | null} Of the last change that is in the list; null while there is none. */
  #version = null;
  /** @returns {Member[]} in the order in which they came. */
  get list() {
    return [...this.#all.values()];
  }
  /** Was the list told? */
  get isKnown() {
    return this.#version !== null;
  }
  /** Forget them; somebody else has another topic. */
  clear() {
    this.#all.clear();
    this.#coming = this.#version = null;
  }
  /** The connection broke: what is not told yet comes anew. */
  down() {
    this.#coming = null;
  }
  /**
   * @param {Frame} frame A `members`, `join` or `leave`.
   * @returns {{change: Change | null} | "missed" | null} what is new; null if nothing is.
   */
  receive(frame) {
    if (frame.type === "members") return this.#list(frame);
    if (this.#version === null || frame.version <= this.#version) return null;
    if (frame.version > this.#version + 1) return "missed";
    const { type, member, version } = (
      /** @type {Frame & Change} */
      frame
    );
    this.#version = version;
    if (type === "join") this.#all.set(member.id, member);
    else this.#all.delete(member.id);
    return { change: { type, member } };
  }
  /** @param {Frame} frame */
  #list(frame) {
    if (frame.version !== this.#comingVersion) this.#coming = null;
    this.#comingVersion = frame.version;
    this.#coming ??= /* @__PURE__ */ new Map();
    for (const member of frame.members) this.#coming.set(member.id, member);
    if (frame.more) return null;
    this.#all = this.#coming;
    this.#coming = null;
    this.#version = frame.version;
    return { change: null };
  }
};

// src/following.js
var JITTER = 5e3;
var Following = class {
  /** @type {string | null} */
  name;
  #context;
  #retries;
  /** @type {Group} Its place is that of the subscription. */
  #served = group();
  /** @type {Set<Group>} */
  #waiting = /* @__PURE__ */ new Set();
  #isLive = false;
  #lacking = Number.POSITIVE_INFINITY;
  // events of the replay that are still to come
  /** @type {Denial | null} */
  #denial = null;
  #attempt = {};
  // of the newest subscribe; an answer to an older one is passed over
  #cancelRetry = () => {
  };
  /** @type {Map<Topic, (string | null | undefined)[]>} Those to be reset, and why: refused places. */
  #missing = /* @__PURE__ */ new Map();
  #cancelReset = () => {
  };
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
    const place = (since ?? null) !== null ? { since } : last !== void 0 ? { last } : {};
    this.#wait({ place, seq: null, topics: /* @__PURE__ */ new Set([topic]) });
    this.#join();
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
    if (!next) return;
    this.#waiting.delete(next);
    this.#served = next;
    this.#subscribe();
  }
  #subscribe() {
    const attempt = this.#attempt = {};
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
    this.#context.commands.request({ type: "unsubscribe", topic: this.name }, () => {
    });
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
    if (error.code === "already_subscribed") return this.#repair();
    if (error.retry === true) return this.#subscribeLater();
    if (error.code !== "bad_cursor" || since === void 0) return this.#deny(
      /** @type {any} */
      error
    );
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
    if (!this.#isLive) return;
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
    if (news === "missed") this.#repair();
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
      for (const topic of [...this.#served.topics]) topic.deliver(
        /** @type {any} */
        event
      );
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
    const { clock: clock2 } = this.#context;
    if (!this.#missing.size) {
      this.#cancelReset = clock2.after(clock2.random() * JITTER, () => this.#tell());
    }
    this.#missing.set(topic, [...this.#missing.get(topic) ?? [], ...refused]);
  }
  #tell() {
    const missing = [...this.#missing];
    this.#missing.clear();
    this.#context.resets.note(String(this.name), missing.flatMap(([, refused]) => refused));
    for (const [topic] of missing) topic.reset();
  }
  /** @param {Denial} denial */
  #deny({ code, message }) {
    if (this.#denial) return;
    const denial = this.#denial = { code, message };
    for (const topic of this.#topics) topic.deny(denial);
  }
};
function group(topics = []) {
  return { place: {}, seq: null, topics: new Set(topics) };
}
var hasStart = ({ since, last }) => since !== void 0 || last !== void 0;
var isSame = (one, other) => one.since === other.since && one.last === other.last;

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
var KEY2 = "realtime:reset:";
var KEEP = 3e5;
var MOST = 50;
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
   * @param {(string | null | undefined)[]} refused The place itself, and those of the page's source.
   */
  note(topic, refused) {
    const at = this.#clock.now();
    const fresh = [...new Set(refused)].filter((since) => typeof since === "string");
    const all = [...this.#read(topic), ...fresh.map((since) => [at, since])];
    try {
      this.#storage?.setItem(keyOf(topic), JSON.stringify(all.slice(-MOST)));
    } catch {
    }
  }
  /** @param {string} topic @param {string} since @returns {boolean} */
  knows(topic, since) {
    return this.#read(topic).some(([, refused]) => refused === since);
  }
  /** @param {string} topic @returns {[number, string][]} what was refused lately, and when. */
  #read(topic) {
    try {
      const all = JSON.parse(this.#storage?.getItem(keyOf(topic)) ?? "[]");
      return all.filter(([at]) => Math.abs(this.#clock.now() - at) < KEEP);
    } catch {
      return [];
    }
  }
};
function keyOf(topic) {
  const { pathname = "", search = "" } = globalThis.location ?? {};
  return `${KEY2}${pathname}${search}:${topic}`;
}

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
  /** @type {Listeners<[Member[], Change | null]>} */
  #meetings = new Listeners();
  /** @param {Following} following @param {Start} start */
  constructor(following, start) {
    this.#following = following;
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
      this.#meetings
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
};

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
var TransportChange = class extends Event {
  /** @param {Name} transport @param {Name} previous */
  constructor(transport2, previous) {
    super("transportchange");
    this.transport = transport2;
    this.previous = previous;
  }
};
var Client = class extends EventTarget {
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
  constructor(options) {
    const { url, user, since, transport: transport2 = "auto", token } = options;
    const { clock: clock2 = clock, storage = tabStorage() } = options;
    super();
    const secret = makeSecret();
    this.since = since ?? null;
    this.userId = user;
    this.headers = Object.freeze({ "X-Realtime-Origin": secret });
    this.#choice = new Choice(transport2, clock2, storage);
    this.#transport = this.#choice.current.name;
    this.#commands = new Commands(clock2);
    this.#context = {
      clock: clock2,
      commands: this.#commands,
      resets: new Resets(clock2, storage),
      originHash: originHash(secret),
      forget: (following) => this.#forget(following)
    };
    const tools = { clock: clock2, credentials: new Credentials(token), headers: this.headers };
    this.connector = new Connector(this.#choice, folder(url), tools, {
      state: (state, code, reason) => this.#changed(state, code, reason),
      up: (welcome) => this.#up(welcome),
      down: (keepsAnswering) => this.#down(keepsAnswering),
      frame: (frame) => this.#frame(frame)
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
    const transport2 = transports.find((one) => one.name === name);
    if (transport2) this.connector.move(transport2);
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
    if (start.last !== void 0 && (start.since ?? null) !== null) {
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
    return name === null ? void 0 : [...this.#followings].find((one) => one.name === name);
  }
  get #userName() {
    return this.#offered.find((name) => name.startsWith("user.")) ?? null;
  }
  /** @param {string | null} name */
  #follow(name) {
    const following = new Following(this.#context, name);
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
    const isOver = state === "denied" || state === "closed";
    this.#commands.end(isOver ? state : null);
    if (isOver && code !== null) {
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
  #down(keepsAnswering = false) {
    this.#isUp = false;
    for (const following of this.#followings) following.down();
    if (!keepsAnswering) this.#commands.down();
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

// src/element.js
var TAG = "realtime-topic";
var OWN = "user";
var ATTRIBUTES = ["name", "since", "last"];
var Base = (
  /** @type {typeof HTMLElement} */
  globalThis.HTMLElement ?? class {
  }
);
function defineElement() {
  if (!globalThis.customElements || customElements.get(TAG)) return;
  customElements.define(TAG, RealtimeTopic);
}
var RealtimeTopic = class extends Base {
  static observedAttributes = ATTRIBUTES;
  /** @type {Topic | null} */
  #topic = null;
  /** @type {string | null} What it follows by, in one text; null if it is not in the document. */
  #followed = null;
  connectedCallback() {
    this.hidden = true;
    this.#updateSoon();
  }
  disconnectedCallback() {
    this.#updateSoon();
  }
  connectedMoveCallback() {
  }
  // by moveBefore(), which takes nothing out
  attributeChangedCallback() {
    this.#updateSoon();
  }
  /** In a moment: who is moved stays, and who gets several attributes follows once. */
  #updateSoon() {
    queueMicrotask(() => this.#update());
  }
  #update() {
    const wanted = this.isConnected ? JSON.stringify(this.#read()) : null;
    if (wanted === this.#followed) return;
    this.#followed = wanted;
    this.#topic?.unsubscribe();
    this.#topic = wanted === null ? null : this.#follow();
  }
  #read() {
    return ATTRIBUTES.map((attribute) => this.getAttribute(attribute));
  }
  /** @returns {Topic | null} null, and the console says why, if it cannot. */
  #follow() {
    const [name, since, last] = this.#read();
    const problem = problemOf(name, since, last);
    if (problem) console.error(`<${TAG}>: ${problem}`, this);
    const client = pageClient();
    if (problem || !client) return null;
    const start = last === null ? { since } : { last: Number(last) };
    const topic = name === OWN ? client.subscribeUser(start) : client.subscribe(String(name), start);
    topic.on("*", (_, event) => this.#hear(event));
    topic.onReset(() => this.#tell("reset", {}, "events were missed; fetch the state anew"));
    topic.onMembers((members, change) => this.#meet(members, change));
    topic.onDenied((denial) => this.#tell("denied", denial, denial.message));
    return topic;
  }
  /** @param {TopicEvent} event */
  #hear(event) {
    const names = this.getAttribute("on")?.match(/\S+/g);
    if (!this.isConnected || names && !names.includes(event.event)) return;
    const options = { bubbles: true, composed: true, detail: event };
    this.dispatchEvent(new CustomEvent(`realtime:${event.event}`, options));
  }
  /** @param {Member[]} members @param {Change | null} change */
  #meet(members, change) {
    if (!this.isConnected) return;
    const detail = { topic: this.#topic?.name, members, change };
    const options = { bubbles: true, composed: true, detail };
    this.dispatchEvent(new CustomEvent("realtime-members", options));
  }
  /**
   * Tell what is no event of the topic; with a hyphen, so that no name of an event can be the same.
   *
   * @param {string} what
   * @param {object} more
   * @param {string} message For the console, where no listener says that it took care.
   */
  #tell(what, more, message) {
    const topic = this.#topic?.name ?? this.getAttribute("name");
    const options = { bubbles: true, composed: true, cancelable: true, detail: { topic, ...more } };
    const isOpen = this.dispatchEvent(new CustomEvent(`realtime-${what}`, options));
    if (isOpen) console.warn(`<${TAG}>: realtime-${what}: ${topic}: ${message}`);
  }
};
function problemOf(name, since, last) {
  if (!name) return 'the attribute name is missing: a topic, such as name="orders.42"';
  if (since !== null && last !== null) return "give it since or last, not both";
  if (since === "") return "since is empty; it is a cursor, or @ and seconds since 1970";
  if (last !== null && !/^\d{1,9}$/.test(last)) return `last="${last}" is no whole number from 0 on`;
  return null;
}
var hasComplained = false;
function pageClient() {
  const client = (
    /** @type {unknown} */
    window.realtime
  );
  if (client) return (
    /** @type {Client} */
    client
  );
  if (!hasComplained) {
    console.error(
      `<${TAG}>: this page has no client. Add {% realtime_script %} to it, or <script type="module" src="…/realtime.js" data-realtime-url="/realtime/"><\/script>`
    );
  }
  hasComplained = true;
  return null;
}

// src/htmx.js
function watchHtmx(headers, document2 = globalThis.document) {
  const add = (path, request) => {
    if (!isOwn(path)) return;
    for (const [name, value] of Object.entries(headers)) request[name] ??= value;
  };
  document2?.addEventListener("htmx:configRequest", (event) => {
    const { detail } = (
      /** @type {CustomEvent} */
      event
    );
    add(detail.path, detail.headers);
  });
  document2?.addEventListener("htmx:config:request", (event) => {
    const { request } = (
      /** @type {CustomEvent} */
      event.detail.ctx
    );
    add(request.action, request.headers);
  });
}
function isOwn(path) {
  try {
    return new URL(path, document.baseURI).origin === location.origin;
  } catch {
    return false;
  }
}

// src/page.js
function watchPage(connector, window2 = globalThis.window) {
  if (!window2) return;
  const { document: document2 } = window2;
  const wake = () => connector.wake();
  window2.addEventListener("online", wake);
  window2.addEventListener("offline", wake);
  document2.addEventListener("resume", wake);
  document2.addEventListener("visibilitychange", () => {
    if (document2.visibilityState === "visible") connector.wake();
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
  watchHtmx(client.headers);
  return (
    /** @type {PublicClient} */
    /** @type {EventTarget} */
    client
  );
}
function pageClient2() {
  const script = globalThis.document?.querySelector("script[data-realtime-url]");
  if (!(script instanceof HTMLElement)) return void 0;
  const { realtimeUrl = "", realtimeUser, realtimeSince, realtimeTransport } = script.dataset;
  const user = realtimeUser === void 0 ? void 0 : realtimeUser || null;
  const transport2 = (
    /** @type {PublicOptions["transport"]} */
    realtimeTransport || "auto"
  );
  window.realtime ??= createClient({ url: realtimeUrl, user, since: realtimeSince, transport: transport2 });
  return window.realtime;
}
var realtime = pageClient2();
defineElement();
export {
  RealtimeError,
  createClient,
  realtime
};
