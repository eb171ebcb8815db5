/** Why a `publish()` or `call()` did not succeed. */
export class RealtimeError extends Error {
  /**
   * @param {string} code The server's code, or one of ours: `disconnected` (sent, but the answer
   *   was lost: it may have happened), `timeout` (never sent), `denied` and `closed` (never sent).
   * @param {string} message For people.
   * @param {boolean} [retry] Whether the same may succeed a few seconds later.
   */
  constructor(code, message, retry = false) {
    super(message);
    this.name = "RealtimeError";
    this.code = code;
    this.retry = retry;
  }
}
