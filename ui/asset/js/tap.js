// The live tap's page: a connection, a bounded buffer, and a list that holds
// still while the reader looks at it.
import { TapBuffer, cutWords } from "./tapbuffer.js";
import { TapLink } from "./taplink.js";
import { write } from "./time.js";
import { keepPlace, leavePlace } from "./keys.js";

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
  const follow = one("[data-tap-follow]");
  const state = one("[data-tap-state]");
  const trouble = one("[data-tap-trouble]");
  const empty = one("[data-tap-empty]");
  const said = one("#said");
  for (const el of document.querySelectorAll("[data-tap-still]")) /** @type {HTMLElement} */ (el).hidden = true;
  for (const el of document.querySelectorAll("[data-tap-live]")) /** @type {HTMLElement} */ (el).hidden = false;

  const buffer = new TapBuffer(limit);
  /** @type {WeakMap<object, HTMLElement>} */
  const drawn = new WeakMap();
  let paused = false;
  let pointed = false;
  let following = true;
  let pausedAt = "";
  let dirty = true;
  let delay = NaN;
  /** @type {number[]} matched per second, newest last */
  const rates = [];
  let second = 0;

  /** @type {Record<string, [string, string]>} */
  const marks = {
    running: ["running", "is-move"], held: ["held", "is-held"], lost: ["stop", "is-stop"],
    refused: ["stop", "is-stop"], ended: ["off", "is-off"], starting: ["stale", "is-off"],
  };
  /**
   * @param {string} kind
   * @param {string} words
   */
  function chip(kind, words) {
    if (state.dataset.words === words) return;
    state.dataset.words = words;
    const c = span(`state chip ${marks[kind][1]}`, "");
    c.append(mark(`m-${marks[kind][0]}`, `lamp ${marks[kind][1]}`), words);
    state.replaceChildren(c);
  }

  /** Says how the connection is; the pause stands behind it where it is well. */
  function condition() {
    const s = link.status;
    const left = s.until > 0 ? Math.max(0, Math.ceil((s.until - Date.now()) / 1000)) : 0;
    if (s.kind === "running" && paused) chip("held", `Paused at ${pausedAt}`);
    else chip(s.kind, s.words);
    const bad = s.kind === "lost" || s.kind === "refused" || s.kind === "ended";
    if (trouble.hidden !== !bad) trouble.hidden = !bad;
    if (!bad) return;
    const title = s.kind === "lost" ? "The connection is lost" : s.kind === "refused" ? "The console refuses this tap" : "This tap has ended";
    const next = left > 0 ? ` Trying again in ${left} s.` : s.until > 0 ? " Trying again." : "";
    const kept = s.kind === "lost" ? " What passes meanwhile is kept for a minute or counted." : "";
    const reason = s.reason.slice(0, 1).toUpperCase() + s.reason.slice(1);
    const text = `${reason ? `${reason}.`.replace(/[.]{2}$/, ".") : ""}${kept}${next}`.trim();
    const at = /** @type {HTMLElement} */ (trouble.querySelector("strong"));
    const why = /** @type {HTMLElement} */ (trouble.querySelector("[data-tap-why]"));
    if (at.textContent !== title) {
      at.textContent = title;
      said.textContent = `${title}. ${s.reason}`;
    }
    if (why.textContent !== text) why.textContent = text;
    const button = /** @type {HTMLElement} */ (trouble.querySelector("button"));
    const label = s.kind === "ended" ? "Open again" : "Try now";
    if (button.textContent !== label) button.textContent = label;
  }

  /** @param {import("./tapbuffer.js").Row | import("./tapbuffer.js").Cut} r */
  function draw(r) {
    const old = drawn.get(r);
    if (old && !("cut" in r)) return old;
    let el;
    if ("cut" in r) {
      const words = cutWords(r, count);
      if (old) {
        if (old.lastChild && old.lastChild.textContent !== words) old.lastChild.textContent = words;
        return old;
      }
      el = document.createElement("div");
      el.className = "tapcut";
      el.append(mark("m-caution", "lamp is-caution"), span("", words));
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
      channel.title = `${r.channel}${r.key ? ` ${r.key}` : ""}, ${r.broker}, ${r.word}`;
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
      empty.hidden = want.length > 0;
    }
    const over = buffer.newer > buffer.kept ? `; the newest ${count(buffer.kept)} are kept` : "";
    const reason = paused ? `Paused at ${pausedAt}, ${count(buffer.newer)} newer` : `${count(buffer.newer)} new since ${following ? "you pointed at a row" : "you stopped following"}`;
    newer.hidden = !(buffer.held && buffer.newer > 0);
    const text = reason + over;
    if (newer.textContent !== text) newer.textContent = text;
    condition();
    const recent = rates.slice(-5);
    figure("tap-matched", count(buffer.matched), `${recent.length > 0 ? count(Math.round(recent.reduce((a, b) => a + b, 0) / recent.length)) : 0}/s`);
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
    if (paused || pointed || !following) buffer.hold();
    else if (buffer.held) {
      buffer.release();
      dirty = true;
    }
    follow.setAttribute("aria-pressed", String(following && !paused));
  }
  /** @param {boolean} on */
  function goOn(on) {
    following = on;
    if (on) {
      pointed = false;
      if (paused) toggle();
      leavePlace();
      if (list.contains(document.activeElement)) /** @type {HTMLElement} */ (document.activeElement).blur();
      scrollTo({ top: 0 });
    }
    settle();
    render();
  }
  function toggle() {
    paused = !paused;
    pausedAt = write(new Date(), "second", new Date());
    const label = /** @type {HTMLElement} */ (pause.querySelector("span"));
    label.textContent = paused ? "Go on" : "Pause";
    said.textContent = paused ? "Paused" : "Running";
    settle();
    render();
  }
  pause.addEventListener("click", toggle);
  follow.addEventListener("click", () => goOn(!following || paused));
  document.addEventListener("signalbox:pause", (e) => {
    e.preventDefault();
    toggle();
  });
  // Who moves through the list or scrolls it down reads it: it holds still.
  document.addEventListener("keydown", () => queueMicrotask(() => {
    if (following && list.contains(document.activeElement)) {
      following = false;
      settle();
    }
  }));
  addEventListener("scroll", () => {
    const below = list.getBoundingClientRect().top < 0;
    if (below === following) {
      following = !below && !document.querySelector(".taprow.at");
      settle();
    }
  }, { passive: true });
  list.addEventListener("pointerenter", (e) => {
    if (e.pointerType !== "mouse") return; // a finger scrolls, and that holds
    pointed = true;
    settle();
  });
  list.addEventListener("pointerleave", () => {
    pointed = false;
    settle();
  });
  newer.addEventListener("click", () => goOn(true));
  /** @type {HTMLElement} */ (trouble.querySelector("button")).addEventListener("click", () => {
    // Who has signed out is led to the sign-in and back.
    if (link.status.kind === "ended") location.reload();
    else link.retry();
  });

  const link = new TapLink(
    new URL(root.dataset.tap ?? "", location.href).href,
    (frame) => {
      second += frame.matched;
      if (frame.rows.length > 0) delay = Date.now() - frame.rows[frame.rows.length - 1].ms;
      if (frame.resumed !== undefined) said.textContent = frame.missed === 0 ? "Connected again, nothing was missed" : "Connected again";
      buffer.add(frame);
      if (!buffer.held) dirty = true;
    },
    () => condition(),
  );
  // A tab nobody looks at costs the collector nothing.
  let leave = 0;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(leave);
    if (document.hidden) leave = window.setTimeout(() => link.leave(true), 15000);
    else if (!link.socket && link.status.kind !== "ended" && (link.status.kind !== "refused" || link.status.until > 0)) link.retry();
  });
  addEventListener("pagehide", () => link.leave(false));
  addEventListener("pageshow", (e) => {
    if (e.persisted) link.retry();
  });
  setInterval(() => {
    if (!document.hidden) render();
  }, 200);
  setInterval(() => {
    rates.push(second);
    second = 0;
    if (rates.length > 60) rates.shift();
  }, 1000);
  settle();
  link.connect();
  render();
}
