// One browser of the demo. What it shows changes by events alone, never by the click that caused
// them, so that everything one sees has gone through the log.
//
// Each <realtime-topic> of the page follows a topic and makes DOM events of what it hears: orders
// and notices live by these. The feed asks the client itself, since it wants events of all names.
const realtime = window.realtime;

const FEED_LINES = 60;
const ROWS = 12;
const STATES = {open: "Open", shipped: "Shipped"};
const byId = (id) => document.getElementById(id);
const [feed, list] = [byId("feed"), byId("orders")];
const [status, since, cut] = [byId("status"), byId("since"), byId("cut")];

// Everything that came from elsewhere is written as text, never as HTML.
function element(name, className, text = "", title = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  if (title) made.title = title;
  return made;
}

function duration(ms) {
  const whole = Math.max(0, Math.round(ms));  // two clocks may differ by a little
  return whole < 1000 ? `${whole} ms` : `${(whole / 1000).toFixed(whole < 10_000 ? 1 : 0)} s`;
}

// JSON in one line that can be broken after its commas.
function pretty(data) {
  return JSON.stringify(data, null, 1).replace(/([{[])\n +/g, "$1").replace(/\n *(?=[}\]])/g, "").replace(/\n +/g, " ");
}

// The feed: the newest at the bottom, where nothing moves because of it

function addToFeed(line) {
  const atEnd = feed.scrollHeight - feed.scrollTop - feed.clientHeight < 40;
  feed.append(line);
  while (feed.children.length > FEED_LINES) feed.firstElementChild.remove();
  if (atEnd) feed.scrollTop = feed.scrollHeight;
}

function say(text) {
  addToFeed(element("li", "said", text));
}

function complain(text) {
  addToFeed(element("li", "said bad", text));
  byId("problem").textContent = text;
}

function addEvent(event, isLate) {
  const late = Date.now() - event.time * 1000;
  const line = element("li", "event");
  const head = element("div", "head");
  const delay = isLate
    ? element("span", "delay late", `caught up, ${duration(late)} late`)
    : element("span", "delay", duration(late));
  delay.title = "From the append to the log until it arrived here";
  head.append(
    element("time", "", new Date(event.time * 1000).toLocaleTimeString("en-GB")),
    element("b", "", event.event),
    element("span", "topic", event.topic),
    delay,
  );
  const data = element("code", "data", pretty(event.data));
  const cursor = event.cursor ?? "none: ephemeral";
  line.append(head, data, element("code", "cursor", cursor, `Cursor ${cursor}`));
  line.dataset.topic = event.topic;
  line.dataset.event = event.event;
  line.dataset.seq = event.seq ?? "";
  line.dataset.late = isLate;
  addToFeed(line);
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
  void row.offsetWidth;   // so that a second event begins the animation anew
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

function addRow(order, start) {
  if (!Number.isInteger(order?.order) || rowOf(order.order) || !(order.state in STATES)) return;
  byId("none")?.remove();
  const row = byId("row").content.firstElementChild.cloneNode(true);
  for (const one of [row, ...row.querySelectorAll("*")]) {
    for (const name of ["action", "aria-label"]) {
      const value = one.getAttribute(name);
      if (value) one.setAttribute(name, value.replace(/\b0\b/, order.order));
    }
  }
  row.dataset.order = order.order;
  row.dataset.version = order.version;
  row.querySelector(".number").textContent = `orders.${order.order}`;
  fill(row, order);
  row.prepend(topicElement(`orders.${order.order}`, start));
  list.append(row);
  feedFrom(row.firstElementChild);
  row.classList.add("flash");
  while (list.children.length > ROWS) leave(list.firstElementChild);
  list.scrollTop = list.scrollHeight;
}

function topicElement(name, start) {
  const topic = document.createElement("realtime-topic");
  topic.setAttribute("name", name);
  if (start) topic.setAttribute("since", start);
  return topic;
}

function leave(row) {
  const name = `orders.${row.dataset.order}`;
  followed.get(name)?.unsubscribe();
  followed.delete(name);
  row.remove();   // and with it its <realtime-topic>, which follows no longer
}

for (const name of ["shipped", "reopened", "asked", "changed"]) {
  list.addEventListener(`realtime:${name}`, ({detail}) => show(detail.data));
}
document.addEventListener("realtime:placed", ({detail}) => addRow(detail.data, `@${detail.time}`));

let reading = false, again = false;
async function readOrders(name) {
  say(`${name}: what was missed is no longer kept, so the orders are read anew`);
  again = true;
  if (reading) return;
  reading = true;
  while (again) {
    again = false;
    try {
      const answer = await fetch(document.body.dataset.orders);
      for (const order of (await answer.json()).orders) {
        addRow(order, order.cursor);
        show(order);
      }
    } catch {
      complain("The orders could not be read; reload the page");
    }
  }
  reading = false;
}

document.addEventListener("realtime-reset", (reset) => {
  reset.preventDefault();   // it is taken care of: no warning in the console
  readOrders(reset.detail.topic);
});
document.addEventListener("realtime-denied", (denied) => {
  denied.preventDefault();
  complain(`${denied.detail.topic}: the server refused (${denied.detail.code})`);
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

const followed = new Map();
const seen = new Map();     // topic: the number of its last event
let connectedAt = 0;        // on this machine's clock, which is the server's as well
let brokenAt = null;
let back = null;            // what came after the last break

function feedFrom(element) {
  const name = element.getAttribute("name");
  const topic = realtime.subscribe(name, {since: element.getAttribute("since")});
  followed.set(name, topic);
  topic.on("*", (data, event) => arrived(event));
  topic.onReset(() => seen.delete(name));
  topic.onDenied(() => {});   // the element tells
}

function arrived(event) {
  const isLate = event.time * 1000 < connectedAt;
  if (isLate && back) countMissed(event);
  if (event.seq) seen.set(event.topic, event.seq);
  addEvent(event, isLate);
  if (window.parent !== window) window.parent.postMessage("event", location.origin);
}

function countMissed({topic, seq}) {
  const last = seen.get(topic);
  back.count += 1;
  back.inOrder &&= last === undefined || seq === last + 1;
  const events = back.count === 1 ? "1 event" : `${back.count} events`;
  const how = back.inOrder ? "in order, none missing" : "not in order";
  since.textContent = `Back after ${back.after}: ${events} caught up, ${how}`;
}

// Who is here: whoever follows the shop's news, which every page of the demo does

const here = byId("here");
const faces = [...here.querySelectorAll(".face")];

export function showMembers(members) {
  const names = members.map((member) => member.info?.name ?? "Somebody");
  here.querySelector(".count").textContent = `${members.length} here`;
  // For those who do not see the faces, in one sentence that is read when it changes.
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
  closed: "Cut",
};
let ticking = null;

function showState(state) {
  const isOver = state === "closed" || state === "denied";
  const shown = state === "connecting" && brokenAt !== null ? "waiting" : state;
  status.dataset.state = shown;
  here.dataset.live = state === "connected";   // otherwise it tells who was here
  status.querySelector("span").textContent = BADGES[shown];
  cut.textContent = isOver ? "Connect again" : "Cut my connection";
  if (state === "connected") connected();
  else if (connectedAt && brokenAt === null) broke();
}

function showTransport() {
  if (brokenAt === null) since.textContent = `Over ${realtime.transport}`;
}

function connected() {
  connectedAt = Date.now();
  clearInterval(ticking);
  if (brokenAt === null) return showTransport();
  const after = duration(connectedAt - brokenAt);
  back = {after, count: 0, inOrder: true};
  brokenAt = null;
  since.textContent = `Back after ${after}`;
  say(`Connected again after ${after}`);
}

function broke() {
  brokenAt = Date.now();
  say("No connection: events wait in the log");
  const tick = () => {
    const seconds = Math.round((Date.now() - brokenAt) / 1000);
    since.textContent = `For ${seconds} s; events wait in the log`;
  };
  tick();
  ticking = setInterval(tick, 1000);
}

cut.addEventListener("click", () => {
  if (realtime.state === "closed" || realtime.state === "denied") realtime.reconnect();
  else realtime.close();
});

byId("transport").addEventListener("change", ({target}) => target.form.submit());
realtime.addEventListener("transportchange", showTransport);

// Buttons

function showCode(key) {
  for (const one of document.querySelectorAll("[data-lines]")) {
    one.classList.toggle("current", one.dataset.lines === key);
  }
  for (const one of document.querySelectorAll("[data-show]")) {
    one.setAttribute("aria-pressed", one.dataset.show === key);
  }
}

async function post(form, submitter) {
  submitter?.setAttribute("aria-busy", "true");
  try {
    // The view answers with a redirect, for browsers without JavaScript; here it means "done".
    const body = new FormData(form, submitter);
    const options = {method: "POST", body, redirect: "manual"};
    const action = submitter?.getAttribute("formaction") ?? form.action;
    const answer = await fetch(action, options);
    if (!(answer.type === "opaqueredirect" || answer.ok)) {
      complain(`The server refused (${answer.status}); reload the page`);
    } else if (realtime.state !== "connected") {
      say("Done; it is seen here when the connection is back");
    }
  } catch {
    complain("The server does not answer; try again when it is back");
  }
  submitter?.removeAttribute("aria-busy");
}

document.addEventListener("submit", (submit) => {
  const [form, submitter] = [submit.target, submit.submitter];
  if (form.matches(".personas, .way")) return;   // another person or transport is another page
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
      complain(`${name}: ${error.message}`);
    }
  }
  if (button?.id === "forbidden") document.body.append(topicElement(button.dataset.topic));
});

// The beginning

if (window.top === window) {
  byId("window").href = byId("window").dataset.home;
  byId("window").target = "_self";
  byId("window").textContent = "Side by side";
}
list.scrollTop = list.scrollHeight;
document.querySelectorAll("realtime-topic").forEach(feedFrom);
followed.get("shop.news").onMembers(showMembers);
// Another window of this browser has become somebody else: what is shown here is not theirs.
realtime.addEventListener("userchange", () => location.reload());
realtime.addEventListener("statechange", ({state}) => showState(state));
showState(realtime.state === "waiting" ? "connecting" : realtime.state);
