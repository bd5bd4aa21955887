// One sound at a time: the buttons that play from a list.

const audio = new Audio();
audio.preload = "none";
let held = null;

function show(button, isPlaying) {
  button?.setAttribute("aria-pressed", String(isPlaying));
}

audio.addEventListener("play", () => show(held, true));
for (const end of ["pause", "ended", "error"]) audio.addEventListener(end, () => show(held, false));

/** Play what a button stands for, or pause it. */
export function toggle(button) {
  // A link is signed anew each time a row is fetched: the asset is what stays the same.
  const same = held && held.dataset.play.split("?")[0] === button.dataset.play.split("?")[0];
  if (same && !audio.paused) {
    audio.pause();
    return;
  }
  show(held, false);
  held = button;
  if (!same) audio.src = button.dataset.play;
  audio.play().catch(() => show(button, false));
}

/** After rows were put in place: the button of what plays is a new one. */
export function followButton(root = document) {
  if (!held || held.isConnected) return;
  const asset = held.dataset.play.split("?")[0];
  const again = [...root.querySelectorAll("[data-play]")].find((each) => each.dataset.play.startsWith(asset));
  if (again) {
    held = again;
    show(held, !audio.paused);
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-play]");
  if (button) toggle(button);
});
