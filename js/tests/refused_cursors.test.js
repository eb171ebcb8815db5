import assert from "node:assert/strict";
import { test } from "node:test";
import { RefusedCursors } from "../src/refused_cursors.js";
import { makeClient } from "./support.js";

test("all cursors that were refused are remembered, up to a limit", async () => {
  const { clock, storage } = makeClient();
  const refused = new RefusedCursors(clock, storage);
  for (const since of ["c1", "c2", null]) {
    refused.add("a", [since, "c0"]);
    await clock.advance(1_000);
  }
  for (const since of ["c0", "c1", "c2"]) assert.ok(refused.has("a", since));
  assert.ok(!refused.has("a", "c3"));
  assert.ok(!refused.has("b", "c1"));
  for (let turn = 0; turn < 200; turn += 1) refused.add("a", [`d${turn}`]);
  assert.ok(String(storage.getItem("realtime:reset::a")).length < 3_000);
});

test("pages in frames of one tab remember their own refused cursors", async (context) => {
  const { clock, storage } = makeClient();
  const refused = new RefusedCursors(clock, storage);
  context.after(() => void delete /** @type {any} */ (globalThis).location);
  const show = (/** @type {string} */ pathname, search = "") =>
    Object.assign(globalThis, { location: { pathname, search } });
  show("/desk/");
  refused.add("a", ["c1"]);
  for (const [pathname, search, knows] of /** @type {[string, string, boolean][]} */ ([
    ["/desk/", "", true], ["/desk/", "?as=ada", false], ["/customer/", "", false],
  ])) {
    show(pathname, search);
    assert.equal(refused.has("a", "c1"), knows);
  }
});
