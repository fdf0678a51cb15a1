"""The verb `migrate`, with the application played by a script in each release."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from apphost import cli, data, database, files, readiness, schema, seeds
from apphost.application import Application
from apphost.errors import RefusedError, UsageError

from .conftest import Programs, describe, serving

# The application's commands, over a file that stands for the database. What they were given,
# secrets included, is kept in `calls`.
APPLICATION = """#!{python}
import json, os, sys
release, given = sys.argv[0].split("/")[-3], sys.argv[1:]
here, file = {here!r}, {data!r} + "/shop.db"
calls = open(here + "/calls", "a")
print(release, *given, file=calls)
try:
    base = json.load(open(file))
except FileNotFoundError:
    base = {{"schema": None, "users": []}}
if given[0] == "schema":
    good = base["schema"] == release
    if os.path.exists(here + "/numberless"):
        print("" if good else "not applied: " + release)
    else:
        print(json.dumps({{"head": release, "database": base["schema"], "compatible": good}}))
    sys.exit(0 if good else 1)
if os.path.exists(here + "/broken-" + given[0]):
    half = open(here + "/broken-" + given[0]).read()
    if half:
        json.dump(base | {{"schema": half}}, open(file, "w"))
    sys.exit("it is broken: " + (sys.stdin.read() if given[0] == "user" else ""))
if given[0] == "migrate":
    base["schema"] = release
elif given[0] == "backup":
    open(given[1], "w").write(json.dumps(base))
elif given[:2] == ["user", "create"]:
    if given[2] in base["users"]:
        print(json.dumps({{"changed": False}}))
    else:
        print("password:", sys.stdin.read(), file=calls)
        base["users"].append(given[2])
        print(json.dumps({{"changed": True}}))
elif given[0] == "demo":
    base["demo"] = True
json.dump(base, open(file, "w"))
"""

Seeds = Sequence[dict[str, Any]]
DEMO = {"name": "demo", "words": ["shopctl", "demo"]}


def admin(password: str = "p", name: str = "anna") -> dict[str, Any]:
    """The first user."""
    words = ["shopctl", "user", "create", name]
    return {"name": "admin", "key": name, "words": words, "stdin": password}


class Host:
    """A host with releases 1 and 2 and nothing else."""

    def __init__(self, application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
        self.application = application
        self.root, self.data = application.host, application.data
        self.credential = application.credential("database_url")
        self.credential.parent.mkdir()
        self.monkeypatch = monkeypatch
        for release in ("1", "2"):
            folder = application.releases / release
            (folder / "bin").mkdir(parents=True)
            (folder / "app").mkdir()
            (folder / "bin" / "python").touch()
            self.program(release, APPLICATION)
        self.ready: str | None = None
        monkeypatch.setattr(data, "LOCK_SECONDS", 0)
        monkeypatch.setattr(readiness, "is_ready", lambda _, release: release == self.ready)

    def program(self, release: str, text: str) -> None:
        """Give a release another program."""
        path = self.application.releases / release / "bin" / "shopctl"
        given = {"python": sys.executable, "here": str(self.root), "data": str(self.data)}
        path.write_text(text.format(**given))
        path.chmod(0o755)

    def go_live(self, release: str) -> None:
        """What a handover does."""
        self.application.current.unlink(missing_ok=True)
        self.application.current.symlink_to(f"releases/{release}")
        self.ready = release

    def type(self, *words: str, seeds: Seeds = (), stdin: str = "") -> int:
        """Type the command; return its exit code."""
        if seeds:
            words, stdin = (*words, "--seeds"), json.dumps({"seeds": seeds})
        self.monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        name = self.application.name
        return cli.main(name, ["migrate", *words, "--json"], self.application.host)

    def run(self, *words: str, seeds: Seeds = ()) -> dict[str, Any]:
        """The answer of a run that succeeds."""
        return self.answer(0, *words, seeds=seeds)

    def fail(self, code: int, *words: str, seeds: Seeds = ()) -> str:
        """The message of a run that ends with this exit code."""
        return str(self.answer(code, *words, seeds=seeds)["msg"])

    def answer(self, code: int, *words: str, seeds: Seeds = ()) -> dict[str, Any]:
        shown = io.StringIO()
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", shown)
            ended = self.type(*words, seeds=seeds)
        answer: dict[str, Any] = json.loads(shown.getvalue())
        assert ended == code, answer
        return answer

    def calls(self) -> list[str]:
        """What the application was given since the last question."""
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def database(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.data / "shop.db").read_text())
        return content

    def stamp(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.application.state / "data.json").read_text())
        return content

    def copies(self) -> list[Path]:
        return sorted((self.data / "backups").glob("*"))


@pytest.fixture
def host(
    application: Application, programs: Programs, as_root: None, monkeypatch: pytest.MonkeyPatch
) -> Host:
    return Host(application, monkeypatch)


def test_first_deploy_makes_the_database_and_what_is_asked_for(host: Host) -> None:
    """There is nothing to copy yet."""
    answer = host.run("--release", "1", seeds=[admin("hush-hush-7f3a"), DEMO])
    assert answer["changed"] is True
    assert answer["did"] == ["migrate", "admin", "demo"]
    assert answer["backup"] is None
    assert host.database() == {"schema": "1", "users": ["anna"], "demo": True}
    calls = host.calls()
    assert "1 user create anna" in calls
    assert "password: hush-hush-7f3a" in calls
    assert "7f3a" not in json.dumps(answer)
    assert answer["msg"] == "schema from nothing to 1; admin (anna) seeded; demo seeded"
    assert host.stamp()["seeds"] == {"admin": "anna", "demo": ""}


def test_nothing_is_started_when_all_is_done(host: Host) -> None:
    """A run that changes nothing is to be short: only the live service is asked."""
    host.run("--release", "1", seeds=[admin(), DEMO])
    host.go_live("1")
    host.calls()
    answer = host.run("--release", "1", seeds=[admin(), DEMO])
    assert (answer["changed"], host.calls()) == (False, [])
    # What the service does not confirm is looked at.
    host.ready = None
    assert host.run("--release", "1", seeds=[admin(), DEMO])["changed"] is False
    assert host.calls() == ["1 schema"]


def test_service_is_asked_as_the_description_says(application: Application, as_root: None) -> None:
    """Only an answer that names the release says something about its database."""
    with serving(application.socket, 200, '{"release": "1"}'):
        assert readiness.is_ready(application, "1")
        assert not readiness.is_ready(application, "2")
        assert not readiness.is_ready(describe(application, health={"path": "/"}), "1")
    application.socket.unlink()
    described = describe(application, health={"path": "/up", "status": 204})
    assert not readiness.is_ready(described, "1")


def test_live_release_is_meant_unless_another_is_named(host: Host) -> None:
    assert "no release is live" in host.fail(2)
    host.go_live("2")
    host.run()
    assert host.database()["schema"] == "2"
    assert "There is no release 3. On this host are: 1, 2." in host.fail(2, "--release", "3")


def test_a_database_is_the_same_after_a_reboot(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its device may have another number then, and a preview promised to fill it again."""
    host.go_live("1")
    host.run(seeds=[DEMO])
    before, lstat = database.identity(host.application), os.lstat

    def rebooted(path: Any, **more: Any) -> os.stat_result:
        found = list(lstat(path, **more))
        found[2] += 1
        return os.stat_result(found)

    monkeypatch.setattr(os, "lstat", rebooted)
    assert database.identity(host.application) == before


def test_a_pooler_in_front_of_a_database_makes_it_no_other_one(host: Host) -> None:
    """Its seeds would run again."""
    url = host.application.credential("database_url")
    url.parent.mkdir(parents=True, exist_ok=True)
    url.write_text("postgresql://db1/shop")
    before = database.identity(host.application)
    assert str(before).startswith("url:")
    url.with_name("database_url_direct").write_text("postgresql://db1/shop")
    url.write_text("postgresql://db1:6432/shop")
    assert database.identity(host.application) == before


ADDRESSES = ["127.0.0.1", "192.0.2.31", "192.0.2.32"]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        # Another secret, another user, another way to write it.
        ("shop:first@192.0.2.31/shop", "shop:second@192.0.2.31/shop", True),
        ("shop:p@db1/shop", "ben@/shop?host=db1&port=5432&sslmode=require", True),
        ("u@[2001:db8::31]/shop", "u@/shop?host=2001:db8::31,2001:db8::32", True),
        ("u@/shop", "u@localhost/shop", True),
        ("u@/shop?host=/run/one", "u@/shop?host=%2Frun%2Fone&connect_timeout=2", True),
        # Others have joined it, and one has left.
        ("u@192.0.2.41/shop", "u@192.0.2.41,192.0.2.42,192.0.2.43/shop", True),
        ("u@192.0.2.41,192.0.2.42/shop", "u@192.0.2.42:5432,192.0.2.43/shop", True),
        # The description says that these are of one cluster.
        ("u@127.0.0.1/shop?sslmode=disable", "u@192.0.2.31,192.0.2.32/shop", True),
        ("u@192.0.2.41/shop", "u@192.0.2.42/shop", False),
        ("u@192.0.2.31/shop", "u@192.0.2.31:5433/shop", False),
        ("u@192.0.2.31:5433/shop", "u@192.0.2.32/shop", False),
        ("u@192.0.2.31/shop", "u@192.0.2.31/other", False),
        ("u@/shop?host=/run/one", "u@/shop?host=/run/two", False),
    ],
)
def test_who_logs_in_and_which_hosts_are_listed_makes_no_other_database(
    host: Host, first: str, second: str, same: bool
) -> None:
    kind = {"kind": "postgresql", "names": ADDRESSES}
    host.application = describe(host.application, database=kind)
    host.credential.write_text(f"postgresql://{first}")
    host.run("--release", "1", seeds=[admin(), DEMO])
    host.go_live("1")
    host.credential.write_text(f"postgresql+psycopg://{second}\n")
    answer = host.run("--release", "1", seeds=[DEMO])
    assert answer["did"] == ([] if same else ["demo"])
    # The handover keeps where it is now, so that each host of a cluster can go in its turn.
    database.note_served(host.application)
    assert host.stamp()["database"] == database.identity(host.application)
    assert ("admin" in host.stamp()["seeds"]) is same


def test_a_stamp_of_an_earlier_version_is_of_this_database(host: Host) -> None:
    """Of one that went by the URL as a whole."""
    host.credential.write_text("postgresql://u:p@db/shop")
    host.run("--release", "1", seeds=[DEMO])
    told = {**host.stamp(), "database": f"url:{files.digest(host.credential)}"}
    files.write_json(host.application.state / "data.json", told)
    assert host.run("--release", "1", seeds=[DEMO])["did"] == []


@pytest.mark.parametrize("words", [("--release", "1"), ("--seeded-elsewhere",)])
def test_a_stamp_of_an_earlier_version_outlasts_another_secret(
    host: Host, words: tuple[str, ...]
) -> None:
    """The first run of this version has nothing to do, and the next one has another password."""
    host.credential.write_text("postgresql://u:first@db/shop")
    host.run("--release", "1", seeds=[DEMO])
    host.go_live("1")
    told = {**host.stamp(), "database": f"url:{files.digest(host.credential)}"}
    files.write_json(host.application.state / "data.json", told)
    host.run(*words, "--check", seeds=[DEMO])
    assert host.stamp() == told
    host.run(*words, seeds=[DEMO])
    host.credential.write_text("postgresql://u:second@db/shop")
    assert host.run("--release", "1", seeds=[DEMO])["did"] == []


def test_a_host_that_takes_over_runs_no_seed_again(host: Host) -> None:
    """The first host of a fleet has prepared the database, and is gone one day."""
    host.credential.write_text("postgresql://u:p@db/shop")
    host.run("--release", "1", seeds=[admin(), DEMO])
    # Another host has a state of its own.
    (host.application.state / "data.json").unlink()
    host.calls()
    host.run("--seeded-elsewhere", "--check", seeds=[admin(), DEMO])
    assert not (host.application.state / "data.json").exists()
    assert host.run("--seeded-elsewhere", seeds=[admin(), DEMO])["changed"] is False
    assert host.calls() == []
    database.note_served(host.application)
    answer = host.run("--release", "1", seeds=[admin(), DEMO, {**DEMO, "name": "more"}])
    assert answer["did"] == ["more"]


def test_seed_runs_again_for_another_key(host: Host) -> None:
    """Another name for the admin is another admin; a seed that is no longer asked for stays."""
    host.run("--release", "1", seeds=[admin(), DEMO])
    assert host.run("--release", "1", seeds=[admin(name="berta")])["did"] == ["admin"]
    assert host.database()["users"] == ["anna", "berta"]
    assert host.stamp()["seeds"] == {"admin": "berta", "demo": ""}


def test_seed_that_fails_is_named_without_its_secret(host: Host) -> None:
    """It may print what it has read. What other seeds made stays made."""
    (host.root / "broken-user").touch()
    msg = host.fail(1, "--release", "1", seeds=[DEMO, admin("hush-hush-7f3a")])
    assert msg.startswith("The seed admin (anna) failed (exit code 1):")
    assert "it is broken: ********" in msg
    assert "7f3a" not in msg
    assert host.stamp()["seeds"] == {"demo": ""}
    (host.root / "broken-user").unlink()
    assert host.run("--release", "1", seeds=[DEMO, admin()])["did"] == ["admin"]


def test_secret_is_in_no_argument_and_no_file(host: Host, programs: Programs) -> None:
    host.run("--release", "1", seeds=[admin("hush-hush-7f3a")])
    assert "7f3a" not in "".join(programs.calls("systemd-run"))
    host.calls()
    for path in host.root.rglob("*"):
        assert not path.is_file() or b"7f3a" not in path.read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hush",
        "[]",
        '{"seeds": {"hush": 1}}',
        '{"seeds": [{"words": ["hush"]}]}',
        '{"seeds": [{"name": "a", "words": []}]}',
        '{"seeds": [{"name": "a", "words": "hush"}]}',
        '{"seeds": [{"name": "a", "words": ["x", 1]}]}',
        '{"seeds": [{"name": "a", "words": ["x"], "stdin": 1}]}',
        '{"seeds": [{"name": "a", "words": ["x"]}, {"name": "a", "words": ["x"]}]}',
    ],
)
def test_seeds_that_are_none_are_not_shown(text: str) -> None:
    """What somebody typed in a hurry may be the password."""
    with pytest.raises(UsageError) as error:
        seeds.read(text)
    assert "--seeds: standard input is not" in str(error.value)
    assert "hush" not in str(error.value)
    assert "hush" not in repr(seeds.Seed("a", "", ("x",), "hush"))


def test_migration_comes_after_a_copy(host: Host) -> None:
    host.run("--release", "1")
    host.go_live("1")
    before = host.database()
    host.calls()
    answer = host.run("--release", "2")
    assert answer["schema"] == {"before": "1", "after": "2"}
    assert [line.split()[1] for line in host.calls()] == ["schema", "backup", "migrate"]
    (copy,) = host.copies()
    assert str(copy) == answer["backup"]
    assert json.loads(copy.read_text()) == before
    assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700


def test_so_many_copies_are_kept_and_no_others_touched(host: Host) -> None:
    host.run("--release", "1")
    backups = host.data / "backups"
    backups.mkdir()
    for day in range(1, 8):
        (backups / f"2026010{day}T000000Z-1.sqlite").write_text("old")
    (backups / "before-the-great-change.sqlite").write_text("by hand")
    host.run("--release", "2", "--keep", "3")
    names = [path.name for path in host.copies()]
    assert names[:2] == ["20260106T000000Z-1.sqlite", "20260107T000000Z-1.sqlite"]
    assert names[3:] == ["before-the-great-change.sqlite"]
    assert len(names) == 4


def test_a_copy_with_a_time_of_the_future_does_not_push_out_the_new_one(host: Host) -> None:
    """The clock was wrong once. The copy that a migration relies on is the one that is made now."""
    host.run("--release", "1")
    (host.data / "backups").mkdir()
    (host.data / "backups" / "20991231T000000Z-1.sqlite").write_text("old")
    answer = host.run("--release", "2", "--keep", "1")
    assert [str(path) for path in host.copies()] == [answer["backup"]]


def test_copies_go_in_the_order_in_which_they_were_made(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    host.run("--release", "1")
    old = (host.data / "shop.db").read_text()
    for year in ("2099", "2026", "2027"):
        at = time.strptime(year, "%Y")
        monkeypatch.setattr(time, "gmtime", lambda at=at: at)
        (host.data / "shop.db").write_text(old)
        made.append(host.run("--release", "2", "--keep", "2")["backup"])
    assert [str(path) for path in host.copies()] == made[1:]


@pytest.mark.parametrize("gone", ["removed", "emptied"])
def test_data_that_were_there_are_not_made_anew(host: Host, gone: str) -> None:
    """Their disk is not mounted, or the service has made a new file where it was."""
    host.run("--release", "1")
    if gone == "removed":
        (host.data / "shop.db").unlink()
    else:
        (host.data / "shop.db").write_text(json.dumps({"schema": None, "users": [], "demo": False}))
    host.calls()
    msg = host.fail(2, "--release", "1")
    assert "shop.db held data, and is empty or gone now" in msg
    assert "shop migrate --anew" in msg
    assert [line.split()[1] for line in host.calls()] == ["schema"]
    # The remedy for data that are lost.
    assert host.run("--release", "1", "--anew")["did"] == ["migrate"]


def test_a_database_of_a_server_that_is_empty_now_is_not_filled_anew(host: Host) -> None:
    host.credential.write_text("postgresql://u:p@db/shop")
    host.run("--release", "1", seeds=[admin()])
    (host.data / "shop.db").unlink()
    msg = host.fail(2, "--release", "1")
    assert "The database of database_url held data" in msg
    # Seeds are for what is in it, not for its address.
    answer = host.run("--release", "1", "--anew", seeds=[admin()])
    assert answer["did"] == ["migrate", "admin"]
    (host.data / "shop.db").unlink()
    # Another one never held anything: preflight has asked whether that is meant.
    host.credential.write_text("postgresql://u:p@db/other")
    assert host.run("--release", "1")["did"] == ["migrate"]


def test_a_server_is_copied_as_a_dump(host: Host) -> None:
    host.credential.write_text("postgresql://u:p@db/shop")
    host.run("--release", "1")
    assert host.run("--release", "2")["backup"].endswith("Z-1.dump")


def test_file_of_sqlite_may_be_elsewhere(host: Host) -> None:
    assert database.database_file(host.application) == host.data / "shop.db"
    described = describe(host.application, database={"kind": "sqlite", "file": "/srv/shop.db"})
    assert database.database_file(described) == host.root / "srv/shop.db"


def test_no_copy_where_none_is_wanted(host: Host) -> None:
    host.run("--release", "1")
    assert host.run("--release", "2", "--keep", "0")["backup"] is None
    assert not (host.data / "backups").exists()


def test_without_a_copy_there_is_no_migration(host: Host) -> None:
    """A full disk, or a dump that fails."""
    host.run("--release", "1")
    (host.root / "broken-backup").touch()
    msg = host.fail(2, "--release", "2")
    assert "could not be copied, so it was not migrated" in msg
    assert "it is broken" in msg
    assert host.database()["schema"] == "1"


def test_copy_that_is_none_stops_the_migration(host: Host) -> None:
    host.run("--release", "1")
    host.program("2", APPLICATION.replace('open(given[1], "w").write(json.dumps(base))', "pass"))
    assert "The backup did not write " in host.fail(2, "--release", "2")
    text = APPLICATION.replace("write(json.dumps(base))", "close()")
    host.program("2", text)
    assert "The backup wrote an empty " in host.fail(2, "--release", "2")
    assert host.database()["schema"] == "1"


def test_failed_migration_says_that_nothing_changed(host: Host) -> None:
    host.run("--release", "1")
    (host.root / "broken-migrate").touch()
    msg = host.fail(1, "--release", "2", seeds=[admin()])
    assert "The database is as it was, at 1" in msg
    assert str(host.copies()[0]) in msg
    assert "it is broken" in msg
    assert host.database() == {"schema": "1", "users": []}


def test_migration_that_left_a_half_says_how_to_go_back(host: Host) -> None:
    """It would lose what the live release recorded since, so that is for an operator to say."""
    commands = {**host.application.settings["commands"], "restore": ["shopctl", "restore"]}
    host.application = describe(host.application, commands=commands)
    host.run("--release", "1")
    (host.root / "broken-migrate").write_text("1b")
    msg = host.fail(1, "--release", "2")
    assert "left the database at 1b in place of 1" in msg
    assert f"sudo shop exec shopctl restore {host.copies()[0]}" in msg


MIGRATIONS = {"kind": "sqlite", "file": "shop.db", "migrations": ["app/*/migrations/*"]}
OF_TWO_FILES = {"app/shop/migrations/1.py": "a", "site-packages/alpha.py": "b"}


def release_of(host: Host, release: str, files: dict[str, str]) -> None:
    """Give a release a manifest with these files and the hashes of their contents."""
    manifest = host.application.releases / release / "manifest.json"
    manifest.write_text(json.dumps({"id": release, "files": files}))


def test_release_with_the_same_migrations_is_not_asked(host: Host) -> None:
    """A start of the application, in a deploy that changes a template."""
    host.application = describe(host.application, database=MIGRATIONS)
    host.run("--release", "1", seeds=[admin()])
    host.go_live("1")
    host.calls()
    release_of(host, "1", OF_TWO_FILES | {"app/page.html": "old"})
    release_of(host, "2", OF_TWO_FILES | {"app/page.html": "new"})
    assert host.run("--release", "2", seeds=[admin()])["changed"] is False
    assert host.calls() == []


@pytest.mark.parametrize(
    "files",
    [
        OF_TWO_FILES | {"app/shop/migrations/1.py": "x"},
        OF_TWO_FILES | {"app/shop/migrations/2.py": "c"},
        # Django's own applications come as packages, with migrations.
        OF_TWO_FILES | {"site-packages/alpha.py": "x"},
        {"site-packages/alpha.py": "b"},
        {},
    ],
)
def test_release_with_other_migrations_is_asked(host: Host, files: dict[str, str]) -> None:
    host.application = describe(host.application, database=MIGRATIONS)
    host.run("--release", "1")
    host.go_live("1")
    host.calls()
    release_of(host, "1", OF_TWO_FILES)
    release_of(host, "2", files)
    assert host.run("--release", "2")["did"] == ["migrate"]
    assert host.calls()[0] == "2 schema"


@pytest.mark.parametrize(
    "change",
    [
        lambda host: describe(host.application, database=MIGRATIONS | {"migrations": []}),
        # The live one cannot work with its database, or nobody knows.
        lambda host: setattr(host, "ready", None),
        # Another database, which has no schema.
        lambda host: (host.data / "shop.db").unlink(),
    ],
    ids=["not described", "not ready", "another database"],
)
def test_release_is_asked_where_the_live_one_tells_nothing(
    host: Host, change: Callable[[Host], Any]
) -> None:
    host.application = describe(host.application, database=MIGRATIONS)
    host.run("--release", "1")
    host.go_live("1")
    for release in ("1", "2"):
        release_of(host, release, OF_TWO_FILES)
    host.calls()
    change(host)
    host.answer(2 if not (host.data / "shop.db").exists() else 0, "--release", "2")
    assert host.calls()[0] == "2 schema"


def test_release_from_before_there_was_a_database_needs_nothing(
    host: Host, programs: Programs
) -> None:
    """Any revision can be deployed, and one may go back to any."""
    database = {"kind": "sqlite", "file": "shop.db", "packaged": "app/shop/cli.py"}
    host.application = describe(host.application, database=database)
    for words in ([], ["--check"]):
        answer = host.run("--release", "1", *words, seeds=[admin(), DEMO])
        assert answer["changed"] is False
        assert answer["msg"] == "Release 1 needs no data."
    assert programs.calls("systemd-run") == []
    assert not (host.data / "shop.db").exists()


def test_application_without_a_database_needs_nothing(host: Host, programs: Programs) -> None:
    host.application = describe(host.application, commands={}, database={})
    assert host.run("--release", "1")["msg"] == "Release 1 needs no data."
    assert programs.calls("systemd-run") == []
    # Half a description would leave the schema as it is in a green run.
    host.application = describe(host.application, commands={"migrate": ["shopctl", "migrate"]})
    assert "Describe both" in host.fail(2, "--release", "1")


def test_release_that_does_not_start_is_not_one_without_a_database(host: Host) -> None:
    """flask's exit code for it is click's for an unknown command; words may be in any language."""
    host.program("1", "#!/bin/sh\necho 'Fehler: Befehl unbekannt' >&2; exit 2\n")
    msg = host.fail(1, "--release", "1", seeds=[admin()])
    assert msg.startswith("The migration to release 1 failed.")
    assert "Fehler: Befehl unbekannt" in msg
    assert "exit code 2" in msg


def test_release_that_gives_no_answer_is_not_migrated(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apphost.schema.ASK_SECONDS", 1)
    host.program("1", "#!/bin/sh\nsleep 5\n")
    assert "Not done within 1 s" in host.fail(2, "--release", "1")


def test_password_that_somebody_changed_stays(host: Host) -> None:
    """An account that is there is not touched, also when the host has forgotten making it."""
    host.run("--release", "1", seeds=[admin("first")])
    (host.application.state / "data.json").unlink()
    host.calls()
    answer = host.run("--release", "1", seeds=[admin("second")])
    assert (answer["changed"], answer["did"]) == (False, [])
    assert not [line for line in host.calls() if "password:" in line]


def test_another_database_gets_all_of_it(host: Host) -> None:
    """Also when all else is as before: somebody removed the file, or names a server."""
    host.run("--release", "1", seeds=[admin()])
    host.go_live("1")
    (host.data / "shop.db").rename(host.data / "old.db")
    answer = host.run("--release", "1", "--anew", seeds=[admin()])
    assert answer["did"] == ["migrate", "admin"]
    host.credential.write_text("postgresql://u:p@db/shop")
    host.calls()
    host.run("--release", "1", seeds=[admin()])
    assert host.calls()
    stamp = host.application.state / "data.json"
    assert "u:p@db" not in stamp.read_text()
    assert stat.S_IMODE(stamp.stat().st_mode) == 0o600


def test_check_mode_does_nothing(host: Host) -> None:
    answer = host.run("--release", "1", "--check", seeds=[admin()])
    assert answer["changed"] is True
    assert host.calls() == []
    host.run("--release", "1")
    host.calls()
    answer = host.run("--release", "2", "--check", seeds=[admin()])
    assert (answer["changed"], answer["did"]) == (True, ["migrate", "admin"])
    assert answer["msg"] == "Would do: schema from 1 to 2; admin (anna) seeded"
    assert host.calls() == ["2 schema"]
    assert host.stamp()["seeds"] == {}
    assert host.run("--release", "3", "--check")["changed"] is True
    assert host.run("--release", "1", "--check")["changed"] is False


def test_another_database_is_foretold_to_be_migrated(host: Host) -> None:
    """The one that the host knows is as it should be, and says nothing of the next one."""
    host.run("--release", "1")
    host.calls()
    answer = host.run("--release", "1", "--preview-new-database")
    assert (answer["changed"], answer["did"]) == (True, ["migrate"])
    assert "Another database" in answer["msg"]
    assert host.calls() == []


def test_two_runs_do_not_migrate_at_once(host: Host) -> None:
    with files.held(host.application.state / "data.lock", 0, RefusedError("")):
        assert "has not ended" in host.fail(2, "--release", "1")
    assert host.run("--release", "1")["changed"] is True


@pytest.mark.parametrize("trap", ["link", "file"])
def test_no_link_of_the_application_is_followed(
    host: Host, trap: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The folder is the application's: one that was broken into must not lead root astray."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    precious = elsewhere / "20200101T000000Z-1.sqlite"
    precious.write_text("precious")
    host.run("--release", "1")
    if trap == "link":
        (host.data / "backups").symlink_to(elsewhere)
    else:
        (host.data / "backups").write_text("")
    assert "is not a directory" in host.fail(2, "--release", "2", "--keep", "1")
    assert precious.read_text() == "precious"
    assert host.database()["schema"] == "1"


# An application whose commands know nothing of JSON and revisions, such as Django's ---------------


def test_exit_code_says_whether_to_migrate(host: Host) -> None:
    (host.root / "numberless").touch()
    answer = host.run("--release", "1")
    assert (answer["did"], answer["msg"]) == (["migrate"], "schema migrated")
    assert answer["backup"] is None
    assert host.run("--release", "1")["changed"] is False
    before = host.database()
    answer = host.run("--release", "2")
    assert answer["schema"] == {"before": None, "after": None}
    assert answer["backup"].endswith("Z-before_2.sqlite")
    assert json.loads(host.copies()[0].read_text()) == before


def test_migration_that_changes_nothing_is_seen(host: Host) -> None:
    """A command that is not the right one succeeds as well."""
    (host.root / "numberless").touch()
    host.program("1", APPLICATION.replace('base["schema"] = release', "pass"))
    msg = host.fail(1, "--release", "1")
    assert "succeeded, yet the database does not suit the release" in msg
    assert "not applied: 1" in msg


def test_failed_migration_without_revisions_names_the_copy(host: Host) -> None:
    (host.root / "numberless").touch()
    host.run("--release", "1")
    (host.root / "broken-migrate").touch()
    msg = host.fail(1, "--release", "2")
    assert msg.startswith(f"The migration to release 2 failed. A copy from before is {host.data}")
    assert "it is broken" in msg


def test_file_that_is_gone_is_missed_without_revisions_too(host: Host) -> None:
    (host.root / "numberless").touch()
    host.run("--release", "1")
    content = (host.data / "shop.db").read_text()
    (host.data / "shop.db").unlink()
    host.program(
        "1",
        APPLICATION.replace("json.dump(base, open", "given[0] == 'schema' or json.dump(base, open"),
    )
    assert "held data, and is empty or gone now" in host.fail(2, "--release", "1")
    # A file that somebody restored is another one, and not empty.
    (host.data / "shop.db").write_text(content)
    assert host.run("--release", "1")["changed"] is False


# The command line ---------------------------------------------------------------------------------


def test_answer_is_one_json_object(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """wsgi.host.program reads it; so does a failure's message."""
    assert host.type() == 2
    assert "no release is live" in json.loads(capsys.readouterr().out)["msg"]
    assert host.type("--release", "1") == 0
    assert json.loads(capsys.readouterr().out)["changed"] is True
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert host.type("--release", "1") == 2
    assert "sudo" in json.loads(capsys.readouterr().out)["msg"]


@pytest.mark.parametrize(
    "words",
    [
        ["--seeded-elsewhere"],
        ["--keep", "-1"],
        ["--reach", "--seeds"],
        ["--ignore-table", "a"],
        ["nonsense"],
    ],
)
def test_wrong_use_has_a_code_of_its_own(host: Host, words: list[str]) -> None:
    assert host.type(*words) == 64
    assert host.calls() == []


def test_help_names_the_application(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.type("--help") == 0
    output = capsys.readouterr().out
    assert "sudo shop migrate" in output
    assert "/var/lib/shop/backups" in output


# Whether data can move to a server ----------------------------------------------------------------

# As much of psycopg as is asked of it, over tables with their numbers of rows.
PSYCOPG = """
class Error(Exception):
    pass

class sql:
    class SQL(str):
        def format(self, name):
            return name
    Identifier = str

TABLES = {tables!r}

class connect:
    def __init__(self, url, connect_timeout):
        assert url == "postgresql://u:p@db/shop", url
    def __enter__(self):
        return self
    def __exit__(self, *_):
        pass
    def execute(self, statement):
        self.statement = statement
        return self
    def fetchall(self):
        return [(name,) for name in TABLES]
    def fetchone(self):
        return [TABLES[self.statement] > 0]
"""


@pytest.fixture
def reach(host: Host, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    """Looks at a server with these tables; returns the exit code and the message."""

    def look(tables: dict[str, int] | None, *words: str) -> tuple[int, str]:
        python = host.application.releases / "1" / "bin" / "python"
        # Not a link: a virtual environment is found by where its program lies.
        library = host.root / "library"
        library.mkdir(exist_ok=True)
        prelude = f"import sys; sys.path.insert(0, {str(library)!r}); "
        if tables is not None:
            (library / "psycopg.py").write_text(PSYCOPG.format(tables=tables))
        python.write_text(
            f'#!/bin/sh\ntest "$2" = -c || exit 9\ncode="{prelude}$3"; shift 3\n'
            f'exec {sys.executable} "-IB" -c "$code" "$@"\n'
        )
        python.chmod(0o755)
        url = "postgresql+psycopg://u:p@db/shop" if tables is not None else HOPELESS
        code = host.type("--release", "1", "--reach", *words, stdin=url + "\n")
        return code, json.loads(capsys.readouterr().out)["msg"]

    return look


HOPELESS = "postgresql://shop:not-a-secret-77@127.0.0.1:9/shop"


def test_empty_server_takes_the_data(reach: Any) -> None:
    assert reach({}) == (0, "The database is reached, and empty.")
    assert reach({"users": 0}) == (0, "The database is reached, and empty.")


def test_server_with_rows_does_not_take_them(reach: Any) -> None:
    """The application's own bookkeeping does not count, if it is named."""
    code, msg = reach({"users": 0, "alembic_version": 1})
    assert code == 2
    assert "it holds data already, in alembic_version" in msg
    words = ("--ignore-table", "alembic_version", "--ignore-table=other")
    assert reach({"users": 0, "alembic_version": 1, "other": 1}, *words)[0] == 0
    assert reach({"users": 1, "alembic_version": 1}, *words)[0] == 2


def test_a_database_that_cannot_be_reached_is_told_before_anything_stops(reach: Any) -> None:
    """The site was down for as long as its name was looked for."""
    code, msg = reach(None)
    assert code == 2
    assert msg.startswith("The data cannot move to the database of database_url: it cannot")
    assert "refused" in msg
    assert msg.endswith("Nothing was stopped.")
    assert "not-a-secret-77" not in msg


def test_a_large_application_has_minutes_to_look_at_its_database(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django imports all of an application for that, while the old release serves."""
    limits: list[int] = []

    def run(*_: Any, time_limit_seconds: int, **__: Any) -> subprocess.CompletedProcess[str]:
        limits.append(time_limit_seconds)
        return subprocess.CompletedProcess([], 0, "", "")

    monkeypatch.setattr(schema.sandbox, "run", run)
    assert schema.ask(host.application, "1").compatible
    assert limits[0] >= 180
