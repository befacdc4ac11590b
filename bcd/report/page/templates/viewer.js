"use strict";
// Two methods beside each other on one image, those images first in which they differ most.
function share(image, methods, left, right) {
  const [i, j] = [methods.indexOf(left), methods.indexOf(right)].sort((a, b) => a - b);
  return i === j ? 0 : image.differ[j][i];
}

function frame(picture, photo, over, alt) {
  const images = [make("img", { src: DATA.pictures[picture], alt, class: photo ? "photo" : "map" })];
  if (over) images.push(make("img", { src: DATA.pictures[over], alt: "", class: "map over" }));
  return make("div", { class: "frame" }, ...images);
}

function shot(viewer, image, what, errors) {
  if (what === "image") return frame(image.image, true, null, `Image ${image.name}`);
  if (what === "label") return frame(image.label, !viewer.marks, null, `Label of ${image.name}`);
  const [picture, over] = image.seen[what];
  return frame(picture, !viewer.marks, errors ? over : null, `${what} on ${image.name}`);
}

function figure(viewer, image, what, errors, caption) {
  return make("figure", {}, shot(viewer, image, what, errors), make("figcaption", {}, ...caption));
}

function show(part) {
  const viewer = contextOf(part).block.viewer;
  const [left, right] = [part.querySelector(".left").value, part.querySelector(".right").value];
  const slider = part.querySelector("input[type=range]");
  const marked = part.querySelector(".errors");
  const errors = Boolean(marked && marked.checked);
  const order = [...viewer.images].sort((a, b) => share(b, viewer.methods, left, right) - share(a, viewer.methods, left, right));
  const image = order[slider.value - 1];
  const percent = (100 * share(image, viewer.methods, left, right)).toFixed(1);
  const said = `Image ${slider.value} of ${order.length}, ${image.name}: ${left} and ${right} differ in ${percent} % of its pixels.`;
  part.querySelector(".said").textContent = said;
  slider.setAttribute("aria-valuetext", `${slider.value} of ${order.length}, ${image.name}`);
  const seed = (method) => make("small", {}, `seed ${viewer.runs[method]}`);
  const teacher = viewer.methods.includes("teacher") ? [figure(viewer, image, "teacher", errors, ["teacher"])] : [];
  part.querySelector(".known").replaceChildren(
    figure(viewer, image, "image", errors, ["image"]), figure(viewer, image, "label", errors, ["label"]), ...teacher);
  part.querySelector(".compared").replaceChildren(
    ...[left, right].map((method) => figure(viewer, image, method, errors, [make("b", {}, method), seed(method)])));
}

function showPanels(details) {
  const viewer = contextOf(details).block.viewer;
  const columns = ["image", "label", ...viewer.methods];
  const head = make("tr", {}, make("th", { scope: "col" }, "name"), ...columns.map((what) => make("th", { scope: "col" }, what)));
  const rows = viewer.images.map((image) => make("tr", {}, make("th", { scope: "row" }, image.name),
    ...columns.map((what) => make("td", {}, shot(viewer, image, what, true)))));
  details.querySelector(".scroll").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

function startViewer(part) {
  const { table, block } = contextOf(part);
  const methods = block.viewer.methods.filter((method) => method !== "teacher");
  const other = methods.includes("bcd") ? "bcd" : methods[methods.length - 1];
  part.querySelector(".left").value = methods.includes(table.baseline) ? table.baseline : methods[0] || "teacher";
  part.querySelector(".right").value = other || "teacher";
  part.querySelector(".controls").addEventListener("input", () => show(part));
  show(part);
}

for (const part of document.querySelectorAll(".viewer")) whenSeen(part, () => startViewer(part));
for (const details of document.querySelectorAll(".panels")) {
  details.addEventListener("toggle", () => showPanels(details), { once: true });
}
