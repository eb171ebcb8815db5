/** @import {Clock} from "./clock.js" */
/** @import {Credentials} from "./credentials.js" */

/**
 * A frame of the wire protocol, as described in `docs/wire-protocol.md`.
 *
 * @typedef {{type: string, [field: string]: any}} Frame
 */

/**
 * An open connection of one transport.
 *
 * @typedef {object} Connection
 * @property {(frame: Frame) => void} send Send a frame; called only after the welcome arrived.
 * @property {() => void} close Close it; no handler is called afterwards.
 * @property {() => void} [drain] Close it, but still pass on the answers to commands.
 */

/**
 * Why a connection ended, if that is known: `blocked` if the network or the server does not let
 * this transport through; `unreachable` if the server seems to be down, so that the transport is
 * probably not the cause.
 *
 * @typedef {"blocked" | "unreachable"} Fault
 */

/**
 * @typedef {object} ConnectionHandlers What a connection calls.
 * @property {(frame: Frame) => void} frame
 * @property {(code: number, fault?: Fault) => void} closed Called at most once, never before
 *   `open()` returned, with a close code (1006 if there is none); not called after `close()`.
 */

/** @typedef {{clock: Clock, credentials: Credentials, headers: Record<string, string>}} Tools */

/** @typedef {"websocket" | "sse" | "longpoll" | "poll"} Name */

/**
 * A way to reach the server. All transports look the same to the rest of the client.
 *
 * @typedef {object} Transport
 * @property {Name} name
 * @property {number} timeout Milliseconds to wait for the welcome if there is another transport.
 * @property {boolean} isStream Whether the welcome is part of an endless response, which a proxy
 *   can hold back.
 * @property {boolean} [holdsRequest] Whether a request stays open while nothing happens.
 * @property {boolean} [canStall] Whether a proxy can hold back what follows the welcome.
 * @property {(base: URL, handlers: ConnectionHandlers, tools: Tools) => Connection} open Connect;
 *   returns at once.
 */

export const VERSION = 1; // of the wire protocol

/** @param {unknown} data @returns {Frame | null} null if it is not a frame; ignore it then. */
export function parse(data) {
  try {
    const value = JSON.parse(String(data));
    return value && typeof value.type === "string" ? value : null;
  } catch {
    return null;
  }
}
