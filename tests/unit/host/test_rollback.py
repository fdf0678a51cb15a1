"""The verb `rollback`: one command in place of a handover and a mark, on one host."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from apphost import releases

from .conftest import Host, Programs, describe

# Stands for `sudo shop`: moves `current`, or fails as it is said in a file.
COMMAND = """#!{python}
import json, os, sys
here = {here!r}
with open(here + "/handovers", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
plan = json.load(open(here + "/plan"))
if plan["moves"]:
    os.unlink(here + "/opt/shop/current")
    os.symlink("releases/" + sys.argv[2], here + "/opt/shop/current")
print(plan["output"])
sys.exit(plan["code"])
"""


class Handover:
    """What the handover does, and how it was called."""

    def __init__(self, host: Host) -> None:
        self.root = host.application.host
        path = host.application.command
        path.parent.mkdir(parents=True)
        path.write_text(COMMAND.format(python=sys.executable, here=str(self.root)))
        path.chmod(0o755)
        self.plan(0, '{"changed": true, "msg": "c is live."}', moves=True)

    def plan(self, code: int, output: str, *, moves: bool) -> None:
        text = json.dumps({"code": code, "output": output, "moves": moves})
        (self.root / "plan").write_text(text)

    def calls(self) -> list[list[str]]:
        path = self.root / "handovers"
        return list(map(json.loads, path.read_text().splitlines())) if path.exists() else []


@pytest.fixture
def handover(host: Host) -> Handover:
    describe(host.application, commands={})
    return Handover(host)


def test_it_leads_to_the_next_back_and_has_what_was_live_left(
    host: Host, capsys: Any, handover: Handover
) -> None:
    code, answer = host.run(capsys, "rollback", "--reason", "slow", "--by", "anna@desk")
    assert (code, answer["changed"]) == (0, True)
    assert (answer["previous"], answer["release"]) == ("d", "c")
    assert answer["msg"].startswith("Rolled back from d to c.")
    assert handover.calls() == [
        [
            *("handover", "c", "--if-suits", "--exclude", "--json", "--instead-of", "d"),
            *("--reason", "slow", "--by", "anna@desk", "--wait", "60"),
        ]
    ]
    # As the handover does: see handover/test_handover.py.
    host.run(capsys, "releases", "exclude", "d")
    # Once more leads further back, not to where it came from.
    host.run(capsys, "rollback")
    assert host.application.live() == "b"


def test_release_can_be_named(
    host: Host, capsys: Any, handover: Handover, monkeypatch: Any
) -> None:
    """Whoever names one may mean one that was judged bad."""
    monkeypatch.setenv("SUDO_USER", "berta")
    code, _ = host.run(capsys, "rollback", "e")
    assert (code, host.application.live()) == (0, "e")
    [call] = handover.calls()
    assert call[call.index("--by") + 1].startswith("berta@")
    assert call[call.index("--reason") + 1] == "rolled back to e"


def test_live_release_is_no_change(host: Host, capsys: Any, handover: Handover) -> None:
    code, answer = host.run(capsys, "rollback", "d")
    assert (code, answer["changed"], answer["msg"]) == (0, False, "d is live already.")
    assert handover.calls() == []


def test_check_mode_does_nothing(host: Host, capsys: Any, handover: Handover) -> None:
    before = host.record("d")
    code, answer = host.run(capsys, "rollback", "--check")
    assert (code, answer["changed"]) == (0, True)
    assert answer["msg"] == "Would roll back from d to c."
    assert (host.record("d"), handover.calls()) == (before, [])


def test_database_that_does_not_suit_stops_it(
    host: Host, capsys: Any, handover: Handover, programs: Programs
) -> None:
    before = host.record("d")
    describe(host.application, commands={"schema": ["shopctl", "schema"]})
    programs.put("shopctl", "#!/bin/sh\necho it is at 0007; exit 1\n")
    code, answer = host.run(capsys, "rollback", "--check")
    assert code == 2
    assert "cannot work with the database as it is" in answer["msg"]
    assert "it is at 0007" in answer["msg"]
    assert (host.record("d"), handover.calls()) == (before, [])
    # In earnest the handover asks, while the standby starts: see handover/test_suiting.py.
    handover.plan(2, '{"changed": false, "msg": "The database is at 0007."}', moves=False)
    code, answer = host.run(capsys, "rollback")
    assert (code, host.application.live()) == (2, "d")
    assert "d is live, as before" in answer["msg"]
    assert "--if-suits" in handover.calls()[0]
    assert host.record("d") == before


def test_release_that_cannot_start_stops_it(host: Host, capsys: Any, handover: Handover) -> None:
    host.lose_interpreter("c")
    code, answer = host.run(capsys, "rollback", "c")
    assert (code, handover.calls()) == (2, [])
    assert "Release c cannot start" in answer["msg"]
    # Without a name it leads to one that can.
    assert host.run(capsys, "rollback")[1]["release"] == "b"


def test_nothing_to_go_back_to_is_said_with_what_there_is(
    host: Host, capsys: Any, handover: Handover
) -> None:
    for name in "abc":
        host.run(capsys, "releases", "exclude", name)
    code, answer = host.run(capsys, "rollback")
    assert (code, handover.calls()) == (2, [])
    assert "nothing to roll back to" in answer["msg"]
    assert "(d, c, b, a, e): sudo shop rollback ID" in answer["msg"]


@pytest.mark.parametrize(
    ("code", "output", "ends", "words"),
    [
        (1, '{"changed": false, "msg": "c answered 500."}', 1, "c answered 500."),
        (2, '{"changed": false, "msg": "Another handover runs."}', 2, "Another handover runs."),
        (64, "", 1, "exit code 64"),
        (1, "Traceback", 1, "Traceback"),
        (1, "[]", 1, "[]"),
    ],
)
def test_a_handover_that_fails_is_quoted(
    host: Host,
    capsys: Any,
    handover: Handover,
    code: int,
    output: str,
    ends: int,
    words: str,
) -> None:
    before = host.record("d")
    handover.plan(code, output, moves=False)
    ended, answer = host.run(capsys, "rollback")
    assert ended == ends
    assert words in answer["msg"]
    assert answer["msg"].startswith("The handover to c failed. d is live, as before:\n")
    assert host.record("d") == before


def test_what_is_live_instead_is_named(host: Host, capsys: Any, handover: Handover) -> None:
    handover.plan(1, '{"changed": true, "msg": "The old one did not come back."}', moves=True)
    code, answer = host.run(capsys, "rollback")
    assert code == 1
    assert "c is live in place of d:\nThe old one did not" in answer["msg"]


def test_command_that_is_not_there_changes_nothing(
    host: Host, capsys: Any, handover: Handover
) -> None:
    before = host.record("d")
    host.application.command.unlink()
    code, answer = host.run(capsys, "rollback")
    assert code == 2
    assert "usr/local/sbin/shop cannot be run: No such file" in answer["msg"]
    assert host.record("d") == before


def test_interrupt_says_that_the_handover_goes_on(
    host: Host, capsys: Any, handover: Handover, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is done in a unit of its own, so its end is not known here."""

    run = subprocess.run

    def interrupted(argv: list[str], **options: Any) -> Any:
        if "handover" in argv:
            raise KeyboardInterrupt
        return run(argv, **options)

    monkeypatch.setattr(subprocess, "run", interrupted)
    code, answer = host.run(capsys, "rollback")
    assert code == 1
    assert "keeps running" in answer["msg"]


def test_nothing_is_live(host: Host, capsys: Any, handover: Handover) -> None:
    host.application.current.unlink()
    code, answer = host.run(capsys, "rollback")
    assert (code, handover.calls()) == (2, [])
    assert "No release is live" in answer["msg"]


def test_only_root_rolls_back(
    host: Host, capsys: Any, handover: Handover, monkeypatch: Any
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    code, answer = host.run(capsys, "rollback")
    assert (code, answer["msg"]) == (2, "Only root can roll back: use sudo.")
    assert handover.calls() == []


@pytest.mark.parametrize(("name", "code"), [("../x", 64), ("zz", 2)])
def test_name_that_is_none_is_refused(
    host: Host, capsys: Any, handover: Handover, name: str, code: int
) -> None:
    assert host.run(capsys, "rollback", name)[0] == code
    assert handover.calls() == []
    assert releases.candidates(releases.all_of(host.application)) == ["c", "b", "a"]


def test_what_went_live_meanwhile_is_not_taken_for_what_was_looked_at(
    host: Host, capsys: Any, handover: Handover
) -> None:
    """It waits for a deploy to end, which may be the one that somebody wants away."""
    handover.plan(2, '{"changed": false, "msg": "c is live by now."}', moves=True)
    code, answer = host.run(capsys, "rollback")
    assert code == 2
    assert answer["msg"].endswith("c is live in place of d:\nc is live by now.")
    [call] = handover.calls()
    assert call[call.index("--instead-of") + 1] == "d"
