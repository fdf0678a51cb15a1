"""What the host knows of <name>, in the format of Prometheus, for node_exporter.

Releases and verdicts come from the records below /opt/<name>; workers, memory and processor time
from the control group of the service or from its processes. When it fails, FILE stays as it was.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import files, jobs, maintenance, prometheus, records, systemd, times
from .answer import Answer
from .application import Application
from .errors import HostError
from .handover.config import Config
from .prometheus import Metric

PROPERTIES = ("MainPID", "MemoryCurrent", "CPUUsageNSec")
PROCESSES = Path("/proc")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Words of the command line."""
    parser.add_argument("file", type=Path, metavar="FILE", help="is written, as a whole")


def run(application: Application, options: argparse.Namespace) -> Answer:
    """Write the file."""
    shown = systemd.properties(application.unit, *PROPERTIES)
    if not shown["MainPID"]:
        raise HostError(f"systemd does not answer about {application.unit}: {options.file} stays")
    # Under a name of its own at first, so that no link that waits there is followed.
    files.write(options.file, prometheus.text(application.name, metrics(application, shown)))
    return Answer(f"Wrote {options.file}", changed=True)


def metrics(application: Application, shown: Mapping[str, str]) -> list[Metric]:
    """What is known.

    Args:
        shown: what systemd knows of the service, see PROPERTIES.
    """
    return [
        *of_releases(application),
        *of_the_service(shown),
        *of_the_site(application),
        *of_the_host(application),
        *of_jobs(application),
    ]


def of_releases(application: Application) -> Iterator[Metric]:
    """About the live release and the last handover."""
    live = application.live()
    if live is not None:
        record = records.read(application.state, live)
        python = application.releases / live / "bin/python"
        yield Metric(
            "app_release_info",
            "gauge",
            "The release that current names.",
            1,
            {"release": live, "revision": record.get("revision") or ""},
        )
        yield Metric(
            "app_release_activated_timestamp_seconds",
            "gauge",
            "When that release was made live.",
            seconds(record.get("activated_at")),
            {"release": live},
        )
        yield Metric(
            "app_release_interpreter_missing",
            "gauge",
            "Whether the interpreter of that release is gone, so that it cannot start again.",
            float(not os.access(python, os.X_OK)),
            {"release": live},
        )
    last = records.last_verdict(application.state)
    yield Metric(
        "app_deploy_last_timestamp_seconds",
        "gauge",
        "When the last handover was judged.",
        seconds(last.get("time")),
    )
    yield Metric(
        "app_deploy_last_failed",
        "gauge",
        "Whether the last handover was judged bad and rolled back.",
        float(last["verdict"] != records.HEALTHY) if last else None,
    )


def of_the_service(shown: Mapping[str, str]) -> Iterator[Metric]:
    """About the processes."""
    used = Processes(number(shown.get("MainPID")) or -1)
    nanoseconds = number(shown.get("CPUUsageNSec"))
    memory = number(shown.get("MemoryCurrent"))
    yield Metric("app_workers", "gauge", "Worker processes of gunicorn.", used.workers)
    yield Metric(
        "app_memory_bytes",
        "gauge",
        "Memory of the service: of its control group, or else of its processes.",
        (used.memory or None) if memory is None else memory,
    )
    yield Metric(
        "app_cpu_seconds_total",
        "counter",
        "Processor time of the service: of its control group, or else of its processes.",
        (used.seconds or None) if nanoseconds is None else nanoseconds / 1e9,
    )


def of_the_site(application: Application) -> Iterator[Metric]:
    """About what its clients get."""
    try:
        found = maintenance.look(application)
    except HostError:
        return
    yield Metric(
        "app_in_maintenance",
        "gauge",
        "Whether clients get a page of nginx in place of the application.",
        int(found is not None),
    )


def of_the_host(application: Application) -> Iterator[Metric]:
    """About what its balancers are told."""
    yield Metric(
        "app_host_drained_timestamp_seconds",
        "gauge",
        "Since when balancers are told to send nobody to the host; missing if they are not.",
        maintenance.drained_at(application),
    )


def of_jobs(application: Application) -> Iterator[Metric]:
    """About background workers and timers."""
    try:
        config = Config.read(application)
    except HostError:
        # What is not known raises no alarm here; the handover says what is wrong.
        return
    found = jobs.workers(config)
    for kind, count in jobs.expected(config).items():
        yield Metric(
            "app_worker_processes",
            "gauge",
            "Processes of a background worker that run.",
            jobs.running(found, kind),
            {"worker": kind},
        )
        yield Metric(
            "app_worker_processes_expected",
            "gauge",
            "Processes that a background worker is to have.",
            count,
            {"worker": kind},
        )
    for timer in config.timers:
        known = jobs.read(config, timer)
        last = known.get("last")
        yield Metric(
            "app_timer_last_success_timestamp_seconds",
            "gauge",
            "When a timer has last succeeded, or was first known if it never has.",
            jobs.success_seconds(known),
            {"timer": timer},
        )
        yield Metric(
            "app_timer_last_run_failed",
            "gauge",
            "Whether the last run of a timer has failed.",
            float(last["result"] != jobs.SUCCESS) if last else None,
            {"timer": timer},
        )
        hours = config.alert_after_hours.get(timer)
        yield Metric(
            "app_timer_alert_after_seconds",
            "gauge",
            "Without a success of a timer for so long there is an alert.",
            hours * jobs.HOUR_SECONDS if hours else None,
            {"timer": timer},
        )


class Processes:
    """What a process and those that it has started use.

    Attributes:
        workers: how many it has started that run.
        memory: bytes that are resident; what they share counts for each.
        seconds: processor time.
    """

    def __init__(self, pid: int) -> None:
        self.workers = 0
        self.memory = 0
        self.seconds = 0.0
        page = os.sysconf("SC_PAGE_SIZE")
        tick = os.sysconf("SC_CLK_TCK")
        for process, fields in statistics():
            own = process == str(pid)
            # State, parent, user's and system's time, pages: 3, 4, 14, 15, 24 of proc_pid_stat(5).
            if (own or fields[1] == str(pid)) and fields[0] not in "ZX":
                self.workers += not own
                self.memory += int(fields[21]) * page
                self.seconds += (int(fields[11]) + int(fields[12])) / tick


def statistics() -> Iterator[tuple[str, list[str]]]:
    """The id of each process, and its fields from the third on."""
    for name in os.listdir(PROCESSES):
        if not name.isdecimal():
            continue
        try:
            content = (PROCESSES / name / "stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        yield name, content.rpartition(")")[2].split()


def number(text: str | None) -> int | None:
    """A count of systemd's; None where it does not know one."""
    return int(text) if text and text.isdecimal() and int(text) < 1 << 60 else None


def seconds(time: object) -> int | None:
    """A time of the records in seconds since 1970."""
    try:
        return int(times.parse(str(time)).timestamp())
    except ValueError:
        return None
