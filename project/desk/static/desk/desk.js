// The desk's page: what it shows changes by events alone, never by the click that caused them.
import {follow} from "./follow.js";

const FEED_LINES = 60;
const STATES = {open: "Open", shipped: "Shipped"};
const feed = document.getElementById("feed");
const status = document.getElementById("status");
const notice = document.getElementById("notice");
const rows = new Map();
const cursors = new Map();
for (const row of document.querySelectorAll("[data-order]")) {
  rows.set(Number(row.dataset.order), row);
  cursors.set(`orders.${row.dataset.order}`, row.dataset.cursor);
}

// Everything that came from elsewhere is written as text, never as HTML.
function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function addToFeed(line) {
  document.getElementById("nothing-yet").hidden = true;
  feed.prepend(line);
  while (feed.children.length > FEED_LINES) feed.lastElementChild.remove();
}

function say(text) {
  addToFeed(element("li", "said", text));
}

function milliseconds(seconds) {
  const ms = Math.max(0, Math.round(seconds * 1000));
  return ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`;
}

// Rows

function show(order, flash) {
  const row = rows.get(order?.order);
  if (!row || !(order.version > Number(row.dataset.version)) || !(order.state in STATES)) return;
  const focused = row.contains(document.activeElement);
  row.dataset.version = order.version;
  row.dataset.state = order.state;
  row.querySelector(".badge").textContent = STATES[order.state];
  const button = row.querySelector(order.state === "open" ? ".ship button" : ".reopen button");
  if (focused) button.focus();
  if (flash) {
    row.classList.remove("flash");
    void row.offsetWidth;   // so that a second event begins the animation anew
    row.classList.add("flash");
  }
}

let reloading = false, again = false;
async function reload() {
  again = true;
  if (reloading) return;
  reloading = true;
  while (again) {
    again = false;
    try {
      const answer = await fetch(document.body.dataset.orders);
      for (const order of (await answer.json()).orders) show(order, true);
      say("What was missed is no longer kept: the orders were read anew");
    } catch {
      say("The orders could not be read; reload the page");
    }
  }
  reloading = false;
}

for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", async (submit) => {
    submit.preventDefault();
    const button = form.querySelector("button");
    button.setAttribute("aria-busy", "true");
    try {
      // The view answers with a redirect, for browsers without JavaScript; here it means "done".
      const options = {method: "POST", body: new FormData(form), redirect: "manual"};
      const answer = await fetch(form.action, options);
      const done = answer.type === "opaqueredirect" || answer.ok;
      notice.textContent = done ? "" : `The server refused (${answer.status}); reload the page.`;
    } catch {
      notice.textContent = "The server does not answer. Try again when the page is live.";
    }
    button.removeAttribute("aria-busy");
  });
}

// Events

let lostAt = null;
let missed = 0;
const replay = new Map();   // topic: how many of its next events are replayed

function showEvent(frame) {
  const late = milliseconds(Date.now() / 1000 - frame.time);
  const left = replay.get(frame.topic) ?? 0;
  replay.set(frame.topic, left - 1);
  const line = element("li", "event", "");
  const head = element("div", "head", "");
  const delay = left > 0
    ? element("span", "delay late", `replayed, ${late} late`)
    : element("span", "delay", late);
  delay.title = "From the append to the log until it arrived here";
  head.append(element("b", "", frame.event), element("span", "topic", frame.topic), delay);
  const cursor = element("div", "cursor", "cursor ");
  cursor.append(element("code", "", frame.cursor ?? "none: ephemeral"));
  line.append(head, element("code", "data", JSON.stringify(frame.data)), cursor);
  line.dataset.topic = frame.topic;
  line.dataset.seq = frame.seq ?? "";
  addToFeed(line);
  show(frame.data, true);
}

function showSubscribed(frame) {
  replay.set(frame.topic, frame.replayed);
  missed += frame.replayed;
  if (replay.size < cursors.size) return;
  setStatus("live", "Live");
  notice.textContent = "";
  if (lostAt === null) return;
  const what = `${missed} ${missed === 1 ? "event" : "events"}`;
  say(`Back after ${milliseconds((Date.now() - lostAt) / 1000)}, ${what} replayed`);
  lostAt = null;
}

function showClosed(forGood) {
  replay.clear();
  missed = 0;
  setStatus(forGood ? "closed" : "waiting", forGood ? "Closed" : "Reconnecting");
  if (lostAt === null) say("No connection: events wait in the log");
  lostAt ??= Date.now();
}

function setStatus(state, text) {
  status.dataset.state = state;
  status.querySelector("span").textContent = text;
}

follow(cursors, {event: showEvent, subscribed: showSubscribed, closed: showClosed, reload});
