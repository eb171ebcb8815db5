import assert from "node:assert/strict";
import { test } from "node:test";
import { comeBack, FakeWebSocket, makeClient, makeLive, settle } from "./support.js";

/** @param {Promise<any>} promise @returns {Promise<any>} the error that the promise rejects with. */
const failure = (promise) => promise.then(() => assert.fail("the promise was resolved"), (error) => error);

test("publish() and call() send a command and resolve with its answer", async () => {
  const { topic } = await makeLive();
  const socket = FakeWebSocket.last;
  const published = topic.publish("typing");
  socket.receive({ type: "ok", id: socket.lastSent("publish").id });
  assert.equal(await published, undefined);
  const called = topic.call("rename", { to: "B" });
  const { id, ...frame } = socket.lastSent("call");
  assert.deepEqual(frame, { type: "call", topic: "a", action: "rename", data: { to: "B" } });
  socket.receive({ type: "result", id, data: { name: "B" } });
  assert.deepEqual(await called, { name: "B" });
});

test("a refusal rejects with the server's code and message", async () => {
  const { topic } = await makeLive();
  const called = failure(topic.call("rename"));
  const { id } = FakeWebSocket.last.lastSent("call");
  const error = { type: "error", id, code: "unavailable", message: "no log", retry: true };
  FakeWebSocket.last.receive(error);
  const { name, code, message, retry } = await called;
  assert.deepEqual([name, code, message, retry], ["RealtimeError", "unavailable", "no log", true]);
});

test("a command whose answer was lost is not sent again", async () => {
  const { topic, clock } = await makeLive();
  const lost = [failure(topic.publish("typing")), failure(topic.call("rename"))];
  FakeWebSocket.last.end();
  for (const error of await Promise.all(lost)) assert.equal(error.code, "disconnected");
  const socket = await comeBack(clock);
  assert.deepEqual(socket.sent.map((one) => one.type), ["subscribe"]);
});

test("a command waits ten seconds for a connection and is never sent after that", async () => {
  const { client, clock } = makeClient();
  const topic = client.subscribe("a");
  const queued = topic.call("one");
  await settle();
  FakeWebSocket.last.welcome();
  FakeWebSocket.last.receive({ type: "result", id: FakeWebSocket.last.lastSent("call").id, data: 1 });
  assert.equal(await queued, 1);
  FakeWebSocket.last.end();
  const expired = failure(topic.call("two"));
  await clock.advance(250);
  await clock.advance(10_000);
  assert.equal((await expired).code, "timeout");
  FakeWebSocket.last.welcome();
  assert.equal(FakeWebSocket.last.allSent("call").length, 0);
});

test("no command is sent on a connection whose close was announced", async () => {
  const { topic, clock } = await makeLive();
  const socket = FakeWebSocket.last;
  socket.receive({ type: "closing", reason: "restart", retry_after: 1 });
  const called = topic.call("one");
  assert.equal(socket.allSent("call").length, 0);
  socket.end(4512);
  const next = await comeBack(clock);
  next.receive({ type: "result", id: next.lastSent("call").id, data: "done" });
  assert.equal(await called, "done");
});

test("a command rejects at once when there will be no connection", async () => {
  const { client, topic } = await makeLive();
  FakeWebSocket.last.end(4401);
  assert.equal((await failure(topic.call("one"))).code, "denied");
  client.close();
  assert.equal((await failure(topic.call("one"))).code, "closed");
});

test("a command that the server had no room for is sent five times at most", async () => {
  const { topic, clock } = await makeLive();
  const socket = FakeWebSocket.last;
  const called = failure(topic.call("one"));
  for (let turn = 1; turn <= 5; turn += 1) {
    assert.equal(socket.allSent("call").length, turn);
    const { id } = socket.lastSent("call");
    socket.receive({ type: "error", id, code: "busy", message: "later", retry: true });
    await clock.advance(20_000);
    socket.receive({ type: "heartbeat" });
  }
  assert.equal((await called).code, "busy");
});

test("publishing to the user topic of an anonymous visitor is forbidden", async () => {
  const { client } = makeClient();
  const published = failure(client.user.publish("typing"));
  client.user.onDenied(() => {});
  await settle();
  FakeWebSocket.last.welcome({ user: null, topics: [] });
  assert.equal((await published).code, "forbidden");
});

test("data that is not JSON rejects, and the next command works", async () => {
  const { topic } = await makeLive();
  assert.equal((await failure(topic.publish("typing", 10n))).name, "TypeError");
  const next = topic.publish("typing", 10);
  FakeWebSocket.last.receive({ type: "ok", id: FakeWebSocket.last.lastSent("publish").id });
  await next;
});

test("the id is the first field, so that the server can read it in a frame that is too large", async () => {
  const { topic } = await makeLive();
  void topic.publish("typing", "x");
  const sent = FakeWebSocket.last.lastSent("publish");
  assert.equal(Object.keys(sent)[0], "id");
  assert.match(JSON.stringify(sent), /^\{"id":\d+,/);
});
