// One song: the page as it was served, each part fetched again when its job moves; what is heard stays.

import { live } from "../shell.js";
import { mountMixer } from "../parts/mixing.js";
import { fetchPage, gently, remember, replaceParts } from "../parts/page.js";
import { mountSongForm } from "../parts/ask_song.js";
import { mountSound } from "../parts/sound.js";

const REFRESH_MS = 500;
const HEARD = ["part-result", "part-original"];
const page = document.getElementById("song");
const mounted = new Map();

remember();

function mount(part) {
  for (const end of mounted.get(part.id) ?? []) end();
  mounted.set(part.id, [
    ...[...part.querySelectorAll("[data-sound]")].map(mountSound),
    ...[...part.querySelectorAll("[data-mixer]")].map(mountMixer),
  ]);
}

const assets = (part) => [...part.querySelectorAll("[data-asset]")].map((each) => each.dataset.asset).join();

const refresh = gently(async () => {
  const fresh = await fetchPage(location.pathname);
  // Links are signed anew at each look: a sound that is there stays, with what plays in it.
  for (const id of HEARD) {
    const theirs = fresh.getElementById(id);
    if (assets(document.getElementById(id)) === assets(theirs)) theirs.removeAttribute("data-part");
  }
  replaceParts(fresh, (part) => { if (HEARD.includes(part.id)) mount(part); });
  page.dataset.ended = fresh.getElementById("song").dataset.ended;
}, REFRESH_MS);

live.on("job", (job) => {
  if (job.job_id !== page.dataset.job) return;
  const bar = page.querySelector("#part-head [data-progress]"), stage = page.querySelector("#part-head [data-stage]");
  if (bar && job.progress !== null) bar.value = job.progress;
  if (stage && job.stage) stage.textContent = job.stage;
  refresh();
});
live.on("reset", refresh);
live.on("state", ({ state }) => { if (state === "online" || state === "polling") refresh(); });
document.addEventListener("jobschange", refresh);

for (const id of HEARD) mount(document.getElementById(id));
const form = document.getElementById("song-form");
if (form) mountSongForm(form);
