"use strict";
// Draws the curves of a chart.

function element(name, attributes, parent, text) {
  const made = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

const colour = (tone) => tone % N_COLOURS;
const dash = (tone) => DASHES[Math.floor(tone / N_COLOURS) % DASHES.length];

// The path through some points: of those in one pixel, its first and last, lowest and highest.
function path(xs, lows, highs, toX, toY) {
  const parts = [];
  let column = null, low, high, first, last, isLowFirst;
  const flush = () => {
    if (column === null) return;
    const [a, b] = isLowFirst ? [low, high] : [high, low];
    const ys = [first, a, b, last].filter((y, i, all) => i === 0 || y !== all[i - 1]);
    parts.push(...ys.map((y) => `${column},${y}`));
  };
  for (let i = 0; i < xs.length; i++) {
    const x = toX(xs[i]);
    if (x < -5e3 || x > 5e4 || Number.isNaN(x)) continue;
    const here = Math.round(x * 2) / 2;
    const top = toY(highs[i]), bottom = toY(lows[i]);
    if (Number.isNaN(top) || Number.isNaN(bottom)) continue;
    if (here !== column) {
      flush();
      [column, low, high, first, last, isLowFirst] = [here, bottom, top, bottom, top, true];
    } else {
      if (bottom > low) { low = bottom; isLowFirst = false; }
      if (top < high) { high = top; isLowFirst = true; }
      last = top;
    }
  }
  flush();
  return parts.length ? `M${parts.join("L")}` : "";
}

function draw(chart) {
  const figure = document.querySelector(`figure[data-chart="${chart.name}"]`);
  const old = figure.querySelector(":scope > svg");
  const width = Math.max(figure.clientWidth - 20, 240);
  const height = Math.round(Math.min(figure.parentElement.firstElementChild === figure ? 360 : 250, width * 0.85));
  const isLog = logarithmic.get(chart.name);
  const drawn = lines(chart);
  const planned = chart.columns.flatMap((column) => runs
    .map((run, place) => ({ run, place, curve: run.planned[column] }))
    .filter(({ curve, place }) => curve && !state.hidden.has(groupOf[place]))
    .map(({ run, place, curve }) => ({
      tone: runs.length > 1 ? groupOf[place] : chart.columns.indexOf(column),
      xs: across(run, curve.steps), ys: curve.values, isBeyond: state.x === "time",
    }))).filter((plan) => !plan.isBeyond);
  const all = [...drawn, ...planned];
  const [left, right] = state.range || extent(all.map(({ xs }) => xs));
  const [bottom, top] = heights(all, isLog, chart.is_from_zero);
  const size = (value) => (isLog ? Math.log(value) : value);
  const labels = ticks(bottom, top, Math.max(3, height / 55), isLog);
  const margin = { left: 12 + 7 * Math.max(3, ...written(labels).map((text) => text.length)), right: 12, top: 8, bottom: 40 };
  const inner = { width: width - margin.left - margin.right, height: height - margin.top - margin.bottom };
  const toX = (x) => margin.left + ((x - left) / (right - left || 1)) * inner.width;
  const toY = (y) => {
    const share = (size(Math.max(y, isLog ? bottom / 1e3 : -Infinity)) - size(bottom)) / (size(top) - size(bottom));
    return Math.round((margin.top + (1 - Math.min(Math.max(share, -3), 4)) * inner.height) * 10) / 10;
  };
  const svg = element("svg", {
    viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": `${chart.title}, ${chart.unit}, against ${AXES[state.x][0]}`,
  });
  const clip = `clip-${chart.name}`;
  element("rect", { x: margin.left, y: margin.top, width: inner.width, height: inner.height },
    element("clipPath", { id: clip }, svg));
  axes(svg, { margin, inner, toX, toY, left, right, labels, width, height });
  const plot = element("g", { "clip-path": `url(#${clip})` }, svg);
  planned.forEach((plan) => element("path", {
    class: `planned c${colour(plan.tone)}`, d: path(plan.xs, plan.ys, plan.ys, toX, toY),
  }, plot));
  drawn.forEach((each) => drawLine(plot, each, toX, toY));
  if (old) old.replaceWith(svg); else figure.append(svg);
  Object.assign(figure, { view: { svg, drawn, toX, margin, inner, left, right, width, height } });
}

function drawLine(plot, { tone, column, label, n, xs, ys, raw, band, isMarked }, toX, toY) {
  const stroke = `c${colour(tone)}`;
  if (band) {
    const upper = xs.map((x, i) => `${toX(x)},${toY(band.high[i])}`);
    const lower = xs.map((x, i) => `${toX(x)},${toY(band.low[i])}`).reverse();
    element("path", { class: `band f${colour(tone)}`, d: `M${[...upper, ...lower].join("L")}Z` }, plot);
  }
  if (raw) {
    const d = path(xs, raw.low || raw.values, raw.high || raw.values, toX, toY);
    element("path", { class: `raw ${stroke}`, d, "data-column": column }, plot);
  }
  const attributes = { class: `line ${stroke}`, d: path(xs, ys, ys, toX, toY), "data-column": column, "data-points": n };
  if (dash(tone)) attributes["stroke-dasharray"] = dash(tone);
  element("title", {}, element("path", attributes, plot), label);
  if (isMarked && xs.length <= 60) {
    for (let i = 0; i < xs.length; i++) {
      element("circle", { cx: toX(xs[i]), cy: toY(ys[i]), r: 2.6, class: `f${colour(tone)}` }, plot);
    }
  }
}

function axes(svg, { margin, inner, toX, toY, left, right, labels, height }) {
  const low = margin.top + inner.height;
  const texts = written(labels);
  labels.forEach((value, place) => {
    const y = toY(value);
    element("line", { class: "grid", x1: margin.left, x2: margin.left + inner.width, y1: y, y2: y }, svg);
    element("text", { x: margin.left - 6, y: y + 4, "text-anchor": "end" }, svg, texts[place]);
  });
  const [name, inUnits] = AXES[state.x];
  const unit = state.x === "time" ? (right > 7200 ? 3600 : right > 120 ? 60 : 1) : 1;
  ticks(left / unit, right / unit, Math.max(2, inner.width / 90), false).forEach((value) => {
    const x = toX(value * unit);
    element("line", { class: "grid", x1: x, x2: x, y1: margin.top, y2: low }, svg);
    element("text", { x, y: low + 17, "text-anchor": "middle" }, svg, inUnits(value * unit));
  });
  element("line", { class: "axis", x1: margin.left, x2: margin.left + inner.width, y1: low, y2: low }, svg);
  element("text", { x: margin.left + inner.width / 2, y: height - 5, "text-anchor": "middle" }, svg, name);
}
