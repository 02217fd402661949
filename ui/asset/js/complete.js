// The filter box: completion at the cursor, the filter in plain English, coloured
// parts and the place of a mistake. An ARIA combobox; arrows move, Tab takes,
// Enter takes what was moved to and searches otherwise, Escape closes. Without
// script it is a text field in a form.
import { marked, taken, tokens } from "./filtertext.js";

/**
 * @typedef {{text: string, label: string, kind: string, doc?: string, sample?: string}} Item
 * @typedef {{start: number, end: number, items: Item[], reads?: string, partial?: boolean,
 *   error?: {start: number, end: number, message: string, suggestion?: string, fixed?: string}}} Answer
 */

const wait = 70; // ms after a key before the server is asked

export function startComplete() {
  const found = /** @type {HTMLInputElement | null} */ (document.querySelector("input[data-complete]"));
  const form = found?.form;
  if (!found || !form) return;
  const input = found;
  input.removeAttribute("list");
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-autocomplete", "list");
  input.setAttribute("aria-expanded", "false");
  input.setAttribute("aria-controls", "filter-list");

  const pop = document.createElement("div");
  pop.className = "pop";
  pop.hidden = true;
  const list = document.createElement("ul");
  list.id = "filter-list";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Completions");
  const why = document.createElement("div");
  why.className = "why";
  why.id = "filter-why";
  input.setAttribute("aria-describedby", "filter-why");
  pop.append(list, why);
  const mirror = document.createElement("div");
  mirror.className = "mirror";
  mirror.setAttribute("aria-hidden", "true");
  form.append(mirror, pop);
  form.classList.add("mirrored");
  const said = document.getElementById("said");

  /** @type {Answer | null} */
  let answer = null;
  let asked = ""; // the text that answer is about
  let first = false; // take the first item of the next answer
  let at = -1; // the item that Tab takes
  let moved = false; // the reader moved to it
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** @type {AbortController | null} */
  let asking = null;
  let wrong = { start: Number(input.dataset.wrongFrom ?? -1), end: Number(input.dataset.wrongTo ?? -1) };

  function paint() {
    mirror.replaceChildren(
      ...marked(tokens(input.value), wrong.start, wrong.end).map((t) => {
        const el = document.createElement("span");
        el.className = `${t.kind}${t.wrong ? " wrong" : ""}`;
        el.textContent = t.text;
        return el;
      }),
    );
    place();
  }
  // The mirror lies under the field's own text and scrolls with it.
  function place() {
    mirror.style.left = `${input.offsetLeft}px`;
    mirror.style.width = `${input.clientWidth}px`;
    mirror.scrollLeft = input.scrollLeft;
  }

  function close() {
    pop.hidden = true;
    at = -1;
    moved = first = false;
    clearTimeout(timer);
    asking?.abort();
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  /** @param {number} i */
  function choose(i) {
    at = i;
    [...list.children].forEach((el, n) => el.setAttribute("aria-selected", String(n === i)));
    if (i >= 0 && moved) {
      input.setAttribute("aria-activedescendant", `filter-item-${i}`);
      list.children[i].scrollIntoView({ block: "nearest" });
    } else input.removeAttribute("aria-activedescendant");
  }

  /** @param {number} i */
  function take(i) {
    if (asked !== input.value) {
      // Keys were faster than the answer: what it offers is out of date.
      first = true;
      ask(0);
      return;
    }
    const item = answer?.items[i];
    if (!answer || !item) return;
    const out = taken(input.value, answer, item);
    input.value = out.text;
    input.setSelectionRange(out.cursor, out.cursor);
    input.focus();
    wrong = { start: -1, end: -1 };
    paint();
    close();
    ask(0);
  }

  /** @param {Answer} a */
  function show(a) {
    // A later answer to the same question must not take away what was moved to.
    const kept = moved ? answer?.items[at]?.text : undefined;
    const again = kept === undefined ? -1 : a.items.findIndex((i) => i.text === kept);
    answer = a;
    list.replaceChildren(
      ...a.items.map((item, i) => {
        const el = document.createElement("li");
        el.id = `filter-item-${i}`;
        el.setAttribute("role", "option");
        el.className = item.kind;
        const name = document.createElement("span");
        name.className = "mono cut";
        name.textContent = item.label;
        const doc = document.createElement("span");
        doc.className = "cut mid";
        doc.textContent = item.doc ?? "";
        const sample = document.createElement("span");
        sample.className = "sample dim small cut";
        sample.textContent = item.sample ?? "";
        el.append(name, doc, sample);
        el.addEventListener("mousedown", (e) => {
          e.preventDefault(); // the field keeps the focus
          take(i);
        });
        return el;
      }),
    );
    explain(a);
    moved = again >= 0;
    pop.hidden = a.items.length === 0 && !why.textContent;
    input.setAttribute("aria-expanded", String(!pop.hidden && a.items.length > 0));
    choose(again >= 0 ? again : a.items.length > 0 ? 0 : -1);
    if (said && a.items.length > 0 && again < 0) said.textContent = `${a.items.length} ${a.items.length === 1 ? "completion" : "completions"}, ${a.items[0].label} first`;
    paint();
  }

  /** @param {Answer} a */
  function explain(a) {
    why.replaceChildren();
    wrong = { start: -1, end: -1 };
    const line = document.createElement("span");
    if (a.error) {
      // Where the cursor stands the reader is still writing.
      const here = input.selectionStart ?? 0;
      const unfinished = a.error.end >= here && a.error.start <= here;
      line.className = unfinished ? "mid" : "bad";
      line.textContent = unfinished ? `Not finished: ${a.error.message}. ` : `${a.error.message.charAt(0).toUpperCase()}${a.error.message.slice(1)}. `;
      if (!unfinished) wrong = { start: a.error.start, end: a.error.end };
      if (a.error.fixed) {
        const fixed = a.error.fixed;
        const fix = document.createElement("button");
        fix.type = "button";
        fix.className = "linklike";
        fix.textContent = `Did you mean ${a.error.suggestion}?`;
        fix.addEventListener("mousedown", (e) => {
          e.preventDefault();
          input.value = fixed;
          wrong = { start: -1, end: -1 };
          paint();
          ask(0);
        });
        line.append(fix);
      }
    } else if (a.reads) line.textContent = `Reads: ${a.reads}. `;
    else if (a.items.length === 0) return;
    why.append(line);
    const keys = document.createElement("span");
    keys.className = "p2";
    for (const [key, does] of a.items.length > 0 ? [["Tab", "take"], ["Enter", "search"]] : [["Enter", "search"]]) {
      const k = document.createElement("kbd");
      k.textContent = key;
      keys.append(k, ` ${does} `);
    }
    why.append(keys);
  }

  /** @param {number} delay */
  function ask(delay) {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      asking?.abort();
      const mine = new AbortController();
      asking = mine;
      const text = input.value;
      const url = new URL(input.dataset.complete ?? "", location.href);
      url.searchParams.set("q", text);
      url.searchParams.set("cursor", String(input.selectionStart ?? input.value.length));
      try {
        const res = await fetch(url, { signal: mine.signal });
        if (!res.ok) throw new Error(String(res.status));
        const a = /** @type {Answer} */ (await res.json());
        if (mine.signal.aborted || document.activeElement !== input) return;
        asked = text;
        show(a);
        if (first && input.value === text) {
          first = false;
          take(0);
        } else if (a.partial) ask(400); // the store is slower than the reader
      } catch {
        if (!mine.signal.aborted) close(); // the field works without
      }
    }, delay);
  }

  input.addEventListener("input", () => {
    moved = first = false;
    wrong = { start: -1, end: -1 };
    paint();
    ask(wait);
  });
  for (const event of ["scroll", "keyup", "click", "select"]) input.addEventListener(event, place);
  new ResizeObserver(place).observe(input);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (e) => {
    if (e.isComposing || e.ctrlKey || e.metaKey) return;
    const open = !pop.hidden;
    const count = answer?.items.length ?? 0;
    switch (e.key) {
      case "ArrowDown":
      case "ArrowUp":
        if (!open) ask(0);
        else if (count > 0) {
          const step = e.key === "ArrowDown" ? 1 : -1;
          const from = moved ? at : step > 0 ? -1 : count;
          moved = true;
          choose((from + step + count) % count);
        }
        break;
      case "Tab":
        if (!open || e.shiftKey || at < 0) return;
        take(at);
        break;
      case "Enter":
        if (!open || !moved || at < 0) {
          close();
          return;
        }
        take(at);
        break;
      case "Escape":
        if (!open) return;
        close();
        break;
      default:
        return;
    }
    e.preventDefault();
  });
  paint();
  if (wrong.start >= 0 && document.activeElement === document.body) {
    input.focus({ preventScroll: true });
    input.setSelectionRange(wrong.start, wrong.end);
  }
}
