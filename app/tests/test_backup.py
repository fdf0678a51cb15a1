"""A copy that was never put back is none: each test restores."""

from __future__ import annotations

import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from support import record

from toll import backup, schema
from toll.database import make_engine
from toll.models import Passage
from toll.services import passages
from toll.services.passages import PassageFilter

only_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


def plates(url: str) -> list[str]:
    with Session(make_engine(url)) as session:
        return sorted(session.scalars(sa.select(Passage.plate)))


@pytest.fixture
def readable(tmp_path: Path) -> Path:
    """A directory for copies."""
    return tmp_path


def test_a_copy_is_put_back_and_what_it_replaces_is_kept(database_url, session, readable):
    record(session, "BEFORE")
    file = readable / "copy"
    backup.backup(database_url, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in readable.iterdir()] == ["copy"], "nothing half written is left"
    record(session, "AFTER1")
    session.close()

    replaced = backup.restore(database_url, file)
    assert plates(database_url) == ["BEFORE"]
    assert replaced is not None
    assert stat.S_IMODE(replaced.stat().st_mode) == 0o600
    # Ids go on, and the schema is what this release needs.
    record(session, "LATER1")
    assert schema.schema_status(session.get_bind()).compatible
    session.close()
    # The way back from the way back.
    backup.restore(database_url, replaced)
    assert plates(database_url) == ["AFTER1", "BEFORE"]


def test_processes_that_have_the_database_open_see_the_restored_one(
    database_url, session, tmp_path
):
    """The service need not stop: its connections must not go on with the replaced file."""
    record(session, "BEFORE")
    backup.backup(database_url, tmp_path / "copy")
    record(session, "AFTER1")
    assert passages.count(session, PassageFilter()) == 2
    session.commit()
    backup.restore(database_url, tmp_path / "copy")
    if session.get_bind().dialect.name == "postgresql":
        session.get_bind().dispose()  # Prepared statements refer to the tables of before.
    assert passages.count(session, PassageFilter()) == 1
    record(session, "LATER1")
    assert plates(database_url) == ["BEFORE", "LATER1"]


def test_a_copy_brings_back_the_schema_of_its_time(database_url, session, tmp_path):
    """After a migration that went wrong, the older release needs the older schema."""
    record(session, "BEFORE")
    session.close()
    backup.backup(database_url, tmp_path / "copy")
    with make_engine(database_url).begin() as connection:
        connection.execute(sa.text("CREATE TABLE newer (passage_id BIGINT REFERENCES passages)"))
        connection.execute(sa.text("UPDATE schema_state SET revision = '9999'"))
        connection.execute(sa.text("INSERT INTO newer SELECT id FROM passages"))
    backup.restore(database_url, tmp_path / "copy")
    engine = make_engine(database_url)
    assert schema.schema_status(engine).database == schema.head()
    assert "newer" not in sa.inspect(engine).get_table_names()
    assert plates(database_url) == ["BEFORE"]


def test_a_copy_replaces_an_older_one_whole(database_url, session, tmp_path):
    file = tmp_path / "copy"
    file.write_text("older")
    backup.backup(database_url, file)
    assert backup.restore(database_url, file)


def test_a_directory_that_is_not_there(database_url, tmp_path):
    with pytest.raises(backup.BackupError, match="Name a file in a directory that is there"):
        backup.backup(database_url, tmp_path / "none" / "copy")


def test_a_file_that_is_no_copy_changes_nothing(database_url, session, tmp_path):
    record(session, "BEFORE")
    session.close()
    file = tmp_path / "copy"
    for content in (b"", b"no database at all" * 500):
        file.write_bytes(content)
        with pytest.raises(backup.BackupError):
            backup.restore(database_url, file)
        assert plates(database_url) == ["BEFORE"]
    with pytest.raises(backup.BackupError, match="is not there"):
        backup.restore(database_url, tmp_path / "none")


def replaced(database_url, session, tmp_path, **options):
    """What a restore has kept, where a copy was taken BEFORE and restored AFTER1, through pipes."""
    record(session, "BEFORE")
    with open(tmp_path / "pipe", "w+b") as copy:
        backup.backup_to(database_url, copy)
        record(session, "AFTER1")
        session.close()
        copy.seek(0)
        return backup.restore_from(database_url, copy, **options)


def test_a_copy_goes_through_pipes(database_url, session, tmp_path, monkeypatch):
    """For whoever keeps it where the application cannot write, and so cannot destroy it."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    kept = replaced(database_url, session, tmp_path)
    assert plates(database_url) == ["BEFORE"]
    # Nothing is left but the database and what was replaced, which is a copy as well.
    assert kept is not None
    assert [each for each in kept.parent.iterdir() if each.name.startswith(".")] == []
    backup.restore(database_url, kept)
    assert plates(database_url) == ["AFTER1", "BEFORE"]


def test_whoever_has_a_copy_need_not_keep_another(database_url, session, tmp_path, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    assert replaced(database_url, session, tmp_path, keep=False) is None
    assert plates(database_url) == ["BEFORE"]
    assert list(tmp_path.glob("*replaced*")) == []


@only_sqlite
def test_what_a_copy_was_written_to_does_not_stay(database_url, session, tmp_path):
    """Each would take as much room as the database, for ever."""
    live = Path(database_url.removeprefix("sqlite:///"))

    def there() -> set[Path]:
        return {path.parent for path in live.parent.glob(".toll-working-*/copy")}

    def begun() -> subprocess.Popen[bytes]:
        """A copy that nobody reads, so that it does not end."""
        before = there()
        words = (
            "import sys; from toll.backup import backup_to; "
            "backup_to(sys.argv[1], open(1, 'wb', buffering=0))"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", words, database_url],
            env={**os.environ, "PYTHONPATH": str(Path(backup.__file__).parents[1])},
            stdout=subprocess.PIPE,
        )
        while not there() - before:
            assert process.poll() is None
            time.sleep(0.01)
        return process

    with begun() as stopped:
        stopped.terminate()
        assert stopped.wait() == 128 + signal.SIGTERM
    assert there() == set()
    with begun() as killed:
        killed.kill()
    assert len(there()) == 1
    with begun() as slow:
        # What another one uses stays.
        [used] = there()
        backup.backup_to(database_url, io.BytesIO())
        assert there() == {used}
        slow.communicate()
    assert there() == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk")
def test_a_full_disk_is_named(database_url):
    with (
        pytest.raises(backup.BackupError, match=r"No space left on device"),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        backup.backup_to(database_url, full)


@only_sqlite
def test_a_target_that_takes_a_part_gets_the_rest(database_url, tmp_path):
    """As standard output does where PYTHONUNBUFFERED is set, which is so in the service."""

    class Part(io.RawIOBase):
        def __init__(self) -> None:
            self.taken = b""

        def write(self, block):
            self.taken += bytes(block[:1000])
            return min(len(block), 1000)

    part = Part()
    backup.backup_to(database_url, part)
    (tmp_path / "copy").write_bytes(part.taken)
    backup.restore(database_url, tmp_path / "copy")


@only_sqlite
def test_a_damaged_copy_is_refused(database_url, session, tmp_path):
    for number in range(200):
        record(session, f"PL{number:04}")
    session.close()
    file = tmp_path / "copy"
    backup.backup(database_url, file)
    with file.open("r+b") as copy:
        copy.seek(file.stat().st_size // 2)
        copy.write(os.urandom(8192))
    with pytest.raises(backup.BackupError, match=r"damaged|not a copy"):
        backup.restore(database_url, file)
    assert len(plates(database_url)) == 200


@only_sqlite
def test_a_damaged_database_is_put_aside_and_replaced(database_url, session, tmp_path):
    """This is when one needs the copy most."""
    record(session, "BEFORE")
    session.close()
    session.get_bind().dispose()
    file = tmp_path / "copy"
    backup.backup(database_url, file)
    live = Path(database_url.removeprefix("sqlite:///"))
    live.write_bytes(os.urandom(65536))
    for keep in (True, False):
        replaced = backup.restore(database_url, file, keep)
        assert replaced is not None
        assert replaced.stat().st_size == 65536
        assert plates(database_url) == ["BEFORE"]
        live.write_bytes(os.urandom(65536))
        replaced.unlink()


@only_sqlite
def test_a_copy_is_put_where_no_database_is(database_url, session, tmp_path):
    """On a new machine."""
    record(session, "BEFORE")
    backup.backup(database_url, tmp_path / "copy")
    elsewhere = f"sqlite:///{tmp_path / 'new.db'}"
    assert backup.restore(elsewhere, tmp_path / "copy") is None
    assert plates(elsewhere) == ["BEFORE"]
    assert stat.S_IMODE((tmp_path / "new.db").stat().st_mode) == 0o600


@only_sqlite
def test_the_database_is_no_copy_of_itself(database_url):
    live = Path(database_url.removeprefix("sqlite:///"))
    with pytest.raises(backup.BackupError, match="is the database itself"):
        backup.backup(database_url, live)
    with pytest.raises(backup.BackupError, match="is the database itself"):
        backup.restore(database_url, live)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_without_postgresqls_programs_it_says_what_to_install(database_url, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(
        backup.BackupError, match=r"pg_dump is not on this machine.*postgresql-client"
    ):
        backup.backup(database_url, tmp_path / "copy")


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_server_may_be_older_than_the_programs(database_url, session, tmp_path, monkeypatch):
    """pg_restore 17 writes a setting that an older server does not know."""
    record(session, "BEFORE")
    session.close()
    backup.backup(database_url, tmp_path / "copy")
    timeout = backup.TIMEOUT.decode().strip()
    newer = tmp_path / "bin/pg_restore"
    newer.parent.mkdir()
    newer.write_text(
        f"""#!/bin/sh
{shutil.which("pg_restore")} "$@" || exit
for word; do
    script=${{word#--file=}}
    test "$word" = "$script" && continue
    sed -i '/^SET transaction_timeout /d; s/^SET lock_timeout .*/&\\n{timeout}/' "$script"
    grep --quiet '^{timeout}$' "$script" || exit
done
"""
    )
    newer.chmod(0o755)
    monkeypatch.setenv("PATH", f"{newer.parent}:{os.environ['PATH']}")
    backup.restore(database_url, tmp_path / "copy", keep=False)
    assert plates(database_url) == ["BEFORE"]


def test_no_password_is_in_the_list_of_processes(tmp_path, monkeypatch):
    """Everybody on the machine can read it."""
    program = tmp_path / "pg_dump"
    program.write_text('#!/bin/sh\necho "$@" "[$PGPASSWORD]" >"$0.said"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    backup.backup("postgresql://toll:hunter2@localhost/toll", tmp_path / "copy")
    arguments, _, password = (tmp_path / "pg_dump.said").read_text().partition("[")
    assert "postgresql://toll@localhost/toll" in arguments
    assert "hunter2" not in arguments
    assert password == "hunter2]\n"
    with pytest.raises(backup.BackupError, match="put it before the host") as error:
        backup.backup("postgresql://toll@localhost/toll?password=hunter2", tmp_path / "copy")
    assert "hunter2" not in str(error.value)
