"""The schema's state: which revision the database has, and whether this release can work with it.

A release's migrations run while the one before it serves, and an operator may go back to that one.
So each migration states the older heads that still work after it, and the database keeps this
statement where an older release, which knows nothing of the newer migration, can read it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
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


def _config(migrations: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    return config


@functools.cache
def _scripts(migrations: Path) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(migrations))


@functools.cache
def head(migrations: Path = MIGRATIONS) -> str:
    """Return the newest revision of these migrations."""
    revision = _scripts(migrations).get_current_head()
    if revision is None:
        raise SchemaError(f"{migrations} has no migrations: install the application again")
    return revision


def known_revisions(migrations: Path = MIGRATIONS) -> list[str]:
    """Return the revisions that these migrations lead through, the oldest first."""
    return [each.revision for each in _scripts(migrations).walk_revisions()][::-1]


def count_rows(engine: Engine) -> dict[str, int]:
    """Return how many rows each table has, all at one moment."""
    with engine.connect().execution_options(**AT_ONE_MOMENT[engine.dialect.name]) as connection:
        quote = engine.dialect.identifier_preparer.quote_identifier
        names = sorted(sa.inspect(connection).get_table_names())
        rows = (connection.exec_driver_sql(f"SELECT count(*) FROM {quote(name)}") for name in names)
        return {name: int(row.scalar_one()) for name, row in zip(names, rows, strict=True)}


def works_with(script: Script) -> tuple[str, ...]:
    """Return what a migration states: the older heads whose code works with its schema."""
    stated = getattr(script.module, "works_with", None)
    if not isinstance(stated, tuple) or not all(isinstance(each, str) for each in stated):
        raise SchemaError(
            f"The migration {script.revision} does not state works_with: add the older revisions "
            f"whose code works with its schema"
        )
    return stated


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
        return _run(connection, command.upgrade, revision, migrations)


def downgrade(
    url: str | sa.URL, revision: str, migrations: Path = MIGRATIONS
) -> list[tuple[str, str]]:
    """Bring the schema back to a revision, or to nothing (`base`); see `migrate`."""
    with connected(url) as connection:
        return _run(connection, command.downgrade, revision, migrations)


def _run(
    connection: Connection, run: Callable[[Config, str], None], revision: str, migrations: Path
) -> list[tuple[str, str]]:
    scripts = _scripts(migrations)
    done: list[tuple[str, str]] = []

    def note(*, step: MigrationInfo, **_: object) -> None:
        assert step.up_revision_id is not None
        script = scripts.get_revision(step.up_revision_id)
        done.append((script.revision, script.doc))

    config = _config(migrations)
    config.attributes.update(connection=connection, on_version_apply=note)
    try:
        run(config, revision)
    except CommandError as error:
        raise SchemaError(
            f"The schema cannot be brought to {revision}: {error}. The revisions are the names of "
            f"the files in {migrations / 'versions'}"
        ) from error
    _write_state(connection, scripts)
    return done


def _write_state(connection: Connection, scripts: ScriptDirectory) -> None:
    context = MigrationContext.configure(connection)
    revision = context.get_current_revision()
    if revision is None or not sa.inspect(connection).has_table("schema_state"):
        return
    state = sa.table(
        "schema_state", sa.column("id"), sa.column("revision"), sa.column("works_with", sa.JSON)
    )
    connection.execute(sa.delete(state))
    connection.execute(
        sa.insert(state).values(
            id=1, revision=revision, works_with=list(works_with(scripts.get_revision(revision)))
        )
    )
