"use strict";
// Draws the curves of a page from the numbers in it, and answers who looks at them.

(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  // Of both there are as many as people tell apart; each pair of them comes once.
  const N_COLOURS = 7;
  const DASHES = ["", "7 4", "2 3", "9 3 2 3"];
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
    const members = group.runs.map((index) => runs[index]).filter((run) => run.curves[column]);
    if (!members.length) return [];
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
      if (group.factor === null) return;
      const spread = Math.sqrt(values.reduce((total, v) => total + (v - mean) ** 2, 0) / (values.length - 1));
      low.push(mean - group.factor * spread);
      high.push(mean + group.factor * spread);
    });
    const band = low.length ? { low, high } : null;
    const isMarked = column === "val_loss";
    return [{ label: group.label, tone: place, column, n: xs.length, xs, ys, band, raw: null, isMarked }];
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
    const room = (high - low || Math.abs(high) || 1) * 0.05;
    return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
  }

  function ticks(low, high, most, isLog) {
    if (isLog) {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
        for (const factor of [1, 2, 5]) {
          const value = factor * 10 ** power;
          if (value >= low && value <= high) found.push(value);
        }
      }
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

  function short(value) {
    const size = Math.abs(value);
    if (size === 0) return "0";
    for (const [unit, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (size >= unit) return `${+(value / unit).toPrecision(4)}${name}`;
    }
    return size < 1e-3 ? value.toExponential(2).replace(/\.?0+e/, "e") : `${+value.toPrecision(4)}`;
  }

  function clockTime(seconds) {
    if (seconds < 60) return `${+seconds.toPrecision(3)} s`;
    if (seconds < 3600) return `${+(seconds / 60).toPrecision(3)} min`;
    return `${+(seconds / 3600).toPrecision(3)} h`;
  }

  const AXES = { steps: ["steps", short], tokens: ["tokens", short], time: ["time in training steps", clockTime] };

  // ---- drawing

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
    const margin = { left: 12 + 7 * Math.max(3, ...labels.map((value) => short(value).length)), right: 12, top: 8, bottom: 40 };
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
    labels.forEach((value) => {
      const y = toY(value);
      element("line", { class: "grid", x1: margin.left, x2: margin.left + inner.width, y1: y, y2: y }, svg);
      element("text", { x: margin.left - 6, y: y + 4, "text-anchor": "end" }, svg, short(value));
    });
    const [name, written] = AXES[state.x];
    const unit = state.x === "time" ? (right > 7200 ? 3600 : right > 120 ? 60 : 1) : 1;
    ticks(left / unit, right / unit, Math.max(2, inner.width / 90), false).forEach((value) => {
      const x = toX(value * unit);
      element("line", { class: "grid", x1: x, x2: x, y1: margin.top, y2: low }, svg);
      element("text", { x, y: low + 17, "text-anchor": "middle" }, svg, written(value * unit));
    });
    element("line", { class: "axis", x1: margin.left, x2: margin.left + inner.width, y1: low, y2: low }, svg);
    element("text", { x: margin.left + inner.width / 2, y: height - 5, "text-anchor": "middle" }, svg, name);
  }

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
      svg.querySelectorAll(".chosen").forEach((node) => node.remove());
      const [a, b] = [toX(Math.min(from, to)), toX(Math.max(from, to))];
      element("rect", { class: "chosen", x: a, width: b - a, y: margin.top, height: inner.height }, svg);
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

  function swatch(tone) {
    const svg = element("svg", { width: 24, height: 8, "aria-hidden": "true" });
    const attributes = { class: `line c${colour(tone)}`, d: "M0,4H24" };
    if (dash(tone)) attributes["stroke-dasharray"] = dash(tone);
    element("path", attributes, svg);
    return svg;
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
      document.querySelector("[data-window]").textContent = `${short(Math.round(state.window))} steps`;
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

  function sortable(table) {
    const body = table.tBodies[0];
    table.querySelectorAll("th").forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const isDown = heading.getAttribute("aria-sort") === "ascending";
        table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", isDown ? "descending" : "ascending");
        const rows = [...body.rows].map((row) => [key(row.cells[column]), row]);
        const sign = isDown ? -1 : 1;
        rows.sort(([a], [b]) => order(a, b, sign));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  function key(cell) {
    const value = cell.dataset.value ?? cell.textContent;
    const number = Number(value);
    return value === "" || Number.isNaN(number) ? value : number;
  }

  // Numbers before texts, and what is not known last, whichever way.
  function order(a, b, sign) {
    if (a === "" || b === "") return (a === "") - (b === "");
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
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

  function switchTheme() {
    const root = document.documentElement;
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
  }

  document.querySelector("[data-theme-switch]").addEventListener("click", switchTheme);
  document.querySelectorAll("table.sortable").forEach(sortable);
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
})();
