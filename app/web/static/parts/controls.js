// What turns a performance: play, position, volumes. The same on the stage and on a phone.

import { clock } from "./times.js";

const OFTEN_MS = 120; // a slider that is moved says so, but not more often

/**
 * Bring the controls below `root` to life: `[data-turn]`, `[data-seek]`, `[data-clock]`, and each
 * `[data-control]` with the name of what it turns. What stands there is what the service said last; while a
 * slider is held it stays in the hand.
 * @param {ParentNode} root @param {import("./stage.js").Stage} stage @param {(failure: Error) => void} onFailure
 */
export function mountControls(root, stage, onFailure) {
  const button = root.querySelector("[data-turn]"), seek = root.querySelector("[data-seek]");
  const shown = root.querySelector("[data-clock]");
  const turns = [...root.querySelectorAll("[data-control]")];
  const held = new Set();
  const send = (event, body) => stage.command(event, body).catch((failure) => { onFailure(failure); show(); });

  function show() {
    const { state } = stage;
    const canTurn = state !== null && stage.link === "online";
    for (const each of [button, ...turns]) each.disabled = !canTurn;
    if (!state) return;
    button.disabled = !canTurn || !state.song;
    button.setAttribute("aria-pressed", String(state.is_playing));
    button.setAttribute("aria-label", state.is_playing ? "Pause" : "Play");
    seek.disabled = !canTurn || !state.duration;
    seek.max = state.duration || 1;
    for (const each of turns) if (!held.has(each)) put(each, state[each.dataset.control]);
    tick();
  }

  function put(control, value) {
    control.value = value;
    const said = control.closest(".field")?.querySelector("output");
    if (said) said.textContent = `${Math.round(control.value * 100)} %`;
  }

  function tick() {
    const { state } = stage;
    if (!state) return;
    if (!held.has(seek)) seek.value = stage.position;
    const at = held.has(seek) ? Number(seek.value) : stage.position;
    const words = `${clock(at)} / ${clock(state.duration)}`;
    if (shown.textContent !== words) {
      shown.textContent = words;
      seek.setAttribute("aria-valuetext", `${clock(at)} of ${clock(state.duration)}`);
    }
  }

  button.addEventListener("click", () => send(stage.state.is_playing ? "playback_pause" : "playback_play"));
  seek.addEventListener("input", () => { held.add(seek); tick(); });
  seek.addEventListener("change", async () => {
    await send("playback_seek", { current_time: Number(seek.value) });
    held.delete(seek);
    tick();
  });
  for (const control of turns) {
    const { control: name } = control.dataset;
    const valueOf = () => (control.localName === "select" ? control.value : Number(control.value));
    let timer = null;
    const say = () => { timer = null; return send("update_performance_control", { [name]: valueOf() }); };
    control.addEventListener("input", () => {
      held.add(control);
      put(control, control.value);
      if (control.type === "range") timer ??= setTimeout(say, OFTEN_MS);
    });
    control.addEventListener("change", async () => {
      clearTimeout(timer);
      if (control.value !== "") await say();
      held.delete(control);
      show();
    });
  }
  stage.on("state", show).on("link", show);
  setInterval(tick, 100);
  show();
}

const WORDS = {
  connecting: "connecting", online: "in the room", reconnecting: "reconnecting",
  refused: "not let in", deleted: "the performance is over",
};

/** Say in `sign` how the line to the performance is. */
export function mountLink(sign, stage) {
  const show = () => {
    sign.dataset.state = stage.link;
    sign.lastElementChild.textContent = WORDS[stage.link];
  };
  stage.on("link", show);
  show();
}
