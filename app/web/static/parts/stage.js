// The line to one performance: its newest state, its singers, commands; found again whenever it was lost.

import { pauseMs } from "../client.js";

const CONNECT_MS = 5_000;
const ANSWER_MS = 10_000;
const STATES = ["performance_state", "control_updated", "playback_play", "playback_pause", "playback_seek"];

/** A command that was refused, or that nobody answered. */
export class NotDone extends Error {
  /** @param {{code: string, message: string}} error */
  constructor(error) {
    super(error.message);
    this.name = "NotDone";
    this.code = error.code;
  }
}

/**
 * Listeners: `state` (the performance's), `queue` (the line of singers), `link` (`connecting`, `online`,
 * `reconnecting`, `refused`, `deleted`).
 */
export class Stage {
  /**
   * @param {{id: string|null, token: () => Promise<string|null>, io?: Function, later?: Function}} options
   * `id` null: the performance that the token is for.
   */
  constructor({ id, token, io = null, later = (act, ms) => setTimeout(act, ms) }) {
    this._id = id;
    this._token = token;
    this._io = io;
    this._later = later;
    this._listeners = { state: [], queue: [], link: [] };
    this._socket = null;
    this._tries = 0;
    this._heardAt = 0;
    this.link = "connecting";
    /** As `performance_state` tells it; null until it was told. */
    this.state = null;
    /** As `queue_updated` tells it. */
    this.queue = null;
  }

  on(name, listener) {
    this._listeners[name].push(listener);
    return this;
  }

  start() {
    this._open();
    return this;
  }

  /** Where the song is now, in seconds: it is told when something changes, and goes on by itself. */
  get position() {
    if (!this.state) return 0;
    const gone = this.state.is_playing ? (performance.now() - this._heardAt) / 1000 : 0;
    const at = this.state.current_time + gone;
    return this.state.duration ? Math.min(at, this.state.duration) : at;
  }

  /** Send a command; what it changed comes to every screen as an event, to this one too. Rejects with NotDone. */
  async command(event, body = {}) {
    if (this.link !== "online") throw new NotDone({ code: "offline", message: "Not connected: nothing was changed." });
    let answer;
    try {
      answer = await this._socket.timeout(ANSWER_MS).emitWithAck(event, body);
    } catch {
      throw new NotDone({ code: "no_answer", message: "The service did not answer." });
    }
    if (answer?.error) throw new NotDone(answer.error);
    return answer;
  }

  /** Say how this player does; nobody waits for it, and without a line it is not said. */
  report(body) {
    if (this.link === "online") this._socket.volatile.emit("update_player_state", { ...body, version: this.state.version });
  }

  async _open() {
    let io, token;
    try {
      io = this._io ??= (await import("../vendor/socket.io.esm.min.js")).io;
      token = await this._token();
    } catch (failure) {
      this._lost(failure?.status === 401);
      return;
    }
    const socket = this._socket = io(`${location.origin}/performance`, {
      transports: ["websocket"], reconnection: false, forceNew: true, timeout: CONNECT_MS, auth: { token },
    });
    const mine = (act) => (told) => { if (socket === this._socket) act(told); };
    socket.on("connect", mine(async () => {
      const asked = this._id ? { performance_id: this._id } : {};
      const answer = await socket.timeout(ANSWER_MS).emitWithAck("join_performance", asked).catch(() => null);
      if (socket !== this._socket) return;
      if (answer?.error?.code === "not_found") this._end("deleted");
      else if (!answer || answer.error) this._lost(false);
      else {
        this._tries = 0;
        this._move("online");
      }
    }));
    for (const event of STATES) socket.on(event, mine((told) => this._show(told)));
    socket.on("queue_updated", mine((told) => {
      if (this.queue && told.version < this.queue.version) return;
      this.queue = told;
      this._tell("queue", told);
    }));
    socket.on("performance_deleted", mine(() => this._end("deleted")));
    socket.on("connect_error", mine((failure) => this._lost(failure?.data?.code === "unauthenticated")));
    socket.on("disconnect", mine(() => this._lost(false)));
  }

  _show(told) {
    // An older word that came late. The same version again is a newer look at the position.
    if (this.state && told.version < this.state.version) return;
    this._heardAt = performance.now();
    this.state = told;
    this._tell("state", told);
  }

  _lost(isRefused) {
    this._drop();
    if (isRefused) return this._end("refused");
    this._tries += 1;
    this._move(this.state ? "reconnecting" : "connecting");
    this._later(() => this._open(), pauseMs(this._tries));
  }

  _end(why) {
    this._drop();
    this._move(why);
  }

  _drop() {
    const socket = this._socket;
    this._socket = null;
    socket?.disconnect();
  }

  _move(link) {
    if (link === this.link) return;
    this.link = link;
    this._tell("link", link);
  }

  _tell(name, told) {
    for (const listener of this._listeners[name]) listener(told);
  }
}
