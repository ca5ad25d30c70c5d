// Experts: each token in the colour of the expert it went to, and how often each expert of each layer was chosen.

const CELL_PX = 14;

function takeRoutes(lane, told, freshPicks) {
  lane.experts = told.experts || 0;
  if (!lane.experts) return;
  lane.dropped = told.dropped;
  if (!lane.load && told.read.length) lane.load = told.read.map((row) => [...row]);
  for (const token of (told.picks || []).slice(freshPicks)) {
    lane.picks.push(token);
    if (!lane.load) lane.load = token.map(() => new Array(lane.experts).fill(0));
    token.forEach((chosen, layer) => chosen.forEach((expert) => { lane.load[layer][expert] += 1; }));
  }
}

// The number that colours a token: its likeliest expert in the layer that is looked at; -1 where there is none.
function expertOf(race, lane, at) {
  const chosen = race.layer >= 0 && lane.picks[at] ? lane.picks[at][race.layer] : null;
  return chosen ? chosen[0] : -1;
}

function colourSpan(span, lane, expert, at, layer) {
  span.classList.add("expert");
  span.style.setProperty("--hue", Math.round((360 * expert) / lane.experts));
  span.title = `expert ${lane.picks[at][layer].join(" and ")} of layer ${layer}`;
}

function drawRoutes(root, race) {
  const lanes = [...race.lanes.values()].filter((lane) => lane.experts && lane.load);
  const box = root.querySelector(".routes");
  if (!lanes.length) return;
  if (box.hidden) {
    box.hidden = false;
    chooseLayer(root, race, Math.max(...lanes.map((lane) => lane.load.length)));
  }
  for (const lane of lanes) {
    if (!lane.map) lane.map = openMap(box.querySelector(".maps"), lane);
    drawMap(race, lane);
  }
}

function chooseLayer(root, race, layers) {
  const select = root.querySelector(".routes select");
  select.replaceChildren(new Option("no layer", "-1"));
  for (let layer = 0; layer < layers; layer++) select.append(new Option(`layer ${layer}`, String(layer)));
  select.value = String(race.layer);
  select.onchange = () => {
    race.layer = Number(select.value);
    for (const lane of race.lanes.values()) rewrite(race, lane);
    drawRoutes(root, race);
  };
}

// All of a pane's text again, in other colours.
function rewrite(race, lane) {
  const { pane } = lane;
  close(pane);
  while (pane.flow.firstChild !== pane.tail) pane.flow.firstChild.remove();
  Object.assign(pane, { run: null, runClass: null });
  Object.assign(lane, { settled: 0, forked: false });
  write(race, lane, race.lanes.get("base"));
}

function openMap(parent, lane) {
  const figure = node("div", "map"), canvas = document.createElement("canvas"), words = node("p");
  figure.style.setProperty("--lane", `var(--${lane.name})`);
  canvas.setAttribute("role", "img");
  figure.append(node("b", "", lane.pane.box.querySelector("b").textContent), canvas, words);
  parent.append(figure);
  return { canvas, words, mark: "" };
}

// Rows are layers, columns experts; a full cell is one that got twice an even share or more.
function drawMap(race, lane) {
  const { map, load } = lane, mark = `${lane.picks.length} ${race.layer}`, ratio = window.devicePixelRatio || 1;
  if (map.mark === mark) return;
  map.mark = mark;
  const width = lane.experts * CELL_PX, height = load.length * CELL_PX;
  Object.assign(map.canvas, { width: width * ratio, height: height * ratio });
  Object.assign(map.canvas.style, { width: `${width}px`, height: `${height}px` });
  const c = map.canvas.getContext("2d"), look = style(race);
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  load.forEach((row, layer) => row.forEach((count, expert) => {
    const even = row.reduce((sum, one) => sum + one, 0) / row.length;
    c.globalAlpha = 0.06 + 0.94 * Math.min(1, count / (2 * even || 1));
    c.fillStyle = look[lane.name];
    c.fillRect(expert * CELL_PX, layer * CELL_PX, CELL_PX - 1, CELL_PX - 1);
  }));
  c.globalAlpha = 1;
  if (race.layer >= 0) {
    c.strokeStyle = look.ink;
    c.strokeRect(0.5, race.layer * CELL_PX + 0.5, width - 2, CELL_PX - 2);
  }
  set(map.words, mapWords(lane));
  map.canvas.setAttribute("aria-label", `Choices by layer and expert. ${map.words.textContent}`);
}

function mapWords(lane) {
  const each = lane.load.map((row) => {
    const mean = row.reduce((sum, one) => sum + one, 0) / row.length;
    return mean ? Math.sqrt(row.reduce((sum, one) => sum + (one - mean) ** 2, 0) / row.length) / mean : 0;
  });
  const idle = lane.load.reduce((sum, row) => sum + row.filter((count) => !count).length, 0);
  const mean = each.reduce((sum, one) => sum + one, 0) / each.length;
  const worst = each.indexOf(Math.max(...each));
  return `${lane.load.length} layers down, ${lane.experts} experts across. Coefficient of variation ${three(mean)}, ` +
    `most in layer ${worst} (${three(each[worst])}); ${idle} experts never chosen; ` +
    `${three(100 * lane.dropped)}% of the prompt's choices dropped.`;
}
