// The public socket.io-client, driven by a test: messages to send come as JSON lines `[event, payload]`, and
// everything that is heard goes out as JSON lines `{event, payload}`. On every connection it subscribes after the
// last `seq` that it has, as the guide says; it connects again by itself.
// node --experimental-websocket socket_client.mjs CLIENT.js URL websocket|polling [TOKEN]
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [file, url, transport, token] = process.argv.slice(2);
const { io, WebSocket, Fetch } = await import(pathToFileURL(file));
const say = (event, payload) => process.stdout.write(JSON.stringify({ event, payload: payload ?? null }) + "\n");

const socket = io(`${url}/jobs`, {
  transports: [transport === "polling" ? Fetch : WebSocket],
  upgrade: false,
  auth: token ? { token } : undefined,
  reconnectionDelay: 100,
  reconnectionDelayMax: 500,
});
let last = null;
socket.onAny((event, payload) => {
  if (event.startsWith("job_") || event === "reset") last = Math.max(last ?? 0, payload.seq);
  if (event === "subscribed" && last === null) last = payload.seq;
  say(event, payload);
});
socket.on("connect", () => {
  say("connect", { transport: socket.io.engine.transport.name });
  socket.emit("subscribe_to_jobs", last === null ? {} : { after_seq: last });
});
socket.on("connect_error", (error) => say("connect_error", { message: error.message, data: error.data ?? null }));
socket.on("disconnect", (reason) => say("disconnect", { reason }));

for await (const line of createInterface({ input: process.stdin })) {
  const [event, payload] = JSON.parse(line);
  socket.emit(event, payload);
}
socket.disconnect();
