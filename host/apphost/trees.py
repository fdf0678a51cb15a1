"""What is known of the trees of files that wsgi.host.config_tree puts in place."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import files
from .errors import HostError

RECORD_VERSION = 1


class TreeError(HostError):
    """Something an operator can mend; the text says what and how."""


@dataclass
class Record:
    """What is known of an earlier run.

    `files` maps each path to the SHA-256 of what was written there, `written` to what a run that
    was interrupted may have written, `applied` to what the service ran with last, which may have
    been put back; `secret` lists the paths that no diff may show, `directories` those that the tree
    has besides.
    """

    files: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    pending: bool = False
    secret: list[str] = field(default_factory=list)
    applied: dict[str, str] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)

    def knows(self, dest: str, digest: str) -> bool:
        """Whether content of that SHA-256 was written at a path."""
        return digest in (self.files.get(dest), self.written.get(dest), self.applied.get(dest))


def read(path: Path) -> Record:
    """The record in a file; an empty one without it. Raises TreeError where it cannot be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Record()
    except ValueError as error:
        raise TreeError(
            f"{path} cannot be read ({error}); it records what earlier runs wrote: remove it, "
            "and the next run takes the files that it finds for somebody else's and keeps copies"
        ) from error
    return Record(**files.known(Record, data))


def write(path: Path, record: Record) -> None:
    """Keep a record, for root alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = {"version": RECORD_VERSION, **vars(record)}
    files.write(path, json.dumps(data, indent=1, sort_keys=True), 0o600)


def mark_applied(path: Path, host: Path | None = None) -> None:
    """Note that the service runs with what was written.

    Args:
        host: the root of the file system, to note it only if that is still there: it may have been
            reverted since.
    """
    if not path.exists():
        return
    record = read(path)
    if host is not None and not holds(record, host):
        return
    if record.pending or record.applied != record.files:
        record.pending = False
        record.applied = record.files
        write(path, record)


def is_there(path: Path, host: Path) -> bool:
    """Whether what was written is still there, below the root of the file system `host`."""
    return not path.exists() or holds(read(path), host)


def holds(record: Record, host: Path) -> bool:
    """Whether what a record says was written is still there."""
    for dest, digest in record.files.items():
        file = host / dest.lstrip("/")
        if not file.is_file() or files.digest(file) != digest:
            return False
    return True
