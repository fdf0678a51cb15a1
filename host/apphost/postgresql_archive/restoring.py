"""Root's part of a restore: whether it can be done, what it costs, and the units.

Whatever can be wrong is said before anything is stopped. PostgreSQL's user does the rest in
`postgresql-restore.service` (`replaying`), and starts afterwards whatever came of it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import signal
import time
from dataclasses import dataclass

from . import points, programs
from .replaying import aside
from .settings import ArchiveError, RefusedError, Settings

RESTORE = "postgresql-restore.service"
CHECK = "postgresql-archive.service"
APPLICATIONS = "postgresql-applications.service"
COPIES = ("postgresql-copy-full.service", "postgresql-copy-differential.service")
TIMERS = (
    "postgresql-archive.timer",
    "postgresql-verify.timer",
    "postgresql-copy-full.timer",
    "postgresql-copy-differential.timer",
)
# Beside the data: what is replayed grows.
SPARE_BYTES = 512 << 20
# By its own program. It gets a transaction's number, and so a record in the log with the time.
MARK = "SELECT pg_current_xact_id()"


@dataclass(frozen=True)
class Plan:
    """What would be done.

    Attributes:
        point: what is restored.
        alive: whether the server that is archived runs.
        parts: what can be reached, as a sentence.
        kept: where the present data go; empty if there are none.
        stamp: names that.
    """

    point: points.Point
    alive: bool
    parts: str
    kept: str
    stamp: str


def examine(told: Settings, wanted: str, *, mark: bool = False) -> Plan:
    """Whether it can be done. Raises RefusedError.

    Args:
        wanted: a time with its zone, `latest`, or the name of a copy.
        mark: whether all that was written until now is brought into the archive first.
    """
    if not wanted:
        raise RefusedError("No point in time was named")
    try:
        # On the primary, whose data the others copy; to restore, the others have to be stopped.
        programs.cluster(told, "may-restore", *(["--alone"] if mark else []))
    except ArchiveError as error:
        raise RefusedError(str(error).rstrip(".")) from error
    try:
        held = programs.holdings(told)
        system = programs.system_of(told)
        alive = bool(held.system) and held.system == system
        now = time.time()
        # A copy, or a time that is no time, does not need it.
        point = points.choose(held, wanted, now, alive=alive)
        if mark and alive:
            held, alive = _marked(told, held, point)
            point = points.choose(held, wanted, now, alive=alive)
    except RefusedError:
        raise
    except ArchiveError as error:
        raise RefusedError(f"The archive cannot be read: {error}") from error
    if held.version != told.version:
        raise RefusedError(
            f"The archive is of PostgreSQL {held.version}, and this host has {told.version}"
        )
    stamp = datetime.datetime.now(points.UTC).strftime("%Y%m%dT%H%M%SZ")
    kept = str(aside(told.data, stamp)) if told.data.exists() else ""
    _require_room(told, point, kept)
    parts = points.words(points.spans(held, now, alive=alive))
    return Plan(point, alive, parts, kept, stamp)


def _marked(
    told: Settings, held: points.Holdings, point: points.Point
) -> tuple[points.Holdings, bool]:
    """Bring all that was written until now into the archive; whether that worked."""
    try:
        programs.ask(told, MARK)
        programs.of_stanza(told, "check")
        return programs.holdings(told), True
    except ArchiveError:
        # What was archived before can still be reached.
        return held, False


def _require_room(told: Settings, point: points.Point, kept: str) -> None:
    place = told.data.parent
    needed = point.copy.size + SPARE_BYTES
    free = shutil.disk_usage(place).free
    if free < needed:
        older = sorted(each.name for each in place.glob(f"{told.data.name}.replaced-*"))
        raise RefusedError(
            f"{place} has {free // 2**20} MiB free, and {needed // 2**20} MiB are needed beside "
            "the present data, which are kept: enlarge the file system"
            + (f", or remove {' and '.join(older)} there, of earlier restores" if older else "")
        )


def lost(told: Settings, plan: Plan, now: float) -> str:
    """What the databases will not have any more, in sentences."""
    until = points.shown(plan.point.until)
    try:
        names = programs.ask(
            told,
            "SELECT string_agg(datname, ', ' ORDER BY datname) FROM pg_database"
            " WHERE NOT datistemplate AND datname <> 'postgres'",
        )
    except ArchiveError:
        names = ""
    whose = f"in all databases ({names})" if names else "in all databases"
    gone = (
        f"Everything written since {until} {whose}, {duration(now - plan.point.until)}, will be "
        "gone from them"
        if plan.point.target != points.LATEST or not plan.alive
        else f"Everything archived is replayed, until {until}"
    )
    kept = f"The present data stay as {plan.kept}" if plan.kept else "There are no present data"
    return programs.sentences(gone, kept, plan.parts)


def duration(seconds: float) -> str:
    """As people say it."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}s"
    return f"{seconds:.0f} seconds" if seconds >= 2 else "a moment ago"


def preview(told: Settings, wanted: str) -> str:
    """What a restore would do. Raises RefusedError."""
    plan = examine(told, wanted)
    what = f"Would restore {_of(plan.point)}"
    return programs.sentences(what, lost(told, plan, time.time()))


def _of(point: points.Point) -> str:
    if point.only_copy:
        return f"copy {point.copy.label}, of {points.shown(point.copy.stop)}"
    until = points.shown(point.until) if point.time is None else point.target
    return f"the state of {until}, from copy {point.copy.label} and the log"


def options(point: points.Point) -> list[str]:
    """What pgBackRest is told."""
    words = [f"--set={point.copy.label}", "--target-action=promote"]
    if point.only_copy:
        return [*words, "--type=immediate"]
    if point.time is None:
        # Up to the end of the log there is no target, so nothing to do at it.
        return [words[0], "--type=default", f"--target-timeline={point.timeline}"]
    target = [f"--target={point.target}", f"--target-timeline={point.timeline}"]
    return [*words, "--type=time", *target]


def restore(told: Settings, wanted: str) -> str:
    """Do it. Raises RefusedError if nothing was touched, ArchiveError otherwise."""
    if os.geteuid() != 0:
        raise RefusedError("Only root can do this: use sudo")
    plan = examine(told, wanted, mark=True)
    loss = lost(told, plan, time.time())
    # Whoever started this may go away.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    begin = time.time()
    told.request.parent.mkdir(mode=0o755, exist_ok=True)
    told.request.write_text(json.dumps({"stamp": plan.stamp, "options": options(plan.point)}))
    try:
        programs.systemctl("stop", *COPIES, CHECK)
        programs.systemctl("stop", told.unit)
        programs.systemctl("start", RESTORE)
        claimed = _claimed(told)
    except ArchiveError as error:
        reason = programs.journal(RESTORE, begin) or str(error)
        with contextlib.suppress(ArchiveError):
            programs.systemctl("reset-failed", RESTORE)
        raise ArchiveError(
            programs.sentences("The data are as they were", _started(told), "Output:")
            + f"\n{reason}"
        ) from error
    finally:
        told.request.unlink()
    problems = programs.sentences(claimed, _started(told))
    with contextlib.suppress(ArchiveError):
        programs.systemctl("start", "--no-block", COPIES[1])
    done = f"Restored {_of(plan.point)}"
    tidy = f"Once you no longer need them: `rm -r {plan.kept}`" if plan.kept else ""
    if problems:
        raise ArchiveError(programs.sentences(done, loss, problems))
    return programs.sentences(done, loss.replace(" will be gone", " is gone"), tidy)


def _claimed(told: Settings) -> str:
    """Have nobody else, who has what was replaced, become the primary; say what is against it."""
    try:
        programs.cluster(told, "claim")
    except ArchiveError as error:
        return str(error)
    return ""


def _started(told: Settings) -> str:
    """Start what was stopped, and say what does not start.

    Passwords are those of the variables, whatever they were at the time.
    """
    problems = []
    for unit in (told.unit, APPLICATIONS, CHECK):
        try:
            programs.systemctl("restart" if unit == APPLICATIONS else "start", unit)
            if unit == told.unit:
                # Of several, one that runs is not the primary yet.
                programs.cluster(told, "apply")
        except ArchiveError:
            problems.append(f"{unit} does not start: journalctl -u {unit}")
    return programs.sentences(*problems)


def begin(told: Settings) -> str:
    """Run what looks after the archive, now and at every boot, and have a first copy made.

    Raises ArchiveError if the archive takes nothing.
    """
    since = time.time()
    programs.systemctl("enable", "--now", *TIMERS)
    if not programs.is_standby(told) and points.gap(programs.holdings(told))[1]:
        # Written while the archive was off, or took nothing.
        programs.systemctl("start", "--no-block", COPIES[1])
        return "Part of the log is missing in the archive. A new copy is being made."
    try:
        programs.systemctl("restart", CHECK)
    except ArchiveError as error:
        raise ArchiveError(programs.journal(CHECK, since) or str(error)) from error
    if programs.is_standby(told) or programs.holdings(told).copies:
        return "The archive is ready."
    programs.systemctl("start", "--no-block", COPIES[0])
    return "The archive is ready, and the first copy is being made."
