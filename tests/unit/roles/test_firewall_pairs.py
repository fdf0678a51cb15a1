"""Who reaches whom in a fleet with firewalls: every host from every other one, at every port.

The rules are those that the roles' own words make of an inventory, in the kernel's hands. What is
to come of them stands here once more, by hand: as a table of who has business with whom.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest

from . import netlab
from .firewalls import rules
from .netlab import CONNECTED, REFUSED, Host

# On each host something listens at all of them; 5000 and 9090 are nobody's business.
PORTS = (
    *("tcp/22", "tcp/80", "tcp/443", "udp/443", "tcp/2379", "tcp/2380", "tcp/5000", "tcp/5432"),
    *("tcp/6432", "tcp/8008", "tcp/9090", "tcp/9443", "tcp/10080", "tcp/10443"),
    *("udp/6000", "udp/6005", "udp/6010"),
)
GROUPS = {
    "balancers": ["lb1", "lb2"],
    "web": ["web1", "web2"],
    "databases": ["db1", "db2"],
    "database_voters": ["db1", "db2", "vote1"],
    "monitoring": ["mon1"],
}
MORE = {"port": 6000, "last_port": 6005, "protocol": "udp", "reason": "syslog"}
WATCHED = {"monitoring_enabled": True, "monitoring_server": "mon1"}
SERVES = {**WATCHED, "nginx_http3": True}
VARIABLES: dict[str, dict[str, Any]] = {
    # For two hosts alone, and for who watches whether it takes connections.
    "lb1": {**WATCHED, "firewall_clients": ["web1", "web2"]},
    "lb2": {},
    "web1": SERVES,
    # Reached through the balancers alone, and by nobody else than the watcher to log in.
    "web2": {**SERVES, "firewall_clients": [], "firewall_ssh_sources": ["mon1"]},
    "db1": {
        **WATCHED,
        "postgresql_pooler": True,
        "firewall_open": [{**MORE, "sources": ["balancers", "192.0.2.64/26"]}],
    },
    "db2": {},
    "vote1": {},
    "mon1": {},
}
EVERYBODY = ("lb1", "lb2", "web1", "web2", "db1", "db2", "vote1", "mon1", "stranger")
BALANCERS, SERVING = ("lb1", "lb2"), ("web1", "web2")
KEEPING, VOTING = ("db1", "db2"), ("db1", "db2", "vote1")
# Who gets through to whom, where.
BUSINESS = {
    **{("lb2", port): EVERYBODY for port in ("tcp/22", "tcp/80", "tcp/443")},
    ("lb1", "tcp/22"): EVERYBODY,
    ("lb1", "tcp/80"): SERVING,
    ("lb1", "tcp/443"): (*SERVING, "mon1"),
    **{("web1", port): EVERYBODY for port in ("tcp/22", "tcp/80", "tcp/443", "udp/443")},
    ("web2", "tcp/22"): ("mon1",),
    ("web2", "tcp/80"): SERVING,
    **{(web, port): BALANCERS for web in SERVING for port in ("tcp/10080", "tcp/10443")},
    **{(watched, "tcp/9443"): ("mon1",) for watched in (*SERVING, "lb1", "db1")},
    **{(db, "tcp/5432"): (*SERVING, *KEEPING) for db in KEEPING},
    ("db1", "tcp/6432"): SERVING,
    **{(db, "tcp/8008"): KEEPING for db in KEEPING},
    **{(each, port): VOTING for each in VOTING for port in ("tcp/2379", "tcp/2380")},
    **{(each, "tcp/22"): EVERYBODY for each in (*VOTING, "mon1")},
    # The stranger's address is in the network.
    **{("db1", port): (*BALANCERS, "stranger") for port in ("udp/6000", "udp/6005")},
}


def addresses(number: int) -> tuple[str, str]:
    return f"192.0.2.{number}", f"2001:db8::{number}"


PLACES = {name: addresses(number) for number, name in enumerate(EVERYBODY[:-1], start=1)}
PLACES["stranger"] = addresses(70)
HOSTS = {name: {"ansible_host": PLACES[name][0], **VARIABLES[name]} for name in VARIABLES}


@functools.cache
def lab() -> dict[str, Host]:
    return {
        name: Host(place, rules(name, HOSTS, GROUPS) if name in HOSTS else "", PORTS)
        for name, place in PLACES.items()
    }


def test_only_who_has_business_gets_through() -> None:
    """A refusal says so at once: an operator who waits for an answer learns nothing."""
    pairs = [
        (source, target, port, 4)
        for source, target in itertools.permutations(EVERYBODY, 2)
        for port in PORTS
    ]
    assert len(pairs) == 9 * 8 * len(PORTS)
    wanted = {
        (source, target, port, family): (
            CONNECTED
            # It has no firewall.
            if target == "stranger" or source in BUSINESS.get((target, port), ())
            else REFUSED
        )
        for source, target, port, family in pairs
    }
    assert netlab.tried(lab(), pairs) == wanted


def test_the_same_holds_over_ipv6() -> None:
    """The inventory has addresses of IPv4: only what is open to everybody is reached, and found."""
    pairs = [
        (source, target, port, 6)
        for source, target in (("stranger", "web1"), ("lb1", "web1"), ("web1", "web2"))
        for port in PORTS
    ]
    found = netlab.tried(lab(), pairs)
    public = {"tcp/22", "tcp/80", "tcp/443", "udp/443"}
    assert found == {
        pair: CONNECTED if pair[1] == "web1" and pair[2] in public else REFUSED for pair in pairs
    }


def test_a_host_reaches_itself() -> None:
    pairs = [("web2", "web2", port, family) for port in PORTS for family in (4, 6)]
    assert netlab.tried(lab(), pairs) == dict.fromkeys(pairs, CONNECTED)


def test_without_rules_everything_is_reached() -> None:
    """Otherwise the tests above would show nothing."""
    bare = {name: Host(host.addresses, "", PORTS) for name, host in lab().items()}
    pairs = [("stranger", "web2", port, family) for port in PORTS for family in (4, 6)]
    assert netlab.tried(bare, pairs) == dict.fromkeys(pairs, CONNECTED)


@pytest.mark.parametrize("half", [False, True], ids=["open", "half open"])
def test_a_connection_that_was_there_stays(half: bool) -> None:
    """The host that it leads to may be the one that speaks first, which looks like a new one."""
    bare = {name: vars(Host(lab()[name].addresses, "", PORTS)) for name in ("web2", "db1")}
    wanted: dict[str, Any] = {"client": "web2", "server": "db1", "port": "tcp/5432", "half": half}
    wanted["rules"] = lab()["web2"].rules
    found = netlab.run({"hosts": bare, "tries": [], "spoken_first": wanted})
    assert found["spoken_first"] == "still here"


@pytest.mark.parametrize(
    ("client", "port", "remembered"),
    [
        ("stranger", "tcp/443", 0),
        # Clients' connections once more, from the balancer that they came to.
        ("lb2", "tcp/10443", 0),
        ("stranger", "tcp/22", 20),
    ],
)
def test_what_clients_open_fills_no_table(client: str, port: str, remembered: int) -> None:
    """A flood of connections to the sites would otherwise have the kernel drop all others."""
    hosts = {name: vars(lab()[name]) for name in ("web1", client)}
    wanted = {"client": client, "server": "web1", "port": port, "count": 20}
    found = netlab.run({"hosts": hosts, "tries": [], "known_connections": wanted})
    # The stranger has no firewall, and remembers nothing.
    assert found["known_connections"] == {client: 0, "web1": remembered}
