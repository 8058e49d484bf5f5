"use strict";
// What all pages can do: sort tables, and be light or dark.

function sortable(table) {
  const body = table.tBodies[0];
  table.querySelectorAll("th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const isDown = heading.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", isDown ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [key(row.cells[column]), row]);
      const sign = isDown ? -1 : 1;
      rows.sort(([a], [b]) => order(a, b, sign));
      body.append(...rows.map(([, row]) => row));
    });
  });
}

function key(cell) {
  const value = cell.dataset.value ?? cell.textContent;
  const number = Number(value);
  return value === "" || Number.isNaN(number) ? value : number;
}

// Numbers before texts, and what is not known last, whichever way.
function order(a, b, sign) {
  if (a === "" || b === "") return (a === "") - (b === "");
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
}

function switchTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
}

document.querySelector("[data-theme-switch]").addEventListener("click", switchTheme);
document.querySelectorAll("table.sortable").forEach(sortable);
