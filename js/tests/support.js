// A clock, a WebSocket and a storage that the test controls.
import { webcrypto } from "node:crypto";
import { Client } from "../src/client.js";

/** @import {Frame} from "../src/transport.js" */

// Node 18 does not set it.
if (!globalThis.crypto) Object.assign(globalThis, { crypto: webcrypto });

/** @param {number} seed @returns {() => number} numbers from 0 to 1, the same for the same seed. */
export function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A clock that stands still until the test advances it. */
export class FakeClock {
  time = 1_000_000;
  /** @type {{at: number, run: () => void}[]} */
  timers = [];
  chance = () => 0.5;

  now = () => this.time;
  random = () => this.chance();

  /** @param {number} ms @param {() => void} run */
  after = (ms, run) => {
    const timer = { at: this.time + ms, run };
    this.timers.push(timer);
    return () => {
      this.timers = this.timers.filter((one) => one !== timer);
    };
  };

  /** @param {number} ms */
  async advance(ms) {
    const end = this.time + ms;
    await settle();
    for (;;) {
      const [next] = this.timers.filter((one) => one.at <= end).sort((a, b) => a.at - b.at);
      if (!next) break;
      this.time = Math.max(this.time, next.at);
      this.timers = this.timers.filter((one) => one !== next);
      next.run();
      await settle();
    }
    this.time = end;
  }

  /** Advance the clock without running timers, as a sleeping laptop does. @param {number} ms */
  sleep(ms) {
    this.time += ms;
  }
}

/** Wait until resolved promises have run their callbacks. */
export async function settle() {
  for (let turn = 0; turn < 10; turn += 1) await null;
}

/** Replaces the browser's WebSocket; `FakeWebSocket.all` has all instances. */
export class FakeWebSocket {
  static OPEN = 1;
  /** @type {FakeWebSocket[]} */
  static all = [];
  /** @type {Frame[]} */
  sent = [];
  readyState = 1;
  isClosed = false;
  /** @type {((message: {data: unknown}) => void) | null} */
  onmessage = null;
  /** @type {((event: {code: number}) => void) | null} */
  onclose = null;

  /** @param {URL} url */
  constructor(url) {
    this.url = String(url);
    FakeWebSocket.all.push(this);
  }

  static get last() {
    const socket = FakeWebSocket.all.at(-1);
    if (!socket) throw new Error("no WebSocket was opened");
    return socket;
  }

  /** @param {string} text */
  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.isClosed = true;
    this.readyState = 3;
  }

  /** Receive a frame from the server. @param {Frame} frame */
  receive(frame) {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }

  /** @param {Partial<Frame>} [fields] */
  welcome(fields = {}) {
    const topics = ["user.7", "everyone"];
    this.receive({ type: "welcome", user: "7", topics, heartbeat: 25, version: 1, ...fields });
  }

  /** Lose the connection. @param {number} [code] */
  end(code = 1006) {
    this.readyState = 3;
    this.onclose?.({ code });
  }

  /** Return the newest frame of a type that the client sent. @param {string} type @returns {Frame} */
  lastSent(type) {
    const frame = this.sent.findLast((one) => one.type === type);
    if (!frame) throw new Error(`no ${type} was sent, but ${JSON.stringify(this.sent)}`);
    return frame;
  }

  /** @param {string} type @returns {Frame[]} */
  allSent(type) {
    return this.sent.filter((one) => one.type === type);
  }

  /** Answer the newest subscribe. @param {Partial<Frame>} [fields] */
  subscribed(fields = {}) {
    const { id, topic } = this.lastSent("subscribe");
    this.receive({ type: "subscribed", id, topic, cursor: "c0", replayed: 0, ...fields });
  }

  /** @param {number} seq @param {Partial<Frame>} [fields] */
  event(seq, fields = {}) {
    const cursor = `c${seq}`;
    this.receive({ type: "event", topic: "a", event: "tick", data: seq, cursor, seq, ...fields });
  }
}

/** Replaces the tab's sessionStorage. */
export class FakeStorage {
  /** @type {Map<string, string>} */
  all = new Map();

  /** @param {string} key */
  getItem(key) {
    return this.all.get(key) ?? null;
  }

  /** @param {string} key @param {string} value */
  setItem(key, value) {
    this.all.set(key, value);
  }
}

/** @param {Partial<import("../src/client.js").Options>} [options] */
export function makeClient(options = {}) {
  FakeWebSocket.all = [];
  globalThis.WebSocket = /** @type {any} */ (FakeWebSocket);
  const clock = new FakeClock();
  const storage = new FakeStorage();
  const url = "https://shop.example/realtime/";
  const client = new Client({ url, clock, storage, transport: "websocket", ...options });
  /** @type {string[]} */
  const states = [];
  client.addEventListener("statechange", () => states.push(client.state));
  return { client, clock, storage, states };
}

/** Make a client that is connected and follows the topic "a". @param {import("../src/subscription.js").Start} [start] */
export async function makeLive(start) {
  const made = makeClient();
  const topic = made.client.subscribe("a", start);
  /** @type {any[]} */
  const got = [];
  let resets = 0;
  topic.on("*", (data) => got.push(data));
  topic.onReset(() => (resets += 1));
  await settle();
  FakeWebSocket.last.welcome();
  FakeWebSocket.last.subscribed();
  return { ...made, topic, got, resets: () => resets };
}

/** Wait for the client to reconnect, and return the new WebSocket. @param {FakeClock} clock */
export async function comeBack(clock) {
  const before = FakeWebSocket.all.length;
  const deadline = clock.time + 20_000;
  while (FakeWebSocket.all.length === before && clock.time < deadline) await clock.advance(50);
  if (FakeWebSocket.all.length === before) throw new Error("the client did not reconnect");
  FakeWebSocket.last.welcome();
  return FakeWebSocket.last;
}
