"""When a run of site.yml has nothing to do: what is looked at, recorded, and said again."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from conftest import trusted

from .describing import shop, toll_app
from .render import ROLES, evaluate

NEW, OLD = "0c742c8387b4", "9f0e1d2c3b4a"
LEFT = {"excluded_at": "2026-11-29T10:00:00Z", "excluded_by": "anna", "excluded_reason": "slow"}
TASKS = ROLES / "application" / "tasks"


def tasks(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((TASKS / name).read_text())
    return found


def after(left: bool, told: dict[str, Any], **variables: Any) -> dict[str, Any]:
    """Variables of a host at the end of a whole run."""
    return {
        **trusted(told),
        "__application_name": "shop",
        "__application_rolled_back": left,
        "__application_decision": LEFT,
        "__application_release": {"id": NEW, "current": OLD if left else NEW},
        "__application_bundle": {"bundle": {"content": "c0ffee"}},
        "groups": {"all": ["web1"], "web": ["web1"]},
        **variables,
    }


@pytest.mark.parametrize(("left", "live"), [(False, NEW), (True, OLD)])
def test_what_is_live_at_the_end_is_recorded_with_what_the_source_is(left: bool, live: str) -> None:
    """After a rollback it is not what the source builds, and yet the next run has nothing to do."""
    told = shop(health={"path": "/ready", "status": 200, "release_member": "release"})
    found = evaluate("application", "__application_outcome.made_of", "Debian", **after(left, told))
    assert (found["release"], found["content"]) == (live, "c0ffee")
    assert found["question"]["json"] == {"release": live}


@pytest.mark.parametrize(("place", "locked"), [("web1", True), ("web2", False)])
def test_which_run_had_the_lock_last_is_known_on_one_host(place: str, locked: bool) -> None:
    told = after(False, shop(), inventory_hostname="web1", application_lock_host=place)
    found = evaluate("application", "__application_outcome.made_of", "Debian", **told)
    assert found["locked"] is locked


def test_hooks_want_to_be_run_each_time() -> None:
    hooks = [{"on": "after_handover", "argv": ["/bin/true"]}]
    told = after(False, shop(), __application_entry=described(hooks))
    found = evaluate("application", "__application_outcome.made_of", "Debian", **told)
    assert found["content"] == ""


def described(hooks: list[Any]) -> dict[str, Any]:
    """As much of a description as is recorded."""
    health = {"path": "/", "status": 200, "release_member": ""}
    return {"hooks": hooks, "health": health, "https_port": 443, "domains": ["a"], "address": "a"}


def test_that_a_release_is_not_deployed_is_said_by_each_run() -> None:
    """Whoever reads the last lines of a run that looked only knows as much as before."""
    told = after(True, shop())
    outcome = trusted("{{ __application_outcome }}")
    told["__application_outcomes"] = {"shop": outcome}
    lines = evaluate("application", "__application_says_again", "Debian", **told)
    assert any(line.startswith(f"NOT DEPLOYED: {NEW} of shop was excluded") for line in lines)
    (record,) = tasks("sealed.yml")
    assert record["wsgi.host.seal"]["notices"] == "{{ __application_says_again }}"


def test_what_needs_attention_is_the_last_word_of_all_hosts() -> None:
    """Each host has lines of its own, and those of the second would hide it."""
    left = f"NOT DEPLOYED: {NEW} of shop was excluded"
    gone = "blog IS NOT DESCRIBED ANY MORE: its site is gone"
    said = {"web1": ["shop: a", left, gone], "web2": ["shop: a", "Log in on web2", left]}
    hosts = {name: {"__application_seal": {"kept": True, "notices": said[name]}} for name in said}
    told = {"hostvars": hosts, "groups": {"all": list(hosts), "web": list(hosts)}}
    lines = evaluate("application", "__application_notices", "Debian", **told)
    assert lines == ["shop: a", "Log in on web2", left, gone]


def test_a_host_that_serves_nothing_says_nothing() -> None:
    """It has no description, also where the variables of all hosts have applications."""
    told = {**trusted(toll_app()), "groups": {"all": ["web1", "web2"], "web": ["web2"]}}
    assert evaluate("application", "__application_says_again", "Debian", **told) == []


@pytest.mark.parametrize(
    ("variables", "hours"),
    [
        ({}, 24),
        ({"application_seal_hours": "0"}, 0),
        ({"groups": {"web": ["web1"], "monitoring": ["watch1"]}}, 24),
        ({"monitoring_new_key": True}, 0),
        ({"monitoring_new_key": "true"}, 0),
        ({"monitoring_new_key": False}, 24),
        ({"application_move": "shop"}, 0),
    ],
)
def test_what_is_wanted_of_each_run_is_done_by_each(variables: dict[str, Any], hours: int) -> None:
    """Such a variable, given twice, asks for two new keys."""
    (look,) = tasks("look.yml")
    expression = look["wsgi.host.seal"]["hours"].strip().removeprefix("{{").removesuffix("}}")
    given = {**trusted(toll_app()), "monitoring_new_key": False, **variables}
    assert evaluate("application", expression, "Debian", **given) == hours


def kept(**seals: bool) -> bool:
    """Whether there is nothing to do, by what was found on each host."""
    hosts = {
        name: {"inventory_hostname": name, "__application_seal": {"kept": whether, "said": []}}
        for name, whether in seals.items()
    }
    # One that no play is for.
    hosts["elsewhere"] = {"inventory_hostname": "elsewhere"}
    told = {"hostvars": hosts, "groups": {"all": list(hosts), "web": ["web1"]}}
    # The play of those that serve has them alone.
    told["ansible_play_hosts_all"] = ["web1"]
    return bool(evaluate("application", "__application_kept", "Debian", **told))


def test_a_fleet_is_kept_as_one() -> None:
    """What a host that serves does may rest on a balancer, and the other way round."""
    assert kept(web1=True, lb1=True, db1=True, watch1=True) is True
    assert kept(web1=True, lb1=False, db1=True, watch1=True) is False
    assert kept(web1=True, lb1=True, db1=True, watch1=False) is False
    assert kept(web1=False) is False


@pytest.mark.parametrize(
    ("groups", "fleet"),
    [
        ({}, False),
        ({"balancers": [], "monitoring": []}, False),
        ({"balancers": ["lb1"]}, True),
        ({"databases": ["web1"]}, True),
        ({"monitoring": ["watch1"]}, True),
    ],
)
def test_a_fleet_is_recorded_by_the_last_play(groups: dict[str, list[str]], fleet: bool) -> None:
    """A host that is recorded before the others have ended looks well after a run that failed."""
    told = {"groups": {"all": ["web1"], "web": ["web1"], **groups}}
    assert evaluate("application", "__application_fleet", "Debian", **told) is fleet
    records = [each for each in tasks("closing.yml") if "sealed.yml" in str(each)]
    assert [each["when"] for each in records] == ["not __application_fleet"]
    last = yaml.safe_load((ROLES.parent / "playbooks/site.yml").read_text())[-1]
    assert last["tasks"][0]["ansible.builtin.import_role"]["tasks_from"] == "sealed"
