import assert from "node:assert/strict";
import { test } from "node:test";
import { comeBack, FakeWebSocket, makeClient, makeLive, settle } from "./support.js";

/** @param {Promise<any>} promise @returns {Promise<any>} the error that it rejects with. */
const failure = (promise) => promise.then(() => assert.fail("it was resolved"), (error) => error);

test("publish() and call() send and answer", async () => {
  const { topic } = await makeLive();
  const socket = FakeWebSocket.last;
  const published = topic.publish("typing");
  socket.receive({ type: "ok", id: socket.asked("publish").id });
  assert.equal(await published, undefined);
  const called = topic.call("rename", { to: "B" });
  const { id, ...frame } = socket.asked("call");
  assert.deepEqual(frame, { type: "call", topic: "a", action: "rename", data: { to: "B" } });
  socket.receive({ type: "result", id, data: { name: "B" } });
  assert.deepEqual(await called, { name: "B" });
});

test("a refusal rejects with the server's words", async () => {
  const { topic } = await makeLive();
  const called = failure(topic.call("rename"));
  const { id } = FakeWebSocket.last.asked("call");
  const error = { type: "error", id, code: "unavailable", message: "no log", retry: true };
  FakeWebSocket.last.receive(error);
  const { name, code, message, retry } = await called;
  assert.deepEqual([name, code, message, retry], ["RealtimeError", "unavailable", "no log", true]);
});

test("a command whose answer was lost is not repeated", async () => {
  const { topic, clock } = await makeLive();
  const lost = [failure(topic.publish("typing")), failure(topic.call("rename"))];
  FakeWebSocket.last.end();
  for (const error of await Promise.all(lost)) assert.equal(error.code, "disconnected");
  const socket = await comeBack(clock);
  assert.deepEqual(socket.sent.map((one) => one.type), ["subscribe"]);
});

test("a command waits ten seconds for a connection, and is then never sent", async () => {
  const { client, clock } = makeClient();
  const topic = client.subscribe("a");
  const early = topic.call("one");
  await settle();
  FakeWebSocket.last.welcome();
  FakeWebSocket.last.receive({ type: "result", id: FakeWebSocket.last.asked("call").id, data: 1 });
  assert.equal(await early, 1);
  FakeWebSocket.last.end();
  const late = failure(topic.call("two"));
  await clock.advance(250);
  await clock.advance(10_000);
  assert.equal((await late).code, "timeout");
  FakeWebSocket.last.welcome();
  assert.equal(FakeWebSocket.last.all("call").length, 0);
});

test("what was announced to end takes no commands any more", async () => {
  const { topic, clock } = await makeLive();
  const socket = FakeWebSocket.last;
  socket.receive({ type: "closing", reason: "restart", retry_after: 1 });
  const called = topic.call("one");
  assert.equal(socket.all("call").length, 0);
  socket.end(4512);
  const next = await comeBack(clock);
  next.receive({ type: "result", id: next.asked("call").id, data: "there" });
  assert.equal(await called, "there");
});

test("where there will be no connection a command rejects at once", async () => {
  const { client, topic } = await makeLive();
  FakeWebSocket.last.end(4401);
  assert.equal((await failure(topic.call("one"))).code, "denied");
  client.close();
  assert.equal((await failure(topic.call("one"))).code, "closed");
});

test("a command that the server had no room for is sent again, five times at most", async () => {
  const { topic, clock } = await makeLive();
  const socket = FakeWebSocket.last;
  const called = failure(topic.call("one"));
  for (let turn = 1; turn <= 5; turn += 1) {
    assert.equal(socket.all("call").length, turn);
    const { id } = socket.asked("call");
    socket.receive({ type: "error", id, code: "busy", message: "later", retry: true });
    await clock.advance(20_000);
    socket.receive({ type: "heartbeat" });
  }
  assert.equal((await called).code, "busy");
});

test("an anonymous visitor has no topic to publish to", async () => {
  const { client } = makeClient();
  const published = failure(client.user.publish("typing"));
  client.user.onDenied(() => {});
  await settle();
  FakeWebSocket.last.welcome({ user: null, topics: [] });
  assert.equal((await published).code, "forbidden");
});

test("what is no JSON rejects and leaves nothing behind", async () => {
  const { topic } = await makeLive();
  assert.equal((await failure(topic.publish("typing", 10n))).name, "TypeError");
  const next = topic.publish("typing", 10);
  FakeWebSocket.last.receive({ type: "ok", id: FakeWebSocket.last.asked("publish").id });
  await next;
});

test("the id goes first, so that it is read in a frame that is too large", async () => {
  const { topic } = await makeLive();
  void topic.publish("typing", "x");
  const sent = FakeWebSocket.last.asked("publish");
  assert.equal(Object.keys(sent)[0], "id");
  assert.match(JSON.stringify(sent), /^\{"id":\d+,/);
});
