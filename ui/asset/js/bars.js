// What the histogram of a search says of its bars.
import { write } from "./time.js";

/**
 * @typedef {{from: number, to: number, n: number, failed: number, unsure: boolean}} Bar
 */

/**
 * The bars that a pair of positions spans, whichever comes first.
 * @param {number} a
 * @param {number} b
 * @param {number} count
 * @returns {[number, number]} first bar, and the one behind the last
 */
export function span(a, b, count) {
  const low = Math.max(0, Math.min(a, b));
  const high = Math.min(count - 1, Math.max(a, b));
  return [low, high + 1];
}

/**
 * @param {Bar[]} bars
 * @param {number} low
 * @param {number} high
 */
export function sum(bars, low, high) {
  let n = 0;
  let failed = 0;
  let unsure = false;
  for (const b of bars.slice(low, high)) {
    n += b.n;
    failed += b.failed;
    unsure ||= b.unsure;
  }
  return { n, failed, unsure };
}

/**
 * What a stretch of time holds, in words.
 * @param {Bar[]} bars
 * @param {number} low
 * @param {number} high
 * @param {string} clock
 */
export function tell(bars, low, high, clock) {
  const { n, failed, unsure } = sum(bars, low, high);
  const kind = clock === "minute" ? "second" : clock === "date" ? "day" : clock;
  const at = (/** @type {number} */ ms) => write(new Date(ms), kind, new Date());
  const count = `${unsure ? "at least " : ""}${n.toLocaleString("en")} ${n === 1 ? "message" : "messages"}`;
  return `${at(bars[low].from)} to ${at(bars[high - 1].to)}  ${count}${failed ? ` · ${failed.toLocaleString("en")} did not end well` : ""}`;
}

/**
 * The page for a stretch of time.
 * @param {string} href without a range
 * @param {number} from
 * @param {number} to
 */
export function zoomed(href, from, to) {
  const u = new URL(href, "http://x");
  u.searchParams.set("from", new Date(from).toISOString());
  u.searchParams.set("to", new Date(to).toISOString());
  return u.pathname + u.search;
}
