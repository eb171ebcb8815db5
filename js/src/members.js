/** @import {Frame} from "./transport.js" */

/**
 * @typedef {object} Member
 * @property {string} id The name of the user's own topic, such as `user.7`; `connection.` and a
 *   random name for a visitor who is not signed in.
 * @property {string | null} user The user's primary key; null for a visitor.
 * @property {any} info What the topic's `member_info()` returned.
 */

/** @typedef {{type: "join" | "leave", member: Member}} Change */

/** The members of a topic, kept up to date from the server's frames. */
export class Members {
  /** @type {Map<string, Member>} */
  #all = new Map();
  /** @type {Map<string, Member> | null} A new list whose last frame has not arrived. */
  #partial = null;
  /** @type {number | null} The version of the partial list. */
  #partialVersion = null;
  /** @type {number | null} The version of the last change in the list; null without a list. */
  #version = null;
  /** @type {number | null} How many members there are while the server does not list them. */
  #count = null;

  /** @returns {Member[]} in the order in which they joined. */
  get list() {
    return [...this.#all.values()];
  }

  /** How many members there are, also where they are too many for a list. */
  get count() {
    return this.#count ?? this.#all.size;
  }

  /** Whether a list, or the number of members, has been received. */
  get isKnown() {
    return this.#version !== null;
  }

  /** Remove all members: another user has another topic. */
  clear() {
    this.#all.clear();
    this.#partial = this.#version = this.#count = null;
  }

  /** The connection ended: the server will send an incomplete list again, from its start. */
  down() {
    this.#partial = null;
  }

  /**
   * @param {Frame} frame A `members`, `join` or `leave` frame.
   * @returns {{change: Change | null} | "missed" | null} the change, which is null for a new list;
   *   `"missed"` if earlier changes are missing; null if the frame changes nothing.
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
    // A frame of another list: the connection ended before the rest of the earlier list arrived.
    if (frame.version !== this.#partialVersion) this.#partial = null;
    this.#partialVersion = frame.version;
    this.#partial ??= new Map();
    for (const member of frame.members) this.#partial.set(member.id, member);
    if (frame.more) return null;
    this.#all = this.#partial;
    this.#partial = null;
    this.#version = frame.version;
    this.#count = frame.count ?? null;
    return { change: null };
  }
}
