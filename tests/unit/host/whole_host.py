"""A host whose application has no commands for copies: two files of SQLite, and directories."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from apphost.application import Application
from apphost.backup import engine
from apphost.errors import HostError

from .backup_host import BackupHost

DESCRIPTION: dict[str, Any] = {
    "health": {"path": "/readyz", "status": 200, "release_member": "release"},
    "database": {"kind": "sqlite", "files": ["shop.db", "queue/jobs.db"]},
    "directories": ["uploads", "media/photos"],
    "commands": {},
}
# Names that people give to files.
ODD = (
    *("new\nline", "carriage\rreturn", "end\r", "back\\slash", "ä ö", "long" * 50),
    os.fsdecode(b"latin-\xe4"),
)


class WholeHost(BackupHost):
    """Three orders, two jobs, and uploads."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root, monkeypatch)
        self.description = DESCRIPTION
        self.data = self.application.data
        (self.shopctl.parent / "python").symlink_to(sys.executable)
        self.uploads = self.data / "uploads"
        self.upload("a.txt", "A")
        self.upload("b/c.txt", "C", 0o640)
        (self.uploads / "empty").mkdir(mode=0o750)
        (self.uploads / "link").symlink_to("a.txt")
        (self.data / "media/photos").mkdir(parents=True)
        (self.data / "queue").mkdir()
        with contextlib.closing(sqlite3.connect(self.data / "queue/jobs.db")) as base, base:
            base.execute("CREATE TABLE jobs (id INTEGER)")
            base.execute("INSERT INTO jobs VALUES (1), (2)")

    def run_in_release(
        self, application: Application, words: Sequence[str], **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        return self.run_as_text(application, words, **options)

    def run_as_text(
        self, application: Application, words: Sequence[str], **options: Any
    ) -> subprocess.CompletedProcess[Any]:
        """The same for a caller that names a release and a time limit."""
        for option in ("release", "time_limit_seconds"):
            options.pop(option, None)
        return super().run_in_release(application, words, **options)

    def upload(self, name: str, text: str, mode: int = 0o600) -> Path:
        path = self.uploads / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def change(self) -> None:
        """What happens after a copy: one more of each, one upload less, one other than before."""
        self.order("D")
        with contextlib.closing(sqlite3.connect(self.data / "queue/jobs.db")) as base, base:
            base.execute("INSERT INTO jobs VALUES (3)")
        self.upload("new.txt", "N")
        self.upload("a.txt", "other")
        (self.uploads / "b/c.txt").unlink()

    def state(self) -> dict[str, Any]:
        """All data, as people would compare them."""
        found: dict[str, Any] = {}
        for path in sorted(self.data.rglob("*")):
            name = str(path.relative_to(self.data))
            mode = oct(path.lstat().st_mode)
            if path.is_symlink():
                found[name] = mode, os.readlink(path)
            elif path.is_dir():
                found[name] = mode
            elif name.endswith(".db"):
                with contextlib.closing(sqlite3.connect(path)) as base:
                    found[name] = list(base.iterdump())
            else:
                found[name] = mode, path.read_bytes()
        return found

    def fail_in(self, verb: str, message: str = "no luck") -> None:
        """Have a verb fail that runs inside."""
        real = engine.call

        def call(
            application: Application, what: str, given: str, /, *rest: Any, **told: Any
        ) -> Any:
            if given == verb:
                raise HostError(f"{what} failed: {message}")
            return real(application, what, given, *rest, **told)

        self.monkeypatch.setattr(engine, "call", call)
