// Copy buttons. They copy the original: the bytes of a body as they came, not
// the lines that the page made of them.

/** @param {string} text */
function say(text) {
  const said = document.getElementById("said");
  if (said) said.textContent = text;
}

/**
 * The bytes as text, or null where they are none: a clipboard holds text.
 * @param {ArrayBuffer} bytes
 * @returns {string | null}
 */
export function exactText(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** @param {string} url */
async function body(url) {
  const res = await fetch(url, { credentials: "same-origin" });
  if (!res.ok) throw new Error(`the console answered ${res.status}`);
  const text = exactText(await res.arrayBuffer());
  if (text === null) throw new Error("it is not text; download it instead");
  return text;
}

/**
 * @param {HTMLButtonElement} button
 * @param {string} word
 */
function flash(button, word) {
  const label = button.querySelector(".words");
  if (!label || button.dataset.was) return;
  button.dataset.was = label.textContent ?? "";
  label.textContent = word;
  setTimeout(() => {
    label.textContent = button.dataset.was ?? "";
    delete button.dataset.was;
  }, 1500);
}

/** @param {ParentNode} root */
export function enhanceCopy(root) {
  for (const el of root.querySelectorAll("button[data-copy-bytes]")) {
    const button = /** @type {HTMLButtonElement} */ (el);
    button.hidden = false;
    button.onclick = async () => {
      try {
        const text = body(button.dataset.copyBytes ?? "");
        // The promise is handed over, so that the click still counts as the
        // reader's own when the bytes arrive.
        await navigator.clipboard.write([new ClipboardItem({ "text/plain": text.then((t) => new Blob([t], { type: "text/plain" })) })]);
        flash(button, "Copied");
        say("Copied the original bytes");
      } catch (err) {
        const why = err instanceof Error ? err.message : "the browser did not allow it";
        flash(button, "Not copied");
        button.title = `Not copied: ${why}`;
        say(`Not copied: ${why}`);
      }
    };
  }
}

/**
 * Copy buttons of what is shown once.
 * @param {ParentNode} root
 */
export function enhanceCopyTexts(root) {
  for (const el of root.querySelectorAll("button[data-copy-text]")) {
    const button = /** @type {HTMLButtonElement} */ (el);
    button.hidden = false;
    button.onclick = async () => {
      const words = button.querySelector("span") ?? button;
      try {
        await navigator.clipboard.writeText(button.dataset.copyText ?? "");
        words.textContent = "Copied";
        setTimeout(() => (words.textContent = "Copy"), 2000);
        say("Copied");
      } catch {
        say("The browser did not allow copying; it can be selected instead");
      }
    };
  }
}

/**
 * Copy buttons of links: the whole address.
 * @param {ParentNode} root
 */
export function enhanceCopyLinks(root) {
  for (const el of root.querySelectorAll("button[data-copy-link]")) {
    const button = /** @type {HTMLButtonElement} */ (el);
    button.hidden = false;
    button.onclick = async () => {
      const said = document.getElementById("said");
      const words = button.querySelector("span") ?? button;
      const before = words.textContent;
      try {
        await navigator.clipboard.writeText(new URL(button.dataset.copyLink ?? "", location.href).href);
        words.textContent = "Copied";
        setTimeout(() => (words.textContent = before), 2000);
        if (said) said.textContent = "Link copied";
      } catch {
        if (said) said.textContent = "The browser did not allow copying; the link itself can be copied";
      }
    };
  }
}
