// Times in the reader's zone. The server writes UTC; the exact value stays in
// the title.

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

/**
 * @param {Date} t
 * @param {string} kind second, milli, minute, day, date or ago
 * @param {Date} now
 */
export function write(t, kind, now) {
  const clock = `${two(t.getHours())}:${two(t.getMinutes())}`;
  switch (kind) {
    case "ago":
      return ago(now.getTime() - t.getTime());
    case "minute":
      return clock;
    case "day":
      return `${t.getDate()} ${months[t.getMonth()]} ${clock}:${two(t.getSeconds())}`;
    case "date":
      return `${t.getDate()} ${months[t.getMonth()]}`;
    case "milli":
      return `${clock}:${two(t.getSeconds())}.${String(t.getMilliseconds()).padStart(3, "0")}`;
    default:
      return `${clock}:${two(t.getSeconds())}`;
  }
}

/**
 * The reader's zone as short as the browser knows it: CET, GMT+2.
 * @param {Date} t
 */
export function zone(t) {
  return new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" }).formatToParts(t).find((p) => p.type === "timeZoneName")?.value ?? "";
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
