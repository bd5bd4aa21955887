// The picker of voices: a select that is filled with the caller's own, newest first.

import { live, words } from "../shell.js";

const PAGE = 200;

/** The caller's voices, all pages. Rejects with Problem, and with TypeError where there is no line. */
async function listVoices() {
  const found = [];
  let cursor = null;
  do {
    const page = await live.get(`/v1/voices?limit=${PAGE}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
    found.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor);
  return found;
}

function option(value, text) {
  return Object.assign(document.createElement("option"), { value, textContent: text });
}

/**
 * Fill a picker, once; what could not be read is read at the next call. Without any voice it says so, and
 * shows the way to make one (`[data-no-voice]` beside it).
 * @param {HTMLSelectElement} select @param {string|null} [chosen] The id of the voice to begin with.
 */
export async function fillVoices(select, chosen = null) {
  if (select.dataset.voices === "filled") return;
  select.dataset.voices = "filled";
  try {
    const voices = await listVoices();
    const about = ({ vocal_range: range }) => (range ? `, ${range.lowest.note} to ${range.highest.note}` : "");
    select.replaceChildren(
      option("", voices.length ? "Choose a voice" : "No voice yet"),
      ...voices.map((voice) => option(voice.id, voice.name + about(voice))),
    );
    if (chosen && voices.some((voice) => voice.id === chosen)) select.value = chosen;
    const hint = select.closest("[data-control]").querySelector("[data-no-voice]");
    if (hint) hint.hidden = voices.length > 0;
  } catch (failure) {
    select.dataset.voices = "";
    select.replaceChildren(option("", words(failure)));
  }
}
