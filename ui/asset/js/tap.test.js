import { test } from "node:test";
import assert from "node:assert/strict";
import { TapBuffer, backoff, cutWords } from "./tapbuffer.js";
import { ago, write } from "./time.js";

/** @param {number} n @returns {any[]} */
const rows = (n, from = 0) => Array.from({ length: n }, (_, i) => ({ uid: String(from + i) }));
const frame = (/** @type {any[]} */ r, sampled = 0, dropped = 0) => ({ rows: r, matched: r.length + sampled + dropped, sampled, dropped });

test("newest rows come first and the buffer is bounded", () => {
  const b = new TapBuffer(5);
  b.add(frame(rows(3)));
  b.add(frame(rows(4, 3)));
  assert.deepEqual(b.shown.map((r) => /** @type {any} */ (r).uid), ["6", "5", "4", "3", "2"]);
  assert.equal(b.matched, 7);
});

test("a held list does not move, counts what is newer, and catches up", () => {
  const b = new TapBuffer(5);
  b.add(frame(rows(2)));
  b.hold();
  b.add(frame(rows(3, 2)));
  assert.equal(b.shown.length, 2);
  assert.equal(b.newer, 3);
  b.release();
  assert.deepEqual(b.shown.map((r) => /** @type {any} */ (r).uid), ["4", "3", "2", "1", "0"]);
  assert.equal(b.newer, 0);
});

test("a held list stays bounded for ever", () => {
  const b = new TapBuffer(10);
  b.hold();
  for (let i = 0; i < 100; i++) b.add(frame(rows(7, i * 7)));
  assert.equal(b.waiting.length, 10);
  assert.equal(b.newer, 700);
});

test("what is left out is said at its place, and neighbours are one line", () => {
  const b = new TapBuffer(10);
  b.add(frame(rows(2), 14));
  assert.deepEqual(b.shown[2], { cut: 14, why: "more passed than this tap shows" });
  b.add(frame([], 0, 3));
  b.add(frame([], 0, 4));
  assert.deepEqual(b.shown[0], { cut: 7, why: "this browser was too slow" });
  assert.equal(b.rows, 2);
  assert.equal(b.sampled, 14);
  assert.equal(b.dropped, 7);
});

test("what passed while the connection was away is said", () => {
  const b = new TapBuffer(10);
  b.add({ ...frame([], 0, 1204), resumed: true, missed: 1204 });
  b.add({ ...frame([]), resumed: false, missed: null });
  b.add({ ...frame(rows(1)), resumed: true, missed: 0 });
  const words = b.shown.map((r) => ("cut" in r ? cutWords(r, String) : r.uid));
  assert.deepEqual(words, [
    "0",
    "Nobody can say how many passed while the connection was away. All are in the store.",
    "1204 not shown here: the connection was away. All are in the store.",
  ]);
  assert.equal(b.dropped, 1204);
});

test("of what comes during a pause the newest are kept, and it says how many", () => {
  const b = new TapBuffer(10);
  b.hold();
  b.add(frame(rows(25)));
  assert.equal(b.newer, 25);
  assert.equal(b.kept, 10);
});

test("reconnects spread out and stay bounded", () => {
  assert.equal(backoff(1, () => 0), 500);
  assert.equal(backoff(50, () => 1), 20500);
});

test("times read as a person would say them", () => {
  assert.equal(ago(900), "1 s ago");
  assert.equal(ago(61_000), "1 min ago");
  assert.equal(ago(3 * 3600_000), "3 h ago");
  assert.equal(ago(-90_000), "in 1 min");
  const t = new Date(2026, 10, 21, 4, 5, 6, 7);
  assert.equal(write(t, "milli", t), "04:05:06.007");
  assert.equal(write(t, "day", t), "21 Nov 04:05:06");
});
