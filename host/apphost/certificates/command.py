"""What can be asked for, and the file with the settings that it goes by."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from . import rehearsal, served, settings, textfile
from .settings import Settings
from .textfile import Gauge

# Priorities of the journal; it takes them off.
ERROR, WARNING = "<3>", "<4>"
SECOND_LOOK_SECONDS = 20.0


def main(words: list[str] | None = None) -> int:
    """The exit status: 0 for good, 1 where something is wrong with a certificate."""
    parser = argparse.ArgumentParser(prog="certificates", description=__doc__)
    parser.add_argument("verb", choices=["watch", "compare", "rehearse", "forget"])
    parser.add_argument("settings", type=Path)
    parser.add_argument("names", nargs="*", help="forget: certificates that are no longer served")
    options = parser.parse_args(words)
    if options.verb == "forget":
        if settings.forget(options.settings, options.names):
            sys.stdout.write("forgotten\n")
        return 0
    told = settings.read(options.settings)
    return {"watch": watch, "compare": compare, "rehearse": rehearse}[options.verb](told)


def watch(told: Settings) -> int:
    """Says what is wrong with what the web server shows."""
    now = time.time()
    seen = served.look_at_all(told, now)
    if any(each.faults for each in seen):
        # Between a renewal and its reload, or while the web server restarts, something is wrong.
        time.sleep(SECOND_LOOK_SECONDS)
        seen = served.look_at_all(told, now)
    publish(told, "certificates-served", served.gauges(seen, now))
    faults = [(each, fault) for each in seen for fault in each.faults]
    for each, fault in faults:
        level = WARNING if fault.kind == "soon" else ERROR
        sys.stderr.write(f"{level}{each.domain} ({each.entry.name}): {fault.kind}: {fault.text}\n")
    if not faults:
        sys.stdout.write(f"{len(seen)} names show their certificates\n")
    return 1 if faults else 0


def compare(told: Settings) -> int:
    """Says which names do not show what their file has by now."""
    said = served.compare(told)
    for line in said:
        sys.stderr.write(f"{ERROR}{line}\n")
    return 1 if said else 0


def rehearse(told: Settings) -> int:
    """Says which certificates could not be renewed."""
    failures = rehearsal.rehearse(told)
    now = time.time()
    rehearsal.remember(told.state, failures, now)
    paths = (told.configuration / "renewal").glob("*.conf")
    names = sorted(path.name[: -len(".conf")] for path in paths)
    publish(told, "certificates-rehearsal", rehearsal.gauges(names, failures, now))
    for name, failure in failures.items():
        sys.stderr.write(f"{ERROR}{name} could not be renewed: {failure['reason']}\n")
    if not failures:
        sys.stdout.write(f"{len(names)} certificates could be renewed\n")
    return 1 if failures else 0


def publish(told: Settings, name: str, gauges: Iterable[Gauge]) -> None:
    """Writes measurements where somebody collects them."""
    if told.metrics.is_dir():
        textfile.write(told.metrics / f"{name}.prom", gauges)
