"""PostgreSQL, copied and replaced without the application, with its programs played by scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from apphost import migration
from apphost.backup import engine
from apphost.backup.examine import COPIED, merged
from apphost.backup.inside import common
from apphost.errors import HostError

from .whole_host import WholeHost

URL = "postgresql+psycopg://shop:hush%407f3a@db.example.com:5433/shop?sslmode=require"
LIST = """;
; Archive created
3; 3079 16385 EXTENSION - citext
4; 0 0 COMMENT - EXTENSION citext
5; 3079 16386 EXTENSION - hstore
6; 0 0 COMMENT - EXTENSION hstore
215; 1259 16395 TABLE public orders shop
216; 0 0 ACL public TABLE orders shop
"""
# Each notes its arguments, its password, and what it read.
TOOL = """#!/bin/sh
echo "$(basename "$0") $*" >> {root}/tools
echo "$PGPASSWORD" >> {root}/passwords
"""
RESTORE = (
    TOOL
    + """
case "$*" in
    *--list*) cat {root}/list ;;
    *--data-only*) printf 'COPY public.orders (id) FROM stdin;\\n1\\n2\\n\\\\.\\n' ;;
    *) sed 's/^/-- /' "$(echo "$*" | sed 's/.*--use-list=\\([^ ]*\\).*/\\1/')"
       test ! -e {root}/broken-pg_restore || {{ cat {root}/broken-pg_restore >&2; exit 1; }} ;;
esac
"""
)
PSQL = (
    TOOL
    + """
case "$*" in
    *pg_extension*) echo citext ;;
    *) cat >> {root}/sql
       test ! -e {root}/broken-psql || {{ cat {root}/broken-psql >&2; exit 3; }} ;;
esac
"""
)
DUMP = (
    TOOL
    + "test ! -e {root}/broken-pg_dump || {{ cat {root}/broken-pg_dump >&2; exit 1; }}\necho dump\n"
)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WholeHost:
    made = WholeHost(tmp_path, monkeypatch)
    for name, text in (("pg_restore", RESTORE), ("psql", PSQL), ("pg_dump", DUMP)):
        path = tmp_path / "bin" / name
        path.write_text(text.format(root=tmp_path))
        path.chmod(0o755)
    (tmp_path / "list").write_text(LIST)
    credentials = made.application.etc / "credentials"
    credentials.mkdir(parents=True)
    (credentials / "database_url").write_text(URL)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    made.describe(database={"kind": "postgresql", "files": ["shop.db"]}, directories=["uploads"])
    return made


def test_dump_and_files_are_one_copy(host: WholeHost) -> None:
    record = host.good("backup")["record"]
    assert record["databases"] == {"postgresql.dump": 5}
    assert (record["database"], record["tables"]) == ("postgresql", {"orders": 2})
    host.good("backup", "verify", record["name"])
    host.describe(directories=[])
    assert host.good("backup")["record"]["name"].endswith("Z-r1.dump")


def test_the_password_is_in_no_argument_no_record_and_no_message(host: WholeHost) -> None:
    name = host.back_up()
    host.break_("psql", "no luck")
    _, answer = host.run("restore", name)
    tools = (host.root / "tools").read_text()
    shown = "postgresql://shop@db.example.com:5433/shop?sslmode=require"
    assert f"pg_dump --format=custom --no-owner --dbname={shown}\n" in tools
    assert set((host.root / "passwords").read_text().split()) == {"hush@7f3a"}
    for text in (tools, json.dumps(answer), *map(Path.read_text, host.directory.glob("*.json"))):
        assert "7f3a" not in text


@pytest.mark.parametrize(
    ("url", "shown", "password"),
    [
        (URL, "postgresql://shop@db.example.com:5433/shop?sslmode=require", "hush@7f3a"),
        ("postgres://shop:p@[::1]/shop", "postgresql://shop@[::1]/shop", "p"),
        ("postgresql:///shop?host=/run/pg", "postgresql:///shop?host=%2Frun%2Fpg", None),
        ("postgresql://a/b?password=p%20q&user=u", "postgresql://a/b?user=u", "p q"),
    ],
)
def test_url_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, shown: str, password: str | None
) -> None:
    (tmp_path / "url").write_text(url + "\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("PGPASSWORD", raising=False)
    address, environment = common.connection({"credential": "url"})
    assert (address, environment.get("PGPASSWORD")) == (shown, password)


def test_a_restore_is_one_transaction_into_an_empty_database(host: WholeHost) -> None:
    """What the copy does not have goes as well; extensions stay, and rights are given again."""
    name = host.back_up()
    host.change()
    host.good("restore", name)
    sql = (host.root / "sql").read_text()
    first, second = sql.split("COMMIT;\n")[:2]
    assert first.startswith("BEGIN;\n")
    assert "DROP ' || item.name || ' CASCADE'" in first
    assert "-- 215; 1259 16395 TABLE public orders shop" in first
    # This one is there already, and only its owner may drop it or comment on it.
    assert "EXTENSION - citext" not in first
    assert "EXTENSION - hstore" in first
    assert "COMMENT" not in first
    # A role that does not exist here costs no restore.
    assert "-- 216; 0 0 ACL public TABLE orders shop" in second
    assert "BEGIN" not in second
    assert "ACL" not in first
    assert not (host.uploads / "new.txt").exists()


def test_a_server_is_given_no_setting_that_it_does_not_know(host: WholeHost) -> None:
    """pg_restore 17 begins with one of 17's whatever the server, and psql stops at an error."""
    name = host.back_up()
    timeout = "SET transaction_timeout = 0;\n"
    rows = f"COPY public.notes (id, note) FROM stdin;\n1\t{timeout}{timeout}\\.\n"
    head = (
        f"--\n-- PostgreSQL database dump\n--\n\n\\restrict x\n\nSET lock_timeout = 0;\n{timeout}"
    )
    search_path = "SELECT pg_catalog.set_config('search_path', '', false);\n"
    (host.root / "script").write_text(f"{head}{search_path}{rows}")
    pg_restore = host.root / "bin/pg_restore"
    words = pg_restore.read_text().replace("*) sed", f"*) cat {host.root}/script; sed")
    pg_restore.write_text(words)
    host.good("restore", name)
    # With the dump, and with the rights.
    first, second = (host.root / "sql").read_text().split("COMMIT;\n")[:2]
    for script in (first, second):
        before, _, after = script.partition(search_path)
        assert "SET lock_timeout = 0;\nSELECT" in before
        assert timeout not in before
        assert "FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout';\n" in before
        # Rows stay as they are.
        assert after.startswith(rows)


@pytest.mark.parametrize("tool", ["psql", "pg_restore"])
def test_a_restore_that_fails_commits_nothing(host: WholeHost, tool: str) -> None:
    """The end of a dump that breaks off is no end of the transaction."""
    name = host.back_up()
    host.change()
    before = host.state()
    host.break_(tool, "no luck")
    copies = host.files()
    code, answer = host.run("restore", name)
    assert code == 1
    assert "Loading the dump failed: PostgreSQL says: no luck" in answer["msg"]
    if tool == "pg_restore":
        assert "COMMIT" not in (host.root / "sql").read_text()
    assert host.state() == before
    # So nothing has to be loaded again, which would fail for the same reason.
    assert answer["msg"].endswith("The data were not touched, and the service runs.")
    assert host.calls()[-1].startswith("shop handover")
    assert host.files() == copies
    host.mend(tool)
    host.good("backup")


def test_a_connection_that_is_lost_at_the_end_leaves_the_outcome_open(host: WholeHost) -> None:
    """PostgreSQL may have committed: what was there is loaded again, if that goes."""
    name = host.back_up()
    host.change()
    path = host.root / "bin/psql"
    path.write_text(path.read_text().replace("exit 3", "exit 2"))
    host.break_("psql", "server closed the connection")
    code, answer = host.run("restore", name)
    assert code == 1
    [kept] = [each for each in host.files() if each.endswith("-before-restore.tar")]
    fault = "could not be loaded again: Loading the dump failed: PostgreSQL says: server closed"
    assert fault in answer["msg"]
    assert "The service runs: look at what data it has." in answer["msg"]
    assert f"or what was there before: sudo shop restore {kept}" in answer["msg"]
    assert host.calls()[-1].startswith("shop handover")
    assert host.run("backup")[0] == 2
    host.mend("psql")
    host.good("restore", kept)
    host.good("backup")


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (3, "The data are as they were before, and the service runs."),
        (2, "The service runs: look at what data it has. Those from before are in {copy}"),
    ],
)
def test_a_copy_of_a_migration_says_what_it_does_not_know(
    host: WholeHost, monkeypatch: pytest.MonkeyPatch, ends: int, words: str
) -> None:
    """PostgreSQL may have committed before the connection was lost."""
    monkeypatch.setattr(migration.sandbox, "run", host.run_as_text)
    host.describe(directories=[], commands={})
    wanted = migration.back_up(host.store().application, "r1", "before_r1", 10)
    path = host.root / "bin/psql"
    path.write_text(path.read_text().replace("exit 3", f"exit {ends}"))
    host.break_("psql", "no luck")
    code, answer = host.run("migrate", "--restore", Path(wanted).name)
    assert code == 1
    [copy] = {*(host.data / "backups").iterdir()} - {Path(wanted)}
    assert answer["msg"].endswith(f"PostgreSQL says: no luck\n{words.format(copy=copy)}")


def test_rights_that_cannot_be_granted_are_no_failure(
    host: WholeHost, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of them is no reason to leave out the others, so they are no transaction."""
    path = host.root / "bin/psql"
    words = "echo role reporter does not exist >&2; cat >>"
    path.write_text(path.read_text().replace("cat >>", words))
    host.good("restore", host.back_up())
    said = capsys.readouterr().err
    assert "Some rights of other roles were not granted: role reporter does not exist" in said


@pytest.mark.parametrize("broken", ["pg_dump", "gone"])
def test_a_dump_that_fails_leaves_no_copy(host: WholeHost, broken: str) -> None:
    if broken == "gone":
        (host.root / "bin/pg_dump").unlink()
        host.monkeypatch.setenv("PATH", f"{host.root}/bin")
    else:
        host.break_("pg_dump", "server version mismatch")
    code, answer = host.run("backup")
    assert code == 1
    words = "pg_dump is not on this host" if broken == "gone" else "server version mismatch"
    assert words in answer["msg"]
    assert host.files() == set()


def test_a_restore_needs_a_copy_of_what_it_replaces(host: WholeHost) -> None:
    """There would be no way back."""
    name = host.back_up()
    host.change()
    before = host.state()
    host.break_("pg_dump", "no luck")
    code, answer = host.run("restore", name)
    assert code == 1
    assert "The data were not touched, and the service runs" in answer["msg"]
    assert host.state() == before


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"COPY public.orders (id, customer) FROM stdin;\n", b"orders"),
        (b'COPY public."Odd-one" ("a b", c) FROM stdin;\n', b'"Odd-one"'),
        (b'COPY "my ""own""".t (id) FROM stdin;\n', b"t"),
        (b"COPY public.nothing  FROM stdin;\n", b"nothing"),
        (b"COPY public.orders (id) FROM stdin\n", None),
    ],
)
def test_tables_of_any_name_are_counted(line: bytes, name: bytes | None) -> None:
    match = COPIED.fullmatch(line)
    assert (match and match[2]) == name


def test_nothing_merged_is_nothing() -> None:
    assert merged({}).tables == {}


def test_the_text_that_runs_inside_is_within_the_limit_of_an_argument() -> None:
    """Of Linux, MAX_ARG_STRLEN."""
    assert len(engine.program().encode()) < 1 << 16
    assert HostError.code == 1
