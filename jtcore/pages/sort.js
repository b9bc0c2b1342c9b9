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
