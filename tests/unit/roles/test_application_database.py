"""Where an application finds its database, where the inventory has a host for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.plugin_utils import authority, databases
from conftest import trusted

from .describing import describe, toll_app
from .render import FACTS, evaluate

SECRET = "s" * 64
DB1 = {"ansible_host": "192.0.2.31", databases.SECRET: SECRET}
GROUPS = {"web": ["web1"], "databases": ["db1"]}


def described(name: str, hosts: Mapping[str, Any]) -> dict[str, Any]:
    """What the role describes on a host of these, of toll-app."""
    told = describe({**hosts[name], "inventory_hostname": name}, FACTS["Debian"], hosts, GROUPS)
    application: dict[str, Any] = told["applications"]["toll-app"]
    return application


def test_an_application_finds_its_database() -> None:
    hosts = trusted({f"web{n}": {**toll_app(), "ansible_host": f"192.0.2.1{n}"} for n in (1, 2)})
    both = [described(name, {**hosts, "db1": DB1}) for name in hosts]
    urls = {each["data"]["database_url"] for each in both}
    assert urls == {databases.url(SECRET, ["192.0.2.31"], "toll-app")}
    assert both[0]["credentials"][-1] == {"name": "database_url", "value": urls.pop()}
    assert both[0]["service"]["network"] == "any"
    assert both[0]["database_authority"] == authority.authority(SECRET)
    # The loopback of a host that serves is another server.
    assert both[0]["database_names"] == ["192.0.2.31"]


def test_one_of_several_databases_is_another_name_of_the_same() -> None:
    """An application that knew one of them need not move its data when others join it."""
    hosts = trusted({"web1": {**toll_app(), "ansible_host": "192.0.2.11"}, "db1": DB1})
    hosts |= {f"db{n}": {"ansible_host": f"192.0.2.3{n}"} for n in (2, 3)}
    groups = {"web": ["web1"], "databases": ["db1", "db2", "db3"]}
    host = {**hosts["web1"], "inventory_hostname": "web1"}
    told = describe(host, FACTS["Debian"], hosts, groups)["applications"]["toll-app"]
    addresses = ["192.0.2.31", "192.0.2.32", "192.0.2.33"]
    assert told["data"]["database_url"] == databases.url(SECRET, addresses, "toll-app")
    assert told["database_names"] == addresses
    assert told["service"]["network"] == "any"


def test_processes_share_connections_and_commands_do_not() -> None:
    db1 = {**DB1, databases.POOLER: True}
    hosts = trusted({"web1": {**toll_app(), "ansible_host": "192.0.2.11"}, "db1": db1})
    told = described("web1", hosts)
    direct, pooled = (databases.url(SECRET, ["192.0.2.31"], "toll-app", port) for port in (0, 6432))
    assert told["credentials"][-2:] == [
        {"name": "database_url", "value": pooled},
        {"name": "database_url_direct", "value": direct},
    ]
    # Which database it is has not changed by that.
    assert told["data"]["database_url"] == direct
    # It may need a session of its own.
    own = {**toll_app(data={"postgresql": True, "pooler": False}), "ansible_host": "192.0.2.11"}
    told = described("web1", {"web1": trusted(own), "db1": db1})
    assert told["credentials"][-1] == {"name": "database_url", "value": direct}


def test_a_url_of_its_own_goes_before() -> None:
    url = "postgresql://u:p@db.example.com/toll"
    web1 = trusted({**toll_app(data={"database_url": url}), "ansible_host": "192.0.2.11"})
    told = described("web1", {"web1": web1, "db1": DB1})
    assert told["data"]["database_url"] == url
    assert told["database_authority"] == ""


def test_an_application_may_stay_where_it_is() -> None:
    web1 = trusted({**toll_app(data={"postgresql": False}), "ansible_host": "192.0.2.11"})
    assert described("web1", {"web1": web1, "db1": DB1})["data"]["database_url"] == ""


def test_a_host_of_both_groups_asks_itself() -> None:
    web1 = trusted({**toll_app(), "ansible_host": "192.0.2.11", databases.SECRET: SECRET})
    told, shared = (
        describe(
            {**web1, "inventory_hostname": "web1"},
            FACTS["Debian"],
            {"web1": {**web1, databases.POOLER: pooler}},
            {"web": ["web1"], "databases": ["web1"]},
        )["applications"]["toll-app"]
        for pooler in (False, True)
    )
    assert told["data"]["database_url"] == databases.url(SECRET, ["127.0.0.1"], "toll-app")
    assert told["service"]["after"] == ["postgresql.service"]
    assert shared["service"]["after"] == ["postgresql.service", "pgbouncer.service"]
    assert ":6432/" in str(shared["credentials"])
    assert told["database_authority"] == ""
    assert told["database_names"] == ["127.0.0.1", "192.0.2.11"]
    # The host goes by them too.
    names = "__application_described.database.names"
    assert (
        evaluate("application", names, "Debian", __application_entry=told) == told["database_names"]
    )


RESTORE = {
    "application_restore_to": "latest",
    "ansible_play_hosts_all": ["web1"],
    "groups": GROUPS,
    "hostvars": {"db1": {}},
}


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({}, ""),
        ({"groups": {"web": ["web1"]}}, "The inventory has no group databases. Restore a copy"),
        ({"application_restore_to": ""}, "application_restore_to is empty. Write a point in time"),
        (
            {"hostvars": {"db1": {"postgresql_archive": False}}},
            "postgresql_archive is false for db1, so there is no archive. Restore a copy of each",
        ),
        (
            {"groups": {**GROUPS, "web": ["web1", "web2"]}},
            "--limit leaves out web2, and would have them go on writing. Leave --limit out",
        ),
        ({"application": "shop"}, "application is shop, and all databases go back at once."),
    ],
)
def test_what_cannot_be_restored_is_said(told: dict[str, Any], problem: str) -> None:
    said = evaluate(
        "application", "__application_restore_problems", "Debian", **{**RESTORE, **told}
    )
    assert len(said) == bool(problem)
    assert "".join(said).startswith(problem)
