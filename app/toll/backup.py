"""Copies of the database, and the way back to one."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import sqlalchemy as sa

from toll.database import SQLITE_BUSY_SECONDS, make_engine, normalised_url

DUMP = ("pg_dump", "--format=custom", "--no-owner", "--no-acl")
# pg_restore writes it from version 17 on, and a server before 17 refuses it.
TIMEOUT, KNOWS_TIMEOUT = b"SET transaction_timeout = 0;\n", (17,)
# How the lines begin that come before anything of the dump itself.
HEAD = (b"--", b"\\", b"SET ", b"\n")
# How the names of directories begin that go with the process that made them.
WORKING = ".toll-working-"


class BackupError(Exception):
    """There is no copy, or it was not put back; the message says why and what to do."""


def backup(url: str, file: Path) -> None:
    """Write a copy of the database as it is at one moment; the application may go on writing.

    The file appears whole or not at all, can be read by its owner only, and replaces one of that
    name. Raises BackupError.
    """
    parsed = normalised_url(url)
    with new_file(file) as copy:
        if parsed.get_backend_name() == "sqlite":
            _copy_sqlite(_live(parsed), file, copy)
        else:
            _run([*DUMP, f"--file={copy}"], parsed)


def backup_to(url: str, stream: BinaryIO) -> None:
    """Write the same copy to a stream, for somebody who keeps it where this user cannot write.

    Raises BackupError; what was written until then is no copy.
    """
    parsed = normalised_url(url)
    try:
        if parsed.get_backend_name() == "sqlite":
            live = _live(parsed)
            # Not in /tmp, which may be in memory.
            with _working_directory(live.parent) as directory:
                copy = directory / "copy"
                _copy_sqlite(live, copy, copy)
                with copy.open("rb") as written:
                    _copy_stream(written, stream)
        else:
            _run(DUMP, parsed, stream)
        stream.flush()
    except OSError as error:
        raise BackupError(f"The copy cannot be written: {error.strerror}") from error


def _copy_stream(source: BinaryIO, target: BinaryIO) -> None:
    """Copy all of it. Standard output without a buffer takes a part of what it is given at the end
    of a full disk, and says so only by the number of bytes."""
    while block := source.read(1 << 20):
        left = memoryview(block)
        while left:
            left = left[target.write(left) :]


def restore(url: str, file: Path, keep: bool = True) -> Path | None:
    """Put a copy back, all or nothing; return where what it replaced is kept, if there was any.

    Args:
        keep: copy what is replaced first; not for a caller who has done it. A SQLite file that is
            too damaged to be copied is kept in any case.

    Raises BackupError.
    """
    parsed = normalised_url(url)
    if not file.is_file():
        raise BackupError(f"{file} is not there: name a file that `flask toll backup` wrote")
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    if parsed.get_backend_name() == "sqlite":
        return _restore_sqlite(Path(str(parsed.database)), file, moment, keep)
    return _restore_postgresql(url, parsed, file, moment, keep)


def restore_from(url: str, stream: BinaryIO, keep: bool = True) -> Path | None:
    """Put back a copy that comes from a stream; see `restore`."""
    parsed = normalised_url(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    above = Path(str(parsed.database)).parent if sqlite else _spacious()
    try:
        with _working_directory(above) as directory:
            file = directory / "copy"
            with file.open("wb") as copy:
                _copy_stream(stream, copy)
            replaced = restore(url, file, keep)
            if replaced is not None and replaced.parent == directory:
                # PostgreSQL's is beside the copy, which goes.
                kept = Path(above or tempfile.gettempdir(), replaced.name)
                return Path(shutil.move(replaced, kept))
            return replaced
    except OSError as error:
        raise BackupError(f"The copy cannot be put aside: {error.strerror}") from error


@contextmanager
def new_file(file: Path) -> Iterator[Path]:
    """Yield a path to write to, which becomes the file if all goes well."""
    with ExitStack() as stack:
        try:
            path = stack.enter_context(_working_directory(file.parent)) / "copy"
            path.touch(0o600)
        except OSError as error:
            raise BackupError(
                f"{file} cannot be written: {error.strerror}. Name a file in a directory that is "
                f"there and that {_whoami()} may write to"
            ) from error
        try:
            yield path
            with path.open("rb") as written:
                os.fsync(written.fileno())
            path.replace(file)
            directory = os.open(file.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise BackupError(f"{file} cannot be written: {error.strerror}") from error


@contextmanager
def _working_directory(above: Path | str | None) -> Iterator[Path]:
    """Yield a directory that goes with this process; one of a process that was killed goes too."""
    place = Path(above or tempfile.gettempdir())
    for left in place.glob(f"{WORKING}*"):
        with suppress(OSError):
            _remove_unused(left)
    before = signal.signal(signal.SIGTERM, _end)
    try:
        with tempfile.TemporaryDirectory(prefix=WORKING, dir=place) as name:
            directory = os.open(name, os.O_RDONLY)
            try:
                # Not every file system has locks for a directory, and then nobody removes it.
                with suppress(OSError):
                    fcntl.flock(directory, fcntl.LOCK_EX)
                yield Path(name)
            finally:
                os.close(directory)
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(*_: object) -> None:
    """Have everything tidied up on the way out, such as at a reboot."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signal.SIGTERM)


def _remove_unused(path: Path) -> None:
    """Remove a working directory unless its process lives. Raises OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # One without a file may be so new that its process comes to the lock after this one.
        if os.listdir(directory):
            shutil.rmtree(path)
    finally:
        os.close(directory)


def _whoami() -> str:
    return f"the user {os.geteuid()}"


def _spacious() -> str | None:
    """The service's own directory, since /tmp may be in memory; None where there is no service."""
    return os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or None


def _live(parsed: sa.URL) -> Path:
    live = Path(str(parsed.database))
    if not live.is_file():
        raise BackupError(f"There is no database {live}: run `flask --app app toll migrate` first")
    return live


def _copy_sqlite(live: Path, file: Path, copy: Path) -> None:
    """Copy a database page by page, then check the copy."""
    if file.exists() and file.samefile(live):
        raise BackupError(f"{file} is the database itself: name another file")
    try:
        with (
            closing(sqlite3.connect(live, timeout=SQLITE_BUSY_SECONDS)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            # One file that stands for itself, without a log beside it.
            target.execute("PRAGMA journal_mode = DELETE")
            _check(target, copy)
    except sqlite3.Error as error:
        raise BackupError(f"{live} cannot be copied: {error}") from error


def _check(connection: sqlite3.Connection, file: Path) -> None:
    """Raise BackupError unless the file is a whole database of this application."""
    try:
        found = connection.execute("PRAGMA integrity_check").fetchone()[0]
        if found != "ok":
            raise BackupError(f"{file} is damaged: {found}. Take another copy")
        connection.execute("SELECT revision FROM schema_state").fetchall()
    except sqlite3.Error as error:
        raise BackupError(
            f"{file} is not a copy of toll-app's SQLite database: {error}. Name a file that "
            f"`flask toll backup` wrote for SQLite"
        ) from error


def _check_file(file: Path) -> None:
    """The same of a file that others may have open."""
    try:
        with closing(sqlite3.connect(file, timeout=SQLITE_BUSY_SECONDS)) as connection:
            _check(connection, file)
    except sqlite3.Error as error:
        raise BackupError(f"{file} cannot be opened: {error}") from error


def _restore_sqlite(live: Path, file: Path, moment: str, keep: bool) -> Path | None:
    if live.exists() and file.samefile(live):
        raise BackupError(f"{file} is the database itself: name a copy")
    kept = live.with_name(f"{live.name}.replaced-{moment}")
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as source:
        _check(source, file)
        replaced = None
        existed = live.exists()
        if existed:
            try:
                if keep:
                    replaced = kept
                    with new_file(kept) as copy:
                        _copy_sqlite(live, kept, copy)
                else:
                    _check_file(live)
            except BackupError:
                replaced = kept
                # Too damaged to be copied: it is put aside as it is.
                for suffix in ("", "-wal", "-shm"):
                    part = live.with_name(live.name + suffix)
                    if part.exists():
                        part.rename(kept.with_name(kept.name + suffix))
        try:
            # Through SQLite's locks, so that processes that have it open see it from now on, and
            # as one transaction.
            with closing(sqlite3.connect(live, timeout=SQLITE_BUSY_SECONDS)) as target:
                live.chmod(live.stat().st_mode & 0o777 if existed else 0o600)
                source.backup(target)
                _check(target, live)
        except sqlite3.Error as error:
            raise BackupError(
                f"{file} cannot be put back: {error}. Stop the application and try again"
            ) from error
    return replaced


def _restore_postgresql(
    url: str, parsed: sa.URL, file: Path, moment: str, keep: bool
) -> Path | None:
    with _working_directory(_spacious()) as directory:
        script = directory / "restore.sql"
        arguments = ["--no-owner", "--no-acl", f"--file={script}", str(file)]
        _run(["pg_restore", *arguments], None)
        engine = make_engine(url)
        try:
            with engine.connect() as connection:
                tables = sa.inspect(connection).get_table_names()
            if (engine.dialect.server_version_info or KNOWS_TIMEOUT) < KNOWS_TIMEOUT:
                _leave_out_timeout(script)
        finally:
            engine.dispose()
        replaced = None
        if tables and keep:
            replaced = file.with_name(f"{file.name}.replaced-{moment}")
            backup(url, replaced)
        quote = engine.dialect.identifier_preparer.quote_identifier
        drop = directory / "drop.sql"
        listed = ", ".join(quote(table) for table in sorted(tables))
        drop.write_text(f"DROP TABLE IF EXISTS {listed} CASCADE;\n" if tables else "")
        _run(
            [
                "psql",
                *("--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1"),
                *(f"--file={drop}", f"--file={script}"),
            ],
            parsed,
        )
    return replaced


def _leave_out_timeout(script: Path) -> None:
    with script.open("r+b") as file:
        # A row of a table may read like it.
        while (line := file.readline()).startswith(HEAD):
            if line == TIMEOUT:
                file.seek(-len(line), os.SEEK_CUR)
                file.write(b"--")
                break


def _run(command: Sequence[str], parsed: sa.URL | None, output: BinaryIO | None = None) -> None:
    """Run a program of PostgreSQL's, with the database's URL and without its password in sight."""
    program = shutil.which(command[0])
    if program is None:
        raise BackupError(
            f"{command[0]} is not on this machine: install PostgreSQL's client programs (Debian: "
            f"postgresql-client), or let the server's host make the copies"
        )
    environment = dict(os.environ)
    arguments = [program, *command[1:]]
    if parsed is not None:
        if parsed.password is not None:
            environment["PGPASSWORD"] = str(parsed.password)
        if "password" in parsed.query:
            raise BackupError(
                "The database's URL has its password behind the question mark, where it would show "
                "in the list of processes: put it before the host, as in user:password@host"
            )
        # `URL.set` takes None for what stays as it is.
        shown = sa.URL.create(
            "postgresql",
            username=parsed.username,
            host=parsed.host,
            port=parsed.port,
            database=parsed.database,
            query=parsed.query,
        )
        arguments.append(f"--dbname={shown.render_as_string(hide_password=False)}")
    done = subprocess.run(
        arguments,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if output is None else output,
        stderr=subprocess.PIPE,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise BackupError(f"{command[0]} failed: {said}")
