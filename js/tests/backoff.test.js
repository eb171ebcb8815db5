import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff } from "../src/backoff.js";
import { FakeClock } from "./support.js";

test("delays are random below a bound that doubles from 0.5 to 20 seconds", () => {
  const clock = new FakeClock();
  const backoff = new Backoff(clock);
  clock.chance = () => 1;
  const bounds = Array.from({ length: 8 }, () => backoff.next());
  assert.deepEqual(bounds, [500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
  clock.chance = () => 0;
  assert.equal(backoff.next(), 0);
});

test("reset() starts again with the shortest bound", () => {
  const backoff = new Backoff(new FakeClock());
  backoff.next();
  backoff.next();
  backoff.reset();
  assert.equal(backoff.next(), 250);
});
