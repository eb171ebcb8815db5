import assert from "node:assert/strict";
import { test } from "node:test";
import { Asked, event, flush, makeFollowing, makeOnline, subscribed } from "./network.js";

const WELCOME = { type: "welcome", user: "7", topics: ["user.7", "everyone"], heartbeat: 25 };

/** Answer the newest request, whatever it is. */
async function bring(/** @type {string} */ transport, /** @type {any[]} */ frames, /** @type {any[]} */ events = []) {
  if (transport === "sse") await Asked.last.stream(...frames, ...events);
  else await Asked.last.poll(frames, events);
}

for (const transport of ["sse", "longpoll", "poll"]) {
  const path = transport === "sse" ? "sse" : "poll&wait=0";

  test(`${transport}: the welcome is asked for without a topic, and topics together`, async () => {
    const { client, advance } = makeOnline({ transport });
    client.subscribe("a", { since: "@5.5" });
    client.subscribe("b", { last: 20 });
    client.subscribe("c");
    await advance(0);
    assert.equal(Asked.last.text, `${path}&topic=`);
    const { credentials, cache } = Asked.last.options;
    assert.deepEqual([credentials, cache], ["include", "no-store"]);
    await bring(transport, []);
    assert.equal(client.state, "connected");
    assert.equal(client.userId, "7");
    await advance(50);
    const query = "topic=a&topic=b&topic=c&since=@5.5&since=&since=&last=&last=20&last=";
    assert.equal(Asked.last.text, `${path}&${query}`);
    assert.equal(Asked.all.length, 2);
  });

  test(`${transport}: topics that come later go together, and on from where the others are`, async () => {
    const { client, clock, advance, got } = await makeFollowing(transport);
    await bring(transport, [subscribed("a", "a0")], [event(1), event(2)]);
    await advance(1_000);
    const [before, from] = [Asked.all.length, clock.time];
    for (const name of ["b", "c", "d"]) {
      client.subscribe(name);
      await advance(10);
    }
    assert.equal(Asked.all.length, before + 1, "the first of them at once");
    await advance(30);
    assert.equal(Asked.all.length, before + 2, "the others within 50 ms");
    assert.ok(clock.time - from < 100);
    const query = "topic=a&topic=b&topic=c&topic=d&since=a2&since=&since=&since=";
    assert.equal(Asked.last.text, `${path}&${query}`);
    assert.equal(Asked.all.at(-2)?.isAborted, true);
    const all = [..."bcd"].map((name) => subscribed(name, `${name}0`));
    await bring(transport, [subscribed("a", "a2", { recovered: true }), ...all], [event(3)]);
    assert.deepEqual(got, [1, 2, 3]);
    client.subscribe("e");
    await advance(3_000);
    assert.match(Asked.last.text, /topic=e&since=a3&since=b0&since=c0&since=d0&since=$/);
  });

  test(`${transport}: a place that is lost between two requests is one reset`, async () => {
    const { client, advance, got, told } = await makeFollowing(transport);
    await bring(transport, [subscribed("a", "a0")], [event(1)]);
    client.subscribe("b");
    await advance(3_000);
    const frames = [subscribed("a", "a50", { recovered: false }), subscribed("b", "b0")];
    await bring(transport, frames, [event(51)]);
    await advance(5_000);
    assert.deepEqual([got, told.resets], [[1, 51], 1]);
  });

  test(`${transport}: what of a topic comes after it was left is passed over`, async () => {
    const { client, advance, topic, got } = await makeFollowing(transport);
    const asked = Asked.last;
    topic.unsubscribe();
    client.subscribe("a").on("*", (data) => got.push(["new", data]));
    if (transport === "sse") await asked.stream(subscribed("a", "a0"), event(1));
    else await asked.poll([subscribed("a", "a0")], [event(1)]);
    await advance(100);
    assert.deepEqual(got, []);
    await bring(transport, [subscribed("a", "a1")], [event(2)]);
    assert.deepEqual(got, [["new", 2]]);
  });

  test(`${transport}: a refused topic is denied, and the others go on`, async () => {
    const { client, advance, got } = await makeFollowing(transport);
    client.subscribe("b").onDenied(({ code }) => got.push(["b", code]));
    await advance(100);
    const refusal = { type: "error", topic: "b", code: "forbidden", message: "no", retry: false };
    await bring(transport, [refusal, subscribed("a", "a0")], [event(1)]);
    assert.deepEqual(got, [["b", "forbidden"], 1]);
    client.subscribe("c");
    await advance(3_000);
    assert.match(Asked.last.text, /topic=a&topic=c&since=a1&since=$/);
  });

  test(`${transport}: if all are refused it stays connected, without a topic`, async () => {
    const { client, advance, got } = await makeFollowing(transport);
    await Asked.last.refuse(403, "forbidden");
    assert.deepEqual(got, ["forbidden"]);
    await advance(100);
    assert.equal(Asked.last.text.replace(/wait=\d+/, "wait=0"), `${path}&topic=`);
    assert.equal(client.state, "connected");
  });

  test(`${transport}: a request that one topic spoils is made again without it`, async () => {
    const { client, advance, got } = await makeFollowing(transport);
    client.subscribe("b!").onDenied(({ code }) => got.push(["b!", code]));
    await advance(100);
    await Asked.last.refuse(400, "bad_topic", { topic: "b!" });
    assert.deepEqual(got, [["b!", "bad_topic"]]);
    await advance(100);
    assert.equal(Asked.last.text, `${path}&topic=a`);
  });

  test(`${transport}: a start that cannot be read is a reset, and it goes on from now`, async () => {
    const { client, advance, got, told } = await makeFollowing(transport);
    await bring(transport, [subscribed("a", "a0")]);
    client.subscribe("b", { since: "?" }).onReset(() => got.push("reset"));
    await advance(3_000);
    await Asked.last.refuse(400, "bad_cursor", { topic: "b" });
    await advance(3_000);
    assert.match(Asked.last.text, /topic=a&topic=b&since=a0&since=$/);
    assert.deepEqual([got, told.resets], [["reset"], 0]);
  });

  test(`${transport}: a break costs nothing, and commands have requests of their own`, async () => {
    const { client, advance, topic, got, states } = await makeFollowing(transport);
    await bring(transport, [subscribed("a", "a0")], [event(1)]);
    await advance(4_000);
    const waiting = Asked.last;
    const call = topic.call("rename", { to: "B" });
    await flush();
    const post = Asked.last;
    assert.equal(post.text, "send");
    assert.equal(post.options.method, "POST");
    assert.equal(post.headers.get("Content-Type"), "application/json");
    const body = JSON.parse(String(post.options.body));
    assert.deepEqual(body, { type: "call", topic: "a", action: "rename", data: { to: "B" }, id: body.id });
    await post.answer(200, { type: "result", id: body.id, data: 42 });
    assert.equal(await call, 42);
    await waiting.fail();
    assert.equal(client.state, "waiting");
    const count = Asked.all.length;
    while (Asked.all.length === count) await advance(50);
    await bring(transport, []);
    await advance(100);
    assert.equal(Asked.last.text, `${path}&topic=a&since=a1`);
    await bring(transport, [subscribed("a", "a1", { recovered: true })], [event(2)]);
    assert.deepEqual(got, [1, 2]);
    assert.deepEqual(states.slice(-3), ["waiting", "connecting", "connected"]);
  });

  test(`${transport}: another user means that all begins anew`, async () => {
    const { client, advance, got } = await makeFollowing(transport);
    /** @type {any} */
    let change;
    client.addEventListener("userchange", (event) => (change = event));
    const [asked, count] = [Asked.last, Asked.all.length];
    const welcome = { ...WELCOME, user: "8" };
    if (transport === "sse") {
      await asked.stream(subscribed("a", "a0"), event(1));
      client.subscribe("b");
      await advance(100);
      const body = new Response(`data:${JSON.stringify(welcome)}\n\n`);
      body.headers.set("Content-Type", "text/event-stream");
      Asked.last.resolve(body);
    } else {
      await asked.poll([subscribed("a", "a0")], [event(1)]);
      await advance(4_000);
      await Asked.last.answer(200, { events: [], frames: [welcome] });
    }
    await flush();
    assert.equal(client.state, "waiting");
    while (Asked.last.text !== `${path}&topic=`) await advance(50);
    await Asked.last.answer(503);
    assert.ok(Asked.all.length > count);
    assert.equal(change, undefined);
    assert.deepEqual(got, [1]);
  });

  test(`${transport}: a ping asks anew`, async () => {
    const { client, advance } = await makeFollowing(transport);
    await bring(transport, [subscribed("a", "a0")]);
    await advance(4_000);
    const count = Asked.all.length;
    client.connector.wake();
    await advance(0);
    assert.equal(Asked.all.length, count + 1);
    await advance(4_900);
    assert.equal(client.state, "connected");
    await advance(200);
    assert.equal(client.state, "waiting");
  });

  test(`${transport}: after the end nothing is asked any more`, async () => {
    const { client, advance, topic } = await makeFollowing(transport);
    const asked = Asked.last;
    client.close();
    assert.equal(asked.isAborted, true);
    const count = Asked.all.length;
    client.subscribe("b");
    await assert.rejects(topic.call("one"), { code: "closed" });
    await advance(600_000);
    assert.equal(Asked.all.length, count);
  });
}

test("a command that is refused, lost, or kept from the server rejects", async () => {
  const { topic, advance } = await makeFollowing("sse");
  await Asked.last.stream(subscribed("a", "a0"));
  /** @type {[() => Promise<void>, object][]} */
  const faults = [
    [() => Asked.last.refuse(404, "unknown_action"), { code: "unknown_action", retry: false }],
    [() => Asked.last.fail(), { code: "disconnected", message: /may have been run/ }],
    [() => Asked.last.answer(405), { code: "disconnected", message: /refused the command/ }],
  ];
  for (const [fault, error] of faults) {
    const rejects = assert.rejects(topic.call("one"), error);
    await flush();
    await fault();
    await rejects;
  }
  // A proxy that waits no longer; whether it was run is not known.
  const slow = assert.rejects(topic.call("one"), { code: "disconnected", message: /may have been run/ });
  await flush();
  await Asked.last.answer(504);
  await slow;
  // What the server had no room for is sent again.
  const busy = topic.publish("one");
  await flush();
  await Asked.last.refuse(429, "rate_limited", { retry: true });
  const count = Asked.all.length;
  while (Asked.all.length === count) await advance(100);
  await Asked.last.answer(200, { type: "ok" });
  await busy;
});

test("a command takes as long as it takes, and ends with the connection", async () => {
  const { topic, advance } = await makeFollowing("sse");
  await Asked.last.stream(subscribed("a", "a0"));
  const stream = Asked.last;
  const long = topic.call("one");
  await flush();
  const post = Asked.last;
  for (let minute = 0; minute < 20; minute += 1) {
    for (let turn = 0; turn < 3; turn += 1) {
      await advance(20_000);
      await stream.bring({ type: "heartbeat" });
    }
  }
  await post.answer(200, { type: "result", data: 42 });
  assert.equal(await long, 42);
  const lost = assert.rejects(topic.call("two"), { code: "disconnected" });
  await flush();
  const second = Asked.last;
  await advance(36_000);
  await lost;
  assert.equal(second.isAborted, true);
});

test("a server that says when to come back is obeyed", async () => {
  const { client, advance } = makeOnline({ transport: "sse" });
  client.subscribe("a");
  await advance(0);
  const body = { type: "error", code: "unavailable", message: "", retry: true };
  await Asked.last.answer(503, body, { "Retry-After": "40" });
  await advance(39_000);
  assert.equal(Asked.all.length, 1);
  await advance(1_000);
  assert.equal(Asked.all.length, 2);
});

for (const [reason, state] of [["signed_out", "denied"], ["forbidden", "denied"], ["version", "closed"],
  ["limit", "closed"], ["bad", "closed"], ["restart", "waiting"], ["slow", "waiting"]]) {
  test(`a stream that ends with ${reason} leads to ${state}`, async () => {
    const { client, advance } = await makeFollowing("sse");
    await Asked.last.stream(subscribed("a", "a0"), { type: "closing", reason });
    await Asked.last.end();
    await advance(0);
    assert.equal(client.state, state);
  });
}

test("a stream is read however its bytes are cut, and whatever its lines end in", async () => {
  const { got } = await makeFollowing("sse");
  await Asked.last.stream(subscribed("a", "a0"));
  const data = { ...event(1), data: "grüße 🐟" };
  const text = `: a comment\r\nevent: other\ndata: ${JSON.stringify(data)}\r\nid: x\r\n\r\n`;
  for (const byte of new TextEncoder().encode(text)) await Asked.last.writeBytes(Uint8Array.of(byte));
  await Asked.last.write('data:{"type":"event",\ndata:"topic":"a",');
  await Asked.last.write('"event":"tick","data":2,"seq":2,"cursor":"a2"}\n\n\n\ndata:no json\n\n');
  await Asked.last.bring(event(3));
  assert.deepEqual(got, ["grüße 🐟", 2, 3]);
});

test("a long poll waits once all topics are there, and is repeated with its places", async () => {
  const { got, told, advance } = await makeFollowing("longpoll");
  assert.equal(Asked.last.text, "poll&wait=0&topic=a");
  await Asked.last.poll([subscribed("a", "a0")]);
  assert.equal(Asked.last.text, "poll&wait=25&topic=a&since=a0");
  await Asked.last.poll([subscribed("a", "a0", { recovered: true })], [event(1)], { more: true });
  assert.equal(Asked.last.text, "poll&wait=25&topic=a&since=a1");
  await advance(25_000);
  await Asked.last.poll([subscribed("a", "a1", { recovered: true })]);
  assert.equal(Asked.last.text, "poll&wait=25&topic=a&since=a1");
  assert.deepEqual([got, told.resets], [[1], 0]);
});

test("a reset amid a poll drops what came with it, and the next brings what came after", async () => {
  const { got, told, advance } = await makeFollowing("longpoll");
  await Asked.last.poll([subscribed("a", "a0")]);
  const reset = { type: "reset", topic: "a", cursor: "b0", reason: "restarted" };
  const frames = [subscribed("a", "a0", { recovered: true }), reset];
  await Asked.last.poll(frames, [event(1), event(9)]);
  assert.equal(Asked.last.text, "poll&wait=25&topic=a&since=b0");
  await Asked.last.poll([subscribed("a", "b0", { recovered: true })], [event(9)]);
  await advance(5_000);
  assert.deepEqual([got, told.resets], [[9], 1]);
});

test("a server that does not wait is polled instead", async () => {
  const { client, advance } = await makeFollowing("longpoll", { transport: "auto", storage: {
    getItem: () => "longpoll",
    setItem: () => {},
  } });
  await Asked.last.poll([subscribed("a", "a0")]);
  assert.equal(Asked.last.text, "poll&wait=25&topic=a&since=a0");
  await advance(100);
  await Asked.last.poll([subscribed("a", "a0", { recovered: true })]);
  assert.equal(Asked.last.text, "poll&wait=0&topic=");
  await Asked.last.poll([]);
  assert.equal(client.transport, "poll");
});

test("polls are seconds apart, spread, and bring nothing twice", async () => {
  const { clock, advance, got, client } = await makeFollowing("poll");
  await Asked.last.poll([subscribed("a", "a0")], [], { more: true });
  assert.equal(Asked.all.length, 3, "there was more");
  await Asked.last.poll([subscribed("a", "a0", { recovered: true })], [event(1)]);
  const gaps = [];
  await advance(3_000);
  for (const chance of [0, 0.5, 0.999]) {
    clock.chance = () => chance;
    await Asked.last.answer(304);
    /** @type {[number, number]} */
    const [count, from] = [Asked.all.length, clock.time];
    while (Asked.all.length === count) await advance(100);
    gaps.push(Math.round((clock.time - from) / 1000));
  }
  assert.deepEqual(gaps, [2, 3, 4]);
  assert.equal(Asked.last.headers.get("If-None-Match"), 'W/"3"');
  await Asked.last.poll([subscribed("a", "a1", { recovered: true })], [event(2)]);
  assert.deepEqual(got, [1, 2]);
  for (let turn = 0; turn < 60; turn += 1) {
    await advance(2_000);
    await Asked.last.answer(304);
  }
  assert.equal(client.state, "connected");
});

test("a topic without an answer is asked for again, but not all the time", async () => {
  for (const transport of ["longpoll", "poll"]) {
    const { advance } = await makeFollowing(transport);
    await Asked.last.poll([]);
    assert.equal(Asked.all.length, 2);
    await advance(3_000);
    assert.equal(Asked.last.text, "poll&wait=0&topic=a");
    assert.equal(Asked.last.headers.get("If-None-Match"), null);
    assert.equal(Asked.all.length, 3);
  }
});

test("a place that was lost between two polls is a reset, and long polling goes on", async () => {
  const { client, advance } = await makeFollowing("longpoll", { transport: "auto", storage: {
    getItem: () => "longpoll",
    setItem: () => {},
  } });
  await Asked.last.poll([subscribed("a", "a0")]);
  await advance(100);
  await Asked.last.poll([subscribed("a", "a9", { recovered: false })]);
  assert.equal(Asked.last.text, "poll&wait=25&topic=a&since=a9");
  assert.deepEqual([client.transport, client.state], ["longpoll", "connected"]);
});
