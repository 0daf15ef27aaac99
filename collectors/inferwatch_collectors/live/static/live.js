// The live page: a frame a second by server-sent events, the history once a range is chosen; all of it drawn here.
// What is not known is shown as a dash, never as 0.

const $ = (id) => document.getElementById(id);

// --- numbers for people

const isKnown = (value) => value !== null && value !== undefined;

function number(value, digits = 1) {
  if (!isKnown(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return (value / 1e9).toFixed(2) + " G";
  if (size >= 1e6) return (value / 1e6).toFixed(2) + " M";
  if (size >= 1e4) return (value / 1e3).toFixed(1) + " k";
  return value.toFixed(Number.isInteger(value) ? 0 : digits);
}
const whole = (value) => (isKnown(value) ? Math.round(value).toLocaleString("en-US") : "–");
const dollars = (value) => (isKnown(value) ? "$" + value.toFixed(value < 10 ? 4 : 2) : "–");
const percent = (value) => (isKnown(value) ? (100 * value).toFixed(0) + " %" : "–");
function seconds(value) {
  if (!isKnown(value)) return "–";
  if (value < 1) return (1000 * value).toFixed(0) + " ms";
  if (value < 120) return value.toFixed(1) + " s";
  if (value < 7200) return (value / 60).toFixed(0) + " min";
  return value < 172800 ? (value / 3600).toFixed(1) + " h" : (value / 86400).toFixed(1) + " d";
}
const bytes = (value) => (isKnown(value) ? (value / 2 ** 30).toFixed(1) + " GiB" : "–");
const clock = (unix) => new Date(1000 * unix).toLocaleTimeString("en-GB");
const day = (unix) => new Date(1000 * unix).toLocaleDateString("en-GB", { day: "numeric", month: "short" });
const weeks = (value) => (isKnown(value) ? number(value, 2) + " w" : "–");

// --- what is shown: a card, a chart or a column is one line here

const CARDS = [
  ["requests", "Requests", (f) => number(f.now.requests) + "/s", (f) => whole(f.totals.requests) + " in all"],
  ["failed", "Failed", (f) => number(f.now.failed, 2) + "/s", (f) => whole(f.totals.failed) + " in all"],
  ["in-flight", "In flight", (f) => whole(f.now.in_flight), (f) => "waiting in the engine: " + whole(f.now.waiting)],
  ["ttft", "First token, p50 / p99", (f) => seconds(f.now.ttft_p50) + " / " + seconds(f.now.ttft_p99), () => ""],
  ["gap", "Gap between tokens, p50 / p99", (f) => seconds(f.now.gap_p50) + " / " + seconds(f.now.gap_p99), () => ""],
  ["prompt", "Prompt tokens", (f) => number(f.now.prompt_tokens, 0) + "/s", (f) => whole(f.totals.prompt_tokens) + " in all"],
  ["completion", "Completion tokens", (f) => number(f.now.completion_tokens, 0) + "/s", (f) => whole(f.totals.completion_tokens) + " in all"],
  ["cost", "Cost of the hardware", (f) => dollars(f.totals.gpu_dollars), (f) => (isKnown(f.totals.gpu_dollars) ? dollars(f.now.cost) + "/h now" : "`cost` is not configured")],
  ["price", "By the price list", (f) => dollars(f.totals.price_dollars), (f) => (isKnown(f.totals.price_dollars) ? "in all" : "no model has a price")],
  ["idle", "Idle hardware", (f) => dollars(f.totals.idle_dollars), (f) => (isKnown(f.totals.idle_dollars) ? dollars(f.now.idle_cost) + "/h now" : "`cost` is not configured")],
  ["kv", "KV cache", (f) => percent(f.now.kv_cache), () => "of the fullest engine"],
  ["gpu", "GPUs busy", (f) => percent(f.now.gpu_utilization), (f) => number(f.now.gpu_watts, 0) + " W"],
  ["alerts", "Active alerts", () => (isKnown(alerts) && !alerts.fault ? alerts.firing + " firing" : "–"), () => (alerts?.fault ? "not known" : alerts ? alerts.pending + " pending" : "no Prometheus is configured")],
  ["drift", "Drift", (f) => (f.drift.drifted + f.drift.judged ? f.drift.drifted + " of " + (f.drift.drifted + f.drift.judged) : "–"), (f) => "models of tenants; learning: " + f.drift.learning],
  ["quality", "Signs of bad answers", (f) => whole(f.quality.signs), () => "in all"],
];

const CHARTS = [
  ["Requests per second", number, [["requests", "all", "--a"], ["failed", "failed", "--c"]]],
  ["Tokens per second", (v) => number(v, 0), [["completion_tokens", "completion", "--a"], ["prompt_tokens", "prompt", "--b"]]],
  ["First token", seconds, [["ttft_p50", "p50", "--a"], ["ttft_p99", "p99", "--b"]]],
  ["Gap between tokens", seconds, [["gap_p50", "p50", "--a"], ["gap_p99", "p99", "--b"]]],
  ["In flight and waiting", (v) => number(v, 0), [["in_flight", "in flight", "--a"], ["waiting", "waiting", "--b"]]],
  ["Dollars per hour", dollars, [["cost", "requests", "--a"], ["idle_cost", "idle", "--b"]]],
  ["KV cache and GPUs", percent, [["kv_cache", "KV cache", "--a"], ["gpu_utilization", "GPUs busy", "--b"]]],
];

// table -> [rows of a frame, what an empty one says, [title, value, is it text, key to sort by]]
const TABLES = {
  streams: [(f) => f.streams, "nothing is under way", [
    ["tenant", (r) => r.tenant, true, (r) => r.tenant],
    ["model", (r) => r.model, true, (r) => r.model],
    ["age", (r) => seconds(r.age_s), false, (r) => r.age_s],
    ["first token", (r) => seconds(r.ttft_s), false, (r) => r.ttft_s],
    ["prompt", (r) => whole(r.prompt), false, (r) => r.prompt],
    ["tokens", (r) => whole(r.tokens), false, (r) => r.tokens],
    ["tokens/s", (r) => number(r.rate), false, (r) => r.rate],
  ]],
  tenants: [(f) => f.tenants, "nobody yet", [
    ["tenant", (r) => r.tenant, true, (r) => r.tenant],
    ["requests/s", (r) => number(r.requests), false, (r) => r.requests],
    ["failed/s", (r) => number(r.failed, 2), false, (r) => r.failed],
    ["tokens/s", (r) => number(r.tokens, 0), false, (r) => r.tokens],
    ["first token p99", (r) => seconds(r.ttft_p99), false, (r) => r.ttft_p99],
    ["requests", (r) => whole(r.requests_total), false, (r) => r.requests_total],
    ["tokens", (r) => whole(r.tokens_total), false, (r) => r.tokens_total],
    ["hardware", (r) => dollars(r.gpu_dollars_total), false, (r) => r.gpu_dollars_total],
    ["by price list", (r) => dollars(r.price_dollars_total), false, (r) => r.price_dollars_total],
  ]],
  models: [(f) => f.models, "none yet", [
    ["model", (r) => r.model, true, (r) => r.model],
    ["requests/s", (r) => number(r.requests), false, (r) => r.requests],
    ["failed/s", (r) => number(r.failed, 2), false, (r) => r.failed],
    ["tokens/s", (r) => number(r.tokens, 0), false, (r) => r.tokens],
    ["first token p99", (r) => seconds(r.ttft_p99), false, (r) => r.ttft_p99],
    ["requests", (r) => whole(r.requests_total), false, (r) => r.requests_total],
    ["tokens", (r) => whole(r.tokens_total), false, (r) => r.tokens_total],
    ["hardware", (r) => dollars(r.gpu_dollars_total), false, (r) => r.gpu_dollars_total],
    ["by price list", (r) => dollars(r.price_dollars_total), false, (r) => r.price_dollars_total],
  ]],
  budgets: [(f) => f.budgets, "none are configured", [
    ["budget", (r) => r.budget, true, (r) => r.budget],
    ["account", (r) => r.account, true, (r) => r.account],
    ["spent", (r) => amount(r.spent, r.unit), false, (r) => r.spent],
    ["limit", (r) => amount(r.limit, r.unit), false, (r) => r.limit],
    ["of it", (r) => percent(isKnown(r.spent) ? r.spent / r.limit : null), false, (r) => r.spent / r.limit],
    ["at the end of the period", (r) => (r.forecast.some(isKnown) ? r.forecast.map(percent).join(" · ") : "–"), false, (r) => r.forecast[1]],
    ["gone in", (r) => seconds(r.gone_in_s), false, (r) => r.gone_in_s],
  ]],
  gpus: [(f) => f.gpus, "none are seen", [
    ["gpu", (r) => r.gpu + (r.up ? "" : " (down)"), true, (r) => Number(r.gpu)],
    ["model", (r) => r.model, true, (r) => r.model],
    ["busy", (r) => percent(r.utilization), false, (r) => r.utilization],
    ["memory", (r) => bytes(r.memory_used) + " of " + bytes(r.memory_total), false, (r) => r.memory_used],
    ["power", (r) => number(r.watts, 0) + " of " + number(r.watts_limit, 0) + " W", false, (r) => r.watts],
    ["temperature", (r) => number(r.celsius, 0) + " °C", false, (r) => r.celsius],
  ]],
  alerts: [() => alerts?.rows ?? [], () => (alerts?.fault ? "not known: " + alerts.fault : alerts ? "none" : "no Prometheus is configured: live.prometheus_url"), [
    ["alert", (r) => r.alert, true, (r) => r.alert],
    ["severity", (r) => r.severity, true, (r) => r.severity],
    ["state", (r) => r.state, true, (r) => r.state],
    ["for", (r) => seconds(isKnown(r.since_s) && latest ? Math.max(0, latest.unix_s - r.since_s) : null), false, (r) => -r.since_s],
    ["what", (r) => r.summary, true, (r) => r.summary],
  ]],
  drift: [(f) => f.drift.rows, "nobody is followed yet", [
    ["model", (r) => r.model, true, (r) => r.model],
    ["tenant", (r) => r.tenant, true, (r) => r.tenant],
    ["state", (r) => r.state, true, (r) => r.state],
    ["votes", (r) => whole(r.votes), false, (r) => r.votes],
    ["evidence of prompts", (r) => weeks(r.prompt), false, (r) => r.prompt],
    ["of answers", (r) => weeks(r.answer), false, (r) => r.answer],
    ["of pace", (r) => weeks(r.pace), false, (r) => r.pace],
  ]],
  quality: [(f) => f.quality.rows, "none", [
    ["model", (r) => r.model, true, (r) => r.model],
    ["tenant", (r) => r.tenant, true, (r) => r.tenant],
    ["sign", (r) => r.sign.replaceAll("_", " "), true, (r) => r.sign],
    ["requests", (r) => whole(r.count), false, (r) => r.count],
    ["of all", (r) => (isKnown(r.share) ? (100 * r.share).toFixed(1) + " %" : "–"), false, (r) => r.share],
  ]],
  unhappy: [(f) => f.unhappy, "no request since the start", [
    ["at", (r) => clock(r.unix_s), true, (r) => r.unix_s],
    ["tenant", (r) => r.tenant, true, (r) => r.tenant],
    ["model", (r) => r.model, true, (r) => r.model],
    ["outcome", (r) => r.outcome, true, (r) => r.outcome],
    ["why", (r) => r.error, true, (r) => r.error],
    ["status", (r) => (r.status ? String(r.status) : "–"), false, (r) => r.status],
    ["after", (r) => seconds(r.duration_s), false, (r) => r.duration_s],
  ]],
  anomalies: [(f) => f.signals, "no signal", [
    ["tenant", (r) => r.tenant, true, (r) => r.tenant],
    ["kind", (r) => r.kind, true, (r) => r.kind],
    ["signals", (r) => whole(r.count), false, (r) => r.count],
  ]],
};
// table -> how many rows it would have, had the frame room for them
const COUNTS = [
  ["tenants", (f) => f.tenant_count],
  ["models", (f) => f.model_count],
  ["budgets", (f) => f.budget_count],
  ["gpus", (f) => f.gpu_count],
  ["drift", (f) => f.drift.count],
  ["quality", (f) => f.quality.count],
  ["anomalies", (f) => f.signal_count],
];
const amount = (value, unit) => (unit === "dollars" ? dollars(value) : number(value, 0) + " " + unit.replaceAll("_", " "));

// --- the view, kept in the URL

const view = Object.assign({ range: "15", theme: "auto" }, Object.fromEntries(new URLSearchParams(location.hash.slice(1))));
function remember(changes) {
  Object.assign(view, changes);
  const kept = Object.entries(view).filter(([, value]) => value);
  history.replaceState(null, "", "#" + new URLSearchParams(kept));
}
function dress() {
  if (view.theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = view.theme;
}

// --- cards and tables

function buildCards() {
  for (const [id, title] of CARDS) {
    const card = document.createElement("div");
    const [term, text, small] = ["dt", "dd", "small"].map((name) => document.createElement(name));
    term.textContent = title;
    text.id = "card-" + id;
    text.append("–", small);
    card.append(term, text);
    $("cards").append(card);
  }
}
function drawCards(frame) {
  for (const [id, , value, beside] of CARDS) {
    const text = $("card-" + id);
    text.firstChild.data = value(frame);
    text.lastChild.textContent = beside(frame);
  }
}
function buildTables() {
  for (const [id, [, , columns]] of Object.entries(TABLES)) {
    const row = $(id).createTHead().insertRow();
    columns.forEach(([title, , isText], place) => {
      const cell = document.createElement("th");
      const button = document.createElement("button");
      cell.scope = "col";
      if (isText) cell.className = "text";
      button.type = "button";
      button.textContent = title;
      button.addEventListener("click", () => {
        const before = view["sort-" + id];
        remember({ ["sort-" + id]: before === place + "d" ? place + "a" : place + "d" });
        if (latest) drawTable(id, latest);
      });
      cell.append(button);
      row.append(cell);
    });
    $(id).createTBody();
  }
}
function drawTable(id, frame) {
  const [pick, empty, columns] = TABLES[id];
  const rows = [...pick(frame)];
  const order = view["sort-" + id] || "";
  const column = columns[parseInt(order, 10)];
  if (column) {
    const sign = order.endsWith("a") ? 1 : -1;
    const key = column[3];
    rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (!isKnown(x) || !isKnown(y)) return isKnown(y) - isKnown(x);
      return sign * (x < y ? -1 : x > y ? 1 : 0);
    });
  }
  [...$(id).tHead.rows[0].cells].forEach((cell, place) => {
    const chosen = column && place === parseInt(order, 10);
    cell.ariaSort = chosen ? (order.endsWith("a") ? "ascending" : "descending") : "none";
  });
  const body = $(id).tBodies[0];
  if (!rows.length) {
    body.replaceChildren();
    const cell = body.insertRow().insertCell();
    cell.colSpan = columns.length;
    cell.className = "none";
    cell.textContent = typeof empty === "function" ? empty() : empty;
    return;
  }
  rows.forEach((values, place) => {
    const row = body.rows[place] || body.insertRow();
    if (row.cells.length !== columns.length) row.replaceChildren(...columns.map(() => document.createElement("td")));
    columns.forEach(([, text, isText], at) => {
      const cell = row.cells[at];
      const shown = text(values);
      if (cell.textContent !== shown) cell.textContent = shown;
      cell.className = isText ? "text" : "";
    });
  });
  while (body.rows.length > rows.length) body.deleteRow(-1);
}

// --- charts

const charts = [];
let columns = null;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function buildCharts() {
  for (const chart of charts.splice(0)) chart.plot.destroy();
  $("charts").replaceChildren();
  for (const [title, format, series] of CHARTS) {
    const box = document.createElement("div");
    box.className = "chart";
    const heading = document.createElement("h3");
    const words = document.createElement("p");
    heading.textContent = title;
    box.append(heading, words);
    $("charts").append(box);
    const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const plot = new uPlot({
      width: box.clientWidth - 16,
      height: 160,
      legend: { show: false },
      cursor: { y: false },
      scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [{ ...axis, size: 30, values: (_, ticks) => ticks.map(Number(view.range) > 1440 ? day : clock) }, { ...axis, size: 64, values: (_, ticks) => ticks.map(format) }],
      series: [{}, ...series.map(([, label, name], place) => ({
        label, stroke: colour(name), width: 2, dash: place ? [6, 4] : undefined, spanGaps: false, points: { show: false },
      }))],
    }, [[], ...series.map(() => [])], box);
    charts.push({ plot, series, format, words, box, title });
  }
  drawCharts();
}
function drawCharts() {
  if (!columns) return;
  for (const { plot, series, format, words, title } of charts) {
    plot.setData([columns.time, ...series.map(([name]) => columns[name])]);
    const told = series.map(([name, label]) => label + " " + format(columns[name].at(-1)));
    words.textContent = told.join(", ") + (series.length > 1 ? " (dashed: " + series[1][1] + ")" : "");
    plot.root.setAttribute("role", "img");
    plot.root.setAttribute("aria-label", title + ", last: " + told.join(", "));
  }
}
let loading = "";
async function loadHistory() {
  const range = view.range;
  if (loading === range) return; // a Prometheus may take its time
  loading = range;
  try {
    const reply = await fetch("/live/history?minutes=" + range);
    const told = reply.ok ? await reply.json() : { fault: "this range needs a Prometheus: live.prometheus_url" };
    if (range !== view.range) return;
    if (told.time) {
      columns = told;
      drawCharts();
    }
    $("charts-note").textContent = told.fault ? "what is older is not known: " + told.fault : "";
  } catch {
    // The stream of frames tells that the connection is gone, and the history is loaded when it is back.
  } finally {
    if (loading === range) loading = "";
  }
}
async function loadAlerts() {
  const reply = await fetch("/live/alerts").catch(() => null);
  if (!reply?.ok) return;
  alerts = await reply.json();
  const cut = alerts ? alerts.count - alerts.rows.length : 0;
  $("alerts-note").textContent = cut > 0 ? `the first ${alerts.rows.length} of ${alerts.count}` : "";
  if (latest && !paused) show(latest);
}

// --- frames

let latest = null;
let alerts = null; // as /live/alerts told last; null without a Prometheus
let paused = false;

function say(text, bad) {
  const health = $("health");
  if (health.textContent !== text) health.textContent = text;
  health.classList.toggle("bad", bad);
}
function show(frame) {
  latest = frame;
  const { version, upstream, faults, guarded, prometheus } = frame.health;
  $("leave").hidden = !guarded;
  for (const option of $("range").options) option.hidden = Number(option.value) > 360 && !prometheus;
  say(faults.length ? "not ready: " + faults.join("; ") : "well; " + version + " before " + upstream, faults.length > 0);
  drawCards(frame);
  $("running").textContent = frame.running > frame.streams.length ? `the oldest ${frame.streams.length} of ${frame.running}` : String(frame.running);
  for (const [id, count] of COUNTS) {
    const [told, all] = [TABLES[id][0](frame).length, count(frame)];
    $(id + "-count").textContent = all > told ? `the first ${told} of ${all}` : "";
  }
  for (const id of Object.keys(TABLES)) drawTable(id, frame);
}
// A page that nobody sees, or that is paused, holds no connection: there is room for a few only.
let events = null;
const isWanted = () => !paused && !document.hidden;
function attend() {
  if (isWanted()) return events || listen();
  events?.close();
  events = null;
}
function listen() {
  events = new EventSource("/live/events");
  events.onopen = () => { loadHistory(); loadAlerts(); };
  events.onmessage = (event) => { if (!paused) show(JSON.parse(event.data)); };
  events.onerror = () => {
    say("connection lost; the numbers below are old, trying again …", true);
    // A browser gives up for good on an answer that is no stream, as a 503 while the collector restarts.
    if (events?.readyState === EventSource.CLOSED) setTimeout(listenAgain, 2000);
  };
}

async function listenAgain() {
  // A session that has ended: the page itself sends on to where one signs in.
  const reply = await fetch("/live/frame", { cache: "no-store" }).catch(() => null);
  if (reply?.status === 401) location.reload();
  else if (isWanted() && (!events || events.readyState === EventSource.CLOSED)) listen();
}

// --- controls

function setRange(value) {
  $("range").value = value;
  remember({ range: value });
  loadHistory();
}
function setPaused(value) {
  paused = value;
  $("pause").setAttribute("aria-pressed", String(value));
  $("pause").textContent = value ? "Go on" : "Pause";
  attend();
}
$("range").value = view.range;
if (!$("range").value) setRange("15");
$("theme").value = view.theme;
$("range").addEventListener("change", () => setRange($("range").value));
$("theme").addEventListener("change", () => { remember({ theme: $("theme").value }); dress(); buildCharts(); });
$("pause").addEventListener("click", () => setPaused(!paused));
$("controls").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.target.matches("select, button, input") || event.ctrlKey || event.altKey || event.metaKey) return;
  const ranges = [...$("range").options].filter((option) => !option.hidden).map((option) => option.value);
  if (event.key === "p") setPaused(!paused);
  else if (ranges[Number(event.key) - 1]) setRange(ranges[Number(event.key) - 1]);
});
document.addEventListener("visibilitychange", attend);
addEventListener("resize", () => charts.forEach(({ plot, box }) => plot.setSize({ width: box.clientWidth - 16, height: 160 })));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", buildCharts);

dress();
buildCards();
buildTables();
buildCharts();
attend();
setInterval(() => { if (!paused && !document.hidden) loadHistory(); }, 5000);
setInterval(() => { if (!paused && !document.hidden) loadAlerts(); }, 15000);
