"""Copies are read to their last row, and held to their record and to the live release."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from apphost.backup.examine import Contents, examine
from apphost.errors import HostError

from .backup_host import DESCRIPTION, BackupHost


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BackupHost:
    return BackupHost(tmp_path, monkeypatch)


@pytest.mark.parametrize("damage", ["bit", "short", "record", "rows"])
def test_a_damaged_copy_stops_nothing(host: BackupHost, damage: str) -> None:
    host.order(*[f"Customer {number:05}" for number in range(3000)])
    path = host.directory / host.back_up()
    content = path.read_bytes()
    record_path = Path(f"{path}.json")
    record = json.loads(record_path.read_text())
    if damage == "bit":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "short":
        path.write_bytes(content[:-4096])
    elif damage == "record":
        record_path.write_text(json.dumps({**record, "sha256": "0" * 64}))
    else:
        record_path.write_text(json.dumps({**record, "tables": {**record["tables"], "orders": 1}}))
    for words in (["backup", "verify"], ["restore"]):
        code, answer = host.run(*words, path.name)
        assert code == 2, answer
        assert "damaged" in answer["msg"] or "rows do not match" in answer["msg"]
    assert not host.stopped()


@pytest.mark.parametrize(
    ("schema", "works_with", "words"),
    [
        ("2", "[]", "suits release r1"),
        ("1", "[]", "will be migrated to 2"),
        ("3", '["2"]', "suits release r1"),
        ("3", "[]", "has the schema 3, which release r1 does not know"),
    ],
)
def test_a_copy_has_to_suit_the_live_release(
    host: BackupHost, schema: str, works_with: str, words: str
) -> None:
    with host.database() as base:
        base.execute("UPDATE schema_state SET revision = ?, works_with = ?", (schema, works_with))
    name = host.back_up()
    code, answer = host.run("backup", "verify", name)
    assert words in answer["msg"]
    assert code == (2 if "does not know" in words else 0)
    if code:
        host.calls()
        assert host.run("restore", name)[0] == 2
        assert not host.stopped()


@pytest.mark.parametrize("without", ["schema_table", "schema_code"])
def test_without_a_schema_there_is_nothing_to_compare(host: BackupHost, without: str) -> None:
    """Not every application keeps its schema in a table, or has a command that knows it."""
    if without == "schema_table":
        host.describe(database={"kind": "sqlite", "file": "shop.db"})
    else:
        commands = {**DESCRIPTION["commands"]}
        del commands["schema_code"]
        host.describe(commands=commands)
    name = host.back_up()
    host.calls()
    msg = host.good("backup", "verify", name)["msg"]
    assert f"{name} is whole, has 4 rows, and was made with release r1." == msg
    assert host.calls() == []


def test_older_copies_outlive_a_change_of_the_description(host: BackupHost) -> None:
    """A table for the schema may come or go; a copy is held to what its record says."""
    name = host.back_up()
    host.describe(database={"kind": "sqlite", "file": "shop.db"})
    assert "suits release r1" in host.good("backup", "verify", name)["msg"]
    plain = host.back_up()
    host.describe(database=DESCRIPTION["database"])
    assert "was made with release r1" in host.good("backup", "verify", plain)["msg"]


def test_a_release_that_cannot_say_its_schema_stops_nothing(host: BackupHost) -> None:
    name = host.back_up()
    for script, words in (
        ("echo nonsense", "nonsense"),
        ('echo "{}"', "has no 'head'"),
        ("echo no module >&2; exit 1", "no module"),
    ):
        host.shopctl.write_text(f"#!/bin/sh\n{script}\n")
        code, answer = host.run("restore", name)
        assert code == 2
        assert "Asking release r1 for its schema failed" in answer["msg"]
        assert words in answer["msg"]
    assert not host.stopped()


def test_a_copy_of_the_other_database_is_refused(host: BackupHost) -> None:
    name = host.back_up()
    credential = host.application.credential("database_url")
    credential.parent.mkdir(parents=True)
    credential.write_text("postgresql://db/shop")
    code, answer = host.run("restore", name)
    assert code == 2
    assert "take a copy of postgresql" in answer["msg"]


# PostgreSQL ---------------------------------------------------------------------------------------


def test_a_dump_is_read_to_its_last_row(host: BackupHost) -> None:
    """With pg_restore played by a script: names with capitals, empty tables, rows like ends."""
    script = host.root / "bin" / "pg_restore"
    lines = [
        "--",
        'COPY public.schema_state (id, revision, "works_with") FROM stdin;',
        '1\\t2\\t["1"]',
        "\\\\.",
        'COPY public."Odd" (id) FROM stdin;',
        "\\\\.",
        "COPY public.orders (id, customer) FROM stdin;",
        "1\\tCOPY public.orders (id) FROM stdin;",
        "2\\t\\\\\\\\.",
        "\\\\.",
    ]
    text = "".join(f"printf '%b\\n' '{line}'\n" for line in lines)
    script.write_text(f'#!/bin/sh\ntest "$1" = --list && exit 0\n{text}test ! -e {host.root}/bad\n')
    script.chmod(0o755)
    tables = {"Odd": 0, "orders": 2, "schema_state": 1}
    path = Path("x")
    assert examine(path, "postgresql", "shop", "schema_state") == Contents("2", ["1"], tables)
    assert examine(path, "postgresql", "shop", "") == Contents("", [], tables)
    with pytest.raises(HostError, match="its table versions names no schema"):
        examine(path, "postgresql", "shop", "versions")
    (host.root / "bad").touch()
    with pytest.raises(HostError, match="damaged"):
        examine(path, "postgresql", "shop", "schema_state")


# Encryption ---------------------------------------------------------------------------------------


@pytest.fixture
def identity() -> tuple[str, str]:
    """A private key and its public one."""
    key = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    public = next(line for line in key.splitlines() if "public key" in line).split(": ")[1]
    return key, public


def test_an_encrypted_copy_is_read_with_the_key_alone(
    host: BackupHost, identity: tuple[str, str]
) -> None:
    private, public = identity
    host.configure(recipient=public)
    path = host.directory / host.back_up()
    assert path.name.endswith(".sqlite.age")
    assert path.read_bytes().startswith(b"age-encryption.org/v1")
    assert b"SQLite" not in path.read_bytes()
    host.order("D")
    code, refused = host.run("restore", path.name)
    assert code == 2
    assert f"the private key of {public}" in refused["msg"]
    other = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    code, refused = host.run("restore", path.name, "--identity", stdin=other)
    assert code == 2
    assert "Decrypting the copy failed" in refused["msg"]
    assert host.customers() == ["A", "B", "C", "D"]
    answer = host.good("restore", path.name, "--identity", stdin=private)
    assert host.customers() == ["A", "B", "C"]
    # What was replaced had to be readable meanwhile, and is encrypted now.
    assert answer["replaced"].endswith("-before-restore.sqlite.age")
    assert all(".age" in name for name in host.files())
    for each in host.root.rglob("*"):
        if each.is_file():
            assert b"AGE-SECRET-KEY" not in each.read_bytes(), each
