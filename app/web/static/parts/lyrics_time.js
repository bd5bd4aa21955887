// Which line of a song is on. It asks nothing of the page.

/** The line that is on: the last that begins by then; -1 before the first. @param {Line[]} lines */
export function lineAt(lines, ms) {
  let low = 0, high = lines.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lines[middle].start_ms <= ms) low = middle + 1; else high = middle;
  }
  return low - 1;
}
