// Numbers are replaced in place: the server renders the content again and htmx
// morphs it, so focus, selection and scroll position stay. Hidden tabs stop, a
// reader who points at a menu or types is not disturbed, and a console that does
// not answer is said so.
import htmx from "htmx.org";
import { brushing } from "./histogram.js";
import { isField } from "./keys.js";

// htmx may parse what our own server sent, and nothing may ever be compiled from
// text: the policy allows one named use of HTML and the constructors that would
// evaluate code are replaced by one that refuses.
class Refused {
  constructor() {
    throw new Error("code from text is refused");
  }
}
const types = /** @type {any} */ (globalThis).trustedTypes;
const policy = types?.createPolicy("signalbox", { createHTML: (/** @type {string} */ s) => s });
/** @type {any} */ (htmx).registerExtension("signalbox", {
  init: (/** @type {any} */ api) => {
    api.initSecurity({ createHTML: (/** @type {string} */ s) => (policy ? policy.createHTML(s) : s), createScript: () => "" }, Refused, Refused);
  },
});

/**
 * What the bar says.
 * @param {{paused: boolean, failed: number, age: number}} s age in seconds
 * @returns {{state: string, words: string}}
 */
export function tell({ paused, failed, age }) {
  if (paused) return { state: "paused", words: `Paused, ${age} s old` };
  if (failed >= 3) return { state: "lost", words: `No contact for ${age} s` };
  if (failed > 0) return { state: "late", words: `Late, ${age} s old` };
  return { state: "live", words: `Live, ${age} s old` };
}

/** @param {() => void} enhance */
export function startRefresh(enhance) {
  const found = /** @type {HTMLButtonElement | null} */ (document.getElementById("live"));
  if (!found || !document.getElementById("main")?.dataset.refresh) return;
  const button = found;
  const words = /** @type {HTMLElement} */ (button.querySelector(".words"));
  let paused = false;
  let failed = 0;
  let busy = false;
  let last = Date.now();
  const seconds = () => Number(document.getElementById("main")?.dataset.seconds) || 10;

  function show() {
    const t = tell({ paused, failed, age: Math.max(0, Math.round((Date.now() - last) / 1000)) });
    button.dataset.state = t.state;
    if (words.textContent !== t.words) words.textContent = t.words;
    button.title = paused ? "Go on (Space)" : "Pause (Space)";
    document.body.classList.toggle("stale", t.state === "lost");
  }

  async function refresh() {
    const main = document.getElementById("main");
    const url = main?.dataset.refresh;
    if (!main || !url || busy) return;
    busy = true;
    let ok = false;
    const done = () => (ok = true);
    document.addEventListener("htmx:after:swap", done, { once: true });
    try {
      await htmx.ajax("GET", url, { target: "#main", swap: "outerMorph" });
    } catch {
      // told by the bar below
    } finally {
      document.removeEventListener("htmx:after:swap", done);
      busy = false;
    }
    if (ok) {
      failed = 0;
      last = Date.now();
      enhance();
    } else failed++;
    show();
  }
  // An error page must not take the place of the last good numbers.
  document.addEventListener("htmx:before:swap", (e) => {
    const status = /** @type {CustomEvent} */ (e).detail?.ctx?.response?.status;
    if (status && status >= 400) e.preventDefault();
  });

  function due() {
    if (paused || document.hidden || isField(document.activeElement) || brushing()) return false;
    if (document.querySelector("details.menu[open], dialog[open]")) return false;
    if (!getSelection()?.isCollapsed) return false; // text is being copied
    return Date.now() - last >= seconds() * 1000 * Math.min(8, 1 + failed);
  }
  function toggle() {
    paused = !paused;
    show();
  }
  button.hidden = false;
  button.addEventListener("click", toggle);
  document.addEventListener("signalbox:pause", (e) => {
    e.preventDefault();
    toggle();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && due()) void refresh();
  });
  setInterval(() => {
    show();
    if (due()) void refresh();
  }, 1000);
  show();
}
