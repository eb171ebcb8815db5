import { Backoff } from "./backoff.js";

/** @import {Clock} from "./clock.js" */
/** @import {Choice} from "./choice.js" */
/** @import {Fault, Frame, Link, Tools, Transport} from "./links.js" */

/** @typedef {"connecting" | "connected" | "waiting" | "denied" | "closed"} State */

/**
 * @typedef {object} Hearer What a connector tells its owner.
 * @property {(state: State, code: number | null, reason: string | null) => void} state
 * @property {(welcome: Frame) => void} up The connection is there.
 * @property {(keepsAnswering?: boolean) => void} down It is there no more, or about to end; may be
 *   called twice. Answers to commands may still come where it says so.
 * @property {(frame: Frame) => void} frame
 */

const CONNECT = 15_000; // ms from the attempt to the welcome, where there is no other transport
const GRACE = 10_000; // ms that a heartbeat may be late: together the 35 seconds of the protocol
const HEARTBEAT = 25; // seconds, where the welcome does not say
const PROBE = 5_000; // ms for any frame after a ping
const LATE = 5_000; // ms that a timer is late after a sleep, or in a hidden tab
const STABLE = 10_000; // ms of a connection after which the next attempt is an early one
const CLOSING = 5_000; // ms from the announcement of a close to the close
const RETRY_AFTER = 300; // seconds at most that a server may keep us waiting

/** Keeps one connection, whatever happens to it, and says what became of it. */
export class Connector {
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
  #dropCandidate = () => {}; // ends the search for a better transport
  #timer = () => {}; // cancels the one timer: a retry, the deadline of an attempt, or the watch
  #heardAt = 0;
  #upAt = 0;
  #silence = HEARTBEAT * 1000 + GRACE;
  #isIdle = true; // nobody needs a connection yet
  #paused = false;
  /** @type {Frame | null} */
  #closing = null;
  #told = false; // the server said when to come back

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
    if (this.state !== "connecting" || this.#link) return; // a listener decided otherwise
    const { current, hasOther } = this.#choice;
    const fault = current.isStream ? undefined : "away"; // nothing holds back an answer that ends
    this.#timer = this.#clock.after(hasOther ? current.patience : CONNECT, () => this.#lost(fault));
    this.#link = current.open(
      this.#base,
      {
        frame: (frame) => this.#receive(frame),
        closed: (code, fault) => this.#closed(code, fault),
      },
      this.#tools,
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
  move(transport, failed = () => this.#seekLater()) {
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
    const cancel = this.#clock.after(transport.patience, fail);
    const link = transport.open(
      this.#base,
      {
        frame: (frame) => {
          if (!isOurs && frame.type === "welcome") {
            isOurs = true;
            cancel();
            this.#adopt(transport, link);
          }
          if (isOurs) this.#receive(frame);
        },
        closed: (code, fault) => (isOurs ? this.#closed(code, fault) : fail()),
      },
      this.#tools,
    );
    this.#dropCandidate = end;
  }

  /** @param {Transport} transport @param {Link} link Where the welcome comes from in a moment. */
  #adopt(transport, link) {
    const old = this.#link;
    this.#link = link;
    this.#closing = null;
    this.#choice.lasted(this.#clock.now() - this.#upAt);
    this.#upAt = this.#clock.now();
    this.#choice.works(transport);
    this.#dropCandidate = () => {};
    this.#seekLater();
    this.#hearer.down(old?.leave !== undefined);
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
    this.#silence = heartbeat * 1000 + GRACE;
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
      // After a sleep, or in a throttled tab, what came meanwhile may still be unread.
      if (now - due > LATE || quiet < 0) this.#probe();
      else if (quiet < this.#silence) this.#watch(this.#silence - quiet);
      else this.#lost(this.#choice.current.isStalling ? "blocked" : undefined);
    });
  }

  #probe() {
    if (this.#closing) return;
    this.#timer();
    this.send({ type: "ping" });
    this.#heardAt = Number.NaN; // anything that comes replaces it
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
    const isOwn = isAnnounced || isRenewed; // what the server says itself, no transport is to blame for
    if (!isOwn && this.#choice.failed(lasted, fault)) return this.#connect();
    this.#told = Number.isFinite(after) && after >= 0;
    const delay = this.#told ? Math.min(after, RETRY_AFTER) * 1000 : this.#backoff.next();
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
}
