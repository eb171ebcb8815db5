import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeRequest, flush, makeFallenBack, makeNetworkClient, refuseUpgrade } from "./network.js";
import { FakeWebSocket } from "./support.js";

const KEY = "realtime:transport";

test("a refused WebSocket is followed by an event stream at once", async () => {
  const { client, states, storage, advance } = makeNetworkClient();
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
  assert.equal(FakeRequest.last.text, "sse&topic=");
  await FakeRequest.last.stream();
  assert.equal(client.transport, "sse");
  assert.deepEqual(changes, ["websocket", "sse"]);
  assert.deepEqual(states, ["connecting", "connected"]);
  assert.equal(storage.getItem(KEY), "sse");
});

test("a silent WebSocket is abandoned after 5 seconds, a silent stream after 4", async () => {
  const { client, advance } = makeNetworkClient();
  client.subscribe("a");
  await advance(4_900);
  assert.equal(FakeRequest.all.length, 0);
  await advance(200);
  assert.equal(FakeRequest.last.text, "sse&topic=");
  const stream = FakeRequest.last;
  await advance(4_000);
  assert.equal(stream.isAborted, true);
  assert.equal(FakeRequest.last.text, "poll&wait=0&topic=");
  await FakeRequest.last.poll([]);
  assert.equal(client.transport, "longpoll");
});

for (const [what, answer] of /** @type {[string, () => Promise<void>][]} */ ([
  ["is not found", () => FakeRequest.last.answer(404)],
  ["is refused by a proxy", () => FakeRequest.last.answer(403, { error: "policy" })],
  ["is answered with a page", () => FakeRequest.last.answer(200, "<html>")],
])) {
  test(`a stream that ${what} is followed by a long poll`, async () => {
    const { client, advance } = makeNetworkClient();
    client.subscribe("a");
    await advance(0);
    await refuseUpgrade();
    await answer();
    assert.equal(FakeRequest.last.text, "poll&wait=0&topic=");
    assert.equal(client.state, "connecting");
  });
}

test("a refusal by our server is final and does not start another transport", async () => {
  for (const [status, code, state] of /** @type {[number, string, string][]} */ ([
    [401, "unauthorized", "denied"],
    [403, "forbidden_origin", "denied"],
    [400, "bad_version", "closed"],
  ])) {
    const { client, advance } = makeNetworkClient();
    client.subscribe("a");
    await advance(0);
    await refuseUpgrade();
    await FakeRequest.last.refuse(status, code);
    assert.equal(client.state, state);
    await advance(600_000);
    assert.equal(FakeRequest.all.length, 1);
  }
});

test("after an outage the client reconnects over its previous transport", async () => {
  const { client, clock, storage, advance } = makeNetworkClient();
  client.subscribe("a");
  await advance(0);
  FakeWebSocket.last.welcome();
  await advance(20_000);
  FakeWebSocket.last.end();
  // Every attempt fails for three minutes.
  const end = clock.time + 180_000;
  let sockets = FakeWebSocket.all.length;
  let requests = 0;
  while (clock.time < end) {
    await advance(100);
    if (FakeWebSocket.all.length > sockets) FakeWebSocket.last.end();
    sockets = FakeWebSocket.all.length;
    for (; requests < FakeRequest.all.length; requests += 1) await FakeRequest.all[requests].fail();
  }
  assert.ok(requests >= 3, "no other transport was tried");
  assert.equal(storage.getItem(KEY), "websocket");
  while (FakeWebSocket.all.length === sockets) await advance(100);
  FakeWebSocket.last.welcome();
  assert.equal(client.transport, "websocket");
});

/** Fail every attempt for a while, and return the attempts. @param {any} made @param {number} ms */
async function failEverything({ clock, advance }, ms) {
  const end = clock.time + ms;
  let [sockets, requests] = [FakeWebSocket.all.length - 1, FakeRequest.all.length - 1];
  /** @type {[number, string][]} */
  const tried = [];
  while (clock.time < end) {
    while (sockets + 1 < FakeWebSocket.all.length || requests + 1 < FakeRequest.all.length) {
      while (sockets + 1 < FakeWebSocket.all.length) {
        tried.push([clock.time, "ws"]);
        FakeWebSocket.all[(sockets += 1)].end();
      }
      while (requests + 1 < FakeRequest.all.length) {
        const request = FakeRequest.all[(requests += 1)];
        tried.push([clock.time, request.text.replace("&topic=", "")]);
        await request.fail();
      }
      await flush();
    }
    await advance(50);
  }
  return tried;
}

/** @param {[number, string][]} tried @returns {string[]} the attempts of each round, in one text. */
function rounds(tried) {
  /** @type {Map<number, string[]>} */
  const all = new Map();
  for (const [time, name] of tried) all.set(time, [...(all.get(time) ?? []), name]);
  return [...all.values()].map((names) => names.join(" "));
}

test("an unreachable server costs one attempt each time, and one more every third time", async () => {
  const made = makeNetworkClient();
  made.client.subscribe("a");
  await made.advance(0);
  FakeWebSocket.last.welcome();
  await made.advance(20_000);
  FakeWebSocket.last.end();
  const tried = await failEverything(made, 600_000);
  assert.ok(tried.length > 40, `${tried.length} attempts in ten minutes`);
  assert.ok(tried.length < 90, `${tried.length} attempts in ten minutes`);
  const nine = ["ws", "ws", "ws sse", "ws", "ws", "ws poll&wait=0", "ws", "ws", "ws poll&wait=0"];
  assert.deepEqual(rounds(tried).slice(0, 9), nine);
  assert.deepEqual(rounds(tried).slice(9, 12), ["ws", "ws", "ws"]);
});

test("a new page tries its stored transport once each time while the server is unreachable", async () => {
  const storage = { getItem: () => "longpoll", setItem: () => {} };
  const made = makeNetworkClient({ storage });
  made.client.subscribe("a");
  await made.advance(0);
  await FakeRequest.last.fail();
  const tried = await failEverything(made, 60_000);
  const [one, two] = ["poll&wait=0", "poll&wait=0 poll&wait=0"];
  assert.deepEqual(rounds(tried).slice(0, 6), [one, two, one, one, `${one} ws sse`, one]);
});

test("a proxy that cannot reach the server does not start another transport", async () => {
  const made = makeNetworkClient();
  made.client.subscribe("a");
  await made.advance(0);
  await refuseUpgrade();
  await FakeRequest.last.answer(502);
  assert.equal(made.client.state, "waiting");
  const count = FakeWebSocket.all.length;
  while (FakeWebSocket.all.length === count) await made.advance(50);
  assert.equal(FakeRequest.all.length, 1);
});

test("a network that breaks only event streams is detected", async () => {
  const { client, clock, advance } = makeNetworkClient();
  client.subscribe("a");
  await advance(0);
  const from = clock.time;
  let sockets = 0;
  while (!FakeRequest.all.length || FakeRequest.last.text !== "poll&wait=0&topic=") {
    if (FakeWebSocket.all.length > sockets) await refuseUpgrade();
    sockets = FakeWebSocket.all.length;
    if (FakeRequest.all.length && FakeRequest.last.text === "sse&topic=") await FakeRequest.last.fail();
    await advance(50);
  }
  await FakeRequest.last.poll([]);
  assert.equal(client.transport, "longpoll");
  assert.ok(clock.time - from < 3_000);
});

test("a transport that has worked fails three times before another is tried", async () => {
  const { client, advance } = makeNetworkClient();
  client.subscribe("a");
  await advance(0);
  FakeWebSocket.last.welcome();
  FakeWebSocket.last.end();
  for (let turn = 0; turn < 3; turn += 1) {
    const count = FakeWebSocket.all.length;
    while (FakeWebSocket.all.length === count) await advance(50);
    assert.equal(FakeRequest.all.length, 0);
    await refuseUpgrade();
  }
  assert.equal(FakeRequest.last.text, "sse&topic=");
});

test("three connections in a row that are cut early start another transport", async () => {
  const { client, advance } = makeNetworkClient();
  client.subscribe("a");
  await advance(0);
  for (let turn = 0; turn < 3; turn += 1) {
    FakeWebSocket.last.welcome();
    await advance(9_000);
    assert.equal(FakeRequest.all.length, 0);
    const count = FakeWebSocket.all.length;
    await refuseUpgrade();
    while (turn < 2 && FakeWebSocket.all.length === count) await advance(50);
  }
  assert.equal(FakeRequest.last.text, "sse&topic=");
});

test("repeated restarts of the server do not start another transport", async () => {
  const { client, advance } = makeNetworkClient();
  client.subscribe("a");
  await advance(0);
  for (let turn = 0; turn < 6; turn += 1) {
    FakeWebSocket.last.welcome();
    FakeWebSocket.last.receive({ type: "closing", reason: "restart", retry_after: 1 });
    FakeWebSocket.last.end(4512);
    await advance(1_000);
  }
  assert.equal(FakeWebSocket.all.length, 7);
  assert.equal(FakeRequest.all.length, 0);
});

test("a stream that stalls is replaced by a long poll", async () => {
  const { client, advance } = await makeFallenBack();
  await advance(20_000);
  FakeWebSocket.last.end(); // the attempt at a better transport
  await advance(20_000);
  await flush();
  assert.equal(FakeRequest.last.text, "poll&wait=0&topic=");
  await FakeRequest.last.poll([]);
  assert.equal(client.transport, "longpoll");
});

test("the next page in the tab starts with the transport that worked", async () => {
  const { storage } = await makeFallenBack();
  const { client, advance } = makeNetworkClient({ storage });
  client.subscribe("a");
  await advance(0);
  assert.equal(FakeWebSocket.all.length, 0);
  assert.equal(FakeRequest.last.text, "sse&topic=");
  assert.equal(client.transport, "sse");
});

test("a tab without storage, or with a forbidden one, starts with the first transport", async () => {
  const refuse = () => {
    throw new Error("refused");
  };
  for (const storage of [null, { getItem: refuse, setItem: refuse }]) {
    const { client, advance } = makeNetworkClient({ storage });
    client.subscribe("a");
    await advance(0);
    FakeWebSocket.last.welcome();
    assert.equal(client.state, "connected");
  }
});

test("a forced transport is the only one, and an unknown name is an error", async () => {
  const { client, storage, advance } = makeNetworkClient({ transport: "poll" });
  client.subscribe("a");
  await advance(0);
  await FakeRequest.last.poll([]);
  assert.equal(storage.getItem(KEY), null);
  client.reconnect();
  await advance(0);
  for (let turn = 0; turn < 5; turn += 1) {
    const count = FakeRequest.all.length;
    assert.match(FakeRequest.last.text, /^poll/);
    await FakeRequest.last.answer(404);
    while (FakeRequest.all.length === count) await advance(100);
  }
  assert.equal(FakeWebSocket.all.length, 0);
  assert.throws(() => makeNetworkClient({ transport: "pigeon" }), /websocket, sse, longpoll, poll/);
});
