"""What a request costs each part of a fleet, with one host that serves and with more."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cases import tail
from fleet_hosts import Fleet

# Below what nginx lets one address ask for.
RATE = 40.0
SECONDS = 25.0
NANO = 1e9
MILLI = 1e3


@dataclass(frozen=True)
class Cost:
    """Of requests at one rate.

    Attributes:
        serving: how many hosts answered them.
        sent: how many there were.
        failed: how many of them failed or were late.
        balancers: milliseconds of processor time for each request.
        web: the same, of the hosts that serve.
        databases: the same, of the database's.
        p50: seconds.
        p99: seconds.
    """

    serving: int
    sent: int
    failed: int
    balancers: float
    web: float
    databases: float
    p50: float
    p99: float


def used(fleet: Fleet) -> dict[str, int]:
    """Nanoseconds of processor time of each host since it was started."""
    names = [fleet.container(name) for name in fleet.names]
    told = fleet.hosts.engine.podman(
        "stats", "--no-stream", "--format={{.Name}} {{.CPUNano}}", *names
    )
    found = dict(line.split() for line in told.stdout.splitlines())
    return {name: int(found[fleet.container(name)]) for name in fleet.names}


def spent(fleet: Fleet, before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, float]:
    """Milliseconds that each group has used, by its name."""
    return {
        group: sum(after[name] - before[name] for name in getattr(fleet, group)) / NANO * MILLI
        for group in ("balancers", "web", "databases")
    }


def measure(fleet: Fleet, serving: int) -> Cost:
    """Have the first hosts serve alone, look at what they do at rest, then send requests.

    Raises:
        AssertionError: the others could not be drained.
    """
    others = fleet.web[serving:]
    run(fleet, "drain", others)
    try:
        start = used(fleet)
        time.sleep(SECONDS)
        rest = spent(fleet, start, used(fleet))
        with fleet.under_load(fleet.web[0], rate=RATE) as load:
            start, begun = used(fleet), time.monotonic()
            time.sleep(SECONDS)
            busy, seconds = spent(fleet, start, used(fleet)), time.monotonic() - begun
    finally:
        run(fleet, "undrain", others)
    found = load.during
    own = {group: (busy[group] - rest[group]) / (RATE * seconds) for group in busy}
    return Cost(serving, found.sent, found.failed, **own, p50=found.p50, p99=found.p99)


def run(fleet: Fleet, name: str, hosts: list[str]) -> None:
    """Run a playbook for some hosts, if there are any."""
    if hosts:
        done = fleet.run(name, f"--limit={','.join(hosts)}")
        assert done.returncode == 0, tail(done.output)


def table(costs: list[dict[str, Any]]) -> list[str]:
    """The section of the page."""
    lines = [
        "",
        "## What a request costs",
        "",
        f"Milliseconds of processor time for each of {RATE:g} requests a second, half of them "
        f"writes, in {SECONDS:g} s; what the hosts use without requests is taken off.",
        "",
        "| hosts that serve | requests | failed or late | balancers, ms | hosts that serve, ms "
        "| database, ms | p50, ms | p99, ms |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for cost in costs:
        cells = [
            cost["serving"],
            cost["sent"],
            cost["failed"],
            *(f"{cost[group]:.2f}" for group in ("balancers", "web", "databases")),
            *(f"{MILLI * cost[name]:.0f}" for name in ("p50", "p99")),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines
