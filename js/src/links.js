/** @import {Clock} from "./clock.js" */
/** @import {Credentials} from "./credentials.js" */

/**
 * A frame of the wire protocol; `docs/wire-protocol.md` says what they hold.
 *
 * @typedef {{type: string, [field: string]: any}} Frame
 */

/**
 * One open connection of a transport.
 *
 * @typedef {object} Link
 * @property {(frame: Frame) => void} send Send a frame; called after the welcome came only.
 * @property {() => void} close End it; nothing is heard of it afterwards.
 * @property {() => void} [leave] End it, but for the answers to commands, which are still heard of.
 */

/**
 * What is known of why a link ended: the network or the server does not let this transport through,
 * or nothing on the way to the server answered, which is no fault of the transport's.
 *
 * @typedef {"blocked" | "away"} Fault
 */

/**
 * @typedef {object} Hearing What a link tells its owner.
 * @property {(frame: Frame) => void} frame
 * @property {(code: number, fault?: Fault) => void} closed Called once and not at once, with a
 *   close code (1006 where there is none), unless `close()` was called before.
 */

/** @typedef {{clock: Clock, credentials: Credentials, headers: Record<string, string>}} Tools */

/** @typedef {"websocket" | "sse" | "longpoll" | "poll"} Name */

/**
 * A way to the server: everything else is the same for all of them.
 *
 * @typedef {object} Transport
 * @property {Name} name
 * @property {number} patience Milliseconds until its welcome must be there, where there is another.
 * @property {boolean} isStream Whether its welcome comes in an answer that does not end, so that a
 *   proxy can hold it back.
 * @property {boolean} [isStalling] Whether a proxy can hold back what comes after the welcome.
 * @property {(base: URL, hearing: Hearing, tools: Tools) => Link} open It answers at once.
 */

export const VERSION = 1; // of the wire protocol

/** @param {unknown} data @returns {Frame | null} null for what is no frame, which is passed over. */
export function parse(data) {
  try {
    const value = JSON.parse(String(data));
    return value && typeof value.type === "string" ? value : null;
  } catch {
    return null;
  }
}
