/** @import {Client} from "./client.js" */
/** @import {Change, Member} from "./members.js" */
/** @import {Event as TopicEvent, Topic} from "./topic.js" */

const TAG = "realtime-topic";
const OWN = "user"; // the name of the topic of whoever is signed in
const ATTRIBUTES = ["name", "since", "last"]; // attributes; a change of them follows anew

// Node has no elements, and imports this in tests.
const Base = /** @type {typeof HTMLElement} */ (globalThis.HTMLElement ?? class {});

/** Let `<realtime-topic>` follow topics; once a page, however often this file is loaded. */
export function defineElement() {
  if (!globalThis.customElements || customElements.get(TAG)) return;
  customElements.define(TAG, RealtimeTopic);
}

/** Follows a topic while it is in the document, and makes DOM events of what it hears. */
class RealtimeTopic extends Base {
  static observedAttributes = ATTRIBUTES;
  /** @type {Topic | null} */
  #topic = null;
  /** @type {string | null} What it follows by, in one text; null if it is not in the document. */
  #followed = null;

  connectedCallback() {
    this.hidden = true; // there is nothing to see
    this.#updateSoon();
  }

  disconnectedCallback() {
    this.#updateSoon();
  }

  connectedMoveCallback() {} // by moveBefore(), which takes nothing out

  attributeChangedCallback() {
    this.#updateSoon();
  }

  /** In a moment: who is moved stays, and who gets several attributes follows once. */
  #updateSoon() {
    queueMicrotask(() => this.#update());
  }

  #update() {
    const wanted = this.isConnected ? JSON.stringify(this.#read()) : null;
    if (wanted === this.#followed) return;
    this.#followed = wanted;
    this.#topic?.unsubscribe();
    this.#topic = wanted === null ? null : this.#follow();
  }

  #read() {
    return ATTRIBUTES.map((attribute) => this.getAttribute(attribute));
  }

  /** @returns {Topic | null} null, and the console says why, if it cannot. */
  #follow() {
    const [name, since, last] = this.#read();
    const problem = problemOf(name, since, last);
    if (problem) console.error(`<${TAG}>: ${problem}`, this);
    const client = pageClient();
    if (problem || !client) return null;
    const start = last === null ? { since } : { last: Number(last) };
    const topic = name === OWN ? client.subscribeUser(start) : client.subscribe(String(name), start);
    topic.on("*", (_, event) => this.#hear(event));
    topic.onReset(() => this.#tell("reset", {}, "events were missed; fetch the state anew"));
    topic.onMembers((members, change) => this.#meet(members, change));
    topic.onDenied((denial) => this.#tell("denied", denial, denial.message));
    return topic;
  }

  /** @param {TopicEvent} event */
  #hear(event) {
    const names = this.getAttribute("on")?.match(/\S+/g);
    if (!this.isConnected || (names && !names.includes(event.event))) return;
    const options = { bubbles: true, composed: true, detail: event };
    this.dispatchEvent(new CustomEvent(`realtime:${event.event}`, options));
  }

  /** @param {Member[]} members @param {Change | null} change */
  #meet(members, change) {
    if (!this.isConnected) return;
    const detail = { topic: this.#topic?.name, members, change };
    const options = { bubbles: true, composed: true, detail };
    this.dispatchEvent(new CustomEvent("realtime-members", options));
  }

  /**
   * Tell what is no event of the topic; with a hyphen, so that no name of an event can be the same.
   *
   * @param {string} what
   * @param {object} more
   * @param {string} message For the console, where no listener says that it took care.
   */
  #tell(what, more, message) {
    const topic = this.#topic?.name ?? this.getAttribute("name");
    const options = { bubbles: true, composed: true, cancelable: true, detail: { topic, ...more } };
    const isOpen = this.dispatchEvent(new CustomEvent(`realtime-${what}`, options));
    if (isOpen) console.warn(`<${TAG}>: realtime-${what}: ${topic}: ${message}`);
  }
}

/**
 * @param {string | null} name @param {string | null} since @param {string | null} last
 * @returns {string | null} what is wrong with the attributes.
 */
function problemOf(name, since, last) {
  if (!name) return 'the attribute name is missing: a topic, such as name="orders.42"';
  if (since !== null && last !== null) return "give it since or last, not both";
  if (since === "") return "since is empty; it is a cursor, or @ and seconds since 1970";
  if (last !== null && !/^\d{1,9}$/.test(last)) return `last="${last}" is no whole number from 0 on`;
  return null;
}

let hasComplained = false;

/** @returns {Client | null} null, and the console says once what is missing, if there is none. */
function pageClient() {
  const client = /** @type {unknown} */ (window.realtime);
  if (client) return /** @type {Client} */ (client);
  if (!hasComplained) {
    console.error(
      `<${TAG}>: this page has no client. Add {% realtime_script %} to it, or ` +
        '<script type="module" src="…/realtime.js" data-realtime-url="/realtime/"></script>',
    );
  }
  hasComplained = true;
  return null;
}
