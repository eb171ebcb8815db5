import assert from "node:assert/strict";
import { test } from "node:test";
import { makeRemover } from "../src/alpine.js";

const scope = { $dispatch() {} }; // what Alpine passes as `this`

test("a call by Alpine in the task that added the listener is ignored", () => {
  let count = 0;
  const remove = makeRemover(() => (count += 1));
  remove.apply(/** @type {any} */ (scope), /** @type {any} */ ([]));
  remove.apply(/** @type {any} */ (remove), /** @type {any} */ ([]));
  assert.equal(count, 0);
});

test("the page removes a listener in the same task, as React's strict mode does", () => {
  let count = 0;
  makeRemover(() => (count += 1))();
  ({ off: makeRemover(() => (count += 1)) }).off();
  assert.equal(count, 2);
});

test("an Alpine component removes its listener later, as a method of its own", async () => {
  let count = 0;
  const component = { ...scope, stop: makeRemover(() => (count += 1)) };
  await new Promise((resolve) => setTimeout(resolve));
  component.stop();
  assert.equal(count, 1);
});
