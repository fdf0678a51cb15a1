"""Filters that read descriptions of applications out of an inventory."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.filter.answers import answers
from ansible_collections.wsgi.host.plugins.filter.backing_up import backing_up
from ansible_collections.wsgi.host.plugins.filter.having import having
from ansible_collections.wsgi.host.plugins.filter.sharing import sharing

SHOP = {"source": "../shop", "domains": ["shop.example.com"]}


def test_hosts_that_have_an_application_keep_their_order() -> None:
    hostvars: dict[str, Any] = {
        "web2": {"applications": {"shop": SHOP}},
        "web1": {"applications": {"shop": SHOP, "blog": {}}},
        "none": {},
        "wrong": {"applications": "shop"},
    }
    assert having([*hostvars], hostvars, "shop") == ["web2", "web1"]
    assert having([*hostvars], hostvars, "blog") == ["web1"]


def test_hosts_share_a_database_by_its_url() -> None:
    def host(url: Any) -> dict[str, Any]:
        return {"applications": {"shop": {"data": {"database_url": url}}}}

    hostvars = {
        "web1": host("postgresql://a"),
        "web2": host("postgresql://b"),
        "web3": host("postgresql://a"),
        "file": {"applications": {"shop": SHOP}},
        "other": {"applications": {"blog": {"data": {"database_url": "postgresql://a"}}}},
        "wrong": {"applications": {"shop": ["a"]}},
    }
    assert sharing([*hostvars], hostvars, "shop", "postgresql://a") == ["web1", "web3"]


def result(name: str, **more: Any) -> dict[str, Any]:
    return {"__application_each": name, **more}


def test_answers_are_told_from_silence() -> None:
    hostvars: dict[str, Any] = {
        "up": {
            "applications": {"shop": SHOP, "blog": SHOP},
            "__application_statuses": {
                "results": [
                    result("shop", rc=0, answer={"live": "r1"}),
                    result("blog", rc=1, msg="it is down"),
                ]
            },
        },
        "gone": {"applications": {"shop": SHOP}},
        "without": {"applications": {"blog": SHOP}, "__application_statuses": {"results": []}},
    }
    assert answers([*hostvars], hostvars, "shop") == {"up": {"live": "r1"}}
    assert answers([*hostvars], hostvars, "shop", silent=True) == {"gone": "it was not reached"}
    assert answers([*hostvars], hostvars, "blog") == {}
    assert answers([*hostvars], hostvars, "blog", silent=True) == {
        "up": "it is down",
        "without": "it was not reached",
    }


def test_a_host_backs_up_what_is_its_own_or_what_it_is_first_of() -> None:
    def host(url: str, **backup: Any) -> dict[str, Any]:
        data = {"database_url": url} if url else {"sqlite": ["shop.sqlite"]}
        return {"applications": {"shop": {"data": data, "backup": backup}}}

    hosts = ["web1", "web2"]
    shared = {"web1": host("pg"), "web2": host("pg")}
    assert [backing_up(shared, each, hosts) for each in hosts] == [["shop"], []]
    own = {"web1": host(""), "web2": host("", enabled=False)}
    assert [backing_up(own, each, hosts) for each in hosts] == [["shop"], []]
    # The other application of the second host is its own.
    shared["web2"]["applications"]["blog"] = {"data": {"directories": ["uploads"]}}
    assert backing_up(shared, "web2", hosts) == ["blog"]
    told = {"web1": {**host("pg"), "monitoring_backups": False}}
    assert backing_up(told, "web1", ["web1"]) == []
    shared["web2"]["monitoring_backups"] = True
    assert backing_up(shared, "web2", hosts) == ["shop", "blog"]
    # What the inventory names, whoever watches.
    shared["web2"]["monitoring_backed_up"] = ["blog"]
    assert backing_up(shared, "web2", hosts) == ["blog"]
    shared["web2"]["monitoring_backups"] = False
    assert backing_up(shared, "web2", hosts) == []


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        (SHOP, False),
        ({**SHOP, "data": {"directories": ["uploads"]}}, True),
        ({**SHOP, "data": {"postgresql": True}}, True),
        ({**SHOP, "backup": {"enabled": True}}, True),
        ({"role": "toll_app"}, True),
        ({"role": "toll_app", "backup": {"enabled": False}}, False),
        ({**SHOP, "data": "wrong", "backup": "wrong"}, False),
        ("wrong", False),
    ],
)
def test_what_has_no_data_has_no_copies(description: Any, expected: bool) -> None:
    """An alert would ask for them; a role may say what the inventory does not."""
    told = {"web1": {"applications": {"shop": description}}}
    assert backing_up(told, "web1", ["web1"]) == (["shop"] if expected else [])
