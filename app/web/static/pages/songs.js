// The list of songs as it moves, and the form that sends one.

import { live } from "../shell.js";
import { fetchPage, gently, remember, replaceParts } from "../parts/page.js";
import { followButton } from "../parts/player.js";
import { mountSongForm } from "../parts/ask_song.js";

const REFRESH_MS = 700;

remember();

const refresh = gently(async () => {
  replaceParts(await fetchPage("/songs"));
  followButton();
}, REFRESH_MS);

live.on("job", (job) => {
  const row = document.getElementById(`row-${job.job_id}`);
  const bar = row?.querySelector("[data-progress]");
  if (bar && job.status === "processing" && job.progress !== null) {
    bar.value = job.progress;
    if (job.stage) row.querySelector("[data-stage]").textContent = job.stage;
    return;
  }
  // A new one may be a song; parts of a song's work are no songs, and are told of by it.
  if (row || job.type === "job_created") refresh();
});
live.on("reset", refresh);
live.on("state", ({ state }) => { if (state === "online" || state === "polling") refresh(); });
document.addEventListener("jobschange", refresh);

const form = document.getElementById("song-form");
if (form) mountSongForm(form, new URLSearchParams(location.search).get("voice"));
