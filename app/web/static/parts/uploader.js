// The control that a file is sent by: chosen or dropped, on its way with pause and resume, ready to be named.

import { Problem } from "../client.js";
import { live, words } from "../shell.js";
import { seconds } from "./times.js";
import { Transfer } from "./upload.js";

const SAID = {
  waiting: "Beginning.",
  sending: "On its way. A cut connection is waited for; what has come is kept.",
  cut: "The connection is cut. It goes on by itself as soon as the service answers.",
  paused: "Paused. What has come is kept.",
  checking: "All of it has come. The service reads it to its end.",
  done: "Ready.",
};
const UNITS = ["B", "kB", "MB", "GB"];

/** Bytes as `words.py` puts them. */
export function size(bytes) {
  let amount = bytes, unit = 0;
  while (amount >= 1000 && unit < UNITS.length - 1) { amount /= 1000; unit += 1; }
  return unit ? `${amount.toFixed(1)} ${UNITS[unit]}` : `${amount} B`;
}

/** Bring one `[data-uploader]` to life. Its hidden control says the upload's id once there is one. */
export class Uploader {
  constructor(root) {
    this.root = root;
    this._part = (name) => root.querySelector(`[data-${name}]`);
    this._transfer = null;
    /** The file's name. */
    this.name = root.dataset.given ?? "";
    this._key = `reprise-upload${location.pathname}`;
    this._part("file").addEventListener("change", (event) => this._take(event.target.files[0]));
    this._part("pause").addEventListener("click", () => this._toggle());
    this._part("drop").addEventListener("click", () => this._forget());
    root.addEventListener("dragover", (event) => { event.preventDefault(); root.dataset.over = ""; });
    root.addEventListener("dragleave", () => delete root.dataset.over);
    root.addEventListener("drop", (event) => {
      event.preventDefault();
      delete root.dataset.over;
      this._take(event.dataTransfer.files[0]);
    });
    if (!this._part("id").value) this._recall();
  }

  /** The upload's id, once it is stored. Rejects where there is no file, or it is refused. @returns {Promise<string>} */
  async wanted() {
    const ready = this._part("id").value;
    if (ready) return ready;
    if (this._transfer) return this._transfer.done;
    this._part("file").setAttribute("aria-invalid", "true");
    this._part("file").focus();
    throw new Missing(this.root.dataset.missing);
  }

  /** As it was in the beginning; what was sent stays there. */
  clear() {
    this._remember(null);
    this._transfer = null;
    this.name = "";
    this._part("id").value = this._part("file").value = "";
    this._part("transfer").hidden = true;
    this._part("choose").hidden = false;
  }

  _take(file) {
    if (!file) return;
    this._transfer?.drop();
    this._refuse(null);
    const most = Number(this.root.dataset.mostBytes);
    if (file.size > most) {
      this.clear();
      this._refuse(`${file.name} has ${size(file.size)}: more than the ${size(most)} that a file may have here.`);
      return;
    }
    this.name = file.name;
    this._part("id").value = "";
    this._part("begun").hidden = true;
    const transfer = this._transfer = new Transfer(file, (moved) => this._show(moved));
    const mine = (act) => (told) => { if (transfer === this._transfer) act(told); };
    transfer.done.then(mine((id) => this._stored(id)), mine((failure) => this._failed(failure)));
    this._show(transfer);
    transfer.start();
  }

  _show(transfer) {
    if (transfer !== this._transfer || transfer.state === "failed" || transfer.state === "dropped") return;
    if (transfer.id) this._remember({ id: transfer.id, name: this.name });
    this._draw(transfer.state, transfer.share, size(transfer.file.size));
  }

  _draw(state, share, about) {
    // What is held by the keyboard is about to go: what stands in its place is held then.
    const isHeld = document.activeElement === this._part("file");
    this._part("choose").hidden = true;
    this._part("transfer").hidden = false;
    if (isHeld) this._part("drop").focus();
    this._part("transfer").dataset.state = state;
    this._part("name").textContent = this.name;
    this._part("about").textContent = about;
    this._part("share").textContent = state === "done" ? "" : `${Math.floor(100 * share)} %`;
    const bar = this._part("bar");
    bar.value = share;
    bar.hidden = state === "done";
    // A live region: told when it is another, not with each byte.
    if (this._part("said").textContent !== SAID[state]) this._part("said").textContent = SAID[state];
    const pause = this._part("pause");
    pause.hidden = !["sending", "cut", "paused"].includes(state);
    pause.querySelector("span").textContent = state === "paused" ? "Resume" : "Pause";
  }

  async _stored(id) {
    const transfer = this._transfer;
    this._part("id").value = id;
    const stored = await live.get(`/v1/uploads/${id}`).catch(() => null);
    if (stored && transfer === this._transfer) this._ready(stored);
  }

  _ready(stored) {
    this._draw("done", 1, `${seconds(stored.duration_s)}, ${size(stored.size_bytes)}`);
    const longest = Number(this.root.dataset.longestS);
    if (stored.duration_s <= longest) return;
    this.clear();
    this._refuse(`It lasts ${seconds(stored.duration_s)}: more than the ${seconds(longest)} that are worked on at once.`);
  }

  _failed(failure) {
    if (failure.name === "AbortError") return;
    this.clear();
    this._refuse(failure instanceof Problem ? failure.message.replace(/^file: /, "") : words(failure));
  }

  _toggle() {
    if (this._transfer?.state === "paused") this._transfer.resume();
    else this._transfer?.pause();
  }

  _forget() {
    this._transfer?.drop();
    this.clear();
    this._part("file").focus();
  }

  _refuse(text) {
    const place = this._part("refused");
    place.hidden = text === null;
    place.textContent = text ?? "";
    if (text === null) this._part("file").removeAttribute("aria-invalid");
    else this._part("file").setAttribute("aria-invalid", "true");
  }

  // -- over a reload

  _remember(upload) {
    try {
      if (upload) sessionStorage.setItem(this._key, JSON.stringify(upload));
      else sessionStorage.removeItem(this._key);
    } catch { /* then it is chosen again */ }
  }

  /** What was sent, or begun to be, before the page was loaded again. */
  async _recall() {
    let known = null;
    try { known = JSON.parse(sessionStorage.getItem(this._key)); } catch { /* as if there were none */ }
    if (!known) return;
    const upload = await live.get(`/v1/uploads/${known.id}`).catch(() => null);
    if (this._transfer) return; // another was chosen meanwhile
    if (upload?.state === "stored") {
      this.name = known.name;
      this._part("id").value = known.id;
      this._ready(upload);
    } else if (upload) {
      const share = Math.floor((100 * upload.offset_bytes) / upload.size_bytes);
      this._part("begun").textContent = `Of ${known.name} ${share} % have come: choose the file again, and it goes on from there.`;
      this._part("begun").hidden = false;
    } else this._remember(null);
  }
}

/** There is no file to wait for. */
export class Missing extends Error {}
