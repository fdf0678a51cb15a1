"""Restores a copy of the data: stops the service, puts the copy in their place, starts it again.

    sudo <name> restore NAME                             as `sudo <name> backup list` shows it
    sudo <name> restore latest                           the last one that was made
    sudo <name> restore NAME --identity < key.txt        an encrypted one, with age's private key

It refuses before anything is stopped if the copy is damaged or does not suit the live release. The
data that it replaces become a copy of their own, `before-restore` in the list. If it fails on the
way, they are restored. It keeps running if your session drops. The private key is kept nowhere.

Other hosts that use the same database have to be stopped first: playbooks/restore.yml does that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any

from .. import stop
from ..answer import Answer
from ..application import Application
from ..errors import HostError, RefusedError
from ..http import NoAnswerError, get
from ..systemd import Systemd
from . import command, commands, interrupted
from .copies import BEFORE, NAME, Record, Store, contents
from .make import GROWTH, MIB, copy, seal
from .outcome import progress
from .parts import Parts, parts_of
from .replacement import Replacement, plan
from .verify import live_release, suitability, unpacked, verified

START_SECONDS = 600
ANSWER_SECONDS = 10
# How many times the size of a copy the application may need beside its database.
NEEDED = {"sqlite": 2.0, "postgresql": 6.0}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Words of the command line."""
    add = parser.add_argument
    add("name", metavar="NAME", help="a copy, as `backup list` shows it, or latest")
    add("--identity", action="store_true", help="read age's private key from standard input")
    add("--by", default=os.environ.get("SUDO_USER", "root"), metavar="WHO", help="for the records")
    add("--check", action="store_true", help="check the copy, and restore nothing")
    add("--preview", action="store_true", help="the same for a copy that is not here yet")


def run(application: Application, options: argparse.Namespace) -> Answer:
    """Restore a copy with the service stopped, or leave everything as it was."""
    store = command.open_store(application)
    identity = command.read_identity(options)
    store.check_place()
    parts = parts_of(application)
    if parts.own:
        # Both are needed when the service is down.
        application.words("backup")
        application.words("restore")
    name = options.name
    if options.preview and NAME.fullmatch(name) and not (store.directory / name).exists():
        msg = f"{name} would be copied to this host, checked, and restored if it is whole."
        return Answer(msg, changed=True)
    with store.locked():
        record = store.named(name)
        verdict = suitability(application, record)
        check_room(store, parts, record)
        with verified(store, record, identity) as copy:
            whole = f"{record['name']} is whole and {verdict}."
            new = plan(application, record, copy)
            with refusing():
                new.check()
            if options.check or options.preview:
                return Answer(f"{whole} It would be restored.", True, {"record": record})
            with undisturbed():
                stage(new)
                progress(f"{whole} The service stops.")
                began = time.monotonic()
                before = replace(store, record, new, options.by)
                seconds = round(time.monotonic() - began, 1)
    replaced = (
        f"The data that it replaced: {store.path(before)}"
        if before
        else f"The data that it replaced could not be read, and are in {application.data}."
    )
    return Answer(
        f"Restored {record['name']}, with {contents(record)}. From the stop of the service until "
        f"it was judged healthy it took {seconds} s. {replaced}",
        changed=True,
        facts={
            "record": record,
            "replaced": before["name"] if before else None,
            "seconds": seconds,
        },
    )


def check_room(store: Store, parts: Parts, record: Record) -> None:
    """Raise RefusedError where the disks have no room for what a restore writes."""
    needs = {store.directory: 1.0}
    if parts.own and record["database"]:
        # Otherwise `check` of the engine looks.
        needs[store.application.data] = NEEDED[record["database"]]
    for directory, factor in needs.items():
        free = shutil.disk_usage(directory).free
        needed = int(record["content_size"] * factor * GROWTH)
        if free < needed:
            raise RefusedError(
                f"{directory} has {free // MIB} MiB free, and the restore takes up to "
                f"{needed // MIB} MiB there: make room first"
            )


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Have a failure be a refusal, since nothing was touched."""
    try:
        yield
    except HostError as error:
        reason = str(error).rstrip(".")
        raise RefusedError(
            f"{reason}. Nothing was stopped, and the data are as they were"
        ) from None


def stage(new: Replacement) -> None:
    """Write the copy beside what is there. Raises RefusedError, and leaves nothing then."""
    with refusing():
        try:
            new.stage()
        except (HostError, OSError):
            new.undo()
            raise


def replace(store: Store, record: Record, new: Replacement, by: str) -> Record | None:
    """The part of a restore during which the service is down.

    Returns the record of the data that were there; None if they could not be copied. Raises
    HostError that says what became of the data.
    """
    application = store.application
    # If this one fails, the data are again those of one that was interrupted before.
    earlier = interrupted.read(application)
    reason = f"restore of {record['name']}"
    before: Record | None = None
    begun = False
    alone = contextlib.ExitStack()
    try:
        alone.enter_context(stop.no_handover(application))
    except HostError:
        new.undo()
        raise
    interrupted.begin(application, record["name"], by)
    try:
        stop.stop(application, Systemd(application.host))
        try:
            # Not encrypted yet: this host could not restore it.
            before = copy(store, BEFORE, "")
            interrupted.begin(application, record["name"], by, before["name"])
        except (HostError, OSError) as error:
            # A file is put aside as it is, a database on a server is not.
            if new.parts.kind == "postgresql" or isinstance(error, RefusedError):
                raise
            progress(f"The present data cannot be copied, and are put aside as they are: {error}")
        begun = True
        if new.loads:
            try:
                new.load(new.whole, keep=before is None)
            except RefusedError:
                begun = False
                raise
        new.swap()
        if not migrate(application):
            compare_rows(application, record)
        alone.close()
        start(application, reason, by)
    except (HostError, OSError) as error:
        alone.close()
        fate = undo(store, before, new, begun, reason, by, earlier)
        raise HostError(f"{record['name']} was not restored: {error}\n{fate}") from None
    interrupted.end(application)
    tidy_up(new, keep=before is None)
    if before is not None and store.settings.recipient:
        before = seal(store, before, store.settings.recipient)
    return before


def tidy_up(new: Replacement, keep: bool) -> None:
    """Remove what was replaced; where that fails it only takes room."""
    try:
        new.finish(keep)
    except (HostError, OSError) as error:
        progress(f"{error}")


def undo(
    store: Store,
    before: Record | None,
    new: Replacement,
    begun: bool,
    reason: str,
    by: str,
    earlier: dict[str, Any],
) -> str:
    """Restore the data that were there, and start the service; return what became of both.

    Args:
        before: the copy of them, if there is one.
        new: what was to be in their place.
        begun: whether the restore may have touched them.
        earlier: what was noted of a restore that was interrupted before this one; empty for none.
    """
    application = store.application
    half = fault = ""
    try:
        if begun:
            with stop.no_handover(application):
                stop.stop(application, Systemd(application.host))
                new.undo()
                if new.loads and before is not None:
                    fault = load_again(store, before, new)
        else:
            new.undo()
        # With a fault, what is noted of this restore goes on being true.
        if not fault and earlier:
            interrupted.note(application, earlier)
        elif not fault:
            interrupted.end(application)
        if fault or earlier:
            half = f" But {interrupted.words(application)}."
        start(application, f"after a failed {reason}", by)
    except (HostError, OSError) as error:
        where = store.path(before) if before else application.data
        reasons = "; ".join(filter(None, (fault, str(error))))
        return f"The data from before are in {where}, but the service does not run: {reasons}"
    if fault:
        return (
            f"The data from before could not be loaded again: {fault}\nThe service runs: look at "
            f"what data it has.{half}"
        )
    if before is not None:
        store.remove(before)
    if not begun:
        return f"The data were not touched, and the service runs.{half}"
    if new.loads and before is None:
        return (
            f"The data from before could not be copied; what the restore put aside is in "
            f"{application.data}. The service runs: look at what data it has.{half}"
        )
    return f"The data are as they were before, and the service runs.{half}"


def load_again(store: Store, before: Record, new: Replacement) -> str:
    """Restore the database that was there; return why that failed, empty if it did not."""
    try:
        with unpacked(store, store.path(before), before) as whole:
            new.load(whole, keep=False)
    except (HostError, OSError) as error:
        return str(error)
    return ""


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let nobody interrupt what would be left half done."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def migrate(application: Application) -> bool:
    """Bring the data to the schema of the live release; return whether that changed them."""
    if not application.has("migrate"):
        return False
    answer = commands.verb(application, "Migrating the data", "migrate", "--json")
    return bool(answer.get("changed"))


def compare_rows(application: Application, record: Record) -> None:
    """Raise HostError if the application counts other rows than the copy has."""
    if not application.has("counts"):
        return
    counts = commands.ask(application, "counts", "Counting the rows")
    if counts.get("tables") != record["tables"]:
        raise HostError(
            f"The restored tables have other rows than the copy: {counts.get('tables')} in place "
            f"of {record['tables']}."
        )


def start(application: Application, reason: str, by: str) -> None:
    """Start the service as every change starts it, and ask it. Raises HostError."""
    wait = f"--wait={START_SECONDS}"
    words = ("handover", "--json", wait, "--reason", reason, "--by", by)
    commands.verb(application, "Starting the service", *words)
    fault = ask(application, live_release(application))
    if fault:
        raise HostError(f"After the start, {application.health.path} {fault}")


def ask(application: Application, release: str) -> str:
    """What is wrong with the service's answer where nginx asks it, as a predicate; empty if
    nothing."""
    health = application.health
    try:
        answer = get(
            f"unix:{application.socket}",
            health.path,
            deadline=ANSWER_SECONDS,
            name=application.domain,
        )
    except NoAnswerError as error:
        return error.words
    if answer.status != health.status:
        return f"answers {answer.status} in place of {health.status}: {answer.text}"
    if not health.release_member:
        return ""
    try:
        named = json.loads(answer.text)[health.release_member]
    except (ValueError, KeyError, TypeError):
        return f"names no release: {answer.text}"
    return "" if named == release else f"answers as release {named} in place of {release}"
