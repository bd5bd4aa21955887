// Voices: made of a recording that is sent first, renamed, deleted; what is refused is told figure by figure.

import { Problem } from "../client.js";
import { live, words } from "../shell.js";
import { clearRefusal, showRefusal } from "../parts/ask.js";
import { fetchPage, remember, replaceParts, say } from "../parts/page.js";
import { followButton } from "../parts/player.js";
import { Missing, Uploader } from "../parts/uploader.js";

remember();

async function refresh() {
  try {
    replaceParts(await fetchPage(location.pathname + location.search));
    followButton();
  } catch {
    say("The list is not up to date: load the page again.");
  }
}

// -- making

const form = document.getElementById("voice-form");
const refusal = form?.querySelector("[data-refusal]");

/** Each figure that was measured and what is needed, as the problem tells them one after the other. */
function refuse(problem) {
  const [whole, reasons] = problem.message.split(/: (.*)/s);
  const list = document.createElement("ul");
  for (const reason of (reasons ?? whole).split("; ")) list.append(Object.assign(document.createElement("li"), { textContent: reason }));
  const title = Object.assign(document.createElement("strong"), { textContent: "This recording cannot be a voice" });
  const code = Object.assign(document.createElement("a"), { href: `/docs/errors#${problem.code}`, textContent: problem.code });
  const last = Object.assign(document.createElement("p"), { className: "help", textContent: "No voice was made. Choose another recording; " });
  last.append(code, " says more.");
  refusal.replaceChildren(title, list, last);
  refusal.hidden = false;
}

if (form) {
  const uploader = new Uploader(form.querySelector("[data-uploader]"));
  const button = form.querySelector("[type=submit]"), verb = button.querySelector("[data-verb]");
  const told = verb.textContent;
  form.querySelector("[data-file]").addEventListener("change", () => { refusal.hidden = true; });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    clearRefusal(form);
    refusal.hidden = true;
    button.disabled = true;
    try {
      verb.textContent = "Waiting for the file";
      const upload_id = await uploader.wanted();
      verb.textContent = "Being measured";
      const voice = await live.send("POST", "/v1/voices", { name: form.elements.name.value, upload_id });
      uploader.clear();
      form.reset();
      await refresh();
      say(voice.duplicates.length ? `${voice.name} is there. Another voice sounds the same.` : `${voice.name} is there.`);
      document.getElementById(voice.id)?.scrollIntoView({ block: "nearest" });
    } catch (failure) {
      if (failure instanceof Problem && failure.code === "voice_unfit") {
        refuse(failure);
        uploader.clear();
      } else if (failure.name !== "AbortError") {
        showRefusal(form, failure, failure instanceof Missing ? failure.message : words(failure));
      }
    } finally {
      button.disabled = false;
      verb.textContent = told;
    }
  });
}

// -- renaming and deleting, each in a dialog of its own

function dialog(id, begin, act) {
  const box = document.getElementById(id), inside = box.querySelector("form");
  const wrong = box.querySelector("[data-wrong]");
  let voice = null;
  box.querySelector("[data-close]").addEventListener("click", () => box.close());
  inside.addEventListener("submit", async (event) => {
    event.preventDefault();
    wrong.hidden = true;
    try {
      await act(voice, inside);
      box.close();
      await refresh();
    } catch (failure) {
      wrong.textContent = words(failure);
      wrong.hidden = false;
    }
  });
  return (chosen) => {
    voice = chosen;
    wrong.hidden = true;
    begin(voice, inside);
    box.showModal();
  };
}

const rename = dialog(
  "renaming",
  ({ name }, inside) => { inside.elements.name.value = name; },
  async ({ id }, inside) => {
    const { name } = await live.send("PATCH", `/v1/voices/${id}`, { name: inside.elements.name.value });
    say(`It is called ${name} now.`);
  },
);
const remove = dialog(
  "deleting",
  ({ name }) => { document.getElementById("deleting-title").textContent = `Delete ${name}?`; },
  async ({ id, name }) => {
    await live.send("DELETE", `/v1/voices/${id}`);
    say(`${name} was deleted.`);
  },
);

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-rename], [data-delete]");
  if (!button) return;
  const { name } = button.dataset;
  if (button.dataset.rename) rename({ id: button.dataset.rename, name });
  else remove({ id: button.dataset.delete, name });
});
