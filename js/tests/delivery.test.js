// The delivery guarantee, with a server that loses connections, trims and restarts its log, and
// repeats and loses frames.
import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { endFaults, Server, TOPICS } from "./server.js";
import { FakeWebSocket, makeClient, random, settle } from "./support.js";

mock.method(console, "warn", () => {});

const SEEDS = Number(process.env.REALTIME_JS_SEEDS ?? 300);

/** @param {number} seed */
async function scenario(seed) {
  const chance = random(seed);
  const { client, clock } = makeClient();
  clock.chance = chance;
  const server = new Server(chance);
  /** @type {Map<string, {seen: {epoch: number, seq: number}[], resets: number}>} */
  const views = new Map();
  for (const name of TOPICS) {
    const view = { seen: /** @type {any[]} */ ([]), resets: 0 };
    views.set(name, view);
    const topic = client.subscribe(name);
    topic.on("e", (data) => view.seen.push(data));
    topic.onReset(() => (view.resets += 1));
  }
  await settle();
  server.serve();
  for (let step = 0; step < 60; step += 1) {
    const topic = TOPICS[Math.floor(chance() * TOPICS.length)];
    const luck = chance();
    if (luck < 0.5) server.log(topic).append();
    else if (luck < 0.75) server.write();
    else if (luck < 0.85) FakeWebSocket.last.end(1006);
    else if (luck < 0.88) client.connector.wake();
    else if (luck < 0.9) clock.sleep(chance() * 100_000);
    else if (luck < 0.92) server.log(topic).trim(server.log(topic).head - 2);
    else if (luck < 0.93) server.restart(topic);
    else await clock.advance(chance() * 3_000);
    await settle();
    server.serve();
  }
  await endFaults(server, clock);
  for (const [name, view] of views) check(name, view, server, seed);
}

/** A topic with reported gaps is reset, at most once a gap; one without is not. */
function check(/** @type {string} */ name, /** @type {any} */ { seen, resets },
  /** @type {Server} */ server, /** @type {number} */ seed) {
  const log = server.log(name);
  const gaps = server.gaps.get(name) ?? 0;
  const details = `seed ${seed}, ${name}: ${JSON.stringify(seen)}, ${resets} resets`;
  let missing = 0;
  for (const [index, { epoch, seq }] of seen.slice(1).entries()) {
    const before = seen[index];
    if (epoch === before.epoch) assert.ok(seq > before.seq, `out of order or repeated; ${details}`);
    else assert.ok(epoch > before.epoch, `an old epoch; ${details}`);
    if (epoch !== before.epoch || seq !== before.seq + 1) missing += 1;
  }
  assert.deepEqual(seen.at(-1), { epoch: log.epoch, seq: log.head }, `not the newest event; ${details}`);
  if (missing) assert.ok(resets > 0, `a gap without a reset; ${details}`);
  assert.equal(resets > 0, gaps > 0, `${gaps} gaps reported; ${details}`);
  assert.ok(resets <= gaps, `${gaps} gaps reported; ${details}`);
  assert.ok(missing <= gaps, `${gaps} gaps reported; ${details}`);
}

test(`${SEEDS} random scenarios: every view has all events or was reset`, async () => {
  for (let seed = 1; seed <= SEEDS; seed += 1) await scenario(seed);
});
