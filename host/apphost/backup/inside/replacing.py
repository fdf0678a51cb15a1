"""The way back for files of SQLite and for directories."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Callable
from typing import Any, BinaryIO

from .common import BLOCK, Failure, Told, beside, remove, sync

# What SQLite has beside a file. It belongs to that file, and would destroy another one.
JOURNALS = ("-wal", "-shm", "-journal")


def check(told: Told, target: BinaryIO) -> None:
    """Refuse what cannot be replaced by a rename, and a disk without room."""
    for path in told["items"]:
        above = os.path.dirname(path) or "."
        if os.path.islink(path) or (os.path.lexists(path) and os.path.ismount(path)):
            what = "a symbolic link" if os.path.islink(path) else "a file system of its own"
            raise Failure(
                f"{told['data']}/{path} is {what}, and a restore replaces it by renaming it: name "
                f"directories below it in `data.directories`, such as {path}/files"
            )
        while not os.path.isdir(above):
            above = os.path.dirname(above) or "."
        if not os.access(above, os.W_OK | os.X_OK):
            raise Failure(f"The application cannot write to {os.path.join(told['data'], above)}")
    places: dict[int, tuple[str, int]] = {}
    for path, needed in told["items"].items():
        above = path
        while not os.path.isdir(above):
            above = os.path.dirname(above) or "."
        device = os.stat(above).st_dev
        places[device] = (above, places.get(device, ("", 0))[1] + needed)
    for above, needed in places.values():
        free = shutil.disk_usage(above).free
        if free < needed:
            raise Failure(
                f"{os.path.normpath(os.path.join(told['data'], above))} has {free >> 20} MiB free, "
                f"and the restore takes {needed >> 20} MiB there: make room first"
            )


def stage_file(told: Told, target: BinaryIO) -> None:
    """Write standard input beside a file."""
    new = beside(told["file"], "new")
    remove(new)
    os.makedirs(os.path.dirname(new) or ".", mode=0o700, exist_ok=True)
    mode = stat.S_IMODE(os.lstat(told["file"]).st_mode) if os.path.lexists(told["file"]) else 0o600
    digest = hashlib.sha256()
    write_file(new, sys.stdin.buffer, mode & 0o777, digest.update)
    if digest.hexdigest() != told["sha256"]:
        raise Failure(f"{told['file']} arrived damaged")
    os.sync()


def stage_saved(told: Told, target: BinaryIO) -> None:
    """Write a copy of the application's own, as `save` made it, beside its files of SQLite."""
    for name in told["items"]:
        remove(beside(name, "new"))
    with contextlib.ExitStack() as stack:
        if tarfile.is_tarfile(told["from"]):
            archive = stack.enter_context(tarfile.open(told["from"]))
            sources = [archive.extractfile(f"databases/{name}") for name in told["items"]]
        else:
            sources = [stack.enter_context(open(told["from"], "rb"))]
        for name, source in zip(told["items"], sources):  # noqa: B905 (Python 3.9)
            write_file(beside(name, "new"), source, 0o600, lambda block: None)
    os.sync()


def saved(told: Told, target: BinaryIO) -> None:
    """Say which files of SQLite a copy of the application's own has."""
    names = told["files"]
    if not os.path.isfile(told["from"]):
        raise Failure(f"There is no {told['from']}")
    if tarfile.is_tarfile(told["from"]):
        with tarfile.open(told["from"]) as archive:
            there = set(archive.getnames())
        names = [name for name in names if f"databases/{name}" in there]
    target.write(json.dumps(names).encode())


def write_file(path: str, source: Any, mode: int, seen: Callable[[bytes], Any]) -> None:
    """Write a stream to a new file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    with open(descriptor, "wb") as file:
        for block in iter(lambda: source.read(BLOCK), b""):
            seen(block)
            file.write(block)
        os.fchmod(descriptor, mode)


def stage_directories(told: Told, target: BinaryIO) -> None:
    """Write the directories of the archive on standard input beside those that are there."""
    for directory in told["directories"]:
        remove(beside(directory, "new"))
        os.makedirs(os.path.dirname(directory) or ".", mode=0o700, exist_ok=True)
    seen = hashlib.sha256()
    folders, links = [], []
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|", errorlevel=2) as archive:
        while True:
            member = archive.next()
            if member is None:
                break
            # Python keeps them all otherwise.
            archive.members = []  # type: ignore[attr-defined]
            path = staged(member.name, told["directories"])
            if path is None:
                continue
            # A directory may have come while its entries were read.
            os.makedirs(path if member.isdir() else os.path.dirname(path), exist_ok=True)
            if member.isdir():
                folders.append((path, member.mode & 0o777, member.mtime))
            elif member.issym():
                links.append((path, member.linkname))
            elif member.isreg():
                digest = hashlib.sha256()
                write_file(path, archive.extractfile(member), member.mode & 0o777, digest.update)
                os.utime(path, (member.mtime, member.mtime))
                seen.update(digest.digest())
    for path, linked in links:
        os.symlink(linked, path)
    # From the inside out: a directory that may not be written to can still be filled before.
    for path, mode, mtime in reversed(folders):
        os.chmod(path, mode)
        os.utime(path, (mtime, mtime))
    for directory in told["directories"]:
        if not os.path.isdir(beside(directory, "new")):
            raise Failure(f"The copy has no {directory}")
    if seen.hexdigest() != told["sha256"]:
        raise Failure("The files arrived damaged")
    # Once for all: for each file by itself it takes a hundred times as long.
    os.sync()


def staged(member: str, directories: list[str]) -> str | None:
    """Where a member of the archive is written to; None for one that is none of these files."""
    top, _, path = member.partition("/")
    for directory in directories:
        below = path[len(directory) :]
        if top == "files" and path.startswith(directory) and below[:1] in ("", "/"):
            if any(part in ("", ".", "..") for part in path.split("/")):
                raise Failure(f"The copy has a path that leads elsewhere: {path}")
            return beside(directory, "new") + below
    return None


def swap(told: Told, target: BinaryIO) -> None:
    """Put what was staged in its place."""
    for path in told["items"]:
        if not os.path.lexists(beside(path, "new")):
            raise Failure(f"{beside(path, 'new')} is not there any more")
    try:
        for path in told["items"]:
            new, old = beside(path, "new"), beside(path, "old")
            if os.path.lexists(path):
                move(path, old)
            else:
                # So that `undo` knows that there was nothing.
                sync_new(beside(path, "none"))
            os.rename(new, path)
            sync(os.path.dirname(path))
    except OSError:
        undo(told, target)
        raise


def sync_new(path: str) -> None:
    """Make an empty file."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    sync(os.path.dirname(path))


def rename_journals(path: str, to: str) -> None:
    """Have what SQLite has beside a file go with it, and first: another file must not get it."""
    for suffix in JOURNALS:
        if os.path.lexists(path + suffix):
            os.rename(path + suffix, to + suffix)


def move(path: str, to: str) -> None:
    """Rename a file or a directory, with what SQLite has beside it."""
    rename_journals(path, to)
    os.rename(path, to)


def undo(told: Told, target: BinaryIO) -> None:
    """Have everything as it was before `swap`, whether that was done, half or not at all."""
    for path in told["items"]:
        new, old, none = (beside(path, suffix) for suffix in ("new", "old", "none"))
        swapped = os.path.lexists(old) or os.path.lexists(none)
        if swapped and not os.path.lexists(new) and os.path.lexists(path):
            for suffix in JOURNALS:
                remove(path + suffix)
            os.rename(path, new)
        if os.path.lexists(old):
            move(old, path)
        else:
            rename_journals(old, path)
        remove(none)
        remove(new)
        sync(os.path.dirname(path))


def recover(told: Told, target: BinaryIO) -> None:
    """Tidy up after a run that was killed. Nothing that was somebody's data is removed."""
    for path in told["items"]:
        new, old, none = (beside(path, suffix) for suffix in ("new", "old", "none"))
        aside = f"{path}.replaced-{told['moment']}"
        if not os.path.lexists(path):
            if os.path.lexists(old):
                move(old, path)
        elif os.path.lexists(old):
            move(old, aside)
        else:
            # Killed between the two: the file is the old one still.
            rename_journals(old, path)
        remove(none)
        remove(new)


def finish(told: Told, target: BinaryIO) -> None:
    """Remove what was replaced, or keep it under a name that people see."""
    for path in told["items"]:
        old = beside(path, "old")
        if told["keep"] and os.path.lexists(old):
            aside = f"{path}.replaced-{told['moment']}"
            move(old, aside)
        for each in (old, *(old + suffix for suffix in JOURNALS), beside(path, "none")):
            remove(each)
