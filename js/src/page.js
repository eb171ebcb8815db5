/** @import {Connector} from "./connector.js" */

/**
 * Tell a connector what happens to the page: the network, the tab, the back/forward cache, a sleep.
 *
 * @param {Connector} connector
 * @param {Window | undefined} window None in a worker.
 */
export function watchPage(connector, window = globalThis.window) {
  if (!window) return;
  const { document } = window;
  const wake = () => connector.wake();
  window.addEventListener("online", wake);
  window.addEventListener("offline", wake); // a ping finds out whether our server is meant as well
  document.addEventListener("resume", wake); // a frozen tab goes on
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") connector.wake();
  });
  // An open WebSocket would keep the page out of the cache.
  window.addEventListener("pagehide", () => connector.pause());
  window.addEventListener("pageshow", ({ persisted }) => {
    if (persisted) connector.resume();
  });
}
