// The browser's client of events, under node: a socket and a service that do what each test says. Run by
// tests/unit/test_browser_client.py.

import assert from "node:assert/strict";
import { test } from "node:test";

import { eventOf, LONGEST_PAUSE_MS, MOST_WAITING, pauseMs, Problem, Reprise, TooMuchWaiting } from "../../app/web/static/client.js";

/** Timers that fire when they are told to, and never by themselves. */
class Timers {
  constructor() { this.set = []; }
  later = (act, ms) => { const timer = { act, ms }; this.set.push(timer); return timer; };
  forget = (timer) => { this.set = this.set.filter((each) => each !== timer); };
  /** Let all that are set now fire. @returns {number[]} How long each would have taken. */
  async fire() {
    const due = this.set;
    this.set = [];
    for (const each of due) each.act();
    await settled();
    return due.map((each) => each.ms);
  }
}

class Socket {
  constructor(options) { this.options = options; this.handlers = new Map(); this.sent = []; this.isGone = false; }
  on(name, act) { this.handlers.set(name, act); }
  emit(name, body) { this.sent.push([name, body]); }
  disconnect() { this.isGone = true; }
  says(name, told) { this.handlers.get(name)?.(told); }
}

const settled = () => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
const job = (seq, more = {}) => ({ seq, id: "job_1", job_id: "job_1", status: "processing", progress: 0.5, ...more });

/** A client with everything around it in hand. `answer` is the service: a path to `[status, body]` or a throw. */
async function ground(answer = () => [200, { items: [], position: 0, has_more: false, reset: false }], options = {}) {
  const timers = new Timers(), sockets = [], asked = [], told = [], states = [], resets = [];
  const client = new Reprise({
    url: "http://here",
    token: async () => "ticket",
    io: (url, given) => { sockets.push(new Socket({ url, ...given })); return sockets.at(-1); },
    fetch: async (url, given) => {
      asked.push({ url, ...given });
      const [status, body] = await answer(url, given, asked.length);
      return new Response(JSON.stringify(body), { status, headers: { "content-type": "application/json" } });
    },
    later: timers.later, forget: timers.forget, random: () => 1,
    ...options,
  });
  client.on("job", (each) => told.push(each.seq));
  client.on("state", (each) => states.push(each.state));
  client.on("reset", (each) => resets.push(each));
  client.start();
  await settled();
  return { client, timers, sockets, asked, told, states, resets };
}

async function online(around) {
  around.sockets.at(-1).says("connect");
  around.sockets.at(-1).says("subscribed", { job_id: null, seq: 10 });
  await settled();
}

test("it connects to /jobs by WebSocket alone, with a token, and is online once it is subscribed", async () => {
  const around = await ground();
  const { options } = around.sockets[0];
  assert.equal(options.url, "http://here/jobs");
  assert.deepEqual([options.transports, options.auth, options.reconnection], [["websocket"], { token: "ticket" }, false]);
  assert.deepEqual(around.states, ["connecting"]);
  await online(around);
  assert.deepEqual(around.sockets[0].sent, [["subscribe_to_jobs", {}]]);
  assert.deepEqual(around.states, ["connecting", "online"]);
});

test("an event is told once, however often and by whatever way it comes", async () => {
  const around = await ground((url) => [200, {
    items: [11, 12, 13].map((position) => ({ position, job_id: "job_1", type: "job.progress", at: "", data: { status: "running" } })),
    position: 13, has_more: false, reset: false,
  }]);
  await online(around);
  const [socket] = around.sockets;
  for (const seq of [11, 12, 12, 11]) socket.says("job_updated", job(seq));
  assert.deepEqual(around.told, [11, 12]);
  socket.says("disconnect");
  for (let tries = 0; tries < 3; tries += 1) {
    await around.timers.fire();
    around.sockets.at(-1).says("connect_error", new Error("no"));
    await settled();
  }
  assert.deepEqual(around.told, [11, 12, 13]);
  assert.equal(around.states.at(-1), "polling");
});

test("it comes back with the last seq that it heard, and jobs asked for one at a time stay so", async () => {
  const around = await ground(undefined, { jobId: "job_1", after: 4 });
  await online(around);
  assert.deepEqual(around.sockets[0].sent[0][1], { job_id: "job_1", after_seq: 4 });
  around.sockets[0].says("job_updated", job(17));
  around.sockets[0].says("disconnect");
  assert.equal(around.states.at(-1), "reconnecting");
  await around.timers.fire();
  around.sockets[1].says("connect");
  assert.deepEqual(around.sockets[1].sent[0][1], { job_id: "job_1", after_seq: 17 });
});

test("pauses double, with jitter over their upper half, up to the longest", () => {
  assert.deepEqual([1, 2, 3, 4].map((tries) => pauseMs(tries, () => 1)), [500, 1000, 2000, 4000]);
  assert.deepEqual([1, 2].map((tries) => pauseMs(tries, () => 0)), [250, 500]);
  assert.equal(pauseMs(40, () => 1), LONGEST_PAUSE_MS);
});

test("without a WebSocket it polls and says so, and goes on trying for one", async () => {
  const around = await ground();
  for (let tries = 0; tries < 2; tries += 1) {
    around.sockets.at(-1).says("connect_error", new Error("no"));
    await around.timers.fire();
  }
  await settled();
  assert.equal(around.client.state, "polling");
  assert.equal(around.client.transport, "poll");
  const before = around.sockets.length;
  await around.timers.fire();
  assert.ok(around.sockets.length > before || around.timers.set.length > 0, "it tries again");
  await online(around);
  assert.deepEqual([around.client.state, around.client.transport], ["online", "socket"]);
  await around.timers.fire();
  const polls = around.asked.length;
  await around.timers.fire();
  assert.equal(around.asked.length, polls, "nobody polls beside a socket");
});

test("where nothing answers it is offline, and what comes meanwhile is told once it is back", async () => {
  let isUp = true;
  const around = await ground((url) => {
    if (!isUp) throw new TypeError("no line");
    return [200, {
      items: [{ position: 30, job_id: "job_1", type: "job.succeeded", at: "", data: { status: "succeeded" } }],
      position: 30, has_more: false, reset: false,
    }];
  });
  await online(around);
  isUp = false;
  around.sockets[0].says("disconnect");
  for (let tries = 0; tries < 3; tries += 1) {
    await around.timers.fire();
    around.sockets.at(-1).says("connect_error", new Error("no"));
    await settled();
  }
  assert.equal(around.client.state, "offline");
  isUp = true;
  around.client.wake();
  await settled();
  await online(around);
  around.sockets.at(-1).says("job_completed", job(30));
  assert.deepEqual([around.client.state, around.told], ["online", [30]]);
});

test("a gap that is too old is a reset with where it goes on, and what follows is told", async () => {
  const around = await ground();
  await online(around);
  around.sockets[0].says("reset", { job_id: null, seq: 90, jobs: [{ id: "job_9" }], has_more: false });
  around.sockets[0].says("job_updated", job(89));
  around.sockets[0].says("job_updated", job(91));
  assert.deepEqual([around.resets, around.told], [[{ seq: 90, jobs: [{ id: "job_9" }] }], [91]]);
});

test("commands wait for the line, in their order, each under one key however often it is sent", async () => {
  let isUp = false;
  const around = await ground((url, given) => {
    if (!isUp) throw new TypeError("no line");
    return [202, { path: url }];
  });
  const answers = ["/v1/jobs/1/cancel", "/v1/jobs/2/cancel"].map((path) => around.client.send("POST", path, {}));
  await settled();
  isUp = true;
  await around.timers.fire();
  await settled();
  assert.deepEqual((await Promise.all(answers)).map((each) => each.path), ["http://here/v1/jobs/1/cancel", "http://here/v1/jobs/2/cancel"]);
  const sent = around.asked.filter((each) => each.method === "POST");
  assert.equal(sent[0].headers["Idempotency-Key"], sent[1].headers["Idempotency-Key"]);
  assert.notEqual(sent[1].headers["Idempotency-Key"], sent[2].headers["Idempotency-Key"]);
});

test("no more commands wait than may, and one that is refused stops none behind it", async () => {
  let isUp = false;
  const around = await ground((url) => {
    if (!isUp) throw new TypeError("no line");
    return url.endsWith("/0") ? [409, { code: "conflict", detail: "it has ended" }] : [200, {}];
  });
  const sent = Promise.allSettled(Array.from({ length: MOST_WAITING }, (_, at) => around.client.send("POST", `/${at}`)));
  await assert.rejects(around.client.send("POST", "/one-too-many"), TooMuchWaiting);
  isUp = true;
  for (let rounds = 0; rounds < 3; rounds += 1) await around.timers.fire();
  const ends = await sent;
  assert.ok(ends[0].reason instanceof Problem && ends[0].reason.code === "conflict");
  assert.ok(ends.slice(1).every((each) => each.status === "fulfilled"));
});

test("a key that does not hold ends it, with a word of its own", async () => {
  const around = await ground();
  around.sockets[0].says("connect_error", Object.assign(new Error("no"), { data: { code: "unauthenticated" } }));
  assert.equal(around.states.at(-1), "refused");
  assert.equal(around.timers.set.length, 0, "and nobody tries again");
});

test("a socket that was given up is not listened to", async () => {
  const around = await ground();
  await online(around);
  around.client.stop();
  around.sockets[0].says("job_updated", job(11));
  assert.deepEqual([around.told, around.states.at(-1), around.sockets[0].isGone], [[], "stopped", true]);
});

test("an event of the list is what the socket tells", () => {
  const item = { position: 7, job_id: "job_1", type: "job.failed", at: "2026-01-01T00:00:00Z", data: { status: "failed", code: "poisoned", message: "no" } };
  assert.deepEqual(eventOf(item), {
    type: "job_failed", seq: 7, id: "job_1", job_id: "job_1", status: "failed", progress: null, stage: null,
    message: "no", timestamp: "2026-01-01T00:00:00Z", code: "poisoned",
  });
});
