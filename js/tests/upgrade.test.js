// Upgrades from a worse transport back to a better one.
import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeRequest, event, flush, makeFallenBack, makeNetworkClient, refuseUpgrade, subscribed } from "./network.js";
import { FakeStorage, FakeWebSocket } from "./support.js";

const KEY = "realtime:transport";

test("a WebSocket is tried again and takes over without a gap", async () => {
  const { client, clock, states, storage, advance, got, topic } = await makeFallenBack();
  await FakeRequest.last.sendFrames(event(1), event(2));
  const stream = FakeRequest.last;
  await advance(20_000);
  await stream.sendFrames({ type: "heartbeat" });
  const count = FakeWebSocket.all.length;
  await advance(11_000); // 30 s, at a chance of a half
  assert.equal(FakeWebSocket.all.length, count + 1);
  await stream.sendFrames(event(3)); // while both connections are open
  assert.equal(client.transport, "sse");
  const call = topic.call("rename");
  await flush();
  const post = FakeRequest.last;
  FakeWebSocket.last.welcome();
  assert.equal(client.transport, "websocket");
  assert.equal(stream.isAborted, true);
  assert.equal(FakeWebSocket.last.lastSent("subscribe").since, "a3");
  FakeWebSocket.last.subscribed({ recovered: true, cursor: "a3" });
  FakeWebSocket.last.event(4);
  await post.answer(200, { type: "result", data: "done" });
  assert.equal(await call, "done");
  assert.deepEqual(got, [1, 2, 3, 4]);
  assert.deepEqual(states, ["connecting", "connected"]);
  assert.equal(clock.timers.length, 1, "only the silence timeout is left");
  assert.equal(storage.getItem(KEY), "sse");
  for (let turn = 0; turn < 3; turn += 1) {
    await advance(20_000);
    FakeWebSocket.last.receive({ type: "heartbeat" });
  }
  client.connector.pause();
  assert.equal(storage.getItem(KEY), "websocket", "the trial is over");
});

test("a better transport that keeps failing is tried less and less often", async () => {
  const { client, clock, advance } = await makeFallenBack();
  const stream = FakeRequest.last;
  const tries = [];
  let before = clock.time;
  let count = FakeWebSocket.all.length;
  while (tries.length < 7) {
    await advance(5_000);
    await stream.sendFrames({ type: "heartbeat" });
    if (FakeWebSocket.all.length === count) continue;
    tries.push(Math.round((clock.time - before) / 30_000)); // in half minutes
    before = clock.time;
    count = FakeWebSocket.all.length;
    if (count % 2) FakeWebSocket.last.end(); // otherwise it stays silent
  }
  assert.deepEqual(tries, [1, 2, 4, 8, 16, 20, 20]);
  assert.equal(client.state, "connected");
});

/** A page with polling as its stored transport, on a network that lets nothing else through. */
async function makePolling() {
  const storage = new FakeStorage();
  storage.setItem(KEY, "poll");
  const made = makeNetworkClient({ storage });
  const topic = made.client.subscribe("a");
  /** @type {any[]} */
  const got = [];
  topic.on("*", (data) => got.push(data));
  topic.onReset(() => got.push("reset"));
  await made.advance(0);
  await FakeRequest.last.poll([]);
  await made.advance(50);
  await FakeRequest.last.poll([subscribed("a", "a0")]);
  assert.equal(made.client.transport, "poll");
  let answered = FakeRequest.all.length;
  /** Answer polls with 304 and fail WebSockets and streams until a long poll starts. */
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
      if (FakeRequest.all.length === answered) continue;
      answered = FakeRequest.all.length;
      const { text } = FakeRequest.last;
      if (text.startsWith("sse")) {
        tried.push("sse");
        await FakeRequest.last.answer(404);
        // The next transport sends its request at the same time.
        if (FakeRequest.all.length === answered) continue;
        answered = FakeRequest.all.length;
        assert.equal(FakeRequest.last.text, "poll&wait=0&topic=");
        return { tried, waited: made.clock.time - from };
      }
      await FakeRequest.last.answer(304);
    }
  };
  return { ...made, storage, got, untilLongPoll };
}

test("a page that starts with polling upgrades to long polling and resumes", async () => {
  const { client, storage, got, advance, untilLongPoll } = await makePolling();
  const { tried, waited } = await untilLongPoll();
  assert.deepEqual(tried, ["ws", "sse"]);
  assert.ok(waited < 46_000);
  await FakeRequest.last.poll([]);
  assert.equal(client.transport, "longpoll");
  await advance(50);
  assert.equal(FakeRequest.last.text, "poll&wait=0&topic=a&since=a0");
  await FakeRequest.last.poll([subscribed("a", "a0", { recovered: true })], [event(1)]);
  for (let seq = 2; seq < 5; seq += 1) {
    assert.equal(FakeRequest.last.text, `poll&wait=25&topic=a&since=a${seq - 1}`);
    await advance(20_000);
    await FakeRequest.last.poll([subscribed("a", `a${seq - 1}`, { recovered: true })], [event(seq)]);
  }
  assert.deepEqual(got, [1, 2, 3, 4]);
  assert.equal(storage.getItem(KEY), "poll");
  client.connector.pause();
  assert.equal(storage.getItem(KEY), "longpoll");
});

test("after a cut long poll the client polls at once, and retries less and less often", async () => {
  const { client, clock, storage, got, states, advance, untilLongPoll } = await makePolling();
  const waits = [];
  for (let turn = 0; turn < 6; turn += 1) {
    const { waited } = await untilLongPoll();
    waits.push(Math.round(waited / 30_000));
    await FakeRequest.last.poll([]);
    await advance(50);
    await FakeRequest.last.poll([subscribed("a", `a${turn}`, { recovered: true })]);
    const from = clock.time;
    await advance(12_000);
    await FakeRequest.last.fail();
    assert.equal(clock.time - from, 12_000);
    assert.equal(FakeRequest.last.text, "poll&wait=0&topic=", "at once");
    await FakeRequest.last.poll([]);
    assert.equal(client.transport, "poll");
    await advance(50);
    const resumed = subscribed("a", `a${turn}`, { recovered: true });
    await FakeRequest.last.poll([resumed], [event(turn + 1)]);
  }
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 20]);
  assert.deepEqual(got, [1, 2, 3, 4, 5, 6]);
  assert.equal(storage.getItem(KEY), "poll");
  assert.equal(states.includes("waiting"), false);
});

test("a stream that stalls after its welcome is retried less and less often", async () => {
  const { client, clock, advance } = makeNetworkClient({
    storage: { getItem: () => "longpoll", setItem: () => {} },
  });
  client.subscribe("a");
  await advance(0);
  await FakeRequest.last.poll([]);
  const waits = [];
  let [answered, sockets, from] = [FakeRequest.all.length, FakeWebSocket.all.length, clock.time];
  while (waits.length < 7) {
    await advance(500);
    if (FakeWebSocket.all.length > sockets) await refuseUpgrade();
    sockets = FakeWebSocket.all.length;
    const request = FakeRequest.all[answered];
    // A waiting long poll is answered when another request was sent, or after 20 seconds.
    if (request?.text.startsWith("poll&wait=25") && clock.time % 20_000 && !request.isAborted) {
      if (FakeRequest.last.text !== "sse&topic=") continue;
      answered = FakeRequest.all.length - 1;
    }
    if (!FakeRequest.all[answered]) continue;
    const { text } = FakeRequest.all[answered];
    answered += 1;
    const resumed = subscribed("a", "a0", { recovered: true });
    if (text.startsWith("poll")) await FakeRequest.all[answered - 1].poll(text.endsWith("=") ? [] : [resumed]);
    else {
      waits.push(Math.round((clock.time - from) / 30_000));
      await FakeRequest.last.stream();
      assert.equal(client.transport, "sse");
      await advance(36_000); // nothing more arrives
      assert.equal(FakeRequest.last.text, "poll&wait=0&topic=", "at once");
      answered = FakeRequest.all.length - 1;
      from = clock.time;
    }
  }
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 20, 20]);
});

test("an upgrade attempt ends when the client closes", async () => {
  const { client, advance } = await makeFallenBack();
  await advance(20_000);
  await FakeRequest.last.sendFrames({ type: "heartbeat" });
  await advance(11_000);
  const socket = FakeWebSocket.last;
  assert.equal(socket.isClosed, false);
  client.close();
  assert.equal(socket.isClosed, true);
  await advance(600_000);
  assert.equal(FakeWebSocket.last, socket);
});
