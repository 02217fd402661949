// The live tap's page: a socket, a bounded buffer, and a list that holds still
// while the reader looks at it.
import { TapBuffer, backoff } from "./tapbuffer.js";
import { write } from "./time.js";
import { keepPlace } from "./keys.js";

const limit = 500;

/**
 * @param {string} name
 * @param {string} className
 */
function mark(name, className) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", className);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#${name}`);
  svg.append(use);
  return svg;
}

/**
 * @param {string} className
 * @param {string} text
 */
function span(className, text) {
  const s = document.createElement("span");
  s.className = className;
  s.textContent = text;
  return s;
}

/** @param {number} n */
const count = (n) => n.toLocaleString("en");

export function startTap() {
  const found = /** @type {HTMLElement | null} */ (document.querySelector("[data-tap]"));
  if (!found) return;
  const root = found;
  const one = (/** @type {string} */ s) => /** @type {HTMLElement} */ (document.querySelector(s));
  const list = one("[data-tap-rows]");
  const newer = one("[data-tap-newer]");
  const pause = one("[data-tap-pause]");
  const state = one("[data-tap-state]");
  const said = one("#said");
  for (const el of document.querySelectorAll("[data-tap-still]")) /** @type {HTMLElement} */ (el).hidden = true;
  for (const s of ["[data-tap-rows]", "[data-tap-figures]", "[data-tap-pause]", "[data-tap-keys]"]) one(s).hidden = false;

  const buffer = new TapBuffer(limit);
  /** @type {WeakMap<object, HTMLElement>} */
  const drawn = new WeakMap();
  let paused = false;
  let pointed = false;
  let pausedAt = "";
  let dirty = true;
  let attempt = 0;
  let delay = NaN;
  /** @type {number[]} matched per second, newest last */
  const rates = [];
  let second = 0;

  /** @type {Record<string, [string, string]>} */
  const marks = { running: ["running", "is-move"], held: ["held", "is-held"], lost: ["stop", "is-stop"], starting: ["stale", "is-off"] };
  /**
   * @param {string} kind
   * @param {string} words
   */
  function say(kind, words) {
    if (state.dataset.words === words) return;
    state.dataset.words = words;
    const chip = span(`state chip ${marks[kind][1]}`, "");
    chip.append(mark(`m-${marks[kind][0]}`, `lamp ${marks[kind][1]}`), words);
    state.replaceChildren(chip);
  }

  /** @param {import("./tapbuffer.js").Row | import("./tapbuffer.js").Cut} r */
  function draw(r) {
    const old = drawn.get(r);
    if (old && !("cut" in r)) return old;
    let el;
    if ("cut" in r) {
      el = document.createElement("div");
      el.className = "tapcut";
      el.append(mark("m-caution", "lamp is-caution"), `${count(r.cut)} not shown here: ${r.why}. All are in the store.`);
    } else {
      el = document.createElement("a");
      el.className = "taprow";
      el.href = r.url;
      const time = document.createElement("time");
      time.dateTime = r.at;
      time.title = r.at;
      time.className = "mono dim";
      time.textContent = write(new Date(r.ms), "milli", new Date());
      const lamp = mark(`m-${r.kind}`, `lamp ${r.tone}`);
      const channel = span("chan cut", r.channel);
      if (r.key) channel.append(" ", span("key", r.key));
      channel.append(span("vh", `, ${r.word}`));
      channel.title = `${r.channel}${r.key ? ` ${r.key}` : ""}, ${r.word}`;
      el.append(time, lamp, channel, span("num size dim", r.size), span("cut mono body", r.text));
    }
    drawn.set(r, el);
    return el;
  }

  function render() {
    if (dirty) {
      dirty = false;
      // Elements are reused, so rows keep focus and only new ones are made.
      const want = buffer.shown.map(draw);
      const keep = new Set(want);
      for (const child of [...list.children]) if (!keep.has(/** @type {HTMLElement} */ (child))) child.remove();
      /** @type {ChildNode | null} */
      let next = list.firstChild;
      for (const el of want) {
        if (el === next) next = next.nextSibling;
        else list.insertBefore(el, next);
      }
      keepPlace();
    }
    const text = paused ? `Paused at ${pausedAt}, ${count(buffer.newer)} newer` : `${count(buffer.newer)} new since you pointed at a row`;
    newer.hidden = !(buffer.held && buffer.newer > 0);
    if (newer.textContent !== text) newer.textContent = text;
    figure("tap-matched", count(buffer.matched), `${rates.length > 0 ? Math.round(rates.slice(-5).reduce((a, b) => a + b, 0) / Math.min(5, rates.length)) : 0}/s`);
    figure("tap-shown", count(buffer.rows));
    figure("tap-sampled", count(buffer.sampled));
    figure("tap-dropped", count(buffer.dropped));
    figure("tap-delay", Number.isNaN(delay) ? "–" : Math.max(0, delay / 1000).toFixed(1));
  }

  /**
   * @param {string} id
   * @param {string} value
   * @param {string} [note]
   */
  function figure(id, value, note) {
    const v = document.querySelector(`[data-live="${id}"]`);
    if (v && v.textContent !== value) v.textContent = value;
    const n = document.querySelector(`[data-live-note="${id}"]`);
    if (note && n && n.textContent !== note) n.textContent = note;
  }

  function settle() {
    if (paused || pointed) buffer.hold();
    else if (buffer.held) {
      buffer.release();
      dirty = true;
    }
  }
  function toggle() {
    paused = !paused;
    pausedAt = write(new Date(), "second", new Date());
    const label = /** @type {HTMLElement} */ (pause.querySelector("span"));
    label.textContent = paused ? "Go on" : "Pause";
    if (paused) say("held", `Paused at ${pausedAt}`);
    else say("running", "Running");
    said.textContent = paused ? "Paused" : "Running";
    settle();
    render();
  }
  pause.addEventListener("click", toggle);
  document.addEventListener("signalbox:pause", (e) => {
    e.preventDefault();
    toggle();
  });
  list.addEventListener("pointerenter", () => {
    pointed = true;
    settle();
  });
  list.addEventListener("pointerleave", () => {
    pointed = false;
    settle();
  });
  newer.addEventListener("click", () => {
    if (paused) toggle();
    pointed = false;
    settle();
    render();
  });

  /** @type {WebSocket | null} */
  let socket = null;
  let again = 0;
  let resume = ""; // of the last frame
  function connect() {
    const url = new URL(root.dataset.tap ?? "", location.href);
    if (resume) url.searchParams.set("resume", resume);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    if (attempt === 0) say("starting", "Connecting");
    const s = new WebSocket(url);
    socket = s;
    s.onopen = () => {
      attempt = 0;
      if (!paused) say("running", "Running");
    };
    s.onmessage = (e) => {
      /** @type {import("./tapbuffer.js").Frame} */
      const frame = JSON.parse(e.data);
      second += frame.matched;
      if (frame.resume) resume = frame.resume;
      if (frame.rows.length > 0) delay = Date.now() - frame.rows[frame.rows.length - 1].ms;
      buffer.add(frame);
      if (!buffer.held) dirty = true;
    };
    s.onclose = () => {
      if (socket !== s) return;
      socket = null;
      if (document.hidden) return;
      attempt++;
      say("lost", attempt > 2 ? "No contact, trying again" : "Connecting again");
      clearTimeout(again);
      again = window.setTimeout(connect, backoff(attempt));
    };
  }
  // A tab nobody looks at costs the collector nothing.
  let leave = 0;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(leave);
    if (document.hidden) leave = window.setTimeout(() => socket?.close(4001), 15000);
    else if (!socket) connect();
  });
  addEventListener("pagehide", () => socket?.close());
  setInterval(() => {
    if (!document.hidden) render();
  }, 200);
  setInterval(() => {
    rates.push(second);
    second = 0;
    if (rates.length > 60) rates.shift();
  }, 1000);
  render();
  connect();
}
