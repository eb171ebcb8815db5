import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { makeSecret, originHash } from "../src/origin.js";
import { sha256 } from "../src/sha256.js";
import "./support.js";

test("sha256() agrees with Node for every length around the block boundaries", () => {
  for (let length = 0; length < 200; length += 1) {
    const text = "ü€😀a".repeat(length).slice(0, length);
    assert.equal(sha256(text), createHash("sha256").update(text).digest("hex"), text);
  }
});

test("a secret is random and has 22 characters that a header accepts", () => {
  assert.match(makeSecret(), /^[\w-]{22}$/);
  assert.notEqual(makeSecret(), makeSecret());
});

test("an event carries the first 16 digits of the secret's hash", () => {
  assert.equal(originHash("abc"), "ba7816bf8f01cfea");
});
