// A network on which the test answers each request.
import { FakeWebSocket, makeClient } from "./support.js";

/** @import {Frame} from "../src/transport.js" */

const WELCOME = { type: "welcome", user: "7", topics: ["user.7", "everyone"], heartbeat: 25 };

/** A pending request of the client. */
export class FakeRequest {
  /** @type {FakeRequest[]} */
  static all = [];
  /** @type {ReadableStreamDefaultController<Uint8Array> | null} */
  body = null;
  /** @type {(response: Response) => void} */
  resolve = () => {};
  /** @type {(error: Error) => void} */
  reject = () => {};

  /** @param {URL} url @param {RequestInit} options */
  constructor(url, options) {
    this.url = url;
    this.options = options;
    this.headers = new Headers(options.headers);
    options.signal?.addEventListener("abort", () => {
      const error = new DOMException("aborted", "AbortError");
      this.reject(error);
      try {
        this.body?.error(error);
      } catch {
        // The body had ended.
      }
    });
    FakeRequest.all.push(this);
  }

  static get last() {
    const request = FakeRequest.all.at(-1);
    if (!request) throw new Error("no request was sent");
    return request;
  }

  /** The last part of the path and the query, without the fields that never change. */
  get text() {
    const query = decodeURIComponent(this.url.search).replace("?v=1", "").replace("&ids=0", "");
    return `${this.url.pathname.split("/").at(-1)}${query}`;
  }

  get isAborted() {
    return this.options.signal?.aborted === true;
  }

  /** @param {number} status @param {any} [body] @param {Record<string, string>} [headers] */
  async answer(status, body = null, headers = {}) {
    const text = body === null ? null : JSON.stringify(body);
    this.resolve(new Response(text, { status, headers }));
    await flush();
  }

  /** Answer with an error of our server. @param {number} status @param {string} code @param {object} [more] */
  refuse(status, code, more = {}) {
    return this.answer(status, { type: "error", code, message: "no", retry: false, ...more });
  }

  /** Answer a poll. @param {Frame[]} frames @param {Frame[]} [events] @param {object} [more] */
  poll(frames, events = [], more = {}) {
    const body = { events, frames: [WELCOME, ...frames], cursor: "", reset: [], more: false, ...more };
    return this.answer(200, body, { ETag: `W/"${FakeRequest.all.length}"` });
  }

  /** Start an event stream. @param {...Frame} frames */
  async stream(...frames) {
    const body = new ReadableStream({ start: (controller) => void (this.body = controller) });
    const headers = { "Content-Type": "text/event-stream; charset=utf-8" };
    this.resolve(new Response(body, { headers }));
    await this.write(":  padding\nretry: 1000\n");
    await this.sendFrames(WELCOME, ...frames);
  }

  /** @param {...Frame} frames */
  async sendFrames(...frames) {
    for (const frame of frames) await this.write(`data:${JSON.stringify(frame)}\n\n`);
  }

  /** @param {string} text */
  async write(text) {
    await this.writeBytes(new TextEncoder().encode(text));
  }

  /** @param {Uint8Array} bytes */
  async writeBytes(bytes) {
    this.body?.enqueue(bytes);
    await flush();
  }

  /** End the stream. */
  async end() {
    this.body?.close();
    await flush();
  }

  /** Fail as if the network broke. */
  async fail() {
    const error = new TypeError("fetch failed");
    this.reject(error);
    this.body?.error(error);
    await flush();
  }
}

/** Wait until the client has read the answers. */
export async function flush() {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((go) => setImmediate(go));
}

/**
 * Make a client whose requests wait for the test.
 *
 * @param {Partial<import("../src/client.js").Options>} [options]
 */
export function makeNetworkClient(options = {}) {
  FakeRequest.all = [];
  globalThis.fetch = /** @type {any} */ (
    (/** @type {URL} */ url, /** @type {RequestInit} */ init) =>
      new Promise((resolve, reject) => {
        Object.assign(new FakeRequest(url, init), { resolve, reject });
      })
  );
  const made = makeClient({ transport: "auto", ...options });
  /** @param {number} ms */
  const advance = async (ms) => {
    await made.clock.advance(ms);
    await flush();
  };
  return { ...made, advance };
}

/** Make a client that follows "a" over one transport. @param {string} transport @param {object} [options] */
export async function makeFollowing(transport, options = {}) {
  const made = makeNetworkClient({ transport, ...options });
  const topic = made.client.subscribe("a");
  /** @type {any[]} */
  const got = [];
  const counts = { resets: 0 };
  topic.on("*", (data) => got.push(data));
  topic.onReset(() => (counts.resets += 1));
  topic.onDenied(({ code }) => got.push(code));
  await made.advance(0);
  if (transport === "sse") await FakeRequest.last.stream();
  else await FakeRequest.last.poll([]);
  await made.advance(50);
  return { ...made, topic, got, counts };
}

/** @param {number} seq @param {string} [topic] @returns {Frame} */
export function event(seq, topic = "a") {
  return { type: "event", topic, event: "tick", data: seq, cursor: `${topic}${seq}`, seq };
}

/** @param {string} topic @param {string} cursor @param {object} [more] @returns {Frame} */
export function subscribed(topic, cursor, more = {}) {
  return { type: "subscribed", topic, cursor, replayed: 0, ...more };
}

/** Refuse the newest WebSocket, as a proxy without WebSockets does. */
export async function refuseUpgrade() {
  FakeWebSocket.last.end(1006);
  await flush();
}

/** Make a client that fell back from a refused WebSocket to an event stream. */
export async function makeFallenBack() {
  const made = makeNetworkClient();
  const topic = made.client.subscribe("a");
  /** @type {any[]} */
  const got = [];
  topic.on("*", (data) => got.push(data));
  await made.advance(0);
  await refuseUpgrade();
  await FakeRequest.last.stream();
  await made.advance(50);
  await FakeRequest.last.stream(subscribed("a", "a0"));
  return { ...made, topic, got };
}
