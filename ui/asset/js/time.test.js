import assert from "node:assert/strict";
import test from "node:test";
import { ago, write } from "./time.js";

const t = new Date("2026-03-29T00:59:59.114Z"); // a second before summer time in Berlin
const now = new Date("2026-03-29T01:30:00Z");

test("times are written in the chosen zone", () => {
  assert.equal(write(t, "milli", now, "UTC"), "00:59:59.114");
  assert.equal(write(t, "milli", now, "Europe/Berlin"), "01:59:59.114");
  assert.equal(write(new Date(t.getTime() + 1000), "second", now, "Europe/Berlin"), "03:00:00");
  assert.equal(write(t, "day", now, "America/New_York"), "28 Mar 20:59:59");
  assert.equal(write(t, "date", now, "Pacific/Auckland"), "29 Mar");
  assert.equal(write(t, "minute", now, "Asia/Kolkata"), "06:29");
  assert.equal(write(new Date("2026-03-29T00:00:05Z"), "second", now, "UTC"), "00:00:05");
});

test("ages have no zone", () => {
  assert.equal(write(t, "ago", now, "Asia/Tokyo"), "30 min ago");
  assert.equal(ago(-5000), "in 5 s");
});
