"""An application on each database, with settings that owe nothing to this machine's environment.

Every test that has `app`, `session` or `database_url` runs twice: on SQLite and on PostgreSQL. One
that is about something else takes a single one:

    @pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from callers import Caller
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from support import SECRET, PostgreSQL, Templates

from toll import Settings, create_app
from toll.database import make_engine
from toll.services import accounts


@pytest.fixture
def engines() -> Iterator[set[sa.Engine]]:
    """The engines that a test uses, in whatever way they came about."""
    used: set[sa.Engine] = set()

    def note(connection: sa.Connection) -> None:
        used.add(connection.engine)

    sa.event.listen(sa.Engine, "engine_connect", note)
    yield used
    sa.event.remove(sa.Engine, "engine_connect", note)


@pytest.fixture(autouse=True)
def engines_are_closed(engines: set[sa.Engine]) -> Iterator[None]:
    """Also for tests that make a database of their own."""
    yield
    close(engines)


def close(engines: set[sa.Engine]) -> None:
    """Close idle connections, so that their database can go; fail if any is in use.

    One that nobody gives back is lost to the pool, and a service runs out of them.
    """
    in_use = sum(engine.pool.checkedout() for engine in engines)  # type: ignore[attr-defined]
    for engine in engines:
        engine.dispose()
    assert in_use == 0, f"{in_use} connections are in use after the test"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """The server, for all tests."""
    # A socket's path is at most 107 characters long, which pytest's directories may exceed.
    with tempfile.TemporaryDirectory(prefix="toll-postgresql-") as directory:
        server = PostgreSQL(Path(directory))
        server.start("fsync=off", "synchronous_commit=off", "full_page_writes=off")
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Which database."""
    return str(request.param)


@pytest.fixture(scope="session")
def templates(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Templates:
    """Where databases come from."""
    return Templates(request, tmp_path_factory.mktemp("databases"))


@pytest.fixture
def database_url(backend: str, templates: Templates, engines: set[sa.Engine]) -> Iterator[str]:
    """The URL of a database with plazas, classes and tariffs of the demo, and no passages."""
    url, name = templates.copy(backend, seeded=True)
    yield url
    try:
        close(engines)
    finally:
        templates.drop(name)


@pytest.fixture
def migrated_url(backend: str, templates: Templates, engines: set[sa.Engine]) -> Iterator[str]:
    """The URL of a database with a schema and nothing in it."""
    url, name = templates.copy(backend, seeded=False)
    yield url
    try:
        close(engines)
    finally:
        templates.drop(name)


@pytest.fixture
def empty_url(backend: str, templates: Templates, engines: set[sa.Engine]) -> Iterator[str]:
    """The URL of a database without a schema."""
    url, name = templates.empty(backend)
    yield url
    try:
        close(engines)
    finally:
        templates.drop(name)


@pytest.fixture
def settings(database_url: str) -> Settings:
    """A production application's settings, behind no proxy."""
    return Settings(secret_key=SECRET, database_url=database_url)


@pytest.fixture
def app(settings: Settings) -> Flask:
    """The application."""
    return create_app(settings)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A visitor."""
    return app.test_client()


@pytest.fixture
def nginx() -> Iterator[Callable[[Flask], FlaskClient]]:
    """Makes a client whose requests come over a unix socket, as gunicorn hands nginx's over."""
    ours, others = socket.socketpair(socket.AF_UNIX)

    def behind(app: Flask) -> FlaskClient:
        made = app.test_client()
        made.environ_base |= {"gunicorn.socket": ours, "REMOTE_ADDR": ""}
        return made

    with ours, others:
        yield behind


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    """A session of its own: what a request has not committed is not seen here."""
    with Session(make_engine(database_url), expire_on_commit=False) as session:
        yield session


@pytest.fixture
def queries(session: Session) -> Iterator[list[str]]:
    """The statements that `session` sends."""
    engine = session.get_bind()
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    yield sent
    sa.event.remove(engine, "before_cursor_execute", note)


# Callers of the API, each with a key of their own.


@pytest.fixture
def recorder_key(session: Session) -> str:
    """A key that may record."""
    return accounts.create_key(session, "lane-7", "recorder")[1]


@pytest.fixture
def reader_key(session: Session) -> str:
    """A key that may read."""
    return accounts.create_key(session, "bookkeeping", "reader")[1]


@pytest.fixture
def recorder(app: Flask, recorder_key: str) -> Caller:
    """Records and reads."""
    return Caller(app.test_client(), recorder_key)


@pytest.fixture
def reader(app: Flask, reader_key: str) -> Caller:
    """Reads only."""
    return Caller(app.test_client(), reader_key)
