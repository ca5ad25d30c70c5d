// The four plots: each is drawn again only when what it shows has changed.

function style(race) {
  const now = performance.now();
  if (now - race.styledAt < 2000) return race.style;
  race.styledAt = now;
  const read = getComputedStyle(race.root);
  const back = read.getPropertyValue("--st-background-color").trim();
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = back || "#fff";
  const value = parseInt(probe.fillStyle.slice(1, 7), 16);
  const light = 0.3 * (value >> 16) + 0.59 * ((value >> 8) & 255) + 0.11 * (value & 255);
  race.root.dataset.theme = light < 128 ? "dark" : "light";
  const pick = (name) => read.getPropertyValue(name).trim();
  race.style = { ink: pick("--st-text-color"), muted: pick("--muted"), grid: pick("--st-border-color"), font: pick("--st-font") };
  for (const name of race.lanes.keys()) race.style[name] = pick(`--${name}`);
  return race.style;
}

function draw(race, all) {
  const look = style(race), lanes = [...race.lanes.values()];
  const end = Math.max(0, ...lanes.map((lane) => lane.clock[lane.clock.length - 1] || 0));
  const counts = lanes.map((lane) => lane.ids.length).join();
  paint(race, "tokens", counts, all, (plot) => drawTokens(plot, lanes, look, end, race.total));
  paint(race, "speed", counts, all, (plot) => drawSpeed(plot, lanes, look, end));
  paint(race, "memory", JSON.stringify(lanes.map((lane) => lane.memory)), all, (plot) => drawMemory(plot, lanes, look));
  const scores = lanes.map((lane) => `${lane.kld.length} ${lane.perplexity}`).join() + race.scored;
  paint(race, "kld", scores, all, (plot) => drawKld(plot, lanes, look, race));
}

function paint(race, name, mark, all, drawing) {
  const plot = race.plots[name];
  if (plot.mark === mark && !all) return;
  if (!plot.width) measure(plot);
  if (!plot.width) return;
  plot.mark = mark;
  plot.c.clearRect(0, 0, plot.width, plot.height);
  drawing(plot);
}

// Only when the size has changed: asking an element for its width costs a layout.
function measure(plot) {
  const { canvas } = plot, ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  plot.c = canvas.getContext("2d");
  plot.c.setTransform(ratio, 0, 0, ratio, 0, 0);
  Object.assign(plot, { width, height, left: 38, right: width - 34, top: 8, bottom: height - 20 });
}

function nice(top, most = 4.5) {
  const step = 10 ** Math.floor(Math.log10(top / 3));
  return [1, 2, 5, 10, 20].map((n) => n * step).find((n) => top / n <= most);
}

function axes(plot, look, xTop, yTop, xText, yText) {
  const { c, left, right, top, bottom } = plot;
  c.font = `11px ${look.font || "sans-serif"}`;
  c.lineWidth = 1;
  c.setLineDash([]);
  c.fillStyle = look.muted;
  c.strokeStyle = look.grid;
  const x = (value) => left + (value / xTop) * (right - left), y = (value) => bottom - (value / yTop) * (bottom - top);
  c.beginPath();
  for (let value = 0, step = nice(yTop); value <= yTop * 1.001 && yText; value += step) {
    c.moveTo(left, Math.round(y(value)) + 0.5);
    c.lineTo(right, Math.round(y(value)) + 0.5);
    c.textAlign = "right";
    c.fillText(yText(value), left - 5, y(value) + 4);
  }
  c.stroke();
  c.textAlign = "center";
  for (let value = 0, step = nice(xTop, (right - left) / 50); value <= xTop * 1.001; value += step) c.fillText(xText(value), x(value), bottom + 15);
  return { x, y };
}

function empty(plot, look, text) {
  plot.c.font = `12px ${look.font || "sans-serif"}`;
  plot.c.fillStyle = look.muted;
  plot.c.textAlign = "center";
  plot.c.fillText(text, plot.width / 2, plot.height / 2);
  set(plot.note, "");
}

// At most MOST of many, the last one always among them.
function thin(list) {
  if (list.length <= MOST) return list;
  const stride = Math.ceil(list.length / MOST);
  return list.filter((_, at) => at % stride === 0 || at === list.length - 1);
}

function line(plot, look, lane, points) {
  const { c } = plot;
  if (!points.length) return;
  c.strokeStyle = look[lane.name];
  c.lineWidth = 2;
  c.setLineDash(DASH[lane.name]);
  c.beginPath();
  for (const point of points) c.lineTo(point[0], point[1]);
  const last = points[points.length - 1];
  c.stroke();
  c.setLineDash([]);
  c.fillStyle = look.ink;
  c.textAlign = "left";
  c.fillText(marked(lane), Math.min(last[0] + 4, plot.width - 32), Math.max(last[1] + 4, 12));
}

const named = (lane) => (lane.name === "base" ? "baseline" : lane.name) + (lane.simulated ? " (simulated)" : "");
const marked = (lane) => lane.name + (lane.simulated ? " sim." : "");
const tick = (value) => (value && value < 0.001 ? Number(value.toPrecision(3)).toExponential() : String(Number(value.toPrecision(3))));

function drawTokens(plot, lanes, look, end, total) {
  const going = lanes.filter((lane) => lane.clock.length);
  if (!going.length) return empty(plot, look, "Starts with the first token.");
  const { x, y } = axes(plot, look, end, total, tick, tick);
  for (const lane of going) {
    const points = thin(lane.clock.map((at, count) => [at, count + 1]));
    line(plot, look, lane, points.map(([at, count]) => [x(at), y(count)]));
  }
  set(plot.note, going.map((lane) => `${named(lane)}: ${lane.ids.length} in ${three(lane.clock[lane.clock.length - 1])} s`).join("; "));
}

function speeds(lane) {
  const made = [];
  const stride = Math.max(1, Math.ceil(lane.clock.length / MOST));
  for (let at = WINDOW; at < lane.clock.length; at += stride) {
    const spent = lane.clock[at] - lane.clock[at - WINDOW];
    if (spent > 0) made.push([lane.clock[at], WINDOW / spent]);
  }
  return made;
}

function drawSpeed(plot, lanes, look, end) {
  const going = lanes.map((lane) => [lane, speeds(lane)]).filter(([, points]) => points.length);
  if (!going.length) return empty(plot, look, `Starts after ${WINDOW} tokens.`);
  const top = 1.1 * Math.max(...going.flatMap(([, points]) => points.map((point) => point[1])));
  const { x, y } = axes(plot, look, end, top, tick, tick);
  for (const [lane, points] of going) line(plot, look, lane, points.map(([at, speed]) => [x(at), y(speed)]));
  set(plot.note, going.map(([lane, points]) => `${named(lane)}: ${three(points[points.length - 1][1])} tok/s`).join("; "));
}

function bytes(value) {
  const step = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(1, value)) / 3)));
  return `${tick(value / 1000 ** step)} ${["B", "kB", "MB", "GB", "TB"][step]}`;
}

function drawMemory(plot, lanes, look) {
  const held = lanes.filter((lane) => lane.memory);
  if (!held.length) return empty(plot, look, "Shown when a model is loaded.");
  const top = 1.1 * Math.max(1, ...held.map((lane) => lane.memory[0] + lane.memory[1] + lane.memory[2]));
  const { x } = axes(plot, look, top, 1, (value) => bytes(value), null);
  const row = (plot.bottom - plot.top) / lanes.length, { c } = plot;
  lanes.forEach((lane, index) => {
    const y = plot.top + index * row + row * 0.18, high = row * 0.64;
    c.fillStyle = look.ink;
    c.textAlign = "right";
    c.fillText(marked(lane), plot.left - 4, y + high / 2 + 4);
    let from = 0;
    (lane.memory || []).forEach((part, place) => {
      c.globalAlpha = [1, 0.6, 0.28][place];
      c.fillStyle = look[lane.name];
      c.fillRect(x(from), y, x(from + part) - x(from), high);
      c.globalAlpha = 1;
      c.strokeStyle = look.ink;
      c.lineWidth = 0.5;
      if (part > 0) c.strokeRect(x(from), y, x(from + part) - x(from), high);
      from += part;
    });
  });
  set(plot.note, `Weights, KV, other: ${held.map((lane) => `${named(lane)} ${lane.memory.map(bytes).join(", ")}`).join("; ")}`);
}

function drawKld(plot, lanes, look, race) {
  if (!race.scored) return empty(plot, look, "Random weights: quality has no meaning.");
  const scored = lanes.filter((lane) => lane.kld.length);
  const perplexity = lanes.filter((lane) => lane.perplexity).map((lane) => `perplexity ${named(lane)} ${three(lane.perplexity)}`);
  if (!scored.length) return empty(plot, look, "Starts with the first scored token.");
  const every = scored.flatMap((lane) => thin(lane.kld)).sort((a, b) => a - b);
  const top = Math.max(1e-6, 1.1 * every[Math.floor(0.98 * (every.length - 1))]);
  const { x, y } = axes(plot, look, race.total, top, tick, tick), { c } = plot;
  for (const lane of scored) {
    c.fillStyle = look[lane.name];
    c.globalAlpha = 0.45;
    const stride = Math.max(1, Math.ceil(lane.kld.length / MOST));
    for (let at = 0; at < lane.kld.length; at += stride) c.fillRect(x(at + 1) - 1.5, Math.max(plot.top - 2, y(lane.kld[at]) - 1.5), 3, 3);
    c.globalAlpha = 1;
    const means = thin(lane.sum.map((sum, at) => [at + 1, sum / (at + 1)]));
    line(plot, look, lane, means.map(([at, mean]) => [x(at), Math.max(plot.top, y(mean))]));
  }
  const means = scored.map((lane) => `${named(lane)}: mean ${three(lane.sum[lane.sum.length - 1] / lane.kld.length)}`);
  set(plot.note, [...means, ...perplexity].join("; "));
}
