"""The background workers and the timers of <name>: what runs, what ran, and what runs next.

sudo <name> jobs                        a table of both
sudo <name> logs -f                     what they write, beside all else
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from . import files, times
from .answer import Answer, short_time, table
from .application import Application
from .environment import INHERITED
from .handover.config import Config
from .handover.settings import Healthy
from .systemd import Systemd, all_properties, properties, wall_clock

HOUR_SECONDS = 3600
SUCCESS = "success"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    # For the units of timers, when a run has ended.
    parser.add_argument("--record", metavar="TIMER", help=argparse.SUPPRESS)


def run(application: Application, options: argparse.Namespace) -> Answer:
    """Show them, or note how a run of a timer has ended."""
    config = Config.read(application)
    if options.record is not None:
        record(config, options.record, INHERITED)
        return Answer("")
    facts = look(config)
    return Answer(summary(facts), facts=facts, text=text(facts))


# What became of runs


def record(config: Config, timer: str, ended: Mapping[str, str]) -> None:
    """Write down how a run has ended.

    Args:
        ended: what systemd says to a command that it runs after a service, see systemd.exec(5).
    """
    if timer not in config.timers:
        # Of a timer that the description has no more. A failure here would be the run's.
        return
    unit = config.application.timer_unit(timer, "service")
    started = wall_clock(
        properties(unit, "ExecMainStartTimestampMonotonic")["ExecMainStartTimestampMonotonic"]
    )
    now = time.time()
    result = ended.get("SERVICE_RESULT", "")
    last = {
        "started_at": _written(started or now),
        "seconds": round(now - (started or now), 1),
        "result": result,
        # A number, or the name of a signal.
        "status": ended.get("EXIT_STATUS", ""),
    }
    known = read(config, timer)
    known.setdefault("known_since", times.stamp())
    known["last"] = last
    if result == SUCCESS:
        known["last_success_at"] = _written(now)
    files.write_json(config.jobs / f"{timer}.json", known)


def read(config: Config, timer: str) -> dict[str, Any]:
    """What is written down about a timer: `known_since`, `last`, `last_success_at`."""
    return files.read_json_if_possible(config.jobs / f"{timer}.json")


def success_seconds(known: Mapping[str, Any]) -> float | None:
    """When it has succeeded last, in seconds since 1970; else when it was first known."""
    with contextlib.suppress(ValueError):
        at = known.get("last_success_at") or known.get("known_since")
        return times.parse(str(at)).timestamp()
    return None


def _written(seconds: float) -> str:
    return times.written(datetime.fromtimestamp(int(seconds), times.UTC))


# What runs


def look(config: Config) -> dict[str, Any]:
    """The facts: `workers` and `timers`, each a list with an entry for each."""
    return {"workers": workers(config), "timers": timers(config)}


def workers(config: Config) -> list[dict[str, Any]]:
    """Each process of a worker that should run, and each that still finishes something."""
    application, systemd = config.application, Systemd(config.application.host)
    pattern = application.worker_unit("*", "*")
    # What starts at boot is the generation that is live.
    live = systemd.linked(pattern)
    candidate = Healthy.read(config.candidate)
    judged = candidate.generation if candidate else ""
    units = sorted({*live, *systemd.loaded(pattern)}) if config.workers or live else []
    shown = all_properties(
        units, "ActiveState", "SubState", "NRestarts", "ActiveEnterTimestampMonotonic"
    )
    found = []
    for unit in units:
        kind, instance = _parts(config, unit)
        facts = shown[unit]
        if unit not in live and facts["ActiveState"] in ("inactive", "failed"):
            # systemd remembers it for a while.
            continue
        since = wall_clock(facts["ActiveEnterTimestampMonotonic"])
        state = facts["SubState"] if facts["SubState"] == "auto-restart" else facts["ActiveState"]
        found.append(
            {
                "worker": kind,
                "instance": instance,
                "unit": unit,
                "live": unit in live,
                "judged": bool(judged) and instance.startswith(f"{judged}-") and unit not in live,
                "release": _release(config, instance),
                "state": state or "unknown",
                "since": _written(since) if since else None,
                "restarts": int(facts["NRestarts"] or 0),
            }
        )
    return sorted(found, key=lambda each: (not each["live"], each["worker"], each["instance"]))


def timers(config: Config) -> list[dict[str, Any]]:
    """Each timer."""
    application = config.application
    clocks = {timer: application.timer_unit(timer) for timer in config.timers}
    runs = {timer: application.timer_unit(timer, "service") for timer in config.timers}
    shown = all_properties(
        [*clocks.values(), *runs.values()],
        *("ActiveState", "TimersCalendar", "NextElapseUSecRealtime"),
    )
    found = []
    for timer in config.timers:
        clock = shown[clocks[timer]]
        known = read(config, timer)
        calendar = re.search(r"OnCalendar=(.*?) ;", clock["TimersCalendar"])
        success = success_seconds(known)
        hours = config.alert_after_hours.get(timer)
        late = bool(hours and success and time.time() - success > hours * HOUR_SECONDS)
        found.append(
            {
                "timer": timer,
                "calendar": calendar[1] if calendar else None,
                "waits": clock["ActiveState"] == "active",
                "running": shown[runs[timer]]["ActiveState"] in ("active", "activating"),
                "last": known.get("last"),
                "last_success_at": known.get("last_success_at"),
                "known_since": known.get("known_since"),
                "next": clock["NextElapseUSecRealtime"] or None,
                "alert_after_hours": hours,
                "overdue": late,
            }
        )
    return found


def expected(config: Config) -> dict[str, int]:
    """How many processes each worker is to have."""
    return {worker.name: worker.count for worker in config.workers}


def running(found: list[dict[str, Any]], kind: str) -> int:
    """How many processes of a worker run that are of the generation that is live."""
    return sum(
        each["worker"] == kind and each["live"] and each["state"] == "active" for each in found
    )


def releases_in_use(application: Application) -> set[str]:
    """Releases that a process of a worker may still need, or that a timer's run works in."""
    found = {os.path.basename(os.readlink(slot)) for slot in slots(application)}
    systemd = Systemd(application.host)
    known = Path(os.path.realpath(application.releases))
    for unit in systemd.loaded(application.timer_unit("*", "service")):
        pid = systemd.show(unit).pid
        # A run may go elsewhere. Its command was found in the release as well.
        places = [systemd.directory(pid), *map(Path, systemd.command(pid))]
        found |= {
            place.relative_to(known).parts[0]
            for place in places
            if place and known in place.parents
        }
    return found


def slots(application: Application) -> list[Path]:
    """The links that processes of workers run from."""
    return [path for path in (application.state / "workers").glob("*-*") if path.is_symlink()]


def _parts(config: Config, unit: str) -> tuple[str, str]:
    kind, _, instance = unit[len(f"{config.name}-worker-") : -len(".service")].partition("@")
    return kind, instance


def _release(config: Config, instance: str) -> str | None:
    with contextlib.suppress(OSError):
        return os.path.basename(os.readlink(config.slots / instance))
    return None


# For people


def faults(name: str, facts: Mapping[str, Any]) -> list[str]:
    """What is not as it should be, and what to do about it."""
    found = [
        f"worker {each['unit']} is {each['state']}. See `sudo {name} logs`; `sudo {name} handover` "
        f"starts what is stopped"
        for each in facts["workers"]
        if each["live"] and each["state"] != "active"
    ]
    for each in facts["timers"]:
        if not each["waits"]:
            found.append(
                f"timer {each['timer']} is stopped. `sudo {name} handover` starts it again"
            )
        if each["last"] and each["last"]["result"] != SUCCESS:
            found.append(
                f"timer {each['timer']} has failed at {short_time(each['last']['started_at'])} UTC "
                f"({outcome(each['last'])}). See `sudo {name} logs`"
            )
        elif each["overdue"]:
            found.append(
                f"timer {each['timer']} has not succeeded for {each['alert_after_hours']:g} h"
            )
    return found


def outcome(last: Mapping[str, Any]) -> str:
    """How a run has ended: `success`, `exit-code 1`, `timeout`."""
    result = str(last["result"] or "unknown")
    return f"{result} {last['status']}" if result in ("exit-code", "signal") else result


def summary(facts: Mapping[str, Any]) -> str:
    """Both in a line."""
    live = [each for each in facts["workers"] if each["live"]]
    up = sum(each["state"] == "active" for each in live)
    judged = sum(each["judged"] for each in facts["workers"])
    finishing = len(facts["workers"]) - len(live) - judged
    parts = [f"{up} of {len(live)} worker processes run"] if live else []
    parts += [f"{judged} of the next release start"] if judged else []
    parts += [f"{finishing} of an earlier release finish"] if finishing else []
    count = len(facts["timers"])
    parts += [f"{count} timer{'' if count == 1 else 's'}"] if count else []
    return f"{', '.join(parts)}." if parts else "There are no workers and no timers."


def text(facts: Mapping[str, Any]) -> str:
    """The tables."""
    blocks = []
    if facts["workers"]:
        rows = [["WORKER", "INSTANCE", "RELEASE", "STATE", "SINCE (UTC)", "RESTARTS"]]
        for each in facts["workers"]:
            role = "" if each["live"] else ", next release" if each["judged"] else ", finishes"
            state = f"{each['state']}{role}"
            since = short_time(each["since"])
            rows.append(
                [
                    *(each["worker"], each["instance"], each["release"] or "-", state, since),
                    str(each["restarts"]),
                ]
            )
        blocks.append(table(rows))
    if facts["timers"]:
        rows = [["TIMER", "WHEN", "STATE", "LAST RUN (UTC)", "RESULT", "LAST SUCCESS", "NEXT"]]
        for each in facts["timers"]:
            last = each["last"]
            state = "running" if each["running"] else "waits" if each["waits"] else "stopped"
            rows.append(
                [
                    *(each["timer"], each["calendar"] or "-", state),
                    short_time(last["started_at"]) if last else "-",
                    f"{outcome(last)}, {last['seconds']:g} s" if last else "-",
                    short_time(each["last_success_at"]),
                    each["next"] or "-",
                ]
            )
        blocks.append(table(rows))
    return "\n\n".join(blocks) or summary(facts)
