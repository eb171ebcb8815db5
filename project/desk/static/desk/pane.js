// One browser of the demo. Only events change what it shows, never the click that caused them, so
// every change on the page has gone through the log.
//
// Each <realtime-topic> element follows a topic and dispatches a DOM event for each of its events;
// these update orders and notices. The feed shows events of all names, so it uses the client's API.
const realtime = window.realtime;

const MAX_FEED_LINES = 60;
const MAX_ORDERS = 12;
const STATES = {open: "Open", shipped: "Shipped"};
const byId = (id) => document.getElementById(id);
const [feed, list] = [byId("feed"), byId("orders")];
const [status, statusText] = [byId("status"), byId("status-text")];
const disconnect = byId("disconnect");

// Data from events is always inserted as text, never as HTML.
function element(name, className, text = "", title = "") {
  const created = document.createElement(name);
  created.className = className;
  created.textContent = text;
  if (title) created.title = title;
  return created;
}

function duration(ms) {
  const rounded = Math.max(0, Math.round(ms));  // the clocks can differ a little
  return rounded < 1000 ? `${rounded} ms` : `${(rounded / 1000).toFixed(rounded < 10_000 ? 1 : 0)} s`;
}

// JSON on one line, which the browser can wrap after the commas.
function pretty(data) {
  return JSON.stringify(data, null, 1).replace(/([{[])\n +/g, "$1").replace(/\n *(?=[}\]])/g, "").replace(/\n +/g, " ");
}

// The feed. New lines go to the bottom, so that the other lines do not move.

function addToFeed(line, next = null) {
  const atEnd = feed.scrollHeight - feed.scrollTop - feed.clientHeight < 40;
  feed.insertBefore(line, next);
  while (feed.children.length > MAX_FEED_LINES) feed.firstElementChild.remove();
  if (atEnd) feed.scrollTop = feed.scrollHeight;
}

function addMessage(text) {
  addToFeed(element("li", "message", text));
}

function reportProblem(text) {
  addToFeed(element("li", "message problem", text));
  byId("problem").textContent = text;
}

function addEvent(event, isReplayed) {
  const delayMs = Date.now() - event.time * 1000;
  const line = element("li", "event");
  const head = element("div", "head");
  const delay = isReplayed
    ? element("span", "delay replayed", `replayed after ${duration(delayMs)}`)
    : element("span", "delay", duration(delayMs));
  delay.title = "Time from the append to the log until the event arrived here";
  head.append(
    element("time", "", new Date(event.time * 1000).toLocaleTimeString("en-GB")),
    element("b", "", event.event),
    element("span", "topic", event.topic),
    delay,
  );
  const data = element("code", "data", pretty(event.data));
  const cursor = event.cursor ?? "none (ephemeral)";
  line.append(head, data, element("code", "cursor", cursor, `Cursor ${cursor}`));
  line.dataset.topic = event.topic;
  line.dataset.event = event.event;
  line.dataset.seq = event.seq ?? "";
  line.dataset.replayed = isReplayed;
  line.dataset.time = event.time;
  addToFeed(line, lineAfter(event.time));
}

// The server replays one topic after the other; the feed shows their events in order of time.
function lineAfter(time) {
  let [next, line] = [null, feed.lastElementChild];
  while (Number(line?.dataset.time) > time) [next, line] = [line, line.previousElementSibling];
  return next;
}

// Orders

function rowOf(order) {
  return list.querySelector(`[data-order="${Number(order)}"]`);
}

function show(order, flash = true) {
  const row = rowOf(order?.order);
  if (!row || !(order.version > Number(row.dataset.version)) || !(order.state in STATES)) return;
  const focused = row.contains(document.activeElement);
  row.dataset.version = order.version;
  fill(row, order);
  if (focused) row.querySelector(order.state === "open" ? ".ship button" : ".reopen button")?.focus();
  if (!flash) return;
  row.classList.remove("flash");
  void row.offsetWidth;   // restarts the animation for a second event
  row.classList.add("flash");
}

function fill(row, order) {
  row.dataset.state = order.state;
  row.dataset.asked = order.asked === true;
  row.querySelector(".badge").textContent = STATES[order.state];
  row.querySelector(".what").textContent = order.item;
  const customer = row.querySelector(".customer");
  if (customer) customer.textContent = order.customer;
}

function addRow(order, since) {
  if (!Number.isInteger(order?.order) || rowOf(order.order) || !(order.state in STATES)) return;
  byId("none")?.remove();
  const row = byId("row").content.firstElementChild.cloneNode(true);
  for (const each of [row, ...row.querySelectorAll("*")]) {
    for (const name of ["action", "aria-label"]) {
      const value = each.getAttribute(name);
      if (value) each.setAttribute(name, value.replace(/\b0\b/, order.order));
    }
  }
  row.dataset.order = order.order;
  row.dataset.version = order.version;
  row.querySelector(".number").textContent = `orders.${order.order}`;
  fill(row, order);
  list.scrollTop = list.scrollHeight;   // also before, so that dropping the first row moves nothing
  row.prepend(topicElement(`orders.${order.order}`, since));
  list.append(row);
  followForFeed(row.firstElementChild);
  row.classList.add("flash");
  while (list.children.length > MAX_ORDERS) removeRow(list.firstElementChild);
  list.scrollTop = list.scrollHeight;
}

function topicElement(name, since) {
  const topic = document.createElement("realtime-topic");
  topic.setAttribute("name", name);
  if (since) topic.setAttribute("since", since);
  return topic;
}

function removeRow(row) {
  const name = `orders.${row.dataset.order}`;
  followed.get(name)?.unsubscribe();
  followed.delete(name);
  row.remove();   // also removes its <realtime-topic>, which unsubscribes
}

for (const name of ["shipped", "reopened", "asked", "changed"]) {
  list.addEventListener(`realtime:${name}`, ({detail}) => show(detail.data));
}
document.addEventListener("realtime:placed", ({detail}) => addRow(detail.data, `@${detail.time}`));

let isLoading = false, mustReload = false;
async function reloadOrders(name) {
  addMessage(`${name}: the missed events are no longer stored, so the page reloads the orders`);
  mustReload = true;
  if (isLoading) return;
  isLoading = true;
  while (mustReload) {
    mustReload = false;
    try {
      const answer = await fetch(document.body.dataset.orders);
      for (const order of (await answer.json()).orders) {
        addRow(order, order.cursor);
        show(order);
      }
    } catch {
      reportProblem("The orders could not be loaded. Reload the page.");
    }
  }
  isLoading = false;
}

document.addEventListener("realtime-reset", (reset) => {
  reset.preventDefault();   // handled here, so the client logs no warning
  reloadOrders(reset.detail.topic);
});
document.addEventListener("realtime-denied", (denied) => {
  denied.preventDefault();
  reportProblem(`${denied.detail.topic}: the server refused the subscription (${denied.detail.code})`);
});

// Notices

for (const name of ["notice", "announcement"]) {
  document.addEventListener(`realtime:${name}`, ({detail}) => {
    const text = detail.data?.text;
    if (!byId("notice") || typeof text !== "string") return;
    byId("notice").textContent = text;
    byId("notice").dataset.from = detail.topic;
  });
}

// Events for the feed

const followed = new Map();   // topics by name
const lastSeq = new Map();    // the seq of the last event, by topic name
let connectedAt = 0;          // by this machine's clock, which is also the server's
let disconnectedAt = null;
let reconnect = null;         // the events replayed after the last reconnect

function followForFeed(element) {
  const name = element.getAttribute("name");
  const topic = realtime.subscribe(name, {since: element.getAttribute("since")});
  followed.set(name, topic);
  topic.on("*", (data, event) => receive(event));
  topic.onReset(() => lastSeq.delete(name));
  topic.onDenied(() => {});   // the element reports the denial
}

function receive(event) {
  const isReplayed = event.time * 1000 < connectedAt;
  if (isReplayed && reconnect) countReplayed(event);
  if (event.seq) lastSeq.set(event.topic, event.seq);
  addEvent(event, isReplayed);
  if (window.parent !== window) window.parent.postMessage("event", location.origin);
}

function countReplayed({topic, seq}) {
  const last = lastSeq.get(topic);
  reconnect.count += 1;
  reconnect.inOrder &&= last === undefined || seq === last + 1;
  const events = reconnect.count === 1 ? "1 event" : `${reconnect.count} events`;
  const order = reconnect.inOrder ? "in order, none missing" : "not in order";
  statusText.textContent = `Reconnected after ${reconnect.after}: ${events} replayed, ${order}`;
}

// The members: everyone who follows shop.news, as every page of the demo does

const here = byId("here");
const faces = [...here.querySelectorAll(".face")];

export function showMembers(members) {
  const names = members.map((member) => member.info?.name ?? "Visitor");
  here.querySelector(".count").textContent = `${members.length} here`;
  // For screen readers: one sentence, which they read again when it changes.
  byId("here-names").textContent = members.length ? `Here: ${names.join(", ")}` : "";
  const fits = members.length <= faces.length ? members.length : faces.length - 1;
  faces.forEach((face, number) => {
    if (number < fits) {
      const role = members[number].info?.role ?? "customer";
      fillFace(face, names[number].slice(0, 1), `${names[number]}, ${role}`, role);
    } else if (number === fits && fits < members.length) {
      fillFace(face, `+${members.length - fits}`, names.slice(fits).join(", "), "more");
    } else fillFace(face, "", "", "");
  });
}

function fillFace(face, text, title, role) {
  face.textContent = text;
  face.title = title;
  face.dataset.role = role;
}

// The connection

const BADGES = {
  connecting: "Connecting", connected: "Connected", waiting: "Reconnecting", denied: "Refused",
  closed: "Disconnected",
};
let ticker = null;

function showState(state) {
  const isClosed = state === "closed" || state === "denied";
  const shown = state === "connecting" && disconnectedAt !== null ? "waiting" : state;
  status.dataset.state = shown;
  here.dataset.live = state === "connected";   // if not, the list can be out of date
  status.querySelector("span").textContent = BADGES[shown];
  disconnect.textContent = isClosed ? "Reconnect" : "Disconnect";
  if (state === "connected") handleConnect();
  else if (connectedAt && disconnectedAt === null) handleDisconnect();
}

function showTransport() {
  if (disconnectedAt !== null) return;
  const name = byId("transport").querySelector(`[value="${realtime.transport}"]`).textContent;
  statusText.textContent = `Transport: ${name}`;
}

function handleConnect() {
  connectedAt = Date.now();
  clearInterval(ticker);
  if (disconnectedAt === null) return showTransport();
  const after = duration(connectedAt - disconnectedAt);
  reconnect = {after, count: 0, inOrder: true};
  disconnectedAt = null;
  statusText.textContent = `Reconnected after ${after}`;
  addMessage(`Reconnected after ${after}`);
}

function handleDisconnect() {
  disconnectedAt = Date.now();
  addMessage("Disconnected. New events wait in the log.");
  const tick = () => {
    const seconds = Math.round((Date.now() - disconnectedAt) / 1000);
    statusText.textContent = `No connection for ${seconds} s. New events wait in the log.`;
  };
  tick();
  ticker = setInterval(tick, 1000);
}

disconnect.addEventListener("click", () => {
  if (realtime.state === "closed" || realtime.state === "denied") realtime.reconnect();
  else realtime.close();
});

byId("transport").addEventListener("change", ({target}) => target.form.submit());
realtime.addEventListener("transportchange", showTransport);

// Buttons

function showCode(key) {
  for (const lines of document.querySelectorAll("[data-lines]")) {
    lines.classList.toggle("current", lines.dataset.lines === key);
  }
  for (const button of document.querySelectorAll("[data-show]")) {
    button.setAttribute("aria-pressed", button.dataset.show === key);
  }
}

async function post(form, submitter) {
  submitter?.setAttribute("aria-busy", "true");
  try {
    // The view answers with a redirect, for browsers without JavaScript. Here, it means success.
    const body = new FormData(form, submitter);
    const options = {method: "POST", body, redirect: "manual"};
    const action = submitter?.getAttribute("formaction") ?? form.action;
    const answer = await fetch(action, options);
    if (!(answer.type === "opaqueredirect" || answer.ok)) {
      reportProblem(`The server refused the request (${answer.status}). Reload the page.`);
    } else if (realtime.state !== "connected") {
      addMessage("Done. The event appears here after the reconnect.");
    }
  } catch {
    reportProblem("The server does not answer. Try again later.");
  }
  submitter?.removeAttribute("aria-busy");
}

document.addEventListener("submit", (submit) => {
  const [form, submitter] = [submit.target, submit.submitter];
  if (form.matches(".personas, .transport")) return;   // these load the page again
  submit.preventDefault();
  showCode(submitter?.dataset.code ?? form.dataset.code);
  post(form, submitter);
});

document.addEventListener("click", async ({target}) => {
  const button = target.closest("button");
  if (button?.dataset.show) showCode(button.dataset.show);
  if (button?.matches(".ask")) {
    showCode("ask");
    const name = `orders.${button.closest(".order").dataset.order}`;
    try {
      await followed.get(name).call("ask");
    } catch (error) {
      reportProblem(`${name}: ${error.message}`);
    }
  }
  if (button?.id === "forbidden") document.body.append(topicElement(button.dataset.topic));
});

// Start

if (window.top === window) {
  byId("window").href = byId("window").dataset.home;
  byId("window").target = "_self";
  byId("window").textContent = "Side by side";
}
document.querySelectorAll("realtime-topic").forEach(followForFeed);
followed.get("shop.news").onMembers(showMembers);
// Another window switched this browser to another persona, so this page shows the wrong one.
realtime.addEventListener("userchange", () => location.reload());
realtime.addEventListener("statechange", ({state}) => showState(state));
showState(realtime.state === "waiting" ? "connecting" : realtime.state);
