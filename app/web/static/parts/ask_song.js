// The form that says what is to be done with a song: its file, its settings, and then a job of a page of its own.

import { live, words } from "../shell.js";
import { clearRefusal, inputOf, showRefusal } from "./ask.js";
import { Missing, Uploader } from "./uploader.js";
import { fillVoices } from "./voices.js";

const VERBS = { voice_conversion: "Convert", stem_separation: "Separate" };
const MOST_TITLE = 200;

function choose(form) {
  const kind = form.elements.kind.value;
  form.querySelector("[data-settings]").hidden = kind !== form.dataset.converting;
  form.querySelector("[data-parts]").hidden = kind !== form.dataset.parting;
  // What is hidden need not be filled in.
  for (const control of form.querySelectorAll("[data-settings] [name]")) control.disabled = kind !== form.dataset.converting;
  form.querySelector("[data-verb]").textContent = VERBS[kind];
}

/** What was asked for before, in the controls. */
function preset(form, given) {
  for (const [name, value] of Object.entries(given)) {
    const control = form.querySelector(`[data-settings] [name="${CSS.escape(name)}"]`);
    if (control?.type === "checkbox") control.checked = value;
    else if (control && !("voices" in control.dataset)) control.value = value;
  }
}

function showValues(form) {
  for (const range of form.querySelectorAll("input[type=range]")) {
    form.querySelector(`output[for="${range.id}"]`).textContent = range.value;
  }
}

/** Bring it to life; `chosen` is the voice to begin with. */
export function mountSongForm(form, chosen = null) {
  const uploader = new Uploader(form.querySelector("[data-uploader]"));
  const button = form.querySelector("[type=submit]"), verb = button.querySelector("[data-verb]");
  const given = JSON.parse(form.dataset.preset);
  preset(form, given);
  fillVoices(form.querySelector("[data-voices]"), chosen ?? given.voice_id);
  // Made in another window meanwhile.
  document.addEventListener("visibilitychange", () => {
    const picker = form.querySelector("[data-voices]");
    if (document.hidden || picker.length > 1) return;
    picker.dataset.voices = "";
    fillVoices(picker);
  });
  choose(form);
  showValues(form);
  form.addEventListener("input", () => showValues(form));
  form.addEventListener("change", (event) => { if ("choice" in event.target.dataset) choose(form); });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    clearRefusal(form);
    button.disabled = true;
    try {
      // Asked for while the file is on its way: it is waited for.
      verb.textContent = "Waiting for the file";
      const audio = await uploader.wanted();
      const kind = form.elements.kind.value;
      const input = kind === form.dataset.parting ? { audio } : { ...await inputOf(form), audio };
      const metadata = { title: uploader.name.slice(0, MOST_TITLE) };
      const job = await live.send("POST", "/v1/jobs", { kind, input, metadata });
      uploader.clear();
      location.assign(`/songs/${job.id}`);
    } catch (failure) {
      if (failure.name !== "AbortError") showRefusal(form, failure, failure instanceof Missing ? failure.message : words(failure));
    } finally {
      button.disabled = false;
      choose(form);
    }
  });
}
