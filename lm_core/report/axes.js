"use strict";
// What all charts are made of: shapes, scales, axes, and how numbers are written on them.

const page = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
// Of both there are as many as people tell apart; each pair of them comes once.
const N_COLOURS = 7;
const DASHES = ["", "7 4", "2 3", "9 3 2 3"];

function element(name, attributes, parent, text) {
  const made = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

const colour = (tone) => tone % N_COLOURS;
const dash = (tone) => DASHES[Math.floor(tone / N_COLOURS) % DASHES.length];

function swatch(tone) {
  const svg = element("svg", { width: 24, height: 8, "aria-hidden": "true" });
  const attributes = { class: `line c${colour(tone)}`, d: "M0,4H24" };
  if (dash(tone)) attributes["stroke-dasharray"] = dash(tone);
  element("path", attributes, svg);
  return svg;
}

// ---- scales

function extent(arrays) {
  let low = Infinity, high = -Infinity;
  arrays.forEach((array) => {
    for (let i = 0; i < array.length; i++) {
      if (array[i] < low) low = array[i];
      if (array[i] > high) high = array[i];
    }
  });
  return [low, high];
}

function ticks(low, high, most, isLog) {
  // Ends that only rounding sets apart have no numbers between them.
  if (!(high - low > 1e-9 * Math.max(Math.abs(low), Math.abs(high)))) return Number.isFinite(low) ? [low] : [];
  if (isLog) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const factor of [1, 2, 5]) {
        const value = factor * 10 ** power;
        if (value >= low && value <= high) found.push(value);
      }
    }
    // Where there are too few powers, even steps say more.
    if (found.length < 3) return ticks(low, high, most, false);
    const tens = found.filter((value) => Math.abs(Math.log10(value) % 1) < 1e-9);
    return found.length > most && tens.length > 1 ? tens : found.slice(0, 2 * most);
  }
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high * (1 + 1e-12); k++) found.push(k * step);
  return found;
}

function short(value, digits = 4) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e15) return value.toExponential(digits - 2).replace(/\.?0+e/, "e");
  for (const [unit, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= unit) return `${+(value / unit).toPrecision(digits)}${name}`;
  }
  return size < 1e-4 ? value.toExponential(digits - 2).replace(/\.?0+e/, "e") : `${+value.toPrecision(digits)}`;
}

// Numbers on an axis, with as many digits as tell them apart.
function written(values) {
  for (let digits = 3; digits < 12; digits++) {
    const texts = values.map((value) => short(value, digits));
    if (new Set(texts).size === texts.length) return texts;
  }
  return values.map(String);
}

function clockTime(seconds) {
  if (seconds < 60) return `${+seconds.toPrecision(3)} s`;
  if (seconds < 3600) return `${+(seconds / 60).toPrecision(3)} min`;
  return `${+(seconds / 3600).toPrecision(3)} h`;
}

// ---- a chart without its content

// An axis: its name, its two ends, whether it is logarithmic, and what is written at which values.
function axis(name, [low, high], isLog, most, inUnits) {
  const values = ticks(low, high, most, isLog);
  const texts = inUnits ? values.map(inUnits) : written(values);
  return { name, low, high, isLog, marks: values.map((value, place) => [value, texts[place]]) };
}

function scale({ low, high, isLog }, from, to) {
  const size = isLog ? Math.log : (value) => value;
  // What lies far outside is drawn outside, where no browser minds how far.
  const nearest = isLog ? low / 1e3 : -Infinity;
  const reach = size(high) - size(low) || 1;
  return (value) => {
    const share = (size(Math.max(value, nearest)) - size(low)) / reach;
    return Math.round((from + Math.min(Math.max(share, -3), 4) * (to - from)) * 10) / 10;
  };
}

// Makes the drawing in a figure anew, with its axes, and gives the place for its content.
function frame(figure, { label, width, height, x, y }) {
  const longest = Math.max(3, ...y.marks.map(([, text]) => text.length));
  const margin = { left: 12 + 7 * longest, right: 12, top: 8, bottom: 40 };
  const inner = { width: width - margin.left - margin.right, height: height - margin.top - margin.bottom };
  const [right, low] = [margin.left + inner.width, margin.top + inner.height];
  const toX = scale(x, margin.left, right);
  const toY = scale(y, low, margin.top);
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  const clip = `clip-${figure.dataset.chart}`;
  element("rect", { x: margin.left, y: margin.top, width: inner.width, height: inner.height },
    element("clipPath", { id: clip }, svg));
  y.marks.forEach(([value, text]) => {
    const at = toY(value);
    element("line", { class: "grid", x1: margin.left, x2: right, y1: at, y2: at }, svg);
    element("text", { x: margin.left - 6, y: at + 4, "text-anchor": "end" }, svg, text);
  });
  x.marks.forEach(([value, text]) => {
    const at = toX(value);
    element("line", { class: "grid", x1: at, x2: at, y1: margin.top, y2: low }, svg);
    element("text", { x: at, y: low + 17, "text-anchor": "middle" }, svg, text);
  });
  element("line", { class: "axis", x1: margin.left, x2: right, y1: low, y2: low }, svg);
  element("text", { x: margin.left + inner.width / 2, y: height - 5, "text-anchor": "middle" }, svg, x.name);
  const plot = element("g", { "clip-path": `url(#${clip})` }, svg);
  const old = figure.querySelector(":scope > svg");
  if (old) old.replaceWith(svg); else figure.append(svg);
  return { svg, plot, toX, toY, margin, inner, width, height };
}

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
