// The face of a mixer: a button, a place to seek, and chips that say what is heard; one alone, or any of them.

import { Mixer } from "./mixer.js";
import { say } from "./page.js";
import { clock } from "./times.js";

const faces = new Set();

// One sound at a time: whatever begins elsewhere ends what runs here.
document.addEventListener("play", () => { for (const face of faces) face.pause(); }, true);

/** Bring one `[data-mixer]` to life. @returns {() => void} Ends it. */
export function mountMixer(root) {
  const channels = [...root.querySelectorAll("[data-channel]")];
  const mixer = new Mixer(channels.map((each) => each.dataset.channel));
  const button = root.querySelector("[data-mix]"), shown = root.querySelector("[data-mix-clock]");
  const bar = root.querySelector("[data-mix-seek]");
  const show = () => {
    button.setAttribute("aria-pressed", String(mixer.isPlaying));
    shown.textContent = `${clock(mixer.position)} / ${clock(mixer.duration)}`;
    if (bar && mixer.duration) {
      bar.disabled = false;
      bar.max = mixer.duration;
      bar.value = mixer.position;
      bar.setAttribute("aria-valuetext", `${clock(mixer.position)} of ${clock(mixer.duration)}`);
    }
    if (mixer.isPlaying) requestAnimationFrame(show);
  };
  const hear = () => { for (const each of channels) mixer.level(each.dataset.channel, each.checked ? 1 : 0); };
  const face = { pause: () => { if (mixer.isPlaying) { mixer.pause(); show(); } } };
  const play = async () => {
    for (const other of faces) other.pause();
    for (const media of document.querySelectorAll("audio")) media.pause();
    await mixer.play().catch((failure) => say(failure.message));
  };
  faces.add(face);
  hear();
  mixer.onend = show;
  let isFetching = false;
  button.addEventListener("click", async () => {
    if (isFetching) return;
    isFetching = true;
    if (mixer.isPlaying) mixer.pause();
    else await play();
    isFetching = false;
    show();
  });
  bar?.addEventListener("input", () => { mixer.seek(Number(bar.value)); show(); });
  // Of those that are heard one at a time only the new one says that it is different.
  for (const channel of channels) channel.addEventListener("change", hear);
  return () => { face.pause(); faces.delete(face); };
}
