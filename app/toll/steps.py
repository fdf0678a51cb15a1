"""The migrations' steps, which Alembic runs. `toll.schema` says when and in which transaction."""

from __future__ import annotations

import functools
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine import Connection

from toll.schema import Direction, SchemaError


def _config(migrations: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    return config


@functools.cache
def scripts_of(migrations: Path) -> ScriptDirectory:
    """Return the migrations in a folder, as Alembic knows them."""
    return ScriptDirectory.from_config(_config(migrations))


def works_with(script: Script) -> tuple[str, ...]:
    """Return what a migration states: the older heads whose code works with its schema."""
    stated = getattr(script.module, "works_with", None)
    if not isinstance(stated, tuple) or not all(isinstance(each, str) for each in stated):
        raise SchemaError(
            f"The migration {script.revision} does not state works_with: add the older revisions "
            f"whose code works with its schema"
        )
    return stated


def run(
    connection: Connection, direction: Direction, revision: str, migrations: Path
) -> list[tuple[str, str]]:
    """Bring the schema to a revision in the transaction that the connection has.

    Returns the steps as (revision, title). Raises SchemaError.
    """
    scripts = scripts_of(migrations)
    done: list[tuple[str, str]] = []

    def note(*, step: MigrationInfo, **_: object) -> None:
        assert step.up_revision_id is not None
        script = scripts.get_revision(step.up_revision_id)
        done.append((script.revision, script.doc))

    config = _config(migrations)
    config.attributes.update(connection=connection, on_version_apply=note)
    try:
        (command.upgrade if direction == "upgrade" else command.downgrade)(config, revision)
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
