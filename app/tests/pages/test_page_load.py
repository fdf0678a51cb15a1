"""A database that is busy or away is no fault of the program: whoever asks is told to come again.

With 503 and Retry-After, in the form that was asked for, and without a traceback in the log.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from callers import PASSAGE, Caller
from flask import Flask
from support import SECRET

from toll import Settings, create_app, database
from toll.database import db, trouble
from toll.models import Passage
from toll.services import accounts

only_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
only_postgresql = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


@pytest.fixture(autouse=True)
def requests_wait_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long is the settings' to say."""
    monkeypatch.setattr(database, "REQUEST_WAIT_SECONDS", 0.1)


@contextlib.contextmanager
def held(engine: sa.Engine) -> Iterator[None]:
    """Somebody else keeps all writers out, as a migration, a restore or a vacuum does."""
    with engine.connect() as other:
        if engine.dialect.name == "sqlite":
            other.execution_options(**{database.WRITES: True})
        with other.begin():
            if engine.dialect.name == "postgresql":
                other.exec_driver_sql("LOCK TABLE passages IN ACCESS EXCLUSIVE MODE")
            yield


def is_told_to_come_again(answer, log: pytest.LogCaptureFixture, document: bool) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    if document:
        assert answer.mimetype == "application/problem+json"
        assert answer.json["type"] == "/api#busy"
    else:
        assert "<h1>Busy</h1>" in answer.text
    assert "SELECT" not in answer.text
    assert "INSERT" not in answer.text
    assert not [record for record in log.records if record.exc_info]
    assert "answered 503" in log.text


def test_recording_waits_and_is_told_to_come_again(recorder, session, caplog):
    with held(session.get_bind()):
        is_told_to_come_again(recorder.record(key="same"), caplog, document=True)
        is_told_to_come_again(recorder.record_batch([PASSAGE]), caplog, document=True)
    # As the answer says.
    assert recorder.record(key="same").status_code == 201
    assert session.scalar(sa.select(sa.func.count(Passage.id))) == 1


def test_a_form_waits_and_is_told_to_come_again(log_in, session, caplog):
    operator, admin = log_in("operator"), log_in("admin")
    fields = {
        "plaza": "harbour-bridge", "vehicle_class": "car", "payment_method": "tag",
        "plate": "AB12", "lane": "3", "at": "2026-05-04T08:15",
    }  # fmt: skip
    sent = operator.hidden("/passages/new") | fields
    tariff = admin.hidden("/tariffs/1/end") | {"at": "2090-01-01T00:00"}
    with held(session.get_bind()):
        is_told_to_come_again(operator.post("/passages/new", sent), caplog, document=False)
        if session.get_bind().dialect.name == "sqlite":
            is_told_to_come_again(admin.post("/tariffs/1/end", tariff), caplog, document=False)
    assert operator.post("/passages/new", sent).status_code == 303


@only_sqlite
def test_what_only_reads_does_not_wait_for_a_writer(client, recorder, session):
    with held(session.get_bind()):
        assert client.get("/readyz").status_code == 200
        assert client.get("/api/v1/quote?plaza=harbour-bridge&class=car").status_code == 200
        assert recorder.get("/passages").status_code == 200


@only_postgresql
def test_reads_wait_no_longer_than_writes(client, recorder, log_in, session, caplog):
    viewer = log_in("viewer")
    with held(session.get_bind()):
        for path in ("/passages", "/passages.csv"):
            is_told_to_come_again(recorder.get(path), caplog, document=True)
        for path in ("/dashboard", "/passages", "/passages/export.csv"):
            is_told_to_come_again(viewer.get(path), caplog, document=False)
        # Others are not held up, and the health watcher looks at other tables.
        assert client.get("/readyz").status_code == 200


def test_a_statement_has_its_time(recorder, monkeypatch, session, caplog):
    """A sum over ten years must not take a thread for as long as it pleases."""
    monkeypatch.setattr(database, "STATEMENT_SECONDS", 0.05)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    monkeypatch.setattr("toll.services.revenue.by", lambda s, *_: s.execute(sa.text(endless)).all())
    answer = recorder.get("/revenue", group="day")
    is_told_to_come_again(answer, caplog, document=True)
    assert "shorter time" in answer.json["detail"]
    # The connection is good for what comes next.
    assert recorder.record().status_code == 201


def test_commands_are_not_bounded_like_requests(app, monkeypatch):
    """A migration's or a pruning's statement takes what it takes."""
    monkeypatch.setattr(database, "STATEMENT_SECONDS", 0.001)
    with app.app_context(), db.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"
            assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "0"
        counted = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99999)"
        assert connection.exec_driver_sql(f"{counted} SELECT max(i) FROM n").scalar() == 99999


def test_no_connection_in_time(app: Flask, recorder, caplog):
    with app.app_context():
        engine = db.engine
    monkeypatched, engine.pool._timeout = engine.pool._timeout, 0.01  # type: ignore[attr-defined]
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(sa.exc.TimeoutError):
            while True:
                stack.enter_context(engine.connect())
        is_told_to_come_again(recorder.record(), caplog, document=True)
        ready = app.test_client().get("/readyz")
        assert (ready.status_code, ready.json["failed"]) == (503, ["database"])
        assert "Retry-After" in ready.headers
    engine.pool._timeout = monkeypatched  # type: ignore[attr-defined]
    assert recorder.record().status_code == 201


@pytest.mark.parametrize(
    "url", ["sqlite:////nowhere/at/all/toll.db", "postgresql://toll@/toll?host=/nowhere/at/all"]
)
def test_a_database_that_is_away(url, caplog):
    client = create_app(Settings(secret_key=SECRET, database_url=url)).test_client()
    key = "toll_" + "a" * 8 + "_" + "a" * 43
    is_told_to_come_again(Caller(client, key).record(), caplog, document=True)
    for path in ("/", "/api/v1/plazas"):
        is_told_to_come_again(client.get(path), caplog, document=path.startswith("/api"))
    ready = client.get("/readyz")
    assert (ready.status_code, ready.headers["Retry-After"]) == (503, "10")
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 4
    assert client.get("/healthz").status_code == client.get("/metrics").status_code == 200


@only_postgresql
def test_a_server_that_ends_connections(app, recorder, session, caplog):
    """As at its restart: the one under way is told to come again, the next is served."""
    with app.app_context():
        engine = db.engine

    def end_all(*_: object) -> None:
        session.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        )

    sa.event.listen(engine, "before_cursor_execute", end_all, once=True)
    is_told_to_come_again(recorder.record(), caplog, document=True)
    assert recorder.record().status_code == 201


@only_sqlite
def test_faults_of_the_program_stay_failures(recorder, app, session):
    """A table that is missing is no reason to come again."""
    session.execute(sa.text("ALTER TABLE passages RENAME TO others"))
    session.commit()
    app.config["PROPAGATE_EXCEPTIONS"] = False
    answer = recorder.get("/passages")
    assert answer.status_code == 500
    assert "Retry-After" not in answer.headers


class Coded(sqlite3.OperationalError):
    """SQLite's error of a code."""

    def __init__(self, code: int) -> None:
        super().__init__("words")
        self.sqlite_errorcode = code


def postgresql(code: str | None) -> Exception:
    """Return PostgreSQL's error of a code, or one without."""
    return psycopg.errors.lookup(code)("words") if code else psycopg.OperationalError("words")


@pytest.mark.parametrize(
    ("cause", "busy"),
    [
        (Coded(sqlite3.SQLITE_BUSY), True),
        (Coded(sqlite3.SQLITE_BUSY_SNAPSHOT), True),
        (Coded(sqlite3.SQLITE_LOCKED), True),
        (Coded(sqlite3.SQLITE_INTERRUPT), True),
        (Coded(sqlite3.SQLITE_FULL), False),
        (Coded(sqlite3.SQLITE_IOERR), False),
        (Coded(sqlite3.SQLITE_CANTOPEN), False),
        (Coded(sqlite3.SQLITE_READONLY), False),
        (Coded(sqlite3.SQLITE_ERROR), None),
        (Coded(sqlite3.SQLITE_CONSTRAINT), None),
        (postgresql("55P03"), True),
        (postgresql("57014"), True),
        (postgresql("40P01"), True),
        (postgresql("40001"), True),
        (postgresql("53300"), True),
        (postgresql("53100"), False),
        (postgresql("57P01"), False),
        (postgresql("57P03"), False),
        (postgresql("08006"), False),
        (postgresql("25006"), False),
        (postgresql(None), False),
        (postgresql("42P01"), None),
        (postgresql("23505"), None),
    ],
    ids=lambda value: getattr(value, "sqlite_errorcode", getattr(value, "sqlstate", value)),
)
def test_what_is_load_and_what_is_a_fault(cause, busy):
    kind = sa.exc.OperationalError
    if isinstance(cause, psycopg.ProgrammingError | psycopg.IntegrityError):
        kind = sa.exc.ProgrammingError
    found = trouble(kind("SELECT secret", {}, cause))
    assert (found.busy if found else None) is busy
    if found:
        assert found.words == "words"


@only_sqlite
def test_a_command_says_that_others_keep_the_database_busy(app, session, monkeypatch):
    monkeypatch.setattr(database, "SQLITE_BUSY_SECONDS", 0.1)
    with held(session.get_bind()):
        result = app.test_cli_runner().invoke(
            args=["toll", "key", "create", "k", "--role", "reader"]
        )
    assert result.exit_code == 1
    assert "The database is busy: database is locked" in result.stderr
    assert "try again" in result.stderr
    assert isinstance(result.exception, SystemExit)
    assert accounts.list_keys(session) == []


@only_postgresql
def test_a_url_may_have_options_of_its_own(database_url):
    """What the application asks of a connection does not replace them."""
    app = create_app(
        Settings(secret_key=SECRET, database_url=f"{database_url}&options=-c%20work_mem%3D5MB")
    )
    with app.test_request_context(), db.engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW work_mem").scalar() == "5MB"
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "100ms"
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "10s"


def test_the_document_names_it(client):
    document = json.loads(client.get("/api/v1/openapi.json").data)
    for methods in document["paths"].values():
        for operation in methods.values():
            assert "Retry-After" in operation["responses"]["503"]["headers"]
