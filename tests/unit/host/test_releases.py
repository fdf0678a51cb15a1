"""The verb `releases`: what is on a host, and what may go."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

import pytest
from apphost import interpreter, readiness, schema

from .conftest import Host, Programs, describe


def test_list_says_what_is_live_and_where_going_back_leads(host: Host, capsys: Any) -> None:
    _, answer = host.run(capsys, "releases")
    assert answer["live"] == "d"
    assert answer["candidates"] == ["c", "b", "a"]
    assert host.call("releases") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["live", "d", "1234567890"]
    assert lines[2].split()[:3] == ["next", "back", "c"]
    assert "bad" in next(line for line in lines if line.split()[0] == "e")


def test_left_release_is_no_candidate_until_it_is_shipped_again(host: Host, capsys: Any) -> None:
    """Going back twice must not come back to where somebody wanted to go away from."""
    code, answer = host.run(
        capsys, "releases", "exclude", "d", "--reason", "slow", "--by", "anna@desk"
    )
    assert (code, answer["changed"]) == (0, True)
    record = host.record("d")
    assert (record["excluded_by"], record["excluded_reason"]) == ("anna@desk", "slow")
    assert record["verdict"] == "healthy"
    host.go_live("c")
    assert host.run(capsys, "releases")[1]["candidates"] == ["b", "a"]
    assert host.run(capsys, "releases", "exclude", "d")[1]["changed"] is False
    assert host.record("d") == record


def test_who_stays_after_all_may_be_gone_back_to(host: Host, capsys: Any) -> None:
    """A rollback has failed, and what it wanted to leave serves on."""
    before = host.record("d")
    assert host.run(capsys, "releases", "exclude", "d", "--undo")[1]["changed"] is False
    host.run(capsys, "releases", "exclude", "d", "--reason", "slow")
    code, answer = host.run(capsys, "releases", "exclude", "d", "--undo")
    assert (code, answer["changed"]) == (0, True)
    assert host.record("d") == before
    host.go_live("c")
    assert host.run(capsys, "releases")[1]["candidates"] == ["d", "b", "a"]


def test_leave_in_check_mode_writes_nothing(host: Host, capsys: Any) -> None:
    before = host.record("d")
    assert host.run(capsys, "releases", "exclude", "d", "--check")[1]["changed"] is True
    assert host.record("d") == before


def test_release_without_a_record_is_unjudged(host: Host, capsys: Any) -> None:
    """It was installed by an older version of the role."""
    (host.application.state / "releases" / "c.json").unlink()
    _, answer = host.run(capsys, "releases")
    assert answer["candidates"] == ["b", "a"]
    assert {each["id"]: each["verdict"] for each in answer["releases"]}["c"] == "unjudged"


@pytest.mark.parametrize(
    ("keep", "left"), [(0, "dc"), (1, "dcb"), (2, "dcba"), (3, "dcbae"), (9, "dcbae")]
)
def test_prune_keeps_the_live_the_previous_and_some(
    host: Host, capsys: Any, keep: int, left: str
) -> None:
    _, answer = host.run(capsys, "releases", "prune", "--keep", str(keep))
    assert host.releases() == set(left)
    assert set(answer["removed"]) == set("abcde") - set(left)
    assert answer["changed"] is (len(left) < 5)
    records = {path.stem for path in (host.application.state / "releases").iterdir()}
    assert records == set(left)


def test_prune_goes_by_what_happened_not_by_time_stamps(host: Host, capsys: Any) -> None:
    """After going back to a, the others are younger and yet not live."""
    host.go_live("a")
    host.run(capsys, "releases", "exclude", "d")
    host.run(capsys, "releases", "prune", "--keep", "0")
    assert host.releases() == {"a", "c"}


def test_prune_in_check_mode_removes_nothing(host: Host, capsys: Any) -> None:
    _, answer = host.run(capsys, "releases", "prune", "--keep", "0", "--check")
    assert answer["changed"] is True
    assert host.releases() == set("abcde")


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_prune_foretells_what_a_deploy_will_remove(host: Host, capsys: Any, keep: int) -> None:
    """In check mode the release that would be live by then has not been shipped."""
    arguments = ("prune", "--keep", str(keep), "--live=f")
    _, foretold = host.run(capsys, "releases", *arguments, "--check")
    assert host.releases() == set("abcde")
    host.ship("f", since="2027-01-01T00:00:00Z")
    host.go_live("f")
    _, done = host.run(capsys, "releases", *arguments)
    assert (foretold["removed"], foretold["changed"]) == (done["removed"], done["changed"])
    assert done["removed"]


def test_prune_leaves_a_handover_alone(host: Host, capsys: Any) -> None:
    told = {"release": "e", "previous": "a"}
    (host.application.state / "handover.json").write_text(json.dumps(told))
    host.run(capsys, "releases", "prune", "--keep", "0")
    assert host.releases() == {"d", "c", "e", "a"}


def test_prune_removes_nothing_while_nothing_is_live(host: Host, capsys: Any) -> None:
    host.application.current.unlink()
    _, answer = host.run(capsys, "releases", "prune", "--keep", "0")
    assert answer["changed"] is False
    assert host.releases() == set("abcde")


def test_verify_tells_files_that_somebody_changed(host: Host, capsys: Any) -> None:
    app = host.application.releases / "d" / "app"
    assert host.run(capsys, "releases", "verify", "d")[0] == 0
    (app / "app.py").write_text("y")
    (app / "more.py").write_text("")
    code, answer = host.run(capsys, "releases", "verify", "d")
    assert code == 1
    assert "changed: app/app.py" in answer["msg"]
    assert "added: app/more.py" in answer["msg"]
    (app / "app.py").unlink()
    assert "missing: app/app.py" in host.run(capsys, "releases", "verify", "d")[1]["msg"]


NUMBERED = '{"compatible": %s, "reason": %s, "head": "0009", "database": "0007"}'


@pytest.mark.parametrize(
    ("output", "code", "expected"),
    [
        (NUMBERED % ("true", "null"), 0, (0, "The database suits c.")),
        (NUMBERED % ("false", '"it is at 0007"'), 1, (2, "rolled back to: it is at 0007")),
        # Of commands that know nothing of JSON, such as Django's `migrate --check`.
        ("", 0, (0, "The database suits c.")),
        ("No planned migration operations.", 0, (0, "The database suits c.")),
        ("Planned operations: shop.0002", 1, (2, "Planned operations: shop.0002 (exit code 1)")),
        # Whatever goes wrong in a release is a reason to stay away from it.
        ("Traceback: oh dear", 1, (2, "Traceback: oh dear")),
        ("Error: No such command 'schema'.", 2, (2, "(exit code 2)")),
        ("", 3, (2, "it gives no reason (exit code 3)")),
    ],
)
def test_release_is_asked_whether_the_database_suits_it(
    host: Host, capsys: Any, programs: Programs, output: str, code: int, expected: tuple[int, str]
) -> None:
    """Its own description names the command; the unit's sandbox holds for it."""
    programs.put("shopctl", f"#!/bin/sh\ncat <<'END'\n{output}\nEND\nexit {code}\n")
    ended, answer = host.run(capsys, "releases", "suits", "c")
    assert ended == expected[0]
    assert expected[1] in answer["msg"]
    [call] = programs.calls("systemd-run")
    assert "--property=User=shop" in call
    assert f"--property=RuntimeMaxSec={schema.ASK_SECONDS}" in call
    assert call.endswith(f" -- {programs.folder}/shopctl schema")


@pytest.mark.parametrize("ready", [True, False])
def test_release_with_the_migrations_of_the_live_one_suits(
    host: Host,
    capsys: Any,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
    ready: bool,
) -> None:
    """At night no start is waited for whose answer is known."""
    programs.put("shopctl", "#!/bin/sh\nexit 0\n")
    describe(host.application, database={"kind": "sqlite", "migrations": ["app/*"]})
    monkeypatch.setattr(readiness, "is_ready", lambda _, release: ready and release == "d")
    code, answer = host.run(capsys, "releases", "suits", "c")
    assert code == 0
    assert ("whose migrations are those of d" in answer["msg"]) is ready
    assert len(programs.calls("systemd-run")) == (not ready)


def test_release_that_does_not_answer_does_not_suit(
    host: Host, capsys: Any, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "ASK_SECONDS", 1)
    programs.put("shopctl", "#!/bin/sh\nsleep 5\n")
    code, answer = host.run(capsys, "releases", "suits", "c")
    assert code == 2
    assert "Release c does not say whether" in answer["msg"]
    assert "Not done within 1 s" in answer["msg"]


def test_release_without_a_database_suits(host: Host, capsys: Any, programs: Programs) -> None:
    """Of an application that never had one, or from before there was one."""
    describe(host.application, database={"kind": "sqlite", "packaged": "app/shop/cli.py"})
    assert host.run(capsys, "releases", "suits", "c")[1]["msg"] == "c has no database."
    describe(host.application, database={}, commands={})
    assert host.run(capsys, "releases", "suits", "c")[1]["msg"] == "c has no database."
    assert programs.calls("systemd-run") == []


def test_unknown_release_is_named_with_those_that_are_there(host: Host, capsys: Any) -> None:
    code, answer = host.run(capsys, "releases", "show", "zz")
    assert code == 2
    assert answer["msg"] == "There is no release 'zz'. On this host are: d, c, b, a, e."


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["exclude", "../x"], ["list", "a"], ["prune", "--keep", "-1"], ["nonsense"]],
)
def test_wrong_use_has_a_code_of_its_own(host: Host, capsys: Any, arguments: list[str]) -> None:
    assert host.call("releases", *arguments) == 64
    captured = capsys.readouterr()
    assert "releases" in captured.err
    assert captured.out == ""


def test_only_root_changes_releases(host: Host, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    code, answer = host.run(capsys, "releases", "prune")
    assert (code, answer["msg"]) == (2, "Only root may change releases: use sudo.")
    assert host.run(capsys, "releases")[0] == 0


# A release whose interpreter went with an upgrade of the system -----------------------------------


@pytest.mark.parametrize(
    ("why", "words"),
    [("removed", "is not on this host"), ("incomplete", "No module named 'ctypes'")],
)
def test_release_that_cannot_start_is_not_offered(
    host: Host, capsys: Any, why: str, words: str
) -> None:
    """Going back to it would leave the site as it is, or down."""
    python = host.lose_interpreter("c", why)
    _, answer = host.run(capsys, "releases")
    assert answer["candidates"] == ["b", "a"]
    [reason] = [each["cannot_start"] for each in answer["releases"] if each["id"] == "c"]
    assert str(python) in reason
    assert words in reason
    assert host.call("releases") == 0
    out = capsys.readouterr().out
    assert "healthy, cannot start" in out
    assert f"c cannot start: {reason}." in out.splitlines()


def test_release_that_cannot_start_is_not_asked_for_its_schema(host: Host, capsys: Any) -> None:
    host.lose_interpreter("c")
    code, answer = host.run(capsys, "releases", "suits", "c")
    assert code == 2
    assert "Release c cannot start: its interpreter" in answer["msg"]
    assert "deploy its revision again" in answer["msg"]


def test_the_same_content_for_another_python_is_no_way_back(host: Host, capsys: Any) -> None:
    """After an upgrade of the system two ids have one content; going back would change nothing."""
    host.ship("c313", since="2026-11-25T00:00:00Z", content="d")
    host.go_live("c313")
    assert host.run(capsys, "releases")[1]["candidates"] == ["c", "b", "a"]


def test_interpreter_is_started_once_for_all_releases(
    host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def fault(path: str) -> str:
        started.append(path)
        return ""

    monkeypatch.setattr(interpreter, "fault", fault)
    host.run(capsys, "releases")
    assert started == [os.path.realpath(sys.executable)]


# What somebody has decided ------------------------------------------------------------------------


def test_leaving_is_a_decision_unless_a_deploy_failed(host: Host, capsys: Any) -> None:
    """site.yml tries again what failed, and leaves alone what somebody rolled back from."""
    host.run(capsys, "releases", "exclude", "d", "--failed", "--reason", "another host failed")
    assert host.record("d")["excluded_kind"] == "failure"
    assert host.run(capsys, "releases", "exclude", "d", "--failed")[1]["changed"] is False
    # Somebody who looks at it then may still decide.
    assert host.run(capsys, "releases", "exclude", "d", "--reason", "slow")[1]["changed"] is True
    assert host.record("d")["excluded_kind"] == "decision"
    assert host.run(capsys, "releases", "exclude", "d", "--failed")[1]["changed"] is False
    host.run(capsys, "releases", "exclude", "d", "--undo")
    assert "excluded_kind" not in host.record("d")


def test_a_decision_outlasts_the_release(host: Host, capsys: Any) -> None:
    """site.yml would ship it anew, and would know of nothing."""
    host.run(capsys, "releases", "exclude", "a", "--reason", "slow")
    host.run(capsys, "releases", "exclude", "b", "--failed")
    host.run(capsys, "releases", "prune", "--keep", "0")
    assert host.releases() == {"c", "d"}
    assert host.record("a")["excluded_reason"] == "slow"
    assert not (host.application.state / "releases" / "b.json").exists()


def test_what_a_release_says_need_not_be_utf_8(host: Host, capsys: Any, programs: Programs) -> None:
    describe(host.application, commands={"schema": ["shopctl", "schema"]})
    programs.put("shopctl", "#!/bin/sh\nprintf 'Tabelle f\\374r x fehlt\\n'; exit 1\n")
    code, answer = host.run(capsys, "releases", "suits", "c")
    assert code == 2
    assert "Tabelle f\N{REPLACEMENT CHARACTER}r x fehlt" in answer["msg"]


def test_a_release_that_somebody_goes_back_to_meanwhile_stays(
    host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removing one takes seconds, in which a rollback on the host may begin to another."""
    rmtree = shutil.rmtree
    begun: list[str] = []

    def slow(path: Any, *more: Any, **options: Any) -> None:
        rmtree(path, *more, **options)
        if begun:
            state = host.application.state / "handover.json"
            state.write_text(json.dumps({"release": "a", "previous": "d"}))
        begun.append(str(path))

    monkeypatch.setattr(shutil, "rmtree", slow)
    _, answer = host.run(capsys, "releases", "prune", "--keep", "0")
    assert "b" in answer["removed"]
    assert "a" not in answer["removed"]
    assert {"a", "c", "d"} <= host.releases()
