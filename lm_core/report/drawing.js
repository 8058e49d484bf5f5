"use strict";
// Draws the curves of a chart.

function draw(chart) {
  const figure = document.querySelector(`figure[data-chart="${chart.name}"]`);
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
  let [left, right] = state.range || extent(all.map(({ xs }) => xs));
  // A single point stands in the middle.
  if (left === right) [left, right] = [left - 1, right + 1];
  const [bottom, top] = heights(all, isLog, chart.is_from_zero);
  const [name, inUnits] = AXES[state.x];
  const unit = state.x === "time" ? (right > 7200 ? 3600 : right > 120 ? 60 : 1) : 1;
  const most = Math.max(2, width / 100);
  const x = axis(name, [left / unit, right / unit], false, most, (value) => inUnits(value * unit));
  const view = frame(figure, {
    label: `${chart.title}, ${chart.unit}, against ${name}`,
    width,
    height,
    x: { ...x, low: left, high: right, marks: x.marks.map(([value, text]) => [value * unit, text]) },
    y: axis(chart.unit, [bottom, top], isLog, Math.max(3, height / 55)),
  });
  const { plot, toX, toY } = view;
  planned.forEach((plan) => element("path", {
    class: `planned c${colour(plan.tone)}`, d: path(plan.xs, plan.ys, plan.ys, toX, toY),
  }, plot));
  drawn.forEach((each) => drawLine(plot, each, toX, toY));
  Object.assign(figure, { view: { ...view, drawn, left, right } });
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
