/** @import {Client} from "./client.js" */
/** @import {Change, Member} from "./members.js" */
/** @import {Event as TopicEvent, Topic} from "./topic.js" */

const TAG = "realtime-topic";
const USER = "user"; // the attribute name="user" means the topic of the signed-in user
const ATTRIBUTES = ["name", "since", "last"]; // a change of one of them subscribes again

// Node, which runs the tests, has no HTMLElement.
const Base = /** @type {typeof HTMLElement} */ (globalThis.HTMLElement ?? class {});

let isLoading = false; // whether elements that are found now are part of the page as it was rendered

/** Define `<realtime-topic>`, once per page even if this file is loaded several times. */
export function defineElement() {
  if (!globalThis.customElements || customElements.get(TAG)) return;
  isLoading = true; // even if this file was loaded late
  customElements.define(TAG, RealtimeTopic);
  isLoading = false;
}

/** Follows a topic while it is in the document, and dispatches its events as DOM events. */
class RealtimeTopic extends Base {
  static observedAttributes = ATTRIBUTES;
  /** @type {Topic | null} */
  #topic = null;
  /** @type {string | null} The attributes of `#topic` as JSON; null outside the document. */
  #followed = null;
  #isRendered = false; // whether the element was part of the page as it was rendered

  connectedCallback() {
    this.hidden = true; // it has no content
    this.#isRendered = isLoading || document.readyState !== "complete";
    this.#updateSoon();
  }

  disconnectedCallback() {
    this.#updateSoon();
  }

  connectedMoveCallback() {} // moveBefore() does not remove the element: keep the subscription

  attributeChangedCallback() {
    this.#updateSoon();
  }

  /**
   * Update later, so that a moved element stays subscribed, and changes of several attributes cause
   * one update.
   */
  #updateSoon() {
    queueMicrotask(() => this.#update());
  }

  #update() {
    const attributes = this.isConnected ? JSON.stringify(this.#read()) : null;
    if (attributes === this.#followed) return;
    this.#followed = attributes;
    this.#topic?.unsubscribe();
    this.#topic = attributes === null ? null : this.#follow();
  }

  #read() {
    return ATTRIBUTES.map((attribute) => this.getAttribute(attribute));
  }

  /** @returns {Topic | null} null if that is impossible; the console then has an error. */
  #follow() {
    const [name, since, last] = this.#read();
    const problem = problemOf(name, since, last);
    if (problem) console.error(`<${TAG}>: ${problem}`, this);
    const client = pageClient();
    if (problem || !client) return null;
    const begin = since ?? (this.#isRendered ? client.since : null);
    const start = last === null ? { since: begin } : { last: Number(last) };
    const topic = name === USER ? client.subscribeUser(start) : client.subscribe(String(name), start);
    topic.on("*", (_, event) => this.#onEvent(event));
    topic.onReset(() => this.#notify("reset", {}, "events were missed; fetch the state again"));
    topic.onMembers((members, change, count) => this.#onMembers(members, change, count));
    topic.onDenied((denial) => this.#notify("denied", denial, denial.message));
    return topic;
  }

  /** @param {TopicEvent} event */
  #onEvent(event) {
    const names = this.getAttribute("on")?.match(/\S+/g);
    if (!this.isConnected || (names && !names.includes(event.event))) return;
    const options = { bubbles: true, composed: true, detail: event };
    this.dispatchEvent(new CustomEvent(`realtime:${event.event}`, options));
  }

  /** @param {Member[]} members @param {Change | null} change @param {number} count */
  #onMembers(members, change, count) {
    if (!this.isConnected) return;
    const detail = { topic: this.#topic?.name, members, change, count };
    const options = { bubbles: true, composed: true, detail };
    this.dispatchEvent(new CustomEvent("realtime-members", options));
  }

  /**
   * Dispatch an event about the subscription. Its name has a hyphen instead of a colon, so that it
   * differs from every event of a topic.
   *
   * @param {string} what
   * @param {object} more Fields of the event's detail.
   * @param {string} message A warning for the console, unless a listener calls `preventDefault()`.
   */
  #notify(what, more, message) {
    const topic = this.#topic?.name ?? this.getAttribute("name");
    const options = { bubbles: true, composed: true, cancelable: true, detail: { topic, ...more } };
    const isUnhandled = this.dispatchEvent(new CustomEvent(`realtime-${what}`, options));
    if (isUnhandled) console.warn(`<${TAG}>: realtime-${what}: ${topic}: ${message}`);
  }
}

/**
 * @param {string | null} name @param {string | null} since @param {string | null} last
 * @returns {string | null} what is wrong with the attributes.
 */
function problemOf(name, since, last) {
  if (!name) return 'the attribute name is missing: add a topic, such as name="orders.42"';
  if (since !== null && last !== null) return "give it since or last, not both";
  if (since === "") return "since is empty: give a cursor, or @ and seconds since 1970";
  if (last !== null && !/^\d{1,9}$/.test(last)) return `last="${last}" is not a whole number: give 0 or more`;
  return null;
}

let hasWarned = false;

/** @returns {Client | null} null if the page has no client; the first call logs what to add. */
function pageClient() {
  const client = /** @type {unknown} */ (window.realtime);
  if (client) return /** @type {Client} */ (client);
  if (!hasWarned) {
    console.error(
      `<${TAG}>: this page has no client. Add {% realtime_script %} to it, or ` +
        '<script type="module" src="…/realtime.js" data-realtime-url="/realtime/"></script>',
    );
  }
  hasWarned = true;
  return null;
}
