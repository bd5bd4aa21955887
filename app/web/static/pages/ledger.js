// The ledger: dry runs and runs of recovering many, and the lists kept up to date.

import { live, words } from "../shell.js";
import { watchDeliveries } from "../parts/deliveries.js";
import { fetchPage, gently, remember, replaceParts, say } from "../parts/page.js";

const REFRESH_MS = 2_000;

remember();
const refresh = gently(async () => {
  replaceParts(await fetchPage(location.href));
  if (document.querySelector('[data-recovery][data-state="running"]')) refresh();
}, REFRESH_MS);
live.on("job", refresh);
live.on("reset", refresh);
watchDeliveries(refresh);
if (document.querySelector('[data-recovery][data-state="running"]')) refresh();

document.addEventListener("change", (event) => {
  if (event.target.form?.id === "filters") event.target.form.requestSubmit();
});
document.addEventListener("formdata", (event) => {
  for (const [name, value] of [...event.formData]) if (!value) event.formData.delete(name);
});

function plan(place, told) {
  const counts = Object.entries(told.counts).map(([effect, count]) => {
    const line = document.createElement("li");
    line.textContent = `${count} ${effect.replaceAll("_", " ")}`;
    return line;
  });
  const head = document.createElement("p");
  head.textContent = told.dry_run
    ? `It would look at ${told.total}. ${told.total ? "" : "There is nothing to do."}`
    : `Begun: ${told.total} to look at.`;
  const list = document.createElement("ul");
  list.append(...counts);
  place.replaceChildren(head, ...(counts.length ? [list] : []));
  if (told.dry_run && told.rerun_usd !== null) {
    place.append(Object.assign(document.createElement("p"), { textContent: `What has expired would cost $${told.rerun_usd} to make anew.` }));
  }
}

for (const form of document.querySelectorAll("[data-many]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const place = form.querySelector("[data-plan]"), dry = event.submitter?.value !== "go";
    const wanted = { since: new Date(Date.now() - Number(form.elements.hours.value) * 3_600_000).toISOString(), dry_run: dry };
    for (const name of ["kind", "source"]) if (form.elements[name]?.value) wanted[name] = form.elements[name].value;
    event.submitter.disabled = true;
    try {
      plan(place, await live.send("POST", form.dataset.many, wanted));
      if (!dry) refresh();
    } catch (failure) {
      place.textContent = words(failure);
    } finally {
      event.submitter.disabled = false;
    }
  });
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-abort]");
  if (!button) return;
  button.disabled = true;
  await live.send("POST", `/v1/recoveries/${button.dataset.abort}/abort`).catch((failure) => say(words(failure)));
  refresh();
});
