import assert from "node:assert/strict";
import { test } from "node:test";
import { Asked, event, flush, makeOnline, refuseUpgrade, subscribed } from "./network.js";
import { FakeWebSocket } from "./support.js";

const KEY = "realtime:transport";

/** A page whose WebSockets are refused, and which came through over event streams. */
async function makeFallen() {
  const made = makeOnline();
  const topic = made.client.subscribe("a");
  /** @type {any[]} */
  const got = [];
  topic.on("*", (data) => got.push(data));
  await made.advance(0);
  await refuseUpgrade();
  await Asked.last.stream();
  await made.advance(50);
  await Asked.last.stream(subscribed("a", "a0"));
  return { ...made, topic, got };
}

test("a refused WebSocket is followed by an event stream at once", async () => {
  const { client, states, storage, advance } = makeOnline();
  /** @type {string[]} */
  const changes = [];
  client.addEventListener("transportchange", (event) => {
    const { transport, previous } = /** @type {any} */ (event);
    changes.push(previous, transport);
  });
  client.subscribe("a");
  await advance(0);
  assert.equal(client.transport, "websocket");
  await refuseUpgrade();
  assert.equal(Asked.last.text, "sse&topic=");
  await Asked.last.stream();
  assert.equal(client.transport, "sse");
  assert.deepEqual(changes, ["websocket", "sse"]);
  assert.deepEqual(states, ["connecting", "connected"]);
  assert.equal(storage.getItem(KEY), "sse");
});

test("a WebSocket that says nothing is left after 5 seconds, a stream after 4", async () => {
  const { client, advance } = makeOnline();
  client.subscribe("a");
  await advance(4_900);
  assert.equal(Asked.all.length, 0);
  await advance(200);
  assert.equal(Asked.last.text, "sse&topic=");
  const stream = Asked.last;
  await advance(4_000);
  assert.equal(stream.isAborted, true);
  assert.equal(Asked.last.text, "poll&wait=0&topic=");
  await Asked.last.poll([]);
  assert.equal(client.transport, "longpoll");
});

for (const [what, answer] of /** @type {[string, () => Promise<void>][]} */ ([
  ["is not found", () => Asked.last.answer(404)],
  ["is refused by somebody else", () => Asked.last.answer(403, { error: "policy" })],
  ["is a page", () => Asked.last.answer(200, "<html>")],
  ["fails", () => Asked.last.fail()],
])) {
  test(`a stream that ${what} is followed by a long poll`, async () => {
    const { client, advance } = makeOnline();
    client.subscribe("a");
    await advance(0);
    await refuseUpgrade();
    await answer();
    assert.equal(Asked.last.text, "poll&wait=0&topic=");
    assert.equal(client.state, "connecting");
  });
}

test("what our server refuses is refused, and no reason for another transport", async () => {
  for (const [status, code, state] of /** @type {[number, string, string][]} */ ([
    [401, "unauthorized", "denied"],
    [403, "forbidden_origin", "denied"],
    [400, "bad_version", "closed"],
  ])) {
    const { client, advance } = makeOnline();
    client.subscribe("a");
    await advance(0);
    await refuseUpgrade();
    await Asked.last.refuse(status, code);
    assert.equal(client.state, state);
    await advance(600_000);
    assert.equal(Asked.all.length, 1);
  }
});

test("a server that was away is found again over the transport from before", async () => {
  const { client, clock, storage, advance } = makeOnline();
  client.subscribe("a");
  await advance(0);
  FakeWebSocket.last.welcome();
  await advance(20_000);
  FakeWebSocket.last.end();
  // Whatever is tried fails, three minutes long.
  const end = clock.time + 180_000;
  let sockets = FakeWebSocket.all.length;
  let requests = 0;
  while (clock.time < end) {
    await advance(100);
    if (FakeWebSocket.all.length > sockets) FakeWebSocket.last.end();
    sockets = FakeWebSocket.all.length;
    for (; requests < Asked.all.length; requests += 1) await Asked.all[requests].fail();
  }
  assert.ok(requests >= 3, "nothing else was tried");
  assert.equal(storage.getItem(KEY), "websocket");
  while (FakeWebSocket.all.length === sockets) await advance(100);
  FakeWebSocket.last.welcome();
  assert.equal(client.transport, "websocket");
});

test("one that has worked fails three times before another is tried", async () => {
  const { client, advance } = makeOnline();
  client.subscribe("a");
  await advance(0);
  FakeWebSocket.last.welcome();
  FakeWebSocket.last.end();
  for (let turn = 0; turn < 3; turn += 1) {
    const count = FakeWebSocket.all.length;
    while (FakeWebSocket.all.length === count) await advance(50);
    assert.equal(Asked.all.length, 0);
    await refuseUpgrade();
  }
  assert.equal(Asked.last.text, "sse&topic=");
});

test("connections that are cut at once, three times, are blocked", async () => {
  const { client, advance } = makeOnline();
  client.subscribe("a");
  await advance(0);
  for (let turn = 0; turn < 3; turn += 1) {
    FakeWebSocket.last.welcome();
    await advance(9_000);
    assert.equal(Asked.all.length, 0);
    const count = FakeWebSocket.all.length;
    await refuseUpgrade();
    while (turn < 2 && FakeWebSocket.all.length === count) await advance(50);
  }
  assert.equal(Asked.last.text, "sse&topic=");
});

test("a server that restarts again and again is not taken for a network that cuts", async () => {
  const { client, advance } = makeOnline();
  client.subscribe("a");
  await advance(0);
  for (let turn = 0; turn < 6; turn += 1) {
    FakeWebSocket.last.welcome();
    FakeWebSocket.last.receive({ type: "closing", reason: "restart", retry_after: 1 });
    FakeWebSocket.last.end(4512);
    await advance(1_000);
  }
  assert.equal(FakeWebSocket.all.length, 7);
  assert.equal(Asked.all.length, 0);
});

test("a stream on which nothing comes any more is blocked", async () => {
  const { client, advance } = await makeFallen();
  await advance(20_000);
  FakeWebSocket.last.end(); // the search for a better one
  await advance(20_000);
  await flush();
  assert.equal(Asked.last.text, "poll&wait=0&topic=");
  await Asked.last.poll([]);
  assert.equal(client.transport, "longpoll");
});

test("the next page of the tab begins with what worked", async () => {
  const { storage } = await makeFallen();
  const { client, advance } = makeOnline({ storage });
  client.subscribe("a");
  await advance(0);
  assert.equal(FakeWebSocket.all.length, 0);
  assert.equal(Asked.last.text, "sse&topic=");
  assert.equal(client.transport, "sse");
});

test("a tab without a storage, or one that refuses, begins with the first", async () => {
  const refuse = () => {
    throw new Error("refused");
  };
  for (const storage of [null, { getItem: refuse, setItem: refuse }]) {
    const { client, advance } = makeOnline({ storage });
    client.subscribe("a");
    await advance(0);
    FakeWebSocket.last.welcome();
    assert.equal(client.state, "connected");
  }
});

test("a forced transport is the only one, and an unknown one an error", async () => {
  const { client, storage, advance } = makeOnline({ transport: "poll" });
  client.subscribe("a");
  await advance(0);
  await Asked.last.poll([]);
  assert.equal(storage.getItem(KEY), null);
  client.reconnect();
  await advance(0);
  for (let turn = 0; turn < 5; turn += 1) {
    const count = Asked.all.length;
    assert.match(Asked.last.text, /^poll/);
    await Asked.last.answer(404);
    while (Asked.all.length === count) await advance(100);
  }
  assert.equal(FakeWebSocket.all.length, 0);
  assert.throws(() => makeOnline({ transport: "pigeon" }), /websocket, sse, longpoll, poll/);
});

test("a WebSocket is tried again, and taken over without a break", async () => {
  const { client, clock, states, storage, advance, got, topic } = await makeFallen();
  await Asked.last.bring(event(1), event(2));
  const stream = Asked.last;
  await advance(20_000);
  await stream.bring({ type: "heartbeat" });
  const count = FakeWebSocket.all.length;
  await advance(11_000); // 30 s, at a chance of a half
  assert.equal(FakeWebSocket.all.length, count + 1);
  await stream.bring(event(3)); // while both are there
  assert.equal(client.transport, "sse");
  const call = topic.call("rename");
  await flush();
  const post = Asked.last;
  FakeWebSocket.last.welcome();
  assert.equal(client.transport, "websocket");
  assert.equal(stream.isAborted, true);
  assert.equal(FakeWebSocket.last.asked("subscribe").since, "a3");
  FakeWebSocket.last.subscribed({ recovered: true, cursor: "a3" });
  FakeWebSocket.last.event(4);
  await post.answer(200, { type: "result", data: "done" });
  assert.equal(await call, "done");
  assert.deepEqual(got, [1, 2, 3, 4]);
  assert.deepEqual(states, ["connecting", "connected"]);
  assert.equal(storage.getItem(KEY), "websocket");
  const before = clock.timers.length;
  assert.equal(before, 1, "it goes on searching");
});

test("a better transport that does not come is tried less and less often", async () => {
  const { client, clock, advance } = await makeFallen();
  const stream = Asked.last;
  const tries = [];
  let before = clock.time;
  let count = FakeWebSocket.all.length;
  while (tries.length < 7) {
    await advance(5_000);
    await stream.bring({ type: "heartbeat" });
    if (FakeWebSocket.all.length === count) continue;
    tries.push(Math.round((clock.time - before) / 30_000)); // gaps, in half minutes
    before = clock.time;
    count = FakeWebSocket.all.length;
    if (count % 2) FakeWebSocket.last.end(); // else it says nothing
  }
  assert.deepEqual(tries, [1, 2, 4, 8, 16, 20, 20]);
  assert.equal(client.state, "connected");
});

test("a search ends with the connection that it was beside", async () => {
  const { client, advance } = await makeFallen();
  await advance(20_000);
  await Asked.last.bring({ type: "heartbeat" });
  await advance(11_000);
  const socket = FakeWebSocket.last;
  assert.equal(socket.isClosed, false);
  client.close();
  assert.equal(socket.isClosed, true);
  await advance(600_000);
  assert.equal(FakeWebSocket.last, socket);
});
