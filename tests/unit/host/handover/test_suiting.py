"""A handover that depends on the database: the release is asked while its standby starts."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from apphost import cli, records, releases
from apphost.answer import Answer
from apphost.application import Application
from apphost.errors import RefusedError
from apphost.handover import command
from apphost.handover.state import State

from .world import World

NO = "Release new cannot work with the database as it is."


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Have the release answer; returns who was asked."""

    def set_it(no: str = "", after: threading.Event | None = None) -> list[str]:
        asked: list[str] = []

        def suits(application: Application, name: str) -> Answer:
            asked.append(name)
            if after is not None:
                assert after.wait(10)
            if no:
                raise RefusedError(no)
            return Answer("The database suits it.")

        monkeypatch.setattr(releases, "suits", suits)
        return asked

    return set_it


def test_release_that_suits_goes_live(live: World, answer: Callable[..., list[str]]) -> None:
    asked = answer()
    result = live.run("new", if_suits=True)
    assert (result.code, live.current, asked) == (0, "new", ["new"])


def test_nobody_is_asked_unless_it_matters(live: World, answer: Callable[..., list[str]]) -> None:
    asked = answer()
    assert live.run("new").code == 0
    assert live.run("new", if_suits=True).code == 0
    assert asked == []


def test_what_would_be_done_is_asked_as_well(live: World, answer: Callable[..., list[str]]) -> None:
    """With Ansible's --check nothing is started, and the answer is the same."""
    words = ["new", "--if-suits", "--preview"]
    options = cli.parser_of(live.application, "handover", command).parse_intermixed_args(words)
    asked = answer()
    assert command.preview(live.config, live, options).changed
    assert asked == ["new"]
    answer(NO)
    with pytest.raises(RefusedError, match="cannot work with the database"):
        command.preview(live.config, live, options)


@pytest.mark.parametrize("ready", [True, False])
def test_no_client_sees_a_release_that_the_database_does_not_suit(
    live: World, answer: Callable[..., list[str]], ready: bool
) -> None:
    """Also one that is never ready for that reason: the reason is told, and at once."""
    answer(NO)
    if not ready:
        live.behaviour["new"] = lambda _age: "answered 503, not 200"
    begun = live.clock
    result = live.run("new", if_suits=True)
    assert (result.code, result.changed, result.verdict) == (2, False, None)
    assert result.msg == f"{NO} It served no client; release old is live as before."
    assert (live.current, live.served, live.stalls) == ("old", {"old"}, 0)
    assert live.unit("shop-standby.service").active == "inactive"
    assert State.read(live.config) is None
    assert live.clock - begun < 5
    # It is as good as it was: another time the database may suit it.
    assert live.record("new").get("verdict") != records.BAD
    assert live.history()[-1]["fault"] == NO


def test_late_answer_is_waited_for(live: World, answer: Callable[..., list[str]]) -> None:
    """The standby is judged healthy before, and takes no client until there is an answer."""
    late = threading.Event()
    answer(NO, late)
    look = live.look

    def at_the_end() -> None:
        if live.steps.count("ask shop-standby.service") == live.config.check.count:
            late.set()
        look()

    live.look = at_the_end  # type: ignore[method-assign]
    assert live.run("new", if_suits=True).code == 2
    assert live.served == {"old"}
    assert "open" not in live.steps


def test_without_a_standby_it_is_known_before_anything_stops(
    live: World, answer: Callable[..., list[str]]
) -> None:
    answer(NO)
    live.unit("shop.service").active = "failed"
    with pytest.raises(RefusedError, match="cannot work with the database"):
        live.run("new", if_suits=True)
    assert [step for step in live.steps if step.startswith(("start", "stop"))] == []
    assert State.read(live.config) is None


def test_a_question_that_dies_is_no_yes(live: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def suits(application: Application, name: str) -> Answer:
        raise UnicodeDecodeError("utf-8", b"f\xfcr", 1, 2, "invalid start byte")

    monkeypatch.setattr(releases, "suits", suits)
    result = live.run("new", if_suits=True)
    assert "invalid start byte" in result.msg
    assert live.current == "old"
