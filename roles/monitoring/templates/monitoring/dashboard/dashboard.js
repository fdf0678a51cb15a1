// What somebody looks at during an incident. Asks the Prometheus that serves this page, and nobody else.
"use strict";

const RANGES = [["1 h", 3600], ["6 h", 21600], ["1 d", 86400], ["7 d", 604800], ["30 d", 2592000]];
const POINTS = 180;
const REFRESH = 15000;
const COLOURS = 6;
const percent = (v) => (100 * v).toFixed(v > 0.9995 || v < 0.0005 ? 3 : 2).replace(/\.?0+$/, "") + " %";
const plain = (v) => (v >= 100 ? v.toFixed(0) : +v.toPrecision(3)).toString();
const time = (v) => (v < 1 ? plain(v * 1000) + " ms" : plain(v) + " s");
const bytes = (v) => (v < 2 ** 30 ? plain(v / 2 ** 20) + " MiB" : plain(v / 2 ** 30) + " GiB");

const PANELS = [
  { title: "Availability, seen from outside", unit: percent, top: 1, lines: [
    ["probes", "avg(avg_over_time(probe_success{job=\"probe\"}[STEP]))"]] },
  { title: "Requests per second", unit: plain, lines: [
    ["answered", "sum(rate(toll_http_requests_total{job=\"app\"}[RATE]))"]] },
  { title: "Requests that failed (5xx)", unit: percent, lines: [
    ["share", "(sum(rate(toll_http_requests_total{job=\"app\",status=~\"5..\"}[RATE])) or vector(0)) / sum(rate(toll_http_requests_total{job=\"app\"}[RATE]) > 0)"]] },
  { title: "Time to answer", unit: time, lines: [50, 90, 99].map((p) => ["p" + p,
    `histogram_quantile(${p / 100}, sum by (le) (rate(toll_http_request_duration_seconds_bucket{job="app"}[RATE])))`]) },
  // One line for each host of a fleet from here on.
  { title: "Workers", unit: plain, lines: [["processes", "app_workers"]] },
  { title: "Processors used by the service", unit: plain, lines: [["processors", "rate(app_cpu_seconds_total[LONG])"]] },
  { title: "Memory", unit: bytes, lines: [
    ["service", "app_memory_bytes"]] },
  { title: "Memory that the host has left", unit: bytes, lines: [["available", "node_memory_MemAvailable_bytes"]] },
  { title: "Connections to nginx", unit: plain, lines: [["open", "nginx_connections_active"]] },
];
const NUMBERS = [
  ["Available, 1 d", "app:availability:ratio1d", percent, () => false],
  ["Available, 30 d", "app:availability:ratio30d", percent, () => false],
  ["Budget burnt, 1 h", "max(app:failures:ratio_rate1h) / BUDGET", (v) => plain(v) + " ×", (v) => v > 1],
  ["Certificate", "min(probe_ssl_earliest_cert_expiry - time()) / 86400", (v) => plain(v) + " d", (v, limit, fires) => fires("CertificateExpiresSoon")],
  ["Last good backup", "max(time() - app_backup_last_success_timestamp_seconds) / 3600", (v) => (v < 100 ? plain(v) + " h" : plain(v / 24) + " d") + " ago", (v, limit) => v > limit("BackupTooOld") / 3600],
  ["Fullest disk", "1 - min(node_filesystem_avail_bytes{fstype!~\"ramfs|tmpfs|squashfs|overlay\"} / node_filesystem_size_bytes)", percent, (v, limit) => 100 * (1 - v) < limit("DiskFull")],
];

let range = RANGES.some(([, s]) => s === +location.hash.slice(1)) ? +location.hash.slice(1) : RANGES[0][1];
const at = (id) => document.getElementById(id);

function element(name, attributes, ...children) {
  const svg = ["svg", "line", "polyline", "text", "title", "circle"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

async function ask(path, parameters = {}) {
  const answer = await fetch("/api/v1/" + path + "?" + new URLSearchParams(parameters));
  const body = await answer.json();
  if (body.status !== "success") throw new Error(body.error);
  return body.data;
}

async function series(query, start, end, step) {
  const rate = Math.max(60, 4 * step);
  const full = query.replaceAll("STEP", step + "s").replaceAll("RATE", rate + "s").replaceAll("LONG", Math.max(180, rate) + "s");
  const data = await ask("query_range", { query: full, start, end, step });
  return data.result.map((each) => ({ labels: each.metric,
    points: each.values.map(([t, v]) => [t, +v]).filter(([, v]) => Number.isFinite(v)) }));
}

// When a release was made live, within the time that is shown.
async function releases(start, end, step) {
  const found = new Map();
  for (const { labels, points } of await series("app_release_activated_timestamp_seconds", start, end, step))
    for (const [, moment] of points) if (moment >= start && moment <= end) found.set(moment, labels.release);
  return [...found].sort((a, b) => a[0] - b[0]);
}

const clock = (t) => {
  const d = new Date(t * 1000);
  const two = (n) => String(n).padStart(2, "0");
  return range > 86400 ? `${two(d.getMonth() + 1)}-${two(d.getDate())}` : `${two(d.getHours())}:${two(d.getMinutes())}`;
};

function draw(panel, lines, marks, start, end, step) {
  const [W, H, L, R, T, B] = [480, 190, 58, 8, 20, 20];
  const values = lines.flatMap((line) => line.points.map(([, v]) => v));
  let low = panel.top ? Math.min(...values, panel.top * 0.99) : 0;
  let high = panel.top || Math.max(...values, 0) * 1.1;
  if (!(high > low)) high = low + 1;
  const x = (t) => L + ((t - start) / (end - start)) * (W - L - R);
  const y = (v) => H - B - ((v - low) / (high - low)) * (H - T - B);
  const svg = element("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": panel.title });
  for (let i = 0; i <= 2; i++) {
    const v = low + ((high - low) * i) / 2;
    svg.append(element("line", { class: "grid", x1: L, x2: W - R, y1: y(v), y2: y(v) }),
      element("text", { x: L - 6, y: y(v) + 4, "text-anchor": "end" }, panel.unit(v)));
  }
  for (let i = 0; i <= 4; i++) {
    const t = start + ((end - start) * i) / 4;
    svg.append(element("text", { x: x(t), y: H - 5, "text-anchor": ["start", "middle", "middle", "middle", "end"][i] }, clock(t)));
  }
  let free = -1;
  for (const [t, release] of marks) {
    svg.append(element("line", { class: "mark", x1: x(t), x2: x(t), y1: T, y2: H - B },
      element("title", {}, `release ${release}, ${new Date(t * 1000).toLocaleString()}`)));
    if (x(t) < free) continue;  // its name would lie on the one before it
    const left = x(t) > W - 80;
    svg.append(element("text", { class: "mark", x: x(t), y: T - 6, "text-anchor": left ? "end" : "start" }, "▾ " + release.slice(0, 8)));
    free = x(t) + 75;
  }
  const colour = (line, i) => "s" + ((line.colour ?? i) % COLOURS);
  lines.forEach((line, i) => {
    let run = [];
    // A gap in what is known is a gap in the line.
    const flush = () => {
      if (run.length > 1) svg.append(element("polyline", { class: colour(line, i), points: run.map(([t, v]) => `${x(t).toFixed(1)},${y(Math.min(v, high)).toFixed(1)}`).join(" ") }));
      run = [];
    };
    line.points.forEach((point, n) => {
      if (n && point[0] - line.points[n - 1][0] > 1.5 * step) flush();
      run.push(point);
    });
    flush();
  });
  const caption = element("figcaption", {}, panel.title, ...lines.map((line, i) => {
    // What was known last is no present value.
    const last = line.points.at(-1);
    const fresh = last && end - last[0] < Math.max(60, 1.5 * step);
    return element("i", { class: colour(line, i) }, `${line.name} ${fresh ? panel.unit(last[1]) : "—"}`);
  }));
  if (!values.length) svg.append(element("text", { x: W / 2, y: H / 2, "text-anchor": "middle" }, "nothing is known"));
  return element("figure", {}, caption, svg);
}

async function numbers() {
  // What is too much is what the alerts say.
  const rules = (await ask("rules", { type: "alert" })).groups.flatMap((group) => group.rules);
  const limit = (name) => +rules.find((rule) => rule.name === name).query.match(/[<>] ([\d.e-]+)/)[1];
  // Where that is no plain number, whether one does.
  const fires = (name) => rules.find((rule) => rule.name === name).state !== "inactive";
  const budget = limit("ErrorBudgetBurnsFast") / 14.4;
  return Promise.all(NUMBERS.map(async ([name, query, unit, bad]) => {
    const { result } = await ask("query", { query: query.replace("BUDGET", budget) });
    const value = result.length ? +result[0].value[1] : NaN;
    const known = Number.isFinite(value);
    return element("div", {}, element("span", {}, name), element("b", { class: known && bad(value, limit, fires) ? "bad" : "" }, known ? unit(value) : "—"));
  }));
}

// Names of the hosts that are known, each of which keeps its colour.
async function known() {
  const { result } = await ask("query", { query: "up{job=\"node\"}" });
  return result.map((each) => each.metric.instance).sort();
}

// A line for each host where there are several, and an empty one where nothing is known.
function named(name, found, hosts) {
  const lines = found.map(({ labels, points }) =>
    hosts.length > 1 && hosts.includes(labels.instance) ? { name: labels.instance, points, colour: hosts.indexOf(labels.instance) } : { name, points });
  return lines.length ? lines : [{ name, points: [] }];
}

// The release that serves; where hosts differ, all of them with their hosts.
function serving(found) {
  const hosts = new Map();
  for (const { metric } of found) hosts.set(metric.release, [...(hosts.get(metric.release) || []), metric.instance]);
  if (!hosts.size) return "no release is live";
  if (hosts.size > 1) return "hosts differ: " + [...hosts].map(([release, names]) => `release ${release} on ${names.join(", ")}`).join("; ");
  const since = Math.max(...found.map((each) => +each.value[1]));
  return `release ${found[0].metric.release}${found.length > 1 ? ` on ${found.length} hosts` : ""}, live since ${new Date(since * 1000).toLocaleString()}`;
}

async function show() {
  const end = Math.floor(Date.now() / 1000);
  const start = end - range;
  const step = Math.max(15, Math.round(range / POINTS));
  try {
    const hosts = await known();
    const [drawn, marks, told, live, cards, ...figures] = await Promise.all([
      picture(),
      releases(start, end, step), ask("alerts"), ask("query", { query: "app_release_activated_timestamp_seconds" }), numbers(),
      ...PANELS.map((panel) => Promise.all(panel.lines.map(async ([name, query]) =>
        named(name, await series(query, start, end, step), hosts)))),
    ]);
    const firing = told.alerts.filter((each) => each.state === "firing");
    at("alerts").replaceChildren(...(firing.length ? firing.map((each) => element("p", { class: each.labels.severity },
      element("b", {}, each.labels.alertname), " ", each.annotations.summary + ", since " + new Date(each.activeAt).toLocaleTimeString()))
      : [element("p", {}, "No alert.")]));
    redraw = drawn;
    redraw();
    at("release").textContent = serving(live.result);
    at("numbers").replaceChildren(...cards);
    at("panels").replaceChildren(...PANELS.map((panel, i) => draw(panel, figures[i].flat(), marks, start, end, step)));
    at("state").textContent = "As of " + new Date().toLocaleTimeString() + ".";
  } catch (error) {
    at("state").textContent = `Prometheus did not answer (${error.message}); what is shown is old.`;
  }
}

for (const [name, seconds] of RANGES) {
  const button = element("button", { type: "button", "aria-pressed": seconds === range }, name);
  button.addEventListener("click", () => {
    range = seconds;
    location.hash = seconds;
    for (const each of at("ranges").children) each.setAttribute("aria-pressed", each === button);
    show();
  });
  at("ranges").append(button);
}
show();
setInterval(show, REFRESH);
