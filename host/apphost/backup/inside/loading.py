"""The way back for a database of PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from typing import IO, BinaryIO

from .common import BLOCK, Failure, Told, UncertainError, connection, run, working_directory

PSQL = ("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1")
# How psql ends where the server refused a statement, so that a transaction is rolled back.
STATEMENT_REFUSED = 3
RESTORE = ("pg_restore", "--clean", "--if-exists", "--no-owner")
# pg_restore writes it from version 17 on, and a server before 17 refuses it.
TIMEOUT = b"SET transaction_timeout = 0;\n"
TIMEOUT_IF_KNOWN = (
    b"SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings "
    b"WHERE name = 'transaction_timeout';\n"
)
# How the lines begin that come before anything of the dump itself.
HEAD = (b"--", b"\\", b"SET ", b"\n")
# All that an application has made in its database; what belongs to an extension stays.
EMPTY = """
SET client_min_messages = warning;
DO $$
DECLARE item record;
BEGIN
  FOR item IN
    SELECT format('SCHEMA %I', nspname) AS name FROM pg_namespace AS it
    WHERE nspname !~ '^(pg_|information_schema$|public$)' AND NOT EXISTS (SELECT FROM pg_depend
      WHERE classid = 'pg_namespace'::regclass AND objid = it.oid AND deptype = 'e')
  LOOP EXECUTE 'DROP ' || item.name || ' CASCADE'; END LOOP;
  FOR item IN
    SELECT CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
      WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'c' THEN 'TYPE'
      ELSE 'TABLE' END || ' IF EXISTS ' || oid::regclass AS name
    FROM pg_class AS it WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
      AND relnamespace = 'public'::regnamespace AND NOT EXISTS (SELECT FROM pg_depend
      WHERE classid = 'pg_class'::regclass AND objid = it.oid AND deptype IN ('e', 'i'))
    ORDER BY relkind IN ('S', 'c')
  LOOP EXECUTE 'DROP ' || item.name || ' CASCADE'; END LOOP;
  FOR item IN
    SELECT 'ROUTINE IF EXISTS ' || oid::regprocedure AS name FROM pg_proc AS it
    WHERE pronamespace = 'public'::regnamespace AND NOT EXISTS (SELECT FROM pg_depend
      WHERE classid = 'pg_proc'::regclass AND objid = it.oid AND deptype IN ('e', 'i'))
  LOOP EXECUTE 'DROP ' || item.name || ' CASCADE'; END LOOP;
  FOR item IN
    SELECT 'TYPE IF EXISTS ' || oid::regtype AS name FROM pg_type AS it
    WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd', 'r')
      AND NOT EXISTS (SELECT FROM pg_depend
      WHERE classid = 'pg_type'::regclass AND objid = it.oid AND deptype IN ('e', 'i'))
  LOOP EXECUTE 'DROP ' || item.name || ' CASCADE'; END LOOP;
  PERFORM lo_unlink(oid) FROM pg_largeobject_metadata;
END $$;
"""


def load(told: Told, target: BinaryIO) -> None:
    """Make the dump on standard input the database, in one transaction."""
    database, environment = connection(told)
    source = sys.stdin.fileno()
    if "from" in told:
        # One of the application's own.
        descriptor = os.open(told["from"], os.O_RDONLY)
        os.dup2(descriptor, source)
    listed = run(["pg_restore", "--list"], environment, stdin=source).decode().splitlines()
    query = "SELECT extname FROM pg_extension"
    argv = [*PSQL, f"--dbname={database}", "--tuples-only", "--no-align", f"--command={query}"]
    present = run(argv, environment).decode().split()
    # Only its owner may drop or comment on an extension, and this one is used by what stays.
    skipped = re.compile(r"\d+; \d+ \d+ (COMMENT - EXTENSION |EXTENSION - (?P<name>\S+))")
    granted = re.compile(r"\d+; \d+ \d+ (DEFAULT )?ACL ")
    wanted: list[str] = []
    grants: list[str] = []
    for line in listed:
        match = skipped.match(line)
        if match and (match["name"] is None or match["name"] in present):
            continue
        (grants if granted.match(line) else wanted).append(line)
    replay(database, environment, wanted, f"BEGIN;\n{EMPTY}", "\nCOMMIT;\n")
    if grants:
        # Each by itself: a role that the copy knows may be of another server.
        words = ""
        try:
            words = replay(database, environment, grants, "", "", "--set=ON_ERROR_STOP=0")
        except (Failure, OSError) as error:
            words = str(error)
        if words:
            print(f"Some rights of other roles were not granted: {words}", file=sys.stderr)


def replay(
    database: str,
    environment: dict[str, str],
    listed: list[str],
    first: str,
    last: str,
    *options: str,
) -> str:
    """Run what a dump lists between some SQL; return what PostgreSQL says.

    Raises Failure, or UncertainError where the connection was lost and the last SQL may have run.
    """
    ended = False
    with working_directory() as directory:
        path = os.path.join(directory, "list")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(listed) + "\n")
        os.lseek(sys.stdin.fileno(), 0, os.SEEK_SET)
        with open(os.path.join(directory, "said"), "w+b") as said:
            psql = subprocess.Popen(
                [*PSQL, *options, f"--dbname={database}", "--output=/dev/null", "--file=-"],
                env=environment,
                stdin=subprocess.PIPE,
                stderr=said,
            )
            assert psql.stdin is not None
            dump = subprocess.Popen(
                [*RESTORE, f"--use-list={path}", "--file=-"],
                env=environment,
                stdin=sys.stdin.fileno(),
                stdout=subprocess.PIPE,
                stderr=said,
            )
            assert dump.stdout is not None
            with contextlib.suppress(BrokenPipeError), psql.stdin as sql, dump.stdout as script:
                sql.write(first.encode())
                copy_script(script, sql)
                # The end of its input alone is no reason to keep a half.
                if dump.wait() == 0:
                    ended = True
                    sql.write(last.encode())
            codes = dump.wait(), psql.wait()
            said.seek(0)
            words = said.read().decode(errors="replace").strip()
        if any(codes):
            certain = not ended or codes[1] == STATEMENT_REFUSED
            raise (Failure if certain else UncertainError)(f"PostgreSQL says: {words or codes}")
        return words


def copy_script(script: IO[bytes], sql: IO[bytes]) -> None:
    """Hand a script of pg_restore's to a server of any version."""
    for line in script:
        sql.write(TIMEOUT_IF_KNOWN if line == TIMEOUT else line)
        # A row of a table may read like it.
        if not line.startswith(HEAD):
            break
    shutil.copyfileobj(script, sql, BLOCK)
