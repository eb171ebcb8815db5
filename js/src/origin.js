import { sha256 } from "./sha256.js";

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const LENGTH = 22; // 132 random bits: nobody guesses another page's

/** Return a random secret for the `X-Realtime-Origin` header of this page. */
export function makeSecret() {
  const bytes = crypto.getRandomValues(new Uint8Array(LENGTH));
  return Array.from(bytes, (byte) => ALPHABET[byte & 63]).join("");
}

/**
 * Return what an event carries of a page's secret; `realtime.publishing.origin_hash` is the same.
 *
 * @param {string} secret
 */
export function originHash(secret) {
  return sha256(secret).slice(0, 16);
}
