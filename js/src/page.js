/** @import {Client} from "./client.js" */

const HIDDEN = 2_000; // ms after which a hidden page closes its connection: a glance elsewhere is shorter

/**
 * Pass a page's events to a client: network changes, tab switches, the back/forward cache,
 * sleep.
 *
 * Over HTTP/1.1 a browser opens six connections to a site, for all of its tabs. A hidden page closes
 * a stream or long poll, which would keep one of them; otherwise the seventh tab does not load.
 *
 * @param {Client} client
 * @param {Window | undefined} window Undefined in a worker.
 */
export function watchPage(client, window = globalThis.window) {
  if (!window) return;
  const { document } = window;
  const { connector } = client;
  const wake = () => connector.wake();
  window.addEventListener("online", wake);
  window.addEventListener("offline", wake); // a ping finds out whether our server is affected
  document.addEventListener("resume", wake); // a frozen tab resumes
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState !== "visible") return;
    connector.resume();
    connector.wake();
  });
  // An open WebSocket would keep the page out of the back/forward cache.
  window.addEventListener("pagehide", () => connector.pause());
  window.addEventListener("pageshow", ({ persisted }) => {
    if (persisted) connector.resume();
  });
  const [navigation] = window.performance.getEntriesByType("navigation");
  const { nextHopProtocol } = /** @type {PerformanceNavigationTiming} */ (navigation ?? {});
  if (nextHopProtocol !== "http/1.1") return;
  const hideLater = () => {
    setTimeout(() => {
      if (document.visibilityState === "hidden") connector.hide();
    }, HIDDEN);
  };
  document.addEventListener("visibilitychange", hideLater);
  client.addEventListener("statechange", hideLater); // a tab can open in the background
}
