// The text of a filter as the box shows it: coloured parts, the place of a
// mistake, and what putting in a completion makes of it. The server alone knows
// the language; this only knows what its parts look like.

/** @typedef {{text: string, kind: string}} Token */

const part = /("(?:[^"]|"")*"?|'(?:[^']|'')*'?)|\b(AND|OR|NOT|IN|BETWEEN|LIKE)\b|((?:header|body)\.(?:"(?:[^"]|"")*"|[\w$.[\]-]+)|[A-Za-z_$][\w$.-]*)(?=\s*(?::|=|!=|<|>|~|\s(?:IN|BETWEEN|LIKE|NOT)\b))|(\b\d[\w.]*\b)|([()=<>!~:,]+)|(\s+)|([^\s()=<>!~:,"']+)/g;
const kinds = ["", "str", "word", "name", "num", "sign", "", ""];

/**
 * @param {string} text
 * @returns {Token[]}
 */
export function tokens(text) {
  /** @type {Token[]} */
  const out = [];
  let at = 0;
  for (const m of text.matchAll(part)) {
    if (m.index > at) out.push({ text: text.slice(at, m.index), kind: "" });
    const i = m.slice(1).findIndex((g) => g !== undefined) + 1;
    out.push({ text: m[0], kind: kinds[i] ?? "" });
    at = m.index + m[0].length;
  }
  if (at < text.length) out.push({ text: text.slice(at), kind: "" });
  return out;
}

/**
 * Marks a stretch of the text as wrong. What is wrong at the very end is shown
 * behind it.
 * @param {Token[]} list
 * @param {number} start
 * @param {number} end
 * @returns {(Token & {wrong: boolean})[]}
 */
export function marked(list, start, end) {
  /** @type {(Token & {wrong: boolean})[]} */
  const out = [];
  let at = 0;
  for (const t of list) {
    const cuts = [0, start - at, end - at, t.text.length].map((c) => Math.min(Math.max(c, 0), t.text.length));
    for (let i = 0; i < 3; i++) {
      if (cuts[i + 1] > cuts[i]) out.push({ text: t.text.slice(cuts[i], cuts[i + 1]), kind: t.kind, wrong: i === 1 });
    }
    at += t.text.length;
  }
  if (start >= 0 && start >= at) out.push({ text: " ", kind: "", wrong: true });
  return out;
}

/**
 * Puts a completion in. A value is ended by a blank, unless it stands in a list.
 * @param {string} text
 * @param {{start: number, end: number}} place
 * @param {{text: string, kind: string}} item
 * @returns {{text: string, cursor: number}}
 */
export function taken(text, place, item) {
  const before = text.slice(0, place.start);
  let after = text.slice(place.end);
  let put = item.text;
  if (item.kind === "value" && depth(before) === 0 && !after.startsWith(" ")) put += " ";
  else if (put.endsWith(" ") && after.startsWith(" ")) after = after.slice(1);
  return { text: before + put + after, cursor: before.length + put.length };
}

/**
 * How many brackets are open at the end.
 * @param {string} text
 */
function depth(text) {
  let open = 0;
  for (const c of text.replace(/"(?:[^"]|"")*"?|'(?:[^']|'')*'?/g, "")) {
    if (c === "(") open++;
    else if (c === ")") open--;
  }
  return Math.max(0, open);
}
