"""Holds a copy to its record and to the live release."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import files
from ..application import Application
from ..errors import HostError, RefusedError
from . import archive, commands, encryption
from .archive import Archive
from .copies import Record, Store
from .examine import Contents, examine, merged, schema_table
from .parts import Parts, parts_of


def live_release(application: Application) -> str:
    """The release that is live. Raises RefusedError without one."""
    release = application.live()
    if release is None:
        raise RefusedError(
            f"There is no {application.current}: no release is live. Deploy one, then run this "
            f"again"
        )
    return release


@dataclass(frozen=True)
class Whole:
    """A copy in clear, after all of it was read.

    Attributes:
        path: the file.
        databases: a file for each, with its SHA-256, by their names in the copy.
        archive: what is in it; None for a copy that is a database.
    """

    path: Path
    databases: dict[str, tuple[Path, str]]
    archive: Archive | None = None


def targets(parts: Parts, record: Record) -> dict[str, str]:
    """Which database becomes which, by their names in the copy and now. Raises RefusedError."""
    # A copy of before there were several: of the database, whatever it is called.
    names = list(record.get("databases") or (parts.databases if record["database"] else ()))
    if len(names) == len(parts.databases) == 1:
        return {names[0]: parts.databases[0]}
    return {name: name for name in names}


def check_parts(application: Application, record: Record) -> str:
    """What of the data a copy does not have, as the end of a predicate. Raises RefusedError."""
    name, parts = record["name"], parts_of(application)
    if record["database"] and record["database"] != parts.kind:
        now = parts.kind or "no database"
        raise RefusedError(
            f"{name} is a copy of {record['database']}, and the data of this host are in {now}: "
            f"take a copy of {now}"
        )
    there = {*targets(parts, record).values(), *record.get("directories", {})}
    described = {*parts.databases, *parts.directories}
    unknown = sorted(there - described)
    if unknown:
        raise RefusedError(
            f"{name} holds {' and '.join(unknown)}, which the description of {application.name} "
            f"does not name: add that to `data` in the description and run site.yml, or take "
            f"another copy"
        )
    absent = sorted(described - there)
    return f", without {' and '.join(absent)}, which would stay as it is" if absent else ""


def suitability(application: Application, record: Record) -> str:
    """How a copy suits the live release, as a predicate. Raises RefusedError if it does not."""
    name, without = record["name"], check_parts(application, record)
    release, schema = live_release(application), record["schema"]
    if not schema or not application.has("schema_code"):
        return f"was made with release {record.get('release')}{without}"
    what = f"Asking release {release} for its schema"
    try:
        code = commands.ask(application, "schema_code", what)
        head, known = code["head"], code["known"]
    except KeyError as error:
        raise RefusedError(f"{what} failed: {json.dumps(code)} has no {error}") from None
    except HostError as error:
        raise RefusedError(str(error)) from None
    if head == schema or head in record["works_with"]:
        return f"suits release {release}{without}"
    if schema in known:
        return (
            f"is from schema {schema}, and will be migrated to {head} for release {release}"
            f"{without}"
        )
    raise RefusedError(
        f"{name} has the schema {schema}, which release {release} does not know (it needs {head}): "
        f"first go to release {record.get('release')}, which wrote it, or take another copy"
    )


@contextlib.contextmanager
def verified(store: Store, record: Record, identity: str) -> Iterator[Whole]:
    """A copy in clear that was held to its record. Raises RefusedError.

    Args:
        identity: age's private key, for a copy that is encrypted.
    """
    path = store.path(record)
    size = path.stat().st_size
    if size != record["size"] or files.digest(path) != record["sha256"]:
        raise RefusedError(
            f"{path} is damaged: it is not what was written according to its record ({size} bytes "
            f"in place of {record['size']}, or another SHA-256). Use another copy"
        )
    with contextlib.ExitStack() as stack:
        if record.get("encrypted"):
            clear = stack.enter_context(store.partial())
            decrypt(record, path, clear, identity)
            path = clear
        try:
            whole = stack.enter_context(unpacked(store, path, record))
            hold_to_record(store.application, record, whole)
        except HostError as error:
            if isinstance(error, RefusedError):
                raise
            reason = str(error).rstrip(".")
            raise RefusedError(f"{record['name']}: {reason}. Take another copy") from None
        yield whole


@contextlib.contextmanager
def unpacked(store: Store, path: Path, record: Record) -> Iterator[Whole]:
    """A copy in clear with its databases as files, all of it read. Raises HostError."""
    if ".tar" not in record["name"]:
        names = list(record.get("databases") or parts_of(store.application).databases)
        digest = record.get("content_sha256") or files.digest(path)
        yield Whole(path, {names[0]: (path, digest)})
        return
    with contextlib.ExitStack() as stack:
        paths: dict[str, Path] = {}

        def place(name: str) -> Path:
            paths[name] = stack.enter_context(store.partial())
            return paths[name]

        found = archive.read(path, store.application.name, place)
        databases = {name: (paths[name], digest) for name, digest in found.databases.items()}
        yield Whole(path, databases, found)


def decrypt(record: Record, path: Path, clear: Path, identity: str) -> None:
    """Decrypt a copy and compare it. Raises RefusedError."""
    if not identity:
        public = record.get("recipient")
        key = f"the private key of {public}" if public else "age's private key"
        raise RefusedError(
            f"{record['name']} is encrypted: give {key} on standard input, with --identity (the "
            f"comment in playbooks/restore.yml says how a playbook takes it)"
        )
    try:
        encryption.decrypt(path, clear, identity)
    except HostError as error:
        raise RefusedError(str(error)) from None
    if files.digest(clear) != record.get("content_sha256"):
        raise RefusedError(f"{path} does not match its record. Use another copy")


def hold_to_record(application: Application, record: Record, whole: Whole) -> None:
    """Read the databases of a copy; compare all with the record. Raises HostError."""
    table = schema_table(application) if record["schema"] else ""
    parts: dict[str, Contents] = {}
    for name, (path, _) in whole.databases.items():
        # The first one says the schema of all.
        parts[name] = examine(path, record["database"], application.name, "" if parts else table)
    contents = merged(parts)
    if contents.tables != record["tables"] or (table and contents.schema != record["schema"]):
        raise HostError("its rows do not match its record")
    found = whole.archive.directories if whole.archive else {}
    expected = {
        name: (each["files"], each["bytes"]) for name, each in record.get("directories", {}).items()
    }
    if {name: (each.files, each.bytes) for name, each in found.items()} != expected:
        raise HostError("its files do not match its record")
