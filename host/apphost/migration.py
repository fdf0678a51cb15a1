"""A migration of the database to the schema of a release, after a copy."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shlex
import stat
import time
from collections.abc import Iterator, Sequence

from . import files, sandbox, schema
from .application import Application
from .backup import engine
from .database import identity, is_postgresql
from .errors import HostError, RefusedError
from .schema import Schema, output

BACKUPS = "backups"
# What this program wrote; a copy that somebody made by hand has another name and stays.
BACKUP = re.compile(r"\d{8}T\d{6}Z-\w+\.(sqlite|dump|tar)$")


@contextlib.contextmanager
def backups(application: Application) -> Iterator[int]:
    """The directory of copies, opened; no link is followed, since the application owns its data."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    above = os.open(application.data, flags)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(BACKUPS, 0o700, dir_fd=above)
        try:
            directory = os.open(BACKUPS, flags, dir_fd=above)
        except OSError as error:
            raise RefusedError(
                f"{application.data / BACKUPS} is not a directory ({error.strerror}). Move it "
                f"away, then run again."
            ) from error
        try:
            owner = os.fstat(above)
            os.fchown(directory, owner.st_uid, owner.st_gid)
            os.fchmod(directory, 0o700)
            yield directory
        finally:
            os.close(directory)
    finally:
        os.close(above)


def new_name(revision: str, kind: str, there: Sequence[str]) -> str:
    """A name for a copy that none has: two within a second would be one, and the first one lost."""
    stem = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{revision}"
    numbered = (f"{stem}_{number}.{kind}" for number in itertools.count(2))
    names = itertools.chain([f"{stem}.{kind}"], numbered)
    return next(name for name in names if name not in there)


def back_up(application: Application, release: str, revision: str, keep: int | None) -> str:
    """Copy the database, remove the oldest copies beyond `keep`; return the path of the copy.

    Without a number all of them stay.

    Raises RefusedError where there is no copy: nothing was migrated then.
    """
    with backups(application) as directory:
        several = len(application.database.files) > 1 and not is_postgresql(application)
        kind = "dump" if is_postgresql(application) else "tar" if several else "sqlite"
        name = new_name(re.sub(r"[^0-9A-Za-z_]", "_", revision), kind, os.listdir(directory))
        path = str(application.data / BACKUPS / name)
        result = sandbox.run(
            application,
            application.words("backup", path)
            if application.has("backup")
            else engine.words(application, "save", to=path, files=application.database.files),
            release=release,
            input="",
            capture_output=True,
            text=True,
            errors="replace",
        )
        if result.returncode:
            raise RefusedError(
                f"The database could not be copied, so it was not migrated:\n{output(result)}"
            )
        try:
            entry = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            raise RefusedError(f"The backup did not write {path}: nothing was migrated.") from None
        if not stat.S_ISREG(entry.st_mode) or not entry.st_size:
            raise RefusedError(f"The backup wrote an empty {path}: nothing was migrated.")
        there = {each for each in os.listdir(directory) if BACKUP.fullmatch(each)}
        # In the order in which they were made. A name has only the time that the clock showed.
        earlier = [each for each in read_order(application) if each in there and each != name]
        copies = [*sorted(there - {*earlier, name}), *earlier, name]
        surplus = 0 if keep is None else max(0, len(copies) - keep)
        for old in copies[:surplus]:
            os.unlink(old, dir_fd=directory)
        files.write_json(application.state / "order.json", copies[surplus:], 0o600)
    return path


def read_order(application: Application) -> list[str]:
    """The names of the copies in the order in which they were made, as far as that was noted."""
    try:
        text = (application.state / "order.json").read_text(encoding="utf-8")
        return [str(each) for each in json.loads(text)]
    except (OSError, ValueError, TypeError):
        return []


def migrate(
    application: Application, release: str, before: Schema, keep: int
) -> tuple[Schema, str | None]:
    """Copy and migrate the database; return its schema afterwards and the path of the copy.

    Raises HostError that says what became of the data.
    """
    # Of a release that does not name revisions it is not known whether there is anything to copy.
    filled = before.database if before.numbered else identity(application)
    copy = None
    if filled and keep and (application.has("backup") or application.database.kind):
        revision = before.database or f"before_{release}"
        copy = back_up(application, release, revision, keep)
    result = sandbox.run(
        application,
        application.words("migrate"),
        release=release,
        input="",
        capture_output=True,
        text=True,
        errors="replace",
    )
    if result.returncode == 0 and before.numbered:
        return Schema(True, "", before.head, before.head, numbered=True), copy
    copied = f" A copy from before is {copy}." if copy else ""
    try:
        after = schema.ask(application, release)
    except schema.UnansweredError as error:
        how = "failed" if result.returncode else "succeeded"
        raise HostError(
            f"The migration to release {release} {how}, and then: {error}{copied} The migration "
            f"wrote:\n{output(result)}"
        ) from error
    if result.returncode == 0 and after.compatible:
        return after, copy
    # The reason tells an operator who deploys an older release from one whose migration is broken.
    words = "\n".join(filter(None, (output(result), before.reason)))
    if result.returncode == 0:
        raise HostError(
            f"The migration to release {release} succeeded, yet the database does not suit the "
            f"release.{copied} It says:\n{after.reason}"
        )
    if not after.numbered:
        raise HostError(
            f"The migration to release {release} failed.{copied} Check whether the live release "
            f"still works with its database.{_remedy(application, copy)} Its output:\n{words}"
        )
    if after.database == before.database:
        raise HostError(
            f"The migration to release {release} failed. The database is as it was, at "
            f"{before.database or 'nothing'}, and the live release keeps serving.{copied} "
            f"Its output:\n{words}"
        )
    raise HostError(
        f"The migration to release {release} failed and left the database at {after.database} "
        f"in place of {before.database}.{copied} Check whether the live release still works with "
        f"it.{_remedy(application, copy)} Its output:\n{words}"
    )


def _remedy(application: Application, copy: str | None) -> str:
    """How to restore a copy."""
    if copy is None:
        return ""
    if application.has("restore"):
        words = f"exec {shlex.join(application.words('restore', copy))}"
    elif application.has("backup"):
        return ""
    else:
        words = f"migrate --restore {os.path.basename(copy)}"
    return (
        f" If not, restore the copy, which loses what was recorded since: sudo {application.name} "
        f"{words}"
    )
