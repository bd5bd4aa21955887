// Times in the reader's own zone, and distances from now that stay true.

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const WHOLE = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeStyle: "long" });
const STEPS = [[60, "s", 1], [3600, "min", 60], [86_400, "h", 3600], [Infinity, "d", 86_400]];
const EVERY_MS = 5_000;

/** @param {number} seconds */
export function ago(seconds) {
  const distance = Math.abs(seconds);
  if (distance < 3) return "now";
  const [, unit, size] = STEPS.find(([below]) => distance < below);
  const amount = `${Math.floor(distance / size)} ${unit}`;
  return seconds >= 0 ? `${amount} ago` : `in ${amount}`;
}

/** A duration as `words.py` puts it. @param {number|null} value */
export function seconds(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor(whole / 60) % 60).padStart(2, "0")} min`;
}

/** A position in a sound: `1:07`. */
export function clock(value) {
  const whole = Math.max(0, Math.floor(value || 0));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** Put every time below `root` into words. */
export function showTimes(root = document) {
  const now = Date.now();
  for (const each of root.querySelectorAll("time[datetime]")) {
    const at = new Date(each.dateTime);
    each.title ||= WHOLE.format(at);
    const isToday = new Date(now).toDateString() === at.toDateString();
    const words = "ago" in each.dataset ? ago((now - at) / 1000) : (isToday ? CLOCK : DAY).format(at);
    if (each.textContent !== words) each.textContent = words;
  }
}

export function keepTimes() {
  showTimes();
  setInterval(showTimes, EVERY_MS);
}
