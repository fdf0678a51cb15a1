"""Reads a copy from its first page or row to its last."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..application import Application
from ..errors import HostError
from . import commands

NAME = rb'("(?:[^"]|"")+"|[\w$]+)'
COPIED = re.compile(rb"COPY (?:" + NAME + rb"\.)?" + NAME + rb" (?:\((.*)\))? ?FROM stdin;\n")
END = b"\\.\n"


@dataclass(frozen=True)
class Contents:
    """What is in a copy.

    Attributes:
        schema: the revision of its schema; empty if its tables do not say one.
        works_with: revisions whose releases work with this schema as well.
        tables: how many rows each has.
    """

    schema: str
    works_with: list[str]
    tables: dict[str, int]


def schema_table(application: Application) -> str:
    """The table with `revision` and `works_with` of the schema; empty if there is none."""
    return str(application.settings.get("database", {}).get("schema_table", ""))


def examine(path: Path, kind: str, owner: str, table: str) -> Contents:
    """Read all of a copy. Raises HostError if it is damaged or not a copy of the application's.

    Args:
        kind: `sqlite` or `postgresql`.
        owner: the name of the application.
        table: that says the schema; empty if there is none.
    """
    if kind == "sqlite":
        contents = examine_sqlite(path, owner, table)
    else:
        contents = examine_dump(path, table)
    if table and not contents.schema:
        raise HostError(f"The copy is not one of {owner}'s: its table {table} names no schema.")
    if not contents.tables:
        raise HostError("The copy is empty: it has no table.")
    return contents


def examine_sqlite(path: Path, owner: str, table: str) -> Contents:
    """The same of a SQLite file; see `examine`."""
    row = None
    try:
        uri = f"{path.as_uri()}?mode=ro&immutable=1"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            ask = connection.execute
            verdict = ask("PRAGMA integrity_check").fetchone()[0]
            if verdict != "ok":
                raise HostError(f"The copy is damaged: {verdict}.")
            if table:
                row = ask(f"SELECT revision, works_with FROM {quoted(table)}").fetchone()
            # A virtual table may need a module that this host lacks; its rows are in others.
            names = ask(
                "SELECT name FROM sqlite_master WHERE type = 'table' "
                "AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
            )
            tables = {
                name: ask(f"SELECT count(*) FROM {quoted(name)}").fetchone()[0]
                for (name,) in names.fetchall()
                if not name.startswith("sqlite_")
            }
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise HostError(f"The copy is damaged, or not a copy of {owner}'s: {error}.") from None
    schema, works_with = row or ("", "[]")
    return Contents(schema or "", json.loads(works_with), tables)


def quoted(name: str) -> str:
    """A name as SQL reads it, whatever is in it."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def plain(name: bytes) -> str:
    """A name of SQL without its quotation marks."""
    text = name.decode()
    return text[1:-1].replace('""', '"') if text.startswith('"') else text


def merged(parts: dict[str, Contents]) -> Contents:
    """What several databases have together; a table is named after its database too."""
    if len(parts) == 1:
        return next(iter(parts.values()))
    first = next(iter(parts.values()), Contents("", [], {}))
    tables = {
        f"{name}/{table}": rows
        for name, contents in parts.items()
        for table, rows in contents.tables.items()
    }
    return Contents(first.schema, first.works_with, tables)


def examine_dump(path: Path, table: str) -> Contents:
    """The same of a file of pg_dump, every row of which is read; see `examine`."""
    tables: dict[str, int] = {}
    states: list[dict[str, str]] = []
    argv = ["pg_restore", "--list", str(path)]
    commands.run(argv, "Reading the contents of the copy with pg_restore")
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            ["pg_restore", "--data-only", "--file=-", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                begin = COPIED.fullmatch(line)
                if begin is None:
                    continue
                name = plain(begin[2])
                if begin[1] not in (None, b"public"):
                    name = f"{plain(begin[1])}.{name}"
                columns = [column.strip(' "') for column in (begin[3] or b"").decode().split(",")]
                tables[name] = 0
                for row in lines:
                    if row == END:
                        break
                    tables[name] += 1
                    if name == table:
                        cells = row.decode().rstrip("\n").replace("\\\\", "\\").split("\t")
                        states.append(dict(zip(columns, cells)))  # noqa: B905 (Python 3.9)
        if process.wait():
            errors.seek(0)
            reason = errors.read().decode(errors="replace").strip()
            raise HostError(f"The copy is damaged: {reason}.")
    state = states[0] if states else {"revision": "", "works_with": "[]"}
    return Contents(
        state["revision"], json.loads(state["works_with"]), dict(sorted(tables.items()))
    )
