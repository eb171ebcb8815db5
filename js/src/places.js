import { sha256 } from "./sha256.js";

// As `realtime/events.py` writes a cursor and `realtime/composite.py` reads several in one.
const CURSOR = /^([A-Za-z0-9_-]{1,32})\.(0|[1-9][0-9]{0,17})\.([0-9a-f]{8})$/;

/** @param {unknown} since @returns {since is string} whether it can go into a composite cursor. */
export function isCursor(since) {
  return typeof since === "string" && CURSOR.test(since);
}

/**
 * Return one text for the places of several topics, some 20 characters a topic: the topics' names
 * and cursors would not fit into what proxies take.
 *
 * @param {[string, string][]} places Names of topics, and their cursors.
 * @param {string} [told] What the server composed last, for what is of no topic: where the page is
 * in what else the server tells, such as who is on a topic.
 * @param {Iterable<string>} [asked] Topics of which nothing is taken from there.
 * @returns {string} `<epoch>~<entry>.<entry>`, with `!` between epochs.
 */
export function compose(places, told = "", asked = []) {
  /** @type {Map<string, string[]>} */
  const epochs = new Map();
  const add = (/** @type {string} */ epoch, /** @type {string} */ entry) => {
    epochs.set(epoch, [...(epochs.get(epoch) ?? []), entry]);
  };
  const keys = new Set([...asked].map((topic) => base64(sha256(topic))));
  for (const [topic, cursor] of places) {
    const [, epoch, seq, tag] = /** @type {RegExpExecArray} */ (CURSOR.exec(cursor));
    add(epoch, `${base64(sha256(topic))}${base64(tag)}${seq}`);
  }
  for (const group of told.split("!")) {
    const [epoch, entries] = group.split("~");
    for (const entry of entries?.split(".") ?? []) {
      if (!keys.has(entry.slice(0, 6))) add(epoch, entry);
    }
  }
  return [...epochs].map(([epoch, entries]) => `${epoch}~${entries.join(".")}`).join("!");
}

/** @param {string} digits @returns {string} the first 32 bits of a hexadecimal number, in six characters. */
function base64(digits) {
  const bytes = [0, 2, 4, 6].map((at) => parseInt(digits.slice(at, at + 2), 16));
  const text = btoa(String.fromCharCode(...bytes));
  return text.slice(0, 6).replaceAll("+", "-").replaceAll("/", "_");
}
