"""When a new host behind balancers is kept away from clients until it has its certificates."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from conftest import PROJECT, trusted

TASKS = PROJECT / "roles" / "application" / "tasks" / "join.yml"
MARK = "new here, without certificates\n"
OURS = {"exists": True, "checksum": hashlib.sha1(MARK.encode()).hexdigest()}
OTHERS, NOBODY = "Others serve shop as well.", "Without web4 nobody serves shop: ..."


def said(message: str, state: str) -> dict[str, Any]:
    """What a balancer answers of this host and of another one."""
    servers = {"web.1": {"state": "UP"}, "web4": {"state": state}}
    return {"msg": message, "answer": {"msg": message, "sites": {"shop": servers}}}


@pytest.mark.parametrize(
    ("answers", "flag", "kept_away"),
    [
        ([said(OTHERS, "DOWN"), said(OTHERS, "DOWN 1/2")], {"exists": False}, True),
        # A run before did so, and the authority did not issue.
        ([said(OTHERS, "DOWN")], OURS, True),
        # Two hosts with clients would both leave, each because of the other.
        ([said(OTHERS, "UP")], {"exists": False}, False),
        ([said(OTHERS, "DOWN"), said(OTHERS, "UP 1/3")], {"exists": False}, False),
        # Challenges have to come through somebody.
        ([said(NOBODY, "DOWN")], {"exists": False}, False),
        ([said(OTHERS, "DOWN"), said(NOBODY, "DOWN")], {"exists": False}, False),
        ([{"msg": "No site has a server web4."}], {"exists": False}, False),
        # Somebody has drained it, and it stays so.
        ([said(OTHERS, "DOWN")], {"exists": True, "checksum": "0" * 40}, False),
    ],
)
def test_a_new_host_is_kept_away_where_others_serve(
    answers: list[dict[str, Any]], flag: dict[str, Any], kept_away: bool
) -> None:
    task = yaml.safe_load(TASKS.read_text())[-1]
    variables = {
        "inventory_hostname": "web4",
        "__application_joining": MARK,
        "__application_drained_before": {"stat": flag},
        "__application_spared": {"results": answers},
    }
    templar = Templar(DataLoader(), variables=trusted(variables))
    assert all(templar.evaluate_conditional(each) for each in trusted(task["when"])) is kept_away


def test_the_mark_is_the_roles() -> None:
    told = yaml.safe_load((PROJECT / "roles/application/vars/main.yml").read_text())
    assert told["__application_joining"] == MARK
