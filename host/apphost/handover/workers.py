"""Background workers and timers: a new generation of workers runs beside the old one until commit.

Each process of a worker is an instance of a unit, <name>-worker-<kind>@<generation>-<number>, and
runs from <state>/workers/<generation>-<number>, a link to its release that never leads elsewhere.
So a handover starts a whole generation, judges it, and only then tells the one before to finish; a
verdict of bad ends the new one, and the old one was never touched. A worker that has to be alone
is the exception: its old processes have ended before a new one starts, in either direction.

A timer's run takes the release that is live when it begins, and keeps it to its end.
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .. import files, records
from ..times import stamp
from .config import Config
from .judge import POLL_SECONDS, JudgedBadError, judged_bad
from .service import Service
from .settings import Healthy, Settings
from .state import State

# A worker that dies within this time was not good. The bake is longer, as a rule.
STEADY_SECONDS = 3.0


def instances(config: Config, generation: str, alone: bool | None = None) -> list[str]:
    """The units of a generation, by the settings on disk; none where there is no generation.

    Args:
        alone: only of workers that are alone, or only of the others.
    """
    return [
        config.application.worker_unit(worker.name, f"{generation}-{number}")
        for worker in config.workers
        for number in range(1, worker.count + 1)
        if generation and alone in (None, worker.alone)
    ]


def timers(config: Config) -> list[str]:
    """The units that start the timers' commands."""
    return [config.application.timer_unit(timer) for timer in config.timers]


def at_boot(config: Config, generation: str) -> list[str]:
    """All units that systemd is to start at boot."""
    return [*config.enabled, *instances(config, generation), *timers(config)]


def missing(service: Service, generation: str) -> list[str]:
    """Why not all workers and timers run, for each that does not. One that restarts does run."""
    config = service.config
    if config.workers and not generation:
        return ["its workers were never started"]
    units = [*instances(config, generation), *timers(config)]
    return [f"{unit} is stopped" for unit in units if service.systemd.show(unit).stopped]


# A new generation


def new_generation(service: Service, request: str) -> str:
    """A name that no process has had: the request's. Empty without workers."""
    if not service.config.workers:
        return ""
    healthy = Healthy.read(service.config.healthy)
    used = {slot.name.rpartition("-")[0] for slot in _slots(service.config)}
    used.add(healthy.generation if healthy else "")
    # Who takes settings back by himself has no request, and "" would be no workers at all.
    return uuid.uuid4().hex[:12] if not request or request in used else request


def unknown(service: Service, state: State) -> list[str]:
    """Kinds that a release did not have when it was healthy, where it goes live again.

    A way back changes the release and not the description. It may lack what these run, which is no
    reason to stay with what somebody wants to leave: they are started, and not judged. Nor are they
    when the same release is started again, unless their units have changed since.
    """
    record = service.record(state.release)
    if record.get("verdict") != records.HEALTHY or "workers" not in record:
        return []
    kinds = [each.name for each in service.config.workers if each.name not in record["workers"]]
    if state.release != state.previous:
        return kinds
    left_out = record.get("workers_not_judged", [])
    return [each for each in kinds if each in left_out and not _is_changed(service, state, each)]


def _is_changed(service: Service, state: State, kind: str) -> bool:
    config = service.config
    return str(config.units / config.application.worker_unit(kind, "")) in state.settings


def _judged(service: Service, state: State, alone: bool | None = None) -> list[str]:
    """The units of the new generation that have to be up."""
    config, left_out = service.config, unknown(service, state)
    known = tuple(worker for worker in config.workers if worker.name not in left_out)
    return instances(replace(config, workers=known), state.generation, alone)


def start(service: Service, state: State) -> float:
    """Start the new generation beside the old one. Raises JudgedBadError if one does not come up.

    Who is alone comes last, so that a release whose other workers die interrupts nobody.

    Returns when all were up, as `time.monotonic()` counts it.
    """
    config = service.config
    if instances(config, state.generation) and config.root is not None and state.release:
        service.enter(state, "workers")
        for number in range(1, max(worker.count for worker in config.workers) + 1):
            config.slots.mkdir(mode=0o755, parents=True, exist_ok=True)
            slot = config.slots / f"{state.generation}-{number}"
            files.point(slot, config.root / "releases" / state.release)
        for kind in unknown(service, state):
            service.report(f"  {kind}: not judged, {state.release} was healthy without this worker")
        _start(service, state, alone=False)
        _end_alone(service, state.generation)
        _start(service, state, alone=True)
    return time.monotonic()


def _start(service: Service, state: State, alone: bool) -> None:
    limit = service.config.start_time_limit
    units = instances(service.config, state.generation, alone)
    if units:
        service.systemd.begin("start", *units)
    end = time.monotonic() + limit
    for unit in _judged(service, state, alone):
        while not _is_up(service, unit):
            if time.monotonic() > end:
                raise _bad(service, unit, f"did not start within {limit:g} s")
            time.sleep(POLL_SECONDS)


def _end_alone(service: Service, generation: str) -> None:
    """Tell processes of other generations to finish, where two may not run, and wait for it.

    Their units say how long that may take.
    """
    config, systemd = service.config, service.systemd
    wanted = instances(config, generation, alone=True)
    others = [
        unit
        for worker in config.workers
        if worker.alone
        for unit in systemd.loaded(config.application.worker_unit(worker.name, "*"))
        if unit not in wanted
    ]
    if others:
        systemd.stop(*others)


def judge_again(service: Service, state: State, began: float) -> None:
    """Whether all are still up, without a restart. Raises JudgedBadError.

    Args:
        began: when they were all up.
    """
    units = _judged(service, state)
    while units:
        up = [_is_up(service, unit) for unit in units]
        if all(up) and time.monotonic() - began >= STEADY_SECONDS:
            return
        time.sleep(POLL_SECONDS)


def _is_up(service: Service, unit: str) -> bool:
    shown = service.systemd.show(unit)
    if not shown.invocation:
        # systemd has not come to it yet.
        return False
    if not shown.lives or shown.restarts:
        ends = shown.restarts or shown.sub == "auto-restart"
        raise _bad(service, unit, "does not stay up" if ends else "died")
    return shown.active == "active"


def _bad(service: Service, unit: str, fault: str) -> JudgedBadError:
    verdict = judged_bad(service, unit, f"has a worker that {fault}, {unit}")
    # Of all its starts: the last one may not have written anything yet.
    return JudgedBadError(str(verdict), journal=service.systemd.journal(unit, ""))


# The generation that is live


def keep(service: Service, generation: str) -> None:
    """Have that generation run, and tell all others to finish. Waits for who is alone only."""
    config, systemd = service.config, service.systemd
    wanted = instances(config, generation)
    others = [unit for unit in systemd.loaded(_workers(config)) if unit not in wanted]
    if others:
        systemd.begin("stop", *others)
        # Who was judged bad is in the records, and is no failed unit from here on.
        systemd.forgive(*others)
    idle = [unit for unit in wanted if systemd.show(unit).stopped]
    if idle:
        _end_alone(service, generation)
        systemd.begin("start", *idle)


def finish(service: Service, state: State) -> None:
    """The part of a commit that is about workers and timers; can be repeated."""
    config, systemd = service.config, service.systemd
    wanted = instances(config, state.generation)
    systemd.enable([*wanted, *timers(config)])
    systemd.unlink([unit for unit in systemd.linked(_workers(config)) if unit not in wanted])
    keep(service, state.generation)
    keep_timers(service, state.settings)


def keep_timers(service: Service, changed: Sequence[str] = ()) -> None:
    """Have the timers run, anew where their file has changed, and no others.

    Args:
        changed: paths of files.
    """
    config, systemd = service.config, service.systemd
    wanted = timers(config)
    pattern = config.application.timer_unit("*")
    known = {*systemd.linked(pattern), *systemd.loaded(pattern)}
    gone = sorted(known - {*wanted})
    if gone:
        systemd.stop(*gone)
        systemd.unlink(gone)
    for unit in wanted:
        if str(config.units / unit) in changed or systemd.show(unit).stopped:
            systemd.begin("restart", unit)
    for timer in config.timers:
        record = config.jobs / f"{timer}.json"
        if not record.exists():
            # From here on it counts as late if it never succeeds.
            files.write_json(record, {"known_since": stamp()})


def with_loaded_changes(service: Service) -> list[str]:
    """Workers of the live generation that were started with settings that nobody has judged."""
    healthy = Healthy.read(service.config.healthy)
    units = instances(service.config, healthy.generation) if healthy else []
    return [unit for unit in units if service.has_loaded_changes(unit)]


# What is left of those before


def clean(service: Service, generation: str) -> None:
    """Remove what only workers needed that have ended.

    Args:
        generation: that is live.
    """
    config = service.config
    for slot in _slots(config):
        pattern = config.application.worker_unit("*", slot.name)
        if slot.name.rpartition("-")[0] != generation and not _live(service, pattern):
            files.remove(slot)
    for path in config.gone_units.glob("*"):
        pattern = path.name.replace("@.", "@*.")
        if _own(config, path.name) and not _live(service, pattern):
            with contextlib.suppress(OSError):
                files.remove(path)


def keep_unit_files(service: Service, before: Settings) -> None:
    """Keep the units of workers and timers that are gone, until the host boots.

    What still runs of them would otherwise be stopped by systemd's defaults: all its processes at
    once, and killed when those end.
    """
    config = service.config
    for path, setting in before.items():
        if _own(config, Path(path).name) and not Path(path).exists():
            # Without it the worker is stopped less gently, which is no reason to go back.
            with contextlib.suppress(OSError):
                files.write(config.gone_units / Path(path).name, setting.text)


def _own(config: Config, name: str) -> bool:
    return bool(
        re.fullmatch(rf"{config.name}-(worker-[a-z0-9-]+@[.]service|timer-[a-z0-9-]+[.]\w+)", name)
    )


def _live(service: Service, pattern: str) -> bool:
    units = service.systemd.loaded(pattern)
    return any(not service.systemd.show(unit).stopped for unit in units)


def _workers(config: Config) -> str:
    return config.application.worker_unit("*", "*")


def _slots(config: Config) -> list[Path]:
    return sorted(config.slots.glob("*-*"))
