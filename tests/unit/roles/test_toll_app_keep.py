"""What a run refuses to leave behind, in words that somebody can follow."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from .render import ROLES, evaluate

FILE = "/var/lib/toll-app/toll.db"
SERVER = "postgresql://db1:5432/toll"


def said(
    database: dict[str, Any] | None = None,
    copies: dict[str, Any] | None = None,
    unmounted: tuple[str, ...] = (),
    beside: dict[str, dict[str, Any]] | None = None,
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
        "a": {"inventory_hostname": "a", "__toll_app_holdings": holdings},
        **{
            name: {"inventory_hostname": name, "__toll_app_holdings": {"database": of}}
            for name, of in (beside or {}).items()
        },
    }
    found = evaluate(
        "toll_app",
        "__toll_app_left_behind",
        "Debian",
        **{
            "inventory_hostname": "a",
            "ansible_play_hosts_all": list(hosts),
            "hostvars": hosts,
            "__toll_app_holdings": holdings,
            "toll_app_domains": ["a.example.com"],
            **variables,
        },
    )
    assert isinstance(found, list)
    return found


def test_nothing_is_refused_where_nothing_is_left_behind() -> None:
    assert said() == []


def test_a_url_beside_a_file_is_refused_with_the_playbook() -> None:
    (problem,) = said({"moves": True}, toll_app_database_url="postgresql://u:hush-7f3a@db/toll")
    assert problem.startswith(
        f"toll_app_database_url names another database, but the data are in {FILE}"
    )
    assert "run playbooks/move_data.yml" in problem
    assert "7f3a" not in problem


def test_no_url_beside_a_server_is_refused() -> None:
    (problem,) = said({"kind": "postgresql", "where": SERVER, "moves": True})
    assert f"toll_app_database_url is empty, but the data are in {SERVER}" in problem


@pytest.mark.parametrize("variables", [{"toll_app_move": True}, {"toll_app_abandon": ["database"]}])
def test_what_the_message_names_gets_through(variables: dict[str, Any]) -> None:
    told = {"toll_app_database_url": "postgresql://u:p@db/toll", **variables}
    assert said({"moves": True}, **told) == []


def test_a_move_of_nothing_is_refused() -> None:
    (problem,) = said(toll_app_move=True)
    assert "there is nothing to move" in problem


def test_two_files_do_not_go_into_one_database() -> None:
    (problem,) = said({"moves": True}, beside={"b": {"moves": True}}, toll_app_move=True)
    assert "a and b each have a file of their own" in problem


def test_of_hosts_that_share_a_server_one_moves() -> None:
    shared = {"kind": "postgresql", "where": SERVER, "moves": True}
    assert said(shared, beside={"b": shared}, toll_app_move=True) == []


def test_places_that_are_away_are_named() -> None:
    problems = said({"gone": True}, {"gone": True}, ("/srv/old", "/mnt/b"))
    assert "toll_app_mounts has /srv/old, which is not mounted" in problems[0]
    assert "toll_app_mounts has /mnt/b, which is not mounted" in problems[1]
    assert f"{FILE} held data, and is empty or gone now" in problems[2]
    assert "toll_app_backup_directory (/srv/old) held copies and holds none now" in problems[3]
    assert len(problems) == 4


def test_copies_do_not_stay_behind() -> None:
    (problem,) = said(None, {"moves": True}, toll_app_backup_directory="/srv/new")
    assert "is /srv/new, but the copies up to now are in /srv/old: move them" in problem
    told: dict[str, Any] = {"toll_app_backup_directory": "/srv/new", "toll_app_abandon": ["copies"]}
    assert said(None, {"moves": True}, **told) == []
    # Of a host that makes none any more, they stay as they are.
    assert said(None, {"moves": True}, toll_app_backup=False) == []


def test_it_is_asked_before_anything_is_changed() -> None:
    """After all preflights and before the block that takes the lock."""
    tasks = yaml.safe_load((ROLES / "toll_app" / "tasks" / "main.yml").read_text())
    imported = [each.get("ansible.builtin.import_tasks") for each in tasks]
    at = imported.index("keep.yml")
    assert "block" in tasks[at + 1]
    assert tasks[at]["tags"] == ["always"]
