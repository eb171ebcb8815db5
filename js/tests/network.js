// A network whose answers the test gives.
import { FakeWebSocket, makeClient } from "./support.js";

/** @import {Frame} from "../src/links.js" */

const WELCOME = { type: "welcome", user: "7", topics: ["user.7", "everyone"], heartbeat: 25 };

/** A request that waits for its answer. */
export class Asked {
  /** @type {Asked[]} */
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
        // It had ended.
      }
    });
    Asked.all.push(this);
  }

  static get last() {
    const asked = Asked.all.at(-1);
    if (!asked) throw new Error("nothing was asked");
    return asked;
  }

  /** What was asked, without what is the same each time. */
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

  /** Our server refuses. @param {number} status @param {string} code @param {object} [more] */
  refuse(status, code, more = {}) {
    return this.answer(status, { type: "error", code, message: "no", retry: false, ...more });
  }

  /** Answer a poll. @param {Frame[]} frames @param {Frame[]} [events] @param {object} [more] */
  poll(frames, events = [], more = {}) {
    const body = { events, frames: [WELCOME, ...frames], cursor: "", reset: [], more: false, ...more };
    return this.answer(200, body, { ETag: `W/"${Asked.all.length}"` });
  }

  /** Begin an event stream. @param {...Frame} frames */
  async stream(...frames) {
    const body = new ReadableStream({ start: (controller) => void (this.body = controller) });
    const headers = { "Content-Type": "text/event-stream; charset=utf-8" };
    this.resolve(new Response(body, { headers }));
    await this.write(":  padding\nretry: 1000\n");
    await this.bring(WELCOME, ...frames);
  }

  /** @param {...Frame} frames */
  async bring(...frames) {
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

  /** The server ends the stream. */
  async end() {
    this.body?.close();
    await flush();
  }

  /** The network breaks. */
  async fail() {
    const error = new TypeError("fetch failed");
    this.reject(error);
    this.body?.error(error);
    await flush();
  }
}

/** Let answers be read. */
export async function flush() {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((go) => setImmediate(go));
}

/** @param {Partial<import("../src/client.js").Options>} [options] */
export function makeOnline(options = {}) {
  Asked.all = [];
  globalThis.fetch = /** @type {any} */ (
    (/** @type {URL} */ url, /** @type {RequestInit} */ init) =>
      new Promise((resolve, reject) => {
        Object.assign(new Asked(url, init), { resolve, reject });
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

/** A client that follows "a" over one transport. @param {string} transport @param {object} [options] */
export async function makeFollowing(transport, options = {}) {
  const made = makeOnline({ transport, ...options });
  const topic = made.client.subscribe("a");
  /** @type {any[]} */
  const got = [];
  const told = { resets: 0 };
  topic.on("*", (data) => got.push(data));
  topic.onReset(() => (told.resets += 1));
  topic.onDenied(({ code }) => got.push(code));
  await made.advance(0);
  if (transport === "sse") await Asked.last.stream();
  else await Asked.last.poll([]);
  await made.advance(50);
  return { ...made, topic, got, told };
}

/** @param {number} seq @param {string} [topic] @returns {Frame} */
export function event(seq, topic = "a") {
  return { type: "event", topic, event: "tick", data: seq, cursor: `${topic}${seq}`, seq };
}

/** @param {string} topic @param {string} cursor @param {object} [more] @returns {Frame} */
export function subscribed(topic, cursor, more = {}) {
  return { type: "subscribed", topic, cursor, replayed: 0, ...more };
}

/** The newest WebSocket is refused, as by a proxy that does not know it. */
export async function refuseUpgrade() {
  FakeWebSocket.last.end(1006);
  await flush();
}

/** A page whose WebSockets are refused, and which came through over event streams. */
export async function makeFallen() {
  const made = makeOnline();
  const topic = made.client.subscribe("a");
  /** @type {any[]} */
  const got = [];
  topic.on("*", (data) => got.push(data));
  await made.advance(0);
  await refuseUpgrade();
  await Asked.last.stream();
  await made.advance(50);
  await Asked.last.stream(subscribed("a", "a0"));
  return { ...made, topic, got };
}
