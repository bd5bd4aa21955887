// Making performances and lyrics; each opens its own page once it is there.

import { live, words } from "../shell.js";
import { clearRefusal, showRefusal } from "../parts/ask.js";
import { givenBy } from "../parts/karaoke_form.js";

function mount(id, path, page) {
  const form = document.getElementById(id);
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    clearRefusal(form);
    const button = form.querySelector("[type=submit]");
    button.disabled = true;
    try {
      const made = await live.send("POST", path, givenBy(form));
      location.assign(`${page}/${made.id}`);
    } catch (failure) {
      showRefusal(form, failure, words(failure));
      button.disabled = false;
    }
  });
}

mount("performance-form", "/v1/performances", "/performances");
mount("lyrics-form", "/v1/lyrics", "/lyrics");
