// Deliveries: opened to the bytes that came, and sent through the inbox again.

import { live, words } from "../shell.js";
import { say } from "./page.js";

const MOST_SHOWN = 20_000;

/** The bytes as text: JSON laid out, anything else as it is, what is no text as its length. */
export function readable(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return `${bytes.length} bytes that are no text`;
  }
  try {
    text = JSON.stringify(JSON.parse(text), null, 2);
  } catch { /* as it came */ }
  return text.length > MOST_SHOWN ? `${text.slice(0, MOST_SHOWN)}\n… ${text.length - MOST_SHOWN} characters more` : text;
}

function block(title, text) {
  const heading = Object.assign(document.createElement("h3"), { textContent: title });
  const body = Object.assign(document.createElement("pre"), { textContent: text, tabIndex: 0 });
  body.setAttribute("aria-label", title);
  return [heading, body];
}

async function open(details) {
  const place = details.querySelector("[data-raw]");
  try {
    const delivery = await live.get(`/v1/deliveries/${details.dataset.delivery}`);
    const headers = Object.entries(delivery.headers).map(([name, value]) => `${name}: ${value}`).join("\n");
    const link = Object.assign(document.createElement("a"), {
      className: "button small", href: `/v1/deliveries/${delivery.id}/body`, textContent: `All ${delivery.size_bytes} bytes`,
    });
    place.replaceChildren(...block("Headers", headers || "none"), ...block("Body", readable(delivery.body_base64) || "empty"), link);
  } catch (failure) {
    place.textContent = words(failure);
  }
}

/** @param {() => void} replayed Called once one was sent again. */
export function watchDeliveries(replayed) {
  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.("details[data-delivery][open]")) open(event.target);
  }, true);
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-replay]");
    if (!button) return;
    button.disabled = true;
    try {
      await live.send("POST", `/v1/deliveries/${button.dataset.replay}/replay`);
      say("Sent through the inbox again.");
      replayed();
    } catch (failure) {
      say(words(failure));
      button.disabled = false;
    }
  });
}
