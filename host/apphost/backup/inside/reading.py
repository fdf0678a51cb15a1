"""A copy: databases and directories, written to standard output."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import quote

from .common import BLOCK, Failure, Told, connection, run, sync, working_directory, write_all

BUSY_SECONDS = 60
DUMP = ("pg_dump", "--format=custom", "--no-owner")


def sqlite(told: Told, target: BinaryIO) -> None:
    """Write a SQLite file as it is at one moment; whoever uses it goes on."""
    with working_directory() as directory:
        copy = os.path.join(directory, "copy")
        copy_sqlite(told["file"], copy)
        with open(copy, "rb") as source:
            for block in iter(lambda: source.read(BLOCK), b""):
                write_all(target, block)


def copy_sqlite(file: str, copy: str) -> None:
    """The same into a file."""
    import sqlite3

    try:
        uri = f"file:{quote(os.path.abspath(file))}?mode=rw"
        with (
            contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as source,
            contextlib.closing(sqlite3.connect(copy)) as new,
        ):
            # In one go: in steps, a file that is written to all the time would never end.
            source.backup(new)
            # One file that stands for itself, without a log beside it.
            new.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise Failure(f"{file} cannot be copied: {error}") from None


def there(told: Told, target: BinaryIO) -> None:
    """Say which of some paths are there."""
    found = {path: os.path.lexists(path) for path in told["paths"]}
    write_all(target, json.dumps(found).encode())


def postgresql(told: Told, target: BinaryIO) -> None:
    """Write a dump of the database of the credential."""
    database, environment = connection(told)
    run([*DUMP, f"--dbname={database}"], environment, stdout=target)


def files(told: Told, target: BinaryIO) -> None:
    """Write directories: a line of JSON for each entry, for a file followed by its content."""
    for directory in told["directories"]:
        entry = entry_of(directory)
        if entry is None:
            continue
        if entry["kind"] != "directory":
            raise Failure(
                f"{told['data']}/{directory} is not a directory (a link is none either): "
                f"`data.directories` in the description takes directories only"
            )
        send(target, entry)
        for path in walk(directory):
            send_path(target, path)
    send(target, {"end": True})


def walk(directory: str) -> Iterator[str]:
    """All paths below a directory, in an order that depends on the names alone."""
    with os.scandir(directory) as entries:
        found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    for entry in found:
        yield entry.path
        if entry.is_dir(follow_symlinks=False):
            # Removed meanwhile.
            with contextlib.suppress(FileNotFoundError):
                yield from walk(entry.path)


def entry_of(path: str) -> dict[str, Any] | None:
    """What a path is; None if it is gone, or of a kind that holds no data, such as a socket."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    entry = {"path": path, "mode": found.st_mode & 0o777, "mtime": int(found.st_mtime)}
    if stat.S_ISDIR(found.st_mode):
        return {**entry, "kind": "directory"}
    if stat.S_ISLNK(found.st_mode):
        return {**entry, "kind": "link", "target": os.readlink(path)}
    return {**entry, "kind": "file"} if stat.S_ISREG(found.st_mode) else None


def send(target: BinaryIO, entry: dict[str, Any]) -> None:
    """Write a line."""
    write_all(target, json.dumps(entry).encode() + b"\n")


def send_path(target: BinaryIO, path: str) -> None:
    """Write an entry, and for a file as many bytes as it had when it was opened, or fewer."""
    entry = entry_of(path)
    if entry is None or entry["kind"] != "file":
        if entry is not None:
            send(target, entry)
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    with open(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        send(target, entry)
        left = before.st_size
        while left > 0:
            block = file.read(min(left, BLOCK))
            if not block:
                break
            left -= len(block)
            write_all(target, b"%d\n" % len(block) + block)
        after = os.fstat(descriptor)
    changing = (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
    write_all(target, b"0\n")
    send(target, {"changing": changing})


def save(told: Told, target: BinaryIO) -> None:
    """Write a copy of the databases into a file of the application's, which appears whole."""
    path = told["to"]
    with working_directory() as directory:
        whole = os.path.join(directory, "whole")
        if told["kind"] == "postgresql":
            with open(whole, "wb") as file:
                postgresql(told, file)
        elif len(told["files"]) == 1:
            copy_sqlite(told["files"][0], whole)
        else:
            with tarfile.open(whole, "w") as archive:
                # One that the application has not needed yet is not there.
                for name in filter(os.path.lexists, told["files"]):
                    part = os.path.join(directory, "part")
                    copy_sqlite(name, part)
                    archive.add(part, f"databases/{name}")
                    os.unlink(part)
        with open(whole, "rb") as written:
            os.fsync(written.fileno())
        os.rename(whole, path)
        sync(os.path.dirname(path))
