"""Bring the data to what a release needs: a copy of the database, the migration, first rows.

    sudo <name> migrate                    to the live release's schema, after a copy
    sudo <name> migrate --release ID       to that of another release on this host
    sudo <name> migrate --seeds <FILE      and run commands that make the first rows, once each
    sudo <name> migrate --restore NAME     go back to a copy that a migration has made
    sudo <name> migrate --reach <URL       say whether data can move to a database of PostgreSQL

A deploy runs it before the handover, while the old release serves. A migration should be one
transaction, so that one that fails leaves the data as they were. The copy in
/var/lib/<name>/backups is never restored by itself, since that would lose what was recorded
meanwhile.

`--seeds` reads a JSON object from standard input. Each seed runs once for each database and key. A
command that prints a JSON object with "changed": false did nothing. Where another host of the same
database runs them, `--seeded-elsewhere` keeps that they were run, for the day on which this host
stands for the database.

    {"seeds": [{"name": "admin", "key": "anna", "words": ["python", "..."], "stdin": "secret"}]}
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import Any

from . import files, reach, readiness, schema, seeds, unmigrate
from .answer import Answer
from .application import Application
from .database import (
    emptied,
    identity,
    is_emptied,
    is_noted,
    note_served,
    read_stamp,
    seeded,
    write_stamp,
)
from .errors import RefusedError, UsageError
from .migration import migrate
from .schema import Schema
from .seeds import Seed

KEEP = 10
LOCK_SECONDS = 600


def is_done(application: Application, wanted: list[Seed]) -> bool:
    """Whether all that is asked for, besides the schema, was done to this very database."""
    done = seeded(application)
    return is_noted(application) and all(done.get(seed.name) == seed.key for seed in wanted)


def prepare(application: Application, options: argparse.Namespace, wanted: list[Seed]) -> Answer:
    """Do what is missing."""
    live = application.live()
    release = options.release or live
    if not release:
        raise RefusedError(
            f"There is no {application.current}: no release is live. Name one with --release."
        )
    facts: dict[str, Any] = {"did": [], "schema": None, "backup": None}
    as_needed = f"The data are as release {release} needs them."
    if not application.has("schema"):
        if application.has("migrate"):
            raise RefusedError(
                f"The description of {application.name} has a command for migrate, and none for "
                f"schema that says whether it is needed. Describe both."
            )
        return Answer(f"Release {release} needs no data.", facts=facts)
    if options.preview_new_database:
        msg = f"Another database would be brought to the schema of release {release}."
        return Answer(msg, changed=True, facts={**facts, "did": ["migrate"]})
    same = live is not None and (release == live or schema.is_that_of(application, release, live))
    if live and same and is_done(application, wanted) and readiness.is_ready(application, live):
        if not options.check:
            _note_anew(application)
        return Answer(as_needed, facts=facts)
    shipped = (application.releases / release / "bin/python").exists()
    if shipped and not schema.is_known(application, release):
        return Answer(f"Release {release} needs no data.", facts=facts)
    if options.check and (not shipped or identity(application) is None):
        msg = f"The database would be brought to the schema of release {release}."
        return Answer(msg, changed=True, facts={**facts, "did": ["migrate"]})
    with alone(application):
        return _prepare(application, options, wanted, release, facts) or Answer(
            as_needed, facts=facts
        )


def alone(application: Application) -> contextlib.AbstractContextManager[None]:
    """Be the only run. Raises RefusedError where another one does not end."""
    busy = RefusedError(
        f"Another run of `{application.name} migrate` has not ended for {LOCK_SECONDS} s. Look for "
        f"it with `ps`, let it end, then run this again."
    )
    return files.held(application.state / "data.lock", LOCK_SECONDS, busy)


def _note_anew(application: Application) -> None:
    """An earlier version noted what another password makes another database."""
    if read_stamp(application).get("database") != identity(application):
        with alone(application):
            note_served(application)


def note_seeded(application: Application, wanted: list[Seed], check: bool) -> Answer:
    """Keep that another host of the same database has run the seeds."""
    if not check and is_done(application, wanted):
        _note_anew(application)
    elif not check:
        with alone(application):
            write_stamp(
                application, {**seeded(application), **{seed.name: seed.key for seed in wanted}}
            )
    return Answer(f"Another host has run the seeds of {application.name}.")


def _prepare(
    application: Application,
    options: argparse.Namespace,
    wanted: list[Seed],
    release: str,
    facts: dict[str, Any],
) -> Answer | None:
    """Do what is missing, as the only one; fill in facts. Returns None if nothing was."""
    before = after = schema.ask(application, release)
    anew = is_emptied(application, before)
    if anew and not options.anew:
        raise emptied(application)
    words = []
    if not before.compatible:
        facts["did"].append("migrate")
        if not options.check:
            after, facts["backup"] = migrate(application, release, before, options.keep)
        words.append(_step(before))
    done = {} if anew else seeded(application)
    if not options.check:
        write_stamp(application, done)
    for seed in wanted:
        if done.get(seed.name) == seed.key:
            continue
        if options.check or seeds.run(application, release, seed):
            facts["did"].append(seed.name)
            words.append(f"{seed.title} seeded")
        done[seed.name] = seed.key
        if not options.check:
            # Each by itself: what was made stays made when the next one fails.
            write_stamp(application, done)
    facts["schema"] = {"before": before.database, "after": after.database}
    if not facts["did"]:
        return None
    msg = "; ".join(words)
    return Answer(f"Would do: {msg}" if options.check else msg, changed=True, facts=facts)


def _step(before: Schema) -> str:
    if not before.numbered:
        return "schema migrated"
    return f"schema from {before.database or 'nothing'} to {before.head}"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add = parser.add_argument
    add("--release", default="", metavar="ID", help="the release (default: the live one)")
    add(
        "--keep",
        type=_count,
        default=KEEP,
        metavar="N",
        help=f"copies to keep, 0 for none (default: {KEEP})",
    )
    add("--seeds", action="store_true", help="run the seeds of the JSON object on standard input")
    add("--seeded-elsewhere", action="store_true", help="--seeds: another host has run them")
    add("--anew", action="store_true", help="begin with an empty database where the data are lost")
    add("--restore", default="", metavar="NAME", help="a copy in the directory backups of its data")
    add("--reach", action="store_true", help="look at the database of the URL on standard input")
    add(
        "--ignore-table",
        action="append",
        default=[],
        metavar="NAME",
        help="--reach: a table that may hold rows; may be repeated",
    )
    add("--check", action="store_true", help="say what would be done, and do nothing")
    add(
        "--preview-new-database",
        action="store_true",
        help="the same, when the settings name another database than now",
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, 0 or more")
    return int(text)


def run(application: Application, options: argparse.Namespace) -> Answer:
    """Do what is asked. Raises UsageError, RefusedError and HostError."""
    if options.reach and options.seeds:
        raise UsageError("--reach and --seeds both read standard input: use one of them")
    if options.seeded_elsewhere and not options.seeds:
        raise UsageError("--seeded-elsewhere belongs to --seeds")
    if options.ignore_table and not options.reach:
        raise UsageError("--ignore-table belongs to --reach")
    if os.geteuid() != 0:
        raise RefusedError("Only root can act as the application: use sudo.")
    if options.restore:
        by = os.environ.get("SUDO_USER", "root")
        return unmigrate.restore_copy(application, options.restore, by)
    if options.reach:
        return reach.look(application, options.release, sys.stdin.read(), options.ignore_table)
    wanted = seeds.read(sys.stdin.read()) if options.seeds else []
    if options.seeded_elsewhere:
        return note_seeded(application, wanted, options.check)
    return prepare(application, options, wanted)
