/**
 * Follows the jobs of a Reprise service from a browser: every event once, in order, whatever the line does.
 *
 * One ES module that depends on nothing of the pages. It speaks Socket.IO first; where a WebSocket cannot be
 * had it polls `/v1/events`, says so, and goes on trying. Both carry the same `seq`, so that a client that
 * comes back by either misses nothing and hears nothing twice. Commands that are sent while there is no line
 * wait for it, a bounded number of them.
 *
 *     import { Reprise } from "./client.js";
 *     const reprise = new Reprise();
 *     reprise.on("job", (job) => console.log(job.seq, job.job_id, job.status, job.progress));
 *     reprise.on("state", ({ state }) => console.log(state));
 *     reprise.start();
 *
 * @module
 */

/**
 * @typedef {"connecting"|"online"|"reconnecting"|"polling"|"offline"|"refused"|"stopped"} State
 * `online`: told over a WebSocket. `polling`: asks again and again. `refused`: the key does not hold.
 */

/**
 * @typedef {object} JobEvent What happened to a job; the same from the socket and from polling.
 * @property {number} seq Its place among all events; grows, with gaps.
 * @property {string} id The job.
 * @property {string} job_id The same.
 * @property {"queued"|"processing"|"completed"|"failed"|"cancelled"} status
 * @property {number|null} progress From 0 to 1.
 * @property {string|null} stage
 * @property {string|null} message
 * @property {string} timestamp
 * @property {string} [type] `job_created`, `job_updated`, `job_completed`, `job_failed` or `job_cancelled`.
 * @property {string} [code] Of the error, where it failed.
 */

/**
 * @typedef {object} Events The events of a `Reprise` by name, with what their listeners are given.
 * @property {{state: State, transport: "socket"|"poll"|null, waiting: number}} state
 * @property {JobEvent} job
 * @property {{seq: number, jobs: object[]|null}} reset What was missed is gone: take the snapshot, or read anew.
 * @property {{code: string, message: string}} error
 */

/**
 * @typedef {object} Options
 * @property {string} [url] Of the service; by default that of the page.
 * @property {number|null} [after] The `seq` to go on after; by default from now on.
 * @property {string|null} [jobId] One job; by default all.
 * @property {string|null} [key] A key; a page of the service itself has its cookie.
 * @property {() => Promise<string|null>} [token] Makes a token for a socket; by default from the key.
 * @property {Function} [io] socket.io-client's `io`; by default the vendored one.
 * @property {typeof fetch} [fetch]
 * @property {(act: () => void, ms: number) => unknown} [later]
 * @property {(handle: any) => void} [forget]
 * @property {() => number} [random]
 */

export const FIRST_PAUSE_MS = 500;
export const LONGEST_PAUSE_MS = 30_000;
export const POLL_MS = 2_000;
export const MOST_WAITING = 100;
const CONNECT_MS = 5_000;
const SOCKET_TRIES = 2; // without an answer before it is asked for by polling

const KINDS = {
  "job.created": "job_created",
  "job.succeeded": "job_completed",
  "job.failed": "job_failed",
  "job.canceled": "job_cancelled",
};
const STATUS = { running: "processing", finishing: "processing", succeeded: "completed", canceled: "cancelled" };
const TOLD = ["job_created", "job_updated", "job_completed", "job_failed", "job_cancelled"];

/** A refusal of the service: an RFC 9457 problem. */
export class Problem extends Error {
  /** @param {number} status @param {Record<string, any>} body */
  constructor(status, body) {
    super(body.detail || body.title || `HTTP ${status}`);
    this.name = "Problem";
    this.status = status;
    this.code = body.code || "unknown";
    this.body = body;
  }
}

/** Too many commands wait for the line already; this one was not taken. */
export class TooMuchWaiting extends Error {
  constructor() {
    super(`${MOST_WAITING} commands wait for the connection already`);
    this.name = "TooMuchWaiting";
  }
}

/** How long to wait before try number `tries`: doubled each time, with jitter over its upper half. */
export function pauseMs(tries, random = Math.random) {
  const whole = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.max(0, tries - 1));
  return Math.round(whole * (0.5 + random() / 2));
}

export class Reprise {
  /** @param {Options} [options] */
  constructor(options = {}) {
    this.url = (options.url ?? globalThis.location?.origin ?? "").replace(/\/$/, "");
    /** The `seq` of the last event that was told. */
    this.seq = options.after ?? null;
    this.jobId = options.jobId ?? null;
    /** @type {State} */
    this.state = "stopped";
    this.transport = null;
    this._key = options.key ?? null;
    this._token = options.token ?? (() => this._makeToken());
    this._io = options.io ?? null;
    this._fetch = options.fetch ?? ((...given) => globalThis.fetch(...given));
    this._later = options.later ?? ((act, ms) => setTimeout(act, ms));
    this._forget = options.forget ?? ((handle) => clearTimeout(handle));
    this._random = options.random ?? Math.random;
    /** @type {Map<string, Set<Function>>} */
    this._listeners = new Map();
    /** @type {Array<() => Promise<void>>} */
    this._waiting = [];
    this._isSending = false;
    this._resend = null;
    this._socket = null;
    this._tries = 0;
    this._failedPolls = 0;
    this._retry = null;
    this._poll = null;
    this._generation = 0;
  }

  /**
   * @template {keyof Events} Name
   * @param {Name} name
   * @param {(told: Events[Name]) => void} listener
   * @returns {() => void} Call it to listen no more.
   */
  on(name, listener) {
    const listeners = this._listeners.get(name) ?? new Set();
    this._listeners.set(name, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  start() {
    if (this.state !== "stopped") return this;
    this._move("connecting", null);
    this._open();
    return this;
  }

  /** Tell nothing any more, and let go of the line. What waits to be sent stays. */
  stop() {
    this._generation += 1;
    this._forget(this._retry);
    this._stopPolling();
    this._drop();
    this._move("stopped", null);
  }

  /** Try again now: the network is back, or the page is looked at again. */
  wake() {
    if (["reconnecting", "polling", "offline"].includes(this.state)) {
      this._forget(this._retry);
      this._stopPolling();
      this._tries = 0;
      this._open();
    }
  }

  /**
   * Send a command. Without a line it waits for one, in its turn; where nobody knows whether it arrived it is
   * sent again under the same Idempotency-Key, so it is carried out once.
   *
   * @param {string} method @param {string} path @param {object} [body]
   * @returns {Promise<any>} The answer. Rejects with Problem, TooMuchWaiting.
   */
  send(method, path, body) {
    if (this._waiting.length >= MOST_WAITING) return Promise.reject(new TooMuchWaiting());
    const headers = { "Idempotency-Key": this._newKey() };
    return new Promise((resolve, reject) => {
      this._waiting.push(async () => resolve(await this._ask(method, path, body, headers).catch((failure) => {
        if (!(failure instanceof Problem)) throw failure;
        reject(failure);
      })));
      this._sendWaiting();
    });
  }

  /** Ask at once, or fail. Rejects with Problem, and with TypeError where there is no line. */
  get(path) {
    return this._ask("GET", path);
  }

  /** What opens a socket beside this one: a short-lived token, or null where none is needed. Rejects as `get`. */
  socketToken() {
    return this._token();
  }

  // -- commands

  async _sendWaiting() {
    if (this._isSending) return;
    this._isSending = true;
    try {
      while (this._waiting.length) {
        // Taken away once it was answered: what comes in meanwhile is sent after it.
        await this._waiting[0]();
        this._waiting.shift();
        if (this._waiting.length === 0) this._tell("state", this._standing());
      }
    } catch {
      // No line. It stays the first; whoever finds the line again sends on.
      this._tell("state", this._standing());
      this._forget(this._resend);
      this._resend = this._later(() => this._sendWaiting(), pauseMs(this._failedPolls + 1, this._random));
    } finally {
      this._isSending = false;
    }
  }

  async _ask(method, path, body, more = {}) {
    const headers = { Accept: "application/json", ...more };
    if (this._key) headers.Authorization = `Bearer ${this._key}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const reply = await this._fetch(this.url + path, {
      method, headers, credentials: "same-origin", body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await reply.text();
    const answer = text && (reply.headers.get("content-type") ?? "").includes("json") ? JSON.parse(text) : null;
    if (!reply.ok) throw new Problem(reply.status, answer ?? {});
    return answer;
  }

  _newKey() {
    const random = globalThis.crypto?.randomUUID?.();
    return random ?? Array.from({ length: 4 }, () => this._random().toString(36).slice(2)).join("-");
  }

  async _makeToken() {
    try {
      return (await this._ask("POST", "/v1/socket-tokens", {})).token;
    } catch (failure) {
      // Where no key was ever made none is needed.
      if (failure instanceof Problem && failure.status === 404) return null;
      throw failure;
    }
  }

  // -- the socket

  async _open() {
    const generation = ++this._generation;
    this._drop();
    let io, token;
    try {
      io = this._io ??= (await import("./vendor/socket.io.esm.min.js")).io;
      token = await this._token();
    } catch (failure) {
      if (generation === this._generation) this._lost(failure instanceof Problem && failure.status === 401);
      return;
    }
    if (generation !== this._generation) return;
    const socket = this._socket = io(`${this.url}/jobs`, {
      transports: ["websocket"], reconnection: false, forceNew: true, timeout: CONNECT_MS, auth: { token },
    });
    const mine = (act) => (told) => { if (socket === this._socket) act(told); };
    socket.on("connect", mine(() => socket.emit("subscribe_to_jobs", {
      ...(this.jobId ? { job_id: this.jobId } : {}), ...(this.seq === null ? {} : { after_seq: this.seq }),
    })));
    socket.on("subscribed", mine((told) => this._subscribed(told)));
    socket.on("reset", mine((told) => this._reset(told)));
    socket.on("error", mine((told) => this._tell("error", told)));
    for (const type of TOLD) socket.on(type, mine((told) => this._take({ type, ...told })));
    socket.on("connect_error", mine((failure) => this._lost(failure?.data?.code === "unauthenticated")));
    socket.on("disconnect", mine(() => this._lost(false)));
  }

  _subscribed(told) {
    this._tries = this._failedPolls = 0;
    this._stopPolling();
    if (this.seq === null) this.seq = told.seq ?? null;
    this._move("online", "socket");
    this._sendWaiting();
  }

  _lost(isRefused) {
    this._drop();
    if (isRefused) {
      this._stopPolling();
      this._move("refused", null);
      return;
    }
    this._tries += 1;
    if (this.state === "online") this._move("reconnecting", null);
    this._retry = this._later(() => this._open(), pauseMs(this._tries, this._random));
    // Meanwhile: whether it is the WebSocket alone that cannot be had.
    if (this._tries >= SOCKET_TRIES && this._poll === null) this._pollOnce();
  }

  _drop() {
    const socket = this._socket;
    this._socket = null;
    socket?.disconnect();
  }

  // -- polling

  async _pollOnce() {
    this._poll = true;
    const generation = this._polling = {};
    const isOver = () => generation !== this._polling;
    try {
      let page;
      do {
        page = await this._ask("GET", `/v1/events?${this._question()}`);
        if (isOver()) return;
        if (page.reset) this._reset({ seq: page.position });
        for (const item of page.items) this._take(eventOf(item));
        this.seq = Math.max(this.seq ?? 0, page.position);
      } while (page.has_more);
      this._failedPolls = 0;
      this._move("polling", "poll");
      this._sendWaiting();
    } catch (failure) {
      if (isOver()) return;
      if (failure instanceof Problem && failure.status === 401) {
        this._forget(this._retry);
        this._move("refused", null);
        return;
      }
      this._failedPolls += 1;
      this._move("offline", null);
    }
    const pause = this._failedPolls ? pauseMs(this._failedPolls, this._random) : POLL_MS;
    this._poll = this._later(() => this._pollOnce(), pause);
  }

  _question() {
    const asked = new URLSearchParams();
    if (this.seq === null) asked.set("since", new Date().toISOString());
    else asked.set("after", String(this.seq));
    if (this.jobId) asked.set("job_id", this.jobId);
    return asked.toString();
  }

  _stopPolling() {
    if (this._poll !== null && this._poll !== true) this._forget(this._poll);
    this._poll = null;
    this._polling = null;
  }

  // -- telling

  _take(told) {
    if (typeof told.seq === "number") {
      if (this.seq !== null && told.seq <= this.seq) return; // heard before, by the other way perhaps
      this.seq = told.seq;
    }
    this._tell("job", told);
  }

  _reset(told) {
    this.seq = told.seq ?? told.position ?? null;
    this._tell("reset", { seq: this.seq, jobs: told.jobs ?? null });
  }

  _move(state, transport) {
    if (state === this.state && transport === this.transport) return;
    this.state = state;
    this.transport = transport;
    this._tell("state", this._standing());
  }

  _standing() {
    return { state: this.state, transport: this.transport, waiting: this._waiting.length };
  }

  _tell(name, told) {
    for (const listener of [...(this._listeners.get(name) ?? [])]) listener(told);
  }
}

/** An event of `/v1/events` as the socket tells it. @returns {JobEvent} */
export function eventOf(item) {
  const { data } = item;
  return {
    type: KINDS[item.type] ?? "job_updated",
    seq: item.position,
    id: item.job_id,
    job_id: item.job_id,
    status: STATUS[data.status] ?? data.status,
    progress: item.type === "job.succeeded" ? 1 : data.progress ?? null,
    stage: data.stage ?? null,
    message: data.message ?? data.reason ?? null,
    timestamp: item.at,
    ...(data.code ? { code: data.code } : {}),
  };
}
