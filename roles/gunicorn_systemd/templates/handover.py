#!/usr/bin/python3 -IBXutf8
"""Hands a service over to another release, or to changed settings, without losing a request.

    <name>-handover [RELEASE] [--restart] [--reason TEXT] [--by WHO] [--wait SECONDS]
                    [--check | --preview] [--json]

Without RELEASE, the live one is started again if the settings on disk are others than it runs with,
and with --restart in any case. Exits with 0
when the service is live, judged healthy, and stayed so for the bake time; with 1 when it was judged
bad, and what was live before is live again; with 2 when nothing was tried.

Stage by stage:

    standby  <name>-standby.service starts the release from its own path, with the settings on disk.
             It is judged on a private socket, and takes no connection of clients yet.
    open     The standby accepts from the shared sockets as well.
    main     `current` moves, <name>.service restarts while the standby serves, and is judged on a
             private socket of its own. Then the standby finishes its requests and stops.
    bake     The service is asked for a while longer.
    commit   It is recorded as healthy, with a copy of its settings.

What is about to happen is on disk before it happens (state/handover.json). Whoever finds that file,
this program when it is started again or the host when it boots, takes back what had been begun. The
work is done in the unit <name>-handover.service, so that it goes on when the terminal goes, and so
that there is one at a time.

The name is the program's own, the rest is in /etc/<name>/handover.json.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

# The role puts there what this program shares with others.
sys.path.insert(0, "/usr/local/lib/" + Path(__file__).name)

import clean_environment
from http_over_socket import NoAnswerError, get

ETC = Path("/etc")
RUN = Path("/run")
SETTINGS = Path("/var/lib/gunicorn-handover")
UNITS = Path("/etc/systemd/system")
TREES = Path("/var/lib/config-tree")  # what wsgi.host.config_tree knows
PROC = Path("/proc")

ANSWER_TIMEOUT = 10.0  # seconds that one answer may take before it counts as bad
BAKE_FAULTS = 2  # bad answers while baking that take the release back; one may be an accident
# Workers that may end while baking before it is a crash loop, or one of each if there are more.
BAKE_DEATHS = 3
BODY_LIMIT = 500  # characters of an answer that are shown
JOURNAL_LINES = 40
POLL = 0.1  # seconds between two looks at a unit
START_SECONDS = 2.0  # that systemd may refuse to start the unit that does the work
SCHEMA = 1

GOOD, BAD, REFUSED = 0, 1, 2


class Refused(Exception):
    """Nothing was tried; the text says why and what to do."""


class Bad(Exception):
    """A service was judged bad."""

    def __init__(self, fault: str, answer: str = "", journal: str = "") -> None:
        super().__init__(fault)
        self.fault, self.answer, self.journal = fault, answer, journal


# --------------------------------------------------------------------------------------- files


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that readers see the old or the new one, also after a power cut."""
    write_bytes(path, text.encode(), mode)


def write_bytes(
    path: Path, content: bytes, mode: int, owner: tuple[int, int] | None = None
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(directory: Path) -> None:
    """Make the names in a directory outlive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    if path.exists():
        path.unlink()
        sync(path.parent)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a file, or None without one."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise Refused(f"{path} cannot be read ({error}): mend or remove it") from error
    return found if isinstance(found, dict) else None


def known(cls: Any, data: dict[str, Any]) -> dict[str, Any]:
    """Those of the data that a class has; another version of this program may have written them."""
    names = {entry.name for entry in fields(cls)}
    return {key: value for key, value in data.items() if key in names}


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# --------------------------------------------------------------------------------- configuration


@dataclass(frozen=True)
class Check:
    """What a good answer is, and how many of them are wanted in which time (seconds)."""

    path: str = "/"
    host: str = "localhost"
    status: int = 200
    release_member: str = ""
    count: int = 3
    interval: float = 0.2
    time_limit: float = 30


@dataclass(frozen=True)
class Config:
    """What the role says, from /etc/<name>/handover.json. Times are in seconds.

    `settings` are the files that the service is started with, this one among them. `sandbox` are
    directives of systemd for the unit that does the work.
    """

    name: str
    settings: tuple[str, ...]
    release_root: str = ""
    check: Check = Check()
    start_time_limit: float = 60
    stop_time_limit: float = 35
    bake_time: float = 5
    sandbox: tuple[str, ...] = ()

    @classmethod
    def read(cls, name: str) -> Config:
        path = ETC / name / "handover.json"
        data = read_json(path)
        if data is None:
            raise Refused(f"there is no {path}: run the playbook that sets {name} up")
        try:
            data["check"] = Check(**known(Check, data["check"]))
            data["settings"] = tuple(data["settings"])
            data["sandbox"] = tuple(data.get("sandbox", ()))
            return cls(**known(cls, data))
        except (KeyError, TypeError) as error:
            raise Refused(
                f"{path} is not what this program reads ({error}): run the playbook"
            ) from error

    @property
    def main(self) -> str:
        return f"{self.name}.service"

    @property
    def standby(self) -> str:
        return f"{self.name}-standby.service"

    @property
    def unit(self) -> str:
        return f"{self.name}-handover.service"

    @property
    def sockets(self) -> list[str]:
        """The clients' sockets first, then the one on which the service itself is judged."""
        return [f"{self.name}.socket", f"{self.name}-check.socket"]

    @property
    def enabled(self) -> list[str]:
        """Units that systemd starts at boot."""
        return [f"{self.name}.socket", self.main, f"{self.name}-handover-boot.service"]

    @property
    def main_socket(self) -> Path:
        return RUN / "gunicorn" / f"{self.name}-check.sock"

    @property
    def standby_socket(self) -> Path:
        return RUN / "gunicorn" / f"{self.name}-standby.sock"

    @property
    def run(self) -> Path:
        """Of this program, until the next boot."""
        return RUN / f"{self.name}-handover"

    @property
    def root(self) -> Path | None:
        return Path(self.release_root) if self.release_root else None

    @property
    def state(self) -> Path:
        return self.root / "state" if self.root else SETTINGS / self.name

    @property
    def healthy(self) -> Path:
        return SETTINGS / self.name / "healthy.json"

    @property
    def candidate(self) -> Path:
        """What becomes `healthy` when it is judged to be."""
        return SETTINGS / self.name / "candidate.json"


# ------------------------------------------------------------------------------------- settings


@dataclass(frozen=True)
class Setting:
    """One file of the settings, with all that it takes to put it back."""

    content: str  # base64
    mode: int
    uid: int
    gid: int
    mtime: int  # nanoseconds

    @property
    def text(self) -> str:
        return base64.b64decode(self.content).decode(errors="replace")


Settings = dict[str, Setting]


def read_settings(paths: Sequence[str]) -> Settings:
    found = {}
    for path in sorted(paths):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(path)
            found[path] = Setting(
                base64.b64encode(Path(path).read_bytes()).decode(),
                status.st_mode & 0o7777,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
            )
    return found


def changed_settings(before: Settings, after: Settings) -> list[str]:
    """The paths of files that differ, are new or went."""

    def facts(settings: Settings, path: str) -> Any:
        setting = settings.get(path)
        return setting and (setting.content, setting.mode, setting.uid, setting.gid)

    return sorted(p for p in {*before, *after} if facts(before, p) != facts(after, p))


def put_back_settings(wanted: Settings, found: Settings) -> None:
    """Make the files on disk those of `wanted`; the time stamps too, by which a start is dated."""
    for path in changed_settings(wanted, found):
        setting = wanted.get(path)
        if setting is None:
            remove(Path(path))
            continue
        content = base64.b64decode(setting.content)
        write_bytes(Path(path), content, setting.mode, (setting.uid, setting.gid))
        os.utime(path, ns=(setting.mtime, setting.mtime))


def directives(settings: Settings, path: str) -> list[str]:
    """A unit file without its comments: a changed comment reopens no socket."""
    if path not in settings:
        return []
    lines = (line.strip() for line in settings[path].text.splitlines())
    return [line for line in lines if line and line[0] not in "#;"]


@dataclass(frozen=True)
class Healthy:
    """What was judged healthy last: the release, its settings, and the run of the unit (its
    InvocationID) that was judged."""

    release: str | None
    invocation: str
    settings: Settings
    at: str

    @classmethod
    def read(cls, path: Path) -> Healthy | None:
        data = read_json(path)
        if data is None:
            return None
        settings = {name: Setting(**facts) for name, facts in data["settings"].items()}
        return cls(data["release"], data["invocation"], settings, data["at"])

    def write(self, path: Path) -> None:
        # It holds credentials.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        write(path, json.dumps(asdict(self)), 0o600)


# -------------------------------------------------------------------------------------- systemd


@dataclass(frozen=True)
class Unit:
    """What systemd says of a unit."""

    active: str  # inactive, activating, active, deactivating, failed
    sub: str
    pid: int
    invocation: str
    restarts: int
    stale: bool  # its file is newer than what systemd has read
    since: float  # when it became active, in the time of the file system; 0 if never

    @property
    def lives(self) -> bool:
        return self.active in ("active", "activating", "reloading") and self.sub != "auto-restart"

    @property
    def stopped(self) -> bool:
        return self.active in ("inactive", "failed")


class Systemd:
    """systemd's commands."""

    def call(self, *argv: str, check: bool = True) -> str:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if check and done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise Bad(f"{' '.join(argv[:3])}: {said or f'exit code {done.returncode}'}")
        return done.stdout

    def show(self, unit: str) -> Unit:
        names = "ActiveState,SubState,MainPID,InvocationID,NRestarts,NeedDaemonReload"
        names += ",ActiveEnterTimestampMonotonic"
        said = self.call("systemctl", "show", f"--property={names}", unit, check=False)
        found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        entered = int(found.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
        return Unit(
            active=found.get("ActiveState", "inactive"),
            sub=found.get("SubState", ""),
            pid=int(found.get("MainPID") or 0),
            invocation=found.get("InvocationID", ""),
            restarts=int(found.get("NRestarts") or 0),
            stale=found.get("NeedDaemonReload") == "yes",
            since=time.time() - time.monotonic() + entered if entered else 0.0,
        )

    def start(self, *units: str) -> None:
        self.call("systemctl", "start", *units)

    def begin(self, verb: str, *units: str) -> None:
        """As `start` and the like, but do not wait for it."""
        self.call("systemctl", verb, "--no-block", *units)

    def stop(self, *units: str) -> None:
        self.call("systemctl", "stop", *units, check=False)
        # What the records tell would otherwise raise an alarm until the next handover.
        self.call("systemctl", "reset-failed", *units, check=False)

    def reload(self) -> None:
        self.call("systemctl", "daemon-reload")

    def enable(self, units: Sequence[str]) -> bool:
        """Have them start at boot; return whether any did not."""
        missing = self.disabled(units)
        if missing:
            self.call("systemctl", "enable", "--quiet", *missing)
        return bool(missing)

    def disabled(self, units: Sequence[str]) -> list[str]:
        said = self.call("systemctl", "is-enabled", *units, check=False).split()
        words = dict(zip(units, [*said, *["unknown"] * len(units)]))  # noqa: B905, Python 3.9
        return [unit for unit in units if words[unit] != "enabled"]

    def journal(self, unit: str, invocation: str) -> str:
        """The end of what one run of a unit said, and systemd about it."""
        wanted = [f"_SYSTEMD_INVOCATION_ID={invocation}", "+", f"INVOCATION_ID={invocation}"]
        return self.call(
            *("journalctl", "--no-pager", "--no-hostname", "--output=short-iso", "--quiet"),
            *(f"--lines={JOURNAL_LINES}", *(wanted if invocation else [f"--unit={unit}"])),
            check=False,
        ).strip()

    def workers(self, pid: int) -> set[int]:
        """The processes that a master has started."""
        try:
            return set(map(int, (PROC / f"{pid}/task/{pid}/children").read_text().split()))
        except OSError:
            return set()

    def directory(self, pid: int) -> Path | None:
        """Where a process works, with every link resolved."""
        try:
            return Path(os.readlink(PROC / str(pid) / "cwd"))
        except OSError:
            return None

    def signal(self, pid: int, number: int) -> None:
        os.kill(pid, number)


# -------------------------------------------------------------------------------------- judging


def ask(path: Path, check: Check, release: str | None, timeout: float) -> tuple[str, str]:
    """Ask once. Returns what is wrong, or nothing, and the answer in short."""
    try:
        found = get(f"unix:{path}", check.path, deadline=timeout, name=check.host, agent="handover")
    except NoAnswerError as error:
        return error.words, ""
    answer = f"{found.status} {found.text[:BODY_LIMIT]}".strip()
    if found.status != check.status:
        return f"answered {found.status}, not {check.status}", answer
    if check.release_member and release:
        try:
            named = json.loads(found.text)[check.release_member]
        except (ValueError, KeyError, TypeError):
            return f"did not name its release in the JSON member {check.release_member}", answer
        if named != release:
            return f"answered as release {named!r}, not {release!r}", answer
    return "", answer


# ------------------------------------------------------------------------------------- handover


@dataclass
class State:
    """What is being done, on disk before it is done: what it takes to take it back."""

    id: str
    release: str | None
    previous: str | None
    by: str
    reason: str
    started_at: str
    stage: str
    bridged: bool  # a standby stands in; without, the sockets were closed or are opened anew
    reopen: bool  # the sockets' unit differs
    invocation: str  # the run of the service that was live before
    settings: list[str]  # files that differ from the last healthy ones
    serving: bool = False  # the standby accepts clients
    schema: int = SCHEMA

    @classmethod
    def read(cls, config: Config) -> State | None:
        data = read_json(config.state / "handover.json")
        if data is None:
            return None
        return cls(**known(cls, data))


@dataclass
class Plan:
    """What there is to do, and why; nothing without reasons."""

    release: str | None
    previous: str | None
    settings: Settings
    changed: list[str]
    reasons: list[str] = field(default_factory=list)
    disabled: list[str] = field(default_factory=list)
    bridged: bool = False
    reopen: bool = False
    reload: bool = False


@dataclass
class Result:
    """What a handover came to; --json prints it."""

    changed: bool
    msg: str
    release: str | None = None
    previous: str | None = None
    verdict: str | None = None
    stage: str = ""
    answer: str = ""
    journal: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    code: int = GOOD


class Handover:
    """One service on this host."""

    def __init__(
        self,
        config: Config,
        systemd: Systemd,
        say: Callable[[str], None] = print,
    ) -> None:
        self.config, self.systemd, self.say = config, systemd, say
        self.seconds: dict[str, float] = {}
        self._entered = time.monotonic()
        self._stage = ""

    # What is there

    def current(self) -> str | None:
        """The release that `current` points at."""
        if self.config.root is None:
            return None
        try:
            return os.path.basename(os.readlink(self.config.root / "current"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Refused(
                f"{self.config.root}/current is not a symbolic link: move it away"
            ) from error

    def running(self, unit: Unit) -> str | None:
        """The release that a process was started from, whatever links say by now."""
        if self.config.root is None or not unit.pid:
            return None
        directory = self.systemd.directory(unit.pid)
        releases = Path(os.path.realpath(self.config.root / "releases"))
        if directory is None or releases not in directory.parents:
            return None
        return directory.relative_to(releases).parts[0]

    def releases(self) -> list[str]:
        assert self.config.root is not None
        folder = self.config.root / "releases"
        return sorted(path.name for path in folder.glob("*") if (path / "bin/python").exists())

    def plan(self, release: str | None, restart: bool = False) -> Plan:
        """What it takes to have a release live with the settings on disk.

        Args:
            restart: start it again also where that is so already.
        """
        config = self.config
        main, healthy = self.systemd.show(config.main), Healthy.read(config.healthy)
        running = self.running(main)
        current = self.current()
        if release is not None and config.root is None:
            raise Refused(
                f"{config.name} has no releases (gunicorn_systemd_release_root): name none"
            )
        wanted = release or current
        if config.root is not None:
            if wanted is None:
                raise Refused(f"no release is live in {config.root}: name one")
            python = config.root / "releases" / wanted / "bin/python"
            if python.is_symlink() and not python.exists():
                raise Refused(
                    f"release {wanted} cannot start: its interpreter {os.path.realpath(python)} is "
                    f"not on this host. Name another one, or deploy it anew"
                )
            if wanted not in self.releases():
                known = ", ".join(self.releases()) or "none"
                raise Refused(
                    f"there is no release {wanted!r} in {config.root}; there are: {known}"
                )
        before = healthy.settings if healthy else {}
        settings = read_settings([*config.settings, *before])
        previous = running or (healthy.release if healthy else None) or current
        plan = Plan(wanted, previous, settings, changed_settings(before, settings))
        plan.disabled = self.systemd.disabled(config.enabled)
        shared = self.systemd.show(config.sockets[0])
        unit = str(UNITS / config.sockets[0])
        if healthy:
            plan.reopen = directives(before, unit) != directives(settings, unit)
        elif unit in settings and not shared.stopped:
            plan.reopen = settings[unit].mtime / 1e9 > shared.since
        plan.bridged = not (plan.reopen or shared.stopped or main.stopped)
        plan.reload = main.stale or shared.stale or bool(plan.changed)
        plan.reasons = self._reasons(plan, main, healthy, running, current, shared)
        if restart and not plan.reasons:
            plan.reasons.append("it is to be started again")
        return plan

    def _reasons(
        self,
        plan: Plan,
        main: Unit,
        healthy: Healthy | None,
        running: str | None,
        current: str | None,
        shared: Unit,
    ) -> list[str]:
        reasons = []
        if main.stopped or shared.stopped:
            reasons.append(
                f"{self.config.main if main.stopped else self.config.sockets[0]} is stopped"
            )
        elif not main.lives:
            reasons.append(f"{self.config.main} does not stay up")
        elif self.config.root is not None and running != plan.release:
            reasons.append(f"release {running or 'none'} is live")
        if self.config.root is not None and current != plan.release and not reasons:
            reasons.append(f"current points at {current}")
        if healthy is None:
            reasons.append("nothing was judged so far")
        elif plan.changed:
            reasons.append(f"changed: {', '.join(plan.changed)}")
        elif healthy.release != plan.release:
            reasons.append(f"release {plan.release} was not judged with these settings")
        elif not reasons and main.invocation != healthy.invocation:
            # It came up by itself since: with the settings that were there then.
            newer = [p for p, s in plan.settings.items() if s.mtime / 1e9 > main.since]
            if newer:
                reasons.append(f"it was started before {newer[0]} was written")
        if main.stale and not reasons:
            reasons.append("its unit was changed")
        return reasons

    # Doing it

    def run(
        self, release: str | None, request: str, by: str, reason: str, restart: bool = False
    ) -> Result:
        """Hand over, after settling what an earlier handover left. Raises Refused."""
        left = State.read(self.config)
        settled = False
        if left is not None:
            back = self.settle(left)
            settled = True
            if left.id == request:
                back.code = BAD if left.stage != "commit" else GOOD
                return back
        plan = self.plan(release, restart)
        if not plan.reasons:
            changed = self.systemd.enable(self.config.enabled)
            return Result(
                settled or changed, self._live(plan), plan.release, plan.previous, "healthy"
            )
        main = self.systemd.show(self.config.main)
        state = State(
            id=request,
            release=plan.release,
            previous=plan.previous,
            by=by,
            reason=reason,
            started_at=now(),
            stage="begin",
            bridged=plan.bridged,
            reopen=plan.reopen,
            invocation=main.invocation,
            settings=plan.changed,
        )
        self.say(f"{self.config.name}: {self._title(plan)} ({'; '.join(plan.reasons)})")
        Healthy(plan.release, "", plan.settings, now()).write(self.config.candidate)
        self.enter(state, "begin")
        try:
            if plan.reload:
                self.systemd.reload()
            if plan.bridged:
                self.stand_in(state)
            self.restart(state)
            self.bake(state)
        except Bad as bad:
            return self.judged_bad(state, bad)
        except OSError as error:
            # A full disk, a process that has just gone: no verdict, and no reason to stop half way.
            return self.judged_bad(state, Bad(f"could not be brought up: {error}"))
        return self.commit(state)

    def _title(self, plan: Plan) -> str:
        to = f"release {plan.release}" if plan.release else "the settings on disk"
        if plan.previous and plan.previous != plan.release:
            return f"from release {plan.previous} to {to}"
        return f"to {to}"

    def _live(self, plan: Plan) -> str:
        what = f"release {plan.release} is" if plan.release else "the settings on disk are"
        return f"{self.config.name}: {what} live and healthy; nothing to do."

    def enter(self, state: State, stage: str) -> None:
        """Say what comes next, on disk first."""
        self._leave()
        state.stage = self._stage = stage
        try:
            self.config.state.mkdir(mode=0o755, parents=True, exist_ok=True)
            write(self.config.state / "handover.json", json.dumps(asdict(state), indent=1) + "\n")
        except OSError:
            # The way back is known already, and needs no room on the disk.
            if stage != "back":
                raise

    def _leave(self) -> None:
        if self._stage:
            self.seconds[self._stage] = round(time.monotonic() - self._entered, 2)
            if self._stage not in ("begin", "commit"):
                self.say(f"  {self._stage}: {self.seconds[self._stage]} s")
        self._entered = time.monotonic()

    def stand_in(self, state: State, stage: str = "standby", release: str | None = None) -> None:
        """Start the standby, judge it, and have it accept clients."""
        config = self.config
        release = release or state.release
        state.serving = False
        self.enter(state, stage)
        self.systemd.stop(config.standby)
        if config.root is not None and release is not None:
            link = config.run / "release"
            config.run.mkdir(mode=0o755, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(config.root / "releases" / release)
        before = self.systemd.show(config.standby)
        self.systemd.begin("start", config.standby)
        self.judge(config.standby, config.standby_socket, release, before.invocation)
        if stage == "standby":
            self.enter(state, "open")
        self.open(release)
        state.serving = True

    def open(self, release: str | None) -> None:
        """Have the standby accept from the shared sockets: on SIGHUP its master starts its workers
        with all of them, and ends the one that was judged."""
        standby = self.systemd.show(self.config.standby)
        judged = self.systemd.workers(standby.pid)
        if not standby.lives or not standby.pid:
            raise self.bad(self.config.standby, "died")
        self.systemd.signal(standby.pid, signal.SIGHUP)
        end = time.monotonic() + self.config.stop_time_limit
        while judged & self.systemd.workers(standby.pid):
            if time.monotonic() > end:
                raise self.bad(self.config.standby, "did not accept clients in time")
            time.sleep(POLL / 2)
        # Who answers now also has the shared sockets.
        self.judge(self.config.standby, self.config.standby_socket, release, "", count=1)

    def restart(self, state: State) -> None:
        """Start the service from the release and the settings, and judge it."""
        config = self.config
        self.enter(state, "main")
        if state.release is not None:
            self.point(state.release)
        self.start_main(state, state.release)
        if state.bridged:
            self.systemd.begin("stop", config.standby, f"{config.name}-standby.socket")

    def start_main(self, state: State, release: str | None) -> None:
        """Start the service with what is on disk, while the standby serves if there is one."""
        config = self.config
        before = self.systemd.show(config.main)
        if state.bridged:
            self.systemd.begin("restart", config.main)
        else:
            self.systemd.stop(config.main)
            if state.reopen:
                self.systemd.stop(*config.sockets)
            self.systemd.start(*config.sockets)
            self.systemd.begin("start", config.main)
        self.judge(config.main, config.main_socket, release, before.invocation)

    def bake(self, state: State) -> None:
        """Ask for a while longer. Meanwhile the standby finishes what it had begun."""
        config, check = self.config, self.config.check
        self.enter(state, "bake")
        end = time.monotonic() + config.bake_time
        faults = 0
        # Where workers die, others answer meanwhile: bad answers alone do not tell.
        main = self.systemd.show(config.main).pid
        alive = self.systemd.workers(main)
        most, ended = len(alive), 0
        while time.monotonic() < end:
            time.sleep(max(POLL, check.interval))
            found = self.systemd.workers(main)
            if found:
                ended += len(alive - found)
            else:
                # systemd starts a master that was killed again, which is one accident.
                ended += bool(alive)
                main = self.systemd.show(config.main).pid
            most, alive = max(most, len(found)), found
            if ended >= max(BAKE_DEATHS, most):
                raise self.bad(config.main, f"{ended} of its workers ended while baking")
            fault, answer = ask(config.main_socket, check, state.release, ANSWER_TIMEOUT)
            faults += bool(fault)
            if faults >= BAKE_FAULTS:
                raise self.bad(config.main, f"{fault}, {faults} times while baking", answer)
        if state.bridged:
            self.stopped(config.standby)
            # One that was killed is not missed any more, and would stand among the failed units.
            self.systemd.stop(config.standby)

    def commit(self, state: State) -> Result:
        """Record it as healthy. Begun, this is finished, also after an interruption."""
        self.enter(state, "commit")
        self.finish_commit(state)
        what = f"release {state.release} is" if state.release else "the settings on disk are"
        total = round(sum(self.seconds.values()), 1)
        msg = f"{self.config.name}: {what} live and healthy, after {total} s."
        return Result(
            True, msg, state.release, state.previous, "healthy", "commit", seconds=self.seconds
        )

    def finish_commit(self, state: State) -> None:
        candidate = Healthy.read(self.config.candidate)
        if candidate is not None:
            main = self.systemd.show(self.config.main)
            replace(candidate, invocation=main.invocation).write(self.config.healthy)
        self.systemd.enable(self.config.enabled)
        facts: dict[str, Any] = {"verdict": "healthy", "verdict_at": now(), "failure": None}
        record = self.record(state.release)
        if state.release != state.previous or not record.get("activated_at"):
            facts |= {
                "activated_at": now(),
                "activated_by": state.by,
                "reason": state.reason,
            }
        # Whoever goes live is not one that was left, unless somebody has left it since this began.
        if str(record.get("left_at") or "") <= state.started_at:
            facts |= dict.fromkeys(key for key in record if key.startswith("left_"))
        self.note(state.release, facts)
        self.history("handover", state, "healthy")
        self.forget()

    def forget(self) -> None:
        """Nothing is under way any more."""
        remove(self.config.state / "handover.json")
        remove(self.config.candidate)

    # Taking it back

    def judged_bad(self, state: State, bad: Bad) -> Result:
        """Have what was live before live again, and keep what was found."""
        stage, title = state.stage, state.release or "the settings on disk"
        self.say(f"  {stage}: {bad.fault}")
        failure = {"stage": stage, "answer": bad.answer, "journal": bad.journal, "fault": bad.fault}
        # The way back needs no room on the disk, and the records have to do without it.
        with contextlib.suppress(OSError):
            if state.release != state.previous:
                self.note(
                    state.release, {"verdict": "bad", "verdict_at": now(), "failure": failure}
                )
        back = self.take_back(state)
        with contextlib.suppress(OSError):
            self.history("taken back", state, "bad", stage=stage, fault=bad.fault)
        lines = [f"{self.config.name}: {title} was judged bad in stage {stage}: it {bad.fault}."]
        if bad.answer:
            lines.append(f"The last answer: {bad.answer}")
        lines.append(back)
        if bad.journal:
            lines.append(f"The end of its journal:\n{bad.journal}")
        return Result(
            True,
            "\n".join(lines),
            state.release,
            state.previous,
            "bad",
            stage,
            bad.answer,
            bad.journal,
            self.seconds,
            BAD,
        )

    def settle(self, state: State) -> Result:
        """Bring what an interrupted handover left to a known state."""
        stage = state.stage
        if stage == "commit":
            self.finish_commit(state)
            said = f"{self.config.name}: an interrupted handover was healthy; it is recorded now."
            self.say(said)
            return Result(True, said, state.release, state.previous, "healthy", stage)
        self.say(f"{self.config.name}: a handover was interrupted in stage {stage}; taking it back")
        back = self.take_back(state)
        with contextlib.suppress(OSError):
            self.history("undone", state, None, stage=stage)
        msg = f"{self.config.name}: the handover was interrupted in stage {stage}. {back}"
        return Result(True, msg, state.release, state.previous, None, stage, seconds=self.seconds)

    def put_back(self, state: State) -> list[str]:
        """`current` and the settings as they were. Returns the files that were put back."""
        if state.previous is not None:
            self.point(state.previous)
        elif self.config.root is not None:
            remove_link(self.config.root / "current")
        return self.put_back_settings()

    def changes(self) -> tuple[Settings, Settings, list[str]]:
        """The settings that were judged healthy, those on disk, and the files that differ; nothing
        where nothing was judged."""
        healthy = Healthy.read(self.config.healthy)
        if healthy is None:
            return {}, {}, []
        found = read_settings([*self.config.settings, *healthy.settings])
        return healthy.settings, found, changed_settings(healthy.settings, found)

    def has_loaded_changes(self, main: Unit) -> bool:
        """Whether what runs was started after a change of settings that was not judged healthy."""
        _, found, changed = self.changes()
        return main.lives and any(
            path in found and found[path].mtime / 1e9 <= main.since for path in changed
        )

    def put_back_settings(self) -> list[str]:
        good, found, changed = self.changes()
        if changed:
            put_back_settings(good, found)
            self.config = Config.read(self.config.name)
        return changed

    def take_back(self, state: State) -> str:
        """Have what was live before live again, by a handover in the other direction where it
        takes one. Returns a sentence for the operator."""
        self.enter(state, "back")
        # It may have been started again by somebody else, with the settings that go back now.
        loaded = self.has_loaded_changes(self.systemd.show(self.config.main))
        files = self.put_back(state)
        config = self.config
        was_live = Healthy.read(config.healthy) is not None or state.previous is not None
        self.systemd.reload()
        main = self.systemd.show(config.main)
        untouched = main.lives and main.invocation == state.invocation and not loaded
        said = f"release {state.previous}" if state.previous else "what was there before"
        try:
            if not state.bridged and not was_live:
                self.systemd.stop(config.main, *config.sockets)
                said = f"Nothing was live before, so {config.name} is stopped"
            elif untouched:
                said = f"Nothing of it served; {said} is live as before"
            else:
                standby = self.systemd.show(config.standby)
                if state.bridged and not (state.serving and standby.lives):
                    try:
                        self.stand_in(state, "back", state.previous)
                        self.enter(state, "back")
                    except Bad as bad:
                        self.say(f"  back: no standby: it {bad.fault}")
                        self.systemd.stop(config.standby)
                self.start_main(state, state.previous)
                said = f"{said[0].upper()}{said[1:]} is live again"
        except Bad as bad:
            said = f"{said[0].upper()}{said[1:]} is back, but it {bad.fault}"
        self.systemd.stop(config.standby, f"{config.name}-standby.socket")
        self._leave()
        self._stage = ""
        self.forget()
        return f"{said}{', with the settings of before' if files else ''}."

    def boot(self) -> bool:
        """Before the service starts: nothing that was not judged goes live by a reboot.

        Returns whether there was anything to take back, or to complete.
        """
        state = State.read(self.config)
        units = (self.config.main, self.config.standby)
        if state is not None and not all(self.systemd.show(unit).stopped for unit in units):
            # No boot: the handover was ended, and what it has started serves.
            self.settle(state)
            return True
        if state is not None and state.stage == "commit":
            self.finish_commit(state)
            return True
        if state is not None:
            self.put_back(state)
            self.history("undone", state, None, stage=state.stage)
            self.forget()
            self.say(f"{self.config.name}: undone a handover that was interrupted in {state.stage}")
        else:
            tree = read_json(TREES / f"{self.config.name}.json") or {}
            loaded = self.has_loaded_changes(self.systemd.show(self.config.main))
            files = self.put_back_settings() if tree.get("pending") else []
            if not files:
                return False
            self.say(f"{self.config.name}: put back settings that no handover has judged")
            if loaded:
                # Started again by somebody else meanwhile, it runs with them.
                self.systemd.reload()
                self.run(None, "", "", "settings that nobody has judged were loaded", restart=True)
                return True
        self.systemd.reload()
        return True

    # Looking

    def judge(
        self,
        unit: str,
        path: Path,
        release: str | None,
        before: str,
        count: int | None = None,
    ) -> None:
        """Wait for a new run of a unit and ask it. Raises Bad with what is wrong.

        Args:
            before: InvocationID of the run that ends, which is not the one to be judged.
            count: good answers in a row that are wanted, unless what the settings say.
        """
        config, check = self.config, self.config.check
        begun = time.monotonic()
        invocation = ""
        while True:
            now_ = self.systemd.show(unit)
            waited = time.monotonic() - begun
            if now_.invocation == before:
                # The old run has not ended yet.
                if waited > config.stop_time_limit + 10:
                    raise self.bad(unit, "was not started, because what ran before does not end")
            else:
                if not invocation:
                    invocation, begun = now_.invocation, time.monotonic()
                    waited = 0.0
                self._alive(unit, now_, invocation)
                if now_.active == "active":
                    break
                if waited > config.start_time_limit:
                    raise self.bad(unit, f"did not start within {config.start_time_limit:g} s")
            time.sleep(POLL)
        begun = time.monotonic()
        good, wanted = 0, count or check.count
        while True:
            left = check.time_limit - (time.monotonic() - begun)
            fault, answer = ask(path, check, release, max(0.1, min(ANSWER_TIMEOUT, left)))
            good = 0 if fault else good + 1
            if good >= wanted:
                return
            self._alive(unit, self.systemd.show(unit), invocation, answer)
            if time.monotonic() - begun + check.interval > check.time_limit:
                fault = fault or f"gave {good} good answers of {wanted}"
                raise self.bad(unit, f"{fault}, within {check.time_limit:g} s", answer)
            time.sleep(check.interval)

    def _alive(self, unit: str, found: Unit, invocation: str, answer: str = "") -> None:
        if not found.lives or found.invocation != invocation:
            raise self.bad(
                unit, "died" if found.sub != "auto-restart" else "does not stay up", answer
            )

    def bad(self, unit: str, fault: str, answer: str = "") -> Bad:
        invocation = self.systemd.show(unit).invocation
        return Bad(fault, answer, self.systemd.journal(unit, invocation))

    def stopped(self, unit: str) -> None:
        """Wait until a unit has ended; systemd kills it when its time is over."""
        end = time.monotonic() + self.config.stop_time_limit + 10
        while not self.systemd.show(unit).stopped and time.monotonic() < end:
            time.sleep(POLL)

    # Writing down

    def point(self, release: str) -> None:
        """Point `current` at a release in one step."""
        root = self.config.root
        if root is None or self.current() == release:
            return
        temporary = root / ".current"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path("releases", release))
        os.rename(temporary, root / "current")
        sync(root)

    def record(self, release: str | None) -> dict[str, Any]:
        if self.config.root is None or release is None:
            return {}
        return read_json(self.config.state / "releases" / f"{release}.json") or {}

    def note(self, release: str | None, facts: dict[str, Any]) -> None:
        """Keep facts in a release's record, beside what others wrote there."""
        if self.config.root is None or release is None:
            return
        record = {"id": release, "schema": SCHEMA, **self.record(release), **facts}
        path = self.config.state / "releases" / f"{release}.json"
        # What a release that failed has said may be more than everybody on the host should read.
        write(path, json.dumps(record, indent=1) + "\n", 0o600 if record.get("failure") else 0o644)

    def history(self, event: str, state: State, verdict: str | None, **more: Any) -> None:
        line = {
            "time": now(),
            "event": event,
            "release": state.release,
            "previous": state.previous,
            "by": state.by,
            "reason": state.reason,
            "verdict": verdict,
            "settings": state.settings,
            **more,
        }
        path = self.config.state / "history.jsonl"
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def remove_link(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync(path.parent)


# ------------------------------------------------------------------------------ command and unit


@contextlib.contextmanager
def locked(config: Config) -> Iterator[bool]:
    """Hold the lock of a service's handover; False if somebody else does."""
    config.run.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open(config.run / "lock", "w") as file:
        os.fchmod(file.fileno(), 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            yield False
            return
        yield True


def work(config: Config, systemd: Systemd, options: argparse.Namespace) -> int:
    """In the unit: hand over, and leave the result where the command looks for it."""
    config.run.mkdir(mode=0o755, parents=True, exist_ok=True)
    log = config.run / f"{options.run}.log"

    def say(line: str) -> None:
        print(line, flush=True)
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as stream:
            stream.write(line + "\n")

    with locked(config) as mine:
        if not mine:
            # A restore holds it as well.
            msg = f"{config.name}: another handover or a restore is under way: wait for it."
            result = Result(False, msg, options.release, code=REFUSED)
            write(config.run / f"{options.run}.json", json.dumps(asdict(result)), 0o600)
            return REFUSED
        try:
            handover = Handover(config, systemd, say)
            result = handover.run(
                options.release, options.run, options.by, options.reason, options.restart
            )
        except Refused as refused:
            result = Result(False, f"{config.name}: {refused}.", options.release, code=REFUSED)
        except Bad as bad:
            msg = f"{config.name}: {bad.fault}. Put it right, then run this again to settle it."
            result = Result(True, msg, options.release, code=BAD)
        # The journal that is quoted there is in the journal.
        print(result.msg.partition("\nThe end of its journal:")[0], flush=True)
        write(config.run / f"{options.run}.json", json.dumps(asdict(result)), 0o600)
    return result.code


def command(config: Config, systemd: Systemd, options: argparse.Namespace) -> Result:
    """What an operator types: start the unit and follow it. Raises Refused."""
    say: Callable[[str], None] = (lambda line: None) if options.json else print
    patience = time.monotonic() + options.wait
    while True:
        wait_for_others(config, systemd, patience)
        state = State.read(config)
        if options.settled:
            return Result(False, f"{config.name}: no handover is under way.")
        if state is None and options.preview and options.release:
            shipped = Handover(config, systemd).releases() if config.root else [options.release]
            if options.release not in shipped:
                msg = (
                    f"{config.name}: would hand over to release {options.release} when it is here: "
                    f"release {Handover(config, systemd).current() or 'none'} is live."
                )
                return Result(True, msg, options.release)
        if state is None:
            plan = Handover(config, systemd).plan(options.release, options.restart)
            if options.new_settings and not plan.reasons:
                plan.reasons.append("its settings change")
            if not plan.reasons and not plan.disabled:
                msg = Handover(config, systemd)._live(plan)
                return Result(False, msg, plan.release, plan.previous, "healthy")
            todo = "; ".join(plan.reasons) or f"not enabled: {', '.join(plan.disabled)}"
            msg = (
                f"{config.name}: would hand over {Handover(config, systemd)._title(plan)}: {todo}."
            )
        else:
            msg = f"{config.name}: would take back what was interrupted in stage {state.stage}."
        if options.check or options.preview:
            return Result(True, msg, options.release)
        request = uuid.uuid4().hex[:12]
        if start_unit(config, systemd, request, options):
            return follow(config, systemd, request, say)


def wait_for_others(config: Config, systemd: Systemd, patience: float) -> None:
    while not systemd.show(config.unit).stopped:
        state = State.read(config)
        if time.monotonic() >= patience:
            what = "just begun"
            if state is not None:
                to, by = state.release or "changed settings", state.by or "somebody"
                what = f"to {to}, by {by}, since {state.started_at}"
            raise Refused(
                f"another handover is under way ({what}): wait for it, or use --wait SECONDS"
            )
        time.sleep(0.2)


def start_unit(config: Config, systemd: Systemd, request: str, options: argparse.Namespace) -> bool:
    """Start the unit that does the work; False if another one was faster."""
    program = os.path.abspath(sys.argv[0])
    argv = [
        *("systemd-run", "--quiet", "--collect", "--no-block", f"--unit={config.unit}"),
        f"--description=Handover of {config.name}",
        *("--service-type=oneshot", "--property=TimeoutStartSec=infinity"),
        # Killed, it is started again, and takes back what it had begun.
        *("--property=Restart=on-abnormal", f"--property=SyslogIdentifier={config.name}-handover"),
        *(f"--property={directive}" for directive in config.sandbox),
        *(program, f"--run={request}", f"--by={options.by}", f"--reason={options.reason}"),
        *(["--restart"] if options.restart else []),
        *([options.release] if options.release else []),
    ]
    end = time.monotonic() + START_SECONDS
    while True:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return True
        if not systemd.show(config.unit).stopped:
            return False
        # One that has just ended keeps the name for a moment.
        if time.monotonic() > end:
            raise Refused(f"systemd did not start the handover: {done.stderr.strip()}")
        time.sleep(POLL)


def follow(config: Config, systemd: Systemd, request: str, say: Callable[[str], None]) -> Result:
    """Say what the unit says until it has a result."""
    log, result = config.run / f"{request}.log", config.run / f"{request}.json"
    seen, gone, patience = 0, 0.0, 60.0
    while True:
        found = read_json(result)
        with contextlib.suppress(FileNotFoundError):
            text = log.read_text()
            for line in text[seen:].splitlines():
                say(line)
            seen = len(text)
        if found is not None:
            log.unlink(missing_ok=True)
            result.unlink(missing_ok=True)
            return Result(**found)
        if systemd.show(config.unit).stopped:
            gone += POLL
        else:
            # It has begun, so when it is gone it has ended.
            gone, patience = 0.0, 1.0
        if gone > patience:
            raise Refused("the handover was stopped before its end: run this again to settle it")
        time.sleep(POLL)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Hand a service over to another release or to changed settings."
    )
    parser.add_argument("release", nargs="?", help="the live one again if left out")
    parser.add_argument("--restart", action="store_true", help="also if nothing has changed")
    parser.add_argument("--reason", default="", help="why, for the records")
    parser.add_argument(
        "--by", default=os.environ.get("SUDO_USER", ""), help="who, for the records"
    )
    parser.add_argument(
        "--wait", type=float, default=0, metavar="SECONDS", help="for another handover"
    )
    parser.add_argument("--check", action="store_true", help="say what would be done")
    parser.add_argument(
        "--preview", action="store_true", help="the same of a release that is still to be shipped"
    )
    parser.add_argument(
        "--settled", action="store_true", help="wait until none is under way, and do nothing"
    )
    # In check mode they are not on disk yet.
    parser.add_argument("--new-settings", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--boot", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--run", metavar="REQUEST", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.release is not None and not re.fullmatch(
        r"[A-Za-z0-9][A-Za-z0-9._-]*", options.release
    ):
        parser.error(f"{options.release!r} cannot be the name of a release")
    return options


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    name = Path(sys.argv[0]).name.removesuffix("-handover")
    systemd = Systemd()
    result: Result | None = None
    try:
        if os.geteuid() != 0:
            raise Refused("only root can do this: use sudo")
        config = Config.read(name)
        if options.boot:
            said: list[str] = []
            changed = False
            with locked(config) as mine:
                if mine:
                    tell: Callable[[str], None] = said.append if options.json else print
                    changed = Handover(config, systemd, tell).boot()
            if options.json:
                print(json.dumps({"changed": changed, "msg": "\n".join(said)}))
            return GOOD
        if options.run:
            return work(config, systemd, options)
        result = command(config, systemd, options)
    except Refused as refused:
        result = Result(False, f"{name}: {refused}.", options.release, code=REFUSED)
    if options.json:
        facts = asdict(result)
        del facts["code"]
        print(json.dumps(facts))
    else:
        print(result.msg, file=sys.stderr if result.code else sys.stdout)
    return result.code


if __name__ == "__main__":
    clean_environment.apply()
    sys.exit(main(sys.argv[1:]))
