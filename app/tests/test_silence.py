"""A database whose processes stand still, and whose kernel confirms every packet."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
import sqlalchemy as sa

from toll import database
from toll.database import db
from toll.models import Passage

pytestmark = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)

# Long enough for a server that is only slow.
SECONDS = 2.0


class Hanging:
    """Stops the server's process of a connection, as a host that hangs stops all of them."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.stopped: set[int] = set()

    def stop(self, connection: sa.Connection) -> None:
        """Stop the one that this connection talks to."""
        pid = connection.connection.dbapi_connection.info.backend_pid
        self.stopped.add(pid)
        os.kill(pid, signal.SIGSTOP)

    def stop_at(self, words: str, times: int = 1) -> None:
        """Stop as many as come to a statement with these words, before they hear of it."""

        def stop(connection: sa.Connection, _cursor: object, statement: str, *_: object) -> None:
            if words in statement and len(self.stopped) < times:
                self.stop(connection)

        sa.event.listen(self.engine, "before_cursor_execute", stop)

    def stop_before_commit(self, table: str) -> None:
        """Stop the one that has added to the table, when that is about to be committed."""
        added: set[int] = set()

        def note(connection: sa.Connection, _cursor: object, statement: str, *_: object) -> None:
            if f"INSERT INTO {table}" in statement:
                added.add(id(connection))

        def stop(connection: sa.Connection) -> None:
            if id(connection) in added and not self.stopped:
                self.stop(connection)

        sa.event.listen(self.engine, "before_cursor_execute", note)
        sa.event.listen(self.engine, "commit", stop)

    def go_on(self) -> None:
        """Let all of them go on."""
        for pid in self.stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.fixture
def hanging(app, monkeypatch) -> Iterator[Hanging]:
    monkeypatch.setattr(database, "SILENCE_SECONDS", SECONDS)
    monkeypatch.setattr(database, "PING_SECONDS", SECONDS)
    with app.app_context():
        made = Hanging(db.engine)
    # Where nothing ends the wait, the test is to fail and not to hang.
    end = threading.Timer(60, made.go_on)
    end.start()
    try:
        yield made
    finally:
        end.cancel()
        made.go_on()


def test_a_request_waits_longer_than_a_statement_may_take(app):
    """The server's own limit says what is wrong, and leaves the connection as it is."""
    assert database.SILENCE_SECONDS > database.STATEMENT_SECONDS


def test_a_command_waits_for_as_long_as_it_takes(app):
    """A migration may work for an hour without a word."""
    with app.app_context():
        connection = db.session.connection().connection.dbapi_connection
        assert connection.silence_seconds is None
        db.forget()
        db.engine.dispose()
    with app.test_request_context("/"):
        connection = db.session.connection().connection.dbapi_connection
        assert connection.silence_seconds == database.SILENCE_SECONDS


def test_a_connection_that_lay_idle_is_replaced(recorder, hanging):
    assert recorder.get("/passages").status_code == 200
    with hanging.engine.connect() as connection:
        hanging.stop(connection)
    assert recorder.record().status_code == 201
    assert hanging.stopped


@pytest.mark.parametrize("table", ["api_keys", "passages"])
def test_a_request_that_reads_is_tried_again(recorder, hanging, table):
    """Before its view, and in it."""
    recorder.record()
    hanging.stop_at(f"FROM {table}")
    answer = recorder.get("/passages")
    assert answer.status_code == 200
    assert len(answer.json["passages"]) == 1
    assert hanging.stopped


def test_a_request_that_reads_is_tried_again_once(recorder, hanging):
    """A database that is away is told of, and asked no further."""
    hanging.stop_at("FROM passages", times=9)
    answer = recorder.get("/passages")
    assert answer.status_code == 503
    assert answer.json["type"] == "/api#busy"
    assert len(hanging.stopped) == 2


def test_a_write_that_did_not_get_to_its_end_is_not_there(recorder, hanging, session):
    hanging.stop_at("INSERT INTO passages")
    answer = recorder.record(key="one")
    assert answer.status_code == 503
    assert answer.json["type"] == "/api#busy"
    hanging.go_on()
    assert recorder.record(key="one").status_code == 201
    assert session.scalar(sa.select(sa.func.count(Passage.id))) == 1


def test_a_write_of_which_nobody_knows_says_so_and_can_be_sent_again(recorder, hanging, session):
    """It was sent to be committed; the answer did not come."""
    hanging.stop_before_commit("passages")
    answer = recorder.record(key="one")
    assert hanging.stopped
    assert answer.status_code == 503
    assert answer.json["type"] == "/api#outcome-unknown"
    assert "with the same Idempotency-Key" in answer.json["detail"]
    assert int(answer.headers["Retry-After"]) > 0
    hanging.go_on()
    assert recorder.record(key="one").status_code in (200, 201)
    assert session.scalar(sa.select(sa.func.count(Passage.id))) == 1
