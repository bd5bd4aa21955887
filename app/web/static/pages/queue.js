// The queue as it moves: progress as it is told, everything else by fetching the list again.

import { live, words } from "../shell.js";
import { clearRefusal, inputOf, showRefusal } from "../parts/ask.js";
import { fetchPage, gently, say } from "../parts/page.js";
import { followButton, toggle } from "../parts/player.js";
import { showTimes } from "../parts/times.js";
import { uploadFile } from "../parts/upload.js";
import { fillVoices } from "../parts/voices.js";

const LIST_MS = 700;
const stale = new Set();
const filters = document.getElementById("filters");
const html = new WeakMap();
for (const row of document.querySelectorAll(".job")) html.set(row, row.outerHTML);

// -- the list

const refresh = gently(async () => {
  const asked = new URLSearchParams(location.search);
  const isFirst = !asked.has("cursor");
  asked.set("part", "list");
  const moved = [...stale];
  stale.clear();
  if (isFirst) merge((await fetchPage(`/?${asked}`)).getElementById("list"));
  // Of later pages, the rows that moved.
  const shown = new Set([...document.querySelectorAll(".job")].slice(isFirst ? 50 : 0).map((row) => row.id));
  for (const id of moved.filter((each) => shown.has(each))) {
    const fresh = (await fetchPage(`/jobs/${id}/row`)).querySelector(".job");
    if (fresh) place(document.getElementById(id), fresh);
  }
  tally();
}, LIST_MS);

/** Our list as the fresh one is: rows by id, so that what is the same stays, with its focus. */
function merge(fresh) {
  const mine = document.getElementById("jobs"), theirs = fresh.querySelector("#jobs");
  if (!mine || !theirs) {
    document.getElementById("list").replaceChildren(...[...fresh.childNodes].map((each) => document.importNode(each, true)));
    for (const row of document.querySelectorAll(".job")) html.set(row, row.outerHTML);
    showTimes();
    return;
  }
  const wanted = [...theirs.children], ids = new Set(wanted.map((row) => row.id));
  const older = [...mine.children].slice(wanted.length).filter((row) => !ids.has(row.id));
  const isWhole = !fresh.querySelector("#more");
  for (const row of [...mine.children]) if (!ids.has(row.id) && (isWhole || !older.includes(row))) row.remove();
  let before = mine.firstElementChild;
  for (const row of wanted) {
    const old = document.getElementById(row.id);
    if (old) {
      const now = place(old, row);
      if (now !== before) mine.insertBefore(now, before);
      else before = before.nextElementSibling;
    } else {
      const made = document.importNode(row, true);
      html.set(made, row.outerHTML);
      made.classList.add("fresh");
      mine.insertBefore(made, before);
    }
  }
  showTimes(mine);
  followButton();
}

/** One row in place of the other, unless the server says the same of it. */
function place(old, fresh) {
  // Links are signed anew each time: they are no news.
  const said = (text) => text.replace(/expires=\d+&amp;signature=\w+/g, "");
  if (said(html.get(old) ?? "") === said(fresh.outerHTML)) return old;
  const made = document.importNode(fresh, true);
  html.set(made, fresh.outerHTML);
  const held = old.contains(document.activeElement) ? document.activeElement.className : null;
  old.replaceWith(made);
  showTimes(made);
  followButton();
  if (held !== null) (made.querySelector(`.${held.split(" ")[0] || "title"}`) ?? made.querySelector(".title")).focus();
  return made;
}

function tally() {
  const states = [...document.querySelectorAll(".job")].map((row) => row.dataset.state);
  const alive = states.filter((state) => ["queued", "running", "finishing"].includes(state)).length;
  document.getElementById("tally").textContent = states.length ? `${alive ? `${alive} at work, ` : ""}${states.length} shown` : "";
}

live.on("job", (job) => {
  stale.add(job.job_id);
  const row = document.getElementById(job.job_id);
  if (row && job.status === "processing" && job.progress !== null) {
    const bar = row.querySelector("[data-progress]");
    if (bar) {
      bar.value = job.progress;
      if (job.stage) row.querySelector("[data-stage]").textContent = job.stage;
      return;
    }
  }
  refresh();
});
live.on("reset", refresh);
live.on("state", ({ state }) => { if (state === "online" || state === "polling") refresh(); });
document.addEventListener("jobschange", refresh);
tally();

// -- more, below

document.getElementById("list").addEventListener("click", async (event) => {
  const more = event.target.closest("#more");
  if (!more || event.metaKey || event.ctrlKey) return;
  event.preventDefault();
  const address = new URL(more.href);
  address.searchParams.set("part", "list");
  try {
    const fresh = (await fetchPage(address)).getElementById("list");
    const rows = [...fresh.querySelectorAll(".job")].filter((row) => !document.getElementById(row.id));
    for (const row of rows) {
      const made = document.importNode(row, true);
      html.set(made, row.outerHTML);
      document.getElementById("jobs").append(made);
    }
    more.closest(".more").replaceWith(...[fresh.querySelector(".more")].filter(Boolean));
    document.getElementById(rows[0]?.id)?.querySelector(".title").focus();
    showTimes();
    tally();
  } catch {
    say("The service does not answer.");
  }
});

filters.addEventListener("change", () => filters.requestSubmit());
// Without what is not narrowed the address is short.
filters.addEventListener("formdata", (event) => {
  for (const [name, value] of [...event.formData]) if (!value) event.formData.delete(name);
});

// -- asking

const panel = document.getElementById("ask");
const forms = panel ? [...panel.querySelectorAll("form[data-kind]")] : [];

function choose(kind) {
  for (const form of forms) {
    form.hidden = form.dataset.kind !== kind;
    const voices = form.hidden ? null : form.querySelector("[data-voices]");
    if (voices) fillVoices(voices);
  }
}

panel?.querySelector("[data-kinds]").addEventListener("change", (event) => choose(event.target.value));
if (panel) choose(panel.querySelector("[data-kinds]").value);

for (const form of forms) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("[type=submit]"), bar = form.querySelector("[data-upload]");
    clearRefusal(form);
    button.disabled = true;
    try {
      const input = await inputOf(form, async (file) => {
        bar.hidden = false;
        return uploadFile(file, (share) => { bar.value = share; });
      });
      const file = form.querySelector("input[type=file]")?.files[0];
      await ask({ kind: form.dataset.kind, input, ...(file ? { metadata: { title: file.name } } : {}) });
    } catch (failure) {
      showRefusal(form, failure, words(failure));
    } finally {
      button.disabled = false;
      bar.hidden = true;
    }
  });
}

async function ask(wanted) {
  const job = await live.send("POST", "/v1/jobs", wanted);
  say(`Asked for: ${job.kind.replaceAll("_", " ")}.`);
  refresh();
}

document.addEventListener("click", async (event) => {
  const starter = event.target.closest("[data-starter]");
  if (!starter) return;
  starter.disabled = true;
  await ask(JSON.parse(starter.dataset.starter)).catch((failure) => { say(words(failure)); starter.disabled = false; });
});

// -- the keyboard

const titles = () => [...document.querySelectorAll(".job .title")];
const KEYS = {
  "/": () => filters.elements.q.focus(),
  n: () => forms.find((form) => !form.hidden)?.querySelector("[name]").focus(),
  j: () => step(1),
  k: () => step(-1),
  p: () => {
    const button = document.activeElement.closest(".job")?.querySelector("[data-play]");
    if (button) toggle(button);
  },
};

function step(by) {
  const all = titles(), at = all.indexOf(document.activeElement.closest(".job")?.querySelector(".title"));
  all[Math.min(all.length - 1, Math.max(0, at + by))]?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  const act = KEYS[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});
