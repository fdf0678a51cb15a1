"""What several tests use: the databases, and a secret that is none."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.orm import Session

from toll import schema
from toll.database import make_engine
from toll.services import demo, passages
from toll.services.passages import NewPassage

SECRET = "0123456789abcdef" * 4


class PostgreSQL:
    """A server for the tests: on a unix socket in a directory of its own, by nobody of importance.

    The server refuses to run as root, so root starts it as Debian's user postgres.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if not programs:
            raise RuntimeError("There is no PostgreSQL server: run `make bootstrap`")
        self.bin = programs[-1].parent
        self.user = "postgres" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, *command: str | Path) -> None:
        """Run one of the server's programs as the user that the server has."""
        done = subprocess.run(
            [str(each) for each in command],
            user=self.user,
            group=self.user,
            extra_groups=[] if self.user else None,
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stderr}")

    def start(self, *options: str) -> None:
        """Start it; `options` are more settings, such as `fsync=off`."""
        data = self.directory / "data"
        if not data.exists():
            if self.user:
                shutil.chown(self.directory, self.user, self.user)
            self.run(
                *(self.bin / "initdb", "--pgdata", data, "--username", "toll"),
                *("--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
            )
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "max_connections": "60",
            "jit": "off",
        }
        arguments = [f"{name}={value}" for name, value in settings.items()] + list(options)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self.bin / "postgres",
                    *("-D", data),
                    *(part for each in arguments for part in ("-c", each)),
                ],
                user=self.user,
                group=self.user,
                extra_groups=[] if self.user else None,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None:
                    raise RuntimeError((self.directory / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it at once: what it held was for tests."""
        if self._process:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()

    def url(self, name: str) -> str:
        """Return a database's URL."""
        return f"postgresql://toll@/{name}?host={self.directory}"

    def execute(self, statement: str) -> None:
        """Execute a statement outside of any transaction and of any of the tests' databases."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


class Templates:
    """Databases that were made once, and are copied for each test."""

    def __init__(self, request: pytest.FixtureRequest, directory: Path) -> None:
        self._request = request
        self._directory = directory
        self._made: set[str] = set()
        self._numbers = itertools.count()

    def copy(self, backend: str, seeded: bool) -> tuple[str, str | None]:
        """Return a new database's URL, and its name if it is to be dropped."""
        template = f"{backend}_{'seeded' if seeded else 'migrated'}"
        number = next(self._numbers)
        if backend == "sqlite":
            file = self._directory / template
            if template not in self._made:
                self._fill(f"sqlite:///{file}", seeded)
            copied = self._directory / f"{number}.db"
            shutil.copyfile(file, copied)
            self._made.add(template)
            return f"sqlite:///{copied}", None
        server: PostgreSQL = self._request.getfixturevalue("postgresql")
        if template not in self._made:
            server.execute(f"CREATE DATABASE {template}")
            self._fill(server.url(template), seeded)
            self._made.add(template)
        name = f"test_{number}"
        server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return server.url(name), name

    def empty(self, backend: str) -> tuple[str, str | None]:
        """Return the URL of a database without a schema, and its name if it is to be dropped."""
        number = next(self._numbers)
        if backend == "sqlite":
            return f"sqlite:///{self._directory / f'{number}.db'}", None
        server: PostgreSQL = self._request.getfixturevalue("postgresql")
        server.execute(f"CREATE DATABASE test_{number}")
        return server.url(f"test_{number}"), f"test_{number}"

    def drop(self, name: str | None) -> None:
        """Remove a database of the server."""
        if name:
            server: PostgreSQL = self._request.getfixturevalue("postgresql")
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @staticmethod
    def _fill(url: str, seeded: bool) -> None:
        schema.migrate(url)
        engine = make_engine(url)
        if seeded:
            with Session(engine) as session:
                demo.seed_tariffs(session)
        if engine.dialect.name == "sqlite":
            with engine.connect() as connection:
                raw = connection.connection.cursor()
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        engine.dispose()


def record(session: Session, plate: str) -> None:
    """Take down one passage, at a moment of the past."""
    passages.record(
        session,
        NewPassage(
            plaza="harbour-bridge",
            lane="1",
            vehicle_class="car",
            plate=plate,
            payment_method="tag",
            passed_at=datetime(2026, 5, 4, tzinfo=UTC),
        ),
        "key:test",
    )
