import assert from "node:assert/strict";
import { test } from "node:test";
import { marked, taken, tokens } from "./filtertext.js";

const kinds = (/** @type {string} */ s) => tokens(s).filter((t) => t.text.trim()).map((t) => `${t.kind}:${t.text}`).join(" ");

test("parts keep every character", () => {
  for (const s of ["", " ", `timeout channel:orders.* (attempts > 3 OR size >= 100kb) NOT header.x-tenant = 'acme' body."a b"[0]:"x"`, `"open`, "ünïcode:💥 x", "a)b(c", "::::", "'it''s' AND"])
    assert.equal(tokens(s).map((t) => t.text).join(""), s);
});

test("parts are told apart", () => {
  assert.equal(kinds("timeout channel:orders.*"), ":timeout name:channel sign:: :orders.*");
  assert.equal(kinds("(attempts > 3 OR size >= 100kb)"), "sign:( name:attempts sign:> num:3 word:OR name:size sign:>= num:100kb sign:)");
  assert.equal(kinds("NOT header.x-tenant = 'acme'"), "word:NOT name:header.x-tenant sign:= str:'acme'");
  assert.equal(kinds(`body."a b":1`), `name:body."a b" sign:: num:1`);
  assert.equal(kinds("channel IN (a, b)"), "name:channel word:IN sign:( :a sign:, :b sign:)");
});

test("a mistake is marked where it is", () => {
  const wrong = (/** @type {string} */ s, /** @type {number} */ a, /** @type {number} */ b) => marked(tokens(s), a, b).filter((t) => t.wrong).map((t) => t.text).join("|");
  assert.equal(wrong("chanel:orders", 0, 6), "chanel");
  assert.equal(wrong("a chanel:orders b", 2, 15), "chanel|:|orders");
  assert.equal(wrong("attempts > ", 11, 11), " ");
  assert.equal(wrong("fine", -1, -1), "");
  assert.equal(marked(tokens("chanel:x"), 3, 7).map((t) => t.text).join(""), "chanel:x");
});

test("a completion goes in at its place", () => {
  assert.deepEqual(taken("cha timeout", { start: 0, end: 3 }, { text: "channel:", kind: "field" }), { text: "channel: timeout", cursor: 8 });
  assert.deepEqual(taken("channel:or", { start: 8, end: 10 }, { text: "orders.new", kind: "value" }), { text: "channel:orders.new ", cursor: 19 });
  assert.deepEqual(taken("channel IN (or", { start: 12, end: 14 }, { text: "orders.new", kind: "value" }), { text: "channel IN (orders.new", cursor: 22 });
  assert.deepEqual(taken("a  b", { start: 2, end: 2 }, { text: "AND ", kind: "keyword" }), { text: "a AND b", cursor: 6 });
});
