"""docs/comparison.md and its plots, from what the parts came to."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import chart
import figures
from chart import Series
from figures import number, paired, spread
from rig import BY_KEY, FOLDER, MOST_ELSEWHERE, PROJECT, SYSTEMS, System
from settings import variants

PAGE = PROJECT / "docs" / "comparison.md"
PLOTS = PROJECT / "docs" / "comparison"
MARKER = "<!-- below: written by hand -->\n"
OBJECTIVE = 0.999
DAYS = 30
# What happens in a month to one server that is looked after, and that is bold to assume less of.
EVENTS = {
    "new code or settings": 30,
    "kill -9 of a worker": 10,
    "kill -9 of the master": 2,
    "kill -9 of nginx's master": 1,
    "reboot": 2,
}
# Without somebody who watches at night: until it is noticed that nothing answers.
UNNOTICED_HOURS = 8

Row = Mapping[str, Any]


class Kept:
    """What was measured."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Read it.

        Args:
            folder: where the parts' files are.
        """
        self.folder = folder

    def rows(self, part: str) -> list[dict[str, Any]]:
        """The rows of a part; none when it was not measured.

        Turns in which the machine was busy with something else are left out where there are others.
        """
        rows = self.all(part)
        quiet = [row for row in rows if row.get("elsewhere", 0.0) <= MOST_ELSEWHERE]
        cells = {cell(row) for row in quiet}
        return [row for row in rows if row in quiet or cell(row) not in cells]

    def all(self, part: str) -> list[dict[str, Any]]:
        """All of them."""
        path = self.folder / f"{part}.json"
        return list(json.loads(path.read_text())["rows"]) if path.exists() else []

    def read(self, name: str) -> dict[str, Any]:
        """A whole file; empty when there is none."""
        path = self.folder / f"{name}.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}


def cell(row: Row) -> tuple[Any, ...]:
    """What a row is a turn of."""
    return tuple(
        row.get(key)
        for key in ("system", "protocol", "workload", "connections", "what", "processes")
    )


def where(rows: Iterable[Row], **wanted: object) -> list[Row]:
    """The rows with these values."""
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def middle(rows: Sequence[Row], figure: str) -> float | None:
    """The median of a figure, None without rows."""
    return statistics.median(row[figure] for row in rows) if rows else None


def by_round(rows: Iterable[Row], figure: str) -> dict[int, float]:
    """A figure by round."""
    return figures.as_round(rows, figure)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def shown(value: float | None, unit: str = "") -> str:
    """A figure of a table; a dash when there is none."""
    return "-" if value is None else f"{number(value)}{unit}"


def asked(
    rows: Iterable[Row], system: System, protocol: str, workload: str, connections: int
) -> list[Row]:
    """The runs of one cell."""
    return where(
        rows, system=system.key, protocol=protocol, workload=workload, connections=connections
    )


def protocols(system: System) -> list[str]:
    """What a system speaks."""
    return [each for each in ("http", "https") if system.port(each)]


def best(system: System) -> str:
    """The protocol that a system's users get."""
    return "https" if system.https else "http"


def failed(cells: Mapping[str, Sequence[Row]]) -> str:
    """How many requests failed, and whose."""
    counts = {
        system.title: sum(row["errors"] for row in cells.get(system.key, ())) for system in SYSTEMS
    }
    return ", ".join(f"{title}: {count}" for title, count in counts.items() if count) or "0"


def ratio(new: Sequence[Row], old: Sequence[Row], figure: str = "rate") -> str:
    """A ratio of rounds, "1.31 (1.20 to 1.44)"; a dash when they have none in common."""
    try:
        return f"{paired(by_round(new, figure), by_round(old, figure))}"
    except statistics.StatisticsError:
        return "-"


# Sections


def throughput(kept: Kept) -> str:
    """Quotes at more and more connections."""
    rows = kept.rows("throughput")
    if not rows:
        return ""
    steps = sorted({row["connections"] for row in rows})
    lines = []
    for protocol in ("http", "https"):
        for step in steps:
            cells = {system.key: asked(rows, system, protocol, "quote", step) for system in SYSTEMS}
            new = cells["project"]
            lines.append(
                [
                    protocol.upper(),
                    str(step),
                    *(shown(middle(cells[system.key], "rate")) for system in SYSTEMS),
                    ratio(new, cells["development"]),
                    ratio(new, cells["tutorial"]),
                    *(shown(middle(cells[system.key], "p99")) for system in SYSTEMS),
                    failed(cells),
                ]
            )
    plot(
        "throughput.svg",
        chart.lines(
            "Quotes answered a second",
            [str(step) for step in steps],
            [
                Series(
                    f"{system.title}, {protocol.upper()}",
                    system.key,
                    [
                        middle(asked(rows, system, protocol, "quote", step), "rate")
                        for step in steps
                    ],
                    chart.DASHES[protocol],
                )
                for system in SYSTEMS
                for protocol in protocols(system)
            ],
            unit="requests/s",
            axis="connections that ask without a pause",
            logarithmic=False,
        ),
    )
    plot(
        "p99.svg",
        chart.lines(
            "Quotes: 99 of 100 answered within",
            [str(step) for step in steps],
            [
                Series(
                    f"{system.title}, {protocol.upper()}",
                    system.key,
                    [middle(asked(rows, system, protocol, "quote", step), "p99") for step in steps],
                    chart.DASHES[protocol],
                )
                for system in SYSTEMS
                for protocol in protocols(system)
            ],
            unit="ms, logarithmic",
            axis="connections that ask without a pause",
        ),
    )
    head = [
        "",
        "connections",
        *(f"{system.title}, /s" for system in SYSTEMS),
        "new / development",
        "new / tutorial",
        *(f"{system.title}, p99 ms" for system in SYSTEMS),
        "failed",
    ]
    return f"""## Requests a second and how long they take

Quotes (`/api/v1/quote`, a read of the database), asked for with a cookie, so that no answer is one that was kept for others. A closed loop: each connection asks again as soon as it was answered, so
at 500 connections 500 clients wait at any moment. Ratios are medians over rounds, least and most in parentheses.

![Quotes a second by connections](comparison/throughput.svg)

![p99 by connections](comparison/p99.svg)

{table(head, lines)}"""


def workloads(kept: Kept) -> str:
    """Everything at 50 connections."""
    rows = [row for row in kept.rows("workloads") if "workload" in row]
    quotes = where(kept.rows("throughput"), connections=50)
    rows = [*(dict(row) for row in quotes), *rows]
    steps = sorted(
        {(row["workload"], row["connections"]) for row in rows},
        key=lambda step: (ORDER.index(step[0]), step[1]),
    )
    if not kept.rows("workloads"):
        return ""
    lines = []
    for workload, connections in steps:
        for protocol in ("http", "https"):
            cells = {
                system.key: asked(rows, system, protocol, workload, connections)
                for system in SYSTEMS
            }
            lines.append(
                [
                    WHAT[workload] + (f", {connections} connections" if connections != 50 else ""),
                    protocol.upper(),
                    *(shown(middle(cells[system.key], "rate")) for system in SYSTEMS),
                    ratio(cells["project"], cells["tutorial"]),
                    *(shown(middle(cells[system.key], "cpu_ms")) for system in SYSTEMS),
                    failed(cells),
                ]
            )
    at_fifty = [workload for workload, connections in steps if connections == 50]
    plot(
        "workloads.svg",
        chart.bars(
            "Answers a second at 50 connections",
            [WHAT[workload] for workload in at_fifty],
            [
                Series(
                    f"{system.title}, {best(system).upper()}",
                    system.key,
                    [
                        middle(asked(rows, system, best(system), workload, 50), "rate")
                        for workload in at_fifty
                    ],
                )
                for system in SYSTEMS
            ],
            unit="requests/s, logarithmic",
            logarithmic=True,
        ),
    )
    memory = "; ".join(
        f"{BY_KEY[row['system']].title} {sum(row['memory'].values()):.0f} MiB"
        for row in kept.rows("workloads")
        if "memory" in row
    )
    head = [
        "what",
        "",
        *(f"{system.title}, /s" for system in SYSTEMS),
        "new / tutorial",
        *(f"{system.title}, CPU ms" for system in SYSTEMS),
        "failed",
    ]
    return f"""## By what is asked for

At 50 connections. CPU is what the server's processes took for an answer, from the control groups of their units (nginx and
the application together); the load's own share is not in it. A passage is a write that is on the disk when it is answered,
with a key that makes it safe to repeat. Strangers have no cookie: nginx keeps the answer for them that toll-app allows to be
kept, for seconds.

![Answers a second by what is asked for](comparison/workloads.svg)

{table(head, lines)}
Memory after all that, with what processes share divided among them: {memory}.
"""


ORDER = ["health", "quote", "kept", "passage", "page", "static", "mixed", "constant"]
WHAT = {
    "health": "health",
    "quote": "quote (read)",
    "kept": "quote, by strangers",
    "passage": "passage (write)",
    "page": "page",
    "static": "static file",
}
KINDS = {
    "half": "at half of what each can do",
    "common": "at one rate for all",
    "mixed": "at that rate, every tenth a passage",
}


def latency(kept: Kept) -> str:
    """Open loops."""
    rows = kept.rows("latency")
    if not rows:
        return ""
    lines = []
    for kind, title in KINDS.items():
        for system in SYSTEMS:
            found = where(rows, system=system.key, kind=kind)
            if not found:
                continue
            p50, p99 = spread(row["p50"] for row in found), spread(row["p99"] for row in found)
            lines.append(
                [
                    title,
                    f"{system.title}, {best(system).upper()}",
                    str(found[0]["per_second"]),
                    f"{p50}",
                    f"{p99}",
                    f"{spread(row['p999'] for row in found)}",
                    number(statistics.median(row["p99"] / row["p50"] for row in found)),
                    f"{sum(row['failed'] for row in found)} of {sum(row['sent'] for row in found)}",
                    number(max(row["late"] for row in found)),
                ]
            )
    common = [system for system in SYSTEMS if where(rows, system=system.key, kind="common")]
    plot(
        "latency.svg",
        chart.bars(
            "Time to an answer at one rate for all",
            ["p50", "p99", "p99.9"],
            [
                Series(
                    f"{system.title}, {best(system).upper()}",
                    system.key,
                    [
                        middle(where(rows, system=system.key, kind="common"), figure)
                        for figure in ("p50", "p99", "p999")
                    ],
                )
                for system in common
            ],
            unit="ms, logarithmic",
            logarithmic=True,
        ),
    )
    head = [
        "",
        "system",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "p99 / p50",
        "failed",
        "sender late, ms",
    ]
    return f"""## How even it is

An open loop: requests are due at a constant rate and are timed from then, whether or not earlier ones were answered, so a
stall is counted for everybody who came during it. Over HTTPS 64 clients have their connections open before, as clients of a
site do. The last column is how late 99 of 100 requests left the sender, which
shares the processors: a p99 is not better known than that.

![Time to an answer](comparison/latency.svg)

{table(head, lines)}"""


def recovery(kept: Kept) -> str:
    """Faults."""
    rows = kept.rows("recovery")
    if not rows:
        return ""
    lines = []
    for fault in dict.fromkeys(row["fault"] for row in rows):
        line = [fault]
        for system in SYSTEMS:
            found = where(rows, fault=fault, system=system.key)
            line.append(outage(found[0]) if found else "has none")
        lines.append(line)
    return f"""## What clients notice when something dies

Quotes at a constant rate while it happens; each request stands for the time until the next one. Refused is also what ends
with an error of nginx or without an answer; slow is what took longer than a second. Nobody starts anything by hand.

{table(["what happens", *(system.title for system in SYSTEMS)], lines)}"""


def outage(row: Row) -> str:
    """A cell on what clients noticed."""
    if row["until_good"] is None:
        return f"**down for good** (watched for {row['watched']:.0f} s)"
    if not row["refused"] and not row["slow"]:
        return f"nothing; slowest answer {number(row['slowest'])} s"
    parts = []
    if row["refused"]:
        parts.append(f"{number(row['refused'])} s refused")
    if row["slow"]:
        parts.append(f"{number(row['slow'])} s slow")
    return f"{', '.join(parts)}; over after {number(row['until_good'])} s"


def set_up(kept: Kept) -> str:
    """Setting up."""
    rows = kept.rows("setup")
    if not rows:
        return ""
    lines = []
    for way in dict.fromkeys(row["way"] for row in rows):
        found = where(rows, way=way)
        lines.append(
            [
                f"`{way}`",
                f"{spread(row['first'] for row in found)}",
                f"{spread(row['seconds'] for row in found)}",
            ]
        )
    return f"""## Setting up

From a bare Debian 13 that has systemd, SSH and Python, packages downloaded in the course of it.

{table(["way", "seconds to the first answer over HTTPS", "seconds until it has ended"], lines)}"""


def defaults(kept: Kept) -> str:
    """Settings."""
    rows = kept.rows("defaults")
    if not rows:
        return ""
    # In the order of settings.py: turns are in a random one.
    processors = kept.read("machine").get("processors") or os.cpu_count() or 1
    places = {variant.title: place for place, variant in enumerate(variants(processors))}
    places[BY_KEY["tutorial"].title] = len(places) + 1
    titles = sorted(
        {row["variant"] for row in rows}, key=lambda title: (places.get(title, len(places)), title)
    )
    flat = [
        {
            "round": row["round"],
            "variant": row["variant"],
            **{
                f"{name}_{key}": row[name][key]
                for name in ("quote", "mixed")
                for key in ("rate", "p99", "cpu_ms", "errors")
            },
            "memory": sum(row["memory"].values()),
        }
        for row in rows
    ]
    first = where(flat, variant=titles[0])
    lines = []
    for title in titles:
        found = where(flat, variant=title)
        lines.append(
            [
                title,
                shown(middle(found, "quote_rate")),
                ratio(found, first, "quote_rate"),
                shown(middle(found, "quote_p99")),
                ratio(found, first, "quote_p99"),
                shown(middle(found, "mixed_rate")),
                ratio(found, first, "mixed_rate"),
                shown(middle(found, "mixed_p99")),
                ratio(found, first, "mixed_p99"),
                shown(middle(found, "quote_cpu_ms")),
                shown(middle(found, "memory")),
                str(sum(row["quote_errors"] + row["mixed_errors"] for row in found)),
            ]
        )
    turns = len(first)
    told = {
        "the same again": "Where the first setting is there again, its distance from 1 is what chance does.",
        "no sandbox": 'What has "no sandbox" has no limits either.',
        BY_KEY["tutorial"].title: "The last line is the tutorial's service behind its own nginx.",
    }
    notes = "".join(
        f" {words}" for part, words in told.items() if any(part in title for title in titles)
    )
    head = [
        "gunicorn",
        "quotes/s",
        "ratio",
        "p99 ms",
        "ratio",
        "mixed/s",
        "ratio",
        "p99 ms",
        "ratio",
        "CPU ms",
        "MiB",
        "failed",
    ]
    return f"""## What the defaults should be

Each setting as a service of its own, in the project's sandbox behind the project's nginx, over HTTPS at 50 connections, in
turns of a second: {turns} turns each for quotes and for a mix with every tenth request a passage. Ratios are to the first
line, turn by turn.{notes} What was chosen: [decision 0017](decisions/0017-defaults-that-were-measured.md).

{table(head, lines)}"""


def ceiling(kept: Kept) -> str:
    """What is possible."""
    rows = kept.rows("ceiling")
    if not rows:
        return ""
    served = [*where(kept.rows("throughput"), connections=50), *kept.rows("workloads")]
    most = max(row["processes"] for row in where(rows, what="in-process"))
    lines = []
    for workload in ("health", "quote", "page"):
        one = where(rows, what="in-process", workload=workload, processes=1)
        whole = where(rows, what="in-process", workload=workload, processes=most)
        line = [WHAT[workload], shown(middle(one, "rate")), shown(middle(whole, "rate"))]
        line.append(shown(middle(one, "cpu_ms")))
        possible = middle(whole, "rate")
        for system in SYSTEMS:
            real = middle(
                [row for row in asked(served, system, best(system), workload, 50)], "rate"
            )
            line.append(f"{real / possible:.0%}" if real and possible else "-")
        lines.append(line)
    constant = {
        protocol: middle(where(rows, what="nginx", workload=protocol), "rate")
        for protocol in ("http", "https")
    }
    head = [
        "what",
        "one core, /s",
        f"{most} cores, /s",
        "CPU ms",
        *(f"{system.title}" for system in SYSTEMS),
    ]
    return f"""## The ceiling

The same application called in-process, without a server: no socket, no HTTP, no nginx and no load generator beside it. The
last columns are what each system reaches of that, at 50 connections. nginx alone, answering a constant, does
{shown(constant["http"])} a second over HTTP and {shown(constant["https"])} over HTTPS.

{table(head, lines)}"""


def costs(kept: Kept, system: str) -> dict[str, float]:
    """Bad seconds by event for a system; what ended nothing stands for hours until it is noticed."""
    found = {}
    for row in where(kept.rows("recovery"), system=system):
        bad = row["refused"] + row["slow"]
        found[row["fault"]] = UNNOTICED_HOURS * 3600.0 if row["until_good"] is None else bad
    return found


def arithmetic(kept: Kept) -> str:
    """99.9 %."""
    if not kept.rows("recovery"):
        return ""
    lines = []
    sums: dict[str, float] = {}
    for event, count in EVENTS.items():
        line = [event, str(count)]
        for system in SYSTEMS:
            known = costs(kept, system.key)
            cost = known.get(event)
            if cost is None:
                # The development server is its own worker and has no nginx.
                line.append("-")
                continue
            sums[system.key] = sums.get(system.key, 0.0) + count * cost
            line.append(f"{number(cost)} s → {number(count * cost)} s")
        lines.append(line)
    lines.append(
        ["**bad seconds**", "", *(f"**{number(sums[system.key])} s**" for system in SYSTEMS)]
    )
    lines.append(
        [
            "**availability**",
            "",
            *(f"**{figures.availability(sums[system.key], DAYS):.4%}**" for system in SYSTEMS),
        ]
    )
    allowed = figures.allowance(OBJECTIVE, DAYS)
    return f"""## The arithmetic of {OBJECTIVE:.1%}

{OBJECTIVE:.1%} of {DAYS} days leaves {allowed:.0f} s ({allowed / 60:.0f} min) that may be bad. A month with these events
costs what was measured above; what stays down counts {UNNOTICED_HOURS} h, a night until somebody notices. Machines and
networks that fail, and the time that somebody takes to read an alert, are not in it: with one server, those are the rest. A
reboot here is that of a container: a machine that takes a minute to its kernel adds {EVENTS["reboot"] * 60} s a month, and
{figures.availability(sums["project"] + EVENTS["reboot"] * 60, DAYS):.4%} remain.

{table(["event", "a month", *(system.title for system in SYSTEMS)], lines)}"""


def comparison(kept: Kept) -> str:
    """The promises of the project, each with what was measured."""
    rows = kept.rows("throughput")
    open_rows = kept.rows("latency")
    if not rows:
        return ""

    def rate(system: str, connections: int) -> str:
        each = BY_KEY[system]
        return shown(middle(asked(rows, each, best(each), "quote", connections), "rate"))

    def failed(system: str, connections: int) -> int:
        each = BY_KEY[system]
        return sum(row["errors"] for row in asked(rows, each, best(each), "quote", connections))

    def times(system: str) -> str:
        found = where(open_rows, system=system, kind="common")
        if not found:
            return "-"
        return " / ".join(shown(middle(found, figure)) for figure in ("p50", "p99", "p999")) + " ms"

    def fault(system: str, name: str) -> str:
        found = where(kept.rows("recovery"), system=system, fault=name)
        return outage(found[0]) if found else "-"

    setting = where(kept.rows("setup"), way="setup-production.sh")
    first = f"{spread(row['first'] for row in setting).median:.0f} s" if setting else "-"
    lines = [
        [
            "server",
            "Flask's development server, one process",
            "gunicorn behind nginx, under systemd",
        ],
        [
            "workers",
            "1",
            "`CPU * 2 + 1` by default, shown in `molecule/default/tests/test_host.py` (process tree); "
            "beside other numbers [below](#what-the-defaults-should-be)",
        ],
        ["start", "`python3 app.py &`", "`systemctl start toll-app`, at boot by itself"],
        [
            "status and logs",
            "what the terminal shows",
            "`systemctl status toll-app`, `journalctl -u toll-app -f` (`test_host.py`)",
        ],
        [
            "port",
            "5000",
            "gunicorn on `localhost:5000`, nginx on 80 and 443, nothing else open (`test_host.py`)",
        ],
        [
            "domain",
            "none",
            "with a certificate of an ACME authority, renewed (`molecule/certbot`, `molecule/setup`)",
        ],
        [
            "after a crash of the server",
            fault("development", "kill -9 of the master"),
            fault("project", "kill -9 of the master"),
        ],
        [
            "after a reboot, of a container (a machine adds its own start)",
            fault("development", "reboot"),
            fault("project", "reboot"),
        ],
        [
            "new code or settings",
            fault("development", "new code or settings"),
            fault("project", "new code or settings"),
        ],
        [
            "requests a second, 50 connections",
            f"{rate('development', 50)}, HTTP",
            f"{rate('project', 50)}, HTTPS",
        ],
        [
            "500 connections at once",
            f"{rate('development', 500)}/s, {failed('development', 500)} failed",
            f"{rate('project', 500)}/s, {failed('project', 500)} failed",
        ],
        ["response time p50 / p99 / p99.9, same rate", times("development"), times("project")],
        [
            "set-up, bare host to the first answer over HTTPS",
            "by hand, without HTTPS",
            f"{first}, one command",
        ],
        [
            "uptime",
            "watched by hand",
            "[99.9 % and more](#the-arithmetic-of-999), with monitoring and alerts, each fired by a fault "
            "(`molecule/monitoring`)",
        ],
        [
            "scale",
            "none",
            "more workers by a variable; more hosts that change as one (`molecule/release`)",
        ],
    ]
    return f"""## Old and new

{table(["", "old: `python3 app.py`", "new: this project"], lines)}"""


def introduction(kept: Kept) -> str:
    """What was measured, where and when."""
    machine = kept.read("machine")
    versions = ", ".join(
        f"{name} {version}" for name, version in machine.get("versions", {}).items()
    )
    dates = sorted(
        {
            kept.read(part).get("date", "")
            for part in (
                "throughput",
                "workloads",
                "latency",
                "recovery",
                "defaults",
                "ceiling",
                "setup",
            )
        }
        - {""}
    )
    when = dates[0] if len(dates) == 1 else " to ".join(dates[:: max(len(dates) - 1, 1)])
    rows = [*kept.all("throughput"), *kept.all("workloads")]
    elsewhere = [row["elsewhere"] for row in rows if "elsewhere" in row]
    left_out = sum(each > MOST_ELSEWHERE for each in elsewhere)
    beside = (
        f"Other work on the machine took {statistics.median(elsewhere):.1%} of its processors at the "
        f"median; {left_out} of {len(elsewhere)} turns, in which it took more than "
        f"{MOST_ELSEWHERE:.0%}, count only where there is no other."
        if elsewhere
        else ""
    )
    return f"""# The comparison that this project makes true

Written by `make bench` ({when}): a host with Debian 13 is provisioned, and on it, in turn, the same release of the
application with the same data is served in three ways:

- **development server**: `python3 app.py`, as people start it. Speaks HTTP only.
- **tutorial**: what tutorials on Flask have in common, `gunicorn --workers 3 --bind unix:…` behind nginx with Debian's
  `nginx.conf` and `proxy_params`; over HTTPS as `certbot --nginx` leaves it.
- **this project**: as `site.yml` provisions it.

The machine: {machine.get("processors", "-")} processors ({machine.get("model", "-")}), {machine.get("memory_gib", "-")} GiB,
Linux {machine.get("linux", "-")}; {versions}. The load generator (wrk; an open loop of our own for latency) runs on the same
processors, outside the host's container. {beside} The machine is a virtual one whose speed drifts by a third within a minute:
compare ratios, which are of neighbouring turns, rather than figures of different tables. Again, or a part of it:
`.venv/bin/python tests/bench/compare.py --part throughput`.
"""


SECTIONS: tuple[Callable[[Kept], str], ...] = (
    introduction,
    comparison,
    throughput,
    workloads,
    latency,
    recovery,
    arithmetic,
    set_up,
    defaults,
    ceiling,
)


def plot(name: str, content: str) -> None:
    """Write a plot."""
    PLOTS.mkdir(parents=True, exist_ok=True)
    (PLOTS / name).write_text(content, encoding="utf-8")


def write(kept: Kept | None = None) -> None:
    """Write the page, keeping what was written by hand below it."""
    kept = kept or Kept()
    text = "\n".join(part for part in (section(kept) for section in SECTIONS) if part)
    written = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    below = written.partition(MARKER)[2]
    PAGE.write_text(f"{text}\n{MARKER}{below}", encoding="utf-8")
