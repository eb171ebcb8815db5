import { sha256 } from "./sha256.js";

// A cursor as `realtime/protocol/events.py` writes it.
const CURSOR = /^([A-Za-z0-9_-]{1,32})\.(0|[1-9][0-9]{0,17})\.([0-9a-f]{8})$/;

/** @param {unknown} since @returns {since is string} whether it can go into a composite cursor. */
export function isCursor(since) {
  return typeof since === "string" && CURSOR.test(since);
}

/**
 * Return the composite cursor of several topics, as `realtime/protocol/cursors.py` reads it.
 *
 * It takes about 20 characters a topic. Topic names and whole cursors would exceed the header
 * limits of proxies.
 *
 * @param {[string, string][]} cursors Topic names and their cursors.
 * @param {string} [previous] The composite cursor that the server sent last. Entries that belong
 *   to no requested topic are copied from it, such as the position in a member list.
 * @param {Iterable<string>} [requested] Topics whose entries are not copied from `previous`.
 * @returns {string} `<epoch>~<entry>.<entry>`, with `!` between epochs.
 */
export function compose(cursors, previous = "", requested = []) {
  /** @type {Map<string, string[]>} */
  const epochs = new Map();
  const add = (/** @type {string} */ epoch, /** @type {string} */ entry) => {
    epochs.set(epoch, [...(epochs.get(epoch) ?? []), entry]);
  };
  const keys = new Set([...requested].map((topic) => base64(sha256(topic))));
  for (const [topic, cursor] of cursors) {
    const [, epoch, seq, tag] = /** @type {RegExpExecArray} */ (CURSOR.exec(cursor));
    add(epoch, `${base64(sha256(topic))}${base64(tag)}${seq}`);
  }
  for (const group of previous.split("!")) {
    const [epoch, entries] = group.split("~");
    for (const entry of entries?.split(".") ?? []) {
      if (!keys.has(entry.slice(0, 6))) add(epoch, entry);
    }
  }
  return [...epochs].map(([epoch, entries]) => `${epoch}~${entries.join(".")}`).join("!");
}

/**
 * Return the first 32 bits of a hexadecimal number in URL-safe base64: six characters.
 *
 * @param {string} digits
 */
function base64(digits) {
  const bytes = [0, 2, 4, 6].map((at) => parseInt(digits.slice(at, at + 2), 16));
  const text = btoa(String.fromCharCode(...bytes));
  return text.slice(0, 6).replaceAll("+", "-").replaceAll("/", "_");
}
