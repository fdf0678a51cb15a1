"""One copy holds databases and files together, made and put back without the application."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from apphost import database
from apphost.backup import engine, interrupted, make
from apphost.errors import HostError

from .test_backup_examine import identity as identity
from .whole_host import DESCRIPTION, ODD, WholeHost


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WholeHost:
    return WholeHost(tmp_path, monkeypatch)


def rewrite(path: Path, content: bytes) -> None:
    """Change a copy, and have its record agree with the bytes."""
    path.write_bytes(content)
    record_path = Path(f"{path}.json")
    record = json.loads(record_path.read_text())
    digest = hashlib.sha256(content).hexdigest()
    record |= {"sha256": digest, "content_sha256": digest, "size": len(content)}
    record_path.write_text(json.dumps(record))


# A copy -------------------------------------------------------------------------------------------


def test_a_copy_holds_everything_and_says_how_much(host: WholeHost) -> None:
    for name in ODD:
        host.upload(name, name.encode(errors="replace").decode())
    answer = host.good("backup")
    path, record = Path(answer["path"]), answer["record"]
    assert path.name.endswith("Z-r1.tar")
    assert record["tables"] == {
        "shop.db/orders": 3,
        "shop.db/schema_state": 1,
        "queue/jobs.db/jobs": 2,
    }
    assert record["directories"]["uploads"]["files"] == 2 + len(ODD)
    assert record["directories"]["media/photos"] == {"files": 0, "bytes": 0, "changing": 0}
    assert f"6 rows and {2 + len(ODD)} files" in answer["msg"]
    with tarfile.open(path) as archive:
        names = archive.getnames()
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        assert json.load(manifest)["databases"] == ["shop.db", "queue/jobs.db"]
    # Rows first: none of them names a file that came later.
    assert names[:3] == ["manifest.json", "databases/shop.db", "databases/queue/jobs.db"]
    assert names[-1] == "SHA256SUMS"
    assert "files/uploads/empty" in names
    _, text = host.call("backup", "list")
    assert text.splitlines()[0].split() == "NAME SIZE SCHEMA ROWS FILES RELEASE KIND".split()
    assert host.files() == {path.name, f"{path.name}.json"}


def test_any_tar_unpacks_it_and_sha256sum_checks_it(host: WholeHost, tmp_path: Path) -> None:
    """On the day on which this program is not there."""
    for name in ODD:
        host.upload(name, "x")
    path = host.directory / host.back_up()
    target = tmp_path / "unpacked"
    target.mkdir()
    subprocess.run(["tar", "-xf", path, "-C", target], check=True)
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=target, check=True)
    assert (target / "files/uploads/a.txt").read_text() == "A"


def test_what_a_copy_was_written_to_does_not_stay(host: WholeHost) -> None:
    """Each would take as much room as the database, for ever."""
    with host.database() as base:
        base.execute("CREATE TABLE notes AS SELECT zeroblob(1000000) AS note")
    told = {"data": str(host.data), "file": "shop.db"}
    argv = [sys.executable, "-ISBc", engine.program(), "sqlite", json.dumps(told)]

    def there() -> set[Path]:
        return {path.parent for path in host.data.glob(".working-copy-*/copy")}

    def begun() -> subprocess.Popen[bytes]:
        """A copy that nobody reads, so that it does not end."""
        before = there()
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
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
        subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
        assert there() == {used}
        copy, _ = slow.communicate()
    assert copy == subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout
    assert list(host.data.glob(".*")) == []


def test_a_database_alone_is_copied_as_it_is(host: WholeHost) -> None:
    host.describe(database={"kind": "sqlite", "files": ["shop.db"]}, directories=[])
    record = host.good("backup")["record"]
    assert record["name"].endswith("Z-r1.sqlite")
    assert record["tables"] == {"orders": 3, "schema_state": 1}
    host.order("D")
    host.good("restore", record["name"])
    assert host.customers() == ["A", "B", "C"]


def test_what_is_only_in_the_log_of_sqlite_is_copied(host: WholeHost) -> None:
    with contextlib.closing(sqlite3.connect(host.live)) as base:
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("INSERT INTO orders (customer) VALUES ('W')")
        base.commit()
        assert Path(f"{host.live}-wal").stat().st_size > 0
        assert host.good("backup")["record"]["tables"]["shop.db/orders"] == 4


def test_an_application_that_has_only_directories(host: WholeHost) -> None:
    host.describe(database={"kind": ""}, directories=["uploads"])
    name = host.back_up()
    record = host.good("backup", "verify", name)["record"]
    assert (record["database"], record["tables"]) == ("", {})
    host.change()
    host.good("restore", name)
    assert (host.uploads / "a.txt").read_text() == "A"
    assert not (host.uploads / "new.txt").exists()
    assert host.customers() == ["A", "B", "C", "D"], "which nobody has described"


def test_what_was_copied_before_and_is_gone_is_no_empty_copy(host: WholeHost) -> None:
    """Its disk may be away, and the rotation would in time remove the copies that have it."""
    host.good("backup")
    host.uploads.rename(host.root / "away")
    code, answer = host.run("backup")
    assert code == 1
    assert f"{host.uploads} is in the copy " in answer["msg"]
    # The remedy.
    host.uploads.mkdir()
    assert host.good("backup")["record"]["directories"]["uploads"]["files"] == 0
    (host.data / "queue/jobs.db").unlink()
    code, answer = host.run("backup")
    assert code == 1
    assert "jobs.db is in the copy" in answer["msg"]


def test_what_was_never_there_is_not_needed(host: WholeHost) -> None:
    """An application makes a second file, or a directory, when it needs it first."""
    (host.data / "queue/jobs.db").unlink()
    (host.data / "media/photos").rmdir()
    record = host.good("backup")["record"]
    assert list(record["databases"]) == ["shop.db"]
    assert list(record["directories"]) == ["uploads"]
    verdict = host.good("backup", "verify", record["name"])["msg"]
    assert "without media/photos and queue/jobs.db, which would stay as it is" in verdict
    host.live.unlink()
    host.store().remove(record)
    host.store().state_path.unlink()
    code, answer = host.run("backup")
    assert code == 1
    assert "there is no" in answer["msg"]
    assert "shop.db" in answer["msg"]


@pytest.mark.parametrize("what", ["link", "file"])
def test_what_is_no_directory_is_not_copied(host: WholeHost, what: str) -> None:
    host.uploads.rename(host.data / "real")
    if what == "link":
        host.uploads.symlink_to("real")
    else:
        host.uploads.write_text("x")
    code, answer = host.run("backup")
    assert code == 1
    assert "uploads is not a directory" in answer["msg"]
    assert host.files() == set()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "they end early"),
        (b'{"kind": "file", "path": "uploads/a"}\n5\nab', "they end early"),
        (b'{"kind": "file", "path": "uploads/a"}\nx\n', "they end early"),
        (b'{"kind": "socket", "path": "uploads/a"}\n', "not a list of files"),
        (b"[]\n", "they end early"),
        (b"{" * 100000, "they end early"),
        (b'{"kind": "directory", "path": "uploads/../../etc"}\n{"end": true}\n', "not asked for"),
        (b'{"kind": "directory", "path": "uploads2"}\n{"end": true}\n', "not asked for"),
    ],
)
def test_what_an_application_makes_of_its_stream_is_refused(
    host: WholeHost, text: bytes, words: str
) -> None:
    """It runs as the application, which somebody may have taken over."""

    @contextlib.contextmanager
    def files(*_: Any) -> Any:
        yield io.BytesIO(text)

    host.monkeypatch.setattr(engine, "files", files)
    code, answer = host.run("backup")
    assert code == 1
    assert words in answer["msg"]
    assert host.files() == set()


def test_a_file_that_is_written_to_is_counted(host: WholeHost) -> None:
    text = b'{"kind": "file", "path": "uploads/a"}\n2\nab0\n{"changing": true}\n{"end": true}\n'

    @contextlib.contextmanager
    def files(*_: Any) -> Any:
        yield io.BytesIO(text)

    host.monkeypatch.setattr(engine, "files", files)
    record = host.good("backup")["record"]
    assert record["directories"]["uploads"] == {"files": 1, "bytes": 2, "changing": 1}


# Verify -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["file", "database", "short", "sums", "more", "record", "other"])
def test_damage_is_found_and_stops_nothing(host: WholeHost, damage: str) -> None:
    """Also where the record agrees with the bytes."""
    path = host.directory / host.back_up()
    content = path.read_bytes()
    record_path = Path(f"{path}.json")
    words = "damaged"
    if damage == "file":
        with tarfile.open(path) as archive:
            at = archive.getmember("files/uploads/a.txt").offset_data
        rewrite(path, content[:at] + b"B" + content[at + 1 :])
        words = "files/uploads/a.txt is not what was copied"
    elif damage == "database":
        at = content.index(b"SQLite format 3") + 5000
        rewrite(path, content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        words = "databases/shop.db is not what was copied"
    elif damage == "short":
        rewrite(path, content[: len(content) // 2])
    elif damage == "sums":
        with tarfile.open(path) as archive:
            at = archive.getmember("SHA256SUMS").offset
        rewrite(path, content[:at] + bytes(1024))
        words = "it has no SHA256SUMS"
    elif damage == "more":
        with tarfile.open(path, "a") as archive:
            archive.addfile(tarfile.TarInfo("files/uploads/x"))
        rewrite(path, path.read_bytes())
        words = "something comes after its end"
    elif damage == "record":
        record = json.loads(record_path.read_text())
        record["directories"]["uploads"]["files"] += 1
        record_path.write_text(json.dumps(record))
        words = "its files do not match its record"
    else:
        rewrite(path, content.replace(b'"application": "shop"', b'"application": "pohs"'))
        words = "not one of shop's"
    for command in (["backup", "verify"], ["restore"]):
        code, answer = host.run(*command, path.name)
        assert code == 2, answer
        assert words in answer["msg"]
    assert not host.stopped()


@pytest.mark.parametrize("damage", ["", "other", "less", "more"])
def test_each_line_of_the_sums_is_read_once(damage: str) -> None:
    """A copy may have a million files: going through the rest for each of them takes hours."""
    reads = []

    class Written(io.BytesIO):
        def readline(self, *size: Any) -> bytes:
            reads.append(size)
            return super().readline(*size)

    lines = [make.archive.sum_line(f"files/uploads/{number}", "0" * 64) for number in range(100)]
    more = {"other": [*lines[:-1], lines[0]], "less": lines[:-1], "more": [*lines, lines[0]]}
    written = Written(b"".join(more.get(damage, lines)))
    words = "fewer files" if damage == "more" else "uploads/99 is not what was copied"
    with pytest.raises(HostError, match=words) if damage else contextlib.nullcontext():
        make.archive.check_sums(written, lines)
    assert len(reads) == len(lines)


def test_a_copy_of_what_nobody_has_described_is_refused(host: WholeHost) -> None:
    name = host.back_up()
    host.describe(directories=["uploads"])
    code, answer = host.run("restore", name)
    assert code == 2
    assert "holds media/photos, which the description of shop does not name" in answer["msg"]
    assert not host.stopped()


# Restore ------------------------------------------------------------------------------------------


def test_a_restore_brings_everything_back_together(host: WholeHost) -> None:
    for name in ODD:
        host.upload(name, "x")
    before = host.state()
    mtime = (host.uploads / "a.txt").stat().st_mtime
    name = host.back_up()
    host.change()
    after = host.state()
    answer = host.good("restore", name)
    assert host.state() == before
    assert abs((host.uploads / "a.txt").stat().st_mtime - mtime) < 1
    assert answer["replaced"].endswith("-before-restore.tar")
    host.good("restore", answer["replaced"])
    assert host.state() == after


def test_the_log_of_the_replaced_file_does_not_stay_beside_the_new_one(host: WholeHost) -> None:
    """SQLite would play it into a file that it does not belong to."""
    name = host.back_up()
    with contextlib.closing(sqlite3.connect(host.live)) as base:
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("INSERT INTO orders (customer) VALUES ('W')")
        base.commit()
        # Killed like this, it leaves its log.
        host.good("restore", name)
        assert not Path(f"{host.live}-wal").exists()
    assert host.customers() == ["A", "B", "C"]


@pytest.mark.parametrize("verb", ["check", "recover", "stage-file", "stage-directories"])
def test_what_cannot_work_stops_nothing(host: WholeHost, verb: str) -> None:
    name = host.back_up()
    host.change()
    before = host.state()
    host.fail_in(verb)
    host.calls()
    code, answer = host.run("restore", name)
    assert (code, answer["changed"]) == (2, False)
    assert "no luck. Nothing was stopped" in answer["msg"]
    assert not host.stopped()
    assert host.state() == before
    assert not (host.application.state / "restore.json").exists()


@pytest.mark.parametrize("what", ["swap", "handover", "health", "stop"])
def test_everything_is_as_before_when_a_restore_fails(host: WholeHost, what: str) -> None:
    name = host.back_up()
    host.change()
    before, copies = host.state(), host.files()
    if what == "swap":
        host.fail_in("swap")
    elif what == "health":
        host.serve(503, "no luck")
    elif what == "stop":
        host.break_("stop", "no luck")
    else:
        host.break_("handover", "no luck")
    code, answer = host.run("restore", name)
    assert code == 1
    assert "no luck" in answer["msg"]
    assert host.state() == before
    if what != "handover":
        assert "and the service runs" in answer["msg"] or what == "health"
    if what == "swap":
        assert host.files() == copies
    assert not (host.application.state / "restore.json").exists()


def test_a_rename_that_fails_half_way_takes_back_the_others(host: WholeHost) -> None:
    """The first two are replaced, and the third cannot be."""
    name = host.back_up()
    host.change()
    before = host.state()
    real = engine.call

    def call(application: Any, what: str, verb: str, /, *rest: Any, **told: Any) -> bytes:
        if verb == "swap":
            # In the way of what is there.
            (host.data / ".uploads.restore-old").write_text("x")
        return real(application, what, verb, *rest, **told)

    host.monkeypatch.setattr(engine, "call", call)
    code, answer = host.run("restore", name)
    assert code == 1
    assert "Replacing the data failed" in answer["msg"]
    after = host.state()
    for key in ("shop.db", "queue/jobs.db"):
        assert after[key] == before[key]


def test_a_directory_that_cannot_be_renamed_is_refused_first(host: WholeHost) -> None:
    name = host.back_up()
    host.uploads.rename(host.data / "real")
    host.uploads.symlink_to("real")
    for words in (["restore", name], ["restore", name, "--check"]):
        code, answer = host.run(*words)
        assert code == 2
        assert "uploads is a symbolic link" in answer["msg"]
        assert "such as uploads/files" in answer["msg"]
    assert not host.stopped()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a disk")
def test_a_disk_of_its_own_is_refused_first(host: WholeHost) -> None:
    name = host.back_up()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(host.uploads)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a disk")
    try:
        code, answer = host.run("restore", name)
    finally:
        subprocess.run(["umount", host.uploads], check=True)
    assert code == 2
    assert "uploads is a file system of its own" in answer["msg"]
    assert not host.stopped()


def test_a_database_past_reading_is_put_aside(host: WholeHost) -> None:
    name = host.back_up()
    host.live.write_bytes(b"x" * 8192)
    answer = host.good("restore", name)
    assert answer["replaced"] is None
    assert host.customers() == ["A", "B", "C"]
    [aside] = host.data.glob("shop.db.replaced-*")
    assert aside.read_bytes() == b"x" * 8192
    assert list(host.data.glob("uploads.replaced-*")), "which could not be copied either"


def test_what_is_past_reading_is_back_after_a_failure(host: WholeHost) -> None:
    name = host.back_up()
    host.live.write_bytes(b"x" * 8192)
    host.serve(503, "no stock")
    assert host.run("restore", name)[0] == 1
    assert host.live.read_bytes() == b"x" * 8192
    assert not list(host.data.glob("*.replaced-*"))


def test_data_that_are_all_gone_are_restored(host: WholeHost) -> None:
    """The disk was lost, and this is another one."""
    before = host.state()
    name = host.back_up()
    for path in sorted(host.data.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    host.good("restore", name)
    assert {key: value for key, value in host.state().items() if key not in ("media", "queue")} == {
        key: value for key, value in before.items() if key not in ("media", "queue")
    }


def test_first_rows_are_not_made_again_after_a_restore(host: WholeHost) -> None:
    """The file is another one, and what was done to it was not undone."""
    application = host.store().application
    application.state.mkdir(parents=True, exist_ok=True)
    database.write_stamp(application, {"admin": "anna"})
    name = host.back_up()
    host.good("restore", name)
    assert database.seeded(application) == {"admin": "anna"}


def test_an_encrypted_copy_is_restored_with_the_key_alone(
    host: WholeHost, identity: tuple[str, str]
) -> None:
    private, public = identity
    host.configure(recipient=public)
    before = host.state()
    name = host.back_up()
    assert name.endswith(".tar.age")
    host.change()
    assert host.run("restore", name)[0] == 2
    answer = host.good("restore", name, "--identity", stdin=private)
    assert host.state() == before
    assert answer["replaced"].endswith("-before-restore.tar.age")
    assert all(".age" in each for each in host.files())


# A restore that was killed ------------------------------------------------------------------------


def test_a_restore_that_was_killed_is_known(host: WholeHost) -> None:
    """Nobody can say what the data are, so a copy of them would push out a good one."""
    name = host.back_up()
    host.change()
    before = host.state()

    class Killed(BaseException):
        pass

    def stop(*_: Any) -> None:
        raise Killed

    with host.monkeypatch.context() as patch:
        patch.setattr("apphost.stop.stop", stop)
        with pytest.raises(Killed):
            host.run("restore", name)
    code, answer = host.run("backup")
    assert code == 2
    assert f"the restore of {name}" in answer["msg"]
    assert f"sudo shop restore {name}" in answer["msg"]
    host.good("restore", name)
    assert host.state() != before
    host.good("backup")
    assert not list(host.data.rglob(".*"))


@pytest.mark.parametrize("at", ["gap", "swapped", "stray"])
def test_what_a_killed_restore_left_is_never_lost(host: WholeHost, at: str) -> None:
    name = host.back_up()
    old = host.data / ".uploads.restore-old"
    if at == "gap":
        host.uploads.rename(old)
        (host.data / ".uploads.restore-new").mkdir()
    else:
        old.mkdir()
        (old / "kept").write_text("kept")
    if at == "stray":
        (host.data / ".uploads.restore-new").mkdir()
    answer = host.good("restore", name)
    assert (host.uploads / "a.txt").read_text() == "A"
    assert not list(host.data.glob(".*"))
    if at == "gap":
        with tarfile.open(host.directory / answer["replaced"]) as archive:
            assert "files/uploads/a.txt" in archive.getnames()
    else:
        [aside] = host.data.glob("uploads.replaced-*")
        assert (aside / "kept").read_text() == "kept"


def test_no_room_for_the_files_stops_nothing(host: WholeHost) -> None:
    name = host.back_up()
    host.monkeypatch.setattr("apphost.backup.replacement.FILE_BYTES", 1 << 60)
    code, answer = host.run("restore", name)
    assert code == 2
    assert "make room first" in answer["msg"]
    assert not host.stopped()


def test_description_says_what_is_copied_by_whom(host: WholeHost) -> None:
    host.describe(commands={"backup": ["shopctl", "backup"], "restore": ["shopctl", "restore"]})
    code, answer = host.run("backup")
    assert code == 2
    assert "2 files in `data.sqlite`: leave the commands out" in answer["msg"]
    # Its own way for one, and the engine's for the files.
    host.describe(database={"kind": "sqlite", "files": ["shop.db"]})
    name = host.back_up()
    host.change()
    host.good("restore", name)
    assert host.customers() == ["A", "B", "C"]
    assert not (host.uploads / "new.txt").exists()
    assert "shopctl restore - --no-keep" in host.calls()


def test_a_copy_that_is_other_than_what_was_read_is_not_kept(host: WholeHost) -> None:
    """A disk that writes wrongly."""
    real = make.archive.read

    def read(path: Path, *rest: Any) -> Any:
        content = path.read_bytes()
        with tarfile.open(path) as archive:
            at = archive.getmember("files/uploads/a.txt").offset_data
        path.write_bytes(content[:at] + b"B" + content[at + 1 :])
        return real(path, *rest)

    host.monkeypatch.setattr(make.archive, "read", read)
    code, answer = host.run("backup")
    assert code == 1
    assert "a.txt is not what was copied" in answer["msg"]
    assert host.files() == set()


def test_the_engine_says_what_failed_inside(host: WholeHost) -> None:
    host.write_settings()
    told: dict[str, Any] = {"files": [], "from": "x"}
    with pytest.raises(HostError, match=r"Unpacking shop.db failed: There is no"):
        engine.call(host.application, "Unpacking shop.db", "saved", **told)
    assert DESCRIPTION["commands"] == {}


def test_a_restore_that_fails_does_not_hide_one_that_was_cut_off(host: WholeHost) -> None:
    """The data are half of a copy, and go on being that."""
    name = host.back_up()
    host.change()
    application = host.store().application
    interrupted.begin(application, name, "anna", "BEFORE-1")
    noted = interrupted.read(application)
    host.break_("stop", "no luck")
    code, answer = host.run("restore", name)
    assert code == 1
    assert f"But the restore of {name}, begun at " in answer["msg"]
    assert interrupted.read(application) == noted
    host.mend("stop")
    assert host.run("backup")[0] == 2
    # One that succeeds ends it.
    assert host.run("restore", name)[0] == 0
    assert host.run("backup")[0] == 0
