"""PostgreSQL's user puts its present data aside, and brings back those of a point in time.

Runs in a unit of its own, with PostgreSQL stopped. It replays the log on a server that nobody can
reach, and ends it: what is started after that is an ordinary PostgreSQL. If anything fails, the
data are where they were.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import programs
from .settings import ArchiveError, Settings

POLL_SECONDS = 0.2
# pgBackRest leaves them among the settings, where they have no effect until another recovery.
LEFT_SETTINGS = (
    "restore_command",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_time",
    "recovery_target_timeline",
)


def aside(data: Path, stamp: str) -> Path:
    """Where the data go that are replaced."""
    return data.with_name(f"{data.name}.replaced-{stamp}")


def replay(told: Settings) -> str:
    """Do what root has written down. Raises ArchiveError, with the data where they were."""
    request: dict[str, Any] = json.loads(told.request.read_bytes())
    kept = aside(told.data, request["stamp"])
    if kept.exists():
        raise ArchiveError(f"{kept} is there already")
    signal.signal(signal.SIGTERM, _ended)
    had = told.data.exists()
    if had:
        told.data.rename(kept)
    try:
        told.data.mkdir(mode=0o700)
        programs.of_stanza(told, "restore", *request["options"])
        with server(told) as running:
            wait(told, running)
            for name in LEFT_SETTINGS:
                programs.ask(told, f"ALTER SYSTEM RESET {name}")
    except BaseException:
        shutil.rmtree(told.data, ignore_errors=True)
        if had:
            kept.rename(told.data)
        raise
    return "Replayed."


def _ended(number: int, frame: object) -> None:
    raise ArchiveError(f"It was ended by signal {number}")


@contextlib.contextmanager
def server(told: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """PostgreSQL on its socket alone. Its end archives what it has written."""
    options = {
        "config_file": told.configuration,
        "listen_addresses": "",
        # With it, settings that are lower than when the copy was made would stop the replay.
        "hot_standby": "off",
        "restart_after_crash": "off",
    }
    words = [f"{key}={value}" for key, value in options.items()]
    running = subprocess.Popen(
        [str(told.programs / "postgres"), *(word for each in words for word in ("-c", each))],
        stdin=subprocess.DEVNULL,
        cwd="/",
        env=programs.ENVIRONMENT,
    )
    try:
        yield running
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGINT)
        running.wait()


def wait(told: Settings, running: subprocess.Popen[bytes]) -> None:
    """Until it has replayed the log and takes writes. Raises ArchiveError if it ends before."""
    while running.poll() is None:
        with contextlib.suppress(ArchiveError):
            if not programs.is_standby(told):
                return
        time.sleep(POLL_SECONDS)
    raise ArchiveError("PostgreSQL ended while it replayed the log")
