"""The database: SQLite in a file, or PostgreSQL by a URL; transactions that hold on both.

A session reads in a transaction that begins with its first statement. What writes does so inside
`writing(session)`, which commits at its end. Nothing connects before the first statement, so a
process that has imported the application can be forked.

A request waits a short time for a database that is busy, or away since a moment ago, and then says
so: meanwhile its thread is missing to everybody else. A command, on a connection of its own, has
more patience.
"""

from __future__ import annotations

import functools
import hashlib
import os
import random
import select
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask import Flask, current_app, g, has_request_context
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TypeDecorator

# Where the development server keeps its data: beside the package, out of the repository.
INSTANCE = Path(__file__).resolve().parents[1] / "instance"
# How long a command's writer waits for another one on SQLite, which lets in one at a time.
SQLITE_BUSY_SECONDS = 15
# How long a request waits for another writer, for a lock, for a connection. The health watcher
# takes a service for dead whose threads are all taken for longer than its own time limit, 5 s.
REQUEST_WAIT_SECONDS: float = 4
# How often it looks whether a database is back that is away.
BACK_SECONDS = 0.1
# How long one statement of a request may work.
STATEMENT_SECONDS: float = 10
# How long a request waits for an answer of PostgreSQL. Its own limit ends a statement before; a
# host that hangs ends nothing.
SILENCE_SECONDS: float = STATEMENT_SECONDS + 2
# The same for the question whether a connection that lay idle still works. With a new one to all
# addresses, it is done before REQUEST_WAIT_SECONDS are over.
PING_SECONDS: float = 2
BUSY_RETRY_SECONDS = 2
AWAY_RETRY_SECONDS = 10
# How often a writer looks whether SQLite lets it in: without a pipe to sleep on, and with one, on
# which somebody usually wakes it before.
LOOK_SECONDS = (0.0005, 0.002)
UNWOKEN_SECONDS = 0.02
# Steps of SQLite's virtual machine between two looks at the clock: about a millisecond.
SQLITE_STEPS = 20_000
WRITES = "toll_writes"
# Where an application has its engine, and a request its session.
ENGINE = "toll.engine"
SESSION = "toll_session"
# Of a connection: a request made it. Of a transaction: how long it may work, on SQLite.
REQUEST = "toll_request"
SECONDS = "toll_seconds"
# Of a connection: which file it has open.
FILE = "toll_file"
# Of a connection: each transaction of it needs its limits anew.
LIMITS = "toll_limits"
# Of a connection: who waits to write beside it.
WRITERS = "toll_writers"


class Connector:
    """Connects to PostgreSQL, and waits for one that is restarted or whose primary moves.

    Requests wait for as long as it has been away for less than REQUEST_WAIT_SECONDS. After that
    they fail at once, until somebody has reached it: waiting, they would have all threads. While
    it is away one request asks for all of them, since a host that hangs keeps who asks.
    """

    def __init__(self, connect: Callable[..., Any]) -> None:
        self._connect = connect
        self._away_since: float | None = None
        self._reached_at = 0.0
        self._asking = threading.Lock()

    def __call__(self, dialect: Any, _record: object, args: Any, options: Any) -> Any:
        """Return a connection of the driver (SQLAlchemy's event `do_connect`)."""
        if not has_request_context():
            return self._connect(*args, **options)
        while True:
            began, since = time.monotonic(), self._away_since
            if since is not None:
                left = max(since + REQUEST_WAIT_SECONDS - began, 0)
                if not self._asking.acquire(timeout=left):
                    raise dialect.loaded_dbapi.OperationalError("the database is away")
            try:
                connection = self._connect(*args, **options)
            except dialect.loaded_dbapi.OperationalError:
                # Another thread may reach it at this moment.
                away = self._away_since = self._away_since or began
                if time.monotonic() > away + REQUEST_WAIT_SECONDS:
                    raise
            else:
                self._away_since, self._reached_at = None, time.monotonic()
                connection.silence_seconds = SILENCE_SECONDS
                connection.on_silence = self.missed
                return connection
            finally:
                if since is not None:
                    self._asking.release()
            time.sleep(BACK_SECONDS)

    def missed(self, seconds: float) -> None:
        """Take the database for away since then, unless it was reached meanwhile."""
        since = time.monotonic() - seconds
        if self._reached_at < since:
            self._away_since = self._away_since or since


class Writers:
    """Wakes those that wait to write to SQLite, which lets in one at a time and wakes nobody.

    They sleep on a named pipe that the processes of a host share, in the order in which they came.
    Who has written puts a byte into it, and the kernel wakes one of them. That byte lets nobody
    in, SQLite does: one that is lost with a killed process only makes the others look a little
    later, as they do for a writer that knows nothing of the pipe.
    """

    def __init__(self, path: Path | None) -> None:
        self._pipe: int | None = None
        if path is not None:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with suppress(FileExistsError):
                os.mkfifo(path, 0o600)
            self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)

    @contextmanager
    def queue(self) -> Iterator[Callable[[float], None]]:
        """Yield what waits until it makes sense to try again, at most so many seconds."""
        if self._pipe is None:
            yield self._sleep
            return
        with closing(_Place(self._pipe)) as place:
            yield place.wait

    @staticmethod
    def _sleep(most: float) -> None:
        time.sleep(max(0, min(most, random.uniform(*LOOK_SECONDS))))

    def wake_next(self) -> None:
        """Let the one that has waited longest try."""
        # One byte is enough: further ones would wake somebody for nothing later.
        if self._pipe is not None and not select.select([self._pipe], [], [], 0)[0]:
            os.write(self._pipe, b".")


class _Place:
    """A place among those that wait. It costs nothing until it has to wait."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._epoll: select.epoll | None = None

    def wait(self, most: float) -> None:
        if self._epoll is None:
            self._epoll = select.epoll()
            # Exclusive: a byte wakes one of them, the first that came, and not all.
            self._epoll.register(self._pipe, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        if self._epoll.poll(max(0, min(most, UNWOKEN_SECONDS))):
            # Another one may have taken it.
            with suppress(BlockingIOError):
                os.read(self._pipe, 1)

    def close(self) -> None:
        if self._epoll is not None:
            self._epoll.close()


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: aware in Python, `timestamptz` on PostgreSQL, text in UTC on SQLite."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Take aware moments only: one without a zone would be somebody's local time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Return the moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Database:
    """The application's engine, and a session for each request or command."""

    @staticmethod
    def forget() -> None:
        """Close the current session: the next one has another connection, and reads all anew."""
        _close_session(None)

    @property
    def engine(self) -> Engine:
        """The engine of the current application."""
        engine: Engine = current_app.extensions[ENGINE]
        return engine

    @property
    def session(self) -> Session:
        """The session of the current request or command, which is closed at its end."""
        session: Session | None = g.get(SESSION)
        if session is None:
            session = Session(self.engine, expire_on_commit=False)
            setattr(g, SESSION, session)
        return session


db = Database()


def _close_session(_error: BaseException | None) -> None:
    if session := g.pop(SESSION, None):
        session.close()


def normalised_url(url: str) -> sa.URL:
    """Return the URL with this application's driver; raise ValueError(problem, remedy)."""
    remedy = "Write sqlite:////var/lib/toll-app/toll.db or postgresql://user@/name?host=/run/…"
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        # The text is not shown: it may hold a password.
        raise ValueError("is not a database URL", remedy) from None
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise ValueError(
            f"names the database {parsed.drivername}, which toll-app does not speak", remedy
        )
    if not parsed.database or parsed.database == ":memory:":
        raise ValueError("names no file, and a database in memory loses what it is told", remedy)
    return parsed


def engine_options(url: sa.URL) -> dict[str, Any]:
    """Return what `create_engine` is told for a URL."""
    if url.get_backend_name() == "sqlite":
        return {
            "url": url,
            "connect_args": {"timeout": SQLITE_BUSY_SECONDS},
            "pool_timeout": REQUEST_WAIT_SECONDS,
        }
    told = {
        "connect_timeout": round(REQUEST_WAIT_SECONDS),
        "application_name": "toll-app",
        # A server that is gone without a word is noticed. Sockets of this host ignore these.
        "tcp_user_timeout": round(STATEMENT_SECONDS * 1000),
        "keepalives_idle": round(STATEMENT_SECONDS),
        "keepalives_interval": 5,
        "keepalives_count": 2,
    }
    return {
        "url": url,
        # What the URL says goes before: one of several servers has others to turn to sooner.
        "connect_args": {key: value for key, value in told.items() if key not in url.query},
        "pool_timeout": REQUEST_WAIT_SECONDS,
        # A server that was restarted costs nobody a failed request.
        "pool_pre_ping": True,
        "pool_recycle": 1800,
    }


def make_engine(url: str | sa.URL, writers: Writers | None = None) -> Engine:
    """Return an engine that behaves as the application's own does.

    With `writers` those that wait for their turn on SQLite are woken, else they look again.
    """
    url = normalised_url(url) if isinstance(url, str) else url
    engine = sa.create_engine(**engine_options(url))
    prepare(engine, writers or Writers(None))
    return engine


def prepare(engine: Engine, writers: Writers) -> None:
    """Make an engine's transactions what this module says, and safe across a fork."""
    if engine.dialect.name == "sqlite":
        path = engine.url.database or ""
        sa.event.listen(engine, "do_connect", _sqlite_stays(path))
        sa.event.listen(engine, "connect", _sqlite_connect)
        sa.event.listen(engine, "connect", _sqlite_opened(path, writers))
        sa.event.listen(engine, "checkout", _sqlite_is_the_same(path))
        sa.event.listen(engine, "begin", _sqlite_begin)
        sa.event.listen(engine, "checkin", _sqlite_pass_on)
    else:
        # Whoever has no PostgreSQL does without its driver.
        from toll.silence import Connection as Limited

        sa.event.listen(engine, "do_connect", Connector(Limited.connect))
        sa.event.listen(engine, "connect", _postgresql_connect)
        sa.event.listen(engine, "begin", _postgresql_begin)
        sa.event.listen(engine, "checkout", _postgresql_taken)
        sa.event.listen(engine, "checkin", _postgresql_given_back)
    reference = weakref.ref(engine)

    def forget_connections() -> None:
        if inherited := reference():
            inherited.dispose(close=False)

    os.register_at_fork(after_in_child=forget_connections)


def _postgresql_connect(connection: Any, record: ConnectionPoolEntry) -> None:
    # Outside of a transaction, which might be undone.
    connection.autocommit = True
    process = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
    # A process serves requests or carries out a command, so this is said once.
    limited = has_request_context()
    if process != connection.info.backend_pid:
        # A pooler answers, which has another process for each transaction: what one of them has
        # prepared or set, the next may not find, and somebody else may.
        connection.prepare_threshold = None
        record.info[LIMITS] = limited
    elif limited:
        connection.execute(_postgresql_limits("SET"))
    connection.autocommit = False


def _postgresql_limits(words: str) -> str:
    """Return statements that limit what a request may take: `SET`, or `SET LOCAL`."""
    limits = {
        "lock_timeout": round(REQUEST_WAIT_SECONDS * 1000),
        "statement_timeout": round(STATEMENT_SECONDS * 1000),
        # Whoever reads much takes one processor, and leaves the others to those who record.
        "max_parallel_workers_per_gather": 0,
    }
    return "; ".join(f"{words} {name} = {value}" for name, value in limits.items())


def _postgresql_begin(connection: Connection) -> None:
    if connection.info.get(LIMITS):
        connection.exec_driver_sql(_postgresql_limits("SET LOCAL"))


def _postgresql_taken(connection: Any, _record: object, _proxy: object) -> None:
    if connection.silence_seconds is not None:
        connection.silence_seconds = SILENCE_SECONDS


def _postgresql_given_back(connection: Any, _record: object) -> None:
    # The pool asks whether it still works before anybody gets it again.
    if connection is not None and connection.silence_seconds is not None:
        connection.silence_seconds = PING_SECONDS


def _is_busy(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _sqlite_write_ahead(cursor: sqlite3.Cursor, seconds: float) -> None:
    """Have readers and the one writer not wait for each other.

    Where somebody writes to a file that does not write ahead yet, such as who makes the database
    at the same moment, SQLite does not wait by itself.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > end:
                raise
        time.sleep(random.uniform(*LOOK_SECONDS))


def _sqlite_connect(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
    # The driver would begin transactions on its own, and late; `_sqlite_begin` does it.
    connection.isolation_level = None
    cursor = connection.cursor()
    record.info[REQUEST] = has_request_context()
    seconds: float = SQLITE_BUSY_SECONDS
    if record.info[REQUEST]:
        seconds = REQUEST_WAIT_SECONDS
        cursor.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")
    _sqlite_write_ahead(cursor, seconds)
    # In WAL mode less than FULL may lose commits with the machine's power.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _identity(path: str) -> tuple[int, int] | None:
    """Return which file is at a path; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _sqlite_stays(path: str) -> Callable[..., None]:
    """A request makes no file: where there is none, the data are somewhere else."""

    def refuse(*_: object) -> None:
        if has_request_context() and _identity(path) is None:
            error = sqlite3.OperationalError(
                f"there is no file {path}: its disk may be away, or none was made yet, which "
                f"`flask --app app toll migrate` does"
            )
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error

    return refuse


def _sqlite_opened(path: str, writers: Writers) -> Callable[..., None]:
    def remember(_connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        record.info[FILE] = _identity(path)
        record.info[WRITERS] = writers

    return remember


def _sqlite_is_the_same(path: str) -> Callable[..., None]:
    """Whoever has a file open that was moved away or replaced would write what nobody finds."""

    def compare(
        _connection: sqlite3.Connection, record: ConnectionPoolEntry, _proxy: object
    ) -> None:
        if record.info.get(FILE) != _identity(path):
            # The pool closes it and opens another one.
            raise sa.exc.DisconnectionError(f"{path} is not the file that was opened")

    return compare


def _sqlite_begin(connection: Connection) -> None:
    # A transaction that reads first and writes later would fail at once when another has written
    # in between: no waiting helps it. So those that write say so when they begin.
    options = connection.get_execution_options()
    seconds: float = SQLITE_BUSY_SECONDS
    if connection.info.get(REQUEST):
        seconds = REQUEST_WAIT_SECONDS
        _sqlite_stop_after(connection, options.get(SECONDS, STATEMENT_SECONDS))
    if options.get(WRITES, False):
        _sqlite_begin_to_write(connection, seconds)
    else:
        connection.exec_driver_sql("BEGIN")


def _sqlite_begin_to_write(connection: Connection, seconds: float) -> None:
    # SQLite's own waiting sleeps longer each time, up to 0.1 s: who came last gets in first. With
    # 4 processes that write without a pause, p99 is 2 s that way and 0.8 s this way.
    cursor = connection.connection.cursor()
    writers: Writers = connection.info[WRITERS]
    end = time.monotonic() + seconds
    cursor.execute("PRAGMA busy_timeout = 0")
    connection.info[WRITES] = True
    try:
        with writers.queue() as wait:
            while time.monotonic() < end:
                try:
                    cursor.execute("BEGIN IMMEDIATE")
                    return
                except sqlite3.OperationalError as error:
                    if not _is_busy(error):
                        break
                wait(end - time.monotonic())
        # The last time, through SQLAlchemy: what it raises is one of its own errors.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        cursor.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")
        cursor.close()


def _sqlite_pass_on(_connection: sqlite3.Connection | None, record: ConnectionPoolEntry) -> None:
    # The transaction has ended, whichever way: the pool undoes one that is still open.
    if record.info.pop(WRITES, False):
        writers: Writers = record.info[WRITERS]
        writers.wake_next()


def _sqlite_stop_after(connection: Connection, seconds: float) -> None:
    """Interrupt what the transaction does after that time; SQLite has no limit of its own."""
    end = time.monotonic() + seconds
    driver = connection.connection.dbapi_connection
    assert driver is not None
    driver.set_progress_handler(lambda: time.monotonic() > end, SQLITE_STEPS)


@dataclass(frozen=True)
class Trouble:
    """Why the database cannot do now what it could do at another time.

    Attributes:
        busy: others keep it busy, or the statement took too long; else it cannot be used at all.
        words: the driver's, without the statement and its values.
        retry_after: seconds after which another attempt makes sense.
    """

    busy: bool
    words: str
    retry_after: int


SQLITE_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT}
SQLITE_AWAY = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
# PostgreSQL's error codes (appendix A of its manual), whole or the class that they begin with.
# Serialisation and deadlock, no lock in time, canceled by a time limit, too many connections.
POSTGRESQL_BUSY = ("40001", "40P01", "55P03", "57014", "53300")
# The connection, resources, shutting down or starting, the system; a primary that is a standby now.
POSTGRESQL_AWAY = ("08", "53", "57P", "58", "25006")


def trouble(error: BaseException) -> Trouble | None:
    """Return what keeps the database from its work; None if the error is the program's own."""
    if isinstance(error, sa.exc.TimeoutError):
        return Trouble(True, "no connection was free in time", BUSY_RETRY_SECONDS)
    if not isinstance(error, sa.exc.DBAPIError):
        return None
    cause = error.orig
    words = str(cause).strip().replace("\n", "; ")
    busy = away = False
    if isinstance(cause, sqlite3.Error):
        # The codes of some errors have details in their upper bits.
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        busy, away = code in SQLITE_BUSY, code in SQLITE_AWAY
    else:
        state = getattr(cause, "sqlstate", None) or ""
        busy = state.startswith(POSTGRESQL_BUSY)
        # Without a code nobody answered, or the connection broke.
        away = state.startswith(POSTGRESQL_AWAY) or (
            isinstance(error, sa.exc.OperationalError) and not state
        )
    if busy:
        return Trouble(True, words, BUSY_RETRY_SECONDS)
    return (
        Trouble(False, words, AWAY_RETRY_SECONDS) if away or error.connection_invalidated else None
    )


class OutcomeUnknown(sa.exc.OperationalError):
    """The connection broke after a transaction was sent to be committed, and before the answer."""


def may_be_repeated(error: BaseException) -> bool:
    """Return whether a read that failed may succeed on another connection."""
    return isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated


def _commit(session: Session) -> None:
    # What cannot be written fails here, and is known not to be there.
    session.flush()
    try:
        session.commit()
    except sa.exc.DBAPIError as error:
        if not error.connection_invalidated or error.orig is None:
            raise
        raise OutcomeUnknown(
            error.statement, error.params, error.orig, connection_invalidated=True
        ) from error


@contextmanager
def writing(session: Session, lock: str | None = None) -> Iterator[Session]:
    """Write: what is done inside is durable after it, or undone if it raises.

    Inside another one it is a part of that. What the session has read before stays usable, and is
    as old as it is: read again inside what a decision depends on.

    Args:
        session: has nothing unwritten.
        lock: a name; of those with the same name one runs at a time, on all hosts.
    """
    if session.info.get(WRITES):
        if lock:
            take_lock(session, lock)
        yield session
        return
    if session.new or session.dirty or session.deleted:
        raise RuntimeError("objects were changed outside of a writing transaction")
    # Ends the transaction that earlier reads began; their objects are kept.
    session.commit()
    session.info[WRITES] = True
    try:
        session.connection(execution_options={WRITES: True})
        if lock:
            take_lock(session, lock)
        yield session
        _commit(session)
    except BaseException:
        session.rollback()
        raise
    finally:
        session.info.pop(WRITES, None)


def take_lock(session: Session, name: str, *, shared: bool = False) -> None:
    """Wait for the lock of that name; it is held until the transaction ends.

    Those that share it keep out only who wants it alone. On SQLite a writing transaction excludes
    all others already.
    """
    if session.get_bind().dialect.name == "postgresql":
        function = f"pg_advisory_xact_lock{'_shared' if shared else ''}"
        session.connection().exec_driver_sql(f"SELECT {function}({lock_number(name)})")


@functools.cache
def lock_number(name: str) -> int:
    """Return PostgreSQL's number (64 bits, signed) for a lock's name."""
    digest = hashlib.sha256(f"toll-app {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def init_app(app: Flask, url: sa.URL, writers: Path | None = None) -> None:
    """Give the application its engine. It connects with the first statement.

    `writers` is where processes that write to SQLite wake one another, if they do. Raises OSError
    if that cannot be.
    """
    if url.get_backend_name() == "sqlite" and Path(str(url.database)).parent == INSTANCE:
        INSTANCE.mkdir(exist_ok=True)
    sqlite = url.get_backend_name() == "sqlite"
    app.extensions[ENGINE] = make_engine(url, Writers(writers if sqlite else None))
    app.teardown_appcontext(_close_session)
