"""A host for the handover: systemd, the service and its answers, all in memory.

Files are real, below a directory of the test. Time passes only when the program sleeps.
"""

from __future__ import annotations

import fnmatch
import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apphost import records
from apphost.application import Application
from apphost.handover import boot, forward
from apphost.handover.config import Config
from apphost.handover.service import Service
from apphost.handover.settings import Healthy
from apphost.handover.state import Result
from apphost.systemd import Systemd, Unit

SHARED = "shop.socket"
WORKER, TIMER = "/etc/systemd/system/shop-worker-", "/etc/systemd/system/shop-timer-"
UNITS = ["/etc/systemd/system/shop.socket", "/etc/systemd/system/shop.service"]


class Killed(BaseException):
    """The program was killed here."""


@dataclass
class Process:
    """One unit as it runs: `release` and `settings` are those that it was started with."""

    active: str = "inactive"
    sub: str = "dead"
    invocation: str = ""
    release: str = ""
    settings: str = ""
    since: float = 0.0
    accepts: bool = False  # from the shared sockets
    died: bool = False
    restarts: int = 0


@dataclass
class World(Systemd):
    """The host. `behaviour` says by release how it answers: age in seconds -> what is wrong."""

    folder: Path
    behaviour: dict[str, Callable[[float], str]] = field(default_factory=dict)
    starts: dict[str, str] = field(default_factory=dict)  # release -> inactive | activating
    clock: float = 1000.0
    units: dict[str, Process] = field(default_factory=dict)
    enabled: set[str] = field(default_factory=set)
    kill_at: int = -1  # the step before which the program is killed
    steps: list[str] = field(default_factory=list)
    served: set[str] = field(default_factory=set)  # releases that took clients' connections
    # By key of the web server's cache, who took clients' connections: release and settings.
    answered: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    stalls: int = 0  # moments at which nobody accepted, while clients could connect
    reported: list[str] = field(default_factory=list)
    runs: int = 0
    # What a worker of a release becomes: seconds -> how often it was started again by then.
    crashes: dict[str, Callable[[float], int]] = field(default_factory=dict)
    alone: set[str] = field(default_factory=set)  # kinds of workers, which take a while to end
    together: list[str] = field(default_factory=list)  # those that two generations ran of at once

    # The host's files

    @property
    def cache_key(self) -> str:
        """What answers are kept under that the web server gets now."""
        return os.path.realpath(self.root / "cache-key")

    @property
    def application(self) -> Application:
        return Application("shop", self.folder)

    @property
    def config(self) -> Config:
        return Config.read(self.application)

    @property
    def root(self) -> Path:
        return self.folder / "opt/shop"

    @property
    def current(self) -> str | None:
        link = self.root / "current"
        return os.path.basename(os.readlink(link)) if link.is_symlink() else None

    def path(self, absolute: str) -> str:
        return str(self.folder / absolute.lstrip("/"))

    def set_up(self, releases: list[str], **settings: Any) -> None:
        for release in releases:
            (self.root / "releases" / release / "bin").mkdir(parents=True)
            (self.root / "releases" / release / "bin/python").touch()
        self.prepare(setting="first", **settings)

    def prepare(self, setting: str, **more: Any) -> None:
        """What config_tree does: new settings on disk, while the service runs."""
        files = ["etc/shop/environment", "etc/shop/handover.json", *(u[1:] for u in UNITS)]
        config = {
            "name": "shop",
            "release_root": str(self.root),
            "check": {"path": "/", "count": 2, "interval": 0.5, "time_limit": 10},
            "settings": [self.path(path) for path in files],
            "bake_time": 5,
            **more,
        }
        self.put("/etc/shop/environment", f"SETTING={setting}\n")
        self.put("/etc/shop/handover.json", json.dumps(config))
        self.put(UNITS[0], "[Socket]\nListenStream=127.0.0.1:5000\n")
        self.put(UNITS[1], "[Service]\n")

    def prepare_jobs(
        self, workers: dict[str, int], timers: dict[str, str], setting: str = "first"
    ) -> None:
        """The same with workers (how many) and timers (when)."""
        unit_files = {f"{WORKER}{kind}@.service": "[Service]\n" for kind in workers}
        unit_files |= {f"{TIMER}{name}.service": "[Service]\n" for name in timers}
        unit_files |= {f"{TIMER}{name}.timer": text for name, text in timers.items()}
        for old in Path(self.path("/etc/systemd/system")).glob("shop-*"):
            if f"/etc/systemd/system/{old.name}" not in unit_files:
                old.unlink()
        for path, text in unit_files.items():
            self.put(path, text)
        files = ["/etc/shop/environment", "/etc/shop/handover.json", *UNITS, *unit_files]
        self.prepare(
            setting,
            settings=[self.path(path) for path in files],
            workers=[
                {"name": kind, "count": count, "alone": kind in self.alone}
                for kind, count in workers.items()
            ],
            timers=list(timers),
        )

    @property
    def generation(self) -> str:
        """Of the workers that are live, by the record."""
        healthy = Healthy.read(self.config.healthy)
        return healthy.generation if healthy else ""

    def running(self, kind: str = "*", generation: str = "*") -> dict[str, str]:
        """The workers that take jobs: the release of each."""
        pattern = f"shop-worker-{kind}@{generation}-*.service"
        found = {}
        for name in fnmatch.filter(list(self.units), pattern):
            if not self.show(name).stopped:
                found[name] = self.unit(name).release
        return found

    def put(self, absolute: str, text: str) -> None:
        path = Path(self.path(absolute))
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            os.utime(path, (self.clock, self.clock))

    @property
    def settings(self) -> str:
        """The settings on disk, as a process would be started with."""
        return Path(self.path("/etc/shop/environment")).read_text()

    def record(self, release: str) -> dict[str, Any]:
        return records.read(self.root / "state", release)

    def history(self) -> list[dict[str, Any]]:
        path = self.root / "state/history.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    # Steps, at each of which the program may be killed

    def step(self, what: str) -> None:
        if len(self.steps) == self.kill_at:
            self.kill_at = -1
            raise Killed(what)
        self.steps.append(what)
        self.look()

    def look(self) -> None:
        """Note who serves clients at this moment, and who works beside another generation."""
        for kind in self.alone:
            generations = {
                name.partition("@")[2].rpartition("-")[0]
                for name in fnmatch.filter(list(self.units), f"shop-worker-{kind}@*")
                if self.units[name].active in ("active", "activating", "deactivating")
            }
            if len(generations) > 1:
                self.together.append(f"{kind}: {sorted(generations)}")
        if self.unit(SHARED).active != "active":
            return
        accepting = [unit for unit in self.units.values() if unit.accepts]
        self.served |= {unit.release for unit in accepting}
        who = {(unit.release, unit.settings) for unit in accepting}
        self.answered.setdefault(self.cache_key, set()).update(who)
        self.stalls += not accepting and self.unit("shop.service").invocation != ""

    # systemd's commands, as the program calls them

    def unit(self, name: str) -> Process:
        return self.units.setdefault(name, Process())

    def show(self, name: str) -> Unit:
        unit = self.unit(name)
        self._come_up(name, unit)
        pid = 0 if unit.active in ("inactive", "failed") or unit.sub == "auto-restart" else 1
        if name == "shop-standby.service" and pid:
            pid = 2
        if "-worker-" in name and unit.active == "active":
            crashes = self.crashes.get(unit.release, lambda _age: 0)
            unit.restarts = crashes(self.clock - unit.since)
        return Unit(unit.active, unit.sub, pid, unit.invocation, unit.restarts, False, unit.since)

    def loaded(self, pattern: str) -> list[str]:
        # As with systemd, one that has ended well is forgotten.
        return sorted(
            name
            for name in fnmatch.filter(list(self.units), pattern)
            if self.units[name].active != "inactive"
        )

    def linked(self, pattern: str) -> list[str]:
        return sorted(fnmatch.filter(self.enabled, pattern))

    def unlink(self, units: Sequence[str]) -> None:
        for name in units:
            self.step(f"unlink {name}")
            self.enabled.discard(name)

    def forgive(self, *names: str) -> None:
        self.step("reset-failed")

    def _come_up(self, name: str, unit: Process) -> None:
        how = self.starts.get(unit.release, "active")
        if unit.sub == "start" and how == "active":
            unit.active, unit.sub = "active", "running"
            unit.accepts = name == "shop.service"
        elif unit.sub == "start" and how == "inactive":
            self._end(name, "failed")

    def _end(self, name: str, active: str) -> None:
        unit = self.unit(name)
        unit.accepts, unit.active, unit.sub = False, active, "dead"
        if name == "shop.service" and active == "failed":
            unit.active, unit.sub = "activating", "auto-restart"

    def _start(self, name: str) -> None:
        unit = self.unit(name)
        if name.endswith((".socket", ".timer")):
            unit.active, unit.since = "active", self.clock
            return
        if unit.active in ("active", "activating"):
            return
        self.runs += 1
        unit.invocation, unit.since = f"run{self.runs}", self.clock
        unit.active, unit.sub = "activating", "start"
        unit.settings = self.settings
        if "-worker-" in name:
            slot = self.root / "state/workers" / name.partition("@")[2].removesuffix(".service")
            unit.release = os.path.basename(os.readlink(slot))
            return
        link = self.root / "current"
        if name == "shop-standby.service":
            link = self.folder / "run/shop-handover/release"
            self.unit("shop-standby.socket").active = "active"
        else:
            self.unit(SHARED).active = self.unit("shop-check.socket").active = "active"
        unit.release = os.path.basename(os.readlink(link))

    def start(self, *names: str) -> None:
        self.step(f"start {' '.join(names)}")
        for name in names:
            self._start(name)

    def begin(self, verb: str, *names: str) -> None:
        self.step(f"{verb} {' '.join(names)}")
        for name in names:
            if verb == "stop" and name.partition("@")[0].removeprefix("shop-worker-") in self.alone:
                self.unit(name).active, self.unit(name).sub = "deactivating", "stop-sigterm"
            elif verb in ("stop", "restart") and self.unit(name).active != "failed":
                self._end(name, "inactive")
            if verb in ("start", "restart"):
                self.look()
                self._start(name)

    def stop(self, *names: str) -> None:
        self.step(f"stop {' '.join(names)}")
        for name in names:
            self._end(name, "inactive")

    def reload(self) -> None:
        self.step("daemon-reload")

    def disabled(self, units: Sequence[str]) -> list[str]:
        return [unit for unit in units if unit not in self.enabled]

    def enable(self, units: Sequence[str]) -> bool:
        missing = self.disabled(units)
        if missing:
            self.step("enable")
            self.enabled |= set(missing)
        return bool(missing)

    def journal(self, unit: str, invocation: str) -> str:
        return f"journal of {unit} {invocation}"

    def workers(self, pid: int) -> set[int]:
        return set() if self.unit("shop-standby.service").accepts else {pid * 100}

    def directory(self, pid: int) -> Path | None:
        name = "shop-standby.service" if pid == 2 else "shop.service"
        return self.root / "releases" / self.unit(name).release / "app"

    def signal(self, pid: int, number: int) -> None:
        assert (pid, number) == (2, signal.SIGHUP)
        self.step("open")
        self.unit("shop-standby.service").accepts = True

    # The service's answers

    def ask(self, path: Path, check: Any, release: str | None, timeout: float) -> tuple[str, str]:
        name = "shop-standby.service" if "standby" in path.name else "shop.service"
        unit = self.unit(name)
        self.step(f"ask {name}")
        if unit.active != "active":
            return "could not be asked", ""
        fault = self.behaviour.get(unit.release, lambda _age: "")(self.clock - unit.since)
        if not fault and "broken" in unit.settings:
            fault = "answered 500, not 200"
        if not fault and release is not None and unit.release != release:
            fault = f"answered as {unit.release}"
        return fault, f"answer of {unit.release}"

    def reboot(self) -> None:
        """All that lives in memory goes; the boot unit runs before the service starts."""
        self.units.clear()
        self.clock += 100
        (self.folder / "run/shop-handover/release").unlink(missing_ok=True)
        self.boot()
        if "shop.service" in self.enabled:
            self._start("shop.service")
            self.show("shop.service")
        for name in sorted(self.enabled):
            if "-worker-" in name or name.endswith(".timer"):
                self._start(name)
                self.show(name)

    def service(self) -> Service:
        return Service(self.config, self, self.reported.append)

    def boot(self) -> bool:
        return boot.revert_unjudged(self.service())

    def run(
        self,
        release: str | None = None,
        request: str = "request",
        *,
        restart: bool = False,
        if_suits: bool = False,
        exclude: bool = False,
    ) -> Result:
        return forward.hand_over(
            self.service(), release, request, "somebody", "because", restart, if_suits, exclude
        )
