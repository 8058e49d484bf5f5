"use strict";
// Draws a study: its history, what mattered, and how its trials went.

const { trials, keys, importance, best } = page;
const OUTCOMES = {
  completed: "completed",
  pruned: "pruned: the last loss it had",
  diverged: "diverged",
  failed: "failed",
  running: "still running",
};
const losses = [];
trials.forEach((trial) => { losses[trial.number] = trial.loss ?? trial.losses.at(-1) ?? null; });
const completed = trials.filter((trial) => trial.outcome === "completed");
let chosen = best;

// ---- scales

// From the lowest loss to where most are: a few that are far worse would press the others together.
function usual(values) {
  const sorted = values.filter((value) => value !== null && Number.isFinite(value)).sort((a, b) => a - b);
  if (!sorted.length) return [0, 1];
  const [low, high] = [sorted[0], sorted.at(-1)];
  const middle = sorted[Math.floor(0.75 * (sorted.length - 1))];
  const top = high > middle + 2 * (middle - low) && middle > low ? middle + (middle - low) : high;
  const spread = top - low > 1e-9 * Math.abs(low) ? top - low : Math.abs(low);
  const room = (spread || 1) * 0.06;
  return [low - room, top + room];
}

const [lowest, highest] = usual(completed.length > 1 ? completed.map((trial) => trial.loss) : losses);

// A range, and so much beyond its ends that what lies at them is seen whole.
function beyond({ low, high, is_log }) {
  const room = 0.04;
  return is_log
    ? [low * (low / high) ** room, high * (high / low) ** room]
    : [low - room * (high - low), high + room * (high - low)];
}

// Of 0 to 1 from the best loss to the worst that is drawn, a colour from dark to pale.
function shade(loss) {
  if (loss === null) return "s4";
  const share = (loss - lowest) / (highest - lowest || 1);
  return `s${Math.min(4, Math.max(0, Math.floor(share * 5)))}`;
}

function sizes(figure, most) {
  const width = Math.max(figure.clientWidth - 20, 240);
  return { width, height: Math.round(Math.min(most, width * 0.85)) };
}

// ---- marks of trials

function mark(plot, trial, x, y, { toY, top }) {
  const isKnown = losses[trial.number] !== null;
  const attributes = { "data-trial": trial.number, tabindex: -1 };
  const at = isKnown ? Math.max(toY(y), top) : top;
  let made;
  if (["diverged", "failed"].includes(trial.outcome)) {
    const d = `M${x - 4},${at - 4}l8,8m0,-8l-8,8`;
    made = element("path", { ...attributes, class: "mark bad", d }, plot);
  } else {
    const kind = trial.outcome === "completed" ? "full" : "hollow";
    made = element("circle", { ...attributes, class: `mark ${kind}`, cx: x, cy: at, r: 4.5 }, plot);
  }
  if (trial.number === best) {
    element("circle", { class: "mark ring", cx: x, cy: at, r: 8 }, plot);
  }
  element("title", {}, made, told(trial));
  made.addEventListener("click", () => choose(trial.number));
}

function told(trial) {
  const loss = losses[trial.number];
  const result = loss === null ? "" : `, ${+loss.toPrecision(5)} nats`;
  const values = keys.map((key) => `${key.name} ${trial.told[key.name] ?? "-"}`);
  return `trial ${trial.number}, ${OUTCOMES[trial.outcome] ?? trial.outcome}${result}: ${values.join(", ")}`;
}

// ---- the charts

function history(figure) {
  const { width, height } = sizes(figure, 320);
  const last = Math.max(losses.length - 1, 1);
  const view = frame(figure, {
    label: "Validation loss of each trial, in nats per token",
    width,
    height,
    x: axis("trial", [-0.5, last + 0.5], false, Math.min(last + 1, width / 90)),
    y: axis("", [lowest, highest], false, height / 55),
  });
  let low = Infinity;
  const xs = [], ys = [];
  trials.forEach((trial) => {
    if (trial.outcome === "completed") low = Math.min(low, trial.loss);
    if (!Number.isFinite(low)) return;
    xs.push(trial.number, trial.number + 1);
    ys.push(low, low);
  });
  element("path", {
    class: "line c0", "data-points": trials.length, d: path(xs, ys, ys, view.toX, view.toY),
  }, view.plot);
  const place = { toY: view.toY, top: view.margin.top + 6 };
  trials.forEach((trial) => mark(view.plot, trial, view.toX(trial.number), losses[trial.number], place));
}

function slice(figure, key) {
  const { width, height } = sizes(figure, 250);
  const isChoice = key.options !== null;
  const ends = isChoice ? [-0.5, key.options.length - 0.5] : beyond(key);
  const x = axis("", ends, key.is_log, width / 90);
  if (isChoice) x.marks = key.options.map((option, place) => [place, option]);
  const view = frame(figure, {
    label: `Validation loss against ${key.name}`,
    width,
    height,
    x,
    y: axis("", [lowest, highest], false, height / 55),
  });
  const place = { toY: view.toY, top: view.margin.top + 6 };
  trials.forEach((trial) => {
    const value = trial.values[key.name];
    if (value !== undefined) mark(view.plot, trial, view.toX(value), losses[trial.number], place);
  });
}

function curves(figure) {
  const { width, height } = sizes(figure, 320);
  const drawn = trials.filter((trial) => trial.steps.length);
  const [first, last] = extent(drawn.map((trial) => trial.steps));
  const view = frame(figure, {
    label: "Validation loss of the trials against steps",
    width,
    height,
    x: axis("steps", first < last ? [first, last] : [first - 1, first + 1], false, width / 90),
    y: axis("", usual(drawn.flatMap((trial) => trial.losses)), false, height / 55),
  });
  const order = [...drawn].sort((a, b) => (losses[b.number] ?? Infinity) - (losses[a.number] ?? Infinity));
  order.forEach((trial) => {
    const d = path(trial.steps, trial.losses, trial.losses, view.toX, view.toY);
    const attributes = {
      class: `trial ${shade(losses[trial.number])}`, d, "data-trial": trial.number, "data-points": trial.steps.length,
    };
    const made = element("path", attributes, view.plot);
    element("title", {}, made, told(trial));
    made.addEventListener("click", () => choose(trial.number));
    const end = trial.outcome === "completed" ? null : trial.steps.length - 1;
    if (end !== null) {
      element("circle", {
        class: "mark hollow", cx: view.toX(trial.steps[end]), cy: view.toY(trial.losses[end]), r: 2.5,
      }, view.plot);
    }
  });
}

function parallel(figure) {
  const room = sizes(figure, 340);
  const columns = [...keys, { name: "validation loss", low: lowest, high: highest, is_log: false, options: null }];
  // Where there is no room for the names, the chart is moved to and fro.
  const width = Math.max(room.width, 70 + 112 * keys.length), height = Math.max(room.height, 280);
  const margin = { left: 20, right: 50, top: 26, bottom: 18 };
  const between = (width - margin.left - margin.right) / Math.max(columns.length - 1, 1);
  const svg = element("svg", {
    viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": "Each trial as a line through its values, to its validation loss",
  });
  const scales = columns.map((column) => {
    const ends = column.options ? { low: -0.5, high: column.options.length - 0.5 } : column;
    return scale({ ...ends, isLog: column.is_log }, height - margin.bottom, margin.top);
  });
  const lines = element("g", {}, svg);
  columns.forEach((column, place) => {
    const x = margin.left + place * between;
    element("line", { class: "pillar", x1: x, x2: x, y1: margin.top, y2: height - margin.bottom }, svg);
    const anchor = place === 0 ? "start" : place === columns.length - 1 ? "end" : "middle";
    const nudge = { start: -14, middle: 0, end: 44 }[anchor];
    element("text", { class: "name", x: x + nudge, y: 13, "text-anchor": anchor }, svg, column.name);
    const values = ticks(column.low ?? 0, column.high ?? 1, 5, column.is_log);
    const marks = column.options
      ? column.options.map((option, index) => [index, option])
      : values.map((value, index) => [value, written(values)[index]]);
    marks.forEach(([value, text]) => {
      element("text", { class: "value", x: x + 5, y: scales[place](value) + 4 }, svg, text);
    });
  });
  const drawn = trials.filter((trial) => losses[trial.number] !== null && Object.keys(trial.values).length === keys.length);
  drawn.sort((a, b) => losses[b.number] - losses[a.number]).forEach((trial) => {
    const values = [...keys.map((key) => trial.values[key.name]), Math.min(losses[trial.number], highest)];
    const points = values.map((value, place) => `${margin.left + place * between},${scales[place](value)}`);
    const made = element("path", {
      class: `trial ${shade(losses[trial.number])}`, d: `M${points.join("L")}`, "data-trial": trial.number,
    }, lines);
    if (trial.outcome !== "completed") made.setAttribute("stroke-dasharray", "2 4");
    element("title", {}, made, told(trial));
    made.addEventListener("click", () => choose(trial.number));
  });
  const old = figure.querySelector(":scope > svg");
  if (old) old.replaceWith(svg); else figure.append(svg);
}

function bars(figure) {
  const width = Math.max(figure.clientWidth - 20, 240);
  const row = 30, left = Math.min(190, width * 0.42), right = 46;
  const height = importance.shares.length * row + 38;
  const svg = element("svg", {
    viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": "Share of the variance of the loss that each hyperparameter explains",
  });
  const toX = (share) => left + share * (width - left - right);
  [0, 0.25, 0.5, 0.75, 1].forEach((share) => {
    element("line", { class: "grid", x1: toX(share), x2: toX(share), y1: 0, y2: height - 30 }, svg);
    element("text", { x: toX(share), y: height - 12, "text-anchor": "middle" }, svg, `${100 * share}%`);
  });
  importance.shares.forEach(({ name, mean, low, high }, place) => {
    const y = place * row + row / 2;
    element("text", { class: "name", x: left - 8, y: y + 4, "text-anchor": "end" }, svg, name);
    element("rect", { class: "bar", x: left, y: y - 8, width: Math.max(toX(mean) - left, 1), height: 16, "data-share": mean }, svg);
    element("path", {
      class: "whisker", d: `M${toX(low)},${y - 5}v10M${toX(low)},${y}H${toX(high)}M${toX(high)},${y - 5}v10`,
    }, svg);
  });
  const old = figure.querySelector(":scope > svg");
  if (old) old.replaceWith(svg); else figure.append(svg);
}

// ---- one trial is looked at in all charts at once

function choose(number) {
  chosen = number;
  document.querySelectorAll("[data-trial]").forEach((node) => {
    const isChosen = Number(node.dataset.trial) === chosen;
    node.classList.toggle("chosen", isChosen);
    if (isChosen && node.matches("path.trial")) node.parentElement.append(node);
  });
  document.querySelectorAll("tr[data-row]").forEach((row) => {
    row.classList.toggle("chosen", Number(row.dataset.row) === chosen);
  });
  const said = document.querySelector("[data-chosen]");
  if (said && chosen !== null) said.textContent = told(trials.find(({ number }) => number === chosen));
}

const DRAWN = { history, curves, parallel, importance: bars };

function drawStudy() {
  document.querySelectorAll("figure[data-chart]").forEach((figure) => {
    const key = keys.find(({ name }) => figure.dataset.chart === `slice-${name}`);
    if (key) slice(figure, key); else DRAWN[figure.dataset.chart](figure);
  });
  choose(chosen);
}

document.querySelectorAll("[hidden].drawn").forEach((node) => { node.hidden = false; });
document.querySelectorAll("tr[data-row]").forEach((row) => {
  row.addEventListener("click", () => choose(Number(row.dataset.row)));
});
drawStudy();
let redrawing = 0;
addEventListener("resize", () => {
  cancelAnimationFrame(redrawing);
  redrawing = requestAnimationFrame(drawStudy);
});
document.documentElement.dataset.ready = "yes";
