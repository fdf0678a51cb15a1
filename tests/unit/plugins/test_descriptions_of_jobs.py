"""Descriptions with entries whose names a person chooses: their defaults and their checks."""

from __future__ import annotations

from typing import Any

from ansible_collections.wsgi.host.plugins.plugin_utils.descriptions import filled, named
from ansible_collections.wsgi.host.plugins.plugin_utils.variables import Checker, is_secret

WORKERS: dict[str, Any] = {
    "type": "dict",
    "default": {},
    "values": {
        "command": {"type": "list", "elements": "str", "required": True},
        "count": {"type": "int", "default": 1, "description": "How many."},
    },
}
OPTIONS: dict[str, Any] = {"name": {"type": "str"}, "workers": WORKERS}
SPEC = {"applications": {"type": "dict", "values": OPTIONS}}


def fill(description: dict[str, Any]) -> dict[str, Any]:
    return filled(description, OPTIONS, lambda default, _whole: default)


def problems(workers: Any) -> list[tuple[str, str]]:
    checker = Checker("application", SPEC, {"applications.*.workers.*.count": "1..9"})
    checker.value("applications", {"shop": {"workers": workers}})
    return [(problem.variable, problem.message) for problem in checker.problems]


def test_each_entry_gets_the_defaults() -> None:
    written = {"workers": {"mail": {"command": ["mail"]}, "index": {"command": ["x"], "count": 3}}}
    assert fill(written)["workers"] == {
        "mail": {"command": ["mail"], "count": 1},
        "index": {"command": ["x"], "count": 3},
    }
    assert written["workers"]["mail"] == {"command": ["mail"]}, "it stays as it was written"
    assert fill({})["workers"] == {}


def test_what_is_wrong_stays_for_the_check() -> None:
    assert fill({"workers": {"mail": "celery", "index": None}})["workers"] == {
        "mail": "celery",
        "index": None,
    }
    assert fill({"workers": ["mail"]})["workers"] == ["mail"]


def test_they_become_a_list_with_their_names() -> None:
    assert named({"mail": {"count": 1}, "index": {}}) == [
        {"name": "mail", "count": 1},
        {"name": "index"},
    ]


def test_a_right_one_passes() -> None:
    assert problems({"mail": {"command": ["celery"], "count": 2}}) == []


def test_each_problem_names_the_entry_and_belongs_to_the_application() -> None:
    """So rules of this application are not asked, and those of another one are."""
    found = problems({"mail": {"comand": ["x"], "count": 10}, "index": "celery", "none": None})
    assert {variable for variable, _ in found} == {"applications.shop"}
    text = "\n".join(message for _, message in found)
    assert "applications.shop.workers.mail.comand is not a key" in text
    assert "did you mean command" in text
    assert "applications.shop.workers.mail.command is not set" in text
    assert "applications.shop.workers.mail.count is 10, which is more than 9" in text
    assert 'applications.shop.workers.index is "celery" (text); a dictionary is needed' in text
    assert "applications.shop.workers.none is null" in text


def test_a_secret_further_down_hides_what_is_above() -> None:
    assert is_secret({"type": "dict", "values": {"password": {"no_log": True}}})
    assert not is_secret(WORKERS)
