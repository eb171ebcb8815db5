// The promise, with a server that is cut, trims, restarts its log, and repeats and loses frames.
import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { FakeWebSocket, makeClient, random, settle } from "./support.js";

/** @import {Frame} from "../src/websocket.js" */

mock.method(console, "warn", () => {});

const SEEDS = Number(process.env.REALTIME_JS_SEEDS ?? 300);
const TOPICS = ["a", "b", "c"];

/** The server's side of one topic: its life, its events, and what it has trimmed. */
class Log {
  epoch = 0;
  head = 0;
  floor = 0;

  append() {
    this.head += 1;
  }

  /** @param {number} floor */
  trim(floor) {
    this.floor = Math.max(this.floor, Math.min(floor, this.head));
  }

  restart() {
    this.epoch += 1;
    this.head = this.floor = 0;
  }

  get cursor() {
    return `${this.epoch}:${this.head}`;
  }

  /** @param {string} since @returns {number | null} the number after which a client resumes. */
  resume(since) {
    const [epoch, seq] = since.split(":").map(Number);
    return epoch === this.epoch && seq >= this.floor && seq <= this.head ? seq : null;
  }

  /** @param {string} topic @param {number} seq @returns {Frame} */
  event(topic, seq) {
    const data = { epoch: this.epoch, seq };
    return { type: "event", topic, event: "e", data, seq, cursor: `${this.epoch}:${seq}` };
  }
}

/** A server that serves the newest socket; `mangle` is what happens to events on their way. */
class Server {
  logs = new Map(TOPICS.map((topic) => [topic, new Log()]));
  /** @type {Map<string, number>} */
  positions = new Map();
  answered = 0;
  /** @type {Map<string, number>} how often the client was told of a hole */
  told = new Map(TOPICS.map((topic) => [topic, 0]));
  /** @type {FakeWebSocket | null} */
  socket = null;

  /** @param {() => number} chance */
  constructor(chance) {
    this.chance = chance;
  }

  /** Take the newest connection and its commands. */
  serve() {
    const socket = FakeWebSocket.last;
    if (socket.isClosed || socket.readyState !== 1) return;
    if (socket !== this.socket) {
      this.socket = socket;
      this.positions.clear();
      this.answered = 0;
      socket.welcome({ topics: [], user: null });
    }
    while (this.answered < socket.sent.length) {
      const frame = socket.sent[this.answered];
      this.answered += 1;
      if (frame.type === "subscribe") this.subscribe(socket, frame);
      if (frame.type === "unsubscribe") this.positions.delete(frame.topic);
      if (frame.type === "ping") socket.receive({ type: "pong" });
    }
  }

  /** @param {FakeWebSocket} socket @param {Frame} frame */
  subscribe(socket, { id, topic, since }) {
    const log = this.log(topic);
    if (this.positions.has(topic)) throw new Error(`${topic} is followed twice`);
    if (this.chance() < 0.1) {
      const error = { type: "error", id, code: "unavailable", message: "", retry: true };
      return socket.receive(error);
    }
    const from = since === undefined ? log.head : log.resume(since);
    const recovered = since === undefined ? undefined : from !== null;
    const cursor = from === null ? log.cursor : `${log.epoch}:${from}`;
    if (recovered === false) this.tell(topic);
    this.positions.set(topic, from ?? log.head);
    socket.receive({ type: "subscribed", id, topic, cursor, recovered, replayed: 0 });
  }

  /** Write what is due of each topic, up to a number of events. @param {number} [most] */
  write(most = 3, isFaulty = true) {
    const { socket } = this;
    if (!socket || socket.readyState !== 1 || socket.isClosed) return;
    for (const [topic, position] of [...this.positions]) {
      const log = this.log(topic);
      let seq = position;
      if (seq < log.floor) {
        seq = log.head;
        this.tell(topic);
        socket.receive({ type: "reset", topic, cursor: log.cursor, reason: "trimmed" });
      }
      for (let count = 0; seq < log.head && count < most; count += 1) {
        seq += 1;
        const luck = isFaulty ? this.chance() : 1;
        if (luck < 0.05) continue; // lost
        socket.receive(log.event(topic, seq));
        if (luck < 0.15) socket.receive(log.event(topic, seq)); // repeated
        if (luck < 0.2) socket.receive(log.event(topic, Math.max(1, seq - 2))); // late
        if (!this.positions.has(topic)) break;
      }
      if (this.positions.has(topic)) this.positions.set(topic, seq);
    }
  }

  /** @param {string} topic */
  restart(topic) {
    this.log(topic).restart();
    if (!this.positions.has(topic)) return;
    this.positions.set(topic, 0);
    this.tell(topic);
    const cursor = this.log(topic).cursor;
    this.socket?.receive({ type: "reset", topic, cursor, reason: "restarted" });
  }

  /** @param {string} topic */
  tell(topic) {
    this.told.set(topic, (this.told.get(topic) ?? 0) + 1);
  }

  /** @param {string} topic */
  log(topic) {
    return /** @type {Log} */ (this.logs.get(topic));
  }
}

/** @param {number} seed */
async function story(seed) {
  const chance = random(seed);
  const { client, clock } = makeClient();
  clock.chance = chance;
  const server = new Server(chance);
  /** @type {Map<string, {seen: {epoch: number, seq: number}[], resets: number}>} */
  const views = new Map();
  for (const name of TOPICS) {
    const view = { seen: /** @type {any[]} */ ([]), resets: 0 };
    views.set(name, view);
    const topic = client.subscribe(name);
    topic.on("e", (data) => view.seen.push(data));
    topic.onReset(() => (view.resets += 1));
  }
  await settle();
  server.serve();
  for (let step = 0; step < 60; step += 1) {
    const topic = TOPICS[Math.floor(chance() * TOPICS.length)];
    const luck = chance();
    if (luck < 0.5) server.log(topic).append();
    else if (luck < 0.75) server.write();
    else if (luck < 0.85) FakeWebSocket.last.end(1006);
    else if (luck < 0.88) client.connector.wake();
    else if (luck < 0.9) clock.sleep(chance() * 100_000);
    else if (luck < 0.92) server.log(topic).trim(server.log(topic).head - 2);
    else if (luck < 0.93) server.restart(topic);
    else await clock.advance(chance() * 3_000);
    await settle();
    server.serve();
  }
  await calm(server, clock);
  for (const [name, view] of views) check(name, view, server, seed);
}

/** Faults end, and one more event of each topic shows where its view stands. */
async function calm(/** @type {Server} */ server, /** @type {any} */ clock) {
  for (let turn = 0; turn < 3; turn += 1) {
    for (const topic of TOPICS) server.log(topic).append();
    for (let second = 0; second < 40; second += 1) {
      await clock.advance(1_000);
      server.serve();
      server.write(100, false);
      server.socket?.receive({ type: "heartbeat" });
    }
  }
}

/** Where the server told of holes, one reset may stand for several; elsewhere there is none. */
function check(/** @type {string} */ name, /** @type {any} */ { seen, resets },
  /** @type {Server} */ server, /** @type {number} */ seed) {
  const log = server.log(name);
  const told = server.told.get(name) ?? 0;
  const story = `seed ${seed}, ${name}: ${JSON.stringify(seen)}, ${resets} resets`;
  let holes = 0;
  for (const [index, { epoch, seq }] of seen.slice(1).entries()) {
    const before = seen[index];
    if (epoch === before.epoch) assert.ok(seq > before.seq, `order or twice; ${story}`);
    else assert.ok(epoch > before.epoch, `an old life; ${story}`);
    if (epoch !== before.epoch || seq !== before.seq + 1) holes += 1;
  }
  assert.deepEqual(seen.at(-1), { epoch: log.epoch, seq: log.head }, `the end; ${story}`);
  if (holes) assert.ok(resets > 0, `a hole without a reset; ${story}`);
  assert.equal(resets > 0, told > 0, `told ${told} times; ${story}`);
  assert.ok(resets <= told, `told ${told} times; ${story}`);
  assert.ok(holes <= told, `told ${told} times; ${story}`);
}

test(`${SEEDS} stories: every view is contiguous or was reset`, async () => {
  for (let seed = 1; seed <= SEEDS; seed += 1) await story(seed);
});
