// The line of singers, as it was told last.

/** Show who waits. @param {(row: HTMLElement, entry: object, of: number) => void} [finish] For each row. */
export function showSingers(queue, finish = () => {}) {
  const list = document.getElementById("singers");
  const template = document.getElementById("singer-row");
  list.replaceChildren(...queue.items.map((entry) => {
    const row = template ? template.content.firstElementChild.cloneNode(true) : plainRow();
    row.dataset.entry = entry.id;
    row.querySelector("[data-name]").textContent = entry.singer;
    row.querySelector("[data-song]").textContent = entry.song.title;
    finish(row, entry, queue.items.length);
    return row;
  }));
  document.getElementById("nobody").hidden = queue.items.length > 0;
}

function plainRow() {
  const [row, both, name, song] = ["li", "div", "strong", "span"].map((each) => document.createElement(each));
  name.dataset.name = song.dataset.song = "";
  name.dir = song.dir = "auto";
  song.className = "faint";
  both.append(name, " ", song);
  row.append(both);
  return row;
}

/** Who sings, in words. */
export function singerOf(queue) {
  return queue?.singing ? `${queue.singing.singer} sings` : "";
}
