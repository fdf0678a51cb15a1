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
from ..errors import HostError, RefusedError
from . import commands, encryption, outcome, retention
from .copies import BEFORE, SCHEDULED, Record, Store, rows
from .examine import examine, schema_table
from .verify import database_kind, live_release

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
        database_kind(store.application)
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
        f"{path}: {record['size']} bytes, {rows(record)} rows, SHA-256 {record['sha256']}",
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
    release, database = live_release(application), database_kind(application)
    check_space(store, GROWTH * (2 if recipient else 1))
    began = time.monotonic()
    with store.partial() as path:
        made_at = times.now()
        with path.open("wb") as target:
            commands.dump(application, target)
        files.sync(path)
        contents = examine(path, database, application.name, schema_table(application))
        middle = re.sub(r"[^0-9A-Za-z_]", "_", contents.schema or release)
        middle += f"-{BEFORE}" if kind == BEFORE else ""
        suffix = ("sqlite" if database == "sqlite" else "dump") + (".age" if recipient else "")
        record = {
            "version": VERSION,
            "sequence": store.next_number(),
            "name": f"{made_at:%Y%m%dT%H%M%SZ}-{middle}.{suffix}",
            "made_at": times.written(made_at),
            "kind": kind,
            "host": socket.gethostname(),
            "release": release,
            "database": database,
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


def check_space(store: Store, factor: float) -> None:
    """Raise RefusedError where a copy like the newest one would not fit."""
    newest = next(iter(store.records()), None)
    needed = int((newest["content_size"] if newest else 0) * factor)
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
        record["size"], record["sha256"] = path.stat().st_size, files.digest(path)
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
