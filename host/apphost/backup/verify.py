"""Holds a copy to its record and to the live release."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from .. import files
from ..application import Application
from ..errors import HostError, RefusedError
from . import commands, encryption
from .copies import Record, Store
from .examine import examine, schema_table


def live_release(application: Application) -> str:
    """The release that is live. Raises RefusedError without one."""
    release = application.live()
    if release is None:
        raise RefusedError(
            f"There is no {application.current}: no release is live. Deploy one, then run this "
            f"again"
        )
    return release


def database_kind(application: Application) -> str:
    """`sqlite` or `postgresql`. Raises RefusedError for an application without a database."""
    kind = application.database.kind
    if not kind:
        raise RefusedError(
            f"{application.name} has no database in its description (`database.kind`), so there "
            f"is nothing to copy or to restore"
        )
    return kind


def suitability(application: Application, record: Record) -> str:
    """How a copy suits the live release, as a predicate. Raises RefusedError if it does not."""
    name, kind = record["name"], database_kind(application)
    if record["database"] != kind:
        raise RefusedError(
            f"{name} is a copy of {record['database']}, and the data of this host are in {kind}: "
            f"take a copy of {kind}"
        )
    release, schema = live_release(application), record["schema"]
    if not schema or not application.has("schema_code"):
        return f"was made with release {record.get('release')}"
    what = f"Asking release {release} for its schema"
    try:
        code = commands.ask(application, "schema_code", what)
        head, known = code["head"], code["known"]
    except KeyError as error:
        raise RefusedError(f"{what} failed: {json.dumps(code)} has no {error}") from None
    except HostError as error:
        raise RefusedError(str(error)) from None
    if head == schema or head in record["works_with"]:
        return f"suits release {release}"
    if schema in known:
        return f"is from schema {schema}, and will be migrated to {head} for release {release}"
    raise RefusedError(
        f"{name} has the schema {schema}, which release {release} does not know (it needs {head}): "
        f"first go to release {record.get('release')}, which wrote it, or take another copy"
    )


@contextlib.contextmanager
def verified(store: Store, record: Record, identity: str) -> Iterator[Path]:
    """A copy in clear that was held to its record. Raises RefusedError.

    Args:
        identity: age's private key, for a copy that is encrypted.
    """
    path = store.path(record)
    size = path.stat().st_size
    if size != record["size"] or files.digest(path) != record["sha256"]:
        raise RefusedError(
            f"{path} is damaged: it is not what was written according to its record ({size} bytes "
            f"in place of {record['size']}, or another SHA-256). Take another copy"
        )
    with contextlib.ExitStack() as stack:
        if record.get("encrypted"):
            clear = stack.enter_context(store.partial())
            decrypt(record, path, clear, identity)
            path = clear
        hold_to_record(store.application, record, path)
        yield path


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
        raise RefusedError(f"{path} holds something else than its record says. Take another copy")


def hold_to_record(application: Application, record: Record, path: Path) -> None:
    """Read a copy in clear, and compare its schema and rows. Raises RefusedError."""
    table = schema_table(application) if record["schema"] else ""
    try:
        contents = examine(path, record["database"], application.name, table)
    except HostError as error:
        reason = str(error).rstrip(".")
        raise RefusedError(f"{record['name']}: {reason}. Take another copy") from None
    if contents.tables != record["tables"] or (table and contents.schema != record["schema"]):
        raise RefusedError(
            f"{record['name']} holds other rows than its record says. Take another copy"
        )
