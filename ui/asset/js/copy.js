// Copy buttons: the text of an element, as it stands.

/** @param {ParentNode} root */
export function enhanceCopy(root) {
  for (const el of root.querySelectorAll("button[data-copy]")) {
    const button = /** @type {HTMLButtonElement} */ (el);
    button.hidden = false;
    button.onclick = async () => {
      const target = document.querySelector(button.dataset.copy ?? "");
      if (!target) return;
      const lines = [...target.querySelectorAll(".l > span")].map((l) => l.textContent);
      const text = lines.length > 0 ? lines.join("\n") : (target.textContent ?? "");
      const said = document.getElementById("said");
      try {
        await navigator.clipboard.writeText(text);
        if (said) said.textContent = "Copied";
      } catch {
        if (said) said.textContent = "The browser did not allow copying";
        getSelection()?.selectAllChildren(target);
      }
    };
  }
}
