"use strict";
// Answers who looks at a page.

// ---- who points at a chart sees its numbers, and chooses a part of it

function point(figure, event) {
  const { svg, drawn, toX, margin, inner, left, right, width } = figure.view;
  const box = svg.getBoundingClientRect();
  const across = ((event.clientX - box.left) / box.width) * width;
  const share = (across - margin.left) / inner.width;
  leave(figure);
  if (share < 0 || share > 1 || !drawn.length) return null;
  const wanted = left + share * (right - left);
  const rows = drawn.filter(({ xs }) => xs.length).map((each) => {
    let place = Math.min(after(each.xs, wanted), each.xs.length - 1);
    if (place > 0 && wanted - each.xs[place - 1] < each.xs[place] - wanted) place--;
    return { tone: each.tone, label: each.label, x: each.xs[place], y: each.ys[place] };
  });
  const nearest = rows.reduce((best, row) => (Math.abs(row.x - wanted) < Math.abs(best.x - wanted) ? row : best));
  const x = toX(nearest.x);
  element("line", { class: "cursor", x1: x, x2: x, y1: margin.top, y2: margin.top + inner.height }, svg);
  figure.append(tip(rows, nearest.x, x, width));
  return wanted;
}

function tip(rows, at, x, width) {
  const MOST = 12;
  const box = document.createElement("div");
  box.className = "tip";
  const heading = document.createElement("div");
  heading.textContent = state.x === "time" ? clockTime(at) : `${Math.round(at).toLocaleString("en")} ${state.x}`;
  box.append(heading);
  rows.sort((a, b) => b.y - a.y).slice(-MOST).forEach((row) => {
    const entry = document.createElement("div");
    const name = document.createElement("span");
    const value = document.createElement("b");
    name.textContent = row.label;
    value.textContent = `${+row.y.toPrecision(5)}`;
    entry.append(swatch(row.tone), name, value);
    box.append(entry);
  });
  box.style.top = "2.2rem";
  box.style[x > width / 2 ? "left" : "right"] = "3.2rem";
  if (x > width / 2) box.style.left = "4.2rem";
  return box;
}

function leave(figure) {
  figure.querySelectorAll(".tip, svg .cursor").forEach((node) => node.remove());
}

function watch(figure) {
  let start = null;
  const chosen = (from, to) => {
    const { svg, toX, margin, inner } = figure.view;
    svg.querySelectorAll(".selection").forEach((node) => node.remove());
    const [a, b] = [toX(Math.min(from, to)), toX(Math.max(from, to))];
    element("rect", { class: "selection", x: a, width: b - a, y: margin.top, height: inner.height }, svg);
  };
  figure.addEventListener("pointermove", (event) => {
    const at = point(figure, event);
    if (start !== null && at !== null) chosen(start, at);
  });
  figure.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.target.closest("svg")) start = point(figure, event);
  });
  figure.addEventListener("pointerup", (event) => {
    const from = start, to = point(figure, event);
    start = null;
    if (from === null || to === null) return;
    const { left, right } = figure.view;
    if (Math.abs(to - from) < (right - left) / 50) return;
    state.range = [Math.min(from, to), Math.max(from, to)];
    drawAll();
  });
  figure.addEventListener("pointerleave", () => { start = null; leave(figure); });
  figure.addEventListener("dblclick", () => { state.range = null; drawAll(); });
}

// ---- the page around the charts

function drawAll() {
  page.charts.forEach(draw);
  document.querySelectorAll("[data-zoomed]").forEach((node) => { node.hidden = !state.range; });
}

function legend() {
  const box = document.querySelector(".legend");
  const entries = runs.length > 1
    ? page.groups.map((group, place) => [place, group.label, true])
    : page.charts[0].columns.map((column, tone) => [tone, NAMES[column], false]);
  entries.forEach(([tone, label, isSwitch]) => {
    const button = document.createElement(isSwitch ? "button" : "span");
    if (isSwitch) {
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.addEventListener("click", () => {
        const isHidden = !state.hidden.delete(tone) && Boolean(state.hidden.add(tone));
        button.setAttribute("aria-pressed", String(!isHidden));
        drawAll();
      });
    }
    button.append(swatch(tone), document.createTextNode(isSwitch ? label : ` ${label}  `));
    box.append(button);
  });
}

function controls() {
  const on = (name, event, act) => document.querySelectorAll(`[name="${name}"]`).forEach((input) => {
    input.addEventListener(event, () => { act(input); drawAll(); });
  });
  on("x", "change", (input) => { state.x = input.value; state.range = null; });
  on("whole", "change", (input) => { state.whole = input.checked; });
  on("mean", "change", (input) => { state.mean = input.checked; });
  on("smoothing", "input", (input) => {
    // From none to a tenth of the run, finer where it is small.
    state.window = input.value > 0 ? (page.steps / 10) * (input.value / 100) ** 2 : 0;
    document.querySelector("[data-window]").textContent = `${short(Math.round(state.window))} ${Math.round(state.window) === 1 ? "step" : "steps"}`;
  });
  document.querySelectorAll("[data-log]").forEach((input) => input.addEventListener("change", () => {
    logarithmic.set(input.dataset.log, input.checked);
    drawAll();
  }));
  document.querySelectorAll("[data-zoomed]").forEach((node) => node.addEventListener("click", () => {
    state.range = null;
    drawAll();
  }));
  const wanted = Math.sqrt((page.window * 10) / page.steps) * 100;
  document.querySelectorAll('[name="smoothing"]').forEach((input) => { input.value = Math.min(wanted, 100); });
  state.mean = Boolean(document.querySelector('[name="mean"]:checked'));
}

function samples(block) {
  const all = [...block.querySelectorAll("article")];
  if (all.length < 2) return;
  const steps = [...new Set(all.map((article) => article.dataset.step))];
  const label = document.createElement("label");
  const slider = document.createElement("input");
  const name = document.createElement("span");
  Object.assign(slider, { type: "range", min: 0, max: steps.length - 1, value: steps.length - 1 });
  label.className = "choice";
  label.append(name, slider);
  const show = () => {
    const step = steps[slider.value];
    name.textContent = `after step ${Number(step).toLocaleString("en")}`;
    all.forEach((article) => { article.hidden = article.dataset.step !== step; });
  };
  slider.addEventListener("input", show);
  block.prepend(label);
  show();
}

document.querySelectorAll(".samples").forEach(samples);
if (page.charts.length) {
  document.querySelectorAll("[hidden].drawn").forEach((node) => { node.hidden = false; });
  legend();
  controls();
  document.querySelectorAll("figure[data-chart]").forEach(watch);
  drawAll();
  let pending = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(pending);
    pending = requestAnimationFrame(drawAll);
  });
}
document.documentElement.dataset.ready = "yes";
