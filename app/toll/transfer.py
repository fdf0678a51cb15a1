"""All data in a form that any database of this application can take in.

A copy (`toll.backup`) can be put back into a database of its own kind only. This goes from SQLite
to PostgreSQL and back: a file of JSON lines with every row of every table, in the order of their
keys, closed by the number of rows of each table and a SHA-256 of all lines before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, time
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from toll.backup import new_file
from toll.database import UtcDateTime, make_engine
from toll.models import Model, SchemaState
from toll.models import table as table_of
from toll.schema import AT_ONE_MOMENT, connected, migrate, schema_status

FORMAT = {"format": "toll-app transfer", "version": 1}
BATCH = 500
# The schema's own row is made by the migrations of the database that takes the others in.
TABLES = [each for each in Model.metadata.sorted_tables if each is not table_of(SchemaState)]


class TransferError(Exception):
    """The data were not written or not taken in; the message says why and what to do."""


def export_data(url: str, file: Path) -> dict[str, int]:
    """Write all data, as they are at one moment; return how many rows each table has.

    The file appears whole or not at all, and can be read by its owner only. Raises TransferError
    or BackupError.
    """
    engine = make_engine(url)
    try:
        with (
            engine.connect().execution_options(**AT_ONE_MOMENT[engine.dialect.name]) as connection,
            new_file(file) as path,
            path.open("w", encoding="utf-8") as written,
        ):
            status = schema_status(connection)
            if not status.compatible:
                raise TransferError(status.reason)
            counts: dict[str, int] = {}
            digest = hashlib.sha256()
            for line in _lines(connection, counts):
                digest.update(line.encode())
                written.write(line)
            end = {
                "tables": counts,
                "last_ids": {each.name: _last_id(connection, each) for each in TABLES},
                "sha256": digest.hexdigest(),
            }
            written.write(_line(end))
            return counts
    finally:
        engine.dispose()


def import_data(url: str, file: Path) -> dict[str, int]:
    """Take in what `export_data` wrote, all or nothing; return how many rows each table has.

    The database gets its schema first, and must not hold a row. What it holds afterwards is read
    again and compared, before it counts. Raises TransferError.
    """
    end = _check(file)
    migrate(url)
    with connected(url) as connection:
        counts = {each.name: _count(connection, each) for each in TABLES}
        full = [name for name, count in counts.items() if count]
        if full:
            raise TransferError(
                f"The database holds data already, in {', '.join(full)}, and nothing was changed "
                f"in it. Name an empty database, or empty this one"
            )
        with file.open(encoding="utf-8") as lines:
            _fill(connection, lines)
        for each in TABLES:
            _continue_after(connection, each, end["last_ids"].get(each.name) or 0)
        counts = {}
        digest = hashlib.sha256()
        for line in _lines(connection, counts):
            digest.update(line.encode())
        if counts != end["tables"] or digest.hexdigest() != end["sha256"]:
            raise TransferError(
                f"The database holds something else than {file} after it took that in: {counts}, "
                f"not {end['tables']}, or other values. Nothing was kept"
            )
        return counts


def _line(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n"


def _lines(connection: Connection, counts: dict[str, int]) -> Iterator[str]:
    """Yield the lines before the last one; count the rows of each table."""
    yield _line(FORMAT)
    for each in TABLES:
        counts[each.name] = 0
        yield _line({"table": each.name, "columns": each.columns.keys()})
        rows = connection.execution_options(yield_per=BATCH).execute(
            sa.select(each).order_by(*each.primary_key)
        )
        for row in rows:
            counts[each.name] += 1
            yield _line([_plain(value) for value in row])


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime | time) else value


def _value(column: sa.Column[Any], plain: Any) -> Any:
    if plain is None:
        return None
    if isinstance(column.type, UtcDateTime):
        return datetime.fromisoformat(plain)
    return time.fromisoformat(plain) if isinstance(column.type, sa.Time) else plain


def _check(file: Path) -> dict[str, Any]:
    """Return the last line of a whole file; raise TransferError if it is not one."""
    digest = hashlib.sha256()
    last = ""
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                if number == 0 and line != _line(FORMAT):
                    break
                digest.update(last.encode())
                last = line
        end = json.loads(last)
        if end["sha256"] == digest.hexdigest():
            return dict(end)
    except OSError as error:
        raise TransferError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        pass
    raise TransferError(f"{file} is not whole, or not a file of `flask toll export`: export again")


def _fill(connection: Connection, lines: Iterator[str]) -> None:
    next(lines)
    known = {each.name: each for each in TABLES}

    def rows() -> Iterator[tuple[sa.Table, dict[str, Any]]]:
        for line in lines:
            content = json.loads(line)
            if isinstance(content, dict):
                if "table" not in content:
                    return
                if content["table"] not in known:
                    raise TransferError(
                        f"This release knows no table {content['table']}: export and import with "
                        f"the same release"
                    )
                table = known[content["table"]]
                columns = [table.columns[name] for name in content["columns"]]
                continue
            yield (
                table,
                {
                    column.name: _value(column, plain)
                    for column, plain in zip(columns, content, strict=True)
                },
            )

    # Python 3.11 has no itertools.batched.
    left = rows()
    while batch := list(islice(left, BATCH)):
        for table in dict.fromkeys(table for table, _ in batch):
            connection.execute(sa.insert(table), [row for each, row in batch if each is table])


def _count(connection: Connection, table: sa.Table) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def _key(table: sa.Table) -> sa.Column[Any]:
    """The column that rows are numbered by."""
    (key,) = table.primary_key
    return key


def _last_id(connection: Connection, table: sa.Table) -> int:
    """The last number that was given, also if its row is gone since; 0 if there was none."""
    highest = connection.execute(sa.select(sa.func.max(_key(table)))).scalar_one() or 0
    if connection.dialect.name == "postgresql":
        name = _sequence(connection, table)
        asked = sa.text(f"SELECT last_value FROM {name} WHERE is_called")
        given = connection.execute(asked).scalar() if name else 0
    elif table.dialect_options["sqlite"]["autoincrement"]:
        asked = sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name")
        given = connection.execute(asked, {"name": table.name}).scalar()
    else:
        given = 0
    return max(int(highest), int(given or 0))


def _continue_after(connection: Connection, table: sa.Table, last: int) -> None:
    """Have the database give higher numbers from now on."""
    if not last:
        return
    if connection.dialect.name == "postgresql":
        if name := _sequence(connection, table):
            connection.execute(sa.text("SELECT setval(:name, :last)"), {"name": name, "last": last})
    elif table.dialect_options["sqlite"]["autoincrement"]:
        told = {"name": table.name, "last": last}
        sequence = "sqlite_sequence WHERE name = :name"
        connection.execute(sa.text(f"DELETE FROM {sequence}"), {"name": table.name})
        connection.execute(
            sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"), told
        )


def _sequence(connection: Connection, table: sa.Table) -> str | None:
    """PostgreSQL's name of what numbers the rows, quoted where it has to be."""
    asked = sa.text("SELECT pg_get_serial_sequence(:table, :column)")
    told = {"table": table.name, "column": _key(table).name}
    found: str | None = connection.execute(asked, told).scalar()
    return found
