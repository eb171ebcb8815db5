// A server that loses connections, trims and restarts its log, and repeats and loses frames.
import { FakeWebSocket } from "./support.js";

/** @import {Frame} from "../src/transport.js" */

export const TOPICS = ["a", "b", "c"];

/** The log of one topic: its epoch, its newest event and the newest trimmed event. */
export class Log {
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

/** Serves the newest WebSocket, with random faults. */
export class Server {
  logs = new Map(TOPICS.map((topic) => [topic, new Log()]));
  /** @type {Map<string, number>} */
  positions = new Map();
  answered = 0;
  /** @type {Map<string, number>} How many gaps the server reported to the client. */
  gaps = new Map(TOPICS.map((topic) => [topic, 0]));
  /** @type {FakeWebSocket | null} */
  socket = null;
  /** @type {Set<string>} Topics whose next event is the first of a subscription. */
  fresh = new Set();

  /**
   * @param {() => number} chance
   * @param {boolean} [keepsFirst] Whether the first event of a subscription is never lost.
   */
  constructor(chance, keepsFirst = false) {
    this.chance = chance;
    this.keepsFirst = keepsFirst;
  }

  /** Accept the newest connection and answer its commands. */
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
  subscribe(socket, { id, topic, since, last }) {
    const log = this.log(topic);
    if (this.positions.has(topic)) throw new Error(`${topic} is subscribed twice`);
    if (this.chance() < 0.1) {
      const error = { type: "error", id, code: "unavailable", message: "", retry: true };
      return socket.receive(error);
    }
    const newest = last === undefined ? log.head : Math.max(log.floor, log.head - last);
    const from = since === undefined ? newest : log.resume(since);
    const recovered = since === undefined ? undefined : from !== null;
    const cursor = from === null ? log.cursor : `${log.epoch}:${from}`;
    if (recovered === false) this.countGap(topic);
    this.positions.set(topic, from ?? log.head);
    this.fresh.add(topic);
    const replayed = log.head - (from ?? log.head);
    socket.receive({ type: "subscribed", id, topic, cursor, recovered, replayed });
  }

  /** Write events of each topic, up to a number, with faults. @param {number} [most] */
  write(most = 3, isFaulty = true) {
    const { socket } = this;
    if (!socket || socket.readyState !== 1 || socket.isClosed) return;
    for (const [topic, position] of [...this.positions]) {
      const log = this.log(topic);
      let seq = position;
      if (seq < log.floor) {
        seq = log.head;
        this.countGap(topic);
        socket.receive({ type: "reset", topic, cursor: log.cursor, reason: "trimmed" });
      }
      for (let count = 0; seq < log.head && count < most; count += 1) {
        seq += 1;
        const isSafe = this.keepsFirst && this.fresh.has(topic);
        this.fresh.delete(topic);
        const luck = isFaulty && !isSafe ? this.chance() : 1;
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
    this.countGap(topic);
    const cursor = this.log(topic).cursor;
    this.socket?.receive({ type: "reset", topic, cursor, reason: "restarted" });
  }

  /** @param {string} topic */
  countGap(topic) {
    this.gaps.set(topic, (this.gaps.get(topic) ?? 0) + 1);
  }

  /** @param {string} topic */
  log(topic) {
    return /** @type {Log} */ (this.logs.get(topic));
  }
}

/** Stop the faults, and publish to each topic so that every view catches up. */
export async function endFaults(/** @type {Server} */ server, /** @type {any} */ clock) {
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
