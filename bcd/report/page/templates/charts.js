"use strict";
// The charts: differences with their intervals, and learning curves. Vega draws them as SVG, which has text and roles.
const LINES = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#9c755f", "#b6992d", "#d37295", "#79706e",
               "#86bcb6", "#ffbe7d", "#8cd17d", "#ff9d9a", "#d4a6c8", "#499894", "#d7b5a6", "#f1ce63", "#a0cbe8", "#bab0ac"];

function theme() {
  const [ink, muted, line] = ["ink", "muted", "line"].map(colour);
  return {
    background: "transparent", font: getComputedStyle(document.body).fontFamily, view: { stroke: null },
    axis: { labelColor: ink, titleColor: muted, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 12,
            titleFontSize: 12, titleFontWeight: "normal", labelLimit: 220, titlePadding: 8 },
    title: { color: ink, fontSize: 13, fontWeight: 600, anchor: "start", subtitleColor: muted, subtitleFontSize: 12 },
    legend: { labelColor: ink, titleColor: muted }, aria: true,
  };
}

// Expressions are interpreted (`ast`), so that the page needs no right to make code of strings.
async function draw(place, spec, clicked) {
  if (place.chart) place.chart.finalize();
  place.chart = await vegaEmbed(place, spec, {
    mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false, config: theme(),
    tooltip: (_, event, __, value) => showTip(event, value),
  });
  if (clicked) place.chart.view.addEventListener("click", (_, item) => item && item.datum && clicked(item.datum));
}

function showTip(event, value) {
  const tip = document.getElementById("tip");
  tip.hidden = value === null || value === undefined || value === "";
  if (tip.hidden) return;
  tip.textContent = typeof value === "object" ? Object.entries(value).map(([k, v]) => `${k}: ${v}`).join("\n") : String(value);
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
}

// --- differences -----------------------------------------------------------------------------------------------------

function forestRows(table, block, metric) {
  return block.rows.flatMap((row) => {
    const numbers = row.numbers[metric];
    if (!numbers.difference || numbers.difference.mean === null) return [];
    const { mean, low, high } = numbers.difference;
    const says = `${row.method}\n${numbers.difference_text}\n` + (numbers.mark ? `significantly ${numbers.mark}` : "no mark: not shown");
    return [{ method: row.method, metric, mean, low, high, mark: numbers.mark || "none", says }];
  });
}

function forestSeeds(block, metric) {
  return block.rows.flatMap((row) => (row.numbers[metric].difference || { values: [] }).values
    .filter((value) => value !== null).map((value) => ({ method: row.method, metric, value })));
}

function forestPanel(table, block, { name, title }, width, labels) {
  const rows = forestRows(table, block, name);
  const seeds = forestSeeds(block, name);
  const order = rows.map((row) => row.method);
  const y = { field: "method", type: "nominal", sort: order, title: null,
              axis: { labels, ticks: false, domain: false, labelPadding: 10, grid: false } };
  const tint = { field: "mark", type: "nominal", legend: null,
                 scale: { domain: ["better", "worse", "none"], range: [colour("better"), colour("worse"), colour("muted")] } };
  const says = { field: "says", type: "nominal" };
  return {
    width, height: { step: 24 }, title: { text: `Δ ${title}`, subtitle: block.gaps[name], offset: 10, frame: "group" },
    layer: [
      { data: { values: [{ zero: 0 }] }, mark: { type: "rule", color: colour("strong"), aria: false }, encoding: { x: { field: "zero", type: "quantitative" } } },
      ...(seeds.length ? [{ data: { values: seeds }, mark: { type: "point", filled: true, size: 14, opacity: 0.75, color: colour("seed"), yOffset: 7, aria: false },
        encoding: { x: { field: "value", type: "quantitative" }, y } }] : []),
      { data: { values: rows }, mark: { type: "rule", strokeWidth: 1.8, aria: false },
        encoding: { x: { field: "low", type: "quantitative", title: null, axis: { tickCount: 5, format: "+.3~r", labelExpr: "datum.value === 0 ? '0' : datum.label" } }, x2: { field: "high" }, y, color: tint, tooltip: says } },
      { data: { values: rows }, mark: { type: "point", filled: true, size: 70, opacity: 1, cursor: "pointer" },
        encoding: { x: { field: "mean", type: "quantitative" }, y, color: tint, tooltip: says, description: says,
                    shape: { field: "mark", type: "nominal", legend: null, scale: { domain: ["better", "worse", "none"], range: ["triangle-up", "triangle-down", "circle"] } } } },
    ],
  };
}

function drawForest(place) {
  const { table, block } = contextOf(place);
  const room = place.clientWidth;
  const longest = Math.max(...block.rows.map((row) => row.method.length));
  const labels = Math.min(220, 14 + 7.2 * longest);
  const count = table.metrics.length;
  const beside = room > labels + count * 190;
  const width = Math.max(140, beside ? (room - labels - 28 * count) / count : room - labels - 24);
  const panels = table.metrics.map((metric, i) => forestPanel(table, block, metric, Math.min(width, 420), !beside || i === 0));
  draw(place, { [beside ? "hconcat" : "vconcat"]: panels, spacing: beside ? 24 : 20, description: `Differences to ${table.baseline}` },
    (datum) => datum.method && openTrace(block, datum.method, datum.metric));
}

// --- learning curves -------------------------------------------------------------------------------------------------

function startCurves(details) {
  const { table, block } = contextOf(details);
  const names = [...new Set(block.curves.flatMap((run) => Object.keys(run.values)))].sort();
  const methods = [...new Set(block.curves.map((run) => run.method))];
  const first = new Set([table.baseline, methods.includes("bcd") ? "bcd" : methods[methods.length - 1]]);
  const quantity = details.querySelector(".quantity");
  quantity.append(...names.map((name) => make("option", { selected: name === "loss" }, name)));
  details.querySelector("fieldset").append(...methods.map((method, i) => {
    const box = make("input", { type: "checkbox", value: method, checked: first.has(method) });
    const swatch = make("span", { class: "swatch", style: `background:${LINES[i % LINES.length]}` });
    return make("label", { class: "check" }, box, " ", swatch, method);
  }));
  details.addEventListener("change", () => drawCurves(details, methods));
  drawCurves(details, methods);
}

function drawCurves(details, methods) {
  const { block } = contextOf(details);
  const quantity = details.querySelector(".quantity").value;
  const chosen = new Set([...details.querySelectorAll("fieldset input:checked")].map((box) => box.value));
  const values = block.curves.filter((run) => chosen.has(run.method) && run.values[quantity])
    .flatMap((run) => run.steps.map((step, i) => ({ step, value: run.values[quantity][i], method: run.method, run: `${run.method} ${run.run}` })));
  const place = details.querySelector(".chart");
  draw(place, {
    width: Math.min(place.clientWidth - 70, 900), height: 260, data: { values }, description: `${quantity} over the steps of training`,
    mark: { type: "line", strokeWidth: 1.4, opacity: 0.85, invalid: "break-paths-show-path-domains" },
    encoding: {
      x: { field: "step", type: "quantitative", title: "step", axis: { grid: false, tickCount: 6 } },
      y: { field: "value", type: "quantitative", title: quantity, scale: { zero: false } },
      color: { field: "method", type: "nominal", legend: null, scale: { domain: methods, range: methods.map((_, i) => LINES[i % LINES.length]) } },
      detail: { field: "run", type: "nominal" }, tooltip: { field: "run", type: "nominal" },
    },
  });
}

// --- when ------------------------------------------------------------------------------------------------------------

function drawAll() {
  for (const place of document.querySelectorAll(".forest")) if (place.chart) drawForest(place);
  for (const details of document.querySelectorAll(".curves[open]")) details.dispatchEvent(new Event("change"));
}

for (const place of document.querySelectorAll(".forest")) whenSeen(place, () => drawForest(place));
for (const details of document.querySelectorAll(".curves")) {
  details.addEventListener("toggle", () => startCurves(details), { once: true });
}
let width = innerWidth;
let waiting;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 150);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
