"""The verb: what it prints, the unit that does the work, and who waits for whom."""

from __future__ import annotations

import json
from typing import Any

import pytest
from apphost import cli, files
from apphost.application import Application
from apphost.errors import RefusedError
from apphost.handover import command, forward, unit, waiting
from apphost.handover.state import Result

from .world import World

MEMBERS = {
    *("changed", "msg", "release", "previous", "verdict", "stage", "answer", "journal", "seconds"),
}


@pytest.fixture
def shop(world: World, as_root: None, monkeypatch: pytest.MonkeyPatch) -> World:
    """The host with its settings, and systemd in memory."""
    monkeypatch.setattr(command, "Systemd", lambda _host: world)
    return world


def call(world: World, *words: str) -> int:
    return cli.main("shop", ["handover", *words], world.folder)


def options(*words: str) -> Any:
    return cli.parser_of(Application("shop"), "handover", command).parse_intermixed_args(words)


def test_a_refusal_has_all_members_too(shop: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Playbooks read them without asking whether they are there."""
    assert call(shop, "fourth", "--json") == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer.keys() == MEMBERS
    assert (answer["changed"], answer["release"]) == (False, "fourth")
    assert answer["msg"].endswith("there are: new, old, third.")


def test_a_name_that_is_none_of_a_release_is_used_wrongly(shop: World) -> None:
    assert call(shop, "../old", "--check") == 64


def test_in_its_unit_it_hands_over_and_leaves_the_result(
    shop: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(shop, "--run=id", "--by=anna", "--reason=because", "old") == 0
    assert capsys.readouterr().out.count("Release old is live and healthy, after ") == 1
    assert shop.record("old")["activated_by"] == "anna"
    reported: list[str] = []
    shop.unit("shop-handover.service").active = "inactive"
    result = unit.follow(shop.config, shop, "id", reported.append)
    assert (result.code, result.release, result.verdict) == (0, "old", "healthy")
    assert reported[0].startswith("Handing over to release old (shop.service is stopped")
    assert not list((shop.folder / "run/shop-handover").glob("id.*"))


def test_a_journal_is_quoted_to_who_asked_and_not_in_the_journal(
    shop: World, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.behaviour["old"] = lambda _age: "answered 503, not 200"
    assert call(shop, "--run=id", "old") == 1
    printed = "".join(capsys.readouterr())
    assert "Release old was judged bad in stage main: it answered 503" in printed
    assert "journal of shop" not in printed
    path = shop.folder / "run/shop-handover/id.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "journal of shop" in unit.follow(shop.config, shop, "id", print).msg


def test_the_unit_is_this_command_in_the_sandbox_of_its_settings(
    shop: World, programs: Any
) -> None:
    programs.put("systemd-run", """#!/bin/sh\necho "$*" >> "$0.calls"\n""")
    shop.prepare("first", sandbox=["NoNewPrivileges=yes", "PrivateNetwork=yes"])
    asked = options("new", "--restart", "--exclude", "--by=anna", "--reason=two $HOME")
    assert unit.start(shop.config, shop, "id", asked)
    [line] = programs.calls("systemd-run")
    assert "--unit=shop-handover.service" in line
    assert "--property=NoNewPrivileges=yes --property=PrivateNetwork=yes" in line
    program = shop.application.command
    # systemd puts in a variable for what follows one dollar, and not for what follows two.
    words = "--run=id --by=anna --reason=two $$HOME --restart --exclude new"
    assert line.endswith(f" {program} handover {words}")


def test_who_wants_another_release_leaves_the_looking_to_the_unit(
    shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback is in a hurry, and the unit looks at everything anyway."""
    assert shop.run("old").code == 0
    started: list[str] = []

    def start(_config: Any, _systemd: Any, _request: str, asked: Any) -> bool:
        started.append(asked.release)
        return True

    monkeypatch.setattr(unit, "start", start)
    monkeypatch.setattr(unit, "follow", lambda *_: Result(True, "done"))
    show, shown = shop.show, []

    def seen(name: str) -> Any:
        shown.append(name)
        return show(name)

    monkeypatch.setattr(shop, "show", seen)
    command.request(shop.config, shop, options("new"))
    assert (started, shown) == (["new"], ["shop-handover.service"])
    assert not command.request(shop.config, shop, options("old")).changed
    assert command.request(shop.config, shop, options("new", "--check")).changed
    assert started == ["new"]


def test_a_handover_that_is_under_way_is_waited_for_if_wanted(shop: World) -> None:
    """Whoever does not want to wait is told what it is."""
    assert shop.run("old").code == 0
    shop.unit("shop-handover.service").active = "activating"
    with pytest.raises(RefusedError, match=r"Another handover is under way \(just begun\)"):
        command.request(shop.config, shop, options("new"))
    show = shop.show

    def ends_soon(name: str) -> Any:
        if shop.clock > ends:
            shop.unit("shop-handover.service").active = "inactive"
        return show(name)

    ends = shop.clock + 5
    shop.show = ends_soon  # type: ignore[method-assign]
    waiting.wait_for_others(shop.config, shop, shop.clock + 60)
    assert ends < shop.clock < ends + 1


def test_who_keeps_handovers_away_is_respected(
    shop: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """A restore does: the service must not start on half of the data."""
    before = list(shop.steps)
    with files.held(shop.application.handover_lock, 0, RefusedError("held")):
        assert call(shop, "--run=id", "old") == 2
        assert "Another handover or a restore is under way" in capsys.readouterr().err
        assert call(shop, "--boot", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"changed": False, "msg": ""}
    # What was noted of the host goes whenever somebody wants it changed.
    steps = [step for step in shop.steps if step not in before]
    assert steps == ["remove seal.json", "write id.json"]


def test_what_boots_says_what_it_has_reverted(
    shop: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shop.run("old").code == 0
    shop.clock += 1000
    shop.prepare("second")
    (shop.folder / "var/lib/config-tree/shop.json").write_text('{"pending": true}')
    assert call(shop, "--boot") == 0
    assert capsys.readouterr().out == "Reverted settings that no handover has judged\n"
    assert shop.settings == "SETTING=first\n"


def test_a_result_of_another_version_is_read(shop: World) -> None:
    """The unit may have been started by the version before an upgrade."""
    files.write_json(shop.config.run / "id.json", {"changed": True, "msg": "done", "unheard_of": 1})
    assert unit.follow(shop.config, shop, "id", print) == Result(True, "done")


def test_a_service_without_releases_keeps_its_records_with_its_settings(shop: World) -> None:
    """Nothing of /opt is touched then."""
    shop.prepare("first", release_root="")
    with pytest.raises(RefusedError, match="shop has no releases"):
        forward.hand_over(shop.service(), "old", "id", "", "")
    assert shop.config.state == shop.folder / "var/lib/gunicorn-handover/shop"
