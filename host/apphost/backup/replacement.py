"""What a restore puts in place of what is there, and the way back from that."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import database
from ..application import Application
from . import commands, engine
from .copies import Record
from .parts import Parts, parts_of
from .verify import Whole, targets

# What a file takes besides its content.
FILE_BYTES = 4096


def moment() -> str:
    """The time as a part of a name."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


@dataclass(frozen=True)
class Replacement:
    """A copy on its way into its place.

    Files of SQLite and directories are renamed by the engine (`items`); a database that only its
    own commands or PostgreSQL can replace is loaded.

    Attributes:
        whole: the copy.
        files: of SQLite as they are called now, each with its name in the copy.
        directories: with files.
        loads: whether the database is loaded.
        sizes: bytes that each item takes.
    """

    application: Application
    parts: Parts
    whole: Whole
    files: dict[str, str]
    directories: list[str]
    loads: bool
    sizes: dict[str, int]
    moment: str = field(default_factory=moment)

    @property
    def items(self) -> list[str]:
        """What is renamed."""
        return [*self.files, *self.directories]

    def load(self, whole: Whole, keep: bool) -> None:
        """Have a copy's database be the database.

        Raises HostError, and RefusedError if the database is as it was.

        Args:
            keep: whether the application's command puts aside what is there.
        """
        (path, _), *_ = whole.databases.values()
        if self.parts.own:
            commands.load(self.application, path, keep)
        else:
            engine.load(self.application, path)

    def _call(self, what: str, verb: str, **told: Any) -> None:
        if self.items:
            told = {"items": self.items, "moment": self.moment, **told}
            engine.call(self.application, what, verb, **told)

    def check(self) -> None:
        """Refuse what cannot be replaced. Raises HostError."""
        self._call("Looking at what is to be replaced", "check", items=self.sizes)

    def stage(self) -> None:
        """Write everything beside what is there, while the service runs. Raises HostError."""
        self._call("Tidying up after an earlier restore", "recover")
        files = {now: self.whole.databases[name] for now, name in self.files.items()}
        archive = self.whole.path if self.directories else None
        digest = self.whole.archive.digest(self.directories) if self.whole.archive else ""
        engine.stage(self.application, files, archive, self.directories, digest)

    def swap(self) -> None:
        """Rename everything into its place. Raises HostError, and then everything is as before."""
        with same_seeds(self.application):
            self._call("Replacing the data", "swap")

    def undo(self) -> None:
        """Rename what was there back into its place, if `swap` has begun. Raises HostError."""
        with same_seeds(self.application):
            self._call("Undoing the restore", "undo")

    def finish(self, keep: bool) -> None:
        """Remove what was replaced. Raises HostError.

        Args:
            keep: whether it stays, as NAME.replaced-TIME.
        """
        self._call("Tidying up after the restore", "finish", keep=keep)


def plan(application: Application, record: Record, whole: Whole) -> Replacement:
    """What a restore of a copy does."""
    parts = parts_of(application)
    renamed = targets(parts, record) if parts.files else {}
    files = {now: name for name, now in renamed.items() if name in whole.databases}
    found = whole.archive.directories if whole.archive else {}
    sizes = {now: Path(whole.databases[name][0]).stat().st_size for now, name in files.items()}
    for name, each in found.items():
        sizes[name] = each.bytes + each.files * FILE_BYTES
    loads = bool(whole.databases) and not files
    return Replacement(application, parts, whole, files, list(found), loads, sizes)


@contextlib.contextmanager
def same_seeds(application: Application) -> Iterator[None]:
    """Have the seeds count as done to a file that comes into the place of another."""
    seeds = database.seeded(application)
    known = database.read_stamp(application).get("database") is not None
    yield
    if known:
        database.write_stamp(application, seeds)
