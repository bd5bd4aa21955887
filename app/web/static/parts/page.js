// What a page does to be up to date: fetch itself again, and put in place what is different.

import { showTimes } from "./times.js";

/** The page at an address, as it is now. Throws where it cannot be had. */
export async function fetchPage(address) {
  const reply = await fetch(address, { headers: { Accept: "text/html" }, credentials: "same-origin" });
  if (!reply.ok) throw new Error(`HTTP ${reply.status}`);
  return new DOMParser().parseFromString(await reply.text(), "text/html");
}

const served = new WeakMap();

/** Remember parts as the server made them: the page's own modules change them. Call it first. */
export function remember(root = document) {
  for (const part of root.querySelectorAll("[data-part]")) served.set(part, part.outerHTML);
}

/**
 * Put the parts of another page in place of ours, those that are different as the server made them.
 * @param {Document} fresh @param {(part: Element) => void} [placed] Called for each that was put in place.
 */
export function replaceParts(fresh, placed = () => {}) {
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const old = document.getElementById(part.id);
    const html = part.outerHTML;
    if (!old || served.get(old) === html) continue;
    const kept = keepPlace(old);
    const mine = document.importNode(part, true);
    old.replaceWith(mine);
    served.set(mine, html);
    showTimes(mine);
    kept(mine);
    placed(mine);
  }
}

/** Focus and opened details, to be found again in what replaces an element. */
function keepPlace(old) {
  const opened = [...old.querySelectorAll("details[open][data-delivery]")].map((each) => each.dataset.delivery);
  const held = old.contains(document.activeElement) ? document.activeElement : null;
  const path = held && (held.id ? `#${CSS.escape(held.id)}` : selectorOf(held));
  return (mine) => {
    for (const name of opened) mine.querySelector(`[data-delivery="${CSS.escape(name)}"]`)?.setAttribute("open", "");
    if (path) (mine.querySelector(path) ?? document.getElementById("main")).focus({ preventScroll: true });
  };
}

function selectorOf(element) {
  const data = Object.entries(element.dataset)[0];
  return data ? `[data-${data[0].replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}="${CSS.escape(data[1])}"]` : element.localName;
}

const AGAIN_MS = 5_000;

/** Run `act` soon, and no more often than every so many milliseconds; one run at a time, and again if it fails. */
export function gently(act, everyMs) {
  let timer = null, isRunning = false, isWanted = false, ranAt = -Infinity;
  const run = async () => {
    timer = null;
    if (isRunning) { isWanted = true; return; }
    isRunning = true;
    isWanted = false;
    ranAt = performance.now();
    try {
      await act();
    } catch {
      setTimeout(call, AGAIN_MS);
    } finally {
      isRunning = false;
    }
    if (isWanted) call();
  };
  const call = () => { timer ??= setTimeout(run, Math.max(0, everyMs - (performance.now() - ranAt))); };
  return call;
}

/** Say something at the bottom of the page for a few seconds; screen readers say it too. */
export function say(text) {
  const toast = Object.assign(document.createElement("div"), { className: "toast", textContent: text });
  document.getElementById("toasts").append(toast);
  setTimeout(() => toast.remove(), 6_000);
}
