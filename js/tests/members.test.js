// Who is on a topic.
import assert from "node:assert/strict";
import { test } from "node:test";
import { comeBack, FakeWebSocket, makeLive, settle } from "./support.js";

/** @param {number} pk */
const member = (pk) => ({ id: `user.${pk}`, user: String(pk), info: { name: `n${pk}` } });

/** @param {any[]} members */
const ids = (members) => members.map(({ id }) => id);

/** A topic whose list was told, and what its page was told of it. */
async function makeRoom() {
  const live = await makeLive();
  const topic = live.client.subscribe("a");
  /** @type {[string[], string | null][]} */
  const told = [];
  topic.onMembers((members, change) => told.push([ids(members), change?.type ?? null]));
  await settle();
  const socket = FakeWebSocket.last;
  socket.receive({ type: "members", topic: "a", members: [member(1), member(2)], version: 5 });
  return { ...live, topic, told, socket };
}

test("a page is told who is there, and then who comes and goes", async () => {
  const { told, topic, socket } = await makeRoom();
  socket.receive({ type: "join", topic: "a", member: member(3), version: 6 });
  socket.receive({ type: "leave", topic: "a", member: member(1), version: 7 });
  assert.deepEqual(told, [
    [["user.1", "user.2"], null],
    [["user.1", "user.2", "user.3"], "join"],
    [["user.2", "user.3"], "leave"],
  ]);
  assert.deepEqual(topic.members?.[0], member(2));
});

test("nothing is known, and nothing is called, before the list was told", async () => {
  const { client } = await makeLive();
  const topic = client.subscribe("a");
  topic.onMembers(() => assert.fail("nobody knows yet"));
  FakeWebSocket.last.receive({ type: "join", topic: "a", member: member(3), version: 6 });
  await settle();
  assert.equal(topic.members, null);
});

test("who listens late is told at once, unless it has left before", async () => {
  const { client } = await makeRoom();
  /** @type {string[][]} */
  const told = [];
  const late = client.subscribe("a");
  late.onMembers((members) => told.push(ids(members)));
  late.onMembers(() => assert.fail("it was removed"))();
  await settle();
  assert.deepEqual(told, [["user.1", "user.2"]]);
});

test("a list in several parts is one", async () => {
  const { told, socket } = await makeRoom();
  socket.receive({ type: "members", topic: "a", members: [member(8)], version: 9, more: true });
  assert.equal(told.length, 1);
  socket.receive({ type: "members", topic: "a", members: [member(9)], version: 9 });
  assert.deepEqual(told.at(-1), [["user.8", "user.9"], null]);
});

test("a list of which the rest did not come is no part of the next one", async () => {
  const { told, socket, clock } = await makeRoom();
  socket.receive({ type: "members", topic: "a", members: [member(8)], version: 9, more: true });
  socket.receive({ type: "members", topic: "a", members: [member(9)], version: 10 });
  assert.deepEqual(told.at(-1), [["user.9"], null]);
  socket.receive({ type: "members", topic: "a", members: [member(8)], version: 11, more: true });
  socket.end();
  await comeBack(clock);
  FakeWebSocket.last.subscribed({ cursor: "c2", recovered: true });
  FakeWebSocket.last.receive({ type: "members", topic: "a", members: [member(7)], version: 11 });
  assert.deepEqual(told.at(-1), [["user.7"], null]);
});

test("what is in the list already is passed over, and a gap brings the list anew", async () => {
  const { told, socket, clock } = await makeRoom();
  socket.receive({ type: "leave", topic: "a", member: member(1), version: 5 });
  assert.equal(told.length, 1);
  socket.receive({ type: "join", topic: "a", member: member(4), version: 8 });
  await clock.advance(30_000);
  assert.equal(told.length, 1);
  socket.subscribed({ cursor: "c2", recovered: true });
  socket.receive({ type: "members", topic: "a", members: [member(4)], version: 8 });
  assert.deepEqual(told.at(-1), [["user.4"], null]);
});

test("another life of the list may begin with a lower version", async () => {
  const { told, socket } = await makeRoom();
  socket.receive({ type: "members", topic: "a", members: [member(7)], version: 0 });
  socket.receive({ type: "join", topic: "a", member: member(8), version: 1 });
  assert.deepEqual(told.at(-1), [["user.7", "user.8"], "join"]);
});

test("after unsubscribe nobody is told anything", async () => {
  const { topic, told, socket } = await makeRoom();
  topic.unsubscribe();
  socket.receive({ type: "join", topic: "a", member: member(3), version: 6 });
  assert.equal(told.length, 1);
});
