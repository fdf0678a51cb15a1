"""Stops everything of <name> that could write: what could start it again goes first.

Timers, sockets, web processes, workers, and runs of timers that are under way. Workers get the time
that they are given to finish what they are doing. A handover starts all of it again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator

from . import files
from .answer import Answer
from .application import Application
from .errors import RefusedError
from .systemd import Systemd

HANDOVER_SECONDS = 300


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("--check", action="store_true", help="say what would be stopped")


def run(application: Application, options: argparse.Namespace) -> Answer:
    """Stop it, while no handover is under way."""
    if os.geteuid() != 0:
        raise RefusedError("Only root can do this: use sudo")
    systemd = Systemd(application.host)
    running = [unit for unit in units(application, systemd) if not systemd.show(unit).stopped]
    if not running:
        return Answer(f"Nothing of {application.name} runs.")
    if options.check:
        return Answer(f"Would stop {', '.join(running)}.", True, {"stopped": running})
    with no_handover(application):
        stop(application, systemd)
    return Answer(f"Stopped {', '.join(running)}.", True, {"stopped": running})


@contextlib.contextmanager
def no_handover(application: Application) -> Iterator[None]:
    """Wait for a handover that is under way, and keep others out: they would start the service.

    Raises RefusedError if it does not end.
    """
    otherwise = RefusedError(
        f"A handover has been under way for {HANDOVER_SECONDS} s: see `journalctl -u "
        f"{application.name}-handover`, and run this again when it has ended"
    )
    with files.held(application.handover_lock, HANDOVER_SECONDS, otherwise):
        yield


def stop(application: Application, systemd: Systemd) -> None:
    """Stop it. Whoever calls this keeps handovers away. Raises SystemdError."""
    # Each of them starts a run, and so goes before the runs are counted.
    timers = systemd.loaded(application.timer_unit("*"))
    if timers:
        systemd.call("systemctl", "stop", *timers)
    systemd.call("systemctl", "stop", *units(application, systemd))


def units(application: Application, systemd: Systemd) -> list[str]:
    """All that may write or start what does, in the order in which it is stopped."""
    return [
        *systemd.loaded(application.timer_unit("*")),
        *application.serving_units,
        *systemd.loaded(application.worker_unit("*", "*")),
        *systemd.loaded(application.timer_unit("*", "service")),
    ]
