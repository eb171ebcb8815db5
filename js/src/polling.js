import { HttpLink, Refusal } from "./http.js";

/** @import {Frame, Name, Transport} from "./links.js" */

const WAIT = 25; // seconds that the server may keep a poll; proxies cut at 30 or 60
const PAUSE = 3_000; // ms between polls that the server answers at once, give or take a third
const PATIENCE = 10_000; // ms for the first answer

/** @type {Transport} */
export const longpoll = transport("longpoll", WAIT);

/** @type {Transport} */
export const poll = transport("poll", 0);

/** @param {Name} name @param {number} wait @returns {Transport} */
function transport(name, wait) {
  return {
    name,
    patience: PATIENCE,
    isStream: false,
    open: (base, hearing, tools) =>
      new HttpLink((link, signal) => ask(link, signal, wait), base, hearing, tools),
  };
}

/** @param {HttpLink} link @param {AbortSignal} signal @param {number} wait @returns {Promise<never>} */
async function ask(link, signal, wait) {
  const { clock } = link;
  /** @type {string | null} */
  let etag = null;
  for (;;) {
    const seconds = link.isAsking ? 0 : wait;
    const from = clock.now();
    const known = etag !== null && !wait && !link.isAsking ? { "If-None-Match": etag } : undefined;
    // What a visitor who is not signed in is known by, from one poll to the next.
    const headers = { ...known, ...(link.isSameOrigin && link.pageHeaders) };
    const response = await link.get("poll", { wait: String(seconds) }, signal, headers);
    const answer = response.status === 304 ? NOTHING : read(await response.text());
    signal.throwIfAborted();
    if (response.status !== 304) {
      etag = response.headers.get("ETag");
      link.told = answer.cursor ?? "";
    }
    for (const frame of inOrder(answer)) {
      link.take(frame);
      signal.throwIfAborted(); // a listener followed something else
    }
    link.take({ type: "heartbeat" });
    if (seconds && isEmpty(answer) && clock.now() - from < (seconds * 1000) / 2) {
      throw new Refusal(501); // without ASGI nobody waits, and we would ask all the time
    }
    if (answer.more || (wait && !link.isAsking)) continue;
    const pause = (PAUSE * (2 + 2 * clock.random())) / 3;
    await new Promise((go) => clock.after(pause, () => go(null)));
    signal.throwIfAborted();
  }
}

/** @typedef {{events: Frame[], frames: Frame[], cursor?: string, more?: boolean}} Answer */

/** @type {Answer} */
const NOTHING = { events: [], frames: [] };

/** @param {string} text @returns {Answer} */
function read(text) {
  try {
    const answer = JSON.parse(text);
    if (Array.isArray(answer.events) && Array.isArray(answer.frames)) return answer;
  } catch {
    // Of something in between.
  }
  throw new Refusal(415);
}

/** @param {Answer} answer */
function isEmpty({ events, frames }) {
  const isNews = (/** @type {Frame} */ { type, recovered }) =>
    type !== "welcome" && (type !== "subscribed" || recovered === false);
  return !events.length && !frames.some(isNews);
}

/**
 * Return the frames of an answer as a stream would have brought them.
 *
 * What came before a reset and what came after it cannot be told apart: the next poll brings all
 * that came after it.
 *
 * @param {Answer} answer @returns {Frame[]}
 */
function inOrder({ events, frames }) {
  const reset = new Set(frames.filter(({ type }) => type === "reset").map(({ topic }) => topic));
  return [...frames, ...events.filter(({ topic }) => !reset.has(topic))];
}
