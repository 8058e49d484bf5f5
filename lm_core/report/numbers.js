"use strict";
// The numbers of a page: decoded, smoothed, averaged, and how they are written on an axis.

const EXACT = new Set(page.exact);
const NAMES = page.names;
const state = { x: "steps", window: page.window, whole: false, mean: false, hidden: new Set(), range: null };
const logarithmic = new Map(page.charts.map((chart) => [chart.name, chart.is_log]));

// ---- numbers

function bytes(text) {
  const binary = atob(text);
  const array = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) array[i] = binary.charCodeAt(i);
  return array.buffer;
}

function decoded(curve) {
  const places = curve.steps;
  const steps = typeof places === "string"
    ? new Int32Array(bytes(places))
    : Int32Array.from({ length: places.n }, (_, i) => places.first + i * places.stride);
  const floats = (text) => (text ? new Float32Array(bytes(text)) : null);
  return { n: curve.n, steps, values: floats(curve.values), low: floats(curve.low), high: floats(curve.high) };
}

const runs = page.runs.map((run) => ({
  ...run,
  curves: Object.fromEntries(Object.entries(run.curves).map(([name, curve]) => [name, decoded(curve)])),
  planned: Object.fromEntries(Object.entries(run.planned).map(([name, curve]) => [name, decoded(curve)])),
}));
const groupOf = [];
page.groups.forEach((group, place) => group.runs.forEach((run) => { groupOf[run] = place; }));

// The same average as that of the figures: free of the bias towards its start.
function smoothed(steps, values, window) {
  if (!(window > 0)) return values;
  const averages = new Float64Array(values.length);
  let total = 0, weight = 0, before = steps[0];
  for (let i = 0; i < values.length; i++) {
    const kept = Math.exp((before - steps[i]) / window);
    total = kept * total + values[i];
    weight = kept * weight + 1;
    before = steps[i];
    averages[i] = total / weight;
  }
  return averages;
}

function secondsAt(clock, step) {
  const { steps, seconds } = clock;
  if (!steps.length) return 0;
  const place = Math.min(Math.max(after(steps, step), 1), steps.length - 1);
  const share = (step - steps[place - 1]) / Math.max(steps[place] - steps[place - 1], 1);
  return seconds[place - 1] + Math.min(share, 1) * (seconds[place] - seconds[place - 1]);
}

// The place of the first number that is not smaller.
function after(numbers, number) {
  let low = 0, high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < number) low = middle + 1; else high = middle;
  }
  return low;
}

function across(run, steps) {
  if (state.x === "steps") return steps;
  const xs = new Float64Array(steps.length);
  for (let i = 0; i < steps.length; i++) {
    xs[i] = state.x === "tokens" ? steps[i] * run.tokens_a_step : secondsAt(run.clock, steps[i]);
  }
  return xs;
}

// ---- what a chart draws: lines with their numbers

function lines(chart) {
  const found = [];
  chart.columns.forEach((column, index) => {
    if (state.mean) {
      page.groups.forEach((group, place) => {
        if (!state.hidden.has(place)) found.push(...meanLines(group, place, column));
      });
    } else {
      runs.forEach((run, place) => {
        const curve = run.curves[column];
        if (!curve || state.hidden.has(groupOf[place])) return;
        found.push(line(run, curve, column, {
          label: runs.length > 1 ? run.label : NAMES[column] || chart.title,
          // Of one run, its metrics have the colours.
          tone: runs.length > 1 ? groupOf[place] : index,
        }));
      });
    }
  });
  return found;
}

function line(run, curve, column, look) {
  const isSmoothed = !EXACT.has(column) && state.window > 0 && curve.values.length > 1;
  const ys = isSmoothed ? smoothed(curve.steps, curve.values, state.window) : curve.values;
  const raw = isSmoothed || curve.low ? curve : null;
  return { ...look, column, n: curve.n, xs: across(run, curve.steps), ys, raw, isMarked: column === "val_loss" };
}

function meanLines(group, place, column) {
  const apart = group.apart.map((index) => runs[index]).filter((run) => run.curves[column])
    .map((run) => ({ ...line(run, run.curves[column], column, { label: run.label, tone: place }), raw: null }));
  const members = group.mean.map((index) => runs[index]).filter((run) => run.curves[column]);
  if (!members.length) return apart;
  const factor = page.factors[members.length];
  const parts = members.map((run) => line(run, run.curves[column], column, {}));
  const counts = new Map();
  members.forEach((run) => run.curves[column].steps.forEach((step) => counts.set(step, (counts.get(step) || 0) + 1)));
  const places = members.map(() => 0);
  const xs = [], ys = [], low = [], high = [];
  members[0].curves[column].steps.forEach((step) => {
    if (counts.get(step) !== members.length) return;
    let sum = 0, sumX = 0;
    const values = parts.map((part, k) => {
      const steps = members[k].curves[column].steps;
      while (steps[places[k]] < step) places[k]++;
      sumX += part.xs[places[k]];
      sum += part.ys[places[k]];
      return part.ys[places[k]];
    });
    const mean = sum / values.length;
    xs.push(sumX / values.length);
    ys.push(mean);
    if (factor === null) return;
    const spread = Math.sqrt(values.reduce((total, v) => total + (v - mean) ** 2, 0) / (values.length - 1));
    low.push(mean - factor * spread);
    high.push(mean + factor * spread);
  });
  const band = low.length ? { low, high } : null;
  const isMarked = column === "val_loss";
  return [{ label: group.label, tone: place, column, n: xs.length, xs, ys, band, raw: null, isMarked }, ...apart];
}

// ---- scales

function heights(drawn, isLog, isFromZero) {
  const seen = [];
  const bands = drawn.filter(({ band }) => band).flatMap(({ xs, band }) => [{ xs, ys: band.low }, { xs, ys: band.high }]);
  [...drawn, ...bands].forEach(({ xs, ys }) => {
    const stride = Math.max(1, Math.floor(ys.length / 4000));
    for (let i = 0; i < ys.length; i += stride) {
      const isIn = !state.range || (xs[i] >= state.range[0] && xs[i] <= state.range[1]);
      if (isIn && (!isLog || ys[i] > 0)) seen.push(ys[i]);
    }
    const last = ys[ys.length - 1];
    if (ys.length && !state.range && (!isLog || last > 0)) seen.push(last);
  });
  if (!seen.length) return [isLog ? 0.1 : 0, 1];
  seen.sort((a, b) => a - b);
  const low = isFromZero && !isLog ? Math.min(seen[0], 0) : seen[0];
  let high = seen[seen.length - 1];
  // A few points far above all others would press those together.
  const usual = seen[Math.floor(0.98 * (seen.length - 1))];
  if (!state.whole && !isLog && high > usual + 1.5 * (usual - low) && usual > low) high = usual + 0.15 * (usual - low);
  if (isLog) return [low / 1.08, Math.max(high * 1.08, low * 1.2)];
  // What differs by rounding alone does not differ.
  const spread = high - low > 1e-9 * Math.abs(high) ? high - low : Math.abs(high);
  const room = (spread || 1) * 0.05;
  return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
}

const AXES = { steps: ["steps", short], tokens: ["tokens", short], time: ["time of training, without evaluations", clockTime] };
