"""The hidden verb `stop`: everything that writes ends, in an order in which nothing comes back."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from apphost import files, stop
from apphost.errors import RefusedError

from .conftest import Host, Programs

# A host whose units are files, named like them, in a folder beside it; a timer that is stopped late
# would have started its service.
SYSTEMCTL = """#!/bin/sh
printf '%s\\n' "$*" >> "$0.calls"
cd "$0.units"
verb=$1
shift
case "$verb" in
    list-units) for last; do :; done; ls $last 2>/dev/null | sed 's/$/ loaded active/' ;;
    stop) for unit; do
              case "$unit" in *.timer) touch "${unit%timer}service" ;; esac
              rm -f "$unit"
          done ;;
    show) for last; do :; done; test -e "$last" && echo ActiveState=active || true ;;
esac
"""
UNITS = (
    *("shop.socket", "shop-check.socket", "shop.service", "shop-timer-nightly.timer"),
    *("shop-worker-mail@gen1-1.service", "shop-worker-mail@gen0-1.service"),
)
OTHERS = ("shop-health.timer", "shop-backup.timer", "other.service", "shop-handover-boot.service")


@pytest.fixture
def units(host: Host, programs: Programs) -> Any:
    """The units that run."""
    programs.put("systemctl", SYSTEMCTL)
    folder = programs.folder / "systemctl.units"
    folder.mkdir()
    for name in (*UNITS, *OTHERS):
        (folder / name).touch()
    return folder


def test_everything_that_writes_stops_and_nothing_else(
    host: Host, units: Any, capsys: Any, programs: Programs
) -> None:
    code, answer = host.run(capsys, "stop")
    assert (code, answer["changed"]) == (0, True)
    assert {path.name for path in units.iterdir()} == set(OTHERS)
    assert set(answer["stopped"]) == set(UNITS)
    [first, second] = [call for call in programs.calls("systemctl") if call.startswith("stop")]
    assert first == "stop shop-timer-nightly.timer"
    # The run that it had begun at the last moment, too.
    assert "shop-timer-nightly.service" in second.split()


def test_what_is_stopped_already_is_no_change(host: Host, units: Any, capsys: Any) -> None:
    host.run(capsys, "stop")
    code, answer = host.run(capsys, "stop")
    assert (code, answer["changed"]) == (0, False)


def test_a_preview_stops_nothing(host: Host, units: Any, capsys: Any) -> None:
    code, answer = host.run(capsys, "stop", "--check")
    assert (code, answer["changed"]) == (0, True)
    assert {path.name for path in units.iterdir()} == {*UNITS, *OTHERS}


def test_a_handover_that_is_under_way_is_waited_for(
    host: Host, units: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would start again what was stopped."""
    lock = files.held(host.application.handover_lock, 0, RefusedError(""))
    lock.__enter__()
    monkeypatch.setattr(stop, "HANDOVER_SECONDS", 0)
    assert host.run(capsys, "stop")[0] == 2
    assert {path.name for path in units.iterdir()} == {*UNITS, *OTHERS}
    monkeypatch.setattr(stop, "HANDOVER_SECONDS", 20)

    def end() -> None:
        time.sleep(0.3)
        lock.__exit__(None, None, None)

    thread = threading.Thread(target=end)
    thread.start()
    assert host.run(capsys, "stop")[0] == 0
    thread.join()


def test_only_root_stops(host: Host, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(stop.os, "geteuid", lambda: 1000)
    assert host.run(capsys, "stop")[0] == 2
