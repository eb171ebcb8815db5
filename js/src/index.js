import { Client } from "./client.js";
import { defineElement } from "./element.js";
import { watchHtmx } from "./htmx.js";
import { watchPage } from "./page.js";

/** @typedef {import("../../realtime/static/realtime/realtime.js").Client} PublicClient */
/** @typedef {import("../../realtime/static/realtime/realtime.js").Options} PublicOptions */

export { RealtimeError } from "./errors.js";
export { realtime };

/**
 * Make a client. Most pages use `realtime` instead, which is made from their script element.
 *
 * @param {PublicOptions} options
 * @returns {PublicClient}
 */
export function createClient(options) {
  const client = new Client(options);
  watchPage(client);
  watchHtmx(client.headers);
  return /** @type {PublicClient} */ (/** @type {EventTarget} */ (client));
}

/** @returns {PublicClient | undefined} the page's one client, even if this file is loaded twice. */
function pageClient() {
  const script = globalThis.document?.querySelector("script[data-realtime-url]");
  if (!(script instanceof HTMLElement)) return undefined;
  const { realtimeUrl = "", realtimeUser, realtimeSince, realtimeTransport } = script.dataset;
  // An empty attribute means that nobody is signed in; a missing one, that the user is unknown.
  const user = realtimeUser === undefined ? undefined : realtimeUser || null;
  const transport = /** @type {PublicOptions["transport"]} */ (realtimeTransport || "auto");
  // Until then, window.realtime can be an element of the page: <div id="realtime">.
  if (typeof window.realtime?.subscribe !== "function") {
    window.realtime = createClient({ url: realtimeUrl, user, since: realtimeSince, transport });
  }
  return window.realtime;
}

/**
 * Call a function after the scripts of the page have run, or now if they have.
 *
 * @param {() => void} callback Can be called twice.
 */
function afterScripts(callback) {
  if (!globalThis.document || document.readyState === "complete") return callback();
  document.addEventListener("DOMContentLoaded", callback, { once: true });
  addEventListener("load", callback, { once: true }); // if a script has imported this file late
}

const realtime = pageClient();
// After the page's own scripts, so that their listeners miss no event of an element.
afterScripts(defineElement);
