"""Makes a copy, reads it again, and only then gives it its name."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

from .. import environment, files, times
from ..answer import Answer
from ..application import Application
from ..errors import HostError, RefusedError
from . import archive, commands, encryption, engine, interrupted, outcome, retention
from .archive import Directory
from .copies import BEFORE, SCHEDULED, Record, Store, contents
from .examine import Contents, examine, merged, schema_table
from .parts import Parts, parts_of
from .verify import live_release

VERSION = 1
# What a copy may need more than the one before it.
GROWTH = 1.2
MIB = 1 << 20


def back_up(store: Store, check: bool) -> Answer:
    """Make a copy, then rotate, then run the operator's command."""
    at = times.now()
    try:
        store.check_place()
        store.check_emptied()
        interrupted.check(store.application)
        if parts_of(store.application).own:
            store.application.words("backup")
    except RefusedError as error:
        if not check:
            with contextlib.suppress(OSError):
                outcome.keep(store, at, False, {"msg": str(error)}, writable=False)
        raise
    if check:
        return Answer(f"Would write a copy to {store.directory}.", changed=True)
    with store.locked():
        try:
            record = copy(store, SCHEDULED, store.settings.recipient)
            removed = retention.rotate(store)
            if store.settings.command:
                hand_on(store, record)
        except (HostError, OSError) as error:
            with contextlib.suppress(OSError):
                outcome.keep(store, at, False, {"msg": str(error)})
            raise
        outcome.keep(store, at, True, {"name": record["name"], "size": record["size"]})
    path = store.path(record)
    return Answer(
        f"{path}: {record['size']} bytes, {contents(record)}, SHA-256 {record['sha256']}",
        changed=True,
        facts={"path": str(path), "record": record, "removed": removed},
    )


def copy(store: Store, kind: str, recipient: str) -> Record:
    """Write a copy, read it again, and give it its name; return its record. Raises HostError.

    Args:
        kind: SCHEDULED or BEFORE.
        recipient: age's public key; empty for a copy in clear.
    """
    application = store.application
    release, parts = live_release(application), parts_of(application)
    check_space(store, parts, 2 if recipient else 1)
    began = time.monotonic()
    with store.partial() as path:
        made_at = times.now()
        found = present(store, parts, kind)
        databases, contents, directories = write(store, found, path, parts.alone)
        files.sync(path)
        middle = re.sub(r"[^0-9A-Za-z_]", "_", contents.schema or release)
        middle += f"-{BEFORE}" if kind == BEFORE else ""
        suffix = parts.suffix + (".age" if recipient else "")
        record = {
            "version": VERSION,
            "sequence": store.next_number(),
            "name": f"{made_at:%Y%m%dT%H%M%SZ}-{middle}.{suffix}",
            "made_at": times.written(made_at),
            "kind": kind,
            "host": socket.gethostname(),
            "release": release,
            "database": parts.kind if databases else "",
            "databases": databases,
            "directories": {name: dataclasses.asdict(each) for name, each in directories.items()},
            **dataclasses.asdict(contents),
            "encrypted": bool(recipient),
            "recipient": recipient,
            "content_size": path.stat().st_size,
            "content_sha256": files.digest(path),
        }
        publish(store, path, record, recipient)
    record["seconds"] = round(time.monotonic() - began, 1)
    store.write_record(record)
    store.remember(directory=str(store.directory), sequence=record["sequence"])
    return record


def present(store: Store, parts: Parts, kind: str) -> Parts:
    """What of the data is there. Raises HostError where something is gone that was there before."""
    names = [*parts.files, *parts.directories]
    if not names:
        return parts
    there = engine.present(store.application, names)
    gone = [name for name in names if not there[name]]
    newest = next(iter(store.records()), None)
    held = {}
    if newest and kind != BEFORE:
        held = {**newest.get("databases", {}), **newest.get("directories", {})}
    for name in gone:
        # An empty directory is made by the application when it needs one.
        if name in held and not (isinstance(held[name], dict) and not held[name]["files"]):
            raise HostError(
                f"{store.application.data / name} is in the copy {newest and newest['name']}, and "
                f"is gone now. If its disk is not mounted, mount it. If it is lost, restore a "
                f"copy. If it is to be empty, make it"
            )
    databases = tuple(name for name in parts.databases if name not in gone)
    if parts.databases and not databases:
        places = " and ".join(str(store.application.data / name) for name in gone)
        raise HostError(f"The data could not be copied: there is no {places}")
    directories = tuple(name for name in parts.directories if name not in gone)
    return dataclasses.replace(parts, databases=databases, directories=directories)


def write(
    store: Store, parts: Parts, path: Path, alone: bool
) -> tuple[dict[str, int], Contents, dict[str, Directory]]:
    """Write a copy and read it again. Raises HostError.

    Args:
        alone: whether it is the database as it is, and no archive.

    Returns the sizes of the databases, what is in them, and what is in the directories.
    """
    application = store.application
    if alone:
        name = parts.databases[0]
        contents = dump(application, parts, name, path)
        return {name: path.stat().st_size}, contents, {}
    sizes, found = {}, {}
    directories = {name: Directory() for name in parts.directories}
    manifest = {
        "application": application.name,
        "database": parts.kind,
        "databases": list(parts.databases),
        "directories": list(parts.directories),
    }
    with path.open("w+b") as file:
        tar = archive.Writer(file, manifest)
        # Databases first: a row is then never newer than the files.
        for name in parts.databases:
            with store.partial() as part:
                found[name] = dump(application, parts, name, part)
                with part.open("rb") as source:
                    blocks = iter(lambda: source.read(archive.BLOCK), b"")
                    entry = {"kind": "file", "mode": 0o600, "mtime": time.time()}
                    sizes[name] = tar.add(f"{archive.DATABASES}{name}", entry, blocks)
        if directories:
            write_files(store, tar, directories)
        tar.close()
    again = archive.read(path, application.name, lambda name: Path(os.devnull))
    if {name: (each.files, each.bytes) for name, each in again.directories.items()} != {
        name: (each.files, each.bytes) for name, each in directories.items()
    } or list(again.databases) != list(sizes):
        raise HostError("The copy does not hold what was written to it")
    return sizes, merged(found), directories


def dump(application: Application, parts: Parts, name: str, path: Path) -> Contents:
    """Copy a database and read the copy. Raises HostError."""
    with path.open("wb") as target:
        if parts.own:
            commands.dump(application, target)
        else:
            engine.copy(application, name, target)
    # One file says the schema of all of them.
    table = schema_table(application) if name == parts.databases[0] else ""
    return examine(path, parts.kind, application.name, table)


def write_files(store: Store, tar: archive.Writer, directories: dict[str, Directory]) -> None:
    """Add directories to an archive. Raises HostError."""
    with engine.files(store.application, directories) as stream:
        for entry, content in engine.entries(stream):
            path = str(entry.get("path"))
            name = next((n for n in directories if f"{path}/".startswith(f"{n}/")), None)
            if name is None or ".." in path.split("/"):
                raise HostError(f"The files could not be copied: {path!r} was not asked for")
            size = tar.add(f"{archive.FILES}{path}", entry, content)
            if entry["kind"] == "file":
                directories[name].files += 1
                directories[name].bytes += size
                directories[name].changing += bool(entry.get("changing"))


def check_space(store: Store, parts: Parts, copies: int) -> None:
    """Raise RefusedError where a copy like the newest one would not fit.

    Args:
        copies: how often it is there while it is made.
    """
    newest = next(iter(store.records()), None)
    size = newest["content_size"] * copies if newest else 0
    if newest and not parts.alone:
        # A database lies beside the archive until it is in it.
        size += max(newest.get("databases", {}).values(), default=0)
    needed = int(size * GROWTH)
    free = shutil.disk_usage(store.directory).free
    if needed > free:
        raise RefusedError(
            f"{store.directory} has {free // MIB} MiB free, and a copy takes about "
            f"{needed // MIB} MiB: make room there, keep fewer copies (`backup.keep_days` and so "
            f"on in the description), or set `backup.directory` to a larger disk"
        )


def publish(store: Store, path: Path, record: Record, recipient: str) -> None:
    """Give a finished file its name, encrypted if there is a recipient, and write its record."""
    target = store.path(record)
    if target.exists():
        raise HostError(f"{target} exists already: run this again in a second")
    with contextlib.ExitStack() as stack:
        if recipient:
            sealed = stack.enter_context(store.partial())
            encryption.encrypt(path, sealed, recipient)
            if sealed.stat().st_size <= record["content_size"]:
                raise HostError("Encrypting the copy left less than the copy. Nothing was kept")
            path = sealed
        record["size"] = path.stat().st_size
        record["sha256"] = files.digest(path) if recipient else record["content_sha256"]
        path.chmod(0o600)
        files.sync(path)
        # The record first: a copy without one would be nobody's, and stay for ever.
        store.write_record(record)
        os.rename(path, target)
        files.sync(store.directory)


def seal(store: Store, record: Record, recipient: str) -> Record:
    """Encrypt a copy that had to be readable; where that fails it stays as it is."""
    name = f"{record['name']}.age"
    sealed = {**record, "name": name, "encrypted": True, "recipient": recipient}
    try:
        publish(store, store.path(record), sealed, recipient)
    except (HostError, OSError) as error:
        outcome.progress(f"{record['name']} is not encrypted: {error}")
        return record
    store.remove(record)
    return sealed


def hand_on(store: Store, record: Record) -> None:
    """Give the copy to the operator's command. Raises HostError with the command's output."""
    values = {
        "{file}": str(store.path(record)),
        "{record}": str(store.record_path(record)),
        "{directory}": str(store.directory),
    }
    argv = []
    for word in store.settings.command:
        for placeholder, value in values.items():
            word = word.replace(placeholder, value)
        argv.append(word)
    try:
        commands.run(
            argv,
            "The command",
            "it is the program of `backup.command` in the description, which no role installs. "
            "Install its package, or name another program there and run site.yml",
            timeout=store.settings.command_time_limit,
            stdin=subprocess.DEVNULL,
            # The operator's own, so it gets the environment as it was.
            env=environment.INHERITED or None,
        )
    except HostError as error:
        raise HostError(
            f"{record['name']} is made and good, but `backup.command` did not take it off this "
            f"host: {error}"
        ) from None
