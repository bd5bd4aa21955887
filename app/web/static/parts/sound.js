// A sound with its waveform: drawn from the outline that the server made, played by an audio element.

import WaveSurfer from "../vendor/wavesurfer.esm.js";
import { clock } from "./times.js";

export const WAVE_HEIGHT = 64; // the page's policy allows the style that wavesurfer writes for this height
const STEP_S = 5;
const playing = new Set();

function colours() {
  const style = getComputedStyle(document.documentElement);
  const probe = document.createElement("span");
  document.body.append(probe);
  const resolve = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const found = style && { waveColor: resolve("--wave"), progressColor: resolve("--accent"), cursorColor: resolve("--ink") };
  probe.remove();
  return found;
}

/** Of audiowaveform's JSON: pairs of least and most, in 8 or 16 bits, as one row of peaks a channel. */
export function peaksOf(outline) {
  const most = 2 ** (outline.bits - 1);
  const channels = outline.channels ?? 1;
  return Array.from({ length: channels }, (_, channel) => {
    const row = new Float32Array(outline.length * 2);
    for (let at = 0; at < outline.length; at += 1) {
      const place = 2 * (at * channels + channel);
      row[2 * at] = outline.data[place] / most;
      row[2 * at + 1] = outline.data[place + 1] / most;
    }
    return row;
  });
}

/** Bring one `[data-sound]` to life. @returns {() => void} Ends it. */
export function mountSound(root) {
  const media = root.querySelector("audio");
  const button = root.querySelector("[data-toggle]");
  const face = root.querySelector("[data-wave]");
  const shown = root.querySelector("[data-clock]");
  const duration = Number(root.dataset.duration);
  let wave = null;

  const show = () => {
    shown.textContent = `${clock(media.currentTime)} / ${clock(duration)}`;
    face.setAttribute("aria-valuenow", media.currentTime.toFixed(1));
    face.setAttribute("aria-valuetext", `${clock(media.currentTime)} of ${clock(duration)}`);
  };
  const press = (isPlaying) => button.setAttribute("aria-pressed", String(isPlaying));
  media.addEventListener("timeupdate", show);
  media.addEventListener("play", () => {
    // One at a time.
    for (const other of playing) if (other !== media) other.pause();
    playing.add(media);
    press(true);
  });
  for (const end of ["pause", "ended"]) media.addEventListener(end, () => { playing.delete(media); press(false); });
  button.addEventListener("click", () => (media.paused ? media.play().catch(() => press(false)) : media.pause()));
  face.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: media.currentTime - STEP_S, ArrowRight: media.currentTime + STEP_S, Home: 0, End: duration }[event.key];
    if (event.key === " " || event.key === "Enter") button.click();
    else if (to !== undefined) media.currentTime = Math.min(duration, Math.max(0, to));
    else return;
    event.preventDefault();
  });
  show();

  const repaint = () => wave?.setOptions(colours());
  document.addEventListener("themechange", repaint);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", repaint);
  fetch(`/v1/assets/${root.dataset.asset}/peaks`, { credentials: "same-origin" })
    .then((reply) => (reply.ok ? reply.json() : Promise.reject(new Error(`HTTP ${reply.status}`))))
    .then((outline) => {
      wave = WaveSurfer.create({
        container: face, height: WAVE_HEIGHT, media, peaks: peaksOf(outline), duration,
        barWidth: 2, barGap: 1, barRadius: 2, normalize: true, cursorWidth: 2, dragToSeek: true, ...colours(),
      });
    })
    // Without its outline it is played all the same.
    .catch(() => { face.hidden = true; });
  return () => {
    document.removeEventListener("themechange", repaint);
    scheme.removeEventListener("change", repaint);
    media.pause();
    wave?.destroy();
  };
}
