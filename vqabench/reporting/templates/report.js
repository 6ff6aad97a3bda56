"use strict";

// Every column's head becomes a button that sorts the table by it, and every picture of regions one that enlarges it.
// The page needs no script for anything else.

function value(cell, numeric) {
  const text = cell.textContent.trim();
  if (!numeric) return text === "" ? null : text;
  const found = text.replace(/\u2212/g, "-").replace(/,/g, "").match(/[-+]?\d+(\.\d+)?/);
  return found ? Number(found[0]) : null;
}

function compare(first, second, numeric) {
  return numeric ? first - second : first.localeCompare(second, "en", { numeric: true });
}

function sort(table, heads, column) {
  const head = heads[column];
  const numeric = head.classList.contains("number");
  const before = head.getAttribute("aria-sort");
  const first = numeric ? "descending" : "ascending";
  const second = numeric ? "ascending" : "descending";
  const order = before === first ? second : first;
  const sign = order === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [value(row.cells[column], numeric), row]);
  rows.sort(([one], [other]) => {
    if (one === null || other === null) return (one === null) - (other === null);
    return sign * compare(one, other, numeric);
  });
  for (const other of heads) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  body.append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, heads, column));
    head.append(button);
  });
}

document.getElementById("sorting").hidden = false;

// The picture itself moves into the dialog and back: a copy would bring its names into the page twice.
const dialog = document.createElement("dialog");
const close = document.createElement("button");
close.type = "button";
close.textContent = "Close";
close.addEventListener("click", () => dialog.close());

function enlarge(button, scene, title) {
  const place = document.createElement("span");
  const caption = document.createElement("p");
  caption.textContent = title;
  scene.replaceWith(place);
  dialog.replaceChildren(scene, caption, close);
  dialog.setAttribute("aria-label", title);
  dialog.addEventListener("close", () => {
    place.replaceWith(scene);
    button.focus();
  }, { once: true });
  dialog.showModal();
  close.focus();
}

const scenes = [...document.querySelectorAll(".scene")];
for (const scene of scenes) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "enlarge";
  const title = scene.querySelector("title").textContent;
  button.setAttribute("aria-label", `Enlarge: ${title}`);
  scene.replaceWith(button);
  button.append(scene);
  button.addEventListener("click", () => enlarge(button, scene, title));
}
if (scenes.length) document.body.append(dialog);
for (const hint of document.querySelectorAll(".enlarging")) hint.hidden = scenes.length === 0;
