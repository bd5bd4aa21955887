// The line of the pages to a performance, under node: a socket that does what each test says. Run by
// tests/unit/test_browser_client.py.

import assert from "node:assert/strict";
import { test } from "node:test";

import { lineAt } from "../../app/web/static/parts/lyrics_time.js";
import { NotDone, Stage } from "../../app/web/static/parts/stage.js";

globalThis.location = { origin: "http://here" };

class Socket {
  constructor(options) { this.options = options; this.handlers = new Map(); this.sent = []; this.answers = {}; }
  on(name, act) { this.handlers.set(name, act); }
  timeout() { return this; }
  get volatile() { return this; }
  emit(name, body) { this.sent.push([name, body]); }
  async emitWithAck(name, body) {
    this.sent.push([name, body]);
    const answer = this.answers[name] ?? {};
    if (answer instanceof Error) throw answer;
    return answer;
  }
  disconnect() { this.isGone = true; }
  says(name, told) { return this.handlers.get(name)?.(told); }
}

const settled = () => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
const state = (version, more = {}) => ({ version, is_playing: false, current_time: 0, duration: 60, ...more });

async function ground(options = {}) {
  const sockets = [], links = [], states = [], timers = [];
  const stage = new Stage({
    id: "prf_1", token: async () => "ticket",
    io: (url, given) => { sockets.push(new Socket({ url, ...given })); return sockets.at(-1); },
    later: (act) => timers.push(act),
    ...options,
  });
  stage.on("link", (link) => links.push(link)).on("state", (told) => states.push(told.version));
  stage.start();
  await settled();
  return { stage, sockets, links, states, timers };
}

async function joined(around) {
  around.sockets.at(-1).says("connect");
  await settled();
}

test("it joins the performance by a token, on a WebSocket of its own", async () => {
  const around = await ground();
  await joined(around);
  const [socket] = around.sockets;
  assert.equal(socket.options.url, "http://here/performance");
  assert.deepEqual(socket.options.auth, { token: "ticket" });
  assert.deepEqual(socket.sent, [["join_performance", { performance_id: "prf_1" }]]);
  assert.equal(around.stage.link, "online");
});

test("a guest names no performance: the token does", async () => {
  const around = await ground({ id: null });
  await joined(around);
  assert.deepEqual(around.sockets[0].sent, [["join_performance", {}]]);
});

test("the highest version is shown, in whatever order it comes", async () => {
  const around = await ground();
  await joined(around);
  for (const version of [3, 5, 4, 5, 6]) around.sockets[0].says("control_updated", state(version));
  assert.deepEqual(around.states, [3, 5, 5, 6]);
  assert.equal(around.stage.state.version, 6);
});

test("the position goes on by itself while it plays, and stands while it does not", async () => {
  const around = await ground();
  await joined(around);
  around.sockets[0].says("playback_pause", state(1, { current_time: 12 }));
  assert.equal(around.stage.position, 12);
  around.sockets[0].says("playback_play", state(2, { is_playing: true, current_time: 12 }));
  const before = around.stage.position;
  await settled();
  assert.ok(around.stage.position > before);
  around.sockets[0].says("playback_seek", state(3, { is_playing: true, current_time: 60 }));
  assert.equal(around.stage.position, 60, "not beyond the end");
});

test("a line that is lost is found again, and joins again", async () => {
  const around = await ground();
  await joined(around);
  around.sockets[0].says("performance_state", state(1));
  around.sockets[0].says("disconnect");
  assert.equal(around.stage.link, "reconnecting");
  await assert.rejects(around.stage.command("playback_play"), (failure) => failure instanceof NotDone && failure.code === "offline");
  around.timers.shift()();
  await settled();
  await joined(around);
  assert.equal(around.stage.link, "online");
  around.sockets[0].says("performance_state", state(9));
  assert.equal(around.stage.state.version, 1, "a socket that was given up says nothing any more");
});

test("a refusal is not tried again, and a performance that is gone is over", async () => {
  const refused = await ground();
  refused.sockets[0].says("connect_error", { data: { code: "unauthenticated" } });
  assert.equal(refused.stage.link, "refused");
  assert.equal(refused.timers.length, 0);
  const gone = await ground();
  gone.sockets[0].answers.join_performance = { error: { code: "not_found", message: "gone" } };
  await joined(gone);
  assert.equal(gone.stage.link, "deleted");
  assert.equal(gone.timers.length, 0);
});

test("what a command is refused with is its failure, and so is silence", async () => {
  const around = await ground();
  await joined(around);
  around.sockets[0].answers.playback_seek = { error: { code: "invalid_input", message: "current_time: no" } };
  await assert.rejects(around.stage.command("playback_seek", {}), { code: "invalid_input", message: "current_time: no" });
  around.sockets[0].answers.playback_play = new Error("timeout");
  await assert.rejects(around.stage.command("playback_play"), { code: "no_answer" });
});

test("a player's word carries the version that it has heard of", async () => {
  const around = await ground();
  await joined(around);
  around.sockets[0].says("performance_state", state(7));
  around.stage.report({ is_playing: true, current_time: 3 });
  assert.deepEqual(around.sockets[0].sent.at(-1), ["update_player_state", { is_playing: true, current_time: 3, version: 7 }]);
});

test("the line that is on is the last that has begun", () => {
  const lines = [{ start_ms: 1000 }, { start_ms: 2000 }, { start_ms: 2000 }, { start_ms: 5000 }];
  assert.deepEqual([0, 999, 1000, 2000, 4999, 5000, 9e9].map((ms) => lineAt(lines, ms)), [-1, -1, 0, 2, 2, 3, 3]);
});
