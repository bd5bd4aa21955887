// The stage: words and sound of a performance on this screen, what turns it, and the line of singers.

import { live, words } from "../shell.js";
import { clearRefusal, showRefusal } from "../parts/ask.js";
import { mountControls, mountLink } from "../parts/controls.js";
import { Duet } from "../parts/duet.js";
import { givenBy } from "../parts/karaoke_form.js";
import { Lyrics } from "../parts/lyrics.js";
import { say } from "../parts/page.js";
import { showSingers, singerOf } from "../parts/singers.js";
import { Stage } from "../parts/stage.js";

const { performance: id } = document.getElementById("performance").dataset;
const path = `/v1/performances/${id}`;
const at = (name) => document.getElementById(name);
const trouble = (text) => { at("trouble").textContent = text; at("trouble").hidden = !text; };

const stage = new Stage({ id, token: () => live.socketToken() });
const duet = new Duet(stage, (failure) => trouble(`The sound cannot be played here: ${failure.message}`));
const lyrics = new Lyrics(at("lyrics"));
mountControls(document, stage, (failure) => say(failure.message));
mountLink(at("stage-link"), stage);

// -- the song: what is heard and read here

const name = (song) => (song ? [song.job_id, song.vocals, song.instrumental, song.lyrics_id].join(" ") : "");
let shown = null, isHeard = false;

stage.on("state", (state) => {
  document.querySelector("[data-title]").textContent = state.title;
  at("song-title").textContent = state.song?.title ?? "No song";
  at("lyrics").dataset.size = state.lyrics_size;
  if (name(state.song) === shown) return;
  shown = name(state.song);
  duet.unload();
  takeWords(state.song);
  if (isHeard) takeSound();
  offerSound();
});
stage.on("link", (link) => {
  if (link === "deleted") trouble("This performance was deleted.");
  if (link === "refused") trouble("You are signed out. Load the page again to sign in.");
  at("next")?.toggleAttribute("disabled", link !== "online");
});

async function takeWords(song) {
  const mine = shown;
  lyrics.fill([]);
  at("lyrics").hidden = !song?.lyrics_id;
  at("no-lyrics").hidden = !song || Boolean(song.lyrics_id);
  if (!song?.lyrics_id) return;
  try {
    const { lines } = await live.get(`/v1/lyrics/${song.lyrics_id}`);
    if (mine === shown) lyrics.fill(lines);
  } catch (failure) {
    say(`The lyrics: ${words(failure)}`);
  }
}

/** Fetch and decode the stems of the song as it is now; the links in an answer are good for a while only. */
async function takeSound() {
  const mine = shown;
  trouble("");
  at("join").disabled = true;
  try {
    const { song } = await live.get(path);
    if (song && mine === shown) await duet.load({ vocals: song.vocals?.url ?? null, instrumental: song.instrumental?.url ?? null });
  } catch (failure) {
    isHeard = false;
    trouble(`The sound cannot be had: ${failure.message}`);
  }
  at("join").disabled = false;
  offerSound();
}

function offerSound() {
  at("join").hidden = isHeard || !stage.state?.song;
  at("leave-sound").hidden = !isHeard;
}

// A browser plays nothing that nobody has asked for: this is the asking.
at("join").addEventListener("click", () => {
  isHeard = true;
  takeSound();
});
at("leave-sound").addEventListener("click", () => {
  isHeard = false;
  duet.unload();
  offerSound();
});

function frame() {
  // Words go with the sound where it is heard, else with the clock that all share.
  const position = isHeard && duet.isLoaded && stage.state?.is_playing ? duet.position : stage.position;
  lyrics.show(position * 1000 + (stage.state?.lyrics_offset ?? 0));
  requestAnimationFrame(frame);
}
requestAnimationFrame(frame);

// -- the line of singers

const ask = (act) => act.catch((failure) => say(words(failure)));

stage.on("queue", (queue) => {
  at("singer").textContent = singerOf(queue);
  at("singing").hidden = !queue.singing;
  at("singing").querySelector("[data-name]").textContent = queue.singing?.singer ?? "";
  at("singing").querySelector("[data-song]").textContent = queue.singing?.song.title ?? "";
  showSingers(queue, (row, entry, of) => {
    for (const button of row.querySelectorAll("[data-move]")) {
      const to = entry.position + Number(button.dataset.move);
      button.disabled = to < 1 || to > of;
      button.setAttribute("aria-label", `${entry.singer} ${to < entry.position ? "earlier" : "later"}`);
      button.addEventListener("click", () => ask(
        live.send("PATCH", `${path}/singers/${entry.id}`, { position: to, version: queue.version }),
      ));
    }
    const out = row.querySelector("[data-out]");
    out?.setAttribute("aria-label", `Take ${entry.singer} out of the line`);
    out?.addEventListener("click", () => ask(live.send("DELETE", `${path}/singers/${entry.id}`)));
  });
});
at("next")?.addEventListener("click", () => ask(
  live.send("POST", `${path}/singers/next`, stage.queue ? { version: stage.queue.version } : {}),
));

// -- forms

function mountForm(id, act) {
  const form = at(id);
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    clearRefusal(form);
    try {
      await act(givenBy(form), form);
    } catch (failure) {
      showRefusal(form, failure, words(failure));
    }
  });
}

mountForm("singer-form", async (given, form) => {
  const { singer } = await live.send("POST", `${path}/singers`, given);
  form.reset();
  say(`${singer} is in the line.`);
});
mountForm("change-form", async (given) => {
  await live.send("PATCH", path, given);
  say("Changed.");
});

at("invite")?.addEventListener("click", async () => {
  try {
    const made = await live.send("POST", `${path}/remote-tokens`);
    at("invitation").hidden = false;
    at("invitation").querySelector("[data-until]").textContent = new Date(made.expires_at).toLocaleTimeString();
    at("invitation-link").value = made.url;
    at("invitation-link").select();
  } catch (failure) {
    say(words(failure));
  }
});
at("copy")?.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(at("invitation-link").value);
    say("Copied.");
  } catch {
    at("invitation-link").select(); // where a page may not, its reader can
  }
});
at("delete")?.addEventListener("click", () => at("deleting").showModal());
at("deleting").addEventListener("close", async () => {
  if (at("deleting").returnValue !== "delete") return;
  try {
    await live.send("DELETE", path);
    location.assign("/performances");
  } catch (failure) {
    say(words(failure));
  }
});

stage.start();
