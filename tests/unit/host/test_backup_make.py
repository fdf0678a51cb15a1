"""`shop backup`: a copy is whole and private, or there is none."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from apphost import cli, environment
from apphost.application import Application
from apphost.backup import commands, make
from apphost.errors import HostError

from .backup_host import BackupHost
from .conftest import Programs


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BackupHost:
    return BackupHost(tmp_path, monkeypatch)


def test_a_copy_is_whole_private_and_has_a_record(host: BackupHost) -> None:
    answer = host.good("backup")
    path = Path(answer["path"])
    assert re.fullmatch(r"20261125T0230\d\dZ-2\.sqlite", path.name)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    record = json.loads(Path(f"{path}.json").read_text())
    assert record == answer["record"]
    assert stat.S_IMODE(Path(f"{path}.json").stat().st_mode) == 0o600
    assert record["release"] == "r1"
    assert (record["schema"], record["database"]) == ("2", "sqlite")
    assert record["tables"] == {"orders": 3, "schema_state": 1}
    assert record["size"] == path.stat().st_size
    summed = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    assert record["sha256"] == summed.stdout.split()[0]
    # Nothing half written is left.
    assert host.files() == {path.name, f"{path.name}.json"}


def test_the_application_writes_the_copy_in_its_own_sandbox(
    application: Application, programs: Programs, as_root: None
) -> None:
    """Root reads and keeps it; what it runs of a release it runs as the service would."""
    release = application.releases / "r1"
    for folder in ("app", "bin"):
        (release / folder).mkdir(parents=True)
    (release / "bin/python").symlink_to(sys.executable)
    (release / "bin/shopctl").write_text('#!/bin/sh\ntest "$*" = "backup -" && cat shop.db\n')
    (release / "bin/shopctl").chmod(0o755)
    with contextlib.closing(sqlite3.connect(release / "app/shop.db")) as base, base:
        base.execute("CREATE TABLE orders (id INTEGER)")
    application.current.symlink_to("releases/r1")
    copies = application.host / "var/backups/shop"
    copies.mkdir(parents=True)
    (application.etc / "backup.json").write_text("{}")
    assert cli.main("shop", ["backup"], application.host) == 0
    [record] = [json.loads(path.read_text()) for path in copies.glob("2*.json")]
    assert record["tables"] == {"orders": 0}
    [call] = programs.calls("systemd-run")
    assert "--property=User=shop" in call


def test_without_a_schema_a_copy_is_named_after_its_release(host: BackupHost) -> None:
    """Not every application keeps its schema in a table."""
    host.describe(database={"kind": "sqlite", "file": "shop.db"})
    record = host.good("backup")["record"]
    assert record["name"].endswith("Z-r1.sqlite")
    assert record["schema"] == ""
    assert [row["name"] for row in host.good("backup", "list")["copies"]] == [record["name"]]


def test_an_application_without_a_database_has_nothing_to_copy(host: BackupHost) -> None:
    host.describe(database={})
    code, answer = host.run("backup")
    assert code == 2
    assert "no data in its description (`data.sqlite`" in answer["msg"]
    assert host.calls() == []


def test_what_fails_leaves_no_copy_and_is_seen(host: BackupHost) -> None:
    """The old ones stay, also those that would have been rotated away."""
    host.configure(keep={"days": 1, "weeks": 0, "months": 0})
    host.application.metrics.mkdir()
    host.good("backup")
    before = host.files()
    size = Path(host.directory, min(before)).stat().st_size
    host.clock += datetime.timedelta(days=9)
    host.break_("backup", "the database is locked")
    code, answer = host.run("backup")
    assert code == 1
    assert "could not be copied" in answer["msg"]
    assert "the database is locked" in answer["msg"]
    assert host.files() == before
    state = json.loads((host.directory / "state.json").read_text())
    assert state["last_run"]["ok"] is False
    assert state["last_success"]["at"] == "2026-11-25T02:30:01Z"
    shop = '{application="shop"}'
    assert f"app_backup_last_run_failed{shop} 1\n" in host.metrics()
    assert f"app_backup_last_success_timestamp_seconds{shop} 1795573801\n" in host.metrics()
    assert f"app_backup_size_bytes{shop} {size}\n" in host.metrics()
    assert "locked" in host.good("backup", "list")["msg"]
    # The next good one makes up for it.
    host.mend("backup")
    host.good("backup")
    assert f"last_run_failed{shop} 0\n" in host.metrics()
    assert len(host.files()) == 2, "and the old one went"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a copy of shop's"),
        (b"no database " * 9000, "not a database"),
        ("half", "damaged"),
        ("holes", "damaged"),
        ("another", "not a copy of shop's"),
    ],
)
def test_a_copy_that_is_none_is_not_kept(
    host: BackupHost, content: bytes | str, words: str
) -> None:
    """What the application hands over is read, not believed."""
    host.order(*[f"Customer {number:05}" for number in range(3000)])
    whole = host.live.read_bytes()
    middle = len(whole) // 2
    if content == "half":
        content = whole[:middle]
    elif content == "holes":
        content = whole[:middle] + os.urandom(8192) + whole[middle + 8192 :]
    elif content == "another":
        other = host.root / "other.db"
        with contextlib.closing(sqlite3.connect(other)) as base, base:
            base.execute("CREATE TABLE orders (id INTEGER)")
        content = other.read_bytes()
    handed = host.root / "handed"
    handed.write_bytes(bytes(content) if isinstance(content, bytes) else content.encode())
    host.shopctl.write_text(f"#!/bin/sh\ncat {handed}\n")
    code, answer = host.run("backup")
    assert code == 1
    assert words in answer["msg"]
    assert host.files() == set()


def test_an_empty_file_is_no_copy_of_any_application(host: BackupHost) -> None:
    """SQLite takes it for a database, and there is no schema that would be missed."""
    host.describe(database={"kind": "sqlite", "file": "shop.db"})
    host.shopctl.write_text("#!/bin/sh\n")
    code, answer = host.run("backup")
    assert code == 1
    assert "it has no table" in answer["msg"]
    assert host.files() == set()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a disk")
def test_a_full_disk_is_named_and_costs_no_copy(host: BackupHost) -> None:
    """On a disk of 256 KiB: what is written half is removed, and so the disk can be used again."""
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(host.directory)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a disk")
    try:
        first = host.back_up()
        host.order(*[f"Customer {number:05}" * 10 for number in range(5000)])
        code, answer = host.run("backup")
        assert code == 1
        assert "could not be copied" in answer["msg"]
        assert "No space left on device" in answer["msg"]
        assert host.files() == {first, f"{first}.json"}
        # Where the last copy tells how large the next will be, it is not even begun.
        record = host.directory / f"{first}.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "content_size": 1 << 20}))
        host.calls()
        code, answer = host.run("backup")
        assert code == 2
        assert "`backup.directory`" in answer["msg"]
        assert host.calls() == []
    finally:
        subprocess.run(["umount", host.directory], check=True)


def test_leftovers_of_a_killed_run_go_and_strangers_stay(host: BackupHost) -> None:
    strangers = {"notes.txt", ".snapshot", "20200101T000000Z-1.sqlite"}
    leftovers = {".partial-abc", ".state.json.x1", ".20200101T000000Z-1.sqlite.json.x2"}
    for name in strangers | leftovers:
        (host.directory / name).write_text("x")
    host.configure(keep={"days": 1, "weeks": 0, "months": 0})
    name = host.back_up()
    # Without a record nobody knows what it is, so nobody removes it.
    assert host.files() == {name, f"{name}.json"} | strangers
    assert [copy["name"] for copy in host.good("backup", "list")["copies"]] == [name]


def test_one_at_a_time(host: BackupHost) -> None:
    with host.store().locked():
        code, answer = host.run("backup")
    assert code == 2
    assert "Another run of `shop backup` or `shop restore`" in answer["msg"]


def test_command_gets_the_copy_and_its_failure_is_seen(host: BackupHost) -> None:
    elsewhere = host.root / "elsewhere"
    elsewhere.mkdir()
    host.configure(command=["/bin/cp", "{file}", "{record}", f"{elsewhere}/"])
    name = host.back_up()
    assert {path.name for path in elsewhere.iterdir()} == {name, f"{name}.json"}
    shutil.rmtree(elsewhere)
    host.application.metrics.mkdir()
    code, answer = host.run("backup")
    assert code == 1
    assert "`backup.command` did not take it off this host" in answer["msg"]
    assert "elsewhere" in answer["msg"], "with the output of the command"
    assert 'last_run_failed{application="shop"} 1\n' in host.metrics()
    # What was made is there all the same.
    assert len(host.good("backup", "list")["copies"]) == 2


def test_a_command_that_hangs_is_ended(host: BackupHost) -> None:
    host.configure(command=["/bin/sleep", "600"], command_time_limit=0.2)
    code, answer = host.run("backup")
    assert code == 1
    assert "did not end within 0.2 s" in answer["msg"]


def test_command_gets_the_environment_as_it_was(
    host: BackupHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the operator's own: a proxy or a place of its keys is for it."""
    monkeypatch.setattr(environment, "INHERITED", {"SHOP_KEYS": "/root/keys", "PATH": "/bin"})
    seen = host.root / "seen"
    host.configure(command=["/bin/sh", "-c", f"env > {seen}"])
    host.good("backup")
    assert "SHOP_KEYS=/root/keys" in seen.read_text().splitlines()


def test_a_program_of_the_operator_is_not_claimed_to_be_installed_by_site_yml(
    host: BackupHost,
) -> None:
    program = host.root / "rsync"
    host.configure(command=[str(program), "{file}"])
    store, record = host.store(), {"name": "copy"}
    with pytest.raises(HostError) as error:
        make.hand_on(store, record)
    assert f"{program} is not on this host" in str(error.value)
    assert "`backup.command` in the description, which no role installs. Install" in str(
        error.value
    )
    # The remedy.
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    make.hand_on(store, record)
    with pytest.raises(HostError, match=r"age is not on this host: run the playbook that installs"):
        commands.run([str(host.root / "age")], "Encrypting the copy")


def test_check_mode_touches_nothing(host: BackupHost) -> None:
    assert host.good("backup", "--check")["changed"] is True
    assert host.files() == set()
    assert host.calls() == []
