"use strict";
// Tables that are sorted by a click on a heading, and searched.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    head.querySelector("button")?.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "none" ? column > 0 : head.getAttribute("aria-sort") === "ascending";
      for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const value = (row) => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent; };
      const number = (text) => (text === "" || isNaN(text) ? null : Number(text));
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)], [m, n] = [number(x), number(y)];
        if (m === null && n === null) return x.localeCompare(y) * (descending ? -1 : 1);
        if (m === null || n === null) return m === null ? 1 : -1; // without a value: last
        return (m - n) * (descending ? -1 : 1);
      });
      body.append(...rows);
    });
  });
}
for (const input of document.querySelectorAll("input.find")) {
  const rows = document.getElementById(input.getAttribute("aria-controls")).tBodies[0].rows;
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  });
}
// From a cell of the confusion matrix to its images. Arrow keys move between cells, of which one is in the tab order.
const data = document.getElementById("cells");
if (data) {
  const {images, cells, classes} = JSON.parse(data.textContent);
  const panel = document.getElementById("cell");
  const space = "http://www.w3.org/2000/svg";
  const make = (name, attributes, ...children) => {
    const element = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const box = (style, [x, y, x2, y2], text, unit) => make("g", {class: style},
    make("rect", {x, y, width: Math.max(x2 - x, 0), height: Math.max(y2 - y, 0), "stroke-width": 2.2 * unit}),
    make("text", {x, y: y > 18 * unit ? y - 4 * unit : y + 14 * unit, "font-size": 13 * unit, "stroke-width": 3 * unit}, text));
  const photo = ([image, truth, found, score], row, column) => {
    const {name, id, width, height, photo} = images[image];
    const unit = Math.max(width, height) / 440, caption = document.createElement("figcaption");
    caption.textContent = `${name} (id ${id})`;
    const figure = document.createElement("figure");
    const svg = make("svg", {class: "photo", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": caption.textContent},
      make("rect", {class: "nothing", width, height}));
    if (photo) svg.append(make("use", {href: `#i${image}`}));
    if (truth) svg.append(box("target", truth, found ? "" : classes[row], unit));
    if (found) svg.append(box(row === column ? "found" : "error", found, `${classes[column]} ${score.toFixed(2)}`, unit));
    figure.append(svg, caption);
    return figure;
  };
  const open = (button) => {
    const [row, column] = button.dataset.cell.split(",").map(Number);
    const entries = cells[button.dataset.cell] ?? [];
    for (const other of document.querySelectorAll(".matrix [aria-pressed=true]")) other.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-pressed", "true");
    const title = document.createElement("h3"), note = document.createElement("p"), photos = document.createElement("div");
    const count = button.dataset.count, last = classes.length - 1;
    title.textContent = column === last ? `${classes[row]} not found: ${count}` : row === last
      ? `${classes[column]} detected where there is no object: ${count}` : row === column
        ? `${classes[row]} found: ${count}` : `${classes[row]} detected as ${classes[column]}: ${count}`;
    title.tabIndex = -1;
    note.className = "quiet";
    note.textContent = entries.length < count ? `${entries.length} of them, highest scores first.` : "";
    photos.className = "photos";
    photos.append(...entries.map((entry) => photo(entry, row, column)));
    panel.replaceChildren(title, note, photos);
    title.focus();
    panel.scrollIntoView({block: "nearest"});
  };
  const matrix = document.querySelector(".matrix"), buttons = [...matrix.querySelectorAll("button")];
  if (buttons.length) buttons[0].tabIndex = 0;
  matrix.addEventListener("click", (event) => { const button = event.target.closest("button"); if (button) open(button); });
  for (const link of document.querySelectorAll("[data-open]")) {
    link.addEventListener("click", () => {
      const button = matrix.querySelector(`[data-cell="${link.dataset.open}"]`);
      if (button) open(button);
    });
  }
  matrix.addEventListener("keydown", (event) => {
    const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
    const cell = event.target.closest("td");
    if (!step || !cell) return;
    event.preventDefault();
    const rows = matrix.tBodies[0].rows;
    let [r, c] = [cell.parentNode.rowIndex - 1, cell.cellIndex];
    for (;;) {
      r += step[0]; c += step[1];
      const next = rows[r]?.cells[c];
      if (!next || next.tagName !== "TD") return;
      const button = next.querySelector("button");
      if (button) { event.target.tabIndex = -1; button.tabIndex = 0; button.focus(); return; }
    }
  });
}
