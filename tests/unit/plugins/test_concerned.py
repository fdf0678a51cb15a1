"""`wsgi.host.concerned`: whom a play of a whole run is for, and that it is for nobody at times."""

from __future__ import annotations

import re

import pytest
import yaml
from ansible_collections.wsgi.host.plugins.filter.concerned import NOBODY, SEALED, concerned
from conftest import PROJECT

GROUPS = {"all": ["a", "b", "c"], "web": ["a", "b"], "balancers": ["c"], "databases": []}


@pytest.mark.parametrize(
    ("names", "without", "pattern"),
    [
        (("web",), (), "web"),
        (("balancers", "databases", "web"), (), "balancers:web"),
        (("balancers",), ("web", "monitoring", "databases"), "balancers:!web"),
        (("databases",), (), NOBODY),
        (("monitoring",), ("web",), NOBODY),
    ],
)
def test_a_play_is_for_the_groups_that_have_hosts(
    names: tuple[str, ...], without: tuple[str, ...], pattern: str
) -> None:
    """Ansible would warn of the others."""
    assert concerned(GROUPS, *names, without=without) == pattern


def test_where_there_is_nothing_to_do_it_is_for_nobody() -> None:
    assert concerned({**GROUPS, SEALED: ["c"]}, "web", "balancers") == NOBODY


def test_every_play_of_a_whole_run_asks() -> None:
    """One that does not would go on where all others have ended."""
    plays = yaml.safe_load((PROJECT / "playbooks/site.yml").read_text())
    assert len(plays) > 9
    for play in plays:
        assert "groups | wsgi.host.concerned(" in play["hosts"], play["name"]


def test_the_look_has_all_hosts_that_a_play_is_for() -> None:
    """Nobody whom a whole run may change is left out of the first look, or of the last."""
    first, *others = yaml.safe_load((PROJECT / "playbooks/site.yml").read_text())
    groups = set(re.findall(r"'(\w+)'", first["hosts"]))
    for play in others:
        assert set(re.findall(r"'(\w+)'", play["hosts"])) <= groups, play["name"]
    assert others[-1]["hosts"] == first["hosts"]


def test_the_role_adds_the_group_that_is_asked_for() -> None:
    tasks = yaml.safe_load((PROJECT / "roles/application/tasks/fleet.yml").read_text())
    added = [
        each["ansible.builtin.add_host"] for each in tasks if "ansible.builtin.add_host" in each
    ]
    assert [each["groups"] for each in added] == [SEALED]
