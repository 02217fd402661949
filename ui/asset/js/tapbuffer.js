// The rows of a live tap: bounded, newest first, and honest about what is
// missing. No DOM here, so that it can be tested.

/**
 * @typedef {{uid: string, at: string, ms: number, kind: string, tone: string, word: string, channel: string, broker: string, key: string, size: string, text: string, url: string}} Row
 * @typedef {{cut: number, why: string}} Cut a line that says what was left out here; cut is NaN where nobody can say
 * @typedef {{rows: Row[], matched: number, sampled: number, dropped: number, resume?: string, resumed?: boolean, missed?: number | null}} Frame
 */

const why = {
  sampled: "more passed than this tap shows",
  dropped: "this browser was too slow",
  away: "the connection was away",
};

export class TapBuffer {
  /** @param {number} limit rows kept */
  constructor(limit) {
    this.limit = limit;
    /** @type {(Row | Cut)[]} newest first */
    this.shown = [];
    /** @type {(Row | Cut)[]} newest first, waiting while held */
    this.waiting = [];
    this.held = false;
    this.matched = 0;
    this.sampled = 0;
    this.dropped = 0;
    this.newer = 0;
  }

  /** @param {Frame} frame */
  add(frame) {
    this.matched += frame.matched;
    this.sampled += frame.sampled;
    this.dropped += frame.dropped;
    /** @type {(Row | Cut)[]} */
    const fresh = [...frame.rows].reverse();
    const cut = (/** @type {number} */ n, /** @type {string} */ reason) => {
      if (n !== 0) fresh.push({ cut: n, why: reason });
    };
    cut(frame.sampled, why.sampled);
    cut(frame.dropped, frame.resumed ? why.away : why.dropped);
    if (frame.resumed === false) cut(NaN, why.away);
    const into = this.held ? this.waiting : this.shown;
    // Neighbouring cuts of one kind are one.
    const top = into[0];
    const tail = fresh[fresh.length - 1];
    if (tail && "cut" in tail && top && "cut" in top && top.why === tail.why && !Number.isNaN(top.cut + tail.cut) && fresh.length === 1) {
      top.cut += tail.cut;
      fresh.length = 0;
    }
    into.unshift(...fresh);
    if (into.length > this.limit) into.length = this.limit;
    if (this.held) this.newer += frame.rows.length;
  }

  hold() {
    this.held = true;
  }

  /** Shows what came meanwhile. */
  release() {
    this.held = false;
    this.shown.unshift(...this.waiting);
    if (this.shown.length > this.limit) this.shown.length = this.limit;
    this.waiting = [];
    this.newer = 0;
  }

  /** Forgets the rows; the counts go on. */
  clear() {
    this.shown = [];
    this.waiting = [];
    this.newer = 0;
  }

  /** @returns {number} rows, without cut lines */
  get rows() {
    return this.shown.filter((r) => !("cut" in r)).length;
  }

  /** @returns {number} how many of the newer rows are kept for release */
  get kept() {
    return this.waiting.filter((r) => !("cut" in r)).length;
  }
}

/**
 * Says what is missing at a place.
 * @param {Cut} c
 * @param {(n: number) => string} count
 */
export function cutWords(c, count) {
  return Number.isNaN(c.cut) ? `Nobody can say how many passed while ${c.why}. All are in the store.` : `${count(c.cut)} not shown here: ${c.why}. All are in the store.`;
}

/**
 * Waits before connecting again: doubling with full jitter, so that all
 * browsers of a console that restarted do not come back at once.
 * @param {number} attempt
 * @param {() => number} random
 */
export function backoff(attempt, random = Math.random) {
  return 500 + random() * Math.min(20000, 1000 * 2 ** Math.min(attempt, 10));
}
