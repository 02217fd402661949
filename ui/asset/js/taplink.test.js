import { test } from "node:test";
import assert from "node:assert/strict";
import { TapLink } from "./taplink.js";

/** A world whose clock and sockets the test moves. */
function makeWorld() {
  const w = {
    time: 0,
    /** @type {{at: number, f: () => void}[]} */
    timers: [],
    /** @type {any[]} */
    sockets: [],
    /** @type {{status: number, detail: string, after: number} | null} */
    answer: null,
    open(/** @type {string} */ url) {
      const s = { url, /** @type {any} */ onopen: null, /** @type {any} */ onmessage: null, /** @type {any} */ onclose: null, closed: 0, close(/** @type {number} */ code) { this.closed = code; } };
      w.sockets.push(s);
      return s;
    },
    async ask() {
      if (!w.answer) throw new Error("nobody");
      return w.answer;
    },
    now: () => w.time,
    later(/** @type {() => void} */ f, /** @type {number} */ ms) {
      w.timers.push({ at: w.time + ms, f });
      return w.timers.length;
    },
    never(/** @type {number} */ n) {
      if (n > 0) w.timers[n - 1].at = Infinity;
    },
    random: () => 1,
    pass(/** @type {number} */ ms) {
      const until = w.time + ms;
      for (;;) {
        const due = w.timers.filter((t) => t.at <= until).sort((a, b) => a.at - b.at)[0];
        if (!due) break;
        w.time = due.at;
        due.at = Infinity;
        due.f();
      }
      w.time = until;
    },
    get last() {
      return w.sockets[w.sockets.length - 1];
    },
  };
  return w;
}

/** @param {ReturnType<typeof makeWorld>} w */
function make(w) {
  /** @type {any[]} */
  const frames = [];
  /** @type {any[]} */
  const said = [];
  const link = new TapLink("https://console.example/api/v1/live?channel=a", (f) => frames.push(f), (s) => said.push(s), w);
  link.connect();
  return { link, frames, said, now: () => said[said.length - 1] };
}

const frame = (/** @type {string} */ resume) => ({ data: JSON.stringify({ rows: [], matched: 1, sampled: 0, dropped: 0, resume }) });

test("it comes back with the token of its last frame", () => {
  const w = makeWorld();
  const { frames, now } = make(w);
  assert.equal(w.last.url, "wss://console.example/api/v1/live?channel=a");
  w.last.onopen();
  assert.equal(now().kind, "running");
  w.last.onmessage(frame("t1"));
  w.last.onmessage(frame("t2"));
  w.last.onclose({ code: 1006, reason: "" });
  assert.equal(now().kind, "lost");
  assert.equal(now().until, 2500);
  w.pass(2500);
  assert.equal(w.sockets.length, 2);
  assert.equal(new URL(w.last.url).searchParams.get("resume"), "t2");
  w.last.onopen();
  assert.equal(now().kind, "running");
  assert.equal(frames.length, 2);
});

test("a console that falls silent is left", () => {
  const w = makeWorld();
  const { now } = make(w);
  w.last.onopen();
  w.pass(10000);
  w.last.onmessage(frame("t"));
  w.pass(15000);
  assert.equal(now().kind, "running");
  w.pass(1000);
  assert.equal(now().kind, "lost");
  assert.match(now().reason, /No contact for 16 s/);
  assert.equal(w.sockets[0].closed, 4001);
  w.sockets[0].onclose({ code: 1006, reason: "" }); // late, and no news
  w.pass(2500);
  assert.equal(w.sockets.length, 2);
});

test("a refusal is asked for, said, and tried again slowly", async () => {
  const w = makeWorld();
  const { now } = make(w);
  w.answer = { status: 429, detail: "you have 50 live taps open", after: 5 };
  w.last.onclose({ code: 1006, reason: "" });
  await new Promise(setImmediate);
  assert.deepEqual(now(), { kind: "refused", words: "Refused", reason: "you have 50 live taps open", until: 15000 });
  w.pass(15000);
  assert.equal(w.sockets.length, 2);
  assert.equal(now().kind, "refused"); // until it is open
});

test("what cannot be granted is not tried again", async () => {
  const w = makeWorld();
  const { now } = make(w);
  w.answer = { status: 400, detail: "position 3: no field x", after: 0 };
  w.last.onclose({ code: 1006, reason: "" });
  await new Promise(setImmediate);
  assert.equal(now().kind, "refused");
  assert.equal(now().until, 0);
  w.pass(1e6);
  assert.equal(w.sockets.length, 1);
});

test("nobody there is a lost connection, with pauses that grow", async () => {
  const w = makeWorld();
  const { now } = make(w);
  const waits = [];
  for (let i = 0; i < 6; i++) {
    w.last.onclose({ code: 1006, reason: "" });
    await new Promise(setImmediate);
    assert.equal(now().kind, "lost");
    waits.push(now().until - w.time);
    w.pass(now().until - w.time);
  }
  assert.deepEqual(waits, [2500, 4500, 8500, 16500, 20500, 20500]);
});

test("a revoked reader is told why and does not come back", () => {
  const w = makeWorld();
  const { now } = make(w);
  w.last.onopen();
  w.last.onclose({ code: 4401, reason: "you have signed out" });
  assert.equal(now().kind, "ended");
  assert.equal(now().reason, "you have signed out");
  w.pass(1e6);
  assert.equal(w.sockets.length, 1);
});

test("a hidden tab says that it comes back", async () => {
  const w = makeWorld();
  const { link } = make(w);
  w.last.onopen();
  link.leave(true);
  assert.equal(w.last.closed, 4001);
  w.last.onclose({ code: 4001, reason: "" });
  w.pass(1e6);
  assert.equal(w.sockets.length, 1);
  link.retry();
  assert.equal(w.sockets.length, 2);
  link.leave(false);
  assert.equal(w.last.closed, 1000);
});
