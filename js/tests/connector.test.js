import assert from "node:assert/strict";
import { test } from "node:test";
import { comeBack, FakeWebSocket, makeClient, makeLive, settle } from "./support.js";

test("a page that follows nothing does not connect", async () => {
  const { client, clock } = makeClient();
  client.connector.wake();
  await clock.advance(60_000);
  assert.equal(FakeWebSocket.all.length, 0);
  assert.equal(client.state, "waiting");
});

test("the WebSocket URL is built from the mount point", async () => {
  for (const [url, address] of [
    ["https://shop.example/realtime/", "wss://shop.example/realtime/ws?v=1"],
    ["http://shop.example:8000/live", "ws://shop.example:8000/live/ws?v=1"],
  ]) {
    makeClient({ url }).client.subscribe("a");
    await settle();
    assert.equal(FakeWebSocket.last.url, address);
  }
});

test("state changes are events with the code that ended the connection", async () => {
  const { client, states, clock } = await makeLive();
  /** @type {any} */
  let last;
  client.addEventListener("statechange", (event) => (last = event));
  FakeWebSocket.last.end(1011);
  assert.deepEqual([last.state, last.code], ["waiting", 1011]);
  await comeBack(clock);
  assert.deepEqual(states, ["connecting", "connected", "waiting", "connecting", "connected"]);
});

for (const [code, state] of [[4400, "closed"], [4401, "denied"], [4403, "denied"], [4406, "closed"],
  [4429, "closed"], [4499, "closed"]]) {
  test(`after ${code} the client is ${state} and does not reconnect`, async () => {
    const { client, clock } = await makeLive();
    FakeWebSocket.last.end(Number(code));
    client.connector.wake();
    client.connector.pause();
    client.connector.resume();
    await clock.advance(600_000);
    assert.equal(client.state, state);
    assert.equal(FakeWebSocket.all.length, 1);
  });
}

for (const code of [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4500, 4512, 4513, 4514, 4599, 3000]) {
  test(`after ${code} the client reconnects`, async () => {
    const { client, clock } = await makeLive();
    FakeWebSocket.last.end(code);
    await comeBack(clock);
    assert.equal(client.state, "connected");
  });
}

test("attempts to reach a server that is down are random and at most 20 seconds apart", async () => {
  const { clock } = await makeLive();
  clock.chance = () => 0.999;
  const gaps = [];
  for (let turn = 0; turn < 9; turn += 1) {
    const [count, from] = [FakeWebSocket.all.length, clock.time];
    FakeWebSocket.last.end();
    while (FakeWebSocket.all.length === count) await clock.advance(50);
    gaps.push((clock.time - from) / 1000);
  }
  assert.deepEqual(gaps, [0.5, 1, 2, 4, 8, 16, 20, 20, 20]);
});

test("the client waits as long as the server asks, even when it is woken", async () => {
  const { client, clock } = await makeLive();
  FakeWebSocket.last.receive({ type: "closing", reason: "restart", retry_after: 40 });
  FakeWebSocket.last.end(4512);
  await clock.advance(39_000);
  client.connector.wake();
  assert.equal(FakeWebSocket.all.length, 1);
  await clock.advance(1_000);
  assert.equal(FakeWebSocket.all.length, 2);
});

test("an invalid retry_after is ignored", async () => {
  const { clock } = await makeLive();
  FakeWebSocket.last.receive({ type: "closing", reason: "restart", retry_after: "soon" });
  FakeWebSocket.last.end(4512);
  await comeBack(clock);
});

test("the client closes if an announced close does not come", async () => {
  const { client, clock } = await makeLive();
  FakeWebSocket.last.receive({ type: "closing", reason: "restart" });
  await clock.advance(5_000);
  assert.equal(client.state, "waiting");
  assert.equal(FakeWebSocket.all[0].isClosed, true);
});

test("35 seconds without a frame close a connection, and heartbeats keep it open", async () => {
  const { client, clock } = await makeLive();
  for (let turn = 0; turn < 10; turn += 1) {
    await clock.advance(25_000);
    FakeWebSocket.last.receive({ type: "heartbeat" });
  }
  await clock.advance(34_900);
  assert.equal(client.state, "connected");
  await clock.advance(200);
  assert.equal(client.state, "waiting");
  assert.equal(FakeWebSocket.all[0].isClosed, true);
});

test("an attempt that gets no welcome ends after 15 seconds", async () => {
  const { client, clock } = makeClient();
  client.subscribe("a");
  await clock.advance(15_000);
  assert.equal(client.state, "waiting");
});

test("after a sleep a ping checks the connection", async () => {
  const { client, clock } = await makeLive();
  clock.sleep(3_600_000);
  await clock.advance(0);
  assert.equal(FakeWebSocket.last.allSent("ping").length, 1);
  FakeWebSocket.last.receive({ type: "pong" });
  await clock.advance(5_000);
  assert.equal(client.state, "connected");

  clock.sleep(3_600_000);
  await clock.advance(5_000);
  assert.equal(client.state, "waiting");
});

test("waking sends a ping, or starts the next attempt at once", async () => {
  const { client, clock } = await makeLive();
  client.connector.wake();
  assert.equal(FakeWebSocket.last.allSent("ping").length, 1);
  FakeWebSocket.last.end();
  client.connector.wake();
  assert.equal(FakeWebSocket.all.length, 2);
  FakeWebSocket.last.welcome();
  await clock.advance(0);
  assert.equal(client.state, "connected");
});

test("a page closes its connection in the back/forward cache and resumes with its cursor", async () => {
  const { client, clock } = await makeLive();
  FakeWebSocket.last.event(1);
  client.connector.pause();
  assert.equal(FakeWebSocket.last.isClosed, true);
  client.connector.wake();
  await clock.advance(60_000);
  assert.equal(FakeWebSocket.all.length, 1);
  client.connector.resume();
  FakeWebSocket.last.welcome();
  assert.equal(FakeWebSocket.last.lastSent("subscribe").since, "c1");
});

test("reconnect() closes the old connection, and works after a denial", async () => {
  const { client } = await makeLive();
  client.reconnect();
  assert.equal(FakeWebSocket.all[0].isClosed, true);
  FakeWebSocket.last.end(4401);
  assert.equal(client.state, "denied");
  client.reconnect();
  FakeWebSocket.last.welcome();
  assert.equal(client.state, "connected");
});

test("after close() nothing connects, not even for a new topic", async () => {
  const { client, clock } = await makeLive();
  client.close();
  client.subscribe("b");
  await clock.advance(60_000);
  assert.equal(FakeWebSocket.all.length, 1);
  assert.equal(client.state, "closed");
});

test("unknown frames and fields of a newer server are ignored", async () => {
  const { client, got } = await makeLive();
  const socket = FakeWebSocket.last;
  socket.receive({ type: "confetti", topic: "a" });
  socket.receive({ type: "subscribed", id: 4711, topic: "a" });
  socket.receive({ type: "error", code: "new", message: "?" });
  for (const data of ["", "{", "null", "[]", "1", '{"type":1}', new ArrayBuffer(1)]) {
    socket.onmessage?.({ data });
  }
  socket.event(1, { color: "red" });
  assert.deepEqual(got, [1]);
  assert.equal(client.state, "connected");
});

test("a second welcome does not subscribe again", async () => {
  await makeLive();
  FakeWebSocket.last.welcome({ user: "8" });
  assert.equal(FakeWebSocket.last.allSent("subscribe").length, 1);
});

test("a statechange listener can close the client", async () => {
  const { client, topic } = await makeLive();
  client.addEventListener("statechange", ({ type }) => type && client.close(), { once: true });
  client.reconnect();
  assert.equal(client.state, "closed");
  assert.equal(FakeWebSocket.all.length, 1);

  client.reconnect();
  client.addEventListener("statechange", () => client.close(), { once: true });
  FakeWebSocket.last.welcome();
  assert.equal(client.state, "closed");
  assert.deepEqual(FakeWebSocket.last.sent, []);
  await assert.rejects(topic.call("one"), { code: "closed" });
});
