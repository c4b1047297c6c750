// Keeps the live part of the page fresh, and shows that a page is on its way.
"use strict";

(() => {
  const PERIOD_MS = 2000;
  const LIMIT_MS = 10000;
  const live = document.getElementById("live");
  const lost = document.getElementById("lost");

  const refresh = async () => {
    try {
      const answer = await fetch("/live", { signal: AbortSignal.timeout(LIMIT_MS), redirect: "manual" });
      if (answer.status === 401) {
        location.assign("/login");
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      live.innerHTML = await answer.text();
      lost.hidden = true;
      live.classList.remove("stale");
    } catch {
      lost.hidden = false;
      live.classList.add("stale");
    }
  };

  const loop = async () => {
    if (!document.hidden) await refresh();
    setTimeout(loop, PERIOD_MS);
  };

  if (live && lost) setTimeout(loop, PERIOD_MS);

  // A page that comes from the browser's memory must not show that it is loading.
  const loading = (on) => document.documentElement.classList.toggle("loading", on);
  addEventListener("pageshow", () => loading(false));
  addEventListener("submit", () => loading(true));
  addEventListener("click", (event) => {
    const link = event.target.closest("a[href]");
    const plain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
    if (link && plain && !link.hasAttribute("download") && link.origin === location.origin && !link.hash) loading(true);
  });
})();
