"""Hosts that serve the same names, found by the inventory."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.plugin_utils.descriptions import certificate_name
from ansible_collections.wsgi.host.plugins.plugin_utils.sharing import asking, endpoint, sharing


def host(*domains: str, **variables: Any) -> dict[str, Any]:
    return {"applications": {"shop": {"domains": list(domains)}}, **variables}


def found(hosts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the first of the hosts is told."""
    name = next(iter(hosts))
    domains = [each["domains"] for each in hosts[name]["applications"].values()]
    certificates = [{"name": certificate_name(each), "domains": each} for each in domains]
    return sharing(name, certificates, hosts, hosts)


def test_a_name_in_common_is_enough() -> None:
    """An authority asks any host of a name, whatever else is on its certificate."""
    hosts = {
        "web1": host("shop.example.com", "www.example.com"),
        "web2": host("WWW.example.com", ansible_host="192.0.2.2"),
        "web3": host("blog.example.com", ansible_host="192.0.2.3"),
        "database": {"ansible_host": "192.0.2.4"},
    }
    assert found(hosts) == {"peers": ["192.0.2.2:80"], "nowhere": [], "alike": ["web1"]}


def test_hosts_with_the_same_certificate_are_counted() -> None:
    hosts = {
        "web1": host("shop.example.com", "www.example.com", ansible_host="192.0.2.1"),
        "web2": host("www.example.com", "shop.example.com", ansible_host="192.0.2.2"),
        "web3": host("shop.example.com", ansible_host="192.0.2.3"),
    }
    assert found(hosts)["alike"] == ["web1", "web2"]
    assert found(hosts)["peers"] == ["192.0.2.2:80", "192.0.2.3:80"]


def test_who_asks_for_the_health_of_a_name() -> None:
    """Each host that serves it and is monitored, or the host that does so for it."""
    watched = {"monitoring_enabled": True, "monitoring_server": "watch"}
    hosts = {
        "web1": host("shop.example.com", **watched),
        "web2": host("Shop.example.com", ansible_host="192.0.2.2", monitoring_enabled=True),
        "web3": host("shop.example.com", ansible_host="192.0.2.3"),
        "web4": host("blog.example.com", ansible_host="192.0.2.4", monitoring_enabled=True),
        "watch": {"ansible_host": "192.0.2.9"},
    }
    names = ["shop.example.com"]
    assert asking("web1", names, hosts, hosts) == {
        "addresses": ["192.0.2.9", "192.0.2.2"],
        "nowhere": [],
    }
    hosts["watch"] = {"ansible_host": "watch.example.com"}
    assert asking("web1", names, hosts, hosts)["nowhere"] == ["watch"]
    # It knows itself without.
    alone = {"web1": host("shop.example.com", monitoring_enabled=True)}
    assert asking("web1", names, alone, alone) == {"addresses": [], "nowhere": []}
    # Another role says that it does not exist.
    alone = {"web1": hosts["web1"]}
    assert asking("web1", names, alone, alone) == {"addresses": [], "nowhere": []}


@pytest.mark.parametrize(
    "applications",
    [None, [], {"shop": None}, {"shop": {}}, {"shop": {"domains": "a.example.com"}}],
    ids=str,
)
def test_what_another_host_has_wrong_is_for_its_own_run(applications: object) -> None:
    hosts = {"web1": host("shop.example.com"), "web2": {"applications": applications}}
    assert found(hosts) == {"peers": [], "nowhere": [], "alike": ["web1"]}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ansible_host": "192.0.2.2"}, "192.0.2.2:80"),
        ({"ansible_host": "2001:db8::2", "nginx_http_port": 8080}, "[2001:db8::2]:8080"),
        ({"ansible_host": "gate", "application_peer_address": "192.0.2.2"}, "192.0.2.2:80"),
        # nginx would not start while the name cannot be resolved.
        ({"ansible_host": "web2.example.com"}, ""),
        ({}, ""),
        ({"ansible_host": "127.0.0.1", "ansible_port": 2222}, ""),
    ],
)
def test_only_an_address_will_do(variables: dict[str, Any], expected: str) -> None:
    assert endpoint(variables, "web2") == expected
    assert endpoint({}, "192.0.2.7") == "192.0.2.7:80"
