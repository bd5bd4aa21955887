// A file on its way to the service: in pieces, paused and gone on with, found again after a cut or a reload.

import { Problem } from "../client.js";

const PIECE_BYTES = 4 * 1024 * 1024;
const PAUSES_MS = [0, 500, 1_000, 2_000, 4_000, 8_000, 15_000];
const STRANDED_MS = 15_000;
const PASSING = [0, 408, 409, 423, 429]; // and whatever the service calls its own fault

/** tus-js-client, fetched when it is first needed: a classic script, which leaves its name on the window. */
function loadTus() {
  return new Promise((resolve, reject) => {
    if (window.tus) return resolve(window.tus);
    const script = document.createElement("script");
    script.src = new URL("../vendor/tus.min.js", import.meta.url);
    script.addEventListener("load", () => resolve(window.tus));
    script.addEventListener("error", () => reject(new TypeError("the page cannot be loaded whole")));
    return document.head.append(script);
  });
}

/**
 * @typedef {"waiting"|"sending"|"cut"|"paused"|"checking"|"done"|"failed"|"dropped"} Standing
 * `cut`: no answer came; it is tried again without end. `checking`: all was sent, the service judges it.
 */

/** One file. After a cut it goes on from where the service is; for a file that was begun before, too. */
export class Transfer {
  /** @param {File} file @param {(transfer: Transfer) => void} [told] Called whenever something is different. */
  constructor(file, told = () => {}) {
    this.file = file;
    /** @type {Standing} */
    this.state = "waiting";
    this.share = 0;
    /** The upload's id, once there is one. */
    this.id = null;
    this._told = told;
    this._upload = null;
    this._retry = null;
    /** The upload's id once it is stored. Rejects with Problem, or TypeError where the page is broken. */
    this.done = new Promise((resolve, reject) => Object.assign(this, { _resolve: resolve, _reject: reject }));
    this.done.catch(() => {}); // whoever is told of it need not wait for it
  }

  async start() {
    try {
      const tus = await loadTus();
      this._upload = new tus.Upload(this.file, {
        endpoint: "/v1/uploads",
        chunkSize: PIECE_BYTES,
        retryDelays: PAUSES_MS,
        metadata: { filename: this.file.name },
        removeFingerprintOnSuccess: true,
        onUploadUrlAvailable: () => { this.id = this._upload.url.split("/").pop(); this._told(this); },
        onProgress: (sent, whole) => this._progress(sent / whole),
        onShouldRetry: (failure) => this._isPassing(failure),
        onSuccess: () => { this._move("done"); this._resolve(this.id); },
        onError: (failure) => this._error(failure),
      });
      const [known] = await this._upload.findPreviousUploads();
      if (known) this._upload.resumeFromPreviousUpload(known);
      if (this.state === "dropped") return;
      this._move("sending");
      this._upload.start();
    } catch (failure) {
      this._fail(failure);
    }
  }

  pause() {
    if (!["sending", "cut"].includes(this.state)) return;
    clearTimeout(this._retry);
    this._upload.abort();
    this._move("paused");
  }

  resume() {
    if (this.state !== "paused") return;
    this._move("sending");
    this._upload.start();
  }

  /** Forget it, here and there. */
  drop() {
    clearTimeout(this._retry);
    const isLeft = this.state !== "done" && this.state !== "failed";
    this._move("dropped");
    // What was sent of it expires by itself where it cannot be deleted now.
    if (isLeft) this._upload?.abort(true).catch(() => {});
    this._reject(new DOMException("The upload was taken back.", "AbortError"));
  }

  _progress(share) {
    if (!["sending", "cut", "checking"].includes(this.state)) return;
    this.share = share;
    this._move(share < 1 ? "sending" : "checking");
  }

  /** Whether it may be tried again, which tus then does after a pause. */
  _isPassing(failure) {
    const status = failure.originalResponse?.getStatus() ?? 0;
    const isPassing = PASSING.includes(status) || status >= 500;
    if (isPassing) this._move("cut");
    return isPassing;
  }

  _error(failure) {
    const reply = failure.originalResponse;
    if (failure.originalRequest && !reply?.getStatus()) {
      // All pauses are over and still nobody answers: the file is here, and the line may be back any time.
      this._move("cut");
      this._retry = setTimeout(() => this._upload.start(), STRANDED_MS);
      return;
    }
    this._fail(reply ? new Problem(reply.getStatus(), parsed(reply.getBody())) : failure);
  }

  _fail(failure) {
    if (this.state === "dropped") return;
    this._move("failed");
    this._reject(failure);
  }

  _move(state) {
    this.state = state;
    this._told(this);
  }
}

/** Send a file, and tell how far it has come. @returns {Promise<string>} Its upload id. */
export function uploadFile(file, progressed) {
  const transfer = new Transfer(file, ({ share }) => progressed(share));
  transfer.start();
  return transfer.done;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
