"""The program, and a host for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import load

from .world import PROGRAM, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A host with three releases, none of them live."""
    module = load(PROGRAM)
    host = World(module, tmp_path)
    for name, folder in (
        ("ETC", "etc"),
        ("RUN", "run"),
        ("SETTINGS", "var/lib/gunicorn-handover"),
        ("TREES", "var/lib/config-tree"),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(module, name, tmp_path / folder)
    monkeypatch.setattr(module, "UNITS", tmp_path / "etc/systemd/system")
    monkeypatch.setattr(module, "ask", host.ask)

    class Time:
        """The clock that only moves when somebody sleeps."""

        strftime = staticmethod(module.time.strftime)
        gmtime = staticmethod(module.time.gmtime)

        @staticmethod
        def monotonic() -> float:
            return host.clock

        @staticmethod
        def sleep(seconds: float) -> None:
            host.clock += seconds

    monkeypatch.setattr(module, "time", Time)
    write_bytes, remove = module.write_bytes, module.remove

    def counted_write(path: Path, *arguments: object) -> None:
        host.step(f"write {path.name}")
        write_bytes(path, *arguments)

    def counted_remove(path: Path) -> None:
        host.step(f"remove {path.name}")
        remove(path)

    monkeypatch.setattr(module, "write_bytes", counted_write)
    monkeypatch.setattr(module, "remove", counted_remove)
    monkeypatch.setattr(module.os, "fsync", lambda _descriptor: None)
    host.set_up(["old", "new", "third"])
    return host
