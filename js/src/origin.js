import { sha256 } from "./sha256.js";

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const LENGTH = 22; // 132 random bits, which cannot be guessed

/** Return a random secret for this page's `X-Realtime-Origin` header. */
export function makeSecret() {
  const bytes = crypto.getRandomValues(new Uint8Array(LENGTH));
  return Array.from(bytes, (byte) => ALPHABET[byte & 63]).join("");
}

/**
 * Return the hash of a page's secret, which events carry. `realtime.publishing.origin_hash()` is
 * its counterpart in Python.
 *
 * @param {string} secret
 */
export function originHash(secret) {
  return sha256(secret).slice(0, 16);
}
