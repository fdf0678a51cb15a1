// Keeps the numbers and the latest passages of the dashboard fresh. Without it the page is whole,
// and "Reload" does the same.
"use strict";

const source = document.querySelector("[data-live]").dataset.live;
const status = document.querySelector("[data-live-status]");
const toggle = document.querySelector("[data-live-toggle]");
const reload = document.querySelector("[data-live-reload]");
const EVERY_MS = 5000;
// After a failure the server is asked less and less often, up to once a minute.
const LONGEST_MS = 60000;

let paused = false;
let timer;
let failures = 0;

function say(text) {
  // A screen reader reads the status when it changes, so it changes only when there is news.
  if (status.textContent !== text) status.textContent = text;
}

function plan() {
  clearTimeout(timer);
  if (paused || document.hidden) return;
  timer = setTimeout(refresh, Math.min(EVERY_MS * 2 ** failures, LONGEST_MS));
}

async function refresh() {
  try {
    const answer = await fetch(source, {
      headers: { "X-Refresh": "1" },
      redirect: "error",
      signal: AbortSignal.timeout(10000),
    });
    if (answer.status === 401 || answer.status === 403) {
      say("Your session has ended. Reload to log in again.");
      reload.hidden = false;
      toggle.hidden = true;
      return;
    }
    if (answer.status === 429 || answer.status === 503) {
      failures += 1;
      say("The service is busy; trying again");
      plan();
      return;
    }
    if (!answer.ok) throw new Error(String(answer.status));
    show(await answer.text());
    failures = 0;
    say("Updates by itself");
  } catch {
    failures += 1;
    say("No connection; trying again");
  }
  plan();
}

function show(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const part of document.querySelectorAll("[data-live-part]")) {
    // Whoever is at a link in there keeps it, and keeps a table that is open.
    if (part.contains(document.activeElement) || part.querySelector("details[open]")) continue;
    const next = fresh.getElementById(part.id);
    if (next && next.innerHTML !== part.innerHTML) part.replaceChildren(...next.childNodes);
  }
}

toggle.addEventListener("click", () => {
  paused = !paused;
  toggle.textContent = paused ? "Resume" : "Pause";
  say(paused ? "Paused" : "Updates by itself");
  if (paused) clearTimeout(timer);
  else refresh();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else if (!paused) refresh();
});

toggle.hidden = false;
reload.hidden = true;
say("Updates by itself");
plan();
