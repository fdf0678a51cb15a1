"""Copies the data, and shows the copies of this host.

    sudo <name> backup                   make a copy now; <name>-backup.timer does the same
    sudo <name> backup list              the copies on this host
    sudo <name> backup verify NAME       check that a copy is whole and suits the live release

NAME is a copy as `list` shows it, or `latest`. Copies are ordered by the number that each one gets,
not by their times, since a clock can be wrong. A copy is written by the application as its own user
and kept by root, where the application can neither read nor destroy it. It is read again after
writing: every page or row of it, its schema, and how many rows each table has. Its record
(NAME.json) keeps that with its SHA-256. When a new copy is good, old ones go: see `keep` in
/etc/<name>/backup.json. `sudo <name> restore NAME` restores one.

For an encrypted copy, --identity reads age's private key from standard input; it is kept nowhere:

    sudo <name> backup verify NAME --identity < key.txt
"""

from __future__ import annotations

import argparse
import os
import sys

from .. import times
from ..answer import Answer, table
from ..application import Application
from ..errors import RefusedError, UsageError
from . import make, outcome, settings
from .copies import Store, contents, is_ahead, rows, uploads
from .verify import suitability, verified

COLUMNS = ("name", "size", "schema", "rows", "files", "release", "kind")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Words of the command line."""
    add = parser.add_argument
    add("what", nargs="?", choices=("list", "verify"), help="without it, make a copy")
    add("name", nargs="?", default="", metavar="NAME", help="a copy, for verify")
    add("--identity", action="store_true", help="read age's private key from standard input")
    add("--check", action="store_true", help="say what would be done, and make no copy")


def run(application: Application, options: argparse.Namespace) -> Answer:
    """Make a copy, or look at those that are there."""
    if options.what == "verify" and not options.name:
        listing = f"`sudo {application.name} backup list`"
        raise UsageError(f"Name a copy to verify, as {listing} shows it, or latest")
    if options.what != "verify" and options.name:
        raise UsageError(f"{options.what} takes no name, but was given {options.name!r}")
    store = open_store(application)
    if options.what == "list":
        return listed(store)
    if options.what == "verify":
        return verify(store, options.name, read_identity(options))
    return make.back_up(store, options.check)


def open_store(application: Application) -> Store:
    """The copies of an application. Raises RefusedError for anybody but root."""
    if os.geteuid() != 0:
        raise RefusedError("Only root can read and write the copies: use sudo")
    return Store(application, settings.read(application))


def read_identity(options: argparse.Namespace) -> str:
    """age's private key, if it is given; else empty."""
    return sys.stdin.read() if options.identity else ""


def listed(store: Store) -> Answer:
    """The copies, and how the last run went."""
    records = store.records()
    state = outcome.read(store)
    ahead = [record["name"] for record in records if is_ahead(record, times.now())]
    notes = []
    if ahead:
        notes.append(
            f"In the future by this host's clock, which was wrong when they were made, or is now: "
            f"{', '.join(ahead)}. Copies are listed in the order in which they were made."
        )
    last = state.get("last_run")
    if last and not last["ok"]:
        notes.append(f"The last run, at {last['at']}, failed: {last['msg']}")
    with_files = any(record.get("directories") for record in records)
    columns = [column for column in COLUMNS if column != "files" or with_files]
    lines = [[column.upper() for column in columns]]
    for record in records:
        cells = {**record, "schema": record["schema"] or "-", "rows": rows(record)}
        cells["files"] = uploads(record)
        lines.append([str(cells[column]) for column in columns])
    count = f"{len(records)} {'copy' if len(records) == 1 else 'copies'} in {store.directory}."
    shown = table(lines) if records else f"There is no copy in {store.directory}."
    return Answer(
        " ".join([count, *notes]),
        facts={"copies": records, "ahead": ahead, "state": state},
        text="\n".join([shown, *notes]),
    )


def verify(store: Store, name: str, identity: str) -> Answer:
    """Hold a copy to its record and to the live release."""
    store.check_place()
    with store.locked():
        record = store.named(name)
        verdict = suitability(store.application, record)
        with verified(store, record, identity):
            pass
    msg = f"{record['name']} is whole, has {contents(record)}, and {verdict}."
    return Answer(msg, facts={"record": record})
