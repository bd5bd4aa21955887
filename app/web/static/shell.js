// What every page has: the line to the service and its sign, light and dark, the verbs on jobs.

import { Problem, Reprise } from "./client.js";
import { keepTimes } from "./parts/times.js";
import { say } from "./parts/page.js";

const WORDS = {
  connecting: "connecting",
  online: "live",
  reconnecting: "reconnecting",
  polling: "polling",
  offline: "offline",
  refused: "signed out",
  stopped: "paused",
};
const BANNERS = {
  polling: "No WebSocket can be had: this page asks for news every two seconds instead.",
  offline: "The service does not answer. This page goes on trying, and will have missed nothing.",
  refused: "You are signed out. Load the page again to sign in.",
};

const { seq, signedIn } = document.body.dataset;

/** The line that all modules of a page share. */
export const live = new Reprise({
  after: seq ? Number(seq) : null,
  ...(signedIn === "true" ? {} : { token: async () => null }),
});

live.on("state", ({ state, waiting }) => {
  const sign = document.getElementById("link");
  sign.dataset.state = state;
  const words = WORDS[state] + (waiting && state !== "online" ? `, ${waiting} waiting` : "");
  document.getElementById("link-words").textContent = words;
  const banner = document.getElementById("banner");
  banner.hidden = !(state in BANNERS);
  banner.textContent = BANNERS[state] ?? "";
});
window.addEventListener("online", () => live.wake());
document.addEventListener("visibilitychange", () => { if (!document.hidden) live.wake(); });

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = getComputedStyle(root).colorScheme === "dark"
    || (root.dataset.theme === undefined && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = isDark ? "light" : "dark";
  try { localStorage.setItem("reprise-theme", root.dataset.theme); } catch { /* for this page, then */ }
  document.dispatchEvent(new Event("themechange"));
});

// Cancel and retry, wherever they stand.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-act]");
  if (!button) return;
  button.disabled = true;
  const { act, job } = button.dataset;
  try {
    const answer = await live.send("POST", `/v1/jobs/${job}/${act}`);
    if (act === "retry" && "follow" in button.dataset) location.assign(`${button.dataset.follow || "/jobs/"}${answer.id}`);
    say(act === "cancel" ? "Canceled." : "Asked for again.");
    document.dispatchEvent(new Event("jobschange"));
  } catch (failure) {
    say(failure.message);
    button.disabled = false;
  }
});

/** What went wrong, in words for whoever asked. */
export function words(failure) {
  return failure instanceof Problem ? failure.message : "The service does not answer.";
}

keepTimes();
// On a phone the tabs are wider than the page.
document.querySelector(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
if (!document.getElementById("sign-in")) live.start();
