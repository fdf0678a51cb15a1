"""The firewall role's files for every family, as nft and systemd read them; its preflight."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.modules.probe import firewall

from .describing import ROLES, read
from .firewalls import opened, rules
from .netlab import NFT, apart
from .preflight import Case, preflight
from .render import FAMILIES, evaluate, render

GROUPS = {"web": ["web1"], "balancers": ["lb1", "lb2"]}
HOSTS: dict[str, dict[str, Any]] = {
    "web1": {"ansible_host": "192.0.2.1"},
    "lb1": {"ansible_host": "192.0.2.2"},
    "lb2": {"ansible_host": "2001:db8::2"},
}
MAIL = {"port": 25, "sources": ["everybody"], "reason": "mail"}
VRRP = {"protocol": "vrrp", "sources": ["balancers"], "reason": "keepalived"}


def configuration(family: str) -> dict[str, str]:
    """The files of a host, by name."""
    return {
        "rules.nft": rules("web1", HOSTS, GROUPS, family),
        "host-firewall.service": render("firewall", "host-firewall.service.j2", family),
        "nftables.conf": render("firewall", "nftables.conf.j2", family),
    }


def checked(text: str) -> subprocess.CompletedProcess[str]:
    """What nft says of rules, in a network of its own."""
    return subprocess.run(
        [*apart(), NFT, "--check", "--file", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def let_in(name: str, text: str) -> list[str]:
    """What is let in for a reason, of the text of rules."""
    [block] = re.findall(rf"^\t\t# {re.escape(name)}\n((?:\t\t[^#\n].*\n)+)", text, re.MULTILINE)
    return [line.strip() for line in block.splitlines()]


@pytest.mark.parametrize("family", FAMILIES)
def test_nft_takes_the_rules(family: str) -> None:
    done = checked(configuration(family)["rules.nft"])
    assert done.returncode == 0, done.stderr


def test_tables_of_others_stay() -> None:
    text = rules("web1", HOSTS, GROUPS)
    assert "flush" not in text
    assert set(re.findall(r"^(?:delete )?table (.+?)(?: \{)?$", text, re.MULTILINE)) == {
        "inet host_firewall"
    }


@pytest.mark.parametrize(
    "more",
    [
        [],
        # Ranges and networks within one another, which nft would refuse.
        [
            {**MAIL, "port": 6000, "last_port": 6010, "sources": ["192.0.2.0/24", "192.0.2.7"]},
            {**MAIL, "port": 80},
            {**MAIL, "port": 442, "last_port": 444},
        ],
        [VRRP, {**VRRP, "protocol": "any", "sources": ["10.88.0.0/16", "fd00::/8"]}],
        [{**MAIL, "protocol": "udp", "reason": 'a "quoted" {reason}; # and more'}],
    ],
)
def test_nft_takes_what_an_operator_adds(more: list[dict[str, Any]]) -> None:
    hosts = {**HOSTS, "web1": {**HOSTS["web1"], "firewall_open": more}}
    done = checked(rules("web1", hosts, GROUPS))
    assert done.returncode == 0, done.stderr


def test_the_port_that_ansible_uses_is_open() -> None:
    told = {"ansible_port": "2200", "firewall_ssh_ports": [22], "firewall_ssh_sources": ["lb1"]}
    text = rules("web1", {**HOSTS, "web1": {**HOSTS["web1"], **told}}, GROUPS)
    name = "SSH: Ansible and administrators"
    assert let_in(name, text) == ["ip saddr { 192.0.2.2 } tcp dport { 22, 2200 } accept"]


def test_hosts_are_let_in_by_both_kinds_of_address() -> None:
    name = "application: balancers, which speak the PROXY protocol"
    assert let_in(name, rules("web1", HOSTS, GROUPS)) == [
        "ip saddr { 192.0.2.2 } tcp dport { 10080, 10443 } accept",
        "ip6 saddr { 2001:db8::2 } tcp dport { 10080, 10443 } accept",
    ]


def test_a_balancer_of_somebody_else_is_let_in_where_it_is_trusted() -> None:
    told = {"nginx_trusted_proxies": ["198.51.100.0/24"], "nginx_proxy_protocol": True}
    own = {**told, "nginx_proxy_protocol_https_port": 8443, "nginx_proxy_protocol_http_port": 8080}
    text = rules("web1", {"web1": {**HOSTS["web1"], **own}}, {"web": ["web1"]})
    name = "application: balancers, which speak the PROXY protocol"
    assert let_in(name, text) == ["ip saddr { 198.51.100.0/24 } tcp dport { 8080, 8443 } accept"]


def test_databases_and_those_who_vote_reach_one_another() -> None:
    """Each port to those who ask there, and to nobody who only serves or balances."""
    hosts = {f"db{n}": {"ansible_host": f"192.0.2.3{n}"} for n in (1, 2)}
    hosts |= {"lb1": {"ansible_host": "192.0.2.2"}, "web1": HOSTS["web1"]}
    groups = {"databases": ["db1", "db2"], "database_voters": ["db1", "db2", "lb1"]}
    text = rules("db1", hosts, {**groups, "web": ["web1"], "balancers": ["lb1"]})
    others = "ip saddr { 192.0.2.2, 192.0.2.32 }"
    assert let_in("etcd: the other members of etcd", text) == [
        f"{others} tcp dport {{ 2380 }} accept"
    ]
    assert let_in("postgresql: Patroni", text) == [
        "ip saddr { 192.0.2.32 } tcp dport { 8008 } accept"
    ]
    copies = "postgresql: applications of the hosts that serve, and databases that copy"
    assert let_in(copies, text) == ["ip saddr { 192.0.2.1, 192.0.2.32 } tcp dport { 5432 } accept"]
    opens = {each["role"] for each in opened("lb1", hosts, groups)["openings"]}
    assert opens == {"SSH", "etcd"}
    one = opened("db1", hosts, {"databases": ["db1"]})
    assert {each["role"] for each in one["openings"]} == {"SSH"}


def test_a_pooler_that_is_not_wanted_any_more_is_reached_by_those_who_have_not_left() -> None:
    there = {"packages": {"pgbouncer": "1.24.1"}, "users": ["postgresql-pooler"]}
    groups = {"databases": ["db1"], "web": ["web1"]}

    def let(**variables: Any) -> bool:
        db1 = {"ansible_host": "192.0.2.31", **variables}
        return "dport { 6432 }" in rules("db1", {"db1": db1, "web1": HOSTS["web1"]}, groups)

    facts = {"ansible_facts": {"wsgi_host": there}}
    assert (let(), let(postgresql_pooler=True), let(**facts)) == (False, True, True)
    assert not let(**facts, __application_pooler_goes=True)


def test_what_nobody_comes_for_is_not_open() -> None:
    """A single host has no balancers, nobody who watches it, and no neighbours."""
    found = opened("web1", {"web1": HOSTS["web1"]}, {"web": ["web1"]})
    assert [(each["role"], each["ports"]) for each in found["openings"]] == [
        ("SSH", ["22"]),
        ("nginx", ["80", "443"]),
    ]
    assert found["untracked"] == {"tcp": ["80", "443"]}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            {"firewall_open": [{**MAIL, "sources": ["balancer"]}]},
            "firewall_open has the source balancer, which is neither an address or network nor a "
            "group or host of the inventory: did you mean balancers?",
        ),
        (
            {"firewall_clients": ["10.0.0.0/33"]},
            "firewall_clients has the source 10.0.0.0/33, which is neither an address or "
            "network nor a group or host of the inventory: use one of these, or everybody",
        ),
        (
            {"firewall_clients": ["clients"]},
            "firewall_clients has the source clients, who are the ones that it is to name: "
            "name them, or write everybody",
        ),
        (
            {"firewall_ssh_sources": ["named"]},
            "application_peer_address is not set for named, whose ansible_host is not an IP "
            "address that the firewall of web1 could admit: set it to the address from which named "
            "reaches other hosts",
        ),
        (
            {"firewall_open": [{**MAIL, "port": 30, "last_port": 25}]},
            "firewall_open has a range from 30 to 25 (mail): write the lower one as port, or leave "
            "last_port out",
        ),
    ],
)
def test_a_source_that_is_nobody_is_named(told: dict[str, Any], said: str) -> None:
    hosts = {
        **HOSTS,
        "web1": {**HOSTS["web1"], **told},
        "named": {"ansible_host": "named.example.com"},
    }
    [problem] = opened("web1", hosts, GROUPS)["problems"]
    assert f"{problem['variable']} {problem['problem']}: {problem['remedy']}" == said


@pytest.mark.parametrize(
    ("sources", "clients"),
    [
        (["everybody"], ["everybody"]),
        (["clients"], ["everybody"]),
        (["lb1", "clients"], ["0.0.0.0/0"]),
        (["0.0.0.0/0"], []),
        (["::/0"], []),
        (["10.0.0.0/0"], []),
        (["0.0.0.0/1", "128.0.0.0/1"], []),
    ],
)
def test_no_host_opens_every_port_to_everybody(sources: list[str], clients: list[str]) -> None:
    """By no other word for it either: clients are everybody unless somebody says who they are."""
    everything = {"protocol": "any", "sources": sources, "reason": "tunnels"}
    told = {"firewall_open": [everything], "firewall_clients": clients}
    hosts = {**HOSTS, "web1": {**HOSTS["web1"], **told}}
    [problem] = opened("web1", hosts, GROUPS)["problems"]
    here = ", here or in firewall_clients" if "clients" in sources else ""
    assert f"{problem['variable']} {problem['problem']}: {problem['remedy']}" == (
        f"firewall_open opens every port to everybody, by the sources {' and '.join(sources)} "
        f"(tunnels): name the networks that you mean{here}, or set firewall_enabled: false"
    )


def test_clients_that_are_known_may_have_every_port() -> None:
    everything = {"protocol": "any", "sources": ["clients"], "reason": "tunnels"}
    told = {"firewall_open": [everything], "firewall_clients": ["192.0.2.0/24"]}
    text = rules("web1", {**HOSTS, "web1": {**HOSTS["web1"], **told}}, GROUPS)
    assert let_in("firewall_open: tunnels", text) == ["ip saddr { 192.0.2.0/24 } accept"]


def test_a_host_that_cannot_be_computed_here_is_tracked() -> None:
    """A run of the balancer alone has no facts of others."""
    own = {"nginx_trusted_proxies": ["{{ ansible_facts.default_ipv4.address }}"]}
    hosts = {"web1": {**HOSTS["web1"], **own}, "web2": {"ansible_host": "192.0.2.9"}}
    hosts["lb1"] = {"ansible_host": "192.0.2.2"}
    found = opened("lb1", hosts, {"web": ["web1", "web2"], "balancers": ["lb1"]})
    assert [each["sent"] for each in found["far"]] == [
        "ip daddr { 192.0.2.9 } tcp dport { 10080, 10443 }"
    ]


SAID = sorted(ROLES.glob("*/meta/openings.yml"))


@pytest.mark.parametrize("path", SAID, ids=lambda path: path.parts[-3])
def test_what_a_role_says_has_its_form(path: Path) -> None:
    """A key that nobody reads would be an opening, or a limit, that is not there."""
    said = read(path)
    assert set(said) == {"groups", "openings"}
    assert said["groups"]
    for opening in said["openings"]:
        assert {"ports", "sources", "reason"} <= set(opening)
        assert set(opening) <= {"ports", "sources", "reason", "protocol", "when", "untracked"}
        if "untracked" in opening:
            assert "protocol" not in opening, "the rules for the other end are those of TCP"
            assert opening["ports"]
            assert all(name.isidentifier() for name in opening["untracked"])


def test_roles_that_others_come_to_say_so() -> None:
    roles = {path.parts[-3] for path in SAID}
    assert roles >= {"application", "etcd", "haproxy", "monitoring", "nginx", "postgresql"}


ON = {"firewall_enabled": True}
ACTIVE = {"active": True, "enabled": True, "state": "active"}
SEEN = {"rules": "", "units": "", "loaded": False}


def test_preflight_says_what_is_wrong() -> None:
    said = preflight(
        "firewall",
        {
            "good": Case({**ON, "firewall_open": [MAIL, VRRP]}),
            "ufw": Case(ON, {"firewall": {**SEEN, "ufw": True}}),
            "firewalld": Case(ON, {"units": {"firewalld.service": ACTIVE}}),
            "ufw, and no firewall": Case({}, {"firewall": {**SEEN, "ufw": True}}),
            "no port": Case({**ON, "firewall_open": [{**MAIL, "port": 0}]}),
            "a port of vrrp": Case({**ON, "firewall_open": [{**VRRP, "port": 112}]}),
            "nobody": Case({**ON, "firewall_ssh_sources": []}),
        },
    )
    assert said["good"] == said["ufw, and no firewall"] == ""
    assert "firewall_enabled (true) would run a second firewall beside ufw" in said["ufw"]
    assert "or turn the other one off first (ufw disable)" in said["ufw"]
    assert "(systemctl disable --now firewalld)" in said["firewalld"]
    for name in ("no port", "a port of vrrp"):
        assert "firewall_open has an entry for tcp or udp without a port" in said[name]
    assert "firewall_ssh_sources is empty, so nobody could log in over SSH" in said["nobody"]


def test_a_host_that_is_as_it_should_be_is_left_alone(tmp_path: Path) -> None:
    """By what the probe has seen: such a run makes no trip for the firewall."""
    found = opened("web1", HOSTS, GROUPS)
    [unit] = evaluate("firewall", "[__firewall_unit]", "Debian")

    def state(seen: dict[str, Any], **units: Any) -> tuple[bool, bool]:
        told: dict[str, Any] = {"firewall": seen, "units": units}
        return tuple(
            evaluate("firewall", each, "Debian", wsgi_host=told, __firewall_openings=found)
            for each in ("__firewall_in_force", "__firewall_runs")
        )

    bare = firewall(str(tmp_path))
    assert bare == {**SEEN, "ufw": False}
    assert state(bare) == (False, False)
    places = ("__firewall_rules", "__firewall_unit_file", "__firewall_drop_in")
    for place, text in zip(places, configuration("Debian").values(), strict=True):
        path = tmp_path / evaluate("firewall", place, "Debian").lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # The table of this machine's kernel is not ours.
    done = {**firewall(str(tmp_path)), "loaded": True}
    assert state(done, **{unit: ACTIVE}) == (True, True)
    assert state({**done, "loaded": False}, **{unit: ACTIVE}) == (False, True)
    assert state(done, **{unit: {**ACTIVE, "enabled": False}}) == (True, False)
    path.write_text("")
    (tmp_path / "etc/host-firewall/rules.nft").write_text("table inet host_firewall\n")
    edited = {**firewall(str(tmp_path)), "loaded": True}
    assert state(edited, **{unit: ACTIVE}) == (False, False)


@pytest.mark.parametrize(
    ("text", "enabled"), [("ENABLED=yes\n", True), ("# ENABLED=yes\nENABLED=no\n", False)]
)
def test_ufw_is_seen_where_it_is_switched_on(text: str, enabled: bool, tmp_path: Path) -> None:
    """Its unit is active on every Ubuntu, where it does nothing."""
    (tmp_path / "etc/ufw").mkdir(parents=True)
    (tmp_path / "etc/ufw/ufw.conf").write_text(text)
    assert firewall(str(tmp_path))["ufw"] is enabled


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    path = tmp_path / "host-firewall.service"
    path.write_text(configuration("Debian")["host-firewall.service"])
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_what_is_taken_off_a_host_is_closed_before_the_inventory_says_so() -> None:
    """Its line goes after it, since the playbooks that take it off need it."""
    hosts: dict[str, dict[str, Any]] = {
        f"db{n}": {"ansible_host": f"192.0.2.{n}"} for n in (1, 2, 3)
    }
    groups = {"databases": list(hosts)}
    before = opened("db3", hosts, groups)["openings"]
    assert {each["role"] for each in before} == {"SSH", "etcd", "postgresql"}
    gone = {"__firewall_roles_gone": ["postgresql", "etcd"]}
    after = opened("db3", {**hosts, "db3": {**hosts["db3"], **gone}}, groups)["openings"]
    assert {each["role"] for each in after} == {"SSH"}


def test_balancers_with_a_floating_address_hear_one_another() -> None:
    """Otherwise each would take the address."""
    moves = {"keepalived_addresses": ["192.0.2.20/24"]}
    hosts: dict[str, dict[str, Any]] = {
        f"lb{n}": {"ansible_host": f"192.0.2.{n}", **moves} for n in (1, 2, 3)
    }
    hosts["web1"] = {"ansible_host": "192.0.2.11"}
    groups = {"balancers": ["lb1", "lb2", "lb3"], "web": ["web1"]}
    text = rules("lb1", hosts, groups)
    assert let_in(
        "keepalived: the other balancers, which say who has the floating address", text
    ) == ["ip saddr { 192.0.2.2/31 } meta l4proto 112 accept"]
    assert checked(text).returncode == 0
    for each in hosts.values():
        each.pop("keepalived_addresses", None)
    assert "l4proto 112" not in rules("lb1", hosts, groups)
