"""The unit <name>-handover.service, in which the work is done, and its followers.

So a handover keeps running if the terminal or the SSH session drops, and there is one at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

from .. import files
from ..errors import FAILED, REFUSED, RefusedError
from ..systemd import Systemd, SystemdError
from .config import Config
from .forward import hand_over
from .judge import JudgedBadError
from .service import Service
from .state import Result

FOLLOW_SECONDS = 0.1  # between two looks at the unit, for as long as it takes
START_SECONDS = 2.0  # for which systemd may refuse to start the unit
# Until the unit is there, and until its result is, once it was there and is gone.
APPEAR_SECONDS, RESULT_SECONDS = 60.0, 1.0


class BusyError(RefusedError):
    """Somebody else holds the lock of the service's handover."""

    def __init__(self) -> None:
        # A restore holds it as well.
        super().__init__("Another handover or a restore is under way: wait for it")


@contextlib.contextmanager
def locked(config: Config) -> Iterator[None]:
    """Hold the lock of a service's handover. Raises BusyError."""
    with files.held(config.application.handover_lock, 0, BusyError()):
        yield


def start(config: Config, systemd: Systemd, request: str, options: argparse.Namespace) -> bool:
    """Start the unit; False if another handover was faster. Raises RefusedError."""
    argv = [
        *("systemd-run", "--quiet", "--collect", "--no-block", f"--unit={config.unit}"),
        f"--description=Handover of {config.name}",
        *("--service-type=oneshot", "--property=TimeoutStartSec=infinity"),
        # Killed, it is started again, and goes back from what it had begun.
        *("--property=Restart=on-abnormal", f"--property=SyslogIdentifier={config.name}-handover"),
        *(f"--property={directive}" for directive in config.sandbox),
        *(str(config.application.command), "handover", f"--run={request}"),
        # systemd would put in a variable for what follows a dollar.
        *(f"--by={options.by}".replace("$", "$$"), f"--reason={options.reason}".replace("$", "$$")),
        *(["--restart"] if options.restart else []),
        *(["--if-suits"] if options.if_suits else []),
        *(["--exclude"] if options.exclude else []),
        *([options.release] if options.release else []),
    ]
    end = time.monotonic() + START_SECONDS
    while True:
        result = subprocess.run(argv, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            return True
        if not systemd.show(config.unit).stopped:
            return False
        # One that has just ended keeps the name for a moment.
        if time.monotonic() > end:
            raise RefusedError(f"systemd did not start the handover: {result.stderr.strip()}")
        time.sleep(FOLLOW_SECONDS)


def follow(config: Config, systemd: Systemd, request: str, report: Callable[[str], None]) -> Result:
    """Report what the unit reports until it has a result. Raises RefusedError without one."""
    log, result = config.run / f"{request}.log", config.run / f"{request}.json"
    shown, gone_seconds, patience_seconds = 0, 0.0, APPEAR_SECONDS
    while True:
        data = files.read_json(result)
        with contextlib.suppress(FileNotFoundError):
            text = log.read_text()
            for line in text[shown:].splitlines():
                report(line)
            shown = len(text)
        if data is not None:
            log.unlink(missing_ok=True)
            result.unlink(missing_ok=True)
            return Result(**files.known(Result, data))
        if systemd.show(config.unit).stopped:
            gone_seconds += FOLLOW_SECONDS
        else:
            # It has begun, so when it is gone it has ended.
            gone_seconds, patience_seconds = 0.0, RESULT_SECONDS
        if gone_seconds > patience_seconds:
            raise RefusedError(
                "The handover was stopped before its end: run this again to recover from it"
            )
        time.sleep(FOLLOW_SECONDS)


def work(config: Config, systemd: Systemd, options: argparse.Namespace) -> Result:
    """In the unit: hand over, and leave the result where `follow` looks for it."""
    config.run.mkdir(mode=0o755, parents=True, exist_ok=True)
    log = config.run / f"{options.run}.log"

    def report(line: str) -> None:
        print(line, flush=True)
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as stream:
            stream.write(line + "\n")

    try:
        with locked(config):
            result = hand_over(
                Service(config, systemd, report),
                *(options.release, options.run, options.by, options.reason),
                restart=options.restart,
                if_suits=options.if_suits,
                exclude=options.exclude,
            )
    except RefusedError as error:
        result = Result(False, f"{error}.", options.release, code=REFUSED)
    except (JudgedBadError, SystemdError, OSError) as error:
        # A full disk, where no stage has gone back from it by itself.
        msg = f"{error}. Put that right, then run this again to recover from it."
        result = Result(True, msg, options.release, code=FAILED)
    files.write_json(config.run / f"{options.run}.json", asdict(result), 0o600)
    return result
