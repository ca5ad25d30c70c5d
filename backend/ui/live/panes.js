// The live view: panes that grow by what is new. Joined with plots.js, which draws the four plots, and with routes.js,
// which shows where the tokens of a mixture of experts went.
// Texts of models are only ever put in as text nodes.

const DASH = { base: [2, 3], A: [], B: [7, 4], C: [8, 3, 2, 3] };
const WINDOW = 12;
const MOST = 200;
const LONGEST_RUN = 600;
const AGAIN_MS = 1000;
const ENDED = ["finished", "cancelled", "failed"];
const races = new WeakMap();

export default function live({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".race");
  if (!data || !data.key) return;
  let race = races.get(root);
  if (!race || race.key !== data.key) {
    if (race) race.stopped = true;
    race = open(root, data);
    races.set(root, race);
    show(root, race, data);
    if (data.wire) follow(root, race, data.wire, setTriggerValue);
  } else if (!race.wired && race.seq !== data.seq) {
    show(root, race, data);
  }
}

function show(root, race, data) {
  race.seq = data.seq;
  race.total = data.total;
  race.ended = ENDED.includes(data.state);
  race.scored = data.scored;
  for (const told of data.lanes) if (race.lanes.has(told.name)) take(race.lanes.get(told.name), told);
  update(root, race, data);
  root.dataset.updates = String(Number(root.dataset.updates) + 1);
  root.dataset.state = data.state;
}

// The server tells what is new right after the worker has written, which is when the lanes pause. A page in the
// background hangs up; when the server is away the browser calls again by itself.
function follow(root, race, address, setTriggerValue) {
  race.wired = true;
  const hangUp = () => { if (race.source) race.source.close(); race.source = null; };
  const listen = () => {
    hangUp();
    if (race.stopped || !root.isConnected) return document.removeEventListener("visibilitychange", listen);
    if (document.hidden) return;
    race.source = new EventSource(address);
    race.source.onmessage = (event) => {
      if (race.stopped || !root.isConnected) return listen();
      const data = JSON.parse(event.data);
      show(root, race, data);
      if (!ENDED.includes(data.state)) return;
      race.stopped = true;
      listen();
      setTriggerValue("ended", data.seq);
    };
    race.source.onerror = () => { if (race.source?.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MS); };
  };
  document.addEventListener("visibilitychange", listen);
  listen();
}

function open(root, data) {
  const race = { key: data.key, seq: -1, lanes: new Map(), plots: {}, root, styledAt: -1e9, layer: 0 };
  const panes = root.querySelector(".panes");
  panes.replaceChildren();
  root.style.setProperty("--lanes", data.lanes.length);
  root.dataset.mode = data.mode || "live";
  for (const told of data.lanes) {
    const lane = { name: told.name, ids: [], texts: [], clock: [], drafted: [], kld: [], sum: [], picks: [], settled: 0, forked: false };
    lane.pane = pane(told);
    panes.append(lane.pane.box);
    race.lanes.set(told.name, lane);
  }
  for (const figure of root.querySelectorAll("figure")) {
    const canvas = figure.querySelector("canvas");
    race.plots[figure.dataset.plot] = { canvas, note: figure.querySelector("p"), mark: "" };
  }
  const watcher = new ResizeObserver(() => {
    race.styledAt = -1e9;
    for (const plot of Object.values(race.plots)) plot.width = 0;
    draw(race, true);
  });
  watcher.observe(root);
  return race;
}

function node(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function pane(told) {
  const box = node("article", "pane");
  box.style.setProperty("--lane", `var(--${told.name})`);
  box.dataset.lane = told.name;
  const header = node("header"), name = node("span", "name"), figures = node("span", "figures");
  const label = node("span"), speed = node("span", "speed"), gain = node("span", "gain");
  name.append(node("b", "", told.title), label);
  figures.append(speed, gain);
  header.append(name, figures);
  const text = node("div", "text");
  text.tabIndex = 0;
  text.setAttribute("role", "log");
  text.setAttribute("aria-live", "off");
  text.setAttribute("aria-label", `Text of ${told.title}`);
  const tail = node("span", "pending"), flow = node("div", "flow");
  flow.append(tail);
  text.append(flow);
  const drafting = node("p", "drafting");
  drafting.title = "Of the guesses judged at each place, how many were kept; what a round gave; what guessing cost";
  box.append(header, drafting, text);
  return { box, label, speed, gain, drafting, flow, tail, run: null, runClass: null, fresh: "" };
}

function take(lane, told) {
  const fresh = lane.ids.length - told.from;
  takeRoutes(lane, told, lane.picks.length - Math.max(0, told.from - 1));
  for (const part of ["ids", "texts", "clock", "drafted"]) lane[part].push(...told[part].slice(fresh));
  for (const value of told.kld.slice(lane.kld.length - told.kfrom)) {
    lane.sum.push((lane.sum.length ? lane.sum[lane.sum.length - 1] : 0) + value);
    lane.kld.push(value);
  }
  Object.assign(lane, { label: told.label, phase: told.phase, failure: told.failure, speed: told.speed });
  lane.drafting = told.drafting;
  Object.assign(lane, { memory: told.memory, perplexity: told.perplexity, simulated: told.simulated });
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function three(value) {
  if (!Number.isFinite(value)) return "";
  if (value === 0) return "0";
  const places = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(places, 8));
}

function update(root, race, data) {
  const base = race.lanes.get("base");
  for (const lane of race.lanes.values()) {
    set(lane.pane.label, lane.label);
    const racing = Number.isFinite(lane.speed);
    if (racing && !lane.pane.unit) {
      lane.pane.number = document.createTextNode("");
      lane.pane.unit = node("small", "", " tok/s");
      lane.pane.speed.replaceChildren(lane.pane.number, lane.pane.unit);
    }
    if (racing) lane.pane.number.data = three(lane.speed);
    else set(lane.pane.speed, lane.failure ? "failed" : lane.phase);
    const gain = lane !== base && racing && base && base.speed ? `${three(lane.speed / base.speed)}x` : "";
    set(lane.pane.gain, gain);
    set(lane.pane.drafting, lane.drafting || "");
    write(race, lane, base);
  }
  drawRoutes(root, race);
  set(root.querySelector(".progress span"), data.progress.text);
  root.querySelector(".progress progress").value = data.progress.share;
  if (root.dataset.mode === "live") draw(race, false);
}

function write(race, lane, base) {
  const { pane, ids, texts } = lane;
  const compared = lane === base ? ids.length : Math.min(ids.length, base ? base.ids.length : 0);
  const known = lane.experts && !race.ended ? Math.min(compared, lane.picks.length) : compared;
  const before = pane.tail;
  for (let at = lane.settled; at < known; at++) {
    const differs = lane !== base && ids[at] !== base.ids[at];
    if (differs && !lane.forked) {
      lane.forked = true;
      close(pane);
      pane.flow.insertBefore(node("span", "fork", `first difference, token ${at + 1}`), before);
      pane.run = null;
    }
    const className = (differs ? "tok differs" : "tok") + (lane.drafted[at] ? ` drafted by-${lane.drafted[at]}` : "");
    const expert = expertOf(race, lane, at), kind = `${className} ${expert}`;
    if (!pane.run || pane.runClass !== kind || pane.run.length > LONGEST_RUN || expert >= 0) {
      close(pane);
      pane.run = document.createTextNode("");
      pane.runClass = kind;
      const span = node("span", className);
      if (expert >= 0) colourSpan(span, lane, expert, at, race.layer);
      span.append(pane.run);
      pane.flow.insertBefore(span, before);
    }
    pane.fresh += texts[at];
  }
  close(pane);
  lane.settled = Math.max(lane.settled, known);
  set(before, texts.slice(known).join(""));
  if (lane.failure && !pane.failed) {
    pane.failed = node("p", "failure", lane.failure);
    pane.flow.append(pane.failed);
  }
}

// Text is put in once an update: every change of a text node costs a layout.
function close(pane) {
  if (pane.fresh) pane.run.appendData(pane.fresh);
  pane.fresh = "";
}
