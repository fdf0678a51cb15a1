"""`shop metrics FILE`: what Prometheus learns of releases and processes."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apphost import cli, metrics, prometheus, systemd
from apphost.application import Application
from apphost.prometheus import Metric

UNKNOWN = {"MainPID": "0", "MemoryCurrent": "[not set]", "CPUUsageNSec": "[not set]"}


@pytest.fixture
def shop(application: Application) -> Application:
    """A host's records: one release that serves, after one that was rolled back."""
    application.current.symlink_to("releases/abc123")
    record = {"revision": "f00", "activated_at": "2026-01-02T03:04:05Z"}
    path = application.state / "releases/abc123.json"
    path.parent.mkdir()
    path.write_text(json.dumps(record))
    return application


def lines(application: Application, shown: dict[str, str]) -> list[str]:
    """What is written, without comments."""
    text = prometheus.text(application.name, metrics.metrics(application, shown))
    return [line for line in text.splitlines() if not line.startswith("#")]


def history(application: Application, *verdicts: str) -> None:
    entries = [
        json.dumps({"time": f"2026-01-02T03:04:0{place}Z", "verdict": verdict})
        for place, verdict in enumerate(verdicts)
    ]
    text = "\n".join([*entries, '{"time": "2026-01-02T03:04:09Z"}', "cut off {"])
    (application.state / "history.jsonl").write_text(text)


@pytest.mark.parametrize("missing", [False, True])
def test_a_release_that_lost_its_interpreter_is_counted(shop: Application, missing: bool) -> None:
    python = shop.releases / "abc123/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(shop.root / "gone" if missing else Path(sys.executable))
    line = 'app_release_interpreter_missing{application="shop",release="abc123"}'
    assert f"{line} {float(missing)}" in lines(shop, UNKNOWN)


@pytest.mark.parametrize(("verdicts", "failed"), [(["healthy", "bad"], 1), (["bad", "healthy"], 0)])
def test_the_last_handover_decides(shop: Application, verdicts: list[str], failed: int) -> None:
    history(shop, *verdicts)
    shown = {"MainPID": "0", "MemoryCurrent": "1048576", "CPUUsageNSec": "2500000000"}
    written = lines(shop, shown)
    own = 'application="shop"'
    assert f"app_deploy_last_failed{{{own}}} {float(failed)}" in written
    assert f"app_deploy_last_timestamp_seconds{{{own}}} 1767323041" in written
    assert f'app_release_info{{{own},release="abc123",revision="f00"}} 1' in written
    activated = f'app_release_activated_timestamp_seconds{{{own},release="abc123"}} 1767323045'
    assert activated in written
    assert f"app_memory_bytes{{{own}}} 1048576" in written
    assert f"app_cpu_seconds_total{{{own}}} 2.5" in written


def test_processes_stand_in_for_a_control_group_that_counts_nothing(shop: Application) -> None:
    """As in a container, or on a kernel that was started without the accounting of memory."""
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            written = lines(shop, {**UNKNOWN, "MainPID": str(os.getpid())})
        finally:
            child.kill()
    values = {line.split("{")[0]: float(line.split()[1]) for line in written}
    assert values["app_workers"] >= 1
    assert values["app_memory_bytes"] > 1e6
    assert values["app_cpu_seconds_total"] > 0


def test_what_is_not_known_is_left_out(application: Application) -> None:
    """A zero that stands for "unknown" would end an alert."""
    assert lines(application, UNKNOWN) == [
        'app_workers{application="shop"} 0',
        'app_in_maintenance{application="shop"} 0',
    ]


def test_labels_hold_any_text() -> None:
    """One line that Prometheus cannot read costs it the whole file."""
    metric = Metric("app_release_info", "gauge", "A release.", 1, {"revision": 'a"b\\c\nd'})
    assert prometheus.text("shop", [metric]) == (
        "# HELP app_release_info A release.\n"
        "# TYPE app_release_info gauge\n"
        'app_release_info{application="shop",revision="a\\"b\\\\c\\nd"} 1\n'
    )


def test_a_systemd_that_does_not_answer_leaves_the_file_as_it_was(
    shop: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker at all would be an alarm, and nobody knows whether there is one."""
    monkeypatch.setattr(systemd, "properties", lambda unit, *names: dict.fromkeys(names, ""))
    path = tmp_path / "shop.prom"
    path.write_text("as it was")
    assert cli.main("shop", ["metrics", str(path)], shop.host) == 1
    assert path.read_text() == "as it was"


# Where another user may have put something --------------------------------------------------------


def plant_fifo(place: Path, target: Path) -> None:
    """With somebody at its other end, or opening it would wait for one."""
    os.mkfifo(place)
    os.open(place, os.O_RDONLY | os.O_NONBLOCK)


def plant_socket(place: Path, target: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))


PLANTS: dict[str, Callable[[Path, Path], Any]] = {
    "link": lambda place, target: place.symlink_to(target),
    "hard link": lambda place, target: os.link(target, place),
    "FIFO": plant_fifo,
    "socket": plant_socket,
    "device": lambda place, target: os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 3)),
}


@pytest.mark.parametrize("name", ["shop.prom", "shop.prom.new"])
@pytest.mark.parametrize("kind", PLANTS)
def test_the_metrics_go_through_nothing_that_waits_there(
    kind: str, name: str, shop: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is there is replaced or left alone, never opened."""
    if kind == "device" and os.getuid() != 0:
        pytest.skip("only root can make a device")
    monkeypatch.setattr(systemd, "properties", lambda unit, *names: UNKNOWN)
    target = tmp_path / "passwd"
    target.write_text("root:x:0:0")
    target.chmod(0o600)
    folder = tmp_path / "metrics"
    folder.mkdir()
    # A socket's address takes 107 bytes.
    monkeypatch.chdir(folder)
    PLANTS[kind](Path(name), target)
    assert cli.main("shop", ["metrics", str(folder / "shop.prom")], shop.host) == 0
    assert target.read_text() == "root:x:0:0"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    written = folder / "shop.prom"
    assert stat.S_ISREG(written.lstat().st_mode)
    assert stat.S_IMODE(written.lstat().st_mode) == 0o644
    assert "app_workers" in written.read_text()
