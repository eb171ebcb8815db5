// Parts of a page that share a subscription and start at different positions.
import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { endFaults, Server } from "./server.js";
import { comeBack, FakeWebSocket, makeClient, makeLive, random, settle } from "./support.js";

mock.method(console, "warn", () => {});

const SEEDS = Number(process.env.REALTIME_JS_SEEDS ?? 300);

/** @typedef {import("../src/subscription.js").Start} Start */

/** Follow a topic and record its events and resets. @param {any} client @param {Start} [start] @param {string} [name] */
function follow(client, start, name = "a") {
  const topic = client.subscribe(name, start);
  const view = { topic, seen: /** @type {any[]} */ ([]), resets: 0 };
  topic.on("*", (/** @type {any} */ data) => view.seen.push(data));
  topic.onReset(() => (view.resets += 1));
  return view;
}

/** Return the commands of the newest WebSocket, without ids and topics. */
function commands() {
  return FakeWebSocket.last.sent.map(({ id, topic, ...frame }) => frame);
}

test("a part with an older start gets the events after it, and the others get none twice", async () => {
  const { client, got, resets, clock } = await makeLive();
  const socket = FakeWebSocket.last;
  for (const seq of [3, 4, 5]) socket.event(seq);
  const late = follow(client, { since: "c2" });
  await settle();
  assert.deepEqual(commands().slice(-2), [
    { type: "unsubscribe" },
    { type: "subscribe", since: "c2" },
  ]);
  socket.event(6); // of the old subscription: it is replayed
  socket.subscribed({ cursor: "c2", recovered: true, replayed: 4 });
  for (const seq of [3, 4, 5, 6, 7]) socket.event(seq);
  await clock.advance(60_000);
  assert.deepEqual(late.seen, [3, 4, 5, 6, 7]);
  assert.deepEqual(got, [3, 4, 5, 6, 7]);
  assert.deepEqual([late.resets, resets(), socket.allSent("subscribe").length], [0, 0, 2]);
});

test("a part that starts at the current position needs no new subscription", async () => {
  const { client, got } = await makeLive();
  const socket = FakeWebSocket.last;
  socket.event(3);
  const late = follow(client, { since: "c3" });
  socket.event(4);
  await settle();
  assert.deepEqual([got, late.seen, socket.allSent("subscribe").length], [[3, 4], [4], 1]);
});

test("a part with a newer start makes the others catch up", async () => {
  const { client, got } = await makeLive();
  const socket = FakeWebSocket.last;
  socket.event(3);
  const late = follow(client, { since: "c5" });
  await settle();
  socket.subscribed({ cursor: "c5", recovered: true, replayed: 0 });
  assert.equal(socket.lastSent("subscribe").since, "c3");
  socket.subscribed({ cursor: "c3", recovered: true, replayed: 2 });
  for (const seq of [4, 5, 6]) socket.event(seq);
  assert.deepEqual([got, late.seen], [[3, 4, 5, 6], [6]]);
});

test("a part whose start was trimmed does not reset the others", async () => {
  const { client, clock, got, resets } = await makeLive();
  const socket = FakeWebSocket.last;
  socket.event(8);
  const late = follow(client, { since: "c1" });
  await settle();
  socket.subscribed({ cursor: "c9", recovered: false });
  assert.equal(socket.lastSent("subscribe").since, "c8");
  socket.subscribed({ cursor: "c8", recovered: true, replayed: 1 });
  for (const seq of [9, 10]) socket.event(seq);
  await clock.advance(60_000);
  assert.deepEqual([got, resets()], [[8, 9, 10], 0]);
  assert.deepEqual([late.seen, late.resets], [[10], 1]);
});

test("a cursor of the others that was trimmed resets only them", async () => {
  const { client, clock, got, resets } = await makeLive();
  const socket = FakeWebSocket.last;
  socket.event(1);
  const late = follow(client, { since: "c9" });
  await settle();
  socket.subscribed({ cursor: "c9", recovered: true, replayed: 1 });
  socket.event(10);
  assert.equal(socket.lastSent("subscribe").since, "c1");
  socket.subscribed({ cursor: "c10", recovered: false });
  socket.event(11);
  await clock.advance(60_000);
  assert.deepEqual([got, resets()], [[1, 11], 1]);
  assert.deepEqual([late.seen, late.resets], [[10, 11], 0]);
});

test("a late part can start with `last` or a moment", async () => {
  const { client, got } = await makeLive();
  const socket = FakeWebSocket.last;
  for (const seq of [1, 2, 3]) socket.event(seq);
  const newest = follow(client, { last: 1 });
  const moment = follow(client, { since: "@20.5" });
  await settle();
  assert.equal(socket.lastSent("subscribe").last, 1);
  socket.subscribed({ cursor: "c2", replayed: 1 });
  socket.event(3);
  assert.equal(socket.lastSent("subscribe").since, "@20.5");
  socket.subscribed({ cursor: "c1", replayed: 2 });
  for (const seq of [2, 3, 4]) socket.event(seq);
  assert.deepEqual([got, newest.seen, moment.seen], [[1, 2, 3, 4], [3, 4], [2, 3, 4]]);
});

test("a break during a replay loses and repeats no event for any part", async () => {
  const { client, clock, got } = await makeLive();
  for (const seq of [1, 2, 3, 4]) FakeWebSocket.last.event(seq);
  const late = follow(client, { since: "c0" });
  await settle();
  FakeWebSocket.last.subscribed({ cursor: "c0", recovered: true, replayed: 5 });
  for (const seq of [1, 2]) FakeWebSocket.last.event(seq);
  FakeWebSocket.last.end();
  const socket = await comeBack(clock);
  assert.deepEqual(commands(), [{ type: "subscribe", since: "c4" }]);
  socket.subscribed({ cursor: "c4", recovered: true, replayed: 1 });
  socket.event(5);
  assert.equal(socket.lastSent("subscribe").since, "c2");
  socket.subscribed({ cursor: "c2", recovered: true, replayed: 3 });
  for (const seq of [3, 4, 5, 6]) socket.event(seq);
  assert.deepEqual([late.seen, got], [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]]);
});

test("a part without a start begins at the end of the others' replay", async () => {
  const { client } = makeClient();
  const now = follow(client);
  const since = follow(client, { since: "c2" });
  await settle();
  const socket = FakeWebSocket.last;
  socket.welcome();
  assert.equal(socket.lastSent("subscribe").since, "c2");
  socket.subscribed({ cursor: "c2", recovered: true, replayed: 1 });
  const later = follow(client);
  for (const seq of [3, 4]) socket.event(seq);
  assert.deepEqual([now.seen, since.seen, later.seen], [[4], [3, 4], [4]]);
  assert.equal(socket.allSent("subscribe").length, 1);
});

test("an ephemeral event reaches the active group and changes no position", async () => {
  const { client, got } = await makeLive();
  const socket = FakeWebSocket.last;
  socket.event(1);
  const late = follow(client, { since: "c0" });
  await settle();
  socket.subscribed({ cursor: "c0", recovered: true, replayed: 1 });
  socket.event(1);
  socket.receive({ type: "event", topic: "a", event: "typing", data: "t" });
  assert.deepEqual([got, late.seen], [[1, "t"], [1, "t"]]);
});

test("a part that unsubscribes during a replay does not disturb the others", async () => {
  const { client, topic, got } = await makeLive();
  const socket = FakeWebSocket.last;
  for (const seq of [1, 2]) socket.event(seq);
  const other = follow(client);
  const late = follow(client, { since: "c0" });
  await settle();
  socket.subscribed({ cursor: "c0", recovered: true, replayed: 2 });
  late.topic.unsubscribe();
  topic.unsubscribe();
  for (const seq of [1, 2, 3]) socket.event(seq);
  assert.deepEqual([got, other.seen, late.seen], [[1, 2], [3], []]);
  assert.equal(socket.allSent("unsubscribe").length, 1);
  other.topic.unsubscribe();
  assert.equal(socket.allSent("unsubscribe").length, 2);
});

test("already_subscribed is not a denial: the client unsubscribes and subscribes again", async () => {
  const { client, clock, got } = await makeLive();
  const socket = FakeWebSocket.last;
  socket.event(1);
  const late = follow(client, { since: "c0" });
  await settle();
  const { id } = socket.lastSent("subscribe");
  const code = "already_subscribed";
  socket.receive({ type: "error", id, code, message: "", retry: false });
  await clock.advance(500);
  assert.deepEqual(commands().slice(-2), [
    { type: "unsubscribe" },
    { type: "subscribe", since: "c0" },
  ]);
  socket.subscribed({ cursor: "c0", recovered: true, replayed: 1 });
  for (const seq of [1, 2]) socket.event(seq);
  assert.deepEqual([got, late.seen], [[1, 2], [1, 2]]);
});

test("a part that starts again at a refused cursor is not reset", async () => {
  const { client, clock, resets } = await makeLive();
  const socket = FakeWebSocket.last;
  socket.event(9);
  const late = follow(client, { since: "c1" });
  await settle();
  socket.subscribed({ cursor: "c9", recovered: false });
  const second = follow(client, { since: "c1" });
  await settle();
  socket.subscribed({ cursor: "c9", recovered: false });
  await clock.advance(5_000);
  assert.deepEqual([late.resets, second.resets], [1, 1]);
  const again = follow(client, { since: "c1" });
  await settle();
  socket.subscribed({ cursor: "c9", recovered: false });
  await clock.advance(60_000);
  assert.deepEqual([again.resets, late.resets, resets()], [0, 1, 0]);
});

test("a reset during a part's replay lets the others continue at once", async () => {
  const { client, clock, got, resets } = await makeLive();
  const socket = FakeWebSocket.last;
  socket.event(8);
  const late = follow(client, { since: "c1" });
  await settle();
  socket.subscribed({ cursor: "c1", recovered: true, replayed: 7 });
  socket.event(2);
  socket.receive({ type: "reset", topic: "a", cursor: "c9", reason: "trimmed" });
  assert.equal(socket.lastSent("subscribe").since, "c8");
  socket.subscribed({ cursor: "c8", recovered: true, replayed: 1 });
  for (const seq of [9, 10]) socket.event(seq);
  await clock.advance(60_000);
  assert.deepEqual([got, resets()], [[8, 9, 10], 0]);
  assert.deepEqual([late.seen, late.resets], [[2, 10], 1]);
});

test("a part that unsubscribes at once does not change the subscription", async () => {
  const { client, topic, got } = await makeLive();
  FakeWebSocket.last.event(1);
  follow(client, { since: "c0" }).topic.unsubscribe();
  await settle();
  FakeWebSocket.last.event(2);
  assert.equal(commands().length, 1);
  assert.deepEqual(got, [1, 2]);
  topic.unsubscribe();
  assert.equal(commands().length, 2);
});

test("after a break the client resumes for the part with a cursor, not for the one without", async () => {
  const { client, clock, got } = await makeLive({ since: "c0" });
  FakeWebSocket.last.end();
  let socket = await comeBack(clock);
  socket.subscribed({ cursor: "c0", recovered: true, replayed: 3 });
  const now = follow(client);
  socket.event(1);
  socket.end();
  socket = await comeBack(clock);
  assert.deepEqual(commands(), [{ type: "subscribe", since: "c1" }]);
  socket.subscribed({ cursor: "c1", recovered: true, replayed: 2 });
  for (const seq of [2, 3, 4]) socket.event(seq);
  assert.deepEqual([got, now.seen, commands().length], [[1, 2, 3, 4], [4], 1]);
});

test("a part that a denial listener unsubscribes sends no subscribe", async () => {
  const { client } = makeClient();
  client.user.onDenied(() => other.topic.unsubscribe());
  const other = follow(client);
  await settle();
  FakeWebSocket.last.welcome({ user: null, topics: [] });
  assert.deepEqual(FakeWebSocket.last.allSent("subscribe"), []);
});

test("a pending reset survives when two names become one topic", async () => {
  const { client, clock } = makeClient();
  const own = { resets: 0 };
  client.user.onReset(() => (own.resets += 1));
  const named = follow(client, {}, "user.7");
  await settle();
  FakeWebSocket.last.welcome({ user: null, topics: [] });
  FakeWebSocket.last.subscribed({ topic: "user.7" });
  FakeWebSocket.last.receive({ type: "reset", topic: "user.7", cursor: "c5", reason: "trimmed" });
  client.reconnect();
  FakeWebSocket.last.welcome();
  await clock.advance(60_000);
  assert.deepEqual([named.resets, own.resets], [1, 0]);
});

test(".user keeps its start when its name becomes known, but not for another user", async () => {
  const { client } = makeClient();
  const seen = /** @type {any[]} */ ([]);
  client.subscribeUser({ since: "c3" }).on("*", (data) => seen.push(data));
  const named = follow(client, { since: "c4" }, "user.7");
  await settle();
  const socket = FakeWebSocket.last;
  socket.welcome();
  socket.subscribed({ cursor: "c3", recovered: true, replayed: 2 });
  for (const seq of [4, 5]) socket.event(seq, { topic: "user.7" });
  assert.deepEqual([seen, named.seen, socket.allSent("subscribe").length], [[4, 5], [5], 1]);
  client.reconnect();
  FakeWebSocket.last.welcome({ user: "8", topics: ["user.8"] });
  assert.deepEqual(commands(), [{ type: "subscribe" }]);
});

/** Choose a start at or before the head. @param {any} log @param {number} luck */
function chooseStart(log, luck) {
  const seq = Math.max(0, log.head - Math.floor(luck * 8));
  return { epoch: log.epoch, seq, cursor: `${log.epoch}:${seq}` };
}

/** @param {number} seed @param {boolean} isHarsh Whether the log is trimmed and restarted. */
async function scenario(seed, isHarsh) {
  const chance = random(seed);
  const { client, clock } = makeClient({ storage: null });
  clock.chance = chance;
  const server = new Server(chance, true);
  const log = server.log("a");
  /** @type {any[]} */
  const views = [];
  for (let step = 0; step < 80; step += 1) {
    const luck = chance();
    if (luck < 0.4) log.append();
    else if (luck < 0.55) server.write();
    else if (luck < 0.65 && views.length < 8) {
      const start = chooseStart(log, chance());
      views.push(Object.assign(follow(client, { since: start.cursor }), { start }));
    } else if (luck < 0.68) views.push(follow(client));
    else if (luck < 0.7) views.push(follow(client, { last: 2 }));
    else if (luck < 0.75) leave(views, chance);
    else if (luck < 0.8) FakeWebSocket.all.at(-1)?.end(1006);
    else if (luck < 0.83 && isHarsh) log.trim(log.head - 2);
    else if (luck < 0.84 && isHarsh) server.restart("a");
    else await clock.advance(chance() * 2_000);
    await settle();
    if (FakeWebSocket.all.length) server.serve();
  }
  if (!FakeWebSocket.all.length) return;
  await endFaults(server, clock);
  for (const view of views) check(view, log, isHarsh, seed);
}

/** @param {any[]} views @param {() => number} chance */
function leave(views, chance) {
  const [view] = views.splice(Math.floor(chance() * views.length), 1);
  view?.topic.unsubscribe();
}

/** Check that a view has all events from its start on, unless it was reset. */
function check(/** @type {any} */ { seen, start, resets }, /** @type {any} */ log,
  /** @type {boolean} */ isHarsh, /** @type {number} */ seed) {
  const details = `seed ${seed}: from ${JSON.stringify(start)} ${JSON.stringify(seen)}, ${resets} resets`;
  const all = start ? [{ epoch: start.epoch, seq: start.seq }, ...seen] : seen;
  let gaps = 0;
  for (const [index, { epoch, seq }] of all.slice(1).entries()) {
    const before = all[index];
    if (epoch === before.epoch) assert.ok(seq > before.seq, `out of order or repeated; ${details}`);
    else assert.ok(epoch > before.epoch, `an old epoch; ${details}`);
    if (epoch !== before.epoch || seq !== before.seq + 1) gaps += 1;
  }
  assert.deepEqual(seen.at(-1), { epoch: log.epoch, seq: log.head }, `not the newest event; ${details}`);
  if (gaps) assert.ok(resets > 0, `a gap without a reset; ${details}`);
  if (start) assert.equal(resets > 0, gaps > 0, `a reset without a gap; ${details}`);
  if (!isHarsh) assert.equal(resets, 0, details);
}

test(`${SEEDS} random scenarios: every part gets all events from its own start on`, async () => {
  for (let seed = 1; seed <= SEEDS; seed += 1) await scenario(seed, false);
});

test(`${SEEDS} random scenarios with trims and restarts: every part gets all events or is reset`, async () => {
  for (let seed = 1; seed <= SEEDS; seed += 1) await scenario(seed, true);
});
