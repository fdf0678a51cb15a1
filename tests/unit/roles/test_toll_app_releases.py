"""`toll-app-releases`, the program on the host, in a folder that stands for /opt/toll-app."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from programs import load

from .render import ROLES

PROGRAM = ROLES / "toll_app" / "templates" / "sbin" / "toll-app-releases"


class Host:
    """A host with releases, and the program that runs on it."""

    def __init__(self, root: Path, program: Any) -> None:
        self.root = root
        self.program = program

    def ship(self, name: str, verdict: str = "healthy", since: str = "", **record: Any) -> None:
        """Put a release there. Later ones get older files, so that nothing goes by their time."""
        path = self.root / "releases" / name
        (path / "bin").mkdir(parents=True)
        (path / "bin" / "python").symlink_to(sys.executable)
        (path / "app").mkdir()
        (path / "app" / "app.py").write_text("x")
        manifest = {
            "id": name,
            "content": name,
            "python": "3.13",
            "revision": "1234567890" * 4,
            "files": {
                "app/app.py": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
            },
        }
        (path / "manifest.json").write_text(json.dumps(manifest))
        records = self.root / "state" / "releases"
        records.mkdir(parents=True, exist_ok=True)
        told = {"id": name, "verdict": verdict, "activated_at": since or None, **record}
        (records / f"{name}.json").write_text(json.dumps(told))
        count = len(list((self.root / "releases").iterdir()))
        os.utime(path, (1e9 - count, 1e9 - count))

    def go_live(self, name: str) -> None:
        link = self.root / "current"
        link.unlink(missing_ok=True)
        link.symlink_to(f"releases/{name}")

    def record(self, name: str) -> dict[str, Any]:
        text = (self.root / "state" / "releases" / f"{name}.json").read_text()
        return dict(json.loads(text))

    def left(self) -> set[str]:
        return {path.name for path in (self.root / "releases").iterdir()} - {".lock"}

    def run(self, capsys: Any, *arguments: str) -> tuple[int, dict[str, Any]]:
        code = self.program.main([*arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Four healthy releases a, b, c, d, made live in this order, and e which was judged bad."""
    program = load(PROGRAM)
    monkeypatch.setattr(program, "ROOT", str(tmp_path))
    monkeypatch.setattr(program.os, "geteuid", lambda: 0)
    made = Host(tmp_path, program)
    for number, name in enumerate("abcd"):
        made.ship(name, since=f"2026-11-2{number}T00:00:00Z")
    made.ship("e", "bad", shipped_at="2026-11-24T00:00:00Z")
    made.go_live("d")
    return made


def test_list_says_what_is_live_and_where_going_back_leads(host: Host, capsys: Any) -> None:
    _, answer = host.run(capsys)
    assert answer["live"] == "d"
    assert answer["candidates"] == ["c", "b", "a"]
    assert host.program.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["live", "d", "1234567890"]
    assert lines[2].split()[:3] == ["next", "back", "c"]
    assert "bad" in next(line for line in lines if line.split()[0] == "e")


def test_left_release_is_no_candidate_until_it_is_shipped_again(host: Host, capsys: Any) -> None:
    """Going back twice must not come back to where somebody wanted to go away from."""
    code, answer = host.run(capsys, "leave", "d", "--reason", "slow", "--by", "anna@desk")
    assert (code, answer["changed"]) == (0, True)
    record = host.record("d")
    assert (record["left_by"], record["left_reason"]) == ("anna@desk", "slow")
    assert record["verdict"] == "healthy"
    host.go_live("c")
    assert host.run(capsys)[1]["candidates"] == ["b", "a"]
    assert host.run(capsys, "leave", "d")[1]["changed"] is False
    assert host.record("d") == record


def test_who_stays_after_all_may_be_gone_back_to(host: Host, capsys: Any) -> None:
    """A rollback has failed, and what it wanted to leave serves on."""
    before = host.record("d")
    assert host.run(capsys, "leave", "d", "--undo")[1]["changed"] is False
    host.run(capsys, "leave", "d", "--reason", "slow")
    code, answer = host.run(capsys, "leave", "d", "--undo")
    assert (code, answer["changed"]) == (0, True)
    assert host.record("d") == before
    host.go_live("c")
    assert host.run(capsys)[1]["candidates"] == ["d", "b", "a"]


def test_leave_in_check_mode_writes_nothing(host: Host, capsys: Any) -> None:
    before = host.record("d")
    assert host.run(capsys, "leave", "d", "--check")[1]["changed"] is True
    assert host.record("d") == before


def test_release_without_a_record_is_unjudged(host: Host, capsys: Any) -> None:
    """It was installed by an older version of the role."""
    (host.root / "state" / "releases" / "c.json").unlink()
    _, answer = host.run(capsys)
    assert answer["candidates"] == ["b", "a"]
    assert {each["id"]: each["verdict"] for each in answer["releases"]}["c"] == "unjudged"


@pytest.mark.parametrize(
    ("keep", "left"), [(0, "dc"), (1, "dcb"), (2, "dcba"), (3, "dcbae"), (9, "dcbae")]
)
def test_prune_keeps_the_live_the_previous_and_some(
    host: Host, capsys: Any, keep: int, left: str
) -> None:
    _, answer = host.run(capsys, "prune", "--keep", str(keep))
    assert host.left() == set(left)
    assert set(answer["removed"]) == set("abcde") - set(left)
    assert answer["changed"] is (len(left) < 5)
    records = {path.stem for path in (host.root / "state" / "releases").iterdir()}
    assert records == set(left)


def test_prune_goes_by_what_happened_not_by_time_stamps(host: Host, capsys: Any) -> None:
    """After going back to a, the others are younger and yet not live."""
    host.go_live("a")
    host.run(capsys, "leave", "d")
    host.run(capsys, "prune", "--keep", "0")
    assert host.left() == {"a", "c"}


def test_prune_in_check_mode_removes_nothing(host: Host, capsys: Any) -> None:
    _, answer = host.run(capsys, "prune", "--keep", "0", "--check")
    assert answer["changed"] is True
    assert host.left() == set("abcde")


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_prune_foretells_what_a_deploy_will_remove(host: Host, capsys: Any, keep: int) -> None:
    """In check mode the release that would be live by then has not been shipped."""
    arguments = ("prune", "--keep", str(keep), "--live=f")
    _, foretold = host.run(capsys, *arguments, "--check")
    assert host.left() == set("abcde")
    host.ship("f", since="2027-01-01T00:00:00Z")
    host.go_live("f")
    _, done = host.run(capsys, *arguments)
    assert (foretold["removed"], foretold["changed"]) == (done["removed"], done["changed"])
    assert done["removed"]


def test_prune_leaves_a_handover_alone(host: Host, capsys: Any) -> None:
    told = {"release": "e", "previous": "a"}
    (host.root / "state" / "handover.json").write_text(json.dumps(told))
    host.run(capsys, "prune", "--keep", "0")
    assert host.left() == {"d", "c", "e", "a"}


def test_prune_removes_nothing_while_nothing_is_live(host: Host, capsys: Any) -> None:
    (host.root / "current").unlink()
    _, answer = host.run(capsys, "prune", "--keep", "0")
    assert answer["changed"] is False
    assert host.left() == set("abcde")


def test_verify_tells_files_that_somebody_changed(host: Host, capsys: Any) -> None:
    app = host.root / "releases" / "d" / "app"
    assert host.run(capsys, "verify", "d")[0] == 0
    (app / "app.py").write_text("y")
    (app / "more.py").write_text("")
    code, answer = host.run(capsys, "verify", "d")
    assert code == 1
    assert "changed: app/app.py" in answer["msg"]
    assert "added: app/more.py" in answer["msg"]
    (app / "app.py").unlink()
    assert "missing: app/app.py" in host.run(capsys, "verify", "d")[1]["msg"]


@pytest.mark.parametrize(
    ("said", "code", "expected"),
    [
        ('{"compatible": true, "reason": null}', 0, (0, "suits")),
        ('{"compatible": false, "reason": "it is at 0007"}', 1, (1, "it is at 0007")),
        ("Traceback: oh dear", 1, (1, "oh dear")),
        # Of flask, for an application that cannot be imported; of click, for an unknown command.
        ("Error: No such command 'toll'.", 2, (1, "cannot say")),
        ("Error: No such command 'toll'.", 0, (1, "cannot say")),
    ],
)
def test_release_is_asked_whether_the_database_suits_it(
    host: Host,
    capsys: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    code: int,
    expected: tuple[int, str],
) -> None:
    flask = tmp_path / "flask"
    asked = tmp_path / "asked"
    flask.write_text(f"#!/bin/sh\necho $* > {asked}\ncat <<'END'\n{said}\nEND\nexit {code}\n")
    flask.chmod(0o755)
    monkeypatch.setattr(host.program, "FLASK", str(flask))
    assert host.run(capsys, "suits", "c")[1]["msg"] == "c has no database."
    assert not asked.exists()
    commands = host.root / "releases/c/app/toll/cli.py"
    commands.parent.mkdir()
    commands.touch()
    ended, answer = host.run(capsys, "suits", "c")
    assert ended == expected[0]
    assert expected[1] in answer["msg"]
    assert asked.read_text() == "--release c --time-limit 60 toll schema --json\n"


def test_unknown_release_is_named_with_those_that_are_there(host: Host, capsys: Any) -> None:
    code, answer = host.run(capsys, "show", "zz")
    assert code == 1
    assert answer["msg"] == "There is no release 'zz'. On this host are: d, c, b, a, e."


def test_status_without_a_service(host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment in which somebody asks is often the one in which nothing runs."""
    monkeypatch.setattr(host.program, "SOCKET", str(host.root / "none.sock"))
    monkeypatch.setattr(host.program, "properties", lambda _unit: {"ActiveState": "failed"})
    code, answer = host.run(capsys, "status", "--certificate", "/nonexistent")
    assert code == 0
    assert answer["service"] == "failed"
    assert answer["health"]["ok"] is False
    assert answer["certificate_days"] is None
    assert host.program.main(["status"]) == 0
    assert "failed, 0 workers" in capsys.readouterr().out
    [drift] = answer["drift"]
    assert drift.startswith(
        "toll-app.service is failed. Run site.yml, or on the host: sudo systemctl"
    )


@pytest.mark.parametrize(
    ("site", "said"),
    [
        (None, []),
        ({"ok": True, "status": 200}, []),
        (
            {"ok": False, "error": "127.0.0.1:443: Connection refused"},
            [
                "a.example does not answer through nginx, though the service is well: "
                "127.0.0.1:443: Connection refused. Run site.yml, or on the host: sudo systemctl "
                "start nginx"
            ],
        ),
    ],
)
def test_status_asks_through_nginx_too(
    host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch, site: Any, said: list[str]
) -> None:
    """The service alone is no site: with nginx stopped, all was told to be well."""
    host.go_live("e")
    own = {"ok": True, "status": 200, "release": "e", "milliseconds": 3}
    asked = []

    def ask(*told: str) -> Any:
        asked.append(told)
        return site if told else own

    monkeypatch.setattr(host.program, "ask", ask)
    monkeypatch.setattr(host.program, "properties", lambda _unit: {"ActiveState": "active"})
    _, answer = host.run(
        capsys, "status", *(["--site", "a.example", "--port", "8443"] if site else [])
    )
    assert [each for each in answer["drift"] if "nginx" in each] == said
    assert answer["site"] == site
    assert asked == [(), *([("127.0.0.1:8443", "a.example")] if site else [])]


def test_status_names_what_is_not_as_it_should_be(
    host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.go_live("e")
    told = {"ok": True, "status": 200, "release": "d", "milliseconds": 3}
    monkeypatch.setattr(host.program, "ask", lambda: told)
    monkeypatch.setattr(host.program, "properties", lambda _unit: {"ActiveState": "active"})
    (host.root / "state" / "handover.json").write_text('{"release": "e"}')
    (host.root / "state" / "deploy.json").write_text('{"owner": "anna@desk", "since": "now"}')
    _, answer = host.run(capsys, "status")
    assert answer["drift"] == [
        "the live release was judged bad",
        "d answers in place of e",
        "a handover to e is under way, or was interrupted",
    ]
    assert answer["lock"]["owner"] == "anna@desk"


def test_memory_and_processes_of_a_real_family() -> None:
    program = load(PROGRAM)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        family = program.processes(os.getpid())
        assert {os.getpid(), child.pid} <= set(family)
        assert program.memory_bytes({"MemoryCurrent": "[not set]"}, family) > 1 << 20
        assert program.memory_bytes({"MemoryCurrent": "4096"}, family) == 4096
        child.kill()


def test_days_of_a_certificate(tmp_path: Path) -> None:
    path = tmp_path / "c.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "30", "-subj", "/CN=x", "-keyout", "/dev/null", "-out", path),
        ],
        check=True,
        capture_output=True,
    )
    assert 29 < load(PROGRAM).days_left(str(path)) <= 30


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["leave", "../x"], ["list", "a"], ["prune", "--keep", "-1"], ["nonsense"]],
)
def test_wrong_use_is_no_traceback(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True)
    assert done.returncode == 64
    assert "Traceback" not in done.stderr
    assert "usage:" in done.stderr


def test_only_root_changes_releases(host: Host, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(host.program.os, "geteuid", lambda: 1000)
    code, answer = host.run(capsys, "prune")
    assert (code, answer["msg"]) == (1, "Only root may change releases: use sudo.")
    assert host.run(capsys)[0] == 0


def test_program_runs_with_the_oldest_python_of_a_host() -> None:
    """Python 3.9 knows no `match`, no `X | Y` at run time and no `strict` of zip."""
    import ast

    ast.parse(PROGRAM.read_text(), feature_version=(3, 9))
    assert "strict=" not in PROGRAM.read_text()


# A release whose interpreter went with an upgrade of the system -----------------------------------


def lose_interpreter(host: Host, name: str, why: str = "removed") -> Path:
    """Have a release link to an interpreter that is not there, or not complete."""
    link = host.root / "releases" / name / "bin" / "python"
    link.unlink()
    python = host.root / f"python-{name}"
    if why == "incomplete":
        python.write_text(
            "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'ctypes'\" >&2; exit 1\n"
        )
        python.chmod(0o755)
    link.symlink_to(python)
    return python


@pytest.mark.parametrize(
    ("why", "words"),
    [("removed", "is not on this host"), ("incomplete", "No module named 'ctypes'")],
)
def test_release_that_cannot_start_is_not_offered(
    host: Host, capsys: Any, why: str, words: str
) -> None:
    """Going back to it would leave the site as it is, or down."""
    python = lose_interpreter(host, "c", why)
    _, answer = host.run(capsys)
    assert answer["candidates"] == ["b", "a"]
    [reason] = [each["cannot_start"] for each in answer["releases"] if each["id"] == "c"]
    assert str(python) in reason
    assert words in reason
    assert host.program.main([]) == 0
    out = capsys.readouterr().out
    assert "healthy, cannot start" in out
    assert f"c cannot start: {reason}." in out.splitlines()


def test_release_that_cannot_start_is_not_asked_for_its_schema(host: Host, capsys: Any) -> None:
    lose_interpreter(host, "c")
    code, answer = host.run(capsys, "suits", "c")
    assert code == 1
    assert "Release c cannot start: its interpreter" in answer["msg"]
    assert "deploy its revision again" in answer["msg"]


def test_status_tells_that_what_serves_cannot_start_again(
    host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process goes on, and may answer /readyz well, while what it imports now fails."""
    told = {"ok": True, "status": 200, "release": "d", "milliseconds": 3}
    monkeypatch.setattr(host.program, "ask", lambda: told)
    monkeypatch.setattr(host.program, "properties", lambda _unit: {"ActiveState": "active"})
    assert host.run(capsys, "status")[1]["drift"] == []
    lose_interpreter(host, "d")
    [drift] = host.run(capsys, "status")[1]["drift"]
    assert drift.startswith("the live release cannot start again: its interpreter")
    assert "Run site.yml" in drift


def test_the_same_content_for_another_python_is_no_way_back(host: Host, capsys: Any) -> None:
    """After an upgrade of the system two ids have one content; going back would change nothing."""
    host.ship("c313", since="2026-11-25T00:00:00Z", content="d")
    host.go_live("c313")
    assert host.run(capsys)[1]["candidates"] == ["c", "b", "a"]


def test_interpreter_is_started_once_for_all_releases(
    host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def interpreter_fault(path: str) -> str:
        started.append(path)
        return ""

    monkeypatch.setattr(host.program, "interpreter_fault", interpreter_fault)
    host.run(capsys)
    assert started == [os.path.realpath(sys.executable)]


# What somebody has decided ------------------------------------------------------------------------


def test_leaving_is_a_decision_unless_a_deploy_failed(host: Host, capsys: Any) -> None:
    """site.yml tries again what failed, and leaves alone what somebody rolled back from."""
    host.run(capsys, "leave", "d", "--failed", "--reason", "another host failed")
    assert host.record("d")["left_kind"] == "failure"
    assert host.run(capsys, "leave", "d", "--failed")[1]["changed"] is False
    # Somebody who looks at it then may still decide.
    assert host.run(capsys, "leave", "d", "--reason", "slow")[1]["changed"] is True
    assert host.record("d")["left_kind"] == "decision"
    assert host.run(capsys, "leave", "d", "--failed")[1]["changed"] is False
    host.run(capsys, "leave", "d", "--undo")
    assert "left_kind" not in host.record("d")


def test_a_decision_outlasts_the_release(host: Host, capsys: Any) -> None:
    """site.yml would ship it anew, and would know of nothing."""
    host.run(capsys, "leave", "a", "--reason", "slow")
    host.run(capsys, "leave", "b", "--failed")
    host.run(capsys, "prune", "--keep", "0")
    assert host.left() == {"c", "d"}
    assert host.record("a")["left_reason"] == "slow"
    assert not (host.root / "state" / "releases" / "b.json").exists()
