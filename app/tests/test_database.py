"""Transactions that hold on both databases, and a process that forks."""

from __future__ import annotations

import multiprocessing
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from toll import database
from toll.database import make_engine, normalised_url, writing
from toll.models import IdempotencyRecord, LoginAttempt, Passage, Plaza, Tariff

processes = multiprocessing.get_context("fork")


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_sqlite_is_durable_and_checks_references(session):
    """Its own defaults are neither."""
    asked = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    for pragma, value in asked.items():
        assert session.execute(sa.text(f"PRAGMA {pragma}")).scalar() == value


def test_who_comes_while_another_makes_the_database_waits(tmp_path):
    """SQLite by itself refuses at once to write ahead where somebody writes and does not yet."""
    path = tmp_path / "new.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("CREATE TABLE made (at TEXT)")
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, other.execute, ("COMMIT",)).start()
        engine = make_engine(f"sqlite:///{path}")
        with engine.connect() as connection:
            assert connection.execute(sa.text("PRAGMA journal_mode")).scalar() == "wal"
        engine.dispose()


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_postgresql_is_left_to_commit_as_its_server_says(session):
    """The tests' own server is told not to wait for the disk: no connection may ask for that."""
    row = sa.text("SELECT source FROM pg_settings WHERE name = 'synchronous_commit'")
    assert session.execute(row).scalar() == "command line"


@pytest.mark.parametrize(
    "row",
    [
        Plaza(code="harbour-bridge", name="x", road="x", time_zone="UTC", currency="EUR"),
        Tariff(
            plaza_id=1, class_id=999, name="x", amount=1, currency="EUR",
            valid_from=datetime(2020, 1, 1, tzinfo=UTC),
        ),
        Tariff(
            plaza_id=1, class_id=1, name="x", amount=-1, currency="EUR",
            valid_from=datetime(2020, 1, 1, tzinfo=UTC),
        ),
        Passage(
            plaza_id=1, class_id=1, lane="1", plate="X", amount=1, currency="EUR", tariff_id=1,
            tariff_name="x", payment_method="barter", recorded_by="x",
            passed_at=datetime(2020, 1, 1, tzinfo=UTC),
        ),
    ],
    ids=["unique", "reference", "amount", "payment method"],
)  # fmt: skip
def test_the_database_itself_refuses_nonsense(session, row):
    """Whatever a later release, or somebody with a console, does."""
    session.merge(row)
    with pytest.raises(IntegrityError):
        session.commit()


def test_moments_come_back_as_they_were(session):
    moment = datetime(2026, 5, 4, 8, 15, 30, 123456, tzinfo=timezone(timedelta(hours=5.75)))
    with writing(session):
        session.add(LoginAttempt(key="x", at=moment))
    session.expunge_all()
    found = session.scalars(sa.select(LoginAttempt)).one()
    assert found.at == moment
    assert found.at.tzinfo is UTC
    assert session.scalar(sa.select(LoginAttempt.id).where(LoginAttempt.at <= moment))


def test_a_moment_without_a_zone_is_refused(session):
    session.add(LoginAttempt(key="x", at=datetime(2026, 5, 4)))
    with pytest.raises(sa.exc.StatementError, match="has no time zone"):
        session.flush()


def _write_and_fail(session: Session, lock: str | None) -> None:
    with writing(session):
        with writing(session, lock):
            session.add(LoginAttempt(key="x", at=datetime.now(UTC)))
            session.flush()
        # Inside another one, writing is a part of that.
        raise RuntimeError


@pytest.mark.parametrize("lock", [None, "lock"])
def test_writing_is_undone_if_it_raises(session, lock):
    with pytest.raises(RuntimeError):
        _write_and_fail(session, lock)
    assert session.scalar(sa.select(sa.func.count(LoginAttempt.id))) == 0


def test_changes_outside_of_writing_are_a_mistake(session):
    """On SQLite they would fail under load, when another process writes in between."""
    session.add(LoginAttempt(key="x", at=datetime.now(UTC)))
    with pytest.raises(RuntimeError, match="outside of a writing transaction"), writing(session):
        pass


def test_what_was_read_before_writing_stays_usable(session):
    plaza = session.scalars(sa.select(Plaza)).first()
    with writing(session):
        session.add(LoginAttempt(key=plaza.name, at=datetime.now(UTC)))
    assert plaza.code


def _count_up(url: str, times: int) -> None:
    with Session(make_engine(url)) as session:
        for _ in range(times):
            # Read first, as a request that looks up its key does.
            session.execute(sa.select(Plaza.id)).all()
            with writing(session, "counter"):
                count = session.scalar(sa.select(sa.func.max(LoginAttempt.id))) or 0
                session.add(LoginAttempt(id=count + 1, key="x", at=datetime.now(UTC)))


def test_of_those_with_the_same_lock_one_runs_at_a_time(database_url, session):
    """Two that read the same highest number would both write the next one, and one would fail."""
    running = [processes.Process(target=_count_up, args=(database_url, 25)) for _ in range(4)]
    for process in running:
        process.start()
    for process in running:
        process.join()
        assert process.exitcode == 0
    assert session.scalar(sa.select(sa.func.count(LoginAttempt.id))) == 100


def _child_reads(engine: sa.Engine, results) -> None:
    with engine.connect() as connection:
        results.put(connection.execute(sa.select(sa.func.count(Plaza.id))).scalar())


def test_a_forked_process_has_connections_of_its_own(database_url):
    """gunicorn forks its workers; two processes on one connection would read each other's rows."""
    engine = make_engine(database_url)
    with engine.connect() as connection:
        before = connection.execute(sa.select(sa.func.count(Plaza.id))).scalar()
    results = processes.Queue()
    running = [processes.Process(target=_child_reads, args=(engine, results)) for _ in range(3)]
    for process in running:
        process.start()
    assert [results.get() for _ in running] == [before] * 3
    for process in running:
        process.join()
        assert process.exitcode == 0
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count(Plaza.id))).scalar() == before


def test_making_the_application_connects_to_nothing(app):
    """It is imported in gunicorn's master, before the fork."""
    from toll.database import db

    with app.app_context():
        assert db.engine.pool.checkedout() == 0
        assert db.engine.pool.checkedin() == 0


def test_a_request_has_one_session_which_is_closed_at_its_end(app):
    """A session that stays open keeps its connection, and a snapshot of the database."""
    from toll.database import db

    with app.app_context():
        session = db.session
        assert db.session is session
        session.execute(sa.text("SELECT 1"))
        assert db.engine.pool.checkedout() == 1
    assert not session.in_transaction()
    with app.app_context():
        assert db.session is not session
        assert db.engine.pool.checkedout() == 0


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://x/y", "names the database mysql"),
        ("secret", "is not a database URL"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_urls_that_are_refused(url, words):
    with pytest.raises(ValueError, match=words) as error:
        normalised_url(url)
    assert "sqlite:////var/lib/toll-app/toll.db" in error.value.args[1]
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_is_spoken_by_psycopg(scheme):
    assert normalised_url(f"{scheme}://u:p@h/d").drivername == "postgresql+psycopg"


def test_idempotency_records_hold_lists(session):
    with writing(session):
        session.add(
            IdempotencyRecord(scope="key:1", key="k", body_hash="h", passage_ids=[1, 2**53])
        )
    session.expunge_all()
    assert session.scalars(sa.select(IdempotencyRecord)).one().passage_ids == [1, 2**53]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_who_cannot_write_in_time_is_told_so(database_url, session, monkeypatch):
    """By an error that names the database, not by a request that hangs."""
    monkeypatch.setattr(database, "SQLITE_BUSY_SECONDS", 1)
    with Session(make_engine(database_url)) as other, writing(other):
        with pytest.raises(sa.exc.OperationalError, match="database is locked"), writing(session):
            pass
        # Readers do not wait, and the connection is as it was.
        assert session.scalar(sa.select(sa.func.count(Plaza.id))) == 3
    with writing(session):
        session.add(LoginAttempt(key="x", at=datetime.now(UTC)))
    assert session.scalar(sa.text("PRAGMA busy_timeout")) == 1000


def test_no_first_request_pays_for_the_mappers():
    """In a process of its own: here they are configured long since."""
    code = (
        "import os; os.environ['TOLL_ENVIRONMENT'] = 'development'; import app, toll.models as m; "
        "print(all(each.configured for each in m.Model.registry.mappers))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_file_that_is_moved_away_is_missed(recorder, app, database_url):
    """A worker that had it open went on, and what it recorded was in a file that nobody found."""
    file = Path(normalised_url(database_url).database)
    client = app.test_client()
    assert recorder.record().status_code == 201
    assert client.get("/readyz").status_code == 200
    away = file.with_name("away")
    away.mkdir()
    parts = list(file.parent.glob(f"{file.name}*"))
    for part in parts:
        part.rename(away / part.name)
    assert client.get("/readyz").json["failed"] == ["database"]
    assert recorder.record().status_code == 503
    assert not file.exists(), "a request made an empty one"
    for part in parts:
        (away / part.name).rename(part)
    assert client.get("/readyz").status_code == 200
    assert recorder.record().status_code == 201


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_file_that_is_replaced_is_opened_anew(recorder, app, database_url):
    """Such as by a copy that is put back while it serves."""
    file = Path(normalised_url(database_url).database)
    assert recorder.record().status_code == 201
    assert len(recorder.get("/passages").json["passages"]) == 1
    copy = file.with_name("copy.db")
    with closing(sqlite3.connect(file)) as old, closing(sqlite3.connect(copy)) as new:
        old.backup(new)
        new.execute("DELETE FROM passages")
        new.commit()
    for part in file.parent.glob(f"{file.name}-*"):
        part.unlink()
    copy.rename(file)
    assert recorder.get("/passages").json["passages"] == []


class Away:
    """A driver whose server is away for the first attempts."""

    OperationalError = psycopg.OperationalError
    silence_seconds: float | None = None

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts
        self.loaded_dbapi = self
        self.asked = 0

    def connect(self, *_args: object, **_options: object) -> Away:
        """Connect, to itself."""
        self.asked += 1
        if self.asked <= self.attempts:
            raise psycopg.OperationalError("session is read-only")
        return self


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only sleeping takes."""
    seconds = [100.0]
    monkeypatch.setattr(database.time, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(
        database.time, "sleep", lambda more: seconds.__setitem__(0, seconds[0] + more)
    )
    return seconds


def test_a_request_waits_for_a_primary_that_moves(app, clock):
    server = Away(20)
    with app.test_request_context("/"):
        assert database.Connector(server.connect)(server, None, (), {}) is server
    assert clock[0] == pytest.approx(102.0)


def test_a_database_that_stays_away_keeps_no_threads(app, clock):
    """The first wait, all others are told at once; once it was back they wait again."""
    server = Away(1000)
    connect = database.Connector(server.connect)
    with app.test_request_context("/"):
        with pytest.raises(psycopg.OperationalError):
            connect(server, None, (), {})
        assert clock[0] == pytest.approx(100 + database.REQUEST_WAIT_SECONDS, abs=0.2)
        tried, at = server.asked, clock[0]
        with pytest.raises(psycopg.OperationalError):
            connect(server, None, (), {})
        assert (server.asked, clock[0]) == (tried + 1, at)
        server.attempts = 0
        assert connect(server, None, (), {}) is server
        server.attempts = server.asked + 5
        assert connect(server, None, (), {}) is server


def test_while_a_database_is_away_one_request_asks_for_all(app, clock):
    """A host that hangs keeps who asks for as long as a connection may take."""
    server = Away(1000)
    connect = database.Connector(server.connect)
    asked, answered, told = threading.Event(), threading.Event(), []

    def hangs(*_args: object, **_options: object) -> Away:
        asked.set()
        assert answered.wait(60)
        return server

    def asks() -> None:
        with app.test_request_context("/"):
            told.append(connect(server, None, (), {}))

    with app.test_request_context("/"):
        with pytest.raises(psycopg.OperationalError):
            connect(server, None, (), {})
        connect = database.Connector(hangs)
        connect.missed(database.REQUEST_WAIT_SECONDS)
        first = threading.Thread(target=asks)
        first.start()
        assert asked.wait(60)
        with pytest.raises(psycopg.OperationalError, match="is away"):
            connect(server, None, (), {})
    answered.set()
    first.join()
    assert told == [server]


def test_an_answer_that_was_missed_long_ago_counts_no_more(app, clock):
    """One statement waited for a host that hung, and all others have a new primary since."""
    server = Away(0)
    connect = database.Connector(server.connect)
    with app.test_request_context("/"):
        connect(server, None, (), {})
        clock[0] += 5
        connect.missed(12)
        server.attempts = 1 + server.asked
        assert connect(server, None, (), {}) is server


def test_a_command_is_told_at_once(app, clock):
    """It says what is wrong to somebody who sits there."""
    server = Away(1)
    with pytest.raises(psycopg.OperationalError):
        database.Connector(server.connect)(server, None, (), {})
    assert (server.asked, clock[0]) == (1, 100.0)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_request_on_postgresql_takes_one_processor(app):
    """With two more for each list, those who record waited three times as long."""
    with app.test_request_context():
        shown = database.db.session.execute(sa.text("SHOW max_parallel_workers_per_gather"))
        assert shown.scalar() == "0"
