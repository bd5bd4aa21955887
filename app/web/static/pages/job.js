// One job: the page as it was served, each part fetched again when the job moves.

import { live, words } from "../shell.js";
import { watchDeliveries } from "../parts/deliveries.js";
import { playSeam } from "../parts/mixer.js";
import { mountMixer } from "../parts/mixing.js";
import { fetchPage, gently, remember, replaceParts, say } from "../parts/page.js";
import { mountSound } from "../parts/sound.js";

const REFRESH_MS = 500;
const page = document.getElementById("job");
const id = page.dataset.job;
let unmount = [];

remember();

const refresh = gently(async () => {
  const fresh = await fetchPage(location.pathname);
  // Links are signed anew at each look: a result that is there stays, with what plays in it.
  const ours = document.getElementById("part-outputs"), theirs = fresh.getElementById("part-outputs");
  const assets = (part) => [...part.querySelectorAll("[data-asset], [data-text]")].map((each) => each.dataset.asset ?? each.dataset.text.split("?")[0]).join();
  if (assets(ours) === assets(theirs)) theirs.removeAttribute("data-part");
  replaceParts(fresh, (part) => { if (part.id === "part-outputs") mount(part); });
  page.dataset.ended = fresh.getElementById("job").dataset.ended;
}, REFRESH_MS);

live.on("job", (job) => {
  if (job.job_id !== id) return;
  const bar = page.querySelector("[data-progress]");
  if (bar && job.progress !== null) bar.value = job.progress;
  const stage = page.querySelector("[data-stage]");
  if (stage && job.stage) stage.textContent = job.stage;
  refresh();
});
live.on("reset", refresh);
live.on("state", ({ state }) => { if (state === "online" || state === "polling") refresh(); });
document.addEventListener("jobschange", refresh);
watchDeliveries(refresh);

// -- the result

function mount(part) {
  for (const end of unmount) end();
  unmount = [...part.querySelectorAll("[data-sound]")].map(mountSound);
  for (const text of part.querySelectorAll("[data-text]")) showText(text);
  const mixer = part.querySelector("[data-mixer]");
  if (mixer) unmount.push(mountMixer(mixer));
}

async function showText(place) {
  const reply = await fetch(place.dataset.text, { credentials: "same-origin" });
  const text = await reply.text();
  try {
    place.textContent = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    place.textContent = text;
  }
}

let endSeam = null;
page.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-loop]");
  if (!button) return;
  if (endSeam) {
    endSeam();
    endSeam = null;
    button.setAttribute("aria-pressed", "false");
    return;
  }
  button.disabled = true;
  try {
    endSeam = await playSeam(button.closest("[data-sound]").dataset.url);
    button.setAttribute("aria-pressed", "true");
  } catch (failure) {
    say(failure.message);
  } finally {
    button.disabled = false;
  }
});

mount(document.getElementById("part-outputs"));

// -- run again

page.addEventListener("submit", async (event) => {
  const form = event.target.closest("[data-rerun]");
  if (!form) return;
  event.preventDefault();
  const wrong = form.querySelector("[data-wrong]"), text = form.querySelector("textarea").value.trim() || "{}";
  wrong.hidden = true;
  try {
    const made = await live.send("POST", `/v1/jobs/${id}/rerun`, { from: form.dataset.rerun, input: JSON.parse(text) });
    location.assign(`/jobs/${made.id}`);
  } catch (failure) {
    wrong.textContent = failure instanceof SyntaxError ? "This is no JSON." : words(failure);
    wrong.hidden = false;
  }
});
