// The two stems of a song on one clock, kept where the performance is; and this player's own word about it.

import { Mixer } from "./mixer.js";

const LOOK_MS = 200;
const REPORT_MS = 1_000;
const OFF_S = 0.12; // further off than this is heard as an echo between two rooms
const LAST_S = 0.25; // so close to the end nothing is begun any more

export class Duet {
  /** @param {import("./stage.js").Stage} stage @param {(failure: Error) => void} onFailure */
  constructor(stage, onFailure) {
    this._stage = stage;
    this._onFailure = onFailure;
    this._mixer = null;
    this._tracks = {};
    this._isStarting = false;
    this._reportedAt = 0;
    setInterval(() => this._look(), LOOK_MS);
  }

  get isLoaded() {
    return this._mixer !== null;
  }

  /** Where what is heard is, in seconds. */
  get position() {
    return this._mixer?.position ?? 0;
  }

  /** Take another song: links to its stems, null for one that it has not. Rejects where it cannot be had. */
  async load({ vocals, instrumental }) {
    this.unload();
    this._tracks = { vocals, instrumental };
    const mixer = new Mixer([vocals, instrumental].filter(Boolean));
    await mixer.load();
    if (this._tracks.vocals !== vocals || this._tracks.instrumental !== instrumental) return; // another one meanwhile
    mixer.onend = () => this._report(true);
    this._mixer = mixer;
    this._look();
  }

  unload() {
    if (this._mixer?.isPlaying) this._mixer.pause();
    this._mixer = null;
  }

  _look() {
    const { state } = this._stage, mixer = this._mixer;
    if (!mixer || !state || this._isStarting) return;
    const { vocals, instrumental } = this._tracks;
    if (vocals) mixer.level(vocals, state.vocal_volume);
    if (instrumental) mixer.level(instrumental, state.instrumental_volume);
    const to = this._stage.position;
    if (!state.is_playing) {
      if (mixer.isPlaying) mixer.pause();
      return;
    }
    if (mixer.isPlaying) {
      if (Math.abs(mixer.position - to) > OFF_S) mixer.seek(to);
    } else if (to < mixer.duration - LAST_S) {
      this._start(mixer, to);
      return;
    }
    this._report(to >= mixer.duration);
  }

  async _start(mixer, to) {
    this._isStarting = true;
    try {
      mixer.seek(to);
      await mixer.play();
      // Paused, or another song, while the browser made up its mind.
      if (mixer !== this._mixer || !this._stage.state.is_playing) mixer.pause();
    } catch (failure) {
      this._onFailure(failure);
    } finally {
      this._isStarting = false;
    }
  }

  _report(ended) {
    const now = performance.now();
    if (!ended && now - this._reportedAt < REPORT_MS) return;
    this._reportedAt = now;
    const { duration } = this._mixer;
    this._stage.report({
      is_playing: !ended, ended, duration, current_time: ended ? duration : this._mixer.position,
    });
  }
}
