"use strict";
// a click on a heading sorts by its column, another the other way; what is empty comes last
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way);
      sort(table.tBodies[0], column, way === "ascending" ? 1 : -1);
    });
  });
}

function sort(body, column, sign) {
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const compare = (one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    const ordered = isNaN(x) || isNaN(y) ? a.localeCompare(b) : x - y;
    return sign * ordered;
  };
  body.append(...[...body.rows].sort(compare));
}

// paper has no scroll bar: there a wide table is several, each with its first column
const PAPER = 790; // pixels of the screen, whose type is larger

addEventListener("beforeprint", () => {
  for (const table of document.querySelectorAll(".wide table")) {
    if (table.offsetWidth > PAPER) table.after(...portions(table));
  }
});
addEventListener("afterprint", () => {
  document.querySelectorAll(".portion").forEach((portion) => portion.remove());
});

function portions(table) {
  const widths = [...table.tHead.rows[0].cells].map((cell) => cell.offsetWidth);
  const groups = [];
  let room = 0;
  for (let column = 1; column < widths.length; column++) {
    if (widths[column] > room) {
      groups.push([0]);
      room = PAPER - widths[0];
    }
    groups.at(-1).push(column);
    room -= widths[column];
  }
  return groups.map((columns) => portion(table, columns));
}

function portion(table, columns) {
  const copy = table.cloneNode(true);
  copy.className = "portion";
  for (const row of copy.rows) {
    row.replaceChildren(...columns.map((column) => row.cells[column]));
  }
  return copy;
}
