"""What the proof does on a host, tried here: a killer that misses would prove nothing."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import onhost
import pytest


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a handover writes down its stage."""
    monkeypatch.setattr(onhost, "STATE", str(tmp_path))
    return tmp_path / "handover.json"


@pytest.fixture
def victim(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a child, in place of a unit's."""
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo; wait"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        monkeypatch.setattr(onhost, "main_pid", lambda unit: process.pid)
        children = onhost.children(process.pid)
        yield process
        for pid in [*children, process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def test_it_kills_at_the_stage_and_not_before(state, victim):
    state.write_text(json.dumps({"stage": "standby", "id": "2"}))
    found: dict[str, object] = {}
    thread = threading.Thread(
        target=lambda: found.update(onhost.strike("open", "master", unlike="1"))
    )
    thread.start()
    time.sleep(0.1)
    assert victim.poll() is None
    state.write_text(json.dumps({"stage": "open", "id": "2"}))
    thread.join(30)
    assert victim.wait(30) == -signal.SIGKILL
    assert found == {"reached": True, "killed": [victim.pid], "stages": ["standby", "open"]}


def test_the_last_handover_is_not_taken_for_the_next(state, victim):
    """Its stage may still stand in the file when the next one is waited for."""
    state.write_text(json.dumps({"stage": "open", "id": "1"}))
    found = onhost.strike("open", "master", seconds=0.1, unlike="1")
    assert found == {"reached": False, "killed": [], "stages": []}
    assert victim.poll() is None


def test_a_worker_is_a_child_of_the_main_process(state, victim):
    [child] = onhost.children(victim.pid)
    state.write_text(json.dumps({"stage": "open", "id": "2"}))
    assert onhost.strike("open", "worker")["killed"] == [child]
    # The shell sees its child gone and ends by itself.
    assert victim.wait(30) != -signal.SIGKILL


def test_half_a_file_is_no_stage(state):
    state.write_text('{"stage": "op')
    assert onhost.strike("open", seconds=0.05)["reached"] is False


def test_nobody_to_kill_is_said(state, monkeypatch):
    monkeypatch.setattr(onhost, "main_pid", lambda unit: 0)
    state.write_text(json.dumps({"stage": "open", "id": "2"}))
    found = onhost.strike("open", "master", seconds=0.2)
    assert found["reached"] is True
    assert found["killed"] == []


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    path = tmp_path / "toll.db"
    monkeypatch.setattr(onhost, "DATABASE", str(path))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE passage (id INTEGER PRIMARY KEY, plate TEXT)")
    connection.execute("CREATE TABLE plaza (id INTEGER PRIMARY KEY, code TEXT)")
    yield connection
    connection.close()


def test_plates_of_a_run_are_counted(database):
    """Also those that are in the write-ahead log only."""
    with database:
        database.executemany(
            "INSERT INTO passage (plate) VALUES (?)",
            [("AB10000",), ("AB10000",), ("AB20000",), ("XY10000",)],
        )
    assert onhost.stored("AB") == {"plates": {"AB10000": 2, "AB20000": 1}, "sound": "ok"}


def test_a_database_without_passages_is_an_error(database):
    with database:
        database.execute("DROP TABLE passage")
    with pytest.raises(SystemExit, match="table of passages"):
        onhost.stored("AB")


def test_no_database_is_an_error(tmp_path, monkeypatch):
    """An empty one must not be made, and nothing be found missing in it."""
    monkeypatch.setattr(onhost, "DATABASE", str(tmp_path / "toll.db"))
    with pytest.raises(sqlite3.OperationalError):
        onhost.stored("AB")
    assert list(tmp_path.iterdir()) == []


def test_no_answer_is_status_0(tmp_path, monkeypatch):
    monkeypatch.setattr(onhost, "SOCKET", str(tmp_path / "nobody.sock"))
    assert onhost.ask()["status"] == 0


def test_what_fills_a_disk_waits_for_its_moment(tmp_path):
    assert onhost.fill(str(tmp_path), ".new-*", seconds=0.05) == {"bytes": 0}
    assert list(tmp_path.iterdir()) == []
