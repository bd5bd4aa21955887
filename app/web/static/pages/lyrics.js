// Lyrics being corrected: what was changed is sent with the version that it was changed in.

import { Problem } from "../client.js";
import { live, words } from "../shell.js";
import { clearRefusal, showRefusal } from "../parts/ask.js";
import { say } from "../parts/page.js";

const { lyrics: id, version } = document.getElementById("lyrics").dataset;
const path = `/v1/lyrics/${id}`;
const ms = (input) => Math.round(Number(input.value) * 1000);

/** What was changed in the lines, as `PATCH /v1/lyrics/{id}` takes it. */
function fixes(form) {
  const found = [];
  for (const row of form.querySelectorAll("[data-line]")) {
    const [start, end, text, remove] = ["start", "end", "text", "remove"].map((name) => row.querySelector(`[name=${name}]`));
    const fix = { index: Number(row.dataset.line) };
    if (remove.checked) fix.remove = true;
    else {
      if (start.value !== start.defaultValue) fix.start_ms = ms(start);
      if (end.value !== end.defaultValue) fix.end_ms = ms(end);
      if (text.value !== text.defaultValue) fix.text = text.value;
    }
    if (Object.keys(fix).length > 1) found.push(fix);
  }
  return found;
}

let isDirty = false;

async function change(form, act) {
  if (form) clearRefusal(form);
  try {
    await act();
    isDirty = false;
    location.reload();
  } catch (failure) {
    const isStale = failure instanceof Problem && failure.code === "stale_version";
    const text = isStale ? "Somebody else has changed these lyrics meanwhile: load the page again." : words(failure);
    if (form) showRefusal(form, failure, text); else say(text);
  }
}

const lines = document.getElementById("lines-form");
lines.addEventListener("input", () => { isDirty = true; });
lines.addEventListener("reset", () => { isDirty = false; });
lines.addEventListener("submit", (event) => {
  event.preventDefault();
  const changed = fixes(lines);
  if (changed.length) change(lines, () => live.send("PATCH", path, { version: Number(version), lines: changed }));
  else say("Nothing was changed.");
});
window.addEventListener("beforeunload", (event) => { if (isDirty) event.preventDefault(); });

const shift = document.getElementById("shift-form");
shift?.addEventListener("submit", (event) => {
  event.preventDefault();
  change(shift, () => live.send("POST", `${path}/shift`, { version: Number(version), ms: Number(shift.elements.ms.value) }));
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-restore]");
  if (!button) return;
  change(null, () => live.send("POST", `${path}/restore`, { version: Number(version), number: Number(button.dataset.restore) }));
});
