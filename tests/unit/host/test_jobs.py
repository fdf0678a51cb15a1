"""`shop jobs`: workers and timers as people, programs and Prometheus see them."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from apphost import environment, jobs, metrics, prometheus, releases, status
from apphost.handover.config import Config
from apphost.handover.settings import Healthy

from .conftest import Host, Programs

# Shows the file that a unit has beside it; lists those that are there.
SYSTEMCTL = """#!/bin/sh
cd "$0.units"
verb=$1
shift
case "$verb" in
    list-units) for last; do :; done; ls $last 2>/dev/null | sed 's/$/ loaded active/' ;;
    show) for unit; do
              case "$unit" in --*) continue ;; esac
              echo "Id=$unit"
              cat "$unit" 2>/dev/null || echo ActiveState=inactive
              echo
          done ;;
esac
"""
SETTINGS: dict[str, Any] = {
    "check": {},
    "settings": [],
    "workers": [{"name": "mail", "count": 2}],
    "timers": ["nightly"],
    "alert_after_hours": {"nightly": 26},
}


class Jobs:
    """A host with workers and timers."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self.folder = host, folder
        self.application = host.application
        settings = {**SETTINGS, "release_root": str(self.application.root)}
        (self.application.etc / "handover.json").write_text(json.dumps(settings))

    @property
    def config(self) -> Config:
        return Config.read(self.application)

    def put(self, unit: str, *lines: str) -> None:
        (self.folder / unit).write_text("".join(f"{line}\n" for line in lines))

    def worker(self, instance: str, release: str, *, live: bool = True, state: str = "") -> None:
        unit = f"shop-worker-mail@{instance}.service"
        links = self.application.host / "etc/systemd/system/multi-user.target.wants"
        links.mkdir(parents=True, exist_ok=True)
        if live:
            (links / unit).symlink_to("../shop-worker-mail@.service")
        slots = self.application.state / "workers"
        slots.mkdir(exist_ok=True)
        (slots / instance).symlink_to(self.application.releases / release)
        self.put(unit, *(state or "ActiveState=active SubState=running NRestarts=0").split())

    def record(self, result: str, status: str = "0") -> dict[str, Any]:
        jobs.record(self.config, "nightly", {"SERVICE_RESULT": result, "EXIT_STATUS": status})
        return jobs.read(self.config, "nightly")

    def metrics(self) -> list[str]:
        text = prometheus.text("shop", metrics.of_jobs(self.application))
        return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.fixture
def world(host: Host, programs: Programs) -> Jobs:
    """Two workers of release d, one of c that finishes, and a timer that waits."""
    programs.put("systemctl", SYSTEMCTL)
    folder = programs.folder / "systemctl.units"
    folder.mkdir()
    made = Jobs(host, folder)
    made.worker("gen1-1", "d")
    made.worker("gen1-2", "d")
    made.worker("gen0-1", "c", live=False, state="ActiveState=deactivating SubState=stop-sigterm")
    # Of one that has ended, systemd may know for a while.
    made.worker("gen0-2", "c", live=False, state="ActiveState=inactive SubState=dead")
    made.put(
        "shop-timer-nightly.timer",
        "ActiveState=active",
        "TimersCalendar={ OnCalendar=*-*-* 03:00:00 UTC ; next_elapse=(null) }",
        "NextElapseUSecRealtime=Sun 2026-11-29 03:00:00 UTC",
    )
    return made


def test_both_are_shown_in_a_table(world: Jobs, capsys: Any) -> None:
    assert world.host.call("jobs") == 0
    shown = capsys.readouterr().out
    [live, _, old] = [line.split() for line in shown.splitlines() if line.startswith("mail")]
    assert live[:4] == ["mail", "gen1-1", "d", "active"]
    assert old[:4] == ["mail", "gen0-1", "c", "deactivating,"]
    assert "nightly  *-*-* 03:00:00 UTC  waits" in shown
    assert "Sun 2026-11-29 03:00:00 UTC" in shown


def test_programs_get_the_same(world: Jobs, capsys: Any) -> None:
    code, answer = world.host.run(capsys, "jobs")
    assert code == 0
    assert [each["live"] for each in answer["workers"]] == [True, True, False]
    assert answer["timers"][0]["running"] is False
    assert answer["msg"] == "2 of 2 worker processes run, 1 of an earlier release finish, 1 timer."


def test_those_that_a_handover_starts_are_of_the_next_release(world: Jobs, capsys: Any) -> None:
    """They were said to be of an earlier one."""
    Healthy("e", "", {}, "", "gen2").write(world.config.candidate)
    world.worker("gen2-1", "e", live=False)
    _, answer = world.host.run(capsys, "jobs")
    assert answer["msg"].startswith(
        "2 of 2 worker processes run, 1 of the next release start, 1 of"
    )
    world.host.call("jobs")
    assert "active, next release" in capsys.readouterr().out


def test_an_application_without_any_says_so(host: Host, capsys: Any, programs: Programs) -> None:
    settings = {"check": {}, "settings": [], "release_root": str(host.application.root)}
    (host.application.etc / "handover.json").write_text(json.dumps(settings))
    assert host.call("jobs") == 0
    assert "no workers and no timers" in capsys.readouterr().out
    assert status.look_at_jobs(host.application) is None


def test_a_run_is_written_down_with_its_result(world: Jobs) -> None:
    """The unit calls `jobs --record` when a run has ended."""
    began = time.monotonic() - 90
    world.put(
        "shop-timer-nightly.service",
        "ActiveState=deactivating",
        f"ExecMainStartTimestampMonotonic={began * 1e6:.0f}",
    )
    first = world.record("success")
    assert first["last"]["seconds"] == pytest.approx(90, abs=5)
    assert first["last_success_at"]
    second = world.record("exit-code", "3")
    assert second["last"]["result"] == "exit-code"
    assert second["last_success_at"] == first["last_success_at"]
    assert second["known_since"] == first["known_since"]
    assert jobs.outcome(second["last"]) == "exit-code 3"


def test_the_result_comes_from_what_systemd_hands_over(
    world: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "INHERITED", {})
    monkeypatch.setattr(jobs, "INHERITED", {"SERVICE_RESULT": "timeout", "EXIT_STATUS": "TERM"})
    assert world.host.call("jobs", "--record", "nightly") == 0
    assert jobs.read(world.config, "nightly")["last"]["result"] == "timeout"


def test_a_timer_that_is_gone_is_not_written_down(world: Jobs) -> None:
    """And its last run, which ends after it, does not fail for that."""
    assert world.host.call("jobs", "--record", "other") == 0
    assert not (world.application.state / "jobs/other.json").exists()


def test_what_does_not_run_is_drift(world: Jobs) -> None:
    assert jobs.faults("shop", jobs.look(world.config)) == []
    world.put("shop-worker-mail@gen1-2.service", "ActiveState=activating", "SubState=auto-restart")
    world.put("shop-timer-nightly.timer", "ActiveState=inactive")
    world.record("timeout", "TERM")
    [worker, stopped, failed] = jobs.faults("shop", jobs.look(world.config))
    assert worker.startswith("worker shop-worker-mail@gen1-2.service is auto-restart.")
    assert stopped.startswith("timer nightly is stopped")
    assert "timer nightly has failed at " in failed
    assert "(timeout)" in failed


def test_a_timer_that_never_succeeds_is_overdue(world: Jobs) -> None:
    path = world.application.state / "jobs/nightly.json"
    path.parent.mkdir()
    path.write_text('{"known_since": "2026-01-01T00:00:00Z"}')
    [overdue] = jobs.faults("shop", jobs.look(world.config))
    assert overdue == "timer nightly has not succeeded for 26 h"


def test_status_has_a_line_for_them(world: Jobs, capsys: Any) -> None:
    _, answer = world.host.run(capsys, "status")
    assert len(answer["jobs"]["workers"]) == 3
    world.host.call("status")
    assert re.search(r"^jobs +2 of 2 worker processes run", capsys.readouterr().out, re.MULTILINE)


def test_prometheus_learns_what_runs_and_what_is_late(world: Jobs) -> None:
    """One that never ran counts from when it was first known."""
    path = world.application.state / "jobs/nightly.json"
    path.parent.mkdir()
    path.write_text('{"known_since": "2026-01-01T00:00:00Z"}')
    world.put("shop-worker-mail@gen1-2.service", "ActiveState=failed")
    of_mail, of_nightly = 'application="shop",worker="mail"', 'application="shop",timer="nightly"'
    assert world.metrics() == [
        f"app_worker_processes{{{of_mail}}} 1",
        f"app_worker_processes_expected{{{of_mail}}} 2",
        f"app_timer_last_success_timestamp_seconds{{{of_nightly}}} 1767225600.0",
        f"app_timer_alert_after_seconds{{{of_nightly}}} {26 * 3600}",
    ]
    world.record("exit-code", "1")
    assert f"app_timer_last_run_failed{{{of_nightly}}} 1.0" in world.metrics()
    world.record("success")
    assert f"app_timer_last_run_failed{{{of_nightly}}} 0.0" in world.metrics()


@pytest.mark.parametrize("stays", [True, False])
def test_no_release_of_a_job_is_pruned(
    world: Jobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stays: bool
) -> None:
    """A worker that still finishes something imports from it, and so does a timer's run.

    Args:
        stays: whether the run still works in its release, or has gone elsewhere.
    """
    processes = world.application.host / "proc/42"
    processes.mkdir(parents=True)
    release = world.application.releases.resolve() / "b"
    (processes / "cwd").symlink_to(release / "app" if stays else tmp_path)
    program = "/usr/bin/sleep" if stays else f"{release}/bin/report"
    (processes / "cmdline").write_text(f"/usr/bin/python3\0{program}\0--all\0")
    world.put("shop-timer-nightly.service", "ActiveState=activating", "MainPID=42")
    assert jobs.releases_in_use(world.application) == {"b", "c", "d"}
    known = releases.all_of(world.application)
    assert releases.to_prune(world.application, known, 0) == ["a", "e"]
