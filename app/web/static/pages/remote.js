// A phone beside the stage: it turns, and shows what stands. A guest's comes with a token behind `#`.

import { mountControls, mountLink } from "../parts/controls.js";
import { showSingers, singerOf } from "../parts/singers.js";
import { Stage } from "../parts/stage.js";

const REFUSED = {
  refused: "This link has ended, or was never good. Ask for another one.",
  deleted: "The performance is over.",
};
const at = (name) => document.getElementById(name);
const guest = new URLSearchParams(location.hash.slice(1)).get("token");
const isSignedIn = document.body.dataset.signedIn === "true";

/** Of whoever is signed in; in an open house none is needed. */
async function ownToken() {
  const reply = await fetch("/v1/socket-tokens", {
    method: "POST", credentials: "same-origin", headers: { "Content-Type": "application/json" }, body: "{}",
  });
  if (!reply.ok) throw Object.assign(new Error(`HTTP ${reply.status}`), { status: reply.status });
  return (await reply.json()).token;
}

const stage = new Stage({
  id: guest ? null : at("main").dataset.performance,
  token: async () => guest ?? (isSignedIn ? ownToken() : null),
});
const trouble = (text) => { at("trouble").textContent = text; at("trouble").hidden = !text; };
mountControls(document, stage, (failure) => trouble(failure.message));
mountLink(at("stage-link"), stage);

const skips = [...document.querySelectorAll("[data-skip]")];
const show = () => {
  if (stage.link in REFUSED || stage.link === "online") trouble(REFUSED[stage.link] ?? "");
  for (const each of skips) each.disabled = stage.link !== "online" || !stage.state?.duration;
  at("song-title").textContent = stage.state ? stage.state.song?.title ?? "No song" : "Remote";
};
stage.on("state", show).on("link", show).on("queue", (queue) => {
  at("singer").textContent = singerOf(queue);
  showSingers(queue);
});
for (const each of skips) {
  each.addEventListener("click", () => stage
    .command("playback_seek", { current_time: Math.max(0, stage.position + Number(each.dataset.skip)) })
    .catch((failure) => trouble(failure.message)));
}
show();
stage.start();
