import { VERSION } from "./links.js";
import { compose, isCursor } from "./places.js";

/** @import {Start} from "./following.js" */
/** @import {Fault, Frame, Hearing, Link, Tools} from "./links.js" */

/**
 * @typedef {object} Entry A topic that a link follows.
 * @property {number} id Of the subscribe that is still to be answered.
 * @property {boolean} isLive Whether it was answered.
 * @property {Start} place The next request begins there.
 */

/**
 * Bring frames to a link's `take()` until the signal says that it is enough; it throws at the end.
 *
 * @typedef {(link: HttpLink, signal: AbortSignal) => Promise<never>} Run
 */

const GAP = 50; // ms between two requests for other topics, so that those of one moment go together
const LONG = 8_000; // characters of a URL that proxies take: nginx 8 KB, with method and version
const MOMENT = /^@\d{1,12}(\.\d{1,9})?$/;

// Cookies as with a WebSocket, to another origin too; and a 304 is for us, not for the browser.
/** @type {RequestInit} */
const FETCH = { cache: "no-store", credentials: "include" };

/** Codes of a WebSocket for what a stream says before it ends. @type {Record<string, number>} */
const CODES = { bad: 4400, signed_out: 4401, forbidden: 4403, version: 4406, limit: 4429 };

/** An answer that is none of what was asked for. */
export class Refusal extends Error {
  /** @param {number} status @param {any} error What our server says about it; null if it is not ours. */
  constructor(status, error = null) {
    super(`HTTP ${status}`);
    this.status = status;
    this.error = error;
  }
}

/** The server ended what it had begun. */
export class Ended extends Error {}

/**
 * Follows topics by requests that name all of them, and sends commands by requests of their own.
 *
 * The first request names no topic and brings the welcome; other topics make another request, which
 * goes on at the places where the one before it was.
 *
 * @implements {Link}
 */
export class HttpLink {
  #run;
  #base;
  #hearing;
  #tools;
  /** @type {Map<string, Entry>} */
  #entries = new Map();
  /** @type {Map<string, Entry>} Those that the request under way names. */
  #asked = new Map();
  #request = new AbortController();
  /** @type {(() => void) | null} */
  #planned = null;
  #askedAt = Number.NEGATIVE_INFINITY;
  #length = 0; // of the URL of the request under way
  #isBare = false; // something on the way takes the header with the places off
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
    if (this.#user === undefined || this.#planned) return true;
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
    // A new request is also what proves that the server is there.
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
    for (const field of /** @type {const} */ (["since", "last"])) {
      for (const value of this.#values(field)) query.append(field, value);
    }
    url.search = String(query);
    this.#length = url.pathname.length + url.search.length;
    const places = held.length && { "Last-Event-ID": compose(held, this.told, this.#asked.keys()) };
    return this.#fetch(url, { headers: { ...headers, ...places }, signal });
  }

  /** @returns {[string, string][]} the topics whose places go into the header, and the places. */
  get #held() {
    /** @type {[string, string][]} */
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
    const headers = { ...options.headers, ...(token !== null && { Authorization: `Bearer ${token}` }) };
    const response = await fetch(url, { ...options, ...FETCH, headers });
    if (response.ok || response.status === 304) {
      this.#tools.credentials.taken(); // so that the next one that runs out is renewed as well
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
    if (!entry || entry !== this.#entries.get(topic)) return; // left, or asked for anew
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
    // All topics of this answer, so that none is taken from it.
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
    // Another request, another user: the page signed in or out meanwhile, so all begins anew.
    if (this.#user !== undefined && this.#user !== user) return this.#end(1012);
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
    const says = [414, 431].includes(status) || (status === 400 && this.#length > LONG);
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
      for (const topic of blamed) this.take({ ...error, topic });
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
    /** @type {Frame} */
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
}

const LOST = "the connection broke before the answer came; the command may have been run";
const UNSENT = "something between the page and the server refused the command";
const TOO_LONG =
  "the topics of this page do not fit into a URL that a proxy takes: follow fewer, give them " +
  "shorter names, or raise the proxy's limit (nginx: large_client_header_buffers)";

/** @param {Refusal} refusal Of a command, by something in between. */
const messageOf = ({ status }) => (status < 500 ? UNSENT : LOST);

/** @param {number} status @returns {Fault} whether it says that a transport is not let through, or not there. */
function faultOf(status) {
  const isPassing = status < 500 ? [408, 429].includes(status) : ![501, 505].includes(status);
  return isPassing ? "away" : "blocked";
}

/** @param {Response} response @returns {Promise<any>} what our server says; null if it is not ours. */
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
