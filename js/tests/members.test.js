// The members of a topic.
import assert from "node:assert/strict";
import { test } from "node:test";
import { comeBack, FakeWebSocket, makeLive, settle } from "./support.js";

/** @param {number} pk */
const member = (pk) => ({ id: `user.${pk}`, user: String(pk), info: { name: `n${pk}` } });

/** @param {any[]} members */
const ids = (members) => members.map(({ id }) => id);

/** Make a client with a member list, and collect the calls of its listener. */
async function makeRoom() {
  const live = await makeLive();
  const topic = live.client.subscribe("a");
  /** @type {[string[], string | null][]} */
  const calls = [];
  topic.onMembers((members, change) => calls.push([ids(members), change?.type ?? null]));
  await settle();
  const socket = FakeWebSocket.last;
  socket.receive({ type: "members", topic: "a", members: [member(1), member(2)], version: 5 });
  return { ...live, topic, calls, socket };
}

test("a listener receives the members, then each join and leave", async () => {
  const { calls, topic, socket } = await makeRoom();
  socket.receive({ type: "join", topic: "a", member: member(3), version: 6 });
  socket.receive({ type: "leave", topic: "a", member: member(1), version: 7 });
  assert.deepEqual(calls, [
    [["user.1", "user.2"], null],
    [["user.1", "user.2", "user.3"], "join"],
    [["user.2", "user.3"], "leave"],
  ]);
  assert.deepEqual(topic.members?.[0], member(2));
});

test("there are no members and no calls before the first list", async () => {
  const { client } = await makeLive();
  const topic = client.subscribe("a");
  topic.onMembers(() => assert.fail("there is no list yet"));
  FakeWebSocket.last.receive({ type: "join", topic: "a", member: member(3), version: 6 });
  await settle();
  assert.equal(topic.members, null);
  assert.equal(topic.memberCount, null);
});

test("a late listener receives the list at once, unless it was removed", async () => {
  const { client } = await makeRoom();
  /** @type {string[][]} */
  const calls = [];
  const late = client.subscribe("a");
  late.onMembers((members) => calls.push(ids(members)));
  late.onMembers(() => assert.fail("the listener was removed"))();
  await settle();
  assert.deepEqual(calls, [["user.1", "user.2"]]);
});

test("a list in several frames is one list", async () => {
  const { calls, socket } = await makeRoom();
  socket.receive({ type: "members", topic: "a", members: [member(8)], version: 9, more: true });
  assert.equal(calls.length, 1);
  socket.receive({ type: "members", topic: "a", members: [member(9)], version: 9 });
  assert.deepEqual(calls.at(-1), [["user.8", "user.9"], null]);
});

test("beyond the server's limit there is a number instead of a list", async () => {
  const { client, clock, topic, socket } = await makeRoom();
  /** @type {[number, number][]} */
  const calls = [];
  topic.onMembers((members, _, count) => calls.push([members.length, count]));
  await settle();
  socket.receive({ type: "join", topic: "a", member: member(3), version: 6 });
  socket.receive({ type: "members", topic: "a", members: [], count: 1001, version: 7 });
  assert.deepEqual([topic.members, topic.memberCount], [[], 1001]);
  socket.receive({ type: "members", topic: "a", members: [], count: 1203, version: 240 });
  const late = client.subscribe("a");
  late.onMembers((members, _, count) => calls.push([members.length, count]));
  await settle();
  socket.end();
  await comeBack(clock);
  FakeWebSocket.last.subscribed({ cursor: "c2", recovered: true });
  FakeWebSocket.last.receive({ type: "members", topic: "a", members: [], count: 950, version: 500 });
  FakeWebSocket.last.receive({ type: "members", topic: "a", members: [member(1)], version: 900 });
  FakeWebSocket.last.receive({ type: "join", topic: "a", member: member(2), version: 901 });
  assert.deepEqual(calls, [
    [2, 2],
    [3, 3],
    [0, 1001],
    [0, 1203],
    [0, 1203],
    ...[[0, 950], [0, 950], [1, 1], [1, 1], [2, 2], [2, 2]], // each for two listeners
  ]);
  assert.equal(topic.memberCount, 2);
});

test("an incomplete list is not part of the next one", async () => {
  const { calls, socket, clock } = await makeRoom();
  socket.receive({ type: "members", topic: "a", members: [member(8)], version: 9, more: true });
  socket.receive({ type: "members", topic: "a", members: [member(9)], version: 10 });
  assert.deepEqual(calls.at(-1), [["user.9"], null]);
  socket.receive({ type: "members", topic: "a", members: [member(8)], version: 11, more: true });
  socket.end();
  await comeBack(clock);
  FakeWebSocket.last.subscribed({ cursor: "c2", recovered: true });
  FakeWebSocket.last.receive({ type: "members", topic: "a", members: [member(7)], version: 11 });
  assert.deepEqual(calls.at(-1), [["user.7"], null]);
});

test("an old version is ignored, and a gap fetches the whole list", async () => {
  const { calls, socket, clock } = await makeRoom();
  socket.receive({ type: "leave", topic: "a", member: member(1), version: 5 });
  assert.equal(calls.length, 1);
  socket.receive({ type: "join", topic: "a", member: member(4), version: 8 });
  await clock.advance(30_000);
  assert.equal(calls.length, 1);
  socket.subscribed({ cursor: "c2", recovered: true });
  socket.receive({ type: "members", topic: "a", members: [member(4)], version: 8 });
  assert.deepEqual(calls.at(-1), [["user.4"], null]);
});

test("a new list can have a lower version", async () => {
  const { calls, socket } = await makeRoom();
  socket.receive({ type: "members", topic: "a", members: [member(7)], version: 0 });
  socket.receive({ type: "join", topic: "a", member: member(8), version: 1 });
  assert.deepEqual(calls.at(-1), [["user.7", "user.8"], "join"]);
});

test("no listener is called after unsubscribe()", async () => {
  const { topic, calls, socket } = await makeRoom();
  topic.unsubscribe();
  socket.receive({ type: "join", topic: "a", member: member(3), version: 6 });
  assert.equal(calls.length, 1);
});
