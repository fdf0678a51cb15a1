// Who balances, who serves and who keeps the data, and how each of them is.
"use strict";

const LANES = [["balancer", "Balancers"], ["web", "Hosts that serve"], ["database", "Database"], ["voter", "Votes on the primary"]];
const FLEET = {
  there: "max by (instance) (up{job=\"node\"})",
  balances: "min by (instance) (haproxy_up or probe_success{job=\"balancer\"})",
  led: "min by (instance, server) (haproxy_server_status{state=\"UP\",proxy=~\".*:https\"})",
  connections: "sum by (instance, server) (haproxy_server_current_sessions)",
  drained: "max by (instance) (app_host_drained_timestamp_seconds)",
  maintenance: "max by (instance, application) (app_in_maintenance) == 1",
  runs: "max by (instance, name) (node_systemd_unit_state{state=\"active\"})",
  keeps: "max by (instance) (postgresql_up)",
  primary: "max by (instance) (postgresql_primary)",
  votes: "min by (instance) (etcd_server_has_leader or etcd_up)",
  used: "sum by (instance) (postgresql_connections)",
  most: "max by (instance) (postgresql_connections_max)",
};
const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

// What is known now, as a function of a name above and of labels: the values of all that have them.
async function knownNow() {
  const names = Object.keys(FLEET);
  const found = await Promise.all(names.map((name) => ask("query", { query: FLEET[name] })));
  const all = Object.fromEntries(names.map((name, i) => [name, found[i].result]));
  return (name, labels) => all[name].filter(({ metric }) => Object.entries(labels).every(([key, value]) => metric[key] === value))
    .map((each) => ({ ...each.metric, value: +each.value[1] }));
}

// A word for how a host is in one of the things that it does, how bad that is, and more about it.
const STATES = {
  balancer(host, now) {
    const [balances] = now("balances", { instance: host.name });
    if (!balances || balances.value !== 1) return ["bad", "down", ""];
    const led = now("led", { instance: host.name });
    const up = led.filter((each) => each.value === 1).length;
    const sessions = now("connections", { instance: host.name }).reduce((sum, each) => sum + each.value, 0);
    return [!up ? "bad" : up < led.length ? "warning" : "good", "up", `${up} of ${count(led.length, "host")}, ${count(sessions, "connection")}`];
  },
  web(host, now) {
    const led = now("led", { server: host.name });
    const sessions = now("connections", { server: host.name }).reduce((sum, each) => sum + each.value, 0);
    const about = led.length ? count(sessions, "connection") : "";
    const [drained] = now("drained", { instance: host.name });
    if (drained) return ["warning", "drained", `for ${plain((Date.now() / 1000 - drained.value) / 3600)} h`];
    const stopped = host.applications.filter((name) => !now("runs", { instance: host.name, name: name + ".service" }).some((each) => each.value === 1));
    if (stopped.length) return ["bad", "down", `${stopped.join(", ")} does not run`];
    const maintenance = now("maintenance", { instance: host.name }).map((each) => each.application);
    if (maintenance.length) return ["warning", "maintenance", maintenance.join(", ")];
    const without = led.filter((each) => each.value !== 1).map((each) => each.instance);
    if (without.length) return ["bad", "unhealthy", `for ${without.join(", ")}`];
    return ["good", "up", about];
  },
  database(host, now) {
    const [keeps] = now("keeps", { instance: host.name });
    if (!keeps || keeps.value !== 1) return ["bad", "down", ""];
    const [[primary], [used], [most]] = ["primary", "used", "most"].map((name) => now(name, { instance: host.name }));
    return ["good", primary.value === 1 ? "primary" : "replica", `${used.value} of ${most.value} connections`];
  },
  voter(host, now) {
    const [votes] = now("votes", { instance: host.name });
    return votes && votes.value === 1 ? ["good", "up", ""] : ["bad", "no majority", ""];
  },
};

// Who keeps the data and votes too is shown once.
const shownAs = (host, kind) => host.kinds.includes(kind) && (kind !== "voter" || !host.kinds.includes("database"));

function hostCard(host, kind, now) {
  const [there] = now("there", { instance: host.name });
  const gone = !there || there.value !== 1;
  const [how, word, about] = gone ? ["bad", "gone", "nothing answers"] : STATES[kind](host, now);
  return element("li", { class: how, "data-host": host.name, "data-kind": kind }, element("b", {}, host.name), " ",
    element("em", {}, word), element("span", {}, about));
}

// From each balancer to each host that it knows; broken where it sends nobody.
function linesBetween(place, now) {
  const svg = element("svg", { "aria-hidden": "true" });
  place.append(svg);
  const frame = place.getBoundingClientRect();
  for (const { instance, server, value } of now("led", {})) {
    const [from, to] = [["balancer", instance], ["web", server]].map(([kind, name]) =>
      place.querySelector(`[data-kind=${kind}][data-host="${CSS.escape(name)}"]`)?.getBoundingClientRect());
    if (!from || !to) continue;
    svg.append(element("line", { class: value === 1 ? "led" : "left", x1: from.x + from.width / 2 - frame.x, y1: from.bottom - frame.y,
      x2: to.x + to.width / 2 - frame.x, y2: to.y - frame.y }));
  }
}

async function picture() {
  const hosts = await (await fetch("fleet.json", { cache: "no-cache" })).json();
  const place = at("fleet");
  place.hidden = hosts.length < 2 && !hosts.some((host) => host.kinds.some((kind) => kind !== "web"));
  if (place.hidden) return () => {};
  const now = await knownNow();
  return () => {
    place.replaceChildren(...LANES.map(([kind, title]) => [title, hosts.filter((host) => shownAs(host, kind)), kind])
      .filter(([, those]) => those.length)
      .map(([title, those, kind]) => element("div", {}, element("h2", {}, title),
        element("ul", {}, ...those.map((host) => hostCard(host, kind, now))))));
    linesBetween(place, now);
  };
}

let redraw = () => {};
addEventListener("resize", () => redraw());
