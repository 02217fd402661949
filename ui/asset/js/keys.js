// The keyboard. Keys never act while a field has focus, and no single key
// starts a command.

let place = ""; // address of the row the reader is at

/** @returns {HTMLElement[]} */
function rows() {
  const rows = document.querySelectorAll("[data-rows] tbody tr:has([data-open]), [data-tap-rows]:not([hidden]) .taprow, .line > li:has([data-open])");
  return /** @type {HTMLElement[]} */ ([...rows]).filter((r) => r.offsetParent !== null);
}

/**
 * @param {HTMLElement} row
 * @returns {HTMLAnchorElement | null}
 */
function link(row) {
  if (row instanceof HTMLAnchorElement) return row;
  return row.querySelector("a[data-open]");
}

/** @param {number} step */
function move(step) {
  const all = rows();
  if (all.length === 0) return;
  let at = all.findIndex((r) => r.classList.contains("at"));
  at = at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + step));
  for (const r of all) r.classList.remove("at");
  all[at].classList.add("at");
  place = link(all[at])?.href ?? "";
  link(all[at])?.focus({ preventScroll: true });
  all[at].scrollIntoView({ block: "nearest" });
}

/** Marks the row again after its content was replaced. */
export function keepPlace() {
  if (!place) return;
  for (const r of rows()) r.classList.toggle("at", link(r)?.href === place);
}

/** Marks no row any more. */
export function leavePlace() {
  place = "";
  for (const r of rows()) r.classList.remove("at");
}

/**
 * @param {EventTarget | null} el
 * @returns {boolean}
 */
export function isField(el) {
  return el instanceof HTMLElement && (el.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(el.tagName));
}

export function startKeys() {
  const dialog = /** @type {HTMLDialogElement | null} */ (document.getElementById("keys"));
  for (const b of document.querySelectorAll("[data-keys-open]")) {
    b.addEventListener("click", (e) => {
      if (!dialog) return;
      e.preventDefault(); // the link is for who has no script
      dialog.showModal();
    });
  }
  let going = 0;
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented) return;
    if (isField(e.target)) {
      if (e.key === "Escape") /** @type {HTMLElement} */ (e.target).blur();
      return;
    }
    if (dialog?.open) return;
    if (going && Date.now() - going < 1500) {
      going = 0;
      const to = /** @type {HTMLAnchorElement | null} */ (document.querySelector(`.rail [data-go="${CSS.escape(e.key)}"]`));
      if (to) {
        e.preventDefault();
        location.href = to.href;
      }
      return;
    }
    switch (e.key) {
      case "/": {
        const filter = /** @type {HTMLInputElement | null} */ (document.getElementById("filter"));
        if (!filter) return;
        filter.focus();
        filter.select();
        break;
      }
      case "?":
        dialog?.showModal();
        break;
      case "j":
        move(1);
        break;
      case "k":
        move(-1);
        break;
      case "o": {
        const at = rows().find((r) => r.classList.contains("at"));
        const to = at && link(at);
        if (!to) return;
        window.open(to.href, "_blank", "noopener");
        break;
      }
      case "f": {
        const term = /** @type {HTMLElement | null} */ (document.querySelector("[data-rows] td[data-term]:hover") ?? document.querySelector("[data-rows] tr.at td.where[data-term]"))?.dataset.term;
        if (!term) return;
        const to = new URL(location.href);
        const now = to.searchParams.get("q") ?? "";
        if (!` ${now} `.includes(` ${term} `)) to.searchParams.set("q", now.includes(" OR ") ? `(${now}) ${term}` : `${now} ${term}`.trim());
        to.searchParams.delete("cursor");
        location.assign(to);
        break;
      }
      case "g":
        going = Date.now();
        return;
      case "Enter": {
        // A focused link or button keeps its own meaning.
        if (e.target !== document.body && e.target !== document.getElementById("main")) return;
        const at = rows().find((r) => r.classList.contains("at"));
        if (!at) return;
        link(at)?.click();
        break;
      }
      case " ":
        if (e.target instanceof HTMLButtonElement || (e.target instanceof HTMLElement && e.target.tagName === "SUMMARY")) return;
        if (!document.dispatchEvent(new CustomEvent("signalbox:pause", { cancelable: true }))) break;
        return;
      default:
        return;
    }
    e.preventDefault();
  });
}
