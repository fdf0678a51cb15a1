"""Who watches whom, read from the variables of an inventory."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.filter.peers import peers
from ansible_collections.wsgi.host.plugins.filter.probed import probed
from ansible_collections.wsgi.host.plugins.filter.watched import watched

ON: dict[str, Any] = {"monitoring_enabled": True, "monitoring_server": "watch1"}


def test_hosts_that_name_the_server_are_watched():
    hostvars = {
        "web1": {**ON, "ansible_host": "192.0.2.10"},
        "web2": {**ON, "ansible_host": "[2001:db8::2]", "monitoring_gateway_port": 9444},
        "web3": {**ON, "monitoring_gateway_address": "web3.internal", "ansible_host": "192.0.2.12"},
        "alone": {"monitoring_enabled": True},
        "off": {**ON, "monitoring_enabled": False},
        "elsewhere": {**ON, "monitoring_server": "watch2"},
    }
    assert [
        (each["name"], each["address"])
        for each in watched(hostvars, "watch1", {"web": [*hostvars]})
    ] == [
        ("web1", "192.0.2.10:9443"),
        ("web2", "[2001:db8::2]:9444"),
        ("web3", "web3.internal:9443"),
    ]


def test_a_host_without_an_address_is_reached_by_its_name():
    assert watched({"web1": ON}, "watch1", {"web": ["web1"]})[0]["address"] == "web1:9443"


def test_balancers_and_databases_are_watched_too():
    """What variables of all hosts say of applications and copies is not for them."""
    told = {**ON, **shop(), "monitoring_backups": True}
    hostvars = {
        "both": {**told, "ansible_host": "192.0.2.9"},
        "web1": {**told, "ansible_host": "192.0.2.10"},
        "lb1": {**told, "ansible_host": "2001:db8::21", "haproxy_https_port": 8443},
        "db1": {**told, "ansible_host": "192.0.2.31"},
        "db2": {**told, "monitoring_enabled": False},
        "vote1": {**told, "ansible_host": "192.0.2.41"},
    }
    groups = {
        "web": ["web1", "both"],
        "balancers": ["both", "lb1"],
        "databases": ["db1", "db2"],
        "database_voters": ["db1", "vote1", "web1"],
        "monitoring": ["watch1"],
    }
    found = [[*each.values()] for each in watched(hostvars, "watch1", groups)]
    assert found == [
        ["web1", "192.0.2.10:9443", True, ["shop"], ["shop"], ["web", "voter"], ""],
        ["both", "192.0.2.9:9443", True, ["shop"], ["shop"], ["web", "balancer"], "192.0.2.9:443"],
        ["lb1", "[2001:db8::21]:9443", False, [], [], ["balancer"], "[2001:db8::21]:8443"],
        ["db1", "192.0.2.31:9443", False, [], [], ["database", "voter"], ""],
        ["vote1", "192.0.2.41:9443", False, [], [], ["voter"], ""],
    ]


def shop(url: str = "", **backup: Any) -> dict[str, Any]:
    data = {"database_url": url} if url else {"sqlite": ["shop.sqlite"]}
    told = {"domains": ["a.example"], "data": data, "backup": backup}
    return {"applications": {"shop": told}}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (shop(), shop(), [True, True]),
        (shop(enabled=False), shop(), [False, True]),
        (shop("pg"), shop("pg"), [True, False]),
        (shop("pg"), shop("other"), [True, True]),
        (
            {**shop("pg"), "monitoring_backups": False},
            {**shop("pg"), "monitoring_backups": True},
            [False, True],
        ),
    ],
)
def test_of_hosts_that_share_a_database_the_first_makes_copies(first, second, expected):
    hostvars = {"web1": {**ON, **first}, "web2": {**ON, **second}}
    found = watched(hostvars, "watch1", {"web": ["web1", "web2"]})
    assert [each["backups"] for each in found] == expected


@pytest.mark.parametrize(
    ("variables", "url", "verify"),
    [
        ({}, "https://a.example/readyz", True),
        ({"monitoring_urls": ["https://b.example/"]}, "https://b.example/", True),
        ({"monitoring_probe_verify": False}, "https://a.example/readyz", False),
        ({"nginx_https_port": 8443}, "https://a.example:8443/readyz", True),
        ({"certbot_obtain": False}, "https://a.example/readyz", False),
        ({"certbot_ca_file": "ca.pem"}, "https://a.example/readyz", False),
        (
            {"certbot_directory_url": "https://acme-staging.example"},
            "https://a.example/readyz",
            False,
        ),
    ],
)
def test_where_clients_ask_a_site(variables, url, verify):
    told = {"domains": ["a.example", "b.example"], "health": {"path": "/readyz"}}
    found = probed({"applications": {"shop": told}, **variables})
    applications = [{"name": "shop", "metrics": ""}]
    assert found == {"urls": [url], "applications": applications, "verify": verify}


def test_what_a_role_says_of_an_application_counts():
    """Where a run has put descriptions together; the inventory alone does not know it."""
    told = {"applications": {"shop": {"domains": ["a.example"]}, "wrong": "text"}}
    assert probed(told)["urls"] == ["https://a.example/"]
    whole = {"applications": {"shop": {"domains": ["a.example"], "health": {"path": "/readyz"}}}}
    assert probed({**told, "__application_descriptions": whole})["urls"] == [
        "https://a.example/readyz"
    ]


def test_a_host_without_a_site_has_nothing_to_ask():
    assert probed({})["urls"] == []


def pem(name: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----"


def slurped(text: str) -> dict[str, str]:
    return {"content": base64.b64encode(text.encode()).decode()}


def test_a_host_that_is_gone_keeps_the_certificate_that_is_known():
    known = slurped(f"#\n# managed\n#\n# host web1\n{pem('old1')}\n# host web.2\n{pem('old2')}\n")
    results: list[dict[str, Any]] = [
        {"host": "web1", **slurped(pem("new1") + "\n")},
        {"host": "web.2", "unreachable": True, "msg": "no route"},
        {"host": "web3", "failed": True, "msg": "sudo: a password is required"},
        {"host": "gone", "failed": True, "msg": "File not found: /etc/ssl/monitoring/host.crt"},
    ]
    assert peers(results, "host", known) == [
        {"name": "web1", "certificate": pem("new1")},
        {"name": "web.2", "certificate": pem("old2")},
    ]


def test_a_host_whose_key_was_removed_is_not_known_any_more():
    known = slurped(f"# host web1\n{pem('old1')}\n")
    results = [{"host": "web1", "failed": True, "msg": "File not found: /etc/ssl/host.crt"}]
    assert peers(results, "host", known) == []


def test_nothing_is_known_on_a_bare_host():
    assert peers([{"host": "web1", "unreachable": True}], "host", {"failed": True}) == []
