// Sounds that run together on one clock, and the seam of a loop: decoded whole, played by the audio hardware.

const LONGEST_S = 1200; // decoded, a stereo minute takes 21 MB
const LEAD_S = 1.5; // heard before the seam

let context = null;

function ears() {
  context ??= new AudioContext();
  return context.resume().then(() => context);
}

async function decoded(url) {
  const reply = await fetch(url, { credentials: "same-origin" });
  if (!reply.ok) throw new Error(`HTTP ${reply.status}`);
  return (await ears()).decodeAudioData(await reply.arrayBuffer());
}

/** Play the end of a sound and its start again and again, sample on sample. @returns {Promise<() => void>} Ends it. */
export async function playSeam(url) {
  const buffer = await decoded(url);
  const source = context.createBufferSource();
  source.buffer = buffer;
  source.loop = true;
  source.connect(context.destination);
  source.start(0, Math.max(0, buffer.duration - LEAD_S));
  return () => source.stop();
}

/**
 * Several sounds as channels of one player. All run from one start on the context's clock; what is switched
 * off runs on at no volume, so that two of them are always at the same place.
 */
export class Mixer {
  /** @param {string[]} urls */
  constructor(urls) {
    this._urls = urls;
    this._buffers = null;
    this._sources = [];
    this._gains = new Map();
    this._levels = new Map(urls.map((url) => [url, 1]));
    this._begunAt = 0;
    this._offset = 0;
    this.isPlaying = false;
    this.onend = () => {};
  }

  get duration() {
    return Math.max(0, ...(this._buffers ?? []).map((buffer) => buffer.duration));
  }

  /** Seconds from the start, the same for every channel. */
  get position() {
    return this.isPlaying ? Math.min(this.duration, context.currentTime - this._begunAt) : this._offset;
  }

  /** Fetch and decode; `play` does it where nobody has. Rejects where a sound cannot be had. */
  async load() {
    this._buffers ??= await Promise.all(this._urls.map(decoded));
    if (this.duration > LONGEST_S) throw new Error(`longer than ${LONGEST_S / 60} minutes: too long for a browser`);
    await ears();
  }

  async play() {
    await this.load();
    if (this._offset >= this.duration) this._offset = 0;
    this._begin();
  }

  _begin() {
    // A moment ahead: every channel is ready then, and they begin at one sample.
    const at = context.currentTime + 0.05;
    this._sources = this._buffers.map((buffer, index) => {
      const source = context.createBufferSource(), gain = context.createGain();
      source.buffer = buffer;
      gain.gain.value = this._levels.get(this._urls[index]);
      source.connect(gain).connect(context.destination);
      source.start(at, this._offset);
      this._gains.set(this._urls[index], gain);
      return source;
    });
    this._begunAt = at - this._offset;
    this.isPlaying = true;
    const longest = this._sources[this._buffers.findIndex((buffer) => buffer.duration === this.duration)];
    longest.onended = () => { if (this.isPlaying) { this.pause(); this._offset = 0; this.onend(); } };
  }

  pause() {
    this._offset = this.position;
    this.isPlaying = false;
    for (const source of this._sources) { source.onended = null; source.stop(); }
    this._sources = [];
  }

  /** Go on from another place, playing or not. */
  seek(to) {
    const wasPlaying = this.isPlaying;
    if (wasPlaying) this.pause();
    this._offset = Math.min(this.duration, Math.max(0, to));
    if (wasPlaying) this._begin();
  }

  /** How loud a channel is, from 0 to 1; without a click. */
  level(url, value) {
    this._levels.set(url, value);
    this._gains.get(url)?.gain.setTargetAtTime(value, context.currentTime, 0.01);
  }
}
