"""Copies before a migration, and the way back to one, without commands of the application."""

from __future__ import annotations

import contextlib
import sqlite3
import tarfile
from pathlib import Path

import pytest
from apphost import database, files, migration
from apphost.errors import HostError
from apphost.schema import Schema

from .whole_host import WholeHost

# Says by its exit code whether the database suits it, like Django's `migrate --check`.
MANAGE = """#!/bin/sh
test -e {root}/broken-migrate && test "$1" = migrate && {{ echo "no luck"; exit 1; }}
test "$1" = migrate && touch {root}/migrated
test -e {root}/migrated || {{ echo "unapplied: 0002"; exit 1; }}
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WholeHost:
    made = WholeHost(tmp_path, monkeypatch)
    made.shopctl.write_text(MANAGE.format(root=tmp_path))
    monkeypatch.setattr(migration.sandbox, "run", made.run_as_text)
    made.describe(commands={"schema": ["shopctl", "check"], "migrate": ["shopctl", "migrate"]})
    made.write_settings()
    return made


def migrate(host: WholeHost, keep: int = 10) -> Path:
    """Migrate; return the copy from before."""
    application = host.store().application
    _, copy = migration.migrate(application, "r1", Schema(False, "unapplied: 0002"), keep)
    assert copy is not None
    return Path(copy)


def test_all_databases_are_copied_before_a_migration(host: WholeHost) -> None:
    copy = migrate(host)
    assert copy.name.endswith("Z-before_r1.tar")
    with tarfile.open(copy) as archive:
        assert archive.getnames() == ["databases/shop.db", "databases/queue/jobs.db"]
    host.describe(database={"kind": "sqlite", "files": ["shop.db"]})
    copy = migrate(host)
    assert copy.name.endswith("Z-before_r1.sqlite")
    with contextlib.closing(sqlite3.connect(copy)) as base:
        assert base.execute("SELECT count(*) FROM orders").fetchone() == (3,)
    assert (copy.stat().st_mode & 0o777, copy.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_database_that_is_not_there_yet_has_no_copy(host: WholeHost) -> None:
    host.live.unlink()
    application = host.store().application
    assert migration.migrate(application, "r1", Schema(False), 10)[1] is None


def test_without_a_copy_there_is_no_migration(host: WholeHost) -> None:
    host.live.write_bytes(b"x" * 8192)
    with pytest.raises(migration.RefusedError, match=r"not migrated:\nshop.db cannot be copied"):
        migrate(host)
    assert not (host.root / "migrated").exists()


def test_a_migration_that_failed_says_how_to_go_back(host: WholeHost) -> None:
    host.break_("migrate")
    with pytest.raises(migration.HostError) as error:
        migrate(host)
    [copy] = (host.data / "backups").iterdir()
    assert f"sudo shop migrate --restore {copy.name}" in str(error.value)


def test_a_migration_is_asked_for_again_afterwards(host: WholeHost) -> None:
    migrate(host)
    (host.root / "migrated").unlink()
    host.shopctl.write_text('#!/bin/sh\ntest "$1" = migrate || { echo unapplied; exit 1; }\n')
    with pytest.raises(migration.HostError, match=r"succeeded, yet the database does not suit"):
        migrate(host)


@pytest.mark.parametrize("several", [True, False])
def test_the_way_back_to_such_a_copy(host: WholeHost, several: bool) -> None:
    if not several:
        host.describe(database={"kind": "sqlite", "files": ["shop.db"]})
    copy = migrate(host)
    host.change()
    uploads = sorted(host.uploads.rglob("*"))
    answer = host.good("migrate", "--restore", copy.name)
    assert host.customers() == ["A", "B", "C"]
    assert sorted(host.uploads.rglob("*")) == uploads, "which no migration changes"
    assert not list(host.data.rglob(".*"))
    host.good("migrate", "--restore", Path(answer["replaced"]).name)
    assert host.customers() == ["A", "B", "C", "D"]


def test_what_is_no_such_copy_stops_nothing(host: WholeHost) -> None:
    for name in ("../shop.db", "20260101T000000Z-before_r1.sqlite", "x"):
        code, answer = host.run("migrate", "--restore", name)
        assert code == 2
        assert "There is no" in answer["msg"] or "not the name of a copy" in answer["msg"]
    assert not host.stopped()


def test_a_copy_that_cannot_be_put_back_leaves_the_data(host: WholeHost) -> None:
    copy = migrate(host)
    host.change()
    host.fail_in("swap")
    code, answer = host.run("migrate", "--restore", copy.name)
    assert code == 1
    assert "no luck\nThe data are as they were before, and the service runs." in answer["msg"]
    assert host.customers() == ["A", "B", "C", "D"]
    assert not list(host.data.rglob(".*"))


def test_the_copy_that_is_wanted_outlasts_the_one_that_is_made(host: WholeHost) -> None:
    """The command of a message names no number of copies, and the description may keep more."""
    host.describe(database={"kind": "sqlite", "files": ["shop.db"]})
    oldest = migrate(host, 30)
    for _ in range(11):
        migrate(host, 30)
    host.change()
    code, answer = host.run("migrate", "--restore", oldest.name)
    assert code == 0, answer
    assert host.customers() == ["A", "B", "C"]
    assert len(list(oldest.parent.iterdir())) == 13


@pytest.mark.parametrize("name", ["order.json", "data.json"])
def test_a_full_disk_leaves_the_data_and_the_service(
    host: WholeHost, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = migrate(host)
    database.write_stamp(host.store().application, {"admin": "anna"})
    host.change()
    write = files.write

    def full(path: Path, text: str, mode: int = 0o644) -> None:
        if path.name == name:
            raise OSError(28, "No space left on device")
        write(path, text, mode)

    monkeypatch.setattr(files, "write", full)
    code, answer = host.run("migrate", "--restore", copy.name)
    assert code == 1
    assert "No space left on device" in answer["msg"]
    assert answer["msg"].endswith("The data are as they were before, and the service runs.")
    assert host.customers() == ["A", "B", "C", "D"]
    assert not list(host.data.rglob(".*"))
    assert host.calls()[-1].startswith("shop handover")


def test_what_a_migration_writes_need_not_be_utf_8(host: WholeHost) -> None:
    host.shopctl.write_text("#!/bin/sh\nprintf 'f\\374r x'; exit 1\n")
    application = host.store().application
    with pytest.raises(HostError, match="f\N{REPLACEMENT CHARACTER}r x"):
        migration.migrate(application, "r1", Schema(False, "unapplied: 0002"), 10)
