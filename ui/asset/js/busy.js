// A search may take seconds: whoever started one is told that it runs.
export function startBusy() {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const busy = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      document.body.classList.add("busy");
      const said = document.getElementById("said");
      if (said) said.textContent = "Searching";
      for (const el of document.querySelectorAll("[data-next] .words")) el.textContent = "Searching…";
    }, 300);
  };
  document.addEventListener("click", (e) => {
    const next = e.target instanceof Element && e.target.closest("a[data-next]");
    if (next && !e.ctrlKey && !e.metaKey && !e.shiftKey && !e.defaultPrevented) busy();
  });
  document.addEventListener("submit", (e) => {
    if (e.target instanceof HTMLFormElement && e.target.getAttribute("role") === "search" && !e.defaultPrevented) busy();
  });
  // Back brings the page as it was left.
  window.addEventListener("pageshow", (e) => {
    if (!e.persisted) return;
    clearTimeout(timer);
    document.body.classList.remove("busy");
    for (const el of document.querySelectorAll("[data-next] .words")) el.textContent = "Continue";
  });
}
