/** @import {Frame} from "./links.js" */

/**
 * @typedef {object} Member
 * @property {string} id The name of the user's own topic, such as `user.7`; of a visitor who is not
 * signed in, `connection.` and something random.
 * @property {string | null} user The user's primary key; null for a visitor.
 * @property {any} info What the topic's `member_info()` returned.
 */

/** @typedef {{type: "join" | "leave", member: Member}} Change */

/** Who is on a topic, as the server's frames tell it. */
export class Members {
  /** @type {Map<string, Member>} */
  #all = new Map();
  /** @type {Map<string, Member> | null} A list of which parts are still to come. */
  #coming = null;
  /** @type {number | null} Of the list that is coming. */
  #comingVersion = null;
  /** @type {number | null} Of the last change that is in the list; null while there is none. */
  #version = null;

  /** @returns {Member[]} in the order in which they came. */
  get list() {
    return [...this.#all.values()];
  }

  /** Was the list told? */
  get isKnown() {
    return this.#version !== null;
  }

  /** Forget them; somebody else has another topic. */
  clear() {
    this.#all.clear();
    this.#coming = this.#version = null;
  }

  /** The connection broke: what is not told yet comes anew. */
  down() {
    this.#coming = null;
  }

  /**
   * @param {Frame} frame A `members`, `join` or `leave`.
   * @returns {{change: Change | null} | "missed" | null} what is new; null if nothing is.
   */
  receive(frame) {
    if (frame.type === "members") return this.#list(frame);
    if (this.#version === null || frame.version <= this.#version) return null;
    if (frame.version > this.#version + 1) return "missed";
    const { type, member, version } = /** @type {Frame & Change} */ (frame);
    this.#version = version;
    if (type === "join") this.#all.set(member.id, member);
    else this.#all.delete(member.id);
    return { change: { type, member } };
  }

  /** @param {Frame} frame */
  #list(frame) {
    // The rest of an earlier one did not come: the connection broke in its middle.
    if (frame.version !== this.#comingVersion) this.#coming = null;
    this.#comingVersion = frame.version;
    this.#coming ??= new Map();
    for (const member of frame.members) this.#coming.set(member.id, member);
    if (frame.more) return null;
    this.#all = this.#coming;
    this.#coming = null;
    this.#version = frame.version;
    return { change: null };
  }
}
