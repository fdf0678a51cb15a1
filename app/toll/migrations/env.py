"""Alembic's environment: `toll.schema` hands it a connection, its own command line makes one."""

from __future__ import annotations

from alembic import context
from sqlalchemy.engine import Connection

from toll import models, schema
from toll.settings import Settings


def run(connection: Connection) -> None:
    """Run what was asked for on a connection, in the transaction that it has."""
    context.configure(
        connection=connection,
        target_metadata=models.Model.metadata,
        # SQLite changes a table by making another one.
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
        compare_type=True,
        on_version_apply=context.config.attributes.get("on_version_apply"),
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with schema.connected(Settings.from_environment().database_url) as made:
        run(made)
