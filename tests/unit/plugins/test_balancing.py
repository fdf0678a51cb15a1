"""What balancers are told of the hosts behind them, by the inventory alone."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.wsgi.host.plugins.action import balance as action_plugin
from ansible_collections.wsgi.host.plugins.plugin_utils.balancing import balancers, sites
from ansible_collections.wsgi.host.plugins.plugin_utils.floating import floating
from conftest import action_of

SHOP = {"domains": ["shop.example.com", "www.example.com"]}


def host(number: int, *, own: dict[str, Any] | None = None, **variables: Any) -> dict[str, Any]:
    """A host that serves shop, with something of its own in its description."""
    return {
        "ansible_host": f"192.0.2.{number}",
        "applications": {"shop": {**SHOP, **(own or {})}},
        **variables,
    }


def led(base: dict[str, dict[str, Any]] | None = None, **hosts: dict[str, Any]) -> dict[str, Any]:
    return sites({"web": list(hosts)}, hosts, (base or {}).__getitem__)


def servers(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "address": f"192.0.2.{name.removeprefix('web')}"} for name in names]


def test_a_host_of_the_group_is_balanced() -> None:
    found = led(web1=host(1), web2=host(2), web3={"ansible_host": "192.0.2.3"})
    assert found == {
        "sites": [
            {
                "name": "shop",
                "domains": SHOP["domains"],
                "health_path": "/",
                "health_status": 200,
                "servers": servers("web1", "web2"),
            }
        ],
        "ports": {"http": 10080, "https": 10443},
        "problems": [],
    }


def test_a_name_that_some_hosts_have_leads_to_these() -> None:
    own = [{"domains": [*SHOP["domains"], f"web{i}.example.com"]} for i in (1, 2)]
    found = led(web1=host(1, own=own[0]), web2=host(2, own=own[1]), web3=host(3))["sites"]
    assert [(site["name"], site["domains"], site["servers"]) for site in found] == [
        ("shop", SHOP["domains"], servers("web1", "web2", "web3")),
        ("shop-web1", ["web1.example.com"], servers("web1")),
        ("shop-web2", ["web2.example.com"], servers("web2")),
    ]


def test_the_way_to_ask_comes_from_the_role_or_from_the_description() -> None:
    base = {"toll_app": {"health": {"path": "/readyz"}}}
    (site,) = led(base, web1=host(1, own={"role": "toll_app"}))["sites"]
    assert (site["health_path"], site["health_status"]) == ("/readyz", 200)
    own = {"role": "toll_app", "health": {"path": "/up", "status": 204}}
    (site,) = led(base, web1=host(1, own=own))["sites"]
    assert (site["health_path"], site["health_status"]) == ("/up", 204)


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (
            {"web1": host(1), "web2": host(2, own={"health": {"path": "/up"}})},
            "applications.shop.health has / with 200 on web1, and /up with 200 on web2; a balancer",
        ),
        (
            {"web1": host(1, ansible_host="gate.example.com")},
            "application_peer_address is not set for web1, whose ansible_host is no IP address",
        ),
        (
            {"web1": host(1), "web2": host(2, nginx_proxy_protocol_https_port=8444)},
            "nginx_proxy_protocol_http_port and nginx_proxy_protocol_https_port are not the same "
            "on all hosts behind the balancers (10080 and 10443 on web1; 10080 and 8444 on web2)",
        ),
        ({}, "the group balancers is in front of no host"),
        ({"web1": {"ansible_host": "192.0.2.1"}}, "the group balancers is in front of no host"),
    ],
    ids=["two ways to ask", "no address", "two ports", "no host", "no application"],
)
def test_what_cannot_be_balanced_is_said(hosts: dict[str, Any], expected: str) -> None:
    groups = {"web": list(hosts), "balancers": ["lb1"]}
    task_vars = {"inventory_hostname": "lb1", "groups": groups, "hostvars": {**hosts, "lb1": {}}}
    action = action_of(action_plugin.ActionModule, {}, task_vars)
    try:
        said = str(action.run(task_vars=task_vars).get("msg"))
    except AnsibleActionFail as error:
        said = str(error)
    assert expected in said
    assert said.endswith("Nothing was changed.")


@pytest.mark.parametrize("applications", [None, [], {"shop": None}, {"shop": {}}], ids=str)
def test_what_a_host_has_wrong_is_for_its_own_run(applications: object) -> None:
    found = led(web1=host(1), web2={"ansible_host": "192.0.2.2", "applications": applications})
    assert found["sites"][0]["servers"] == servers("web1")
    assert found["problems"] == []


def test_hosts_know_their_balancers() -> None:
    hosts = {
        "lb1": {"ansible_host": "192.0.2.8"},
        "lb2": {"ansible_host": "gate", "application_peer_address": "2001:db8::9"},
        "lb3": {"ansible_host": "gate"},
    }
    assert balancers({"balancers": list(hosts)}, hosts) == {
        "names": ["lb1", "lb2", "lb3"],
        "addresses": ["192.0.2.8", "2001:db8::9"],
        "nowhere": ["lb3"],
    }
    assert balancers({"web": ["web1"]}, {})["names"] == []


MOVES = {"keepalived_addresses": ["192.0.2.20/24", "2001:db8::20/64"]}


def moved(*balancers: dict[str, Any]) -> dict[str, Any]:
    """What lb1 has to know of these, at 192.0.2.1 and so on, beside web1 at 192.0.2.11."""
    hosts: dict[str, Any] = {
        f"lb{n}": {"ansible_host": f"192.0.2.{n}", **told} for n, told in enumerate(balancers, 1)
    }
    groups = {"balancers": list(hosts), "all": [*hosts, "web1"]}
    return floating(groups, {**hosts, "web1": {"ansible_host": "192.0.2.11"}}, "lb1")


def test_balancers_know_who_can_have_the_floating_address() -> None:
    assert moved(MOVES, MOVES) == {
        "addresses": MOVES["keepalived_addresses"],
        "peers": [{"name": f"lb{n}", "address": f"192.0.2.{n}"} for n in (1, 2)],
        "problems": [],
    }
    assert moved({}, {})["addresses"] == []
    assert moved({})["problems"] == []


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            [MOVES],
            "keepalived_addresses is 192.0.2.20/24, 2001:db8::20/64, and lb1 is the only host",
        ),
        (
            [MOVES, {"keepalived_addresses": ["192.0.2.21/24"]}],
            "192.0.2.20/24, 2001:db8::20/64 on lb1 and 192.0.2.21/24 on lb2",
        ),
        ([MOVES, {}], "is not the same for all balancers"),
        (
            [{**MOVES, "keepalived_router_id": 7}, MOVES],
            "keepalived_router_id is not the same for all balancers: 7 on lb1 and not set on lb2",
        ),
        (
            [{"keepalived_addresses": ["192.0.2.11/24"]}] * 2,
            "keepalived_addresses has 192.0.2.11/24, which is the address of web1",
        ),
        (
            [MOVES, {**MOVES, "ansible_host": "lb2.example.com"}],
            "application_peer_address is not set for lb2",
        ),
    ],
    ids=["alone", "two addresses", "one without", "two numbers", "a host's own", "nowhere"],
)
def test_an_address_that_cannot_move_is_said(told: list[dict[str, Any]], expected: str) -> None:
    problems = moved(*told)["problems"]
    said = "; ".join(f"{each['variable']} {each['problem']}" for each in problems)
    assert expected in said
    assert all(each["remedy"] for each in problems)
