"""`toll-app-backup` in a folder that stands for a host, with the application played by a script."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import load

from .render import render
from .test_toll_app_programs import PROGRAMS

program = load(PROGRAMS / "toll-app-backup")

# `toll-app-flask`, `toll-app-data`, `toll-app-handover` and `systemctl` in one: what they were told
# is kept in `calls`, and a file `broken-WORD` has the command of that name fail with what it holds.
HOST = """#!{python}
import contextlib, json, os, shutil, sqlite3, sys
root = {root!r}
name, told = os.path.basename(sys.argv[0]), sys.argv[1:]
live = root + "/data/toll.db"
words = [each for each in told if not each.startswith("--")]
print(name, *told, file=open(root + "/calls", "a"))
if name == "toll-app-flask":
    verb = words[1]
    with contextlib.suppress(FileNotFoundError):
        sys.exit(open(root + "/broken-" + verb).read())
    if verb == "backup":
        with contextlib.closing(sqlite3.connect(live)) as source:
            source.execute("SELECT count(*) FROM schema_state")
        with open(1, "wb", closefd=False) as copy:
            copy.write(open(live, "rb").read())
    elif verb == "restore":
        if "--no-keep" not in told:
            shutil.copy(live, live + ".replaced")
        open(live, "wb").write(sys.stdin.buffer.read())
    elif verb == "schema":
        print(json.dumps({{"head": "2", "known": ["1", "2"]}}))
    elif verb == "counts":
        with contextlib.closing(sqlite3.connect(live)) as base:
            count = base.execute("SELECT count(*) FROM passages").fetchone()[0]
        print(json.dumps({{"schema": "2", "tables": {{"passages": count, "schema_state": 1}}}}))
else:
    with contextlib.suppress(FileNotFoundError):
        sys.exit(open(root + "/broken-" + name).read())
    print(json.dumps({{"changed": False, "msg": "done"}}))
"""


class Host:
    """A host with toll-app live as release r1, on schema 2, with three passages."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.directory = root, root / "copies"
        self.settings = {
            "directory": str(self.directory),
            "keep": {"days": 7, "weeks": 5, "months": 12},
            "metrics": str(root / "metrics"),
        }
        (root / "opt" / "releases" / "r1").mkdir(parents=True)
        (root / "opt" / "current").symlink_to("releases/r1")
        (root / "data").mkdir()
        (root / "bin").mkdir()
        # The role makes it.
        self.directory.mkdir(0o700)
        for name in ("toll-app-flask", "toll-app-data", "toll-app-handover", "systemctl"):
            (root / "bin" / name).write_text(HOST.format(python=sys.executable, root=str(root)))
            (root / "bin" / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{root}/bin:{os.environ['PATH']}")
        for name, value in {
            "SETTINGS": str(root / "backup.json"),
            "ROOT": str(root / "opt"),
            "STATE": str(root / "opt" / "state" / "copies.json"),
            "DATA": str(root / "data"),
            "CREDENTIAL": str(root / "database_url"),
            "FLASK": str(root / "bin" / "toll-app-flask"),
            "PREPARE": str(root / "bin" / "toll-app-data"),
            "HANDOVER": str(root / "bin" / "toll-app-handover"),
            "HANDOVER_LOCK": str(root / "handover" / "lock"),
            "HANDOVER_SECONDS": 0,
            "LOCK_SECONDS": 0,
            "ask": lambda path: (200, {"release": "r1"}),
        }.items():
            monkeypatch.setattr(program, name, value)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        self.clock = datetime.datetime(2026, 11, 25, 2, 30, tzinfo=datetime.UTC)
        monkeypatch.setattr(program, "now", self.tick)
        self.monkeypatch = monkeypatch
        with self.database() as base:
            base.execute("CREATE TABLE passages (id INTEGER PRIMARY KEY, plate TEXT)")
            base.execute("CREATE TABLE schema_state (revision TEXT, works_with TEXT)")
            base.execute("INSERT INTO schema_state VALUES ('2', '[]')")
        self.record("A", "B", "C")

    def tick(self) -> datetime.datetime:
        self.clock += datetime.timedelta(seconds=1)
        return self.clock

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.root / "data" / "toll.db")) as base, base:
            yield base

    def record(self, *plates: str) -> None:
        with self.database() as base:
            base.executemany("INSERT INTO passages (plate) VALUES (?)", [(x,) for x in plates])

    def plates(self) -> list[str]:
        with self.database() as base:
            return [row[0] for row in base.execute("SELECT plate FROM passages ORDER BY id")]

    def configure(self, **values: Any) -> None:
        self.settings |= values

    def break_(self, word: str, message: str = "it is broken") -> None:
        (self.root / f"broken-{word}").write_text(message)

    def mend(self, word: str) -> None:
        (self.root / f"broken-{word}").unlink()

    def run(self, *arguments: str, stdin: str = "") -> tuple[int, dict[str, Any]]:
        """The exit code and the answer, as Ansible gets them."""
        (self.root / "backup.json").write_text(json.dumps(self.settings))
        said: list[str] = []
        self.monkeypatch.setattr("builtins.print", lambda *words, **_: said.append(str(words[0])))
        self.monkeypatch.setattr(sys.stdin, "read", lambda: stdin)
        code = program.main([*arguments, "--json"])
        return code, json.loads(said[-1])

    def good(self, *arguments: str, stdin: str = "") -> dict[str, Any]:
        code, answer = self.run(*arguments, stdin=stdin)
        assert code == 0, answer
        return answer

    def calls(self) -> list[str]:
        """What was called since the last question."""
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def files(self) -> set[str]:
        """What lies in the directory, without what is always there."""
        return {each.name for each in self.directory.iterdir()} - {".lock", "state.json"}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


# Making copies ------------------------------------------------------------------------------------


def test_a_copy_is_whole_private_and_has_a_record(host: Host) -> None:
    answer = host.good()
    path = Path(answer["path"])
    assert path.name == "20261125T023002Z-2.sqlite"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(host.directory.stat().st_mode) == 0o700
    record = json.loads(Path(f"{path}.json").read_text())
    assert stat.S_IMODE(Path(f"{path}.json").stat().st_mode) == 0o600
    assert record["release"] == "r1"
    assert (record["schema"], record["database"]) == ("2", "sqlite")
    assert record["tables"] == {"passages": 3, "schema_state": 1}
    assert record["size"] == path.stat().st_size
    said = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout
    assert record["sha256"] == said.split()[0]
    # Nothing half written is left.
    assert host.files() == {path.name, f"{path.name}.json"}


def test_what_fails_leaves_no_copy_and_is_seen(host: Host) -> None:
    """The old ones stay, also those that would have been rotated away."""
    host.configure(keep={"days": 1, "weeks": 0, "months": 0})
    (host.root / "metrics").mkdir()
    host.good()
    before = host.files()
    size = Path(host.directory, min(before)).stat().st_size
    host.clock += datetime.timedelta(days=9)
    host.break_("backup", "the database is locked")
    code, answer = host.run()
    assert code == 1
    assert "could not be copied" in answer["msg"]
    assert "the database is locked" in answer["msg"]
    assert host.files() == before
    state = json.loads((host.directory / "state.json").read_text())
    assert state["last_run"]["ok"] is False
    assert state["last_success"]["at"] == "2026-11-25T02:30:01Z"
    metrics = (host.root / "metrics" / "toll-app-backup.prom").read_text()
    assert "toll_app_backup_last_run_failed 1\n" in metrics
    assert "toll_app_backup_last_success_timestamp_seconds 1795573801\n" in metrics
    assert f"toll_app_backup_size_bytes {size}\n" in metrics
    assert "locked" in host.good("list")["msg"]
    # The next good one makes up for it.
    host.mend("backup")
    host.good()
    assert "last_run_failed 0\n" in (host.root / "metrics" / "toll-app-backup.prom").read_text()
    assert len(host.files()) == 2, "and the old one went"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a copy of toll-app's"),
        (b"no database " * 9000, "not a database"),
        ("half", "damaged"),
        ("holes", "damaged"),
        ("another", "not a copy of toll-app's"),
    ],
)
def test_a_copy_that_is_none_is_not_kept(host: Host, content: bytes | str, words: str) -> None:
    """What the application hands over is read, not believed."""
    host.record(*[f"PLATE{number:05}" for number in range(3000)])
    live = host.root / "data" / "toll.db"
    whole = live.read_bytes()
    if content == "half":
        content = whole[: len(whole) // 2]
    elif content == "holes":
        middle = len(whole) // 2
        content = whole[:middle] + os.urandom(8192) + whole[middle + 8192 :]
    elif content == "another":
        other = host.root / "other.db"
        with contextlib.closing(sqlite3.connect(other)) as base, base:
            base.execute("CREATE TABLE passages (id INTEGER)")
        content = other.read_bytes()
    handed = host.root / "handed"
    handed.write_bytes(bytes(content) if isinstance(content, bytes) else content.encode())
    flask = host.root / "bin" / "toll-app-flask"
    flask.write_text(f"#!/bin/sh\ncat {handed}\n")
    code, answer = host.run()
    assert code == 1
    assert words in answer["msg"]
    assert host.files() == set()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a disk")
def test_a_full_disk_is_named_and_costs_no_copy(host: Host) -> None:
    """On a disk of 256 KiB: what is written half is removed, and so the disk can be used again."""
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(host.directory)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a disk")
    try:
        first = host.good()["record"]["name"]
        host.record(*[f"PLATE{number:05}" * 10 for number in range(5000)])
        code, answer = host.run()
        assert code == 1
        assert "could not be copied" in answer["msg"]
        assert "No space left on device" in answer["msg"]
        assert host.files() == {first, f"{first}.json"}
        # Where the last copy tells how large the next will be, it is not even begun.
        shutil.copy(host.directory / first, host.root / "aside")
        record = host.directory / f"{first}.json"
        told = json.loads(record.read_text())
        record.write_text(json.dumps({**told, "content_size": 1 << 20}))
        host.calls()
        code, answer = host.run()
        assert code == 2
        assert "toll_app_backup_directory" in answer["msg"]
        assert host.calls() == []
    finally:
        subprocess.run(["umount", host.directory], check=True)


def test_leftovers_of_a_killed_run_go_and_strangers_stay(host: Host) -> None:
    for name in (".partial-abc", "notes.txt", "20200101T000000Z-1.sqlite"):
        (host.directory / name).write_text("x")
    host.configure(keep={"days": 1, "weeks": 0, "months": 0})
    name = host.good()["record"]["name"]
    # Without a record nobody knows what it is, so nobody removes it.
    assert host.files() == {name, f"{name}.json", "notes.txt", "20200101T000000Z-1.sqlite"}
    listed = [each["name"] for each in host.good("list")["copies"]]
    assert listed == [name]


def test_one_at_a_time(host: Host) -> None:
    with program.locked(str(host.directory)):
        code, answer = host.run()
    assert code == 2
    assert "Another run" in answer["msg"]


def test_command_gets_the_copy_and_its_failure_is_seen(host: Host) -> None:
    elsewhere = host.root / "elsewhere"
    elsewhere.mkdir()
    host.configure(command=["/bin/cp", "{file}", "{record}", f"{elsewhere}/"])
    name = host.good()["record"]["name"]
    assert {each.name for each in elsewhere.iterdir()} == {name, f"{name}.json"}
    shutil.rmtree(elsewhere)
    (host.root / "metrics").mkdir()
    code, answer = host.run()
    assert code == 1
    assert "did not leave this host by toll_app_backup_command" in answer["msg"]
    assert "elsewhere" in answer["msg"], "with what the command said"
    assert "last_run_failed 1\n" in (host.root / "metrics" / "toll-app-backup.prom").read_text()
    # What was made is there all the same.
    assert len(host.good("list")["copies"]) == 2


def test_a_command_that_hangs_is_ended(host: Host) -> None:
    host.configure(command=["/bin/sleep", "600"], command_time_limit=0.2)
    code, answer = host.run()
    assert code == 1
    assert "did not end within 0.2 s" in answer["msg"]


def test_without_settings_it_says_which_variable_makes_them(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([]) == 2
    assert "set toll_app_backup to true" in capsys.readouterr().err


def test_check_mode_touches_nothing(host: Host) -> None:
    assert host.good("--check")["changed"] is True
    assert host.files() == set()
    assert host.calls() == []


# Rotation -----------------------------------------------------------------------------------------

NOW = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
TIMES = st.datetimes(
    min_value=datetime.datetime(2024, 1, 1), max_value=datetime.datetime(2026, 11, 25, 12)
).map(lambda each: each.replace(tzinfo=datetime.UTC, microsecond=0))
MADE = st.lists(TIMES, unique=True, max_size=60).map(
    lambda times: [(f"{each:%Y%m%dT%H%M%SZ}", each) for each in sorted(times, reverse=True)]
)
KEEP = st.fixed_dictionaries(
    {
        "days": st.integers(1, 9),
        "weeks": st.integers(0, 6),
        "months": st.integers(0, 14),
    }
)


@given(made=MADE, keep=KEEP)
@settings(max_examples=300, deadline=None)
def test_rotation_keeps_what_it_says(
    made: list[tuple[str, datetime.datetime]], keep: dict[str, int]
) -> None:
    stay = program.kept(made, keep, NOW)
    times = dict(made)
    assert stay <= set(times)
    if not made:
        return
    assert max(times, key=lambda name: times[name]) in stay, "never the newest"
    assert {name for name in times if NOW - times[name] < datetime.timedelta(days=1)} <= stay
    days = sorted({each.date() for each in times.values()}, reverse=True)
    for day in days[: keep["days"]]:
        last = max(name for name in times if times[name].date() == day)
        assert last in stay, "the newest of each of the last days"
    # No more than asked for, besides the last 24 hours.
    older = [name for name in stay if NOW - times[name] >= datetime.timedelta(days=1)]
    assert len(older) <= keep["days"] + keep["weeks"] + keep["months"] + 1


@given(made=MADE, keep=KEEP)
@settings(max_examples=200, deadline=None)
def test_rotation_twice_removes_nothing_more(
    made: list[tuple[str, datetime.datetime]], keep: dict[str, int]
) -> None:
    stay = program.kept(made, keep, NOW)
    left = [each for each in made if each[0] in stay]
    assert program.kept(left, keep, NOW) == stay


def test_a_year_of_days_leaves_days_weeks_and_months(host: Host) -> None:
    """As the defaults do it, run day by day and not at once: what went is not missed later."""
    keep = {"days": 7, "weeks": 5, "months": 12}
    made: list[tuple[str, datetime.datetime]] = []
    at = datetime.datetime(2025, 11, 1, 2, 30, tzinfo=datetime.UTC)
    while at < NOW:
        made.insert(0, (f"{at:%Y%m%d}", at))
        stay = program.kept(made, keep, at)
        made = [each for each in made if each[0] in stay]
        at += datetime.timedelta(days=1)
    names = [name for name, _ in reversed(made)]
    assert names[-7:] == [f"202611{day}" for day in range(19, 26)]
    # The last of each month is that of its last day.
    assert [name for name in names if name <= "20261031"][:10] == [
        *("20251231", "20260131", "20260228", "20260331", "20260430", "20260531"),
        *("20260630", "20260731", "20260831", "20260930"),
    ]
    assert len(names) <= 7 + 5 + 12


def test_what_a_restore_replaced_is_rotated_by_itself(host: Host) -> None:
    """A copy of the wrong state is not the newest of its day, and does not stay for a year."""
    host.configure(keep={"days": 1, "weeks": 0, "months": 0})
    usual = host.good()["record"]["name"]
    for _ in range(program.KEEP_BEFORE + 2):
        host.good("restore", "latest")
        host.clock += datetime.timedelta(days=2)
    last = host.good()["record"]["name"]
    kinds = [each["kind"] for each in host.good("list")["copies"]]
    assert kinds.count("before-restore") == program.KEEP_BEFORE
    assert usual not in host.files()
    assert last in host.files()


# Looking ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../../etc/shadow", "is not the name of a copy"),
        ("", "name a copy"),
        ("20200101T000000Z-1.sqlite", "There is no copy 20200101T000000Z-1.sqlite"),
        ("yesterday", "is not the name of a copy"),
    ],
)
def test_a_name_that_is_none_is_answered_with_those_that_are(
    host: Host, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = host.good()["record"]["name"]
    if not name:
        assert program.main(["restore"]) == 64
        return
    code, answer = host.run("verify", name)
    assert code == 2
    assert words in answer["msg"]
    assert made in answer["msg"]


def test_latest_is_never_what_a_restore_replaced(host: Host) -> None:
    assert host.run("verify", "latest")[0] == 2
    name = host.good()["record"]["name"]
    host.record("D")
    host.good("restore", "latest")
    assert host.good("verify", "latest")["record"]["name"] == name


def test_a_copy_without_its_record_is_not_trusted(host: Host) -> None:
    name = host.good()["record"]["name"]
    (host.directory / f"{name}.json").write_text("{")
    code, answer = host.run("restore", name)
    assert code == 2
    assert "has no record" in answer["msg"]


# Restoring ----------------------------------------------------------------------------------------


def test_a_restore_brings_back_the_rows_and_keeps_what_it_replaces(host: Host) -> None:
    name = host.good()["record"]["name"]
    host.record("D")
    host.calls()
    answer = host.good("restore", name, "--by", "anna")
    assert host.plates() == ["A", "B", "C"]
    calls = [line.split("--reason")[0].strip() for line in host.calls()]
    assert calls == [
        "toll-app-flask toll schema --code",
        "systemctl stop toll-app.socket toll-app-check.socket toll-app.service",
        "toll-app-flask toll backup -",
        "toll-app-flask toll restore - --no-keep",
        "toll-app-data",
        "toll-app-flask toll counts",
        "toll-app-handover --json --wait=600",
    ]
    # And the way back from the way back.
    host.good("restore", answer["replaced"])
    assert host.plates() == ["A", "B", "C", "D"]


@pytest.mark.parametrize("damage", ["bit", "short", "record", "rows"])
def test_a_damaged_copy_stops_nothing(host: Host, damage: str) -> None:
    host.record(*[f"PLATE{number:05}" for number in range(3000)])
    path = Path(host.good()["path"])
    content = path.read_bytes()
    record = Path(f"{path}.json")
    told = json.loads(record.read_text())
    if damage == "bit":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "short":
        path.write_bytes(content[:-4096])
    elif damage == "record":
        record.write_text(json.dumps({**told, "sha256": "0" * 64}))
    else:
        record.write_text(json.dumps({**told, "tables": {**told["tables"], "passages": 1}}))
    host.calls()
    for what in ("verify", "restore"):
        code, answer = host.run(what, path.name)
        assert code == 2, answer
        assert "damaged" in answer["msg"] or "other rows" in answer["msg"]
    assert not [line for line in host.calls() if line.startswith("systemctl")]


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
    host: Host, schema: str, works_with: str, words: str
) -> None:
    with host.database() as base:
        base.execute("UPDATE schema_state SET revision = ?, works_with = ?", (schema, works_with))
    name = host.good()["record"]["name"]
    host.calls()
    code, answer = host.run("verify", name)
    assert words in answer["msg"]
    assert code == (2 if "does not know" in words else 0)
    if code:
        assert host.run("restore", name)[0] == 2
        assert not [line for line in host.calls() if line.startswith("systemctl")]


def test_a_copy_of_the_other_database_is_refused(host: Host) -> None:
    name = host.good()["record"]["name"]
    (host.root / "database_url").write_text("postgresql://db/toll")
    code, answer = host.run("restore", name)
    assert code == 2
    assert "take a copy of postgresql" in answer["msg"]


@pytest.mark.parametrize("word", ["restore", "toll-app-data", "counts", "toll-app-handover"])
def test_what_was_there_is_back_after_a_failure(host: Host, word: str) -> None:
    name = host.good()["record"]["name"]
    host.record("D")
    copies = host.files()
    host.break_(word, "no luck")
    host.calls()
    if word in ("restore", "toll-app-handover"):
        # The first time only: else there would be no way back.
        original = program.start if word == "toll-app-handover" else program.put_back
        target = "start" if word == "toll-app-handover" else "put_back"
        tries = []

        def once(*arguments: Any, **options: Any) -> None:
            tries.append(1)
            if len(tries) > 1 and (host.root / f"broken-{word}").exists():
                host.mend(word)
            original(*arguments, **options)

        host.monkeypatch.setattr(program, target, once)
    code, answer = host.run("restore", name)
    assert code == 1
    assert "no luck" in answer["msg"]
    assert "The data are as they were before, and the service runs." in answer["msg"]
    assert host.plates() == ["A", "B", "C", "D"]
    assert host.calls()[-1].startswith("toll-app-handover")
    assert host.files() == copies


def test_rows_that_differ_after_the_restore_take_it_back(host: Host) -> None:
    name = host.good()["record"]["name"]
    flask = host.root / "bin" / "toll-app-flask"
    flask.write_text(flask.read_text().replace('"passages": count', '"passages": count + 1'))
    host.record("D")
    code, answer = host.run("restore", name)
    assert code == 1
    assert "other rows than the copy" in answer["msg"]
    assert host.plates() == ["A", "B", "C", "D"]


def test_when_nothing_helps_it_says_where_the_data_are(host: Host) -> None:
    name = host.good()["record"]["name"]
    host.record("D")
    host.break_("toll-app-handover", "no luck")
    code, answer = host.run("restore", name)
    assert code == 1
    assert "the service does not run" in answer["msg"]
    kept = [each for each in host.files() if each.endswith("before-restore.sqlite")]
    assert kept
    assert kept[0] in answer["msg"]


def test_a_database_past_reading_is_put_aside_and_replaced(host: Host) -> None:
    """This is when one needs the copy most."""
    name = host.good()["record"]["name"]
    live = host.root / "data" / "toll.db"
    live.write_bytes(os.urandom(8192))
    host.calls()
    answer = host.good("restore", name)
    assert host.plates() == ["A", "B", "C"]
    assert "toll-app-flask toll restore -" in host.calls(), "which keeps what it replaces"
    assert (host.root / "data" / "toll.db.replaced").stat().st_size == 8192
    assert answer["replaced"] is None


def test_a_restore_and_a_handover_keep_out_of_each_others_way(host: Host) -> None:
    """One that is under way would start the service on data that are being replaced."""
    host.good()
    host.calls()
    lock = host.root / "handover" / "lock"
    lock.parent.mkdir()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, answer = host.run("restore", "latest")
        assert code == program.REFUSED
        assert "A handover has been under way" in answer["msg"]
    assert not [
        call for call in host.calls() if call.startswith(("systemctl", "toll-app-handover"))
    ]
    seen: list[tuple[str, bool]] = []
    real = subprocess.run

    def look(argv: list[str], *rest: Any, **told: Any) -> Any:
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free = True
            except BlockingIOError:
                free = False
        seen.append((os.path.basename(argv[0]), free))
        return real(argv, *rest, **told)

    host.monkeypatch.setattr(subprocess, "run", look)
    host.good("restore", "latest")
    held = {name for name, free in seen if not free}
    assert {"systemctl", "toll-app-data"} <= held
    assert ("toll-app-handover", True) in seen
    assert "toll-app-handover" not in held


def test_no_room_stops_nothing(host: Host) -> None:
    name = host.good()["record"]["name"]
    host.monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    host.calls()
    code, answer = host.run("restore", name)
    assert code == 2
    assert "make room first" in answer["msg"]
    assert not [line for line in host.calls() if line.startswith("systemctl")]


def test_restore_in_check_mode_looks_only(host: Host) -> None:
    name = host.good()["record"]["name"]
    host.record("D")
    host.calls()
    answer = host.good("restore", name, "--check")
    assert "would be put back" in answer["msg"]
    assert host.plates() == ["A", "B", "C", "D"]
    assert host.calls() == ["toll-app-flask toll schema --code"]


def test_a_copy_that_is_still_to_be_handed_over_can_be_previewed(host: Host) -> None:
    """In check mode nothing is copied to the host, so there is nothing to read."""
    name = host.good()["record"]["name"]
    host.calls()
    answer = host.good("restore", "20300101T000000Z-2.sqlite", "--preview")
    assert answer["changed"] is True
    assert "20300101T000000Z-2.sqlite would be handed over" in answer["msg"]
    assert host.calls() == []
    assert f"{name} is whole" in host.good("restore", name, "--preview")["msg"]
    assert "stop" not in str(host.calls())


@pytest.mark.parametrize(
    "arguments",
    [
        ["restore", "latest", "--by", "anna"],
        ["restore", "--by", "anna", "latest"],
        ["--by", "anna", "restore", "latest"],
    ],
)
def test_options_may_stand_anywhere(arguments: list[str]) -> None:
    options = program.parse(arguments)
    assert (options.what, options.name, options.by) == ("restore", "latest", "anna")


@pytest.mark.parametrize("arguments", [["resotre"], ["list", "latest"], ["verify"], ["--jsn"]])
def test_a_wrong_command_is_told_apart_from_a_refusal(arguments: list[str]) -> None:
    assert program.main(arguments) == 64


def test_nobody_interrupts_a_restore_half_way() -> None:
    with program.undisturbed():
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# Encryption ---------------------------------------------------------------------------------------


@pytest.fixture
def identity(tmp_path: Path) -> tuple[str, str]:
    """A private key and its public one."""
    said = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    public = next(line for line in said.splitlines() if "public key" in line).split(": ")[1]
    return said, public


def test_an_encrypted_copy_is_read_with_the_key_alone(
    host: Host, identity: tuple[str, str]
) -> None:
    private, public = identity
    host.configure(recipient=public)
    answer = host.good()
    path = Path(answer["path"])
    assert path.name.endswith(".sqlite.age")
    assert path.read_bytes().startswith(b"age-encryption.org/v1")
    assert b"SQLite" not in path.read_bytes()
    host.record("D")
    code, refused = host.run("restore", path.name)
    assert code == 2
    assert "private key" in refused["msg"]
    other = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    code, refused = host.run("restore", path.name, "--identity", stdin=other)
    assert code == 2
    assert "Decrypting the copy failed" in refused["msg"]
    assert host.plates() == ["A", "B", "C", "D"]
    done = host.good("restore", path.name, "--identity", stdin=private)
    assert host.plates() == ["A", "B", "C"]
    # What was replaced had to be readable meanwhile, and is encrypted now.
    assert done["replaced"].endswith("-before-restore.sqlite.age")
    assert all(".age" in each for each in host.files())
    for each in host.root.rglob("*"):
        if each.is_file():
            assert b"AGE-SECRET-KEY" not in each.read_bytes(), each


# PostgreSQL ---------------------------------------------------------------------------------------


def test_a_dump_is_read_to_its_last_row(host: Host) -> None:
    """With pg_restore played by a script: names with capitals, empty tables, rows like ends."""
    script = host.root / "bin" / "pg_restore"
    lines = [
        "--",
        'COPY public.schema_state (id, revision, "works_with") FROM stdin;',
        '1\\t2\\t["1"]',
        "\\\\.",
        'COPY public."Odd" (id) FROM stdin;',
        "\\\\.",
        "COPY public.passages (id, plate) FROM stdin;",
        "1\\tCOPY public.passages (id) FROM stdin;",
        "2\\t\\\\\\\\.",
        "\\\\.",
    ]
    text = "".join(f"printf '%b\\n' '{line}'\n" for line in lines)
    script.write_text(f'#!/bin/sh\ntest "$1" = --list && exit 0\n{text}test ! -e {host.root}/bad\n')
    script.chmod(0o755)
    assert program.examine("x", "postgresql") == {
        "schema": "2",
        "works_with": ["1"],
        "tables": {"Odd": 0, "passages": 2, "schema_state": 1},
    }
    (host.root / "bad").touch()
    with pytest.raises(program.BackupError, match="damaged"):
        program.examine("x", "postgresql")


# What the role says -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"toll_app_backup_command": ["/bin/cp", "{file}", "/mnt/"]},
    ],
    ids=["alone", "with a command"],
)
@pytest.mark.parametrize("family", ["Debian", "RedHat"])
def test_units_are_right_and_settings_are_what_the_program_reads(
    family: str, variables: dict[str, Any], tmp_path: Path
) -> None:
    told = {"toll_app_domains": ["a.example.com"], "ansible_play_hosts_all": [], **variables}
    for name in ("toll-app-backup.service", "toll-app-backup.timer"):
        text = render("toll_app", f"backup/{name}.j2", family, **told)
        # The program is not on this machine, and systemd looks for it.
        (tmp_path / name).write_text(text.replace("/usr/local/sbin/toll-app-backup", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(map(str, tmp_path.iterdir()))],
        capture_output=True,
        text=True,
    )
    mine = [line for line in (done.stdout + done.stderr).splitlines() if "toll-app-backup" in line]
    assert (done.returncode, mine) == (0, [])
    said = json.loads(render("toll_app", "backup.json.j2", family, **told))
    assert said.keys() == program.DEFAULTS.keys()
    assert said["keep"] == program.DEFAULTS["keep"]
    assert said["metrics"] == program.DEFAULTS["metrics"]
