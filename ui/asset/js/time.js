// Times in the reader's zone: the one chosen in the settings, else the browser's.
// The server writes them too, once it knows the zone; the exact value stays in
// the title.

/** The zone chosen in the settings; empty: the browser's. */
export const chosenZone = typeof document === "undefined" ? "" : (document.documentElement.dataset.tz ?? "");

const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/**
 * @param {number} ms since the event
 * @returns {string}
 */
export function ago(ms) {
  const future = ms < -1500;
  const s = Math.round(Math.abs(ms) / 1000);
  let text;
  if (s < 60) text = `${s} s`;
  else if (s < 3600) text = `${Math.floor(s / 60)} min`;
  else if (s < 172800) text = `${Math.floor(s / 3600)} h`;
  else text = `${Math.floor(s / 86400)} days`;
  return future ? `in ${text}` : `${text} ago`;
}

/** @type {Map<string, Intl.DateTimeFormat>} */
const formats = new Map();

/**
 * What a clock on the wall of a zone shows.
 * @param {Date} t
 * @param {string} tz empty: the browser's
 */
export function wall(t, tz) {
  if (!tz) return { month: t.getMonth(), day: t.getDate(), h: t.getHours(), m: t.getMinutes(), s: t.getSeconds() };
  let f = formats.get(tz);
  if (!f) {
    f = new Intl.DateTimeFormat("en-GB", { timeZone: tz, hourCycle: "h23", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric" });
    formats.set(tz, f);
  }
  /** @type {Record<string, number>} */
  const p = {};
  for (const { type, value } of f.formatToParts(t)) p[type] = Number(value);
  return { month: p.month - 1, day: p.day, h: p.hour, m: p.minute, s: p.second };
}

/**
 * @param {Date} t
 * @param {string} kind second, milli, minute, day, date or ago
 * @param {Date} now
 * @param {string} tz
 */
export function write(t, kind, now, tz = chosenZone) {
  if (kind === "ago") return ago(now.getTime() - t.getTime());
  const w = wall(t, tz);
  const clock = `${two(w.h)}:${two(w.m)}`;
  switch (kind) {
    case "minute":
      return clock;
    case "day":
      return `${w.day} ${months[w.month]} ${clock}:${two(w.s)}`;
    case "date":
      return `${w.day} ${months[w.month]}`;
    case "milli":
      return `${clock}:${two(w.s)}.${String(t.getMilliseconds()).padStart(3, "0")}`;
    default:
      return `${clock}:${two(w.s)}`;
  }
}

/**
 * The reader's zone as short as the browser knows it: CET, GMT+2.
 * @param {Date} t
 */
export function zone(t) {
  return new Intl.DateTimeFormat("en-GB", { timeZoneName: "short", timeZone: chosenZone || undefined }).formatToParts(t).find((p) => p.type === "timeZoneName")?.value ?? "";
}

/** @param {ParentNode} root */
export function enhanceTimes(root) {
  const now = new Date();
  for (const el of root.querySelectorAll("[data-zone]")) {
    const text = zone(now);
    if (el.textContent !== text) el.textContent = text;
  }
  for (const el of root.querySelectorAll("time[data-time]")) {
    const time = /** @type {HTMLTimeElement} */ (el);
    const t = new Date(time.dateTime);
    if (Number.isNaN(t.getTime())) continue;
    const text = write(t, time.dataset.time ?? "", now);
    if (time.textContent !== text) time.textContent = text;
  }
}

/** Relative times grow older. */
export function tickTimes() {
  if (document.hidden) return;
  const now = new Date();
  for (const el of document.querySelectorAll('time[data-time="ago"]')) {
    const time = /** @type {HTMLTimeElement} */ (el);
    const text = write(new Date(time.dateTime), "ago", now);
    if (time.textContent !== text) time.textContent = text;
  }
}

/** Tells the server which zone this browser has, so that pages come in it. */
export function tellZone() {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone && !document.cookie.includes(`signalbox-browser-zone=${zone}`)) {
    document.cookie = `signalbox-browser-zone=${zone}; path=/; max-age=31536000; samesite=lax`;
  }
}
