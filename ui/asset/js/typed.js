// A dialog that wants a channel's name typed says how much of it is missing,
// and keeps its button off until the name is there. Without script the server
// says it.

/**
 * What is still to be typed, in words; empty when the name is there.
 * @param {string} want
 * @param {string} typed
 * @returns {string}
 */
export function missing(want, typed) {
  const name = [...want];
  const so = [...typed.trim()];
  if (so.join("") === want.trim()) return "";
  let same = 0;
  while (same < so.length && same < name.length && so[same] === name[same]) same++;
  if (same < so.length) return `It differs from the ${ordinal(same + 1)} character on.`;
  const left = name.length - same;
  if (same === 0) return "";
  return left === 1 ? "One character to go." : `${left} characters to go.`;
}

/**
 * @param {number} n
 * @returns {string}
 */
function ordinal(n) {
  const last = n % 100 > 10 && n % 100 < 14 ? 0 : n % 10;
  return `${n}${["th", "st", "nd", "rd"][last] ?? "th"}`;
}

export function startTyped() {
  const field = /** @type {HTMLInputElement | null} */ (document.querySelector("[data-typed]"));
  const button = /** @type {HTMLButtonElement | null} */ (document.querySelector("[data-order]"));
  if (!field || !button) return;
  const left = document.querySelector("[data-typed-left]");
  const want = field.dataset.typed ?? "";
  const look = () => {
    const text = missing(want, field.value);
    if (left) left.textContent = text;
    const there = field.value.trim() === want.trim();
    // Not the disabled attribute: whoever reaches the button hears why.
    button.setAttribute("aria-disabled", there ? "false" : "true");
    button.title = there ? "" : `Type ${want} first`;
  };
  field.addEventListener("input", look);
  button.addEventListener("click", (e) => {
    if (field.value.trim() === want.trim()) return;
    e.preventDefault();
    field.focus();
    if (left) left.textContent = missing(want, field.value) || `Type ${want} first.`;
  });
  look();
}
