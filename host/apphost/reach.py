"""Whether the data can move to a database of PostgreSQL that no release uses yet."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from . import sandbox
from .answer import Answer
from .application import Application
from .errors import RefusedError

LIMIT_SECONDS = 60

# Run by a release, whose driver it needs. Its arguments are tables that do not count.
PROGRAM = """
import sys, psycopg
from psycopg import sql
url = sys.stdin.read().strip().replace("postgresql+psycopg:", "postgresql:")
try:
    with psycopg.connect(url, connect_timeout=10) as database:
        tables = database.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace = current_schema()::regnamespace"
        ).fetchall()
        for (name,) in tables:
            if name in sys.argv[1:]:
                continue
            some = sql.SQL("SELECT EXISTS (SELECT 1 FROM {})").format(sql.Identifier(name))
            if database.execute(some).fetchone()[0]:
                sys.exit(f"it holds data already, in {name}; empty it, or name another one")
except psycopg.Error as error:
    sys.exit("it cannot be used: " + str(error).strip())
"""


def look(application: Application, release: str, url: str, ignored: Sequence[str]) -> Answer:
    """Say whether data can move to a database. Raises RefusedError if not.

    Args:
        release: whose driver is used; the live one if empty.
        url: of the database, with its password.
        ignored: tables that may hold rows.
    """
    directory = sandbox.release_directory(application, release or None)
    try:
        result = subprocess.run(
            [str(directory / "bin/python"), "-IB", "-c", PROGRAM, *ignored],
            input=url,
            check=False,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        reason = f"it gave no answer within {LIMIT_SECONDS} s"
    else:
        if not result.returncode:
            return Answer("The database is reached, and empty.")
        reason = " ".join(result.stderr.split())[-500:] or f"exit code {result.returncode}"
    raise RefusedError(
        f"The data cannot move to the database of {application.database.credential}: "
        f"{reason.rstrip('.')}. Nothing was stopped."
    )
