import assert from "node:assert/strict";
import { test } from "node:test";
import * as h from "./bars.js";

const bars = [0, 1, 2, 3].map((i) => ({ from: i * 60_000, to: (i + 1) * 60_000, n: 10 ** i, failed: i, unsure: i === 0 }));

test("a span is in order and within the bars", () => {
  assert.deepEqual(h.span(2, 1, 4), [1, 3]);
  assert.deepEqual(h.span(1, 1, 4), [1, 2]);
  assert.deepEqual(h.span(-5, 9, 4), [0, 4]);
});

test("a stretch is told with its sums", () => {
  assert.deepEqual(h.sum(bars, 1, 4), { n: 1110, failed: 6, unsure: false });
  assert.match(h.tell(bars, 1, 4, "minute"), /^\d\d:01:00 to \d\d:04:00 {2}1,110 messages · 6 did not end well$/);
  assert.match(h.tell(bars, 0, 1, "minute"), /at least 1 message$/);
});

test("a zoom sets the range and keeps the rest", () => {
  assert.equal(h.zoomed("/messages?env=p&q=a+b", 1000, 2500), "/messages?env=p&q=a+b&from=1970-01-01T00%3A00%3A01.000Z&to=1970-01-01T00%3A00%3A02.500Z");
});
