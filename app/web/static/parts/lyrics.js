// The words of a song where they are sung: the line that is on, and its words as their times come.

import { lineAt } from "./lyrics_time.js";

/** @typedef {{start_ms: number, end_ms: number, text: string, words: Array<{text: string, start_ms: number}>}} Line */

const QUIET = matchMedia("(prefers-reduced-motion: reduce)");

export class Lyrics {
  /** @param {HTMLElement} root An empty list. */
  constructor(root) {
    this._root = root;
    /** @type {Line[]} */
    this.lines = [];
    this._at = null;
  }

  /** @param {Line[]} lines */
  fill(lines) {
    this.lines = lines;
    this._at = null;
    this._root.replaceChildren(...lines.map((line) => {
      const item = document.createElement("li");
      item.dir = "auto";
      if (!line.words.length) item.textContent = line.text;
      for (const [index, word] of line.words.entries()) {
        if (index) item.append(" ");
        item.append(Object.assign(document.createElement("span"), { textContent: word.text }));
      }
      return item;
    }));
    this._root.scrollTop = 0;
  }

  /** Show where the song is. @param {number} ms Position and offset together. */
  show(ms) {
    const at = lineAt(this.lines, ms), items = this._root.children;
    if (at !== this._at) {
      items[this._at]?.removeAttribute("aria-current");
      this._at = at;
      const item = items[at];
      item?.setAttribute("aria-current", "true");
      const top = item ? item.offsetTop - this._root.offsetTop - (this._root.clientHeight - item.offsetHeight) / 2 : 0;
      this._root.scrollTo({ top, behavior: QUIET.matches ? "auto" : "smooth" });
    }
    const line = this.lines[at];
    if (!line) return;
    for (const [index, word] of line.words.entries()) items[at].children[index].classList.toggle("sung", word.start_ms <= ms);
  }
}
