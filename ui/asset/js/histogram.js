// The histogram above a search: its tip, and the brush that narrows the time by
// pointer or by two sliders. A histogram that was not in the page is fetched.
// Without script every bar is a link to its own time.
import htmx from "htmx.org";
import { span, tell, zoomed } from "./bars.js";
import { write, zone } from "./time.js";

/** @typedef {import("./bars.js").Bar} Bar */

/** @type {{low: number, high: number, drag: number, moved: boolean, x: number}} */
const brush = { low: -1, high: -1, drag: -1, moved: false, x: 0 };

function parts() {
  const hist = /** @type {HTMLElement | null} */ (document.querySelector("[data-hist]"));
  const over = /** @type {HTMLElement | null} */ (hist?.querySelector(".brush") ?? null);
  if (!hist || !over) return null;
  const [from, to] = /** @type {NodeListOf<HTMLElement>} */ (over.querySelectorAll("[role=slider]"));
  const bars = [...hist.querySelectorAll(".bars a")].map((el) => {
    const d = /** @type {SVGElement} */ (el).dataset;
    return { from: Number(d.from), to: Number(d.to), n: Number(d.n), failed: Number(d.failed), unsure: d.unsure !== undefined };
  });
  return {
    hist,
    over,
    field: /** @type {HTMLElement} */ (hist.querySelector(".ground")),
    chosen: /** @type {HTMLElement} */ (over.querySelector(".chosen")),
    tip: /** @type {HTMLElement} */ (over.querySelector(".tip")),
    grips: [from, to],
    bars,
  };
}
/** @typedef {NonNullable<ReturnType<typeof parts>>} Parts */

/**
 * @param {Bar[]} bars
 * @param {number} i a bar's number; the number of bars is the right edge
 */
function share(bars, i) {
  const start = bars[0].from;
  const end = bars[bars.length - 1].to;
  const at = i >= bars.length ? end : bars[i].from;
  return ((at - start) / (end - start)) * 100;
}

/**
 * @param {Parts} p
 * @param {number} x of the pointer
 */
function barAt(p, x) {
  const r = p.field.getBoundingClientRect();
  const start = p.bars[0].from;
  const t = start + ((x - r.left) / r.width) * (p.bars[p.bars.length - 1].to - start);
  const i = p.bars.findIndex((b) => t < b.to);
  return i < 0 ? p.bars.length - 1 : i;
}

/**
 * @param {Parts} p
 * @param {number} low
 * @param {number} high
 */
function showTip(p, low, high) {
  p.tip.textContent = tell(p.bars, low, high, p.hist.dataset.clock ?? "");
  p.tip.hidden = false;
  const middle = ((share(p.bars, low) + share(p.bars, high)) / 200) * p.field.clientWidth;
  p.tip.style.left = `${Math.max(0, Math.min(middle - p.tip.offsetWidth / 2, p.field.clientWidth - p.tip.offsetWidth))}px`;
}

function draw() {
  const p = parts();
  if (!p || p.bars.length === 0) return;
  const on = brush.low >= 0 && brush.high <= p.bars.length;
  p.chosen.hidden = !on;
  p.over.classList.toggle("on", on);
  const low = on ? brush.low : 0;
  const high = on ? brush.high : p.bars.length;
  p.chosen.style.left = `${share(p.bars, low)}%`;
  p.chosen.style.width = `${share(p.bars, high) - share(p.bars, low)}%`;
  const clock = p.hist.dataset.clock ?? "";
  [low, high].forEach((at, i) => {
    const g = p.grips[i];
    g.style.left = `${share(p.bars, at)}%`;
    g.setAttribute("aria-valuemin", String(i === 0 ? 0 : low + 1));
    g.setAttribute("aria-valuemax", String(i === 0 ? high - 1 : p.bars.length));
    g.setAttribute("aria-valuenow", String(at));
    g.setAttribute("aria-valuetext", tell(p.bars, low, high, clock));
  });
  if (on) showTip(p, low, high);
}

function clear() {
  brush.low = brush.high = brush.drag = -1;
  brush.moved = false;
  const p = parts();
  if (p) p.tip.hidden = true;
  draw();
}

/** @param {Parts} p */
function zoom(p) {
  const low = brush.low;
  const high = brush.high;
  if (low < 0) return;
  location.assign(zoomed(p.hist.dataset.hist ?? "", p.bars[low].from, p.bars[high - 1].to));
}

/** Says whether a range is being chosen: the page then stays as it is. */
export function brushing() {
  return brush.low >= 0 || brush.drag >= 0;
}

/** Runs over content that is new. */
export function enhanceHistogram() {
  const hist = document.querySelector("[data-hist]");
  const field = /** @type {HTMLElement | null} */ (hist?.querySelector(".ground") ?? null);
  for (const el of document.querySelectorAll(".ticks text[data-at]")) {
    const text = write(new Date(Number(/** @type {SVGElement} */ (el).dataset.at)), /** @type {HTMLElement} */ (hist)?.dataset.clock ?? "", new Date());
    if (el.textContent !== text) el.textContent = text;
  }
  if (!hist || !field) return;
  for (const t of hist.querySelectorAll(".bars title")) t.remove(); // the tip says it in the reader's zone
  const over = /** @type {HTMLElement} */ (field.querySelector(".brush"));
  over.hidden = false;
  over.title = "";
  field.setAttribute("aria-description", `Times are in ${zone(new Date())}`);
  draw();
}

/** @param {() => void} enhance */
export function startHistogram(enhance) {
  document.addEventListener("pointerdown", (e) => {
    const p = parts();
    if (!p || e.button !== 0 || !p.field.contains(/** @type {Node} */ (e.target)) || p.bars.length === 0) return;
    if (e.target instanceof HTMLElement && e.target.getAttribute("role") === "slider") {
      // A grip is dragged: the other end stays.
      const low = brush.low < 0 ? 0 : brush.low;
      const high = brush.low < 0 ? p.bars.length : brush.high;
      brush.drag = e.target === p.grips[0] ? high - 1 : low;
      brush.moved = true;
    } else {
      brush.drag = barAt(p, e.clientX);
      brush.moved = false;
    }
    brush.x = e.clientX;
  });
  document.addEventListener("pointermove", (e) => {
    const p = parts();
    if (!p || p.bars.length === 0) return;
    if (brush.drag >= 0) {
      const at = barAt(p, e.clientX);
      if (Math.abs(e.clientX - brush.x) > 4) brush.moved = true;
      if (!brush.moved) return;
      [brush.low, brush.high] = span(brush.drag, at, p.bars.length);
      draw();
    } else if (p.field.contains(/** @type {Node} */ (e.target)) && e.pointerType !== "touch") {
      const at = barAt(p, e.clientX);
      if (brush.low < 0) showTip(p, at, at + 1);
    } else if (brush.low < 0) p.tip.hidden = true;
  });
  document.addEventListener("pointerup", () => {
    if (brush.drag < 0) return;
    const p = parts();
    const moved = brush.moved && brush.low >= 0;
    brush.drag = -1;
    brush.moved = false;
    if (!moved || !p) return;
    // What was let go over a bar is a drag, not a click on its link.
    document.addEventListener("click", (c) => c.preventDefault(), { capture: true, once: true });
    setTimeout(() => zoom(p));
  });
  document.addEventListener("pointercancel", clear);
  document.addEventListener("dragstart", (e) => {
    if (e.target instanceof Element && e.target.closest("[data-hist]")) e.preventDefault();
  });
  document.addEventListener("focusout", (e) => {
    if (e.target instanceof Element && e.target.closest(".brush") && !(e.relatedTarget instanceof Element && e.relatedTarget.closest(".brush"))) clear();
  });
  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape" && brush.drag >= 0) {
      clear();
      return;
    }
    if (!(e.target instanceof HTMLElement) || e.target.getAttribute("role") !== "slider" || e.ctrlKey || e.metaKey || e.altKey) return;
    const p = parts();
    if (!p || p.bars.length === 0) return;
    const which = p.grips.indexOf(e.target);
    if (which < 0) return;
    const count = p.bars.length;
    let [low, high] = brush.low < 0 ? [0, count] : [brush.low, brush.high];
    /** @type {Record<string, number>} */
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -count, End: count };
    if (e.key in steps) {
      if (which === 0) low = Math.min(high - 1, Math.max(0, low + steps[e.key]));
      else high = Math.max(low + 1, Math.min(count, high + steps[e.key]));
      brush.low = low;
      brush.high = high;
      draw();
    } else if (e.key === "Enter" || e.key === " ") zoom(p);
    else if (e.key === "Escape") clear();
    else return;
    e.preventDefault();
    e.stopPropagation();
  });

  // A histogram that costs more than a glance is fetched behind the page, and
  // again once a minute where the range moves on.
  let fetched = 0;
  let busy = false;
  async function load() {
    const el = document.getElementById("histogram");
    const url = el?.dataset.load;
    if (!el || !url || busy || document.hidden || brushing()) return;
    if ("waits" in el.dataset ? Date.now() - fetched < 10_000 : !("moving" in el.dataset) || Date.now() - fetched < 60_000) return;
    busy = true;
    fetched = Date.now();
    const wait = el.querySelector(".waiting");
    if (wait) wait.textContent = "Counting…";
    try {
      await htmx.ajax("GET", url, { target: "#histogram", swap: "outerHTML" });
    } catch {
      // tried again
    } finally {
      busy = false;
    }
    const still = document.querySelector("#histogram .waiting");
    if (still) still.textContent = "Could not be counted. It is tried again.";
    else enhance();
  }
  void load();
  setInterval(load, 2000);
}
