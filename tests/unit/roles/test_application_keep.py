"""What a run refuses to leave behind, in words that somebody can follow."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from conftest import trusted

from .describing import toll_app
from .render import ROLES, evaluate

FILE = "/var/lib/toll-app/toll.db"
SERVER = "postgresql://db1:5432/toll"


def said(
    database: dict[str, Any] | None = None,
    copies: dict[str, Any] | None = None,
    unmounted: tuple[str, ...] = (),
    beside: dict[str, dict[str, Any]] | None = None,
    told: dict[str, Any] | None = None,
    **variables: Any,
) -> list[str]:
    """The refusals of host `a`."""
    holdings = {
        "database": {"kind": "sqlite", "where": FILE, "moves": False, "gone": False}
        | (database or {}),
        "copies": {"directory": "/srv/old", "recipient": "", "moves": False, "gone": False}
        | (copies or {}),
        "unmounted": list(unmounted),
    }
    hosts = {
        "a": {"inventory_hostname": "a", "__application_holdings": holdings},
        **{
            name: {
                "inventory_hostname": name,
                "__application_holdings": {"database": of},
                **trusted(toll_app()),
            }
            for name, of in (beside or {}).items()
        },
    }
    found = evaluate(
        "application",
        "__application_left_behind",
        "Debian",
        **{
            "inventory_hostname": "a",
            "ansible_play_hosts_all": list(hosts),
            "hostvars": hosts,
            "__application_holdings": holdings,
            **trusted(toll_app(**(told or {}))),
            **variables,
        },
    )
    assert isinstance(found, list)
    return found


def test_nothing_is_refused_where_nothing_is_left_behind() -> None:
    assert said() == []


def test_a_url_beside_a_file_is_refused_with_the_playbook() -> None:
    data = {"database_url": "postgresql://u:hush-7f3a@db/toll"}
    (problem,) = said({"moves": True}, told={"data": data})
    assert problem.startswith(
        "applications.toll-app.data.database_url names another database, "
        f"but the data are in {FILE}"
    )
    assert "run playbooks/move_data.yml" in problem
    assert "7f3a" not in problem


def test_no_url_beside_a_server_is_refused() -> None:
    (problem,) = said({"kind": "postgresql", "where": SERVER, "moves": True})
    assert (
        f"applications.toll-app.data.database_url is empty, but the data are in {SERVER}" in problem
    )


@pytest.mark.parametrize(
    "variables", [{"application_move": True}, {"application_abandon": ["database"]}]
)
def test_what_the_message_names_gets_through(variables: dict[str, Any]) -> None:
    told = {"data": {"database_url": "postgresql://u:p@db/toll"}}
    assert said({"moves": True}, told=told, **variables) == []


def test_a_move_of_nothing_is_refused() -> None:
    (problem,) = said(application_move=True)
    assert "there is nothing to move" in problem


def test_two_files_do_not_go_into_one_database() -> None:
    (problem,) = said({"moves": True}, beside={"b": {"moves": True}}, application_move=True)
    assert "a and b each have a file of their own" in problem


def test_of_hosts_that_share_a_server_one_moves() -> None:
    shared = {"kind": "postgresql", "where": SERVER, "moves": True}
    assert said(shared, beside={"b": shared}, application_move=True) == []


def test_places_that_are_away_are_named() -> None:
    problems = said({"gone": True}, {"gone": True}, ("/srv/old", "/mnt/b"))
    assert "applications.toll-app.data.mounts has /srv/old, which is not mounted" in problems[0]
    assert "applications.toll-app.data.mounts has /mnt/b, which is not mounted" in problems[1]
    assert f"{FILE} held data, and is empty or gone now" in problems[2]
    directory = "applications.toll-app.backup.directory"
    assert f"{directory} (/srv/old) held copies and holds none now" in problems[3]
    assert len(problems) == 4


def test_copies_do_not_stay_behind() -> None:
    told: dict[str, Any] = {"backup": {"directory": "/srv/new"}}
    (problem,) = said(None, {"moves": True}, told=told)
    assert "is /srv/new, but the copies up to now are in /srv/old: move them" in problem
    assert said(None, {"moves": True}, told=told, application_abandon=["copies"]) == []
    # Of a host that makes none any more, they stay as they are.
    assert said(None, {"moves": True}, told={"backup": {"enabled": False}}) == []


def test_it_is_asked_before_anything_is_changed() -> None:
    """After all preflights and before the block that takes the lock."""
    folder = ROLES / "application" / "tasks"
    tasks = yaml.safe_load((folder / "main.yml").read_text())
    included = [each.get("ansible.builtin.include_tasks", {}).get("file") for each in tasks]
    at = included.index("check.yml")
    # Where other hosts change before these do, it is asked before that.
    assert tasks[at + 1]["ansible.builtin.import_tasks"] == "checked.yml"
    assert "block" in tasks[at + 2]
    assert tasks[at]["tags"] == tasks[at]["ansible.builtin.include_tasks"]["apply"]["tags"]
    assert tasks[at]["tags"] == ["always"]
    last = yaml.safe_load((folder / "check.yml").read_text())[-1]
    assert last["ansible.builtin.import_tasks"] == "keep.yml"
