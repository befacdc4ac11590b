"use strict";
// What all widgets share: the data of the page, new elements, and which block of which table an element is in.
const DATA = JSON.parse(document.getElementById("data").textContent);

function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function contextOf(element) {
  const block = element.closest("[data-block]");
  const table = DATA.tables[block.closest("[data-table]").dataset.table];
  return { element: block, table, block: table.blocks[block.dataset.block] };
}

function signed(value) {
  if (value === null || value === undefined) return "n/a";
  const text = Math.abs(value).toFixed(2);
  return text === "0.00" ? text : (value > 0 ? "+" : "-") + text;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Runs `draw` when an element first comes near the screen, so that a long page opens at once.
function whenSeen(element, draw) {
  const watcher = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watcher.disconnect();
    draw();
  }, { rootMargin: "400px" });
  watcher.observe(element);
}
