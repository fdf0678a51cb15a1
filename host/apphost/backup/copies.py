"""The directory of an application's copies: what is there, in which order, under which names."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files, times
from ..application import Application
from ..errors import RefusedError
from .settings import Settings

# When it was made, and the schema of the data: the release, where the data say no schema.
NAME = re.compile(r"\d{8}T\d{6}Z-[0-9A-Za-z_]+(-before-restore)?\.(sqlite|dump|tar)(\.age)?")
SCHEDULED, BEFORE = "scheduled", "before-restore"
# Half done by a run that was killed: a copy, or one of the small files beside it.
PARTIAL = ".partial-"
LEFTOVER = re.compile(rf"{re.escape(PARTIAL)}.*|\.(state|{NAME.pattern})\.json\..*")
# How the last run went, and what one run holds.
STATE, LOCK = "state.json", ".lock"
# A clock that differs by less is not called wrong.
CLOCK_SECONDS = 300
LOCK_SECONDS = 600
MEMBERS = {"name": str, "made_at": str, "size": int, "sha256": str, "tables": dict}

# Of a copy; see `make`.
Record = dict[str, Any]


def is_own(name: str) -> bool:
    """Whether a file of that name is a copy, its record, or something that runs leave beside it."""
    copy = NAME.fullmatch(name) or NAME.fullmatch(name.removesuffix(".json"))
    return bool(copy or LEFTOVER.fullmatch(name) or name in (STATE, LOCK))


def is_ahead(record: Record, at: datetime.datetime) -> bool:
    """Whether a copy's time is still to come, so that the clock was wrong when it was made."""
    return times.parse(record["made_at"]) > at + datetime.timedelta(seconds=CLOCK_SECONDS)


def rows(record: Record) -> int:
    """How many rows all tables of a copy have."""
    return sum(record["tables"].values())


def uploads(record: Record) -> int:
    """How many files the directories of a copy have."""
    return sum(each["files"] for each in record.get("directories", {}).values())


def contents(record: Record) -> str:
    """What is in a copy, in numbers."""
    numbers = f"{rows(record)} rows"
    return f"{numbers} and {uploads(record)} files" if record.get("directories") else numbers


def read_record(path: Path) -> Record | None:
    """What is known of a copy; None if the file is not such a record."""
    record = files.read_json_if_possible(path)
    if any(not isinstance(record.get(key), kind) for key, kind in MEMBERS.items()):
        return None
    if not isinstance(record.get("sequence", 0), int):
        return None
    try:
        times.parse(record["made_at"])
    except ValueError:
        return None
    return record


@dataclass(frozen=True)
class Store:
    """The copies of an application on this host."""

    application: Application
    settings: Settings

    @property
    def directory(self) -> Path:
        """Where they are."""
        return self.settings.directory

    def path(self, record: Record) -> Path:
        """Where a copy is."""
        return self.directory / str(record["name"])

    def record_path(self, record: Record) -> Path:
        """Where its record is."""
        return self.directory / f"{record['name']}.json"

    def write_record(self, record: Record) -> None:
        """Keep what is known of a copy."""
        files.write_json(self.record_path(record), record, 0o600)

    def records(self) -> list[Record]:
        """The records of the copies that are there, the newest first.

        The order is that of their numbers. Only copies from before there were numbers go by their
        times, and those whose time is still to come count as the oldest.
        """
        records = []
        for entry in self.directory.glob("*.json"):
            if not NAME.fullmatch(entry.stem):
                continue
            record = read_record(entry)
            if record and record["name"] == entry.stem and self.path(record).is_file():
                records.append(record)
        now = times.now()

        def order(record: Record) -> tuple[int, bool, str, str]:
            number = record.get("sequence", 0)
            return (
                number,
                number > 0 or not is_ahead(record, now),
                record["made_at"],
                record["name"],
            )

        return sorted(records, key=order, reverse=True)

    def named(self, name: str) -> Record:
        """The record of a copy, or of the `latest`. Raises RefusedError that names those there."""
        records = self.records()
        if name == "latest":
            # Not what a restore has replaced, which is the opposite of what is wanted.
            usual = [record for record in records if record["kind"] != BEFORE]
            if usual:
                return usual[0]
            raise RefusedError(
                f"There is no copy in {self.directory}: make one with "
                f"`sudo {self.application.name} backup`"
            )
        for record in records:
            if record["name"] == name:
                return record
        there = ", ".join(record["name"] for record in records[:10]) or "none"
        if not NAME.fullmatch(name):
            raise RefusedError(
                f"{name!r} is not the name of a copy. {self.directory} holds: {there}"
            )
        if (self.directory / name).exists():
            raise RefusedError(
                f"{self.directory / name} has no record {name}.json that can be read, so nobody "
                f"can say whether it is whole: put the record that was written with it beside it"
            )
        raise RefusedError(f"There is no copy {name} in {self.directory}. It holds: {there}")

    def remove(self, record: Record) -> None:
        """Remove a copy, its record last: without its copy it counts for nothing."""
        files.remove(self.path(record))
        files.remove(self.record_path(record))

    # What is known even when the disk of the copies is away ------------------------------------

    @property
    def state_path(self) -> Path:
        """The file with the `directory` of copies, the last `sequence` and `last_success`."""
        return self.application.state / "copies.json"

    def state(self) -> dict[str, Any]:
        """What earlier runs left there."""
        return files.read_json_if_possible(self.state_path)

    def remember(self, **facts: Any) -> None:
        """Keep facts for later runs."""
        files.write_json(self.state_path, {**self.state(), **facts}, 0o644)

    def next_number(self) -> int:
        """One more than that of any copy so far."""
        numbers = [record.get("sequence", 0) for record in self.records()]
        return max([int(self.state().get("sequence", 0)), *numbers]) + 1

    # The directory -----------------------------------------------------------------------------

    def check_place(self) -> None:
        """Raise RefusedError unless the directory of copies is there, on its disk."""
        for mount in self.settings.mounts:
            if not os.path.ismount(mount):
                raise RefusedError(
                    f"{mount} is not mounted, and `mounts` in the description says that it has to "
                    f"be. Mount it, then run this again"
                )
        if not self.directory.is_dir():
            raise RefusedError(
                f"There is no directory {self.directory}. Mount its disk, or run the playbook "
                f"(site.yml), which makes the directory where there never was one"
            )

    def check_emptied(self) -> None:
        """Raise RefusedError where there were copies and are none: their disk may be away."""
        state = self.state()
        held_some = state.get("directory") == str(self.directory) and state.get("sequence", 0) > 0
        if held_some and not self.records():
            raise RefusedError(
                f"{self.directory} held copies and holds none now. If they are on a disk that is "
                f"not mounted, mount it, then run this again. If they are gone for good, remove "
                f"{self.state_path}, then run this again"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only run. Raises RefusedError where another one does not end."""
        name = self.application.name
        otherwise = RefusedError(
            f"Another run of `{name} backup` or `{name} restore` has not ended for "
            f"{LOCK_SECONDS} s. `systemctl status {name}-backup` and "
            f"`pgrep -af '{name} (backup|restore)'` show it: let it end, then run this again"
        )
        with files.held(self.directory / LOCK, LOCK_SECONDS, otherwise):
            for entry in os.listdir(self.directory):
                if LEFTOVER.fullmatch(entry):
                    files.remove(self.directory / entry)
            yield

    @contextlib.contextmanager
    def partial(self) -> Iterator[Path]:
        """A file of root's own to write to; it goes, unless it was renamed."""
        descriptor, path = tempfile.mkstemp(prefix=PARTIAL, dir=self.directory)
        os.close(descriptor)
        try:
            yield Path(path)
        finally:
            Path(path).unlink(missing_ok=True)
