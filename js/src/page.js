/** @import {Connector} from "./connector.js" */

/**
 * Pass a page's events to a connector: network changes, tab switches, the back/forward cache,
 * sleep.
 *
 * @param {Connector} connector
 * @param {Window | undefined} window Undefined in a worker.
 */
export function watchPage(connector, window = globalThis.window) {
  if (!window) return;
  const { document } = window;
  const wake = () => connector.wake();
  window.addEventListener("online", wake);
  window.addEventListener("offline", wake); // a ping finds out whether our server is affected
  document.addEventListener("resume", wake); // a frozen tab resumes
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") connector.wake();
  });
  // An open WebSocket would keep the page out of the back/forward cache.
  window.addEventListener("pagehide", () => connector.pause());
  window.addEventListener("pageshow", ({ persisted }) => {
    if (persisted) connector.resume();
  });
}
