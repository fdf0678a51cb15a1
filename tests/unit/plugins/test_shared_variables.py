"""`shared_variables`, which the callback `wsgi.host.quick_forks` turns on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_quick_forks import QUICK, play, write_plugin

# Says how often it was called in this process, which is that of one task and one loop.
FILTER = """
calls = []
def counted(value):
    calls.append(value)
    return value
class FilterModule:
    def filters(self):
        return {"counted": counted, "calls": lambda _: len(calls)}
"""
# As many as roles have, and a chain of three.
VARIABLES = {
    **{f"filling_{number}": number for number in range(60)},
    "deep": "{{ 'x' | counted }}",
    "middle": "{{ deep }}{{ deep }}",
    "top": "{{ middle }}{{ deep }}{{ middle }}",
    "of_the_item": "{{ item }}{{ top }}",
    "chance": "{{ 10 ** 9 | random }}",
    "more_chance": "{{ chance }}",
}


def said(tmp_path: Path, *tasks: dict[str, Any], callback: str = QUICK) -> list[Any]:
    """What debug said in a play with these tasks."""
    write_plugin(tmp_path, "filter", FILTER)
    told = play(tmp_path, [*tasks], vars=VARIABLES, ANSIBLE_CALLBACKS_ENABLED=callback)
    return [line.split("msg: ", 1)[1].strip("'") for line in told.splitlines() if "msg: " in line]


def debug(text: str, **task: Any) -> dict[str, Any]:
    return {"name": "Say", "ansible.builtin.debug": {"msg": text}, **task}


@pytest.mark.parametrize(("callback", "calls"), [(QUICK, "1"), ("ansible.builtin.default", "2")])
def test_a_variable_is_computed_once_for_a_template(
    tmp_path: Path, callback: str, calls: str
) -> None:
    assert said(tmp_path, debug("{{ top }}={{ '' | calls }}"), callback=callback) == [
        f"xxxxx={calls}"
    ]


def test_another_item_and_another_task_compute_it_anew(tmp_path: Path) -> None:
    again = {"name": "Change it", "ansible.builtin.set_fact": {"filling_0": "y"}}
    found = said(
        tmp_path,
        debug("{{ of_the_item }}", loop=["a", "b"]),
        debug("{{ filling_0 }}{{ of_the_item }}", vars={"item": "c"}),
        again,
        debug("{{ filling_0 }}{{ of_the_item }}", vars={"item": "d"}),
    )
    assert found == ["axxxxx", "bxxxxx", "0cxxxxx", "ydxxxxx"]


def test_chance_is_one_value_within_a_template_and_another_in_the_next(tmp_path: Path) -> None:
    """Within one template it is the same under every name; Ansible has that for one name."""
    words = debug("{{ chance == more_chance }} {{ chance }}")
    first, second = (each.split() for each in said(tmp_path, words, words))
    assert (first[0], second[0]) == ("True", "True")
    assert first[1] != second[1]
