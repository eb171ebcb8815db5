/** @typedef {Record<string, string>} Headers */

/**
 * Send this page's headers with htmx's requests to the page's own site.
 *
 * @param {Readonly<Headers>} headers
 * @param {Document | undefined} document Undefined in a worker.
 */
export function watchHtmx(headers, document = globalThis.document) {
  /** @param {string} path @param {Headers} request */
  const add = (path, request) => {
    if (!isSameOrigin(path)) return;
    for (const [name, value] of Object.entries(headers)) request[name] ??= value;
  };
  // htmx 1 and 2 dispatch the first of these events, htmx 4 the second.
  document?.addEventListener("htmx:configRequest", (event) => {
    const { detail } = /** @type {CustomEvent} */ (event);
    add(detail.path, detail.headers);
  });
  document?.addEventListener("htmx:config:request", (event) => {
    const { request } = /** @type {CustomEvent} */ (event).detail.ctx;
    add(request.action, request.headers);
  });
}

/** @param {string} path @returns {boolean} false for other sites, which must not get the secret. */
function isSameOrigin(path) {
  try {
    return new URL(path, document.baseURI).origin === location.origin;
  } catch {
    return false;
  }
}
