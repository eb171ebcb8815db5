import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeRequest, event, flush, makeFollowing, makeNetworkClient, subscribed } from "./network.js";

const WELCOME = { type: "welcome", user: "7", topics: ["user.7", "everyone"], heartbeat: 25 };

/** Answer the newest request on any HTTP transport. */
async function respond(/** @type {string} */ transport, /** @type {any[]} */ frames, /** @type {any[]} */ events = []) {
  if (transport === "sse") await FakeRequest.last.stream(...frames, ...events);
  else await FakeRequest.last.poll(frames, events);
}

for (const transport of ["sse", "longpoll", "poll"]) {
  const path = transport === "sse" ? "sse" : "poll&wait=0";

  test(`${transport}: the first request names no topic, the second all topics`, async () => {
    const { client, advance } = makeNetworkClient({ transport });
    client.subscribe("a", { since: "@5.5" });
    client.subscribe("b", { last: 20 });
    client.subscribe("c");
    await advance(0);
    assert.equal(FakeRequest.last.text, `${path}&topic=`);
    const { credentials, cache } = FakeRequest.last.options;
    assert.deepEqual([credentials, cache], ["include", "no-store"]);
    await respond(transport, []);
    assert.equal(client.state, "connected");
    assert.equal(client.userId, "7");
    await advance(50);
    const query = "topic=a&topic=b&topic=c&since=@5.5&since=&since=&last=&last=20&last=";
    assert.equal(FakeRequest.last.text, `${path}&${query}`);
    assert.equal(FakeRequest.all.length, 2);
  });

  test(`${transport}: later topics share a request, and the others resume in it`, async () => {
    const { client, clock, advance, got } = await makeFollowing(transport);
    await respond(transport, [subscribed("a", "a0")], [event(1), event(2)]);
    await advance(1_000);
    const [before, from] = [FakeRequest.all.length, clock.time];
    for (const name of ["b", "c", "d"]) {
      client.subscribe(name);
      await advance(10);
    }
    assert.equal(FakeRequest.all.length, before + 1, "the first of them is requested at once");
    await advance(30);
    assert.equal(FakeRequest.all.length, before + 2, "the others are requested within 50 ms");
    assert.ok(clock.time - from < 100);
    const query = "topic=a&topic=b&topic=c&topic=d&since=a2&since=&since=&since=";
    assert.equal(FakeRequest.last.text, `${path}&${query}`);
    assert.equal(FakeRequest.all.at(-2)?.isAborted, true);
    const all = [..."bcd"].map((name) => subscribed(name, `${name}0`));
    await respond(transport, [subscribed("a", "a2", { recovered: true }), ...all], [event(3)]);
    assert.deepEqual(got, [1, 2, 3]);
    client.subscribe("e");
    await advance(3_000);
    assert.match(FakeRequest.last.text, /topic=e&since=a3&since=b0&since=c0&since=d0&since=$/);
  });

  test(`${transport}: a cursor that is trimmed between two requests resets once`, async () => {
    const { client, advance, got, counts } = await makeFollowing(transport);
    await respond(transport, [subscribed("a", "a0")], [event(1)]);
    client.subscribe("b");
    await advance(3_000);
    const frames = [subscribed("a", "a50", { recovered: false }), subscribed("b", "b0")];
    await respond(transport, frames, [event(51)]);
    await advance(5_000);
    assert.deepEqual([got, counts.resets], [[1, 51], 1]);
  });

  test(`${transport}: frames for an earlier subscription are ignored`, async () => {
    const { client, advance, topic, got } = await makeFollowing(transport);
    const request = FakeRequest.last;
    topic.unsubscribe();
    client.subscribe("a").on("*", (data) => got.push(["new", data]));
    if (transport === "sse") await request.stream(subscribed("a", "a0"), event(1));
    else await request.poll([subscribed("a", "a0")], [event(1)]);
    await advance(100);
    assert.deepEqual(got, []);
    await respond(transport, [subscribed("a", "a1")], [event(2)]);
    assert.deepEqual(got, [["new", 2]]);
  });

  test(`${transport}: a refused topic is denied, and the others continue`, async () => {
    const { client, advance, got } = await makeFollowing(transport);
    client.subscribe("b").onDenied(({ code }) => got.push(["b", code]));
    await advance(100);
    const refusal = { type: "error", topic: "b", code: "forbidden", message: "no", retry: false };
    await respond(transport, [refusal, subscribed("a", "a0")], [event(1)]);
    assert.deepEqual(got, [["b", "forbidden"], 1]);
    client.subscribe("c");
    await advance(3_000);
    assert.match(FakeRequest.last.text, /topic=a&topic=c&since=a1&since=$/);
  });

  test(`${transport}: the client stays connected when all topics are refused`, async () => {
    const { client, advance, got } = await makeFollowing(transport);
    await FakeRequest.last.refuse(403, "forbidden");
    assert.deepEqual(got, ["forbidden"]);
    await advance(100);
    assert.equal(FakeRequest.last.text.replace(/wait=\d+/, "wait=0"), `${path}&topic=`);
    assert.equal(client.state, "connected");
  });

  test(`${transport}: a request that fails because of one topic is repeated without it`, async () => {
    const { client, advance, got } = await makeFollowing(transport);
    client.subscribe("b!").onDenied(({ code }) => got.push(["b!", code]));
    await advance(100);
    await FakeRequest.last.refuse(400, "bad_topic", { topic: "b!" });
    assert.deepEqual(got, [["b!", "bad_topic"]]);
    await advance(100);
    assert.equal(FakeRequest.last.text, `${path}&topic=a`);
  });

  test(`${transport}: an invalid start resets, and the topic continues with new events`, async () => {
    const { client, advance, got, counts } = await makeFollowing(transport);
    await respond(transport, [subscribed("a", "a0")]);
    client.subscribe("b", { since: "?" }).onReset(() => got.push("reset"));
    await advance(3_000);
    await FakeRequest.last.refuse(400, "bad_cursor", { topic: "b" });
    await advance(3_000);
    assert.match(FakeRequest.last.text, /topic=a&topic=b&since=a0&since=$/);
    assert.deepEqual([got, counts.resets], [["reset"], 0]);
  });

  test(`${transport}: no event is lost in a break, and commands use their own requests`, async () => {
    const { client, advance, topic, got, states } = await makeFollowing(transport);
    await respond(transport, [subscribed("a", "a0")], [event(1)]);
    await advance(4_000);
    const waiting = FakeRequest.last;
    const call = topic.call("rename", { to: "B" });
    await flush();
    const post = FakeRequest.last;
    assert.equal(post.text, "send");
    assert.equal(post.options.method, "POST");
    assert.equal(post.headers.get("Content-Type"), "application/json");
    const body = JSON.parse(String(post.options.body));
    assert.deepEqual(body, { type: "call", topic: "a", action: "rename", data: { to: "B" }, id: body.id });
    await post.answer(200, { type: "result", id: body.id, data: 42 });
    assert.equal(await call, 42);
    await waiting.fail();
    assert.equal(client.state, "waiting");
    const count = FakeRequest.all.length;
    while (FakeRequest.all.length === count) await advance(50);
    await respond(transport, []);
    await advance(100);
    assert.equal(FakeRequest.last.text, `${path}&topic=a&since=a1`);
    await respond(transport, [subscribed("a", "a1", { recovered: true })], [event(2)]);
    assert.deepEqual(got, [1, 2]);
    assert.deepEqual(states.slice(-3), ["waiting", "connecting", "connected"]);
  });

  test(`${transport}: another user makes the client reconnect`, async () => {
    const { client, advance, got } = await makeFollowing(transport);
    /** @type {any} */
    let change;
    client.addEventListener("userchange", (event) => (change = event));
    const [request, count] = [FakeRequest.last, FakeRequest.all.length];
    const welcome = { ...WELCOME, user: "8" };
    if (transport === "sse") {
      await request.stream(subscribed("a", "a0"), event(1));
      client.subscribe("b");
      await advance(100);
      const body = new Response(`data:${JSON.stringify(welcome)}\n\n`);
      body.headers.set("Content-Type", "text/event-stream");
      FakeRequest.last.resolve(body);
    } else {
      await request.poll([subscribed("a", "a0")], [event(1)]);
      await advance(4_000);
      await FakeRequest.last.answer(200, { events: [], frames: [welcome] });
    }
    await flush();
    assert.equal(client.state, "waiting");
    while (FakeRequest.last.text !== `${path}&topic=`) await advance(50);
    await FakeRequest.last.answer(503);
    assert.ok(FakeRequest.all.length > count);
    assert.equal(change, undefined);
    assert.deepEqual(got, [1]);
  });

  test(`${transport}: a ping sends a new request`, async () => {
    const { client, advance } = await makeFollowing(transport);
    await respond(transport, [subscribed("a", "a0")]);
    await advance(4_000);
    const count = FakeRequest.all.length;
    client.connector.wake();
    await advance(0);
    assert.equal(FakeRequest.all.length, count + 1);
    await advance(4_900);
    assert.equal(client.state, "connected");
    await advance(200);
    assert.equal(client.state, "waiting");
  });

  test(`${transport}: after close() no request is sent`, async () => {
    const { client, advance, topic } = await makeFollowing(transport);
    const request = FakeRequest.last;
    client.close();
    assert.equal(request.isAborted, true);
    const count = FakeRequest.all.length;
    client.subscribe("b");
    await assert.rejects(topic.call("one"), { code: "closed" });
    await advance(600_000);
    assert.equal(FakeRequest.all.length, count);
  });
}

test("a command that is refused, lost or blocked by a proxy rejects", async () => {
  const { topic, advance } = await makeFollowing("sse");
  await FakeRequest.last.stream(subscribed("a", "a0"));
  /** @type {[() => Promise<void>, object][]} */
  const faults = [
    [() => FakeRequest.last.refuse(404, "unknown_action"), { code: "unknown_action", retry: false }],
    [() => FakeRequest.last.fail(), { code: "disconnected", message: /may have been run/ }],
    [() => FakeRequest.last.answer(405), { code: "disconnected", message: /refused the command/ }],
  ];
  for (const [fault, error] of faults) {
    const rejects = assert.rejects(topic.call("one"), error);
    await flush();
    await fault();
    await rejects;
  }
  // A proxy timed out: the command may have run.
  const slow = assert.rejects(topic.call("one"), { code: "disconnected", message: /may have been run/ });
  await flush();
  await FakeRequest.last.answer(504);
  await slow;
  // A command that the server had no room for is sent again.
  const busy = topic.publish("one");
  await flush();
  await FakeRequest.last.refuse(429, "rate_limited", { retry: true });
  const count = FakeRequest.all.length;
  while (FakeRequest.all.length === count) await advance(100);
  await FakeRequest.last.answer(200, { type: "ok" });
  await busy;
});

test("a command has no timeout, and ends with the connection", async () => {
  const { topic, advance } = await makeFollowing("sse");
  await FakeRequest.last.stream(subscribed("a", "a0"));
  const stream = FakeRequest.last;
  const long = topic.call("one");
  await flush();
  const post = FakeRequest.last;
  for (let minute = 0; minute < 20; minute += 1) {
    for (let turn = 0; turn < 3; turn += 1) {
      await advance(20_000);
      await stream.sendFrames({ type: "heartbeat" });
    }
  }
  await post.answer(200, { type: "result", data: 42 });
  assert.equal(await long, 42);
  const lost = assert.rejects(topic.call("two"), { code: "disconnected" });
  await flush();
  const second = FakeRequest.last;
  await advance(36_000);
  await lost;
  assert.equal(second.isAborted, true);
});

test("the client obeys Retry-After", async () => {
  const { client, advance } = makeNetworkClient({ transport: "sse" });
  client.subscribe("a");
  await advance(0);
  const body = { type: "error", code: "unavailable", message: "", retry: true };
  await FakeRequest.last.answer(503, body, { "Retry-After": "40" });
  await advance(39_000);
  assert.equal(FakeRequest.all.length, 1);
  await advance(1_000);
  assert.equal(FakeRequest.all.length, 2);
});

for (const [reason, state] of [["signed_out", "denied"], ["forbidden", "denied"], ["version", "closed"],
  ["limit", "closed"], ["bad", "closed"], ["restart", "waiting"], ["slow", "waiting"]]) {
  test(`a stream that ends with ${reason} leads to ${state}`, async () => {
    const { client, advance } = await makeFollowing("sse");
    await FakeRequest.last.stream(subscribed("a", "a0"), { type: "closing", reason });
    await FakeRequest.last.end();
    await advance(0);
    assert.equal(client.state, state);
  });
}

test("a stream is read with any chunks and line endings", async () => {
  const { got } = await makeFollowing("sse");
  await FakeRequest.last.stream(subscribed("a", "a0"));
  const data = { ...event(1), data: "grüße 🐟" };
  const text = `: a comment\r\nevent: other\ndata: ${JSON.stringify(data)}\r\nid: x\r\n\r\n`;
  for (const byte of new TextEncoder().encode(text)) await FakeRequest.last.writeBytes(Uint8Array.of(byte));
  await FakeRequest.last.write('data:{"type":"event",\ndata:"topic":"a",');
  await FakeRequest.last.write('"event":"tick","data":2,"seq":2,"cursor":"a2"}\n\n\n\ndata:no json\n\n');
  await FakeRequest.last.sendFrames(event(3));
  assert.deepEqual(got, ["grüße 🐟", 2, 3]);
});

test("a long poll waits once all topics are subscribed, and resumes with its cursors", async () => {
  const { got, counts, advance } = await makeFollowing("longpoll");
  assert.equal(FakeRequest.last.text, "poll&wait=0&topic=a");
  await FakeRequest.last.poll([subscribed("a", "a0")]);
  assert.equal(FakeRequest.last.text, "poll&wait=25&topic=a&since=a0");
  await FakeRequest.last.poll([subscribed("a", "a0", { recovered: true })], [event(1)], { more: true });
  assert.equal(FakeRequest.last.text, "poll&wait=25&topic=a&since=a1");
  await advance(25_000);
  await FakeRequest.last.poll([subscribed("a", "a1", { recovered: true })]);
  assert.equal(FakeRequest.last.text, "poll&wait=25&topic=a&since=a1");
  assert.deepEqual([got, counts.resets], [[1], 0]);
});

test("a reset in a poll drops the events in it, and the next poll brings those after the reset", async () => {
  const { got, counts, advance } = await makeFollowing("longpoll");
  await FakeRequest.last.poll([subscribed("a", "a0")]);
  const reset = { type: "reset", topic: "a", cursor: "b0", reason: "restarted" };
  const frames = [subscribed("a", "a0", { recovered: true }), reset];
  await FakeRequest.last.poll(frames, [event(1), event(9)]);
  assert.equal(FakeRequest.last.text, "poll&wait=25&topic=a&since=b0");
  await FakeRequest.last.poll([subscribed("a", "b0", { recovered: true })], [event(9)]);
  await advance(5_000);
  assert.deepEqual([got, counts.resets], [[9], 1]);
});

test("a server that does not hold long polls is polled instead", async () => {
  const { client, advance } = await makeFollowing("longpoll", { transport: "auto", storage: {
    getItem: () => "longpoll",
    setItem: () => {},
  } });
  await FakeRequest.last.poll([subscribed("a", "a0")]);
  assert.equal(FakeRequest.last.text, "poll&wait=25&topic=a&since=a0");
  await advance(100);
  await FakeRequest.last.poll([subscribed("a", "a0", { recovered: true })]);
  assert.equal(FakeRequest.last.text, "poll&wait=0&topic=");
  await FakeRequest.last.poll([]);
  assert.equal(client.transport, "poll");
});

test("polls are seconds apart, jittered, and bring no event twice", async () => {
  const { clock, advance, got, client } = await makeFollowing("poll");
  await FakeRequest.last.poll([subscribed("a", "a0")], [], { more: true });
  assert.equal(FakeRequest.all.length, 3, "the first answer was not complete");
  await FakeRequest.last.poll([subscribed("a", "a0", { recovered: true })], [event(1)]);
  const gaps = [];
  await advance(3_000);
  for (const chance of [0, 0.5, 0.999]) {
    clock.chance = () => chance;
    await FakeRequest.last.answer(304);
    /** @type {[number, number]} */
    const [count, from] = [FakeRequest.all.length, clock.time];
    while (FakeRequest.all.length === count) await advance(100);
    gaps.push(Math.round((clock.time - from) / 1000));
  }
  assert.deepEqual(gaps, [2, 3, 4]);
  assert.equal(FakeRequest.last.headers.get("If-None-Match"), 'W/"3"');
  await FakeRequest.last.poll([subscribed("a", "a1", { recovered: true })], [event(2)]);
  assert.deepEqual(got, [1, 2]);
  for (let turn = 0; turn < 60; turn += 1) {
    await advance(2_000);
    await FakeRequest.last.answer(304);
  }
  assert.equal(client.state, "connected");
});

test("a topic without an answer is requested again after a pause", async () => {
  for (const transport of ["longpoll", "poll"]) {
    const { advance } = await makeFollowing(transport);
    await FakeRequest.last.poll([]);
    assert.equal(FakeRequest.all.length, 2);
    await advance(3_000);
    assert.equal(FakeRequest.last.text, "poll&wait=0&topic=a");
    assert.equal(FakeRequest.last.headers.get("If-None-Match"), null);
    assert.equal(FakeRequest.all.length, 3);
  }
});

test("a cursor that is trimmed between two polls resets, and long polling continues", async () => {
  const { client, advance } = await makeFollowing("longpoll", { transport: "auto", storage: {
    getItem: () => "longpoll",
    setItem: () => {},
  } });
  await FakeRequest.last.poll([subscribed("a", "a0")]);
  await advance(100);
  await FakeRequest.last.poll([subscribed("a", "a9", { recovered: false })]);
  assert.equal(FakeRequest.last.text, "poll&wait=25&topic=a&since=a9");
  assert.deepEqual([client.transport, client.state], ["longpoll", "connected"]);
});
