// The service's health, asked for again and again while the page is looked at.

import uPlot from "../vendor/uPlot.esm.js";
import { live } from "../shell.js";
import { seconds } from "../parts/times.js";

const EVERY_MS = 5_000;
const COSTS_EVERY = 12; // looks
const HEIGHT = 190;
const DAYS = 30;
const AXES = {
  clock: new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false }),
  days: new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" }),
};
const charts = new Map();
let looks = 0;

const style = (name) => {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
};

function element(name, text, attributes = {}) {
  const made = Object.assign(document.createElement(name), { textContent: text });
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function put(id, ...children) {
  document.getElementById(id).replaceChildren(...children);
}

/** Draw, or draw anew: `series` are `{label, tone, bars?, dots?}`, `data` as uPlot has it. */
function chart(id, data, series, options = {}) {
  const place = document.getElementById(id);
  if (data[0].length === 0) {
    charts.get(id)?.destroy();
    charts.delete(id);
    place.replaceChildren(element("p", options.none ?? "Nothing yet.", { class: "none" }));
    return;
  }
  const known = charts.get(id);
  if (known) {
    known.setData(data);
    return;
  }
  place.replaceChildren();
  const axis = { stroke: style("--faint"), grid: { stroke: style("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  charts.set(id, new uPlot({
    width: place.clientWidth,
    height: HEIGHT,
    cursor: { y: false },
    legend: { live: true },
    scales: { x: { time: true }, y: { range: (_, __, most) => [0, Math.max(options.least ?? 1, most * 1.1)] } },
    axes: [{ ...axis, values: (_, values) => values.map((at) => AXES[options.days ? "days" : "clock"].format(at * 1000)), space: 70 }, { ...axis, size: 58, values: (_, values) => values.map(options.shown ?? ((value) => value)) }],
    series: [{ label: "at", value: (_, at) => (at ? AXES[options.days ? "days" : "clock"].format(at * 1000) : "–") }, ...series.map(({ label, tone, bars, dots }) => ({
      label, stroke: style(tone), width: 2, spanGaps: true,
      ...(bars ? { fill: style(tone), paths: uPlot.paths.bars({ size: [0.7, 28] }), points: { show: false } } : {}),
      ...(dots ? { paths: () => null, points: { show: true, size: 8, fill: style(tone) } } : { points: { show: false } }),
    }))],
  }, data, place));
}

function redraw() {
  for (const each of charts.values()) each.destroy();
  charts.clear();
  look();
}
document.addEventListener("themechange", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
new ResizeObserver(() => {
  for (const [id, each] of charts) each.setSize({ width: document.getElementById(id).clientWidth, height: HEIGHT });
}).observe(document.getElementById("main"));

// -- what is shown

function showReady(body) {
  const pill = document.getElementById("ready");
  pill.textContent = body.ready ? "ready" : "not ready";
  pill.dataset.state = body.ready ? "ok" : "down";
  const reasons = document.getElementById("reasons");
  reasons.hidden = body.intake.reasons.length === 0;
  reasons.textContent = body.intake.reasons.join(" · ");
  const jobs = body.queues?.jobs ?? {};
  const free = Object.values(body.checks.disk.free_bytes ?? {});
  const pool = body.checks.database.pool ?? {};
  const tiles = [
    ["queued", jobs.queued ?? "–"], ["running", jobs.running ?? "–"], ["finishing", jobs.finishing ?? "–"],
    ["free on disk", free.length ? `${(Math.min(...free) / 1e9).toFixed(1)} GB` : "–"],
    ["connections in use", pool.checked_out ?? pool.in_use ?? pool.open ?? "–"],
    ["worst lag, a minute", body.event_loop.lag_worst_s === null ? "–" : seconds(body.event_loop.lag_worst_s)],
  ];
  put("tiles", ...tiles.map(([name, value]) => {
    const tile = element("dl", "", { class: "tile" });
    tile.append(element("dt", name), element("dd", String(value)));
    return tile;
  }));
  const { providers, disk, ...own } = body.checks;
  const parts = [...Object.entries(own), ["disk", disk], ...Object.entries(providers)];
  put("parts", ...parts.map(([name, check]) => {
    const row = document.createElement("tr"), circuit = check.circuit;
    const word = check.ok ? "ok" : "down";
    const state = element("td", "");
    state.append(element("span", check.state ?? word, { class: "pill", "data-state": word }));
    const last = check.last_ok_s === null || check.last_ok_s === undefined ? "–" : `${seconds(check.last_ok_s)} ago`;
    row.append(
      element("td", name), state,
      element("td", circuit ? circuit.state.replaceAll("_", " ") + (circuit.failures ? `, ${circuit.failures} failures` : "") : "–"),
      element("td", check.detail || circuit?.reason || ""),
      element("td", last, { class: "right" }),
    );
    return row;
  }));
  put("stations", ...Object.entries(body.queues?.stations ?? {}).map(([name, station]) => {
    const row = document.createElement("tr");
    row.append(element("td", name), ...[station.depth, station.due, seconds(station.oldest_due_s), seconds(station.oldest_s)]
      .map((value) => element("td", String(value), { class: "right" })));
    return row;
  }));
}

function showFigures(figures) {
  const { samples } = figures;
  const at = samples.map((each) => Date.parse(each.at) / 1000);
  const depth = (name) => samples.map((each) => each.depth[name] ?? null);
  chart("chart-depth", [at, depth("dispatch"), depth("apply"), depth("finish"), depth("announce")], [
    { label: "dispatch", tone: "--queued" }, { label: "apply", tone: "--running" },
    { label: "finish", tone: "--finishing" }, { label: "announce", tone: "--accent" },
  ], { least: 4, none: "The first sample is taken in a few seconds." });
  chart("chart-lag", [at, samples.map((each) => (each.lag_worst_s === null ? null : each.lag_worst_s * 1000))],
    [{ label: "worst of the minute before", tone: "--accent" }], { least: 10, shown: (value) => `${value} ms` });
  const ended = figures.ended.toSorted((one, other) => Date.parse(one.at) - Date.parse(other.at));
  const kinds = [...new Set(ended.map((each) => each.kind))].slice(0, 4);
  chart("chart-latency",
    [ended.map((each) => Date.parse(each.at) / 1000), ...kinds.map((kind) => ended.map((each) => (each.kind === kind ? each.took_s : null)))],
    kinds.map((kind, index) => ({ label: kind.replaceAll("_", " "), tone: ["--running", "--accent", "--finishing", "--succeeded"][index], dots: true })),
    { none: "No job of yours has ended yet.", shown: (value) => `${value} s` });
}

function showCosts(report) {
  const days = Array.from({ length: DAYS }, (_, back) => new Date(Date.now() - (DAYS - 1 - back) * 86_400_000).toISOString().slice(0, 10));
  const spent = new Map(report.items.map((each) => [each.key, each.usd]));
  document.getElementById("cost-total").textContent = `$${report.total.usd.toFixed(2)}`;
  chart("chart-cost", [days.map((day) => Date.parse(day) / 1000), days.map((day) => spent.get(day) ?? 0)],
    [{ label: "dollars", tone: "--accent", bars: true }], { days: true, least: 0.01, shown: (value) => `$${value}` });
}

async function look() {
  if (document.hidden) return;
  const reply = await fetch("/readyz", { credentials: "same-origin" }).catch(() => null);
  const seen = document.getElementById("seen");
  if (!reply) {
    const pill = document.getElementById("ready");
    pill.textContent = "no answer";
    pill.dataset.state = "down";
    return;
  }
  // 503 is an answer too: it says what is missing.
  showReady(await reply.json());
  seen.textContent = `at ${new Date().toLocaleTimeString()}`;
  try {
    showFigures(await live.get("/v1/figures"));
    if (looks % COSTS_EVERY === 0) showCosts(await live.get("/v1/costs?group_by=day"));
    looks += 1;
  } catch {
    seen.textContent += ", without its history";
  }
}

look();
setInterval(look, EVERY_MS);
document.addEventListener("visibilitychange", look);
