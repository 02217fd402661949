import assert from "node:assert/strict";
import test from "node:test";
import { missing } from "./typed.js";

test("what is missing of a name is said", () => {
  assert.equal(missing("orders.dead", ""), "");
  assert.equal(missing("orders.dead", "orders"), "5 characters to go.");
  assert.equal(missing("orders.dead", "orders.dea"), "One character to go.");
  assert.equal(missing("orders.dead", " orders.dead "), "");
  assert.equal(missing("orders.dead", "order_"), "It differs from the 6th character on.");
  assert.equal(missing("orders.dead", "x"), "It differs from the 1st character on.");
  assert.equal(missing("aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaaaab"), "It differs from the 22nd character on.");
  assert.equal(missing("orders.dead", "orders.dead2"), "It differs from the 12th character on.");
});
