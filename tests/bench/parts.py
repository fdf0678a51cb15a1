"""The parts of the measurement. Each returns rows, which page.py makes tables and plots of."""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import figures
from figures import Sent
from rig import BY_KEY, MOST_ELSEWHERE, PROJECT_WAY, SYSTEMS, Rig, System, say
from settings import variants

Rows = list[dict[str, Any]]
CONNECTIONS = (1, 5, 50, 100, 500)
WORKLOADS = ("health", "quote", "kept", "passage", "page", "static")
# Of each run of wrk: short, and two in each round, since the machine's speed drifts.
SECONDS = 2.0
# How often a turn is taken again that was disturbed. The page leaves out what still was.
TRIES = 3
# Of an open loop.
OPEN_SECONDS = 6.0
# Its clients, of a server that keeps connections; the development server closes them.
OPEN_CONNECTIONS = 64
# Around a fault.
STEADY_SECONDS = 3.0
FAULT_SECONDS = 10.0
FAULT_RATE = 50.0
REBOOT_SECONDS = 30.0
REBOOT_RATE = 20.0
# Of settings: turns in each round, and seconds of a turn.
TURNS = 3
TURN_SECONDS = 1.0


def in_turn() -> list[tuple[System, str]]:
    """Each system with each protocol that it speaks."""
    return [
        (system, protocol)
        for protocol in ("http", "https")
        for system in SYSTEMS
        if system.port(protocol)
    ]


def throughput(rig: Rig, rounds: int) -> Rows:
    """Quotes at more and more connections."""
    return ladder(rig, rounds, [("quote", connections) for connections in CONNECTIONS])


def workloads(rig: Rig, rounds: int) -> Rows:
    """Everything else at 50 connections, and what is written at 500."""
    others = [workload for workload in WORKLOADS if workload != "quote"]
    rows = ladder(rig, rounds, [*((each, 50) for each in others), ("passage", 500)])
    # Since they started, all of them have answered everything.
    return rows + [{"system": system.key, "memory": rig.memory(system)} for system in SYSTEMS]


def ladder(rig: Rig, rounds: int, steps: list[tuple[str, int]]) -> Rows:
    """Each step for each system in turn: what the machine does meanwhile hits all of them."""
    rows: Rows = []
    for system, protocol in in_turn():
        rig.wrk(system, protocol, "quote", 5, 2)
    for number in range(rounds * 2):
        for workload, connections in steps:
            # The one that comes first is not always the same.
            systems = in_turn() if number % 2 == 0 else in_turn()[::-1]
            for system, protocol in systems:
                for _ in range(TRIES):
                    rig.settle(system)
                    found = rig.wrk(system, protocol, workload, connections, SECONDS)
                    if found.elsewhere <= MOST_ELSEWHERE:
                        break
                    say(f"again, because something else took {found.elsewhere:.0%} of the machine")
                    time.sleep(SECONDS)
                row = {
                    "round": number,
                    "system": system.key,
                    "protocol": protocol,
                    "workload": workload,
                    "connections": connections,
                    **found.row(),
                }
                rows.append(row)
                say(
                    f"{number} {workload:8} {connections:4} {protocol:5} {system.key:12} "
                    f"{row['rate']:8.1f}/s p50 {row['p50']:7.1f} p99 {row['p99']:7.1f} ms, "
                    f"{row['cpu_ms']:.2f} ms CPU, {row['errors']} errors, "
                    f"elsewhere {row['elsewhere']:.0%}"
                )
    return rows


def defaults(rig: Rig, rounds: int) -> Rows:
    """What the project's defaults could be: quotes, and a mix with every tenth a passage.

    Many short turns: the machine's speed drifts within a minute.
    """
    rows: Rows = []
    systems = [*rig.start_variants(variants(os.cpu_count() or 1)), BY_KEY["tutorial"]]
    order = random.Random(0)
    try:
        for system in systems:
            rig.wrk(system, "https", "mixed", 20, 1)
        memory = {system.key: rig.memory(system) for system in systems}
        for number in range(rounds * TURNS):
            # Nobody always comes after the same one.
            for system in order.sample(systems, len(systems)):
                row: dict[str, Any] = {
                    "round": number,
                    "variant": system.title,
                    "memory": memory[system.key],
                }
                for workload in ("quote", "mixed"):
                    rig.settle(system)
                    row[workload] = rig.wrk(system, "https", workload, 50, TURN_SECONDS).row()
                rows.append(row)
                say(
                    f"{number} {system.title:40} "
                    + ", ".join(
                        f"{name} {row[name]['rate']:.0f}/s p99 {row[name]['p99']:.0f} "
                        f"{row[name]['cpu_ms']:.2f} ms {row[name]['errors']} errors"
                        for name in ("quote", "mixed")
                    )
                    + f", {sum(row['memory'].values()):.0f} MiB"
                )
    finally:
        rig.stop_variants()
    return rows


def saturation(rig: Rig) -> dict[str, float]:
    """Quotes a second at 50 connections by system, as the part `throughput` found them."""
    kept = rig.kept("throughput")
    found = {}
    for system in SYSTEMS:
        protocol = "https" if system.https else "http"
        rates = [
            row["rate"]
            for row in kept
            if (row["system"], row["protocol"], row["connections"]) == (system.key, protocol, 50)
        ]
        found[system.key] = (
            statistics.median(rates)
            if rates
            else rig.wrk(system, protocol, "quote", 50, 4).load.rate
        )
    return found


def latency(rig: Rig, rounds: int) -> Rows:
    """Open loops: at half of what each can do, at one rate for all, and with passages in it."""
    rows: Rows = []
    most = saturation(rig)
    common = round(min(most.values()) / 2)
    for number in range(rounds):
        for system in SYSTEMS if number % 2 == 0 else SYSTEMS[::-1]:
            protocol = "https" if system.https else "http"
            own = round(most[system.key] / 2)
            for kind, rate, passages in (
                ("half", own, 0),
                ("common", common, 0),
                ("mixed", common, 10),
            ):
                rig.settle(system)
                clients = OPEN_CONNECTIONS if system.https else 0
                sent = rig.open_loop(
                    system, protocol, rate, OPEN_SECONDS, passages, connections=clients
                )
                row = {
                    "round": number,
                    "system": system.key,
                    "protocol": protocol,
                    "kind": kind,
                    "per_second": rate,
                    **asdict(figures.latency(sent)),
                }
                rows.append(row)
                say(
                    f"{number} {kind:7} {rate:5}/s {protocol:5} {system.key:12} p50 "
                    f"{row['p50']:.1f} p99 {row['p99']:.1f} p99.9 {row['p999']:.1f} most "
                    f"{row['most']:.1f} ms, {row['failed']} failed, sender late {row['late']:.1f}"
                )
    return rows


# Recovery

MAIN = "$(systemctl show -P MainPID {unit})"
# By fault, then system: what is done on the host. Each says first what time it is.
CLOCK = "python3 -c 'import time; print(time.monotonic())'; "
CHILD = "kill -KILL $(cut -d' ' -f1 /proc/{main}/task/{main}/children)"
FAULTS: dict[str, dict[str, str]] = {
    "kill -9 of a worker": {
        "tutorial": CHILD.format(main=MAIN.format(unit="old-tutorial.service")),
        "project": CHILD.format(main=MAIN.format(unit="toll-app.service")),
    },
    "kill -9 of the master": {
        "development": "systemctl kill -s KILL old-development.service",
        "tutorial": "kill -KILL " + MAIN.format(unit="old-tutorial.service"),
        "project": "kill -KILL " + MAIN.format(unit="toll-app.service"),
    },
    "kill -9 of an nginx worker": {
        "tutorial": CHILD.format(main=MAIN.format(unit="old-nginx.service")),
        "project": CHILD.format(main=MAIN.format(unit="nginx.service")),
    },
    "kill -9 of nginx's master": {
        "tutorial": "kill -KILL " + MAIN.format(unit="old-nginx.service"),
        "project": "kill -KILL " + MAIN.format(unit="nginx.service"),
    },
    "new code or settings": {
        "development": "systemctl restart old-development.service",
        "tutorial": "systemctl restart old-tutorial.service",
        # The same code with other settings is handed over as a release is.
        "project": "echo >>/etc/toll-app/gunicorn.conf.py; toll-app handover --reason bench >&2",
    },
}
REBOOT = "reboot"


def recovery(rig: Rig, rounds: int) -> Rows:
    """What clients notice of faults, at a constant rate of quotes. Once: the kind counts."""
    rows: Rows = []
    for fault, by_system in FAULTS.items():
        for key, command in by_system.items():
            system = BY_KEY[key]
            struck: list[float] = []

            def strike(command: str = command, struck: list[float] = struck) -> None:
                time.sleep(STEADY_SECONDS)
                struck.append(float(rig.root(CLOCK + command).split()[0]))

            protocol = "https" if system.https else "http"
            seconds = STEADY_SECONDS + FAULT_SECONDS
            sent = rig.open_loop(system, protocol, FAULT_RATE, seconds, during=strike)
            rows.append(noticed(fault, system, sent, struck[0]))
            # By hand, as somebody does who has noticed.
            rig.mend(system)
    rows += reboot(rig)
    return rows


def reboot(rig: Rig) -> Rows:
    """All of them at once, since they share the host. Nobody starts the development server."""
    found: dict[str, list[Sent]] = {}
    source = rig.own_address()

    def ask(system: System) -> None:
        protocol = "https" if system.https else "http"
        seconds = STEADY_SECONDS + REBOOT_SECONDS
        found[system.key] = rig.open_loop(system, protocol, REBOOT_RATE, seconds, source=source)

    threads = [threading.Thread(target=ask, args=(system,)) for system in SYSTEMS]
    for thread in threads:
        thread.start()
    time.sleep(STEADY_SECONDS)
    at = time.monotonic()
    rig.reboot()
    for thread in threads:
        thread.join()
    rows = [noticed(REBOOT, system, found[system.key], at) for system in SYSTEMS]
    for system in SYSTEMS:
        rig.mend(system)
    return rows


def noticed(fault: str, system: System, sent: list[Sent], at: float) -> dict[str, Any]:
    """A row on what clients noticed."""
    before = [each for each in sent if each.due < at and not each.good]
    if before:
        raise RuntimeError(f"{system.title} failed before the fault: {before[0].error}")
    found = figures.outage(sent, at)
    row = {"fault": fault, "system": system.key, **asdict(found)}
    row["watched"] = sent[-1].due - at
    row["slowest"] = max((each.seconds for each in sent if each.good and each.due >= at), default=0)
    row["errors"] = sorted({each.error for each in sent if not each.good})[:5]
    say(f"{fault}: {system.title}: {row}")
    return row


# Setting up


def setup(rig: Rig, rounds: int) -> Rows:
    """Seconds from a bare host to the first answer over HTTPS, both ways, twice at most."""
    rows: Rows = []
    for number in range(min(rounds, 2)):
        for way in ("site.yml", "setup-production.sh"):
            rig.boot(fresh=True)
            given = rig.pack() if way == "setup-production.sh" else None
            watch = FirstAnswer(rig)
            start = time.monotonic()
            rig.set_up_by_itself() if given else rig.provision()
            took = time.monotonic() - start
            row = {"round": number, "way": way, "seconds": took, "first": watch.at() - start}
            rows.append(row)
            say(f"{number} {way}: first answer after {row['first']:.1f} s, done after {took:.1f} s")
    # The other parts need a host that this machine provisioned.
    rig.boot(fresh=True)
    return rows


class FirstAnswer:
    """Asks until the project answers over HTTPS, in the background."""

    def __init__(self, rig: Rig) -> None:
        """Begin."""
        self._rig = rig
        self._found: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        while not self._stop.is_set():
            if self._rig.ask(PROJECT_WAY, "https", "/readyz")[0] == 200:
                self._found.append(time.monotonic())
                return
            time.sleep(0.2)

    def at(self) -> float:
        """When it was.

        Raises:
            RuntimeError: there was none.
        """
        self._thread.join(15)
        self._stop.set()
        if not self._found:
            raise RuntimeError("the host is set up, and there is no answer over HTTPS")
        return self._found[0]


# The ceiling


def ceiling(rig: Rig, rounds: int) -> Rows:
    """The application without a server, on one core and on all; nginx without an application."""
    rows: Rows = []
    cpus = os.cpu_count() or 1
    for number in range(rounds):
        for workload in ("health", "quote", "page"):
            for processes in sorted({1, cpus}):
                found = rig.in_process(rig.path(workload), 3.0, processes)
                rows.append({"round": number, "what": "in-process", "workload": workload, **found})
                say(f"{number} in-process {workload} {rows[-1]}")
        for protocol, port in (("http", 8080), ("https", 8445)):
            measured = rig.wrk(PROJECT_WAY, protocol, "constant", 50, 3, port=port)
            rows.append({"round": number, "what": "nginx", "workload": protocol, **measured.row()})
            say(f"{number} nginx constant {protocol} {rows[-1]['rate']:.0f}/s")
    return rows


PARTS: dict[str, Callable[[Rig, int], Rows]] = {
    "setup": setup,
    "throughput": throughput,
    "workloads": workloads,
    "latency": latency,
    "recovery": recovery,
    "defaults": defaults,
    "ceiling": ceiling,
}
