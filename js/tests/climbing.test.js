// From a lower transport back to a better one.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Asked, event, flush, makeFallen, makeOnline, refuseUpgrade, subscribed } from "./network.js";
import { FakeStorage, FakeWebSocket } from "./support.js";

const KEY = "realtime:transport";

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
  assert.equal(clock.timers.length, 1, "it goes on searching");
  assert.equal(storage.getItem(KEY), "sse");
  for (let turn = 0; turn < 3; turn += 1) {
    await advance(20_000);
    FakeWebSocket.last.receive({ type: "heartbeat" });
  }
  client.connector.pause();
  assert.equal(storage.getItem(KEY), "websocket", "it has lasted");
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

/** A page that remembers polling, on a server or network with the worst of all transports. */
async function makePolling() {
  const storage = new FakeStorage();
  storage.setItem(KEY, "poll");
  const made = makeOnline({ storage });
  const topic = made.client.subscribe("a");
  /** @type {any[]} */
  const got = [];
  topic.on("*", (data) => got.push(data));
  topic.onReset(() => got.push("reset"));
  await made.advance(0);
  await Asked.last.poll([]);
  await made.advance(50);
  await Asked.last.poll([subscribed("a", "a0")]);
  assert.equal(made.client.transport, "poll");
  let answered = Asked.all.length;
  /** Polls bring nothing; a WebSocket fails, and a stream, until a long poll begins. */
  const untilLongPoll = async () => {
    let sockets = FakeWebSocket.all.length;
    const from = made.clock.time;
    const tried = [];
    for (;;) {
      await made.advance(100);
      if (FakeWebSocket.all.length > sockets) {
        sockets = FakeWebSocket.all.length;
        tried.push("ws");
        await refuseUpgrade();
      }
      if (Asked.all.length === answered) continue;
      answered = Asked.all.length;
      const { text } = Asked.last;
      if (text.startsWith("sse")) {
        tried.push("sse");
        await Asked.last.answer(404);
        // The next candidate asks in the same moment.
        if (Asked.all.length === answered) continue;
        answered = Asked.all.length;
        assert.equal(Asked.last.text, "poll&wait=0&topic=");
        return { tried, waited: made.clock.time - from };
      }
      await Asked.last.answer(304);
    }
  };
  return { ...made, storage, got, untilLongPoll };
}

test("a page that remembers polling climbs back to long polling, from its places", async () => {
  const { client, storage, got, advance, untilLongPoll } = await makePolling();
  const { tried, waited } = await untilLongPoll();
  assert.deepEqual(tried, ["ws", "sse"]);
  assert.ok(waited < 46_000);
  await Asked.last.poll([]);
  assert.equal(client.transport, "longpoll");
  await advance(50);
  assert.equal(Asked.last.text, "poll&wait=0&topic=a&since=a0");
  await Asked.last.poll([subscribed("a", "a0", { recovered: true })], [event(1)]);
  for (let seq = 2; seq < 5; seq += 1) {
    assert.equal(Asked.last.text, `poll&wait=25&topic=a&since=a${seq - 1}`);
    await advance(20_000);
    await Asked.last.poll([subscribed("a", `a${seq - 1}`, { recovered: true })], [event(seq)]);
  }
  assert.deepEqual(got, [1, 2, 3, 4]);
  assert.equal(storage.getItem(KEY), "poll");
  client.connector.pause();
  assert.equal(storage.getItem(KEY), "longpoll");
});

test("a long poll that is cut is left for polls at once, and tried less and less often", async () => {
  const { client, clock, storage, got, states, advance, untilLongPoll } = await makePolling();
  const waits = [];
  for (let turn = 0; turn < 6; turn += 1) {
    const { waited } = await untilLongPoll();
    waits.push(Math.round(waited / 30_000));
    await Asked.last.poll([]);
    await advance(50);
    await Asked.last.poll([subscribed("a", `a${turn}`, { recovered: true })]);
    const from = clock.time;
    await advance(12_000);
    await Asked.last.fail();
    assert.equal(clock.time - from, 12_000);
    assert.equal(Asked.last.text, "poll&wait=0&topic=", "at once");
    await Asked.last.poll([]);
    assert.equal(client.transport, "poll");
    await advance(50);
    const place = subscribed("a", `a${turn}`, { recovered: true });
    await Asked.last.poll([place], [event(turn + 1)]);
  }
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 20]);
  assert.deepEqual(got, [1, 2, 3, 4, 5, 6]);
  assert.equal(storage.getItem(KEY), "poll");
  assert.equal(states.includes("waiting"), false);
});

test("a stream that stalls after its welcome is adopted less and less often", async () => {
  const { client, clock, advance } = makeOnline({
    storage: { getItem: () => "longpoll", setItem: () => {} },
  });
  client.subscribe("a");
  await advance(0);
  await Asked.last.poll([]);
  const waits = [];
  let [answered, sockets, from] = [Asked.all.length, FakeWebSocket.all.length, clock.time];
  while (waits.length < 7) {
    await advance(500);
    if (FakeWebSocket.all.length > sockets) await refuseUpgrade();
    sockets = FakeWebSocket.all.length;
    const asked = Asked.all[answered];
    // A long poll that waits is answered when another one has been asked, or after 20 seconds.
    if (asked?.text.startsWith("poll&wait=25") && clock.time % 20_000 && !asked.isAborted) {
      if (Asked.last.text !== "sse&topic=") continue;
      answered = Asked.all.length - 1;
    }
    if (!Asked.all[answered]) continue;
    const { text } = Asked.all[answered];
    answered += 1;
    const place = subscribed("a", "a0", { recovered: true });
    if (text.startsWith("poll")) await Asked.all[answered - 1].poll(text.endsWith("=") ? [] : [place]);
    else {
      waits.push(Math.round((clock.time - from) / 30_000));
      await Asked.last.stream();
      assert.equal(client.transport, "sse");
      await advance(36_000); // nothing more is heard of it
      assert.equal(Asked.last.text, "poll&wait=0&topic=", "at once");
      answered = Asked.all.length - 1;
      from = clock.time;
    }
  }
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 20, 20]);
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
