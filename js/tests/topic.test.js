import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { originHash } from "../src/origin.js";
import { comeBack, FakeWebSocket, makeClient, makeLive, settle } from "./support.js";

mock.method(console, "warn", () => {});

test("listeners receive the data and the event", async () => {
  const { topic } = await makeLive({ last: 3 });
  assert.equal(FakeWebSocket.last.lastSent("subscribe").last, 3);
  /** @type {any[]} */
  const got = [];
  topic.on("shipped", (data, event) => got.push([data, event.seq, event.event]));
  FakeWebSocket.last.event(1);
  FakeWebSocket.last.event(2, { event: "shipped", data: { eta: 3 } });
  assert.deepEqual(got, [[{ eta: 3 }, 2, "shipped"]]);
});

test("the function that on() returns removes the listener, even during an event", async () => {
  const { topic } = await makeLive();
  /** @type {string[]} */
  const got = [];
  const off = topic.on("tick", () => {
    got.push("first");
    off();
    offSecond();
  });
  const offSecond = topic.on("tick", () => got.push("second"));
  FakeWebSocket.last.event(1);
  FakeWebSocket.last.event(2);
  assert.deepEqual(got, ["first"]);
});

test("an error in a listener is reported, and the other listeners run", async () => {
  const reported = mock.method(console, "error", () => {});
  const { topic, got } = await makeLive();
  topic.on("tick", () => {
    throw new Error("the page's fault");
  });
  topic.on("tick", (data) => got.push(`after ${data}`));
  FakeWebSocket.last.event(1);
  assert.deepEqual(got, ["after 1", 1]);
  assert.equal(reported.mock.callCount(), 1);
  reported.mock.restore();
});

test("two parts of a page share a subscription until the last one unsubscribes", async () => {
  const { client, topic, got } = await makeLive();
  const other = client.subscribe("a");
  await settle();
  const socket = FakeWebSocket.last;
  assert.equal(socket.allSent("subscribe").length, 1);
  topic.unsubscribe();
  topic.unsubscribe();
  socket.event(1);
  assert.deepEqual(got, []);
  assert.equal(socket.allSent("unsubscribe").length, 0);
  other.unsubscribe();
  assert.equal(socket.allSent("unsubscribe").length, 1);
});

test("a start with both since and last is an error, as is an empty name", () => {
  const { client } = makeClient();
  assert.throws(() => client.subscribe("b", { since: "@1", last: 1 }), TypeError);
  assert.throws(() => client.subscribe(""), TypeError);
});

test("a repeated event is ignored, and a missing one is requested", async () => {
  const { clock, got } = await makeLive();
  const socket = FakeWebSocket.last;
  for (const seq of [5, 6, 6, 5, 8]) socket.event(seq);
  assert.deepEqual(got, [5, 6]);
  socket.event(9); // of the old subscription
  await clock.advance(500);
  assert.equal(socket.lastSent("unsubscribe").topic, "a");
  assert.equal(socket.lastSent("subscribe").since, "c6");
  socket.subscribed({ cursor: "c6", recovered: true, replayed: 2 });
  for (const seq of [7, 8]) socket.event(seq);
  assert.deepEqual(got, [5, 6, 7, 8]);
});

test("an ephemeral event is delivered and does not change the cursor", async () => {
  const { clock, got } = await makeLive();
  FakeWebSocket.last.event(1);
  FakeWebSocket.last.receive({ type: "event", topic: "a", event: "typing", data: "t" });
  FakeWebSocket.last.end();
  assert.equal((await comeBack(clock)).lastSent("subscribe").since, "c1");
  assert.deepEqual(got, [1, "t"]);
});

test("events that this page caused are not delivered but advance the cursor", async () => {
  const { client, got } = await makeLive();
  const origin = originHash(client.headers["X-Realtime-Origin"]);
  FakeWebSocket.last.event(1, { origin });
  FakeWebSocket.last.event(2, { origin: "another" });
  assert.deepEqual(got, [2]);
});

test("a resume that recovers does not reset", async () => {
  const { clock, got, resets } = await makeLive();
  FakeWebSocket.last.event(1);
  FakeWebSocket.last.end();
  const socket = await comeBack(clock);
  socket.subscribed({ cursor: "c1", recovered: true, replayed: 1 });
  socket.event(2);
  await clock.advance(10_000);
  assert.deepEqual([got, resets()], [[1, 2], 0]);
});

test("a resume that does not recover resets once, within five seconds", async () => {
  const { clock, got, resets } = await makeLive();
  FakeWebSocket.last.event(1);
  FakeWebSocket.last.end();
  const socket = await comeBack(clock);
  clock.chance = () => 0.999;
  socket.subscribed({ cursor: "c50", recovered: false });
  assert.equal(resets(), 0);
  socket.receive({ type: "reset", topic: "a", cursor: "c60", reason: "trimmed" });
  socket.event(61);
  await clock.advance(5_000);
  await clock.advance(60_000);
  assert.deepEqual([got, resets()], [[1, 61], 1]);
});

test("after a reset the topic resumes from the cursor of the reset", async () => {
  const { clock, resets } = await makeLive();
  FakeWebSocket.last.event(9);
  FakeWebSocket.last.receive({ type: "reset", topic: "a", cursor: "new0", reason: "restarted" });
  FakeWebSocket.last.end();
  assert.equal((await comeBack(clock)).lastSent("subscribe").since, "new0");
  await clock.advance(5_000);
  assert.equal(resets(), 1);
});

test("a page that reloads with the refused cursor is not reset again", async () => {
  const first = await makeLive({ since: "old" });
  FakeWebSocket.last.event(3);
  FakeWebSocket.last.end();
  (await comeBack(first.clock)).subscribed({ cursor: "c9", recovered: false });
  await first.clock.advance(5_000);
  assert.equal(first.resets(), 1);
  const storage = first.storage;
  for (const [after, expected] of [[0, 0], [1_000, 0], [600_000, 1], [0, 0]]) {
    const { client, clock } = makeClient({ storage });
    clock.time = first.clock.time += after;
    let resets = 0;
    client.subscribe("a", { since: "old" }).onReset(() => (resets += 1));
    await settle();
    FakeWebSocket.last.welcome();
    FakeWebSocket.last.subscribed({ cursor: "c9", recovered: false });
    await clock.advance(6_000);
    assert.equal(resets, expected, `after ${after} ms`);
  }
});

test("an invalid cursor resets, and the topic continues with new events", async () => {
  const { client, clock } = makeClient();
  let resets = 0;
  client.subscribe("a", { since: "§" }).onReset(() => (resets += 1));
  await settle();
  const socket = FakeWebSocket.last;
  socket.welcome();
  const { id } = socket.lastSent("subscribe");
  socket.receive({ type: "error", id, code: "bad_cursor", message: "", retry: false });
  assert.equal(socket.lastSent("subscribe").since, undefined);
  socket.subscribed();
  await clock.advance(5_000);
  assert.equal(resets, 1);
});

test("a part that unsubscribes before the reset is not reset", async () => {
  const { clock, topic, resets } = await makeLive();
  FakeWebSocket.last.receive({ type: "reset", topic: "a", cursor: "c9", reason: "trimmed" });
  topic.unsubscribe();
  await clock.advance(10_000);
  assert.equal(resets(), 0);
});

test("a subscribe that can succeed later is repeated with backoff", async () => {
  const { client, clock } = makeClient();
  client.subscribe("a");
  await settle();
  const socket = FakeWebSocket.last;
  socket.welcome();
  for (let turn = 1; turn < 5; turn += 1) {
    const { id } = socket.lastSent("subscribe");
    socket.receive({ type: "error", id, code: "unavailable", message: "", retry: true });
    assert.equal(socket.allSent("subscribe").length, turn);
    await clock.advance(250 * 2 ** (turn - 1));
    assert.equal(socket.allSent("subscribe").length, turn + 1);
  }
});

test("a denial is reported once to each part, and the next connection subscribes again", async () => {
  const { client, clock } = makeClient();
  /** @type {string[]} */
  const denied = [];
  const refuse = () => {
    const { id } = FakeWebSocket.last.lastSent("subscribe");
    const error = { type: "error", id, code: "forbidden", message: "no", retry: false };
    FakeWebSocket.last.receive(error);
  };
  client.subscribe("a").onDenied(({ code }) => denied.push(code));
  await settle();
  FakeWebSocket.last.welcome();
  refuse();
  client.subscribe("a").onDenied(({ code }) => denied.push(`later ${code}`));
  await settle();
  assert.deepEqual(denied, ["forbidden", "later forbidden"]);
  FakeWebSocket.last.end();
  await comeBack(clock);
  refuse();
  assert.equal(denied.length, 2);
  client.reconnect();
  FakeWebSocket.last.welcome();
  FakeWebSocket.last.subscribed();
  FakeWebSocket.last.receive({ type: "unsubscribed", topic: "a", reason: "forbidden" });
  assert.equal(denied.length, 4);
  FakeWebSocket.last.event(1);
});

test(".user is the topic that the welcome names, for each user in turn", async () => {
  const { client } = makeClient({ user: "7" });
  /** @type {any[]} */
  const calls = [];
  client.addEventListener("userchange", (event) => calls.push(/** @type {any} */ (event).userId));
  client.user.on("tick", (data) => calls.push(data));
  client.user.onDenied(({ code }) => calls.push(code));
  client.everyone.on("tick", () => {});
  assert.equal(client.user, client.user);
  await settle();
  const socket = FakeWebSocket.last;
  assert.equal(socket.sent.length, 0);
  socket.welcome();
  assert.deepEqual(socket.sent.map((one) => one.topic), ["user.7", "everyone"]);
  socket.receive({ type: "subscribed", id: 1, topic: "user.7", cursor: "c0" });
  socket.event(1, { topic: "user.7", data: "ready" });
  client.reconnect();
  FakeWebSocket.last.welcome({ user: null, topics: [] });
  client.reconnect();
  FakeWebSocket.last.welcome({ user: "8", topics: ["user.8", "everyone"] });
  assert.equal(FakeWebSocket.last.sent[0].topic, "user.8");
  assert.equal(FakeWebSocket.last.sent[0].since, undefined);
  assert.deepEqual(calls, ["ready", "forbidden", null, "8"]);
});

test(".user and the same topic by its name share a subscription", async () => {
  const { client } = makeClient();
  /** @type {any[]} */
  const got = [];
  client.user.on("tick", () => got.push("user"));
  client.subscribe("user.7", { last: 2 }).on("tick", () => got.push("name"));
  await settle();
  const socket = FakeWebSocket.last;
  socket.welcome();
  assert.equal(socket.allSent("subscribe").length, 1);
  socket.subscribed();
  socket.event(1, { topic: "user.7" });
  assert.deepEqual(got.sort(), ["name", "user"]);
});

test("a part that unsubscribes at once sends no subscribe", async () => {
  const { client } = await makeLive();
  client.subscribe("b").unsubscribe();
  await settle();
  assert.equal(FakeWebSocket.last.lastSent("subscribe").topic, "a");
});

test("a part that follows again gets no event of the earlier subscription", async () => {
  const { client, topic } = await makeLive();
  topic.unsubscribe();
  /** @type {any[]} */
  const got = [];
  client.subscribe("a", { last: 1 }).on("tick", (data) => got.push(data));
  await settle();
  FakeWebSocket.last.event(7);
  assert.deepEqual(got, []);
  FakeWebSocket.last.subscribed();
  FakeWebSocket.last.event(7);
  assert.deepEqual(got, [7]);
});

test("a topic and a client work behind a proxy", async () => {
  const { client, topic } = await makeLive();
  const [topicProxy, clientProxy] = [new Proxy(topic, {}), new Proxy(client, {})];
  /** @type {any[]} */
  const got = [];
  topicProxy.on("tick", (data) => got.push(data));
  clientProxy.addEventListener("statechange", ({ type }) => got.push(type));
  FakeWebSocket.last.event(1);
  clientProxy.close();
  assert.deepEqual(got, [1, "statechange"]);
  assert.deepEqual([topicProxy.name, clientProxy.state], [topic.name, "closed"]);
});
