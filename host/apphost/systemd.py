"""systemd: what it knows about units, and what it is asked to do with them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import files
from .errors import HostError

JOURNAL_LINES = 40


class SystemdError(HostError):
    """A command of systemd failed; the message names the command and quotes it."""


def properties(unit: str, *names: str) -> dict[str, str]:
    """What `systemctl show` prints about a unit.

    Returns each of the names; empty where systemd has no value, as for a unit that does not exist.
    """
    result = subprocess.run(
        ["systemctl", "show", f"--property={','.join(names)}", unit],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    shown = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
    return {name: shown.get(name, "") for name in names}


def all_properties(units: Sequence[str], *names: str) -> dict[str, dict[str, str]]:
    """The same for several units, in one question; every unit has an entry."""
    found = {unit: dict.fromkeys(names, "") for unit in units}
    if not units:
        return found
    result = subprocess.run(
        ["systemctl", "show", f"--property={','.join(('Id', *names))}", *units],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    for block in result.stdout.split("\n\n"):
        shown = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if shown.get("Id") in found:
            found[shown["Id"]] = {name: shown.get(name, "") for name in names}
    return found


def wall_clock(microseconds: str) -> float:
    """A monotonic time stamp of systemd in seconds since 1970; 0 for none."""
    stamp = int(microseconds or 0) / 1e6
    return time.time() - time.monotonic() + stamp if stamp else 0.0


@dataclass(frozen=True)
class Unit:
    """A unit as systemd sees it.

    Attributes:
        active: inactive, activating, active, reloading, deactivating or failed.
        sub: the state below that, which depends on the kind of the unit.
        pid: of the main process; 0 without one.
        invocation: names this run of the unit (InvocationID).
        restarts: how often systemd has started it again by itself.
        stale: its file is newer than what systemd has read.
        since: when it became active, in the time of the file system; 0 if never.
    """

    active: str
    sub: str
    pid: int
    invocation: str
    restarts: int
    stale: bool
    since: float

    @property
    def lives(self) -> bool:
        """It serves, or is about to."""
        return self.active in ("active", "activating", "reloading") and self.sub != "auto-restart"

    @property
    def stopped(self) -> bool:
        """It does nothing, and systemd will not start it by itself."""
        return self.active in ("inactive", "failed")


class Systemd:
    """systemd's commands, and the processes of its units."""

    def __init__(self, host: Path = Path("/")) -> None:
        self._processes = host / "proc"
        self._units = host / "etc/systemd/system"

    def call(self, *argv: str, check: bool = True) -> str:
        """Run a command and return its output. Raises SystemdError unless `check` is off."""
        result = subprocess.run(argv, capture_output=True, text=True, check=False)
        if check and result.returncode:
            reason = (result.stderr or result.stdout).strip()
            reason = reason or f"exit code {result.returncode}"
            raise SystemdError(f"{' '.join(argv[:3])}: {reason}")
        return result.stdout

    def show(self, unit: str) -> Unit:
        """A unit as it is now; inactive if there is none."""
        shown = properties(
            unit,
            *("ActiveState", "SubState", "MainPID", "InvocationID", "NRestarts"),
            *("NeedDaemonReload", "ActiveEnterTimestampMonotonic"),
        )
        return Unit(
            active=shown["ActiveState"] or "inactive",
            sub=shown["SubState"],
            pid=int(shown["MainPID"] or 0),
            invocation=shown["InvocationID"],
            restarts=int(shown["NRestarts"] or 0),
            stale=shown["NeedDaemonReload"] == "yes",
            since=wall_clock(shown["ActiveEnterTimestampMonotonic"]),
        )

    def loaded(self, pattern: str) -> list[str]:
        """The units that systemd knows at present: what runs, and what has failed, among them."""
        listed = self.call(
            *("systemctl", "list-units", "--all", "--plain", "--full"),
            *("--no-legend", "--no-pager", pattern),
        )
        found = [line.split() for line in listed.splitlines() if line.strip()]
        # One that something only refers to does not run, and cannot be stopped.
        return sorted(words[0] for words in found if words[1:3] != ["not-found", "inactive"])

    def start(self, *units: str) -> None:
        """Start units and wait until they are up."""
        self.call("systemctl", "start", *units)

    def begin(self, verb: str, *units: str) -> None:
        """Have units started, stopped and the like, without waiting for it."""
        self.call("systemctl", verb, "--no-block", *units)

    def stop(self, *units: str) -> None:
        """Stop units and wait for it; they are no failed units afterwards."""
        self.call("systemctl", "stop", *units, check=False)
        # The failure is in the records; here it would raise an alarm until the next handover.
        self.call("systemctl", "reset-failed", *units, check=False)

    def reload(self) -> None:
        """Have systemd read its unit files again."""
        self.call("systemctl", "daemon-reload")

    def enable(self, units: Sequence[str]) -> bool:
        """Have units start at boot; return whether any did not before."""
        missing = self.disabled(units)
        if missing:
            self.call("systemctl", "enable", "--quiet", *missing)
        return bool(missing)

    def linked(self, pattern: str) -> list[str]:
        """Units that start at boot, by their links: also those that have no file any more."""
        return sorted({path.name for path in self._units.glob(f"*.wants/{pattern}")})

    def unlink(self, units: Sequence[str]) -> None:
        """Have units not start at boot; `systemctl disable` refuses those that have no file."""
        # By a pattern: a link whose file is gone is found by no name.
        links = [link for link in self._units.glob("*.wants/*") if link.name in units]
        for link in links:
            files.remove(link)
        if links:
            self.reload()

    def forgive(self, *units: str) -> None:
        """Have units not be failed ones any more."""
        self.call("systemctl", "reset-failed", *units, check=False)

    def disabled(self, units: Sequence[str]) -> list[str]:
        """Those units that do not start at boot."""
        states = self.call("systemctl", "is-enabled", *units, check=False).split()
        states += ["unknown"] * (len(units) - len(states))
        state_of = dict(zip(units, states))  # noqa: B905 (Python 3.9)
        return [unit for unit in units if state_of[unit] != "enabled"]

    def journal(self, unit: str, invocation: str) -> str:
        """The end of what one run of a unit wrote, and systemd about it."""
        run = [f"_SYSTEMD_INVOCATION_ID={invocation}", "+", f"INVOCATION_ID={invocation}"]
        # What a unit printed waits behind what systemd says of its end.
        self.call("journalctl", "--sync", check=False)
        return self.call(
            *("journalctl", "--no-pager", "--no-hostname", "--output=short-iso", "--quiet"),
            *(f"--lines={JOURNAL_LINES}", *(run if invocation else [f"--unit={unit}"])),
            check=False,
        ).strip()

    def workers(self, pid: int) -> set[int]:
        """The processes that a master has started."""
        try:
            children = self._processes / f"{pid}/task/{pid}/children"
            return set(map(int, children.read_text().split()))
        except OSError:
            return set()

    def directory(self, pid: int) -> Path | None:
        """Where a process works, with every link resolved."""
        try:
            return Path(os.readlink(self._processes / str(pid) / "cwd"))
        except OSError:
            return None

    def command(self, pid: int) -> list[str]:
        """The words that a process was started with; none if it is gone."""
        try:
            said = (self._processes / str(pid) / "cmdline").read_bytes()
        except OSError:
            return []
        return os.fsdecode(said).rstrip("\0").split("\0")

    def signal(self, pid: int, number: int) -> None:
        """Send a process a signal."""
        os.kill(pid, number)
