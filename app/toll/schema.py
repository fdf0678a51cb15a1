"""The schema's state: which revision the database has, and whether this release can work with it.

A release's migrations run while the one before it serves, and an operator may go back to that one.
So each migration states the older heads that still work after it, and the database keeps this
statement where an older release, which knows nothing of the newer migration, can read it.
"""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from toll.database import WRITES, lock_number, make_engine

MIGRATIONS = Path(__file__).with_name("migrations")
# A change of a table waits for whoever reads it, and everybody else waits for the change.
POSTGRESQL_LOCK_TIMEOUT = "10s"
# A transaction sees one state: on SQLite each does, on PostgreSQL those that ask for it.
AT_ONE_MOMENT: dict[str, dict[str, str]] = {
    "sqlite": {},
    "postgresql": {"isolation_level": "REPEATABLE READ"},
}
Direction = Literal["upgrade", "downgrade"]
REMEDY = "Run: flask --app app toll migrate"


class SchemaError(Exception):
    """The schema cannot be changed; the message says why and what to do."""


@dataclass(frozen=True)
class SchemaStatus:
    """What the code needs and what the database has.

    Attributes:
        head: the revision that this release's code was written for.
        database: the database's revision; None if it has no schema.
        compatible: whether this release can work with it.
        reason: why not, with the remedy; else empty.
    """

    head: str
    database: str | None
    compatible: bool
    reason: str = ""


@functools.cache
def _chain(migrations: Path) -> tuple[str, ...]:
    # Read, not run: Alembic, which runs them, takes longer to import than a database to answer.
    stated = [_constants(file) for file in (migrations / "versions").glob("*.py")]
    after = {each.get("down_revision"): each.get("revision") for each in stated}
    chain: list[str] = []
    while (revision := after.pop(chain[-1] if chain else None, None)) is not None:
        chain.append(revision)
    if len(chain) != len(stated):
        raise SchemaError(
            f"The migrations in {migrations / 'versions'} have no single order: name as "
            f"down_revision of each the one before it, and None in the first"
        )
    return tuple(chain)


def _constants(file: Path) -> dict[str, str | None]:
    """Return which texts a migration gives a name, and what it says is None."""
    return {
        target.id: statement.value.value
        for statement in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name) and isinstance(statement.value.value, str | None)
    }


def head(migrations: Path = MIGRATIONS) -> str:
    """Return the newest revision of these migrations."""
    chain = _chain(migrations)
    if not chain:
        raise SchemaError(f"{migrations} has no migrations: install the application again")
    return chain[-1]


def known_revisions(migrations: Path = MIGRATIONS) -> list[str]:
    """Return the revisions that these migrations lead through, the oldest first."""
    return list(_chain(migrations))


def count_rows(engine: Engine) -> dict[str, int]:
    """Return how many rows each table has, all at one moment."""
    with engine.connect().execution_options(**AT_ONE_MOMENT[engine.dialect.name]) as connection:
        quote = engine.dialect.identifier_preparer.quote_identifier
        names = sorted(sa.inspect(connection).get_table_names())
        rows = (connection.exec_driver_sql(f"SELECT count(*) FROM {quote(name)}") for name in names)
        return {name: int(row.scalar_one()) for name, row in zip(names, rows, strict=True)}


def schema_status(engine: Engine | Connection, migrations: Path = MIGRATIONS) -> SchemaStatus:
    """Return whether this release can work with the database.

    Raises sqlalchemy.exc.SQLAlchemyError if the database is not reached.
    """
    if isinstance(engine, Engine):
        with engine.connect() as connection:
            return _status(connection, head(migrations))
    return _status(engine, head(migrations))


def _status(connection: Connection, needed: str) -> SchemaStatus:
    # Asked first: on PostgreSQL a failed statement would end the transaction.
    row = None
    if sa.inspect(connection).has_table("schema_state"):
        row = connection.execute(
            sa.text("SELECT revision, works_with FROM schema_state")
        ).one_or_none()
    if row is None:
        return SchemaStatus(needed, None, False, f"The database has no schema. {REMEDY}")
    revision = str(row.revision)
    stated = json.loads(row.works_with) if isinstance(row.works_with, str) else row.works_with
    if needed == revision or needed in stated:
        return SchemaStatus(needed, revision, True)
    reason = (
        f"The database has the schema {revision}, and this release needs {needed}. "
        f"If this is the newer release, migrate: flask --app app toll migrate. If it is the older "
        f"one, the newer schema does not work with it: use the newer release, or restore the copy "
        f"of the database from before"
    )
    return SchemaStatus(needed, revision, False, reason)


@contextmanager
def connected(url: str | sa.URL) -> Iterator[Connection]:
    """Yield a connection for migrations: in one transaction, alone, committed at the end."""
    engine = make_engine(url)
    try:
        with engine.connect() as plain:
            connection = plain.execution_options(**{WRITES: True})
            sqlite = engine.dialect.name == "sqlite"
            if sqlite:
                # Making a table again would delete what refers to it. Checked below instead.
                connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
            with connection.begin():
                if sqlite:
                    yield connection
                    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                    if broken:
                        raise SchemaError(
                            f"The migration leaves {len(broken)} rows that refer to nothing, in "
                            f"{', '.join(sorted({str(row[0]) for row in broken}))}: undone"
                        )
                else:
                    number = lock_number("migrate")
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))
                    connection.exec_driver_sql(
                        f"SET LOCAL lock_timeout = '{POSTGRESQL_LOCK_TIMEOUT}'"
                    )
                    yield connection
    finally:
        engine.dispose()


def migrate(
    url: str | sa.URL, revision: str = "head", migrations: Path = MIGRATIONS
) -> list[tuple[str, str]]:
    """Bring the schema to a revision, all or nothing; return the steps as (revision, title).

    One at a time, on all hosts: a second one waits and finds nothing to do. A database that is
    newer than these migrations is left as it is if they can work with it.
    """
    with connected(url) as connection:
        status = _status(connection, head(migrations))
        if status.compatible and status.database not in known_revisions(migrations):
            return []
        return _run(connection, "upgrade", revision, migrations)


def downgrade(
    url: str | sa.URL, revision: str, migrations: Path = MIGRATIONS
) -> list[tuple[str, str]]:
    """Bring the schema back to a revision, or to nothing (`base`); see `migrate`."""
    with connected(url) as connection:
        return _run(connection, "downgrade", revision, migrations)


def _run(
    connection: Connection, direction: Direction, revision: str, migrations: Path
) -> list[tuple[str, str]]:
    # Only who migrates needs Alembic.
    from toll import steps

    return steps.run(connection, direction, revision, migrations)
