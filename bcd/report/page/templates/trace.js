"use strict";
// Where the numbers of a cell come from: its runs, their records, and the commands that repeat them.
const dialog = document.getElementById("trace");

function facts(pairs) {
  const shown = pairs.filter(([, value]) => value);
  return make("dl", { class: "facts" }, ...shown.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function state(run) {
  const said = [];
  if (run.stale) said.push("stale");
  if (run.standing.length) said.push(`stood still: ${run.standing.join(", ")}`);
  return said.join("; ") || "today’s";
}

function runsTable(row, values) {
  const head = ["run", "seed", "value", "state"].map((name) => make("th", { scope: "col" }, name));
  const lines = row.runs.map((run, i) => make("tr", {},
    make("th", { scope: "row" }, run.name), make("td", {}, String(run.seed)),
    make("td", {}, values[i] === null ? "n/a" : values[i].toFixed(2)), make("td", {}, state(run))));
  return make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Runs" },
    make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...lines)));
}

function files(run) {
  return make("details", {}, make("summary", {}, `Files of ${run.name}`), facts([
    ["key", code(run.key)], ["run file", code(`results/${run.file}`)], ["record", code(`results/${run.record}`)],
    ["store", code(`results/${run.store}`)], ["per-image rows", code(`results/${run.rows}`)],
    ["their sha256", code(run.rows_sha256)], ["evaluation", code(run.evaluation)]]));
}

const code = (text) => make("code", {}, text);

function openTrace(block, method, metric) {
  const table = DATA.tables.find((one) => one.blocks.includes(block));
  const row = block.rows.find((one) => one.method === method);
  const numbers = row.numbers[metric];
  const name = (block.columns.find((one) => one.kind === "value" && one.metric === metric)).title;
  const found = numbers.difference;
  const close = make("button", { type: "button", class: "quiet", autofocus: true }, "Close");
  close.addEventListener("click", () => dialog.close());
  dialog.replaceChildren(
    make("header", {}, make("div", {}, make("p", { class: "eyebrow" }, `${table.name}, ${name}`), make("h2", { id: "trace-title" }, row.title)), close),
    facts([
      ["value", numbers.text],
      [`difference to ${table.baseline}`, found ? numbers.difference_text : null],
      ["of single seeds", found && found.values.some((one) => one !== null) ? found.values.map(signed).join(", ") : null],
      ["difference to PyTorch", numbers.to_pytorch ? numbers.to_pytorch_text : null],
      ["p-value", found && found.p !== null ? `${found.p.toPrecision(2)} before the correction` : null],
      ["mark", found ? (numbers.mark ? `significantly ${numbers.mark}` : "none: the table does not show a difference") : null],
      ["trained by commit", row.commits.length ? code(row.commits.join(", ")) : null],
      ["stale", row.stale.length ? `${row.stale.join(", ")}: the code has changed since` : null],
    ]),
    make("h3", {}, "Runs"),
    row.runs.length ? runsTable(row, numbers.values) : make("p", {}, table.without_runs),
    ...row.runs.map(files),
    ...[...row.commands, table.again].flatMap(({ what, command }) => [make("h3", {}, what), make("pre", {}, code(command))]),
  );
  dialog.showModal();
}

for (const button of document.querySelectorAll(".results td button")) {
  button.addEventListener("click", () => {
    const { block } = contextOf(button);
    openTrace(block, block.rows[button.closest("tr").dataset.row].method, button.dataset.metric);
  });
}
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
