"""The archive of PostgreSQL: the role's files, pgBackRest, and what was deleted brought back."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.plugin_utils import databases
from apphost.postgresql_archive import points, programs, restoring, settings
from apphost.postgresql_archive.settings import RefusedError, Settings
from conftest import PROJECT

from .preflight import Case, preflight
from .render import evaluate, render
from .test_postgresql import SECRET, Server

PASSPHRASE = databases.archive_passphrase(SECRET)
S3 = {"repo1-type": "s3", "repo1-s3-bucket": "copies", "repo1-s3-key-secret": "hunter2-hunter2"}
SHIPPED = PROJECT / "roles" / "postgresql" / "templates" / "programs"


def archive_file(name: str, **told: Any) -> str:
    return render("postgresql", f"archive/{name}.j2", "Debian", **told)


def jobs() -> list[dict[str, Any]]:
    said = evaluate("postgresql", "__postgresql_archive_jobs", "Debian")
    last = evaluate("postgresql", "__postgresql_archive_restore", "Debian")
    return [*said, last]


# What is rendered ---------------------------------------------------------------------------------


def test_what_is_archived_elsewhere_is_encrypted() -> None:
    told = {"postgresql_archive_repository": S3, "postgresql_archive_passphrase": PASSPHRASE}
    lines = archive_file("pgbackrest.conf", **told).splitlines()
    assert "repo1-cipher-type=aes-256-cbc" in lines
    assert f"repo1-cipher-pass={PASSPHRASE}" in lines
    assert "repo1-s3-bucket=copies" in lines
    stanza = evaluate("postgresql", "__postgresql_archive_stanza", "Debian", **told)
    assert f"[{stanza}]" in lines
    # Nothing else of the role tells the passphrase.
    for job in jobs():
        assert PASSPHRASE not in archive_file("job.service", job=job, **told)
    for name in ("settings.json", "command"):
        assert PASSPHRASE not in archive_file(name, **told)
    assert PASSPHRASE not in render("postgresql", "postgresql.conf.j2", "Debian", **told)


def test_another_secret_begins_another_archive() -> None:
    """What was written with one cannot be read with the other."""
    names = {
        str(
            evaluate(
                "postgresql",
                "__postgresql_archive_stanza",
                "Debian",
                postgresql_archive_passphrase=databases.archive_passphrase(secret),
            )
        )
        for secret in (SECRET, "t" * 64)
    }
    assert len(names) == 2
    assert {PASSPHRASE[:8]}.isdisjoint(name.removeprefix("main-") for name in names)


def test_without_an_archive_nothing_of_it_is_there() -> None:
    text = render("postgresql", "postgresql.conf.j2", "Debian", postgresql_archive=False)
    assert "archive" not in text
    drop_in = render("postgresql", "drop-in.conf.j2", "Debian", postgresql_archive=False)
    assert "pgbackrest" not in drop_in


def test_several_hosts_archive_where_all_of_them_reach() -> None:
    """In a directory of its own, each would have a part of the log."""
    members = [{"name": f"db{n}", "address": f"192.0.2.3{n}"} for n in (1, 2)]
    told: dict[str, Any] = {
        "postgresql_members": members,
        "postgresql_archive_passphrase": PASSPHRASE,
    }
    here = render("postgresql", "postgresql.conf.j2", "Debian", **told)
    assert "archive_mode" not in here
    told["postgresql_archive_repository"] = S3
    elsewhere = [
        render("postgresql", "postgresql.conf.j2", "Debian", postgresql_member_name=name, **told)
        for name in ("db1", "db2")
    ]
    assert "archive_mode = 'on'" in elsewhere[0]
    commands = {re.findall("^archive_command = .*$", text, re.MULTILINE)[0] for text in elsewhere}
    assert len(commands) == 1
    said = json.loads(archive_file("settings.json", **told))["cluster"]
    assert said == "/usr/local/sbin/postgresql-cluster"
    assert json.loads(archive_file("settings.json"))["cluster"] == ""


def test_only_an_archive_of_this_host_may_be_written_here() -> None:
    told = {"postgresql_archive_repository": S3, "postgresql_archive_passphrase": PASSPHRASE}
    mounted = {"repo1-type": "cifs", "repo1-path": "/var/lib/pgbackrest"}
    other = {**told, "postgresql_archive_repository": mounted}
    for given, writable in ({}, True), (told, False), (other, True):
        text = render("postgresql", "drop-in.conf.j2", "Debian", **given)
        (paths,) = re.findall("^ReadWritePaths=(.*)$", text, re.MULTILINE)
        assert ("/var/lib/pgbackrest" in paths.split()) == writable


def test_units_are_understood(tmp_path: Path) -> None:
    written = []
    for job in jobs():
        for kind in ("service", "timer") if "calendar" in job else ("service",):
            path = tmp_path / f"{job['name']}.{kind}"
            text = archive_file(f"job.{kind}", job=job)
            # Neither is on the machine of these tests.
            text = re.sub("^ExecStart=.*$", "ExecStart=/bin/true", text, flags=re.MULTILINE)
            path.write_text(text.replace("User=postgres\n", "").replace("Group=postgres\n", ""))
            written.append(path)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, written)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) not in done.stderr, done.stderr


def test_the_program_is_shipped_whole() -> None:
    package = PROJECT / "host" / "apphost" / "postgresql_archive"
    links = {path.name: path.resolve() for path in (SHIPPED / "postgresql_archive").iterdir()}
    assert links == {path.name: path for path in package.glob("*.py")}


def test_timers_that_the_program_starts_are_those_of_the_role() -> None:
    told = evaluate("postgresql", "__postgresql_archive_timers", "Debian")
    assert sorted(restoring.TIMERS) == sorted(told)
    names = {f"{job['name']}.service" for job in jobs()}
    assert names >= {restoring.RESTORE, restoring.CHECK, *restoring.COPIES}


# What is refused ----------------------------------------------------------------------------------

BAD: dict[str, tuple[Case, str]] = {
    "a short passphrase": (
        Case({"postgresql_archive_passphrase": "hunter2"}),
        "is shorter than 32 characters, or contains spaces or characters outside ASCII: generate "
        "one",
    ),
    "everything in a bucket, in clear": (
        Case({"postgresql_archive_repository": S3}),
        "postgresql_archive_passphrase is empty, so the archive, which holds all data",
    ),
    "an option of the role": (
        Case({"postgresql_archive_repository": {"repo1-retention-full": 1}}),
        "has repo1-retention-full, which this role sets itself: use the variables",
    ),
    "a section in a value": (
        Case({"postgresql_archive_repository": {"repo1-s3-key": "hunter2\n[main]"}}),
        "has repo1-s3-key, which is not an option of [global] with a value on one line",
    ),
    "a path with a blank": (
        Case({"postgresql_archive_repository": {"repo1-path": "/srv/my copies"}}),
        "has a repo1-path that is not an absolute path",
    ),
    "what this pgBackRest does not know": (
        Case(
            {
                "postgresql_archive_repository": {"repo1-type": "sftp"},
                "postgresql_archive_passphrase": PASSPHRASE,
            },
            {"distribution_version": "12", "pretty_name": "Debian GNU/Linux 12"},
        ),
        "has repo1-type sftp, which pgBackRest on Debian GNU/Linux 12 does not support: use s3",
    ),
    "an archive of this host, that several are to have": (
        Case(
            {"postgresql_members": [{"name": "db1", "address": "192.0.2.31"}]},
            {"units": {"postgresql-archive.timer": {"active": True, "enabled": True}}},
        ),
        "keeps the archive on this host only, and with several members each of them would",
    ),
    "a time of no clock": (
        Case({"postgresql_archive_full_calendar": "25:00"}),
        "is not a calendar event",
    ),
}


def test_what_cannot_work_is_said() -> None:
    said = preflight("postgresql", {name: case for name, (case, _) in BAD.items()})
    assert {name: BAD[name][1] for name in BAD if BAD[name][1] not in said[name]} == {}, said
    assert "hunter2" not in str(said)


def test_what_works_is_not_refused() -> None:
    elsewhere = {"postgresql_archive_repository": S3, "postgresql_archive_passphrase": PASSPHRASE}
    cases = {"elsewhere": Case(elsewhere), "off": Case({"postgresql_archive": False})}
    assert set(preflight("postgresql", cases).values()) == {""}


# pgBackRest and PostgreSQL themselves -------------------------------------------------------------


class Archived(Server):
    """A server whose log is archived, on the loopback, and the program that the role ships."""

    def __init__(self, folder: Path) -> None:
        configuration = folder / "pgbackrest.conf"
        self.given: dict[str, Any] = {
            "postgresql_archive": True,
            "postgresql_archive_passphrase": PASSPHRASE,
            "postgresql_archive_repository": {"repo1-path": str(folder / "archive")},
            "__postgresql_archive_configuration": str(configuration),
            # Where these are differs from a host, and pgBackRest itself reads another file there.
            "__postgresql_archive_tool": f"/usr/bin/pgbackrest --config={configuration}",
        }
        super().__init__(folder, **self.given)
        places = {
            "__postgresql_etc": str(folder),
            "__postgresql_data": str(folder / "data"),
            "__postgresql_sockets": str(folder),
            "__postgresql_port": self.port,
            "__postgresql_programs": str(self.bin),
            "__postgresql_version": self.bin.parent.name,
        }
        given = {**self.given, **places}
        texts = {"pgbackrest.conf": archive_file("pgbackrest.conf", **given)}
        told = json.loads(archive_file("settings.json", **given))
        told |= {"tool": "/usr/bin/pgbackrest", "request": str(folder / "request.json")}
        texts["archive.json"] = json.dumps(told)
        for name, text in texts.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o600)
            if self.user:
                shutil.chown(folder / name, self.user, self.user)
        shutil.copytree(SHIPPED, folder / "programs")
        self.settings: Settings = settings.read(folder / "archive.json")

    def lay_out(self, **told: Any) -> dict[str, str]:
        texts = super().lay_out(**told)
        with (self.folder / "postgresql.conf").open("a") as file:
            file.write("fsync = off\n")
        return texts

    def program(self, *words: str) -> str:
        """What the role's program says, as PostgreSQL's user."""
        python = "/usr/bin/python3" if self.user else sys.executable
        return self.run(
            python, "-IB", self.folder / "programs", self.folder / "archive.json", *words
        )

    def restore(self, wanted: str) -> str:
        """What root and the units do."""
        plan = restoring.examine(self.settings, wanted, mark=True)
        request = {"stamp": plan.stamp, "options": restoring.options(plan.point)}
        self.settings.request.write_text(json.dumps(request))
        self.settings.request.chmod(0o644)
        self.halt()
        try:
            return self.program("replay")
        finally:
            self.go()

    def halt(self) -> None:
        assert self.process
        self.process.send_signal(2)
        self.process.wait()

    def fail_over(self) -> None:
        """Lose the primary, and promote a replica that has received all of its log."""
        assert self.process
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()
        self.settings.data.joinpath("standby.signal").touch()
        self.go()
        self.ask("SELECT pg_promote()")

    def go(self) -> None:
        with (self.folder / "log").open("ab") as log:
            words = ["-c", f"config_file={self.folder / 'postgresql.conf'}"]
            self.process = subprocess.Popen(
                [self.bin / "postgres", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self.options(),
            )
        while True:
            try:
                self.run(self.bin / "pg_isready", "-q", "-h", self.folder, "-p", str(self.port))
                return
            except AssertionError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.05)

    def note(self, what: str) -> str:
        """Write a row, and return the time after it; a transaction has one to itself."""
        self.ask(f"INSERT INTO notes VALUES ('{what}')")
        noted = self.ask("SELECT clock_timestamp()")
        time.sleep(0.01)
        return noted

    def notes(self) -> list[str]:
        return self.ask("SELECT what FROM notes ORDER BY ctid").split()


@pytest.fixture(scope="module")
def server() -> Iterator[Archived]:
    with tempfile.TemporaryDirectory(prefix="archive-") as folder:
        server = Archived(Path(folder))
        try:
            server.start()
            server.ask("CREATE TABLE notes (what text)")
            yield server
        finally:
            server.stop()


def test_what_was_deleted_comes_back_and_what_came_later_does_not(server: Archived) -> None:
    """Twice: the second time to a moment that the first restore has left behind."""
    early = server.note("early")
    assert "There is no copy yet" in server.program("check")
    with pytest.raises(RefusedError, match="has no copy of this database yet"):
        restoring.examine(server.settings, early)
    assert "Copied as" in server.program("copy", "--type", "full")
    assert "The archive reaches from" in server.program("check")
    first = server.note("first")
    second = server.note("second")
    server.ask("DROP TABLE notes")

    said = restoring.preview(server.settings, first)
    assert f"{server.settings.data}.replaced-" in said
    assert "(far-away, shop, toll-app)" in said
    with pytest.raises(RefusedError, match=r"cannot be restored. The archive reaches from"):
        restoring.examine(server.settings, early)
    with pytest.raises(RefusedError, match=r"is in the future. The archive reaches from"):
        restoring.examine(server.settings, "2999-01-01 00:00:00Z")

    assert server.restore(first) == "Replayed.\n"
    assert server.notes() == ["early", "first"]
    assert server.ask("SELECT timeline_id FROM pg_control_checkpoint()") == "2"
    assert server.ask("SHOW restore_command") == ""
    # What was replaced is there.
    (kept,) = server.folder.glob("data.replaced-*")
    assert (kept / "PG_VERSION").exists()
    # The archive works on.
    assert "The archive reaches from" in server.program("check")

    server.note("third")
    server.restore(second)
    assert server.notes() == ["early", "first", "second"]
    assert "The archive reaches from" in server.program("check")


def test_the_last_moments_before_a_failover_come_back(server: Archived) -> None:
    """A lost primary has archived its last segment nowhere; the one that takes its place does."""
    server.program("copy", "--type", "diff")
    archived = server.notes()
    moments = [server.note(f"moment{number}") for number in (1, 2, 3)]
    # The archive has whole seconds.
    time.sleep(1)
    server.fail_over()
    server.note("afterwards")
    server.program("check")

    # Those of the same timeline, which the first restore has left.
    for number in (1, 2):
        server.restore(moments[number])
        written = [f"moment{each}" for each in range(1, number + 2)]
        assert server.notes() == [*archived, *written]
        assert "The archive reaches from" in server.program("check")
    server.restore(points.LATEST)
    assert server.notes() == [*archived, *written]


def test_a_copy_by_its_name(server: Archived) -> None:
    server.note("kept")
    server.program("copy", "--type", "diff")
    label = max(programs.holdings(server.settings).copies, key=lambda each: each.stop).label
    server.note("later")
    server.restore(label)
    assert server.notes()[-1] == "kept"
    with pytest.raises(RefusedError, match=r"The archive has no copy 20200101-000000F. It has"):
        restoring.examine(server.settings, "20200101-000000F")


def test_what_cannot_be_replayed_leaves_the_data_where_they_were(server: Archived) -> None:
    server.note("present")
    request = {"stamp": "broken", "options": ["--set=20200101-000000F"]}
    server.settings.request.write_text(json.dumps(request))
    server.settings.request.chmod(0o644)
    server.halt()
    with pytest.raises(AssertionError, match="20200101-000000F"):
        server.program("replay")
    server.go()
    assert server.notes()[-1] == "present"
    assert not server.folder.joinpath("data.replaced-broken").exists()


def test_nothing_is_stopped_for_want_of_room(
    server: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(restoring.shutil, "disk_usage", lambda path: usage._replace(free=9 * 2**20))
    with pytest.raises(RefusedError, match=r"has 9 MiB free, and .* are needed beside") as caught:
        restoring.examine(server.settings, points.LATEST)
    assert "or remove data.replaced-" in str(caught.value)


def test_a_missing_part_of_the_log_is_noticed(server: Archived) -> None:
    server.program("copy", "--type", "diff")
    for _ in range(3):
        server.note("gap")
        server.program("check")
    held = programs.holdings(server.settings)
    newest = max(held.copies, key=lambda each: each.stop)
    timeline = points.newest_timeline(held)
    number = max(held.segments[timeline]) - 1
    assert number > points.place(newest.last)[1]
    name = points.name_of(timeline, number)
    (lost,) = server.folder.glob(f"archive/archive/*/*/*/{name}-*")
    lost.unlink()
    with pytest.raises(AssertionError, match=f"Segment {name} of the log is missing"):
        server.program("check")
    plan = restoring.examine(server.settings, points.LATEST)
    assert plan.point.until < time.time() - 0.5
    server.program("copy", "--type", "diff")
    assert "The archive reaches" in server.program("check")


def test_damage_is_found(server: Archived) -> None:
    assert "The whole archive was read" in server.program("verify")
    victim = next(server.folder.glob("archive/archive/*/*/*/*.zst"))
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-3])
    with pytest.raises(AssertionError, match="The archive is damaged"):
        server.program("verify")
    victim.write_bytes(whole)


def test_a_new_database_does_not_take_the_place_of_the_old_one(server: Archived) -> None:
    """A host that was lost, and set up anew: its archive is elsewhere, and has the data."""
    server.note("before")
    server.program("check")
    server.halt()
    data = server.folder / "data"
    shutil.move(data, server.folder / "lost")
    server.start()
    with pytest.raises(AssertionError, match="The archive has the data of another") as caught:
        server.program("check")
    assert "-e application_restore_to=latest (the archive reaches from" in str(caught.value)
    server.restore(points.LATEST)
    assert server.notes()[-1] == "before"
    assert "The archive reaches" in server.program("check")
