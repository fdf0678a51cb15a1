"""A host for the handover."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from apphost import files
from apphost.handover import command, judge, service, switch, unit, waiting, workers

from .world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A host with three releases, none of them live."""
    host = World(tmp_path)
    (tmp_path / "var/lib/config-tree").mkdir(parents=True)
    monkeypatch.setattr(judge, "ask", host.ask)

    class Time:
        """The clock that only moves when somebody sleeps."""

        strftime = staticmethod(time.strftime)
        gmtime = staticmethod(time.gmtime)

        @staticmethod
        def monotonic() -> float:
            return host.clock

        @staticmethod
        def sleep(seconds: float) -> None:
            host.clock += seconds

    for module in (command, files, judge, service, switch, unit, waiting, workers):
        monkeypatch.setattr(module, "time", Time)
    write_bytes, remove, point = files.write_bytes, files.remove, files.point

    def counted_write(path: Path, *arguments: object) -> None:
        host.step(f"write {path.name}")
        write_bytes(path, *arguments)  # type: ignore[arg-type]

    def counted_remove(path: Path) -> None:
        host.step(f"remove {path.name}")
        remove(path)

    def counted_point(link: Path, target: Path) -> None:
        host.step(f"point {link.name}")
        point(link, target)

    monkeypatch.setattr(files, "write_bytes", counted_write)
    monkeypatch.setattr(files, "remove", counted_remove)
    monkeypatch.setattr(files, "point", counted_point)
    monkeypatch.setattr(files.os, "fsync", lambda _descriptor: None)
    host.set_up(["old", "new", "third"])
    return host


@pytest.fixture
def live(world: World) -> World:
    """The host with release `old` live and healthy."""
    assert world.run("old").code == 0
    world.served.clear()
    world.steps.clear()
    world.stalls = 0
    world.clock += 1000
    return world
