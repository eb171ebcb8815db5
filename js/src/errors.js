/** Why a `publish()` or `call()` failed. */
export class RealtimeError extends Error {
  /**
   * @param {string} code The server's code, or one of the client's: `disconnected` (sent, but the
   *   answer was lost: the command may have run), `timeout`, `denied` and `closed` (never sent).
   * @param {string} message The explanation, for people.
   * @param {boolean} [retry] Whether the same command may succeed a few seconds later.
   */
  constructor(code, message, retry = false) {
    super(message);
    this.name = "RealtimeError";
    this.code = code;
    this.retry = retry;
  }
}
