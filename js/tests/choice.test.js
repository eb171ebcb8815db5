import assert from "node:assert/strict";
import { test } from "node:test";
import { Asked, flush, makeFallen, makeOnline, refuseUpgrade } from "./network.js";
import { FakeWebSocket } from "./support.js";

const KEY = "realtime:transport";

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

/** Let everything that is tried get no answer, and tell what was. @param {any} made @param {number} ms */
async function beAway({ clock, advance }, ms) {
  const end = clock.time + ms;
  let [sockets, requests] = [FakeWebSocket.all.length - 1, Asked.all.length - 1];
  /** @type {[number, string][]} */
  const tried = [];
  while (clock.time < end) {
    while (sockets + 1 < FakeWebSocket.all.length || requests + 1 < Asked.all.length) {
      while (sockets + 1 < FakeWebSocket.all.length) {
        tried.push([clock.time, "ws"]);
        FakeWebSocket.all[(sockets += 1)].end();
      }
      while (requests + 1 < Asked.all.length) {
        const asked = Asked.all[(requests += 1)];
        tried.push([clock.time, asked.text.replace("&topic=", "")]);
        await asked.fail();
      }
      await flush();
    }
    await advance(50);
  }
  return tried;
}

/** @param {[number, string][]} tried @returns {string[]} what was tried together. */
function rounds(tried) {
  /** @type {Map<number, string[]>} */
  const all = new Map();
  for (const [time, name] of tried) all.set(time, [...(all.get(time) ?? []), name]);
  return [...all.values()].map((names) => names.join(" "));
}

test("a server that is away costs one attempt a time, and another one at every third", async () => {
  const made = makeOnline();
  made.client.subscribe("a");
  await made.advance(0);
  FakeWebSocket.last.welcome();
  await made.advance(20_000);
  FakeWebSocket.last.end();
  const tried = await beAway(made, 600_000);
  assert.ok(tried.length > 40, `${tried.length} attempts in ten minutes`);
  assert.ok(tried.length < 90, `${tried.length} attempts in ten minutes`);
  const nine = ["ws", "ws", "ws sse", "ws", "ws", "ws poll&wait=0", "ws", "ws", "ws poll&wait=0"];
  assert.deepEqual(rounds(tried).slice(0, 9), nine);
  assert.deepEqual(rounds(tried).slice(9, 12), ["ws", "ws", "ws"]);
});

test("a page of a server that is away tries what it remembers, one attempt a time", async () => {
  const storage = { getItem: () => "longpoll", setItem: () => {} };
  const made = makeOnline({ storage });
  made.client.subscribe("a");
  await made.advance(0);
  await Asked.last.fail();
  const tried = await beAway(made, 60_000);
  const [one, two] = ["poll&wait=0", "poll&wait=0 poll&wait=0"];
  assert.deepEqual(rounds(tried).slice(0, 6), [one, two, one, one, `${one} ws sse`, one]);
});

test("a proxy without a server is no reason for another transport", async () => {
  const made = makeOnline();
  made.client.subscribe("a");
  await made.advance(0);
  await refuseUpgrade();
  await Asked.last.answer(502);
  assert.equal(made.client.state, "waiting");
  const count = FakeWebSocket.all.length;
  while (FakeWebSocket.all.length === count) await made.advance(50);
  assert.equal(Asked.all.length, 1);
});

test("a network that breaks event streams alone is found out", async () => {
  const { client, clock, advance } = makeOnline();
  client.subscribe("a");
  await advance(0);
  const from = clock.time;
  let sockets = 0;
  while (!Asked.all.length || Asked.last.text !== "poll&wait=0&topic=") {
    if (FakeWebSocket.all.length > sockets) await refuseUpgrade();
    sockets = FakeWebSocket.all.length;
    if (Asked.all.length && Asked.last.text === "sse&topic=") await Asked.last.fail();
    await advance(50);
  }
  await Asked.last.poll([]);
  assert.equal(client.transport, "longpoll");
  assert.ok(clock.time - from < 3_000);
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
