import { Backoff } from "./backoff.js";

/** @import {Fallback} from "./fallback.js" */
/** @import {Connection, Fault, Frame, Tools, Transport} from "./transport.js" */

/** @typedef {"connecting" | "connected" | "waiting" | "denied" | "closed"} State */

/**
 * @typedef {object} ConnectorHandlers What a connector calls.
 * @property {(state: State, code: number | null, reason: string | null) => void} state
 * @property {(welcome: Frame) => void} up The connection is open.
 * @property {(keepsAnswering?: boolean) => void} down The connection ended or is about to
 *   end; can be called twice. If `keepsAnswering` is true, answers to commands can still arrive.
 * @property {(frame: Frame) => void} frame
 */

const CONNECT = 15_000; // ms to wait for the welcome if there is no other transport
const GRACE = 10_000; // ms that a heartbeat can be late: the protocol allows 35 s, 25 s plus this
const HEARTBEAT = 25; // seconds between heartbeats, if the welcome does not say
const PROBE = 5_000; // ms to wait for any frame after a ping
const LATE = 5_000; // ms; a sleep or a hidden tab delayed a timer that is later than this
const STABLE = 10_000; // ms that a connection must last to reset the backoff
const CLOSING = 5_000; // ms to wait for the close that the server announced
const RETRY_AFTER = 300; // seconds; the longest wait that the server can ask for

/** Keeps one connection to the server open and reports its state. */
export class Connector {
  /** @type {State} */
  state = "waiting";
  #fallback;
  #base;
  #tools;
  #clock;
  #handlers;
  #backoff;
  /** @type {Connection | null} */
  #connection = null;
  #cancelUpgrade = () => {}; // stops the search for a better transport
  #cancelTimer = () => {}; // stops the one timer: a retry, a connect timeout or the silence timeout
  #receivedAt = 0; // when the last frame arrived; NaN while a probe waits for one
  #connectedAt = 0;
  #silence = HEARTBEAT * 1000 + GRACE; // ms without a frame after which the connection is ended
  #isIdle = true; // nothing needs a connection yet
  #paused = false;
  /** @type {Frame | null} */
  #closing = null;
  #hasRetryAfter = false; // whether the server said when to connect again

  /** @param {Fallback} fallback @param {URL} base @param {Tools} tools @param {ConnectorHandlers} handlers */
  constructor(fallback, base, tools, handlers) {
    this.#fallback = fallback;
    this.#base = base;
    this.#tools = tools;
    this.#clock = tools.clock;
    this.#handlers = handlers;
    this.#backoff = new Backoff(tools.clock);
  }

  /** Connect, unless a connection was already requested. */
  start() {
    if (!this.#isIdle || this.#isOver) return;
    this.#isIdle = false;
    if (!this.#paused) this.#connect();
  }

  /** Close any connection and connect now: for another user, or after `close()` or a denial. */
  reconnect() {
    this.#isIdle = this.#paused = false;
    this.#backoff.reset();
    this.#drop();
    this.#connect();
  }

  /** Close the connection until `reconnect()`. */
  close() {
    this.#drop();
    this.#change("closed", null, null);
  }

  /** Close the connection while the page is in the back/forward cache. */
  pause() {
    if (this.#isOver) return;
    this.#paused = true;
    this.#drop();
    this.#change("waiting", null, null);
  }

  /** Close a connection that keeps a request open; answers to commands still arrive. */
  hide() {
    if (this.state !== "connected" || !this.#fallback.current.holdsRequest) return;
    this.#paused = true;
    this.#drop(true);
    this.#change("waiting", null, null);
  }

  /** Connect again after `pause()` or `hide()`. */
  resume() {
    if (!this.#paused) return;
    this.#paused = false;
    if (!this.#isIdle) this.#connect();
  }

  /** Check the connection now, or skip the wait before the next attempt. */
  wake() {
    if (this.state === "connected") this.#probe();
    else if (this.state === "waiting" && !this.#isIdle && !this.#paused && !this.#hasRetryAfter) {
      this.#connect();
    }
  }

  /** @param {Frame} frame */
  send(frame) {
    this.#connection?.send(frame);
  }

  get #isOver() {
    return this.state === "closed" || this.state === "denied";
  }

  #connect() {
    this.#cancelTimer();
    this.#hasRetryAfter = false;
    this.#closing = null;
    this.#change("connecting", null, null);
    // A listener of the state can have closed the client or connected it.
    if (this.state !== "connecting" || this.#connection) return;
    const { current, hasAlternative } = this.#fallback;
    const fault = current.isStream ? undefined : "unreachable"; // proxies do not hold back a poll
    const timeout = hasAlternative ? current.timeout : CONNECT;
    this.#cancelTimer = this.#clock.after(timeout, () => this.#abort(fault));
    this.#connection = current.open(
      this.#base,
      {
        frame: (frame) => this.#receive(frame),
        closed: (code, fault) => this.#closed(code, fault),
      },
      this.#tools,
    );
  }

  // Upgrades to a better transport

  #scheduleUpgrade() {
    if (!this.#fallback.better.length) return;
    this.#cancelUpgrade = this.#clock.after(this.#fallback.upgradeDelay, () => {
      this.#fallback.upgradeStarted();
      this.#upgrade(this.#fallback.better);
    });
  }

  /** @param {Transport[]} transports */
  #upgrade([first, ...others]) {
    if (first) this.switchTo(first, () => this.#upgrade(others));
    else this.#scheduleUpgrade();
  }

  /**
   * Open a second connection, over another transport, and switch to it when its welcome arrives.
   *
   * @param {Transport} transport
   * @param {() => void} [failed]
   */
  switchTo(transport, failed = () => this.#scheduleUpgrade()) {
    this.#cancelUpgrade();
    if (this.state !== "connected" || this.#closing) return;
    let isAdopted = false;
    const end = () => {
      cancel();
      connection.close();
    };
    const fail = () => {
      end();
      failed();
    };
    const cancel = this.#clock.after(transport.timeout, fail);
    const connection = transport.open(
      this.#base,
      {
        frame: (frame) => {
          if (!isAdopted && frame.type === "welcome") {
            isAdopted = true;
            cancel();
            this.#adopt(transport, connection);
          }
          if (isAdopted) this.#receive(frame);
        },
        closed: (code, fault) => (isAdopted ? this.#closed(code, fault) : fail()),
      },
      this.#tools,
    );
    this.#cancelUpgrade = end;
  }

  /** Switch to a new connection. @param {Transport} transport @param {Connection} connection */
  #adopt(transport, connection) {
    const old = this.#connection;
    this.#connection = connection;
    this.#closing = null;
    this.#fallback.lasted(this.#clock.now() - this.#connectedAt);
    this.#connectedAt = this.#clock.now();
    this.#fallback.connected(transport);
    this.#cancelUpgrade = () => {};
    this.#scheduleUpgrade();
    this.#handlers.down(old?.drain !== undefined);
    if (old?.drain) old.drain();
    else old?.close();
  }

  /** @param {Frame} frame */
  #receive(frame) {
    this.#receivedAt = this.#clock.now();
    if (frame.type === "welcome") this.#welcome(frame);
    else if (frame.type === "closing") this.#closeAnnounced(frame);
    else if (frame.type !== "heartbeat" && frame.type !== "pong") this.#handlers.frame(frame);
  }

  /** @param {Frame} welcome */
  #welcome(welcome) {
    const heartbeat = welcome.heartbeat > 0 ? Number(welcome.heartbeat) : HEARTBEAT;
    this.#silence = heartbeat * 1000 + GRACE;
    this.#tools.credentials.accepted();
    if (this.state !== "connected") {
      this.#connectedAt = this.#clock.now();
      this.#fallback.connected(this.#fallback.current);
      this.#scheduleUpgrade();
    }
    this.#watch(this.#silence);
    const connection = this.#connection;
    this.#change("connected", null, null);
    if (this.#connection === connection) this.#handlers.up(welcome);
  }

  /**
   * Treat the connection as ended: the server will close it, and reads no more from it.
   *
   * @param {Frame} frame
   */
  #closeAnnounced(frame) {
    this.#closing = frame;
    this.#cancelTimer();
    this.#cancelTimer = this.#clock.after(CLOSING, () => this.#abort());
    this.#handlers.down();
  }

  // Silence

  /** @param {number} ms The time left until the silence has lasted too long. */
  #watch(ms) {
    this.#cancelTimer();
    const due = this.#clock.now() + ms;
    this.#cancelTimer = this.#clock.after(ms, () => {
      const now = this.#clock.now();
      const quiet = now - this.#receivedAt;
      // After a sleep, or in a throttled tab, frames can have arrived that were not read yet.
      if (now - due > LATE || quiet < 0) this.#probe();
      else if (quiet < this.#silence) this.#watch(this.#silence - quiet);
      else this.#abort(this.#fallback.current.canStall ? "blocked" : undefined);
    });
  }

  #probe() {
    if (this.#closing) return;
    this.#cancelTimer();
    this.send({ type: "ping" });
    this.#receivedAt = Number.NaN; // until any frame arrives
    this.#cancelTimer = this.#clock.after(PROBE, () => {
      if (Number.isNaN(this.#receivedAt)) return this.#abort();
      this.#watch(this.#silence);
    });
  }

  // The end of a connection

  /** Close a connection that does not answer. @param {Fault} [fault] */
  #abort(fault) {
    this.#connection?.close();
    this.#closed(1006, fault);
  }

  /** @param {number} code @param {Fault} [fault] */
  #closed(code, fault) {
    const reason = this.#closing?.reason ?? null;
    const after = this.#closing?.retry_after;
    const wasUp = this.state === "connected";
    const lasted = wasUp ? this.#clock.now() - this.#connectedAt : null;
    if (lasted !== null && lasted > STABLE) this.#backoff.reset();
    const isAnnounced = this.#closing !== null;
    this.#drop();
    const isRenewed = code === 4401 && this.#tools.credentials.renew();
    if (code >= 4400 && code <= 4499 && !isRenewed) {
      return this.#change(code === 4401 || code === 4403 ? "denied" : "closed", code, reason);
    }
    const isByServer = isAnnounced || isRenewed; // so the transport is not to blame
    if (!isByServer && this.#fallback.failed(lasted, fault)) return this.#connect();
    this.#hasRetryAfter = Number.isFinite(after) && after >= 0;
    const delay = this.#hasRetryAfter ? Math.min(after, RETRY_AFTER) * 1000 : this.#backoff.next();
    this.#cancelTimer = this.#clock.after(delay, () => this.#connect());
    this.#change("waiting", code, reason);
  }

  #drop(keepsAnswering = false) {
    this.#cancelTimer();
    this.#cancelUpgrade();
    const [connection, wasUp] = [this.#connection, this.state === "connected"];
    this.#connection = null;
    if (keepsAnswering && connection?.drain) connection.drain();
    else connection?.close();
    if (wasUp) {
      this.#fallback.lasted(this.#clock.now() - this.#connectedAt);
      this.#handlers.down(keepsAnswering);
    }
    this.#closing = null;
  }

  /** @param {State} state @param {number | null} code @param {string | null} reason */
  #change(state, code, reason) {
    if (this.state === state) return;
    this.state = state;
    this.#handlers.state(state, code, reason);
  }
}
