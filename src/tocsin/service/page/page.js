// The page: which part is shown, what is said of success and failure, and calls to the server.
import { startDatasets } from "./datasets.js";
import { startPatches } from "./patches.js";
import { startScores } from "./scores.js";
import { say } from "./parts.js";

const PARTS = { datasets: startDatasets(), patches: startPatches(), scores: startScores() };

function show() {
  const name = location.hash.slice(1) in PARTS ? location.hash.slice(1) : "datasets";
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  say("");
  PARTS[name].show();
}

function startTheme() {
  const root = document.documentElement;
  const stored = localStorage.getItem("theme");
  if (stored) root.dataset.theme = stored;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = getComputedStyle(root).colorScheme === "dark";
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
  });
}

startTheme();
window.addEventListener("hashchange", show);
show();
