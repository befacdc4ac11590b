"use strict";
// Sorting by a column, and the columns that are not main metrics.
function sortBy(head) {
  const table = head.closest("table");
  const body = table.tBodies[0];
  const column = head.cellIndex;
  const upwards = head.getAttribute("aria-sort") === "descending" || (column === 0 && head.getAttribute("aria-sort") === "none");
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", upwards ? "ascending" : "descending");
  const rows = [...body.rows].sort((a, b) => compareRows(a, b, column, upwards ? 1 : -1));
  body.append(...rows);
}

// The teacher stays on top, and what has no number at the end.
function compareRows(a, b, column, direction) {
  const pinned = Number(b.className === "teacher") - Number(a.className === "teacher");
  if (pinned) return pinned;
  const [one, other] = [a, b].map((row) => row.cells[column].dataset.sort);
  if (column === 0) return direction * one.localeCompare(other);
  if (one === "" || other === "") return Number(one === "") - Number(other === "");
  return direction * (Number(one) - Number(other));
}

function toggleMetrics(button) {
  const shown = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(shown));
  for (const cell of button.closest(".block").querySelectorAll(".results .more")) cell.hidden = !shown;
}

for (const button of document.querySelectorAll(".results thead button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}
for (const button of document.querySelectorAll(".all-metrics")) {
  button.addEventListener("click", () => toggleMetrics(button));
}
