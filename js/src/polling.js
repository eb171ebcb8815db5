import { HttpConnection, HttpError } from "./http.js";

/** @import {Frame, Name, Transport} from "./transport.js" */

const WAIT = 25; // seconds that the server can hold a long poll; proxies allow 30 or 60
const PAUSE = 3_000; // ms between polls; varies by up to a third
const TIMEOUT = 10_000; // ms for the first answer

/** @type {Transport} */
export const longpoll = makeTransport("longpoll", WAIT);

/** @type {Transport} */
export const poll = makeTransport("poll", 0);

/** @param {Name} name @param {number} wait Seconds. @returns {Transport} */
function makeTransport(name, wait) {
  return {
    name,
    timeout: TIMEOUT,
    isStream: false,
    holdsRequest: wait > 0,
    open: (base, handlers, tools) =>
      new HttpConnection((one, signal) => runPolls(one, signal, wait), base, handlers, tools),
  };
}

/**
 * Poll until the signal aborts or a poll fails.
 *
 * @param {HttpConnection} connection @param {AbortSignal} signal @param {number} wait Seconds.
 * @returns {Promise<never>}
 */
async function runPolls(connection, signal, wait) {
  const { clock } = connection;
  /** @type {string | null} */
  let etag = null;
  for (;;) {
    const seconds = connection.isSubscribing ? 0 : wait;
    const startedAt = clock.now();
    const isRepeated = !wait && !connection.isSubscribing;
    const condition = etag !== null && isRepeated ? { "If-None-Match": etag } : undefined;
    // The page's header identifies an anonymous visitor from one poll to the next.
    const headers = { ...condition, ...(connection.isSameOrigin && connection.pageHeaders) };
    const response = await connection.get("poll", { wait: String(seconds) }, signal, headers);
    const answer = response.status === 304 ? EMPTY : read(await response.text());
    signal.throwIfAborted();
    if (response.status !== 304) {
      etag = response.headers.get("ETag");
      connection.compositeCursor = answer.cursor ?? "";
    }
    for (const frame of inOrder(answer)) {
      connection.receive(frame);
      signal.throwIfAborted(); // a listener changed the topics
    }
    connection.receive({ type: "heartbeat" });
    if (seconds && isEmpty(answer) && clock.now() - startedAt < (seconds * 1000) / 2) {
      throw new HttpError(501); // a server without ASGI does not wait; long polling would be a busy loop
    }
    if (answer.more || (wait && !connection.isSubscribing)) continue;
    const pause = (PAUSE * (2 + 2 * clock.random())) / 3;
    await new Promise((resolve) => clock.after(pause, () => resolve(null)));
    signal.throwIfAborted();
  }
}

/** @typedef {{events: Frame[], frames: Frame[], cursor?: string, more?: boolean}} Answer */

/** @type {Answer} */
const EMPTY = { events: [], frames: [] };

/** @param {string} text @returns {Answer} */
function read(text) {
  try {
    const answer = JSON.parse(text);
    if (Array.isArray(answer.events) && Array.isArray(answer.frames)) return answer;
  } catch {
    // Not from our server.
  }
  throw new HttpError(415);
}

/** @param {Answer} answer */
function isEmpty({ events, frames }) {
  const isNews = (/** @type {Frame} */ { type, recovered }) =>
    type !== "welcome" && (type !== "subscribed" || recovered === false);
  return !events.length && !frames.some(isNews);
}

/**
 * Return the frames of an answer in the order in which a stream would bring them.
 *
 * The events of a topic with a reset are left out, because they can be from before or after the
 * reset. The next poll brings all events after it.
 *
 * @param {Answer} answer @returns {Frame[]}
 */
function inOrder({ events, frames }) {
  const reset = new Set(frames.filter(({ type }) => type === "reset").map(({ topic }) => topic));
  return [...frames, ...events.filter(({ topic }) => !reset.has(topic))];
}
