import { compose, isCursor } from "./cursors.js";
import { VERSION } from "./transport.js";

/** @import {Start} from "./subscription.js" */
/** @import {Connection, ConnectionHandlers, Fault, Frame, Tools} from "./transport.js" */

/**
 * @typedef {object} Entry A topic that a connection follows.
 * @property {number} id The id of the subscribe command.
 * @property {boolean} isLive Whether the subscribe command was answered.
 * @property {Start} position Where the next request starts.
 */

/**
 * Pass frames to a connection's `receive()` until the signal aborts; always ends with an error.
 *
 * @typedef {(connection: HttpConnection, signal: AbortSignal) => Promise<never>} Run
 */

const GAP = 50; // ms between two requests, so that topics that are added together share a request
// Characters of a URL that proxies accept: nginx accepts 8 KB, including the method and version.
const LONG = 8_000;
const MOMENT = /^@\d{1,12}(\.\d{1,9})?$/;

// Send cookies to other origins too, as a WebSocket does. Bypass the browser's cache, which would
// handle a 304 itself.
/** @type {RequestInit} */
const FETCH = { cache: "no-store", credentials: "include" };

/** WebSocket close codes for the `closing` reasons of a stream. @type {Record<string, number>} */
const CODES = { bad: 4400, signed_out: 4401, forbidden: 4403, version: 4406, limit: 4429 };

/** The response is an error, or something other than what was requested. */
export class HttpError extends Error {
  /** @param {number} status @param {any} error Our server's error frame; null if it sent none. */
  constructor(status, error = null) {
    super(`HTTP ${status}`);
    this.status = status;
    this.error = error;
  }
}

/** The server ended the stream. */
export class StreamEnded extends Error {}

/**
 * Follows topics with requests that name all of them, and sends each command in its own request.
 *
 * The first request names no topic and brings the welcome. When the topics change, a new request
 * continues from the positions of the one before.
 *
 * @implements {Connection}
 */
export class HttpConnection {
  #run;
  #base;
  #handlers;
  #tools;
  /** @type {Map<string, Entry>} */
  #entries = new Map();
  /** @type {Map<string, Entry>} The topics that the current request names. */
  #requested = new Map();
  #request = new AbortController();
  /** @type {(() => void) | null} Cancels the planned request; null if none is planned. */
  #planned = null;
  #requestedAt = Number.NEGATIVE_INFINITY;
  #length = 0; // of the current request's URL
  #isHeaderStripped = false; // whether a proxy removes the header with the cursors
  #commands = new AbortController();
  #isClosed = false;
  /** @type {string | null | undefined} */
  #user;
  /** @type {string | null} */
  #closing = null;

  /** The composite cursor of the last poll, which also has the positions in member lists. */
  compositeCursor = "";

  /** @param {Run} run @param {URL} base @param {ConnectionHandlers} handlers @param {Tools} tools */
  constructor(run, base, handlers, tools) {
    this.#run = run;
    this.#base = base;
    this.#handlers = handlers;
    this.#tools = tools;
    this.#start();
  }

  /** Whether subscribe commands are unanswered; the next poll must not wait for events then. */
  get isSubscribing() {
    if (this.#user === undefined || this.#planned) return true;
    return [...this.#requested.values()].some(({ isLive }) => !isLive);
  }

  get clock() {
    return this.#tools.clock;
  }

  /** The page's header; a server of another origin would have to allow it by CORS. */
  get pageHeaders() {
    return this.#tools.headers;
  }

  get isSameOrigin() {
    return this.#base.origin === globalThis.location?.origin;
  }

  /** @param {Frame} frame */
  send(frame) {
    const { type, id, topic, since, last } = frame;
    if (type === "subscribe") {
      this.#entries.set(topic, { id, isLive: false, position: { since, last } });
    } else if (type === "unsubscribe") {
      this.#entries.delete(topic);
      this.#handlers.frame({ type: "unsubscribed", id, topic, reason: "asked" });
    } else if (type !== "ping") return void this.#command(frame);
    // A ping starts a new request too: its answer proves that the server is there.
    this.#plan();
  }

  close() {
    this.drain();
    this.#commands.abort();
  }

  drain() {
    this.#isClosed = true;
    this.#planned?.();
    this.#request.abort();
  }

  #plan() {
    if (this.#planned || this.#isClosed) return;
    const wait = Math.max(0, this.#requestedAt + GAP - this.clock.now());
    this.#planned = this.clock.after(Math.min(wait, GAP), () => this.#start());
  }

  #start() {
    this.#planned = null;
    this.#requestedAt = this.clock.now();
    this.#request.abort();
    this.#request = new AbortController();
    this.#requested = new Map(this.#entries);
    const { signal } = this.#request;
    this.#run(this, signal).catch((error) => {
      if (!signal.aborted && !this.#isClosed) this.#failed(error);
    });
  }

  /**
   * Request the topics from their positions.
   *
   * @param {string} path
   * @param {Record<string, string>} fields
   * @param {AbortSignal} signal
   * @param {Record<string, string>} [headers]
   * @returns {Promise<Response>} rejects with an `HttpError`, or with the error of `fetch()`.
   */
  get(path, fields, signal, headers = {}) {
    const url = new URL(path, this.#base);
    const query = new URLSearchParams({ v: String(VERSION), ...fields });
    const cursors = this.#cursors;
    if (!this.#requested.size) query.append("topic", "");
    for (const topic of this.#requested.keys()) query.append("topic", topic);
    for (const field of /** @type {const} */ (["since", "last"])) {
      for (const value of this.#values(field)) query.append(field, value);
    }
    url.search = String(query);
    this.#length = url.pathname.length + url.search.length;
    const resume = cursors.length && {
      "Last-Event-ID": compose(cursors, this.compositeCursor, this.#requested.keys()),
    };
    return this.#fetch(url, { headers: { ...headers, ...resume }, signal });
  }

  /** @returns {[string, string][]} the topics whose cursor goes into the header, and the cursors. */
  get #cursors() {
    /** @type {[string, string][]} */
    const cursors = [];
    for (const [topic, { position }] of this.#requested) {
      if (!this.#isHeaderStripped && isCursor(position.since)) cursors.push([topic, position.since]);
    }
    return cursors;
  }

  /**
   * Return the values of a field for the URL: a single value if it applies to every topic whose
   * cursor is not in the header.
   *
   * @param {"since" | "last"} field @returns {string[]}
   */
  #values(field) {
    const cursors = new Map(this.#cursors);
    const all = [...this.#requested].map(([topic, { position }]) => {
      return cursors.has(topic) ? null : String(position[field] ?? "");
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
      this.#tools.credentials.accepted(); // the next token that expires is renewed too
      return response;
    }
    // The polls are the last transport, and the only one that works without ASGI.
    if (response.status === 404 && url.pathname.endsWith("/poll")) reportNotFound(this.#base);
    throw new HttpError(response.status, await errorFrame(response));
  }

  // Frames

  /** Handle a frame of the current request. @param {Frame} frame */
  receive(frame) {
    const { type, topic } = frame;
    if (type === "welcome") return this.#welcome(frame);
    if (type === "closing") this.#closing = frame.reason;
    if (typeof topic !== "string") return this.#handlers.frame(frame);
    const entry = this.#requested.get(topic);
    if (!entry || entry !== this.#entries.get(topic)) return; // unsubscribed, or subscribed again
    const { isLive, id } = entry;
    if (type === "subscribed") {
      if (this.#retryStripped(entry, frame)) return;
      entry.isLive = true;
      entry.position = { since: frame.cursor };
      if (!isLive) this.#handlers.frame({ ...frame, id });
      else if (frame.recovered === false) {
        const { cursor } = frame;
        this.#handlers.frame({ type: "reset", topic, cursor, reason: "trimmed" });
      }
    } else if (type === "error" || type === "unsubscribed") {
      this.#entries.delete(topic);
      const { code, reason = code, message } = frame;
      if (isLive) this.#handlers.frame({ type: "unsubscribed", topic, reason, message });
      else this.#handlers.frame({ ...frame, id });
    } else {
      if (frame.cursor) entry.position = { since: frame.cursor };
      this.#handlers.frame(frame);
    }
  }

  /**
   * If a topic's cursor did not reach the server, which then started at the newest event, request
   * all topics again with their cursors in the URL.
   *
   * @param {Entry} entry @param {Frame} subscribed @returns {boolean} whether the cursor was lost.
   */
  #retryStripped(entry, { topic, recovered }) {
    if (this.#isHeaderStripped || !isCursor(entry.position.since) || typeof recovered === "boolean") {
      return false;
    }
    // Replace the entries of all topics, so that the rest of this answer is ignored.
    for (const [name, one] of this.#requested) {
      if (this.#entries.get(name) === one) this.#entries.set(name, { ...one });
    }
    this.#isHeaderStripped = true;
    this.#plan();
    return true;
  }

  /** @param {Frame} welcome */
  #welcome(welcome) {
    const user = welcome.user ?? null;
    // The user signed in or out between two requests: connect again.
    if (this.#user !== undefined && this.#user !== user) return this.#end(1012);
    this.#user = user;
    this.#handlers.frame(welcome);
  }

  // The end of the connection

  /** @param {unknown} error */
  #failed(error) {
    if (error instanceof StreamEnded) return this.#end(CODES[this.#closing ?? ""] ?? 1006);
    if (!(error instanceof HttpError)) return this.#end(1006, "unreachable");
    if (error.error) return this.#refused(error);
    if (this.#isTooLong(error.status)) return this.#shorten();
    this.#end(1006, faultOf(error.status));
  }

  /** @param {number} status From a proxy, or from a server that did not read the whole request. */
  #isTooLong(status) {
    const isStatus = [414, 431].includes(status) || (status === 400 && this.#length > LONG);
    return isStatus && this.#requested.size > 0;
  }

  /** Deny topics, newest first, until the URL is short enough, and send the request again. */
  #shorten() {
    const most = this.#length > LONG ? LONG : this.#length / 2;
    let length = this.#length;
    for (const topic of [...this.#requested.keys()].reverse()) {
      this.receive({ type: "error", topic, code: "too_many_topics", message: TOO_LONG, retry: false });
      length -= String(new URLSearchParams({ topic })).length + 1;
      if (length <= most) break;
    }
    this.#plan();
  }

  /** Handle an error of our server. @param {HttpError} error */
  #refused({ status, error }) {
    const { code, topic } = error;
    const refused = topic ? [topic] : this.#refusedTopics(status, code);
    if (refused.length && [400, 403].includes(status)) {
      for (const topic of refused) this.receive({ ...error, topic });
      return this.#plan();
    }
    if (error.retry === true && error.retry_after) {
      this.#handlers.frame({ type: "closing", reason: code, retry_after: error.retry_after });
    }
    if (status === 401) this.#end(4401);
    else if (status === 403) this.#end(4403);
    else if (code === "bad_version") this.#end(4406);
    else this.#end(1006, faultOf(status));
  }

  /** @param {number} status @param {string} code @returns {string[]} the topics that an error is about. */
  #refusedTopics(status, code) {
    if (code === "forbidden") return [...this.#requested.keys()];
    if (status !== 400 || code === "bad_version") return [];
    return [...this.#requested].filter(([, { isLive }]) => !isLive).map(([topic]) => topic);
  }

  /** @param {number} code @param {Fault} [fault] */
  #end(code, fault) {
    if (this.#isClosed) return;
    this.close();
    this.#handlers.closed(code, fault);
  }

  // Commands

  /**
   * Run a command. There is no timeout: only the end of the connection cancels the command.
   *
   * @param {Frame} frame
   */
  async #command(frame) {
    const { id } = frame;
    /** @type {Frame} */
    let answer = { type: "error", code: "disconnected", message: LOST, retry: false };
    try {
      answer = await this.#post(frame, this.#commands.signal);
    } catch (error) {
      if (error instanceof HttpError) answer = error.error ?? { ...answer, message: messageOf(error) };
    }
    this.#handlers.frame({ ...answer, id });
  }

  /** @param {Frame} frame @param {AbortSignal} signal @returns {Promise<Frame>} */
  async #post(frame, signal) {
    const headers = { "Content-Type": "application/json" };
    const options = { method: "POST", headers, signal, body: JSON.stringify(frame) };
    const url = new URL(`send?v=${VERSION}`, this.#base);
    try {
      return await (await this.#fetch(url, options)).json();
    } catch (error) {
      const isTokenRefused = error instanceof HttpError && error.status === 401;
      if (!isTokenRefused || !this.#tools.credentials.renew()) throw error;
      return await (await this.#fetch(url, options)).json();
    }
  }
}

let isNotFoundReported = false;

/** Say what is wrong if there is no transport at this URL, once per page. @param {URL} base */
function reportNotFound({ href }) {
  if (isNotFoundReported) return;
  isNotFoundReported = true;
  console.error(
    `realtime: there is nothing at ${href} (404). Is with_realtime() missing in asgi.py, does the ` +
      'server run another application, or is the app mounted elsewhere (REALTIME["PREFIX"])?',
  );
}

const LOST = "the connection broke before the answer came; the command may have been run";
const UNSENT = "a proxy between the page and the server refused the command";
const TOO_LONG =
  "the topics of this page make a URL that is too long for a proxy: follow fewer, give them " +
  "shorter names, or raise the proxy's limit (nginx: large_client_header_buffers)";

/** Return the message for a command that a proxy refused. @param {HttpError} error */
const messageOf = ({ status }) => (status < 500 ? UNSENT : LOST);

/** @param {number} status @returns {Fault} whether the transport is blocked, or the server down. */
function faultOf(status) {
  const isTemporary = status < 500 ? [408, 429].includes(status) : ![501, 505].includes(status);
  return isTemporary ? "unreachable" : "blocked";
}

/** @param {Response} response @returns {Promise<any>} our server's error frame, or null. */
async function errorFrame(response) {
  try {
    const error = await response.json();
    if (error?.type !== "error" || typeof error.code !== "string") return null;
    const seconds = Number(response.headers.get("Retry-After"));
    return seconds > 0 ? { ...error, retry_after: seconds } : error;
  } catch {
    return null;
  }
}
