"""The programs that toll_app puts on a host, with the application played by a script."""

from __future__ import annotations

import ast
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from programs import load

from .render import ROLES, render

PROGRAMS = ROLES / "toll_app" / "templates" / "sbin"


# toll-app-flask -----------------------------------------------------------------------------------

flask = load(PROGRAMS / "toll-app-flask")


def unit(**variables: Any) -> str:
    """The unit of a service, as gunicorn_systemd writes it."""
    told = {
        "gunicorn_systemd_name": "toll-app",
        "gunicorn_systemd_python": "/opt/toll-app/current/bin/python",
        "gunicorn_systemd_directory": "/opt/toll-app/current/app",
        "gunicorn_systemd_wsgi_app": "app:app",
        "gunicorn_systemd_credentials": [{"name": "secret_key", "random": 32}],
        "unit": {
            "name": "toll-app",
            "description": "toll-app",
            "sockets": ["toll-app.socket"],
            "python": "/opt/toll-app/current/bin/python",
            "directory": "/opt/toll-app/current/app",
            "standby": False,
        },
        **variables,
    }
    return render("gunicorn_systemd", "unit.service.j2", "Debian", **told)


def test_command_has_the_services_whole_sandbox() -> None:
    """Everything in the unit that limits or informs the service holds for a command beside it."""
    text = unit(gunicorn_systemd_unit_options={"SystemCallFilter": ["~@mount", "@chown"]})
    kept = set(flask.properties(text))
    own = [f"{name}={value}" for name, value in flask.directives(text)]
    left = {entry.partition("=")[0] for entry in own if entry not in kept}
    # About the service's life, not about what it may do; and paths that may be absent.
    assert left <= {
        *("Type", "NotifyAccess", "Sockets", "WorkingDirectory", "ExecStartPre", "ExecStart"),
        *("Restart", "RestartSec", "KillMode", "TimeoutStartSec", "TimeoutStopSec"),
        "SyslogIdentifier",
        *("RuntimeDirectory", "RuntimeDirectoryMode", "OOMPolicy", "NoExecPaths"),
    }
    for wanted in (
        "User=toll-app",
        "PrivateNetwork=yes",
        "LoadCredential=secret_key:/etc/toll-app/credentials/secret_key",
        "EnvironmentFile=/etc/toll-app/environment",
        "MemoryDenyWriteExecute=yes",
        "SystemCallFilter=@chown",
    ):
        assert wanted in kept


def test_paths_that_are_there_only_with_the_service_may_be_absent() -> None:
    """Before the first start there is no /run/toll-app, and a migration must run all the same."""
    (paths,) = [entry for entry in flask.properties(unit()) if entry.startswith("NoExecPaths=")]
    assert "-/run/toll-app" in paths.split("=")[1].split()
    text = "[Service]\nReadWritePaths=-/a +/b -+/c\n"
    assert flask.properties(text) == ["ReadWritePaths=-/a -+/b -+/c"]


def test_directives_are_read_as_systemd_reads_them() -> None:
    """Comments, other sections, continued lines, repeated names, and values with an equals sign."""
    text = (
        "# /etc/systemd/system/x.service\n[Unit]\nUser=wrong\n[Service]\n; no\nUser = right\n"
        "SystemCallFilter=@a \\\n   @b\nEnvironment=A=1\nEnvironment=B=2\n[Install]\nUser=wrong\n"
    )
    assert flask.directives(text) == [
        ("User", "right"),
        ("SystemCallFilter", "@a @b"),
        ("Environment", "A=1"),
        ("Environment", "B=2"),
    ]


def test_arguments_reach_flask_as_they_are() -> None:
    """systemd would put the value of a variable in place of a dollar and a name."""
    argv = flask.command(
        "[Service]\nUser=toll-app\n", "/opt/toll-app/releases/x", ["a b", "$HOME", "%n"]
    )
    assert argv[argv.index("--") + 1 :] == [
        *("/opt/toll-app/releases/x/bin/python", "-m", "flask", "--app", "app"),
        *("a b", "$$HOME", "%n"),
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["toll", "schema"], (None, 0, ["toll", "schema"])),
        (["--release", "abc", "toll"], ("abc", 0, ["toll"])),
        (["--release=abc", "toll"], ("abc", 0, ["toll"])),
        (["--release", "abc", "--time-limit", "60", "toll"], ("abc", 60, ["toll"])),
        (["--time-limit=5", "--release=abc", "toll"], ("abc", 5, ["toll"])),
        # After the command it is an option of the command.
        (["toll", "--release", "abc"], (None, 0, ["toll", "--release", "abc"])),
        (["--release"], ("", 0, [])),
    ],
)
def test_release_is_an_option_of_its_own(arguments: list[str], expected: tuple[Any, Any]) -> None:
    assert flask.parse(arguments) == expected


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "soon"])
def test_time_limit_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(flask.RefusedError, match=r"--time-limit is .* Give a number of seconds"):
        flask.parse(["--time-limit", value, "toll"])


def test_time_limit_is_systemds() -> None:
    """Whoever ends the caller alone leaves the command running."""
    argv = flask.command("[Service]\nRuntimeMaxSec=infinity\n", "/x", ["toll"], 60)
    assert [entry for entry in argv if "RuntimeMaxSec" in entry] == ["--property=RuntimeMaxSec=60"]


@pytest.mark.parametrize(
    ("release", "message"),
    [
        (None, "no release is live"),
        ("gone", "There is no release gone. On this host are: abc."),
        ("../../etc", "Name a directory of"),
        ("", "Name a directory of"),
    ],
)
def test_release_that_is_not_there_is_named(
    release: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flask, "ROOT", str(tmp_path))
    (tmp_path / "releases" / "abc" / "bin").mkdir(parents=True)
    (tmp_path / "releases" / "abc" / "bin" / "python").touch()
    with pytest.raises(flask.RefusedError, match=message.replace(".", "[.]")):
        flask.release_directory(release)
    assert flask.release_directory("abc").endswith("/releases/abc")


def test_release_whose_interpreter_is_gone_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "There is no release abc. On this host are: abc." helped nobody."""
    monkeypatch.setattr(flask, "ROOT", str(tmp_path))
    (tmp_path / "releases" / "abc" / "bin").mkdir(parents=True)
    (tmp_path / "releases" / "abc" / "bin" / "python").symlink_to("/usr/bin/python3.0")
    with pytest.raises(flask.RefusedError) as refusal:
        flask.release_directory("abc")
    assert str(refusal.value).startswith(
        "Release abc cannot start: its interpreter /usr/bin/python3.0 is not on this host. Run "
    )


# toll-app-data ------------------------------------------------------------------------------------

# The application's commands, over a file that stands for the database. What they were told, secrets
# included, is kept in `calls`.
APPLICATION = """#!{python}
import json, os, sys
if "--time-limit" in sys.argv:
    at = sys.argv.index("--time-limit")
    assert int(sys.argv.pop(at + 1)) > 0 and sys.argv.pop(at) and sys.argv[at] == "toll"
here, (option, release, toll, *told) = os.path.dirname(sys.argv[0]), sys.argv[1:]
assert (option, toll) == ("--release", "toll"), sys.argv
broken = os.path.exists(here + "/broken-" + told[0])
file = {data!r} + "/toll.db"
calls = open(here + "/calls", "a")
print(release, *told, file=calls)
try:
    base = json.load(open(file))
except FileNotFoundError:
    base = {{"schema": None, "users": []}}
if told[0] == "schema":
    good = base["schema"] == release
    status = {{"head": release, "database": base["schema"], "compatible": good}}
    print(json.dumps(status))
    sys.exit(0 if good else 1)
if broken:
    half = open(here + "/broken-" + told[0]).read()
    if half:
        json.dump(base | {{"schema": half}}, open(file, "w"))
    sys.exit("it is broken")
if told[0] == "migrate":
    base["schema"] = release
elif told[0] == "backup":
    open(told[1], "w").write(json.dumps(base))
elif told[:2] == ["user", "create"]:
    if told[2] in base["users"]:
        print(json.dumps({{"created": False}}))
    else:
        print("password:", sys.stdin.read(), file=calls)
        base["users"].append(told[2])
        print(json.dumps({{"created": True}}))
elif told[:2] == ["demo", "seed"]:
    base["demo"] = True
json.dump(base, open(file, "w"))
"""


class Host:
    """The places that toll-app-data knows, in a folder, with releases 1 and 2 and nothing else."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.program = load(PROGRAMS / "toll-app-data")
        self.root, self.data = root, root / "data"
        self.data.mkdir()
        self.application = root / "toll-app-flask"
        self.application.write_text(APPLICATION.format(python=sys.executable, data=str(self.data)))
        self.application.chmod(0o755)
        for release in ("1", "2"):
            (root / "opt" / "releases" / release / "bin").mkdir(parents=True)
            (root / "opt" / "releases" / release / "bin" / "python").touch()
            (root / "opt" / "releases" / release / "app/toll").mkdir(parents=True)
            (root / "opt" / "releases" / release / "app/toll/cli.py").touch()
        self.ready: str | None = None
        for name, value in {
            "FLASK": str(self.application),
            "ROOT": str(root / "opt"),
            "STATE": str(root / "opt" / "state"),
            "CREDENTIAL": str(root / "database_url"),
            "DATA": str(self.data),
            "LOCK_SECONDS": 0,
            "is_ready": lambda release: release == self.ready,
        }.items():
            monkeypatch.setattr(self.program, name, value)

    def go_live(self, release: str) -> None:
        """What a handover does."""
        link = self.root / "opt" / "current"
        link.unlink(missing_ok=True)
        link.symlink_to(f"releases/{release}")
        self.ready = release

    def run(self, *arguments: str, password: str = "") -> dict[str, Any]:
        """The program's answer. Raises DataError where it fails."""
        answer: dict[str, Any] = self.program.prepare(self.program.parse(list(arguments)), password)
        return answer

    def calls(self) -> list[str]:
        """What the application was told since the last question."""
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def database(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "toll.db").read_text())
        return found

    def copies(self) -> list[Path]:
        return sorted((self.data / "backups").glob("*"))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_first_deploy_makes_the_database_and_what_is_asked_for(host: Host) -> None:
    """There is nothing to copy yet."""
    answer = host.run("--release", "1", "--admin", "anna", "--demo", password="hush-hush-7f3a")
    assert answer["changed"] is True
    assert answer["did"] == ["migrate", "admin", "demo"]
    assert answer["backup"] is None
    assert host.database() == {"schema": "1", "users": ["anna"], "demo": True}
    calls = host.calls()
    assert "1 user create anna --role admin --password-file - --if-absent --json" in calls
    assert "password: hush-hush-7f3a" in calls
    assert "7f3a" not in json.dumps(answer)


def test_nothing_is_started_when_all_is_done(host: Host) -> None:
    """A run that changes nothing is to be short: only the live service is asked."""
    arguments = ("--admin", "anna", "--demo")
    host.run("--release", "1", *arguments, password="p")
    host.go_live("1")
    host.calls()
    answer = host.run("--release", "1", *arguments, password="p")
    assert (answer["changed"], host.calls()) == (False, [])
    # What the service does not confirm is looked at.
    host.ready = None
    assert host.run("--release", "1", *arguments, password="p")["changed"] is False
    assert host.calls() == ["1 schema --json"]


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
    old = (host.data / "toll.db").read_text()
    for year in ("2099", "2026", "2027"):
        at = time.strptime(year, "%Y")
        monkeypatch.setattr(host.program.time, "gmtime", lambda at=at: at)
        (host.data / "toll.db").write_text(old)
        made.append(host.run("--release", "2", "--keep", "2")["backup"])
    assert [str(path) for path in host.copies()] == made[1:]


@pytest.mark.parametrize("gone", ["removed", "emptied"])
def test_data_that_were_there_are_not_made_anew(host: Host, gone: str) -> None:
    """Their disk is not mounted, or the service has made a new file where it was."""
    host.run("--release", "1")
    if gone == "removed":
        (host.data / "toll.db").unlink()
    else:
        (host.data / "toll.db").write_text(json.dumps({"schema": None, "users": [], "demo": False}))
    host.calls()
    with pytest.raises(
        host.program.DataError, match=r"toll.db held data, and is empty or gone now"
    ):
        host.run("--release", "1")
    assert [line.split()[1] for line in host.calls()] == ["schema"]
    # The remedy for data that are lost.
    assert host.run("--release", "1", "--anew")["did"] == ["migrate"]


def test_a_database_of_a_server_that_is_empty_now_is_not_filled_anew(host: Host) -> None:
    (host.root / "database_url").write_text("postgresql://u:p@db/toll")
    host.run("--release", "1")
    (host.data / "toll.db").unlink()
    with pytest.raises(host.program.DataError, match=r"The database of toll_app_database_url held"):
        host.run("--release", "1")
    # Another one never held anything: preflight has asked whether that is meant.
    (host.root / "database_url").write_text("postgresql://u:p@db/other")
    assert host.run("--release", "1")["did"] == ["migrate"]


def test_no_copy_where_none_is_wanted(host: Host) -> None:
    host.run("--release", "1")
    assert host.run("--release", "2", "--keep", "0")["backup"] is None
    assert not (host.data / "backups").exists()


def test_without_a_copy_there_is_no_migration(host: Host) -> None:
    """A full disk, or a dump that fails."""
    host.run("--release", "1")
    (host.root / "broken-backup").touch()
    with pytest.raises(
        host.program.DataError, match=r"could not be copied, so it was not migrated"
    ):
        host.run("--release", "2")
    assert host.database()["schema"] == "1"


def test_failed_migration_says_that_nothing_changed(host: Host) -> None:
    host.run("--release", "1")
    (host.root / "broken-migrate").touch()
    with pytest.raises(host.program.DataError) as error:
        host.run("--release", "2", "--admin", "anna", password="p")
    assert "The database is as it was, at 1" in str(error.value)
    assert str(host.copies()[0]) in str(error.value)
    assert "it is broken" in str(error.value)
    assert host.database() == {"schema": "1", "users": []}


def test_migration_that_left_a_half_says_how_to_go_back(host: Host) -> None:
    """It would lose what the live release recorded since, so that is for an operator to say."""
    host.run("--release", "1")
    (host.root / "broken-migrate").write_text("1b")
    with pytest.raises(host.program.DataError) as error:
        host.run("--release", "2")
    assert "left the database at 1b in place of 1" in str(error.value)
    assert "toll-app-flask toll restore" in str(error.value)


def test_release_from_before_there_was_a_database_needs_nothing(host: Host) -> None:
    """Any revision can be deployed, and one may go back to any."""
    (host.root / "opt/releases/1/app/toll/cli.py").unlink()
    host.application.unlink()
    answer = host.run("--release", "1", "--admin", "anna", "--demo", password="x")
    assert answer["changed"] is False
    assert answer["msg"] == "Release 1 needs no data."
    assert not (host.data / "toll.db").exists()


def test_release_that_does_not_start_is_not_one_without_a_database(host: Host) -> None:
    """flask's exit code for it is click's for an unknown command; words may be in any language."""
    host.application.write_text("#!/bin/sh\necho 'Fehler: Befehl unbekannt' >&2; exit 2\n")
    with pytest.raises(host.program.DataError, match=r"cannot say .*exit code 2"):
        host.run("--release", "1", "--admin", "anna", password="x")


def test_older_release_makes_the_admin_without_saying_so_in_json(host: Host) -> None:
    text = host.application.read_text()
    refusal = 'if "--json" in told and told[0] == "user":\n    sys.exit(2)\n'
    refusal += 'if told[0] == "migrate":'
    host.application.write_text(text.replace('if told[0] == "migrate":', refusal))
    answer = host.run("--release", "1", "--admin", "anna", password="first")
    assert answer["did"] == ["migrate", "admin"]
    assert host.database()["users"] == ["anna"]


def test_password_that_somebody_changed_stays(host: Host) -> None:
    """An account that is there is not touched, also when the host has forgotten making it."""
    host.run("--release", "1", "--admin", "anna", password="first")
    (host.root / "opt" / "state" / "data.json").unlink()
    host.calls()
    answer = host.run("--release", "1", "--admin", "anna", password="second")
    assert (answer["changed"], answer["did"]) == (False, [])
    assert not [line for line in host.calls() if "password:" in line]


def test_another_database_gets_all_of_it(host: Host) -> None:
    """Also when all else is as before: somebody removed the file, or names a server."""
    host.run("--release", "1", "--admin", "anna", password="p")
    host.go_live("1")
    (host.data / "toll.db").rename(host.data / "old.db")
    answer = host.run("--release", "1", "--anew", "--admin", "anna", password="p")
    assert answer["did"] == ["migrate", "admin"]
    (host.root / "database_url").write_text("postgresql://u:p@db/toll")
    host.calls()
    host.run("--release", "1", "--admin", "anna", password="p")
    assert host.calls()
    stamp = host.root / "opt" / "state" / "data.json"
    assert "u:p@db" not in stamp.read_text()
    assert stat.S_IMODE(stamp.stat().st_mode) == 0o600


def test_check_mode_does_nothing(host: Host) -> None:
    answer = host.run("--release", "1", "--admin", "anna", "--check", password="p")
    assert answer["changed"] is True
    assert host.calls() == []
    host.run("--release", "1")
    host.calls()
    answer = host.run("--release", "2", "--check")
    assert (answer["changed"], answer["did"]) == (True, ["migrate"])
    assert host.calls() == ["2 schema --json"]
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
    with host.program.locked(), pytest.raises(host.program.DataError, match="has not ended"):
        host.run("--release", "1")
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
    with pytest.raises(host.program.DataError, match="is not a directory"):
        host.run("--release", "2", "--keep", "1")
    assert precious.read_text() == "precious"
    assert host.database()["schema"] == "1"


def test_answer_is_one_json_object(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """wsgi.host.program reads it; so does a failure's message."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert host.program.main([]) == 1
    assert "no release is live" in json.loads(capsys.readouterr().out)["msg"]
    assert host.program.main(["--release", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is True
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert host.program.main(["--release", "1"]) == 1
    assert "sudo" in json.loads(capsys.readouterr().out)["msg"]


@pytest.mark.parametrize("name", ["toll-app-flask", "toll-app-data"])
def test_program_says_how_it_is_used(name: str) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAMS / name, "--help"], capture_output=True, text=True, check=False
    )
    assert f"sudo {name}" in done.stdout + done.stderr


def test_programs_run_on_the_oldest_python_of_a_host() -> None:
    """Red Hat's 9 has Python 3.9 for its own programs."""
    for path in PROGRAMS.iterdir():
        ast.parse(path.read_text(), feature_version=(3, 9))
        assert os.access(path, os.X_OK)


def test_a_database_that_cannot_be_reached_is_told_before_anything_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The site was down for as long as its name was looked for."""
    program = load(PROGRAMS / "toll-app-data")
    monkeypatch.setattr(program, "ROOT", str(tmp_path))
    (tmp_path / "releases/new/bin").mkdir(parents=True)
    # Not a link: a virtual environment is found by where its program lies.
    python = tmp_path / "releases/new/bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with pytest.raises(program.DataError) as raised:
        program.reach("new", "postgresql://toll:not-a-secret-77@127.0.0.1:9/toll")
    said = str(raised.value)
    assert said.startswith(
        "The data cannot move to the database of toll_app_database_url: it cannot"
    )
    assert "refused" in said
    assert said.endswith("Nothing was stopped.")
    assert "not-a-secret-77" not in said
