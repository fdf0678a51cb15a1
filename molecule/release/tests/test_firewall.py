"""A fleet behind firewalls: whoever has no business on a host is refused, and the run never is."""

from __future__ import annotations

import ast
import shlex
import socket
import time
from typing import Any

import pytest
from balanced import INVENTORY, Balanced, run
from bench import Host, playbook
from shared import lost_nothing

PORTS = (22, 80, 443, 5432, 10080, 10443)
# As a host sees others, or the control node sees them.
CONNECT = """
import socket
def reached(address, port):
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex((address, port)) == 0
print({(address, port) for address in ADDRESSES for port in PORTS if reached(address, port)})
"""
RULES = "/etc/host-firewall/rules.nft"
IN_FORCE = "nft list table inet host_firewall"
# Nobody has it: TEST-NET-1 of RFC 5737.
NOBODY = "192.0.2.9"
SECONDS = 15
ON: dict[str, Any] = {"firewall_enabled": True, "firewall_revert_seconds": SECONDS}
SHUT_OUT: dict[str, Any] = {**ON, "firewall_ssh_sources": [NOBODY]}


def reached(source: Host | None, targets: list[Host]) -> dict[str, set[int]]:
    """The ports of each target that a host reaches, or this machine where there is none."""
    listed = [target.address for target in targets]
    text = CONNECT.replace("ADDRESSES", repr(listed)).replace("PORTS", repr(PORTS))
    if source:
        said = source.root(f"python3 -c {shlex.quote(text)}")
        found = ast.literal_eval(said) if said.strip() != "set()" else set()
    else:
        found = set()
        for address in listed:
            for port in PORTS:
                with socket.socket() as client:
                    client.settimeout(5)
                    if client.connect_ex((address, port)) == 0:
                        found.add((address, port))
    return {each.name: {p for a, p in found if a == each.address} for each in targets}


@pytest.fixture(scope="module")
def guarded(balanced: Balanced) -> Any:
    """The fleet with firewalls, which go again."""
    web1, web2 = balanced.members
    before = reached(balanced.balancer, [web1, web2])
    # Otherwise what is refused later would show nothing.
    assert before == {web1.name: set(PORTS), web2.name: set(PORTS) - {5432}}
    with balanced.under_load() as load:
        done = run("site", "--tags=firewall", **ON)
    assert done.returncode == 0, done.output
    lost_nothing(load)
    yield balanced
    done = run("site", "--tags=firewall", firewall_enabled=False)
    assert done.returncode == 0, done.output
    assert reached(balanced.balancer, [web1, web2]) == before


def test_only_who_has_business_gets_through(guarded: Balanced) -> None:
    web1, web2 = guarded.members
    balancer = guarded.balancer
    public = {22, 80, 443}
    through = public | {10080, 10443}
    assert reached(balancer, [web1, web2]) == {web1.name: through, web2.name: through}
    assert reached(web1, [web2, balancer]) == {web2.name: public, balancer.name: public}
    # The first has the database.
    assert reached(web2, [web1, balancer]) == {web1.name: public | {5432}, balancer.name: public}
    # They hear one another, or both would have the floating address.
    assert guarded.settled() in guarded.balancers
    everybody = [web1, web2, balancer]
    assert reached(None, everybody) == dict.fromkeys((each.name for each in everybody), public)


def test_a_second_run_has_nothing_to_do(guarded: Balanced) -> None:
    """A run of everything: the hosts, the balancer, the database and their firewalls."""
    done = run("site", **ON)
    assert done.returncode == 0, done.output
    assert done.changed == 0, done.output


def test_rules_that_lock_the_run_out_are_taken_back(guarded: Balanced) -> None:
    balancer = guarded.balancer
    before = balancer.root(f"cat {RULES}")
    done = run("site", "--limit=balancer", "--tags=firewall", **SHUT_OUT)
    assert done.returncode != 0, done.output
    said = " ".join(done.output.split())
    assert "firewall_ssh_sources or firewall_ssh_ports would lock this run out" in said
    assert (
        f"The host reverted them by itself after {SECONDS} s. The previous rules are back in force"
        in said
    )
    assert f"SSH is open to {NOBODY} on 22" in said
    assert balancer.root(f"cat {RULES}") == before
    assert NOBODY not in balancer.root(IN_FORCE)


def killed_in_the_middle(guarded: Balanced, **extra: Any) -> str:
    """The rules of a trial whose run was killed as soon as they were in force."""
    container = guarded.balancer.container
    engine = guarded.balancer.testhosts.engine
    running = playbook(INVENTORY, "site", "--limit=balancer", "--tags=firewall", **extra)
    end = time.monotonic() + 120
    while NOBODY not in (rules := engine.podman("exec", container, *IN_FORCE.split()).stdout):
        assert time.monotonic() < end, running.lines
        time.sleep(0.1)
    running.kill()
    running.wait()
    return str(rules)


def test_a_control_node_that_vanishes_leaves_no_rules_behind(guarded: Balanced) -> None:
    killed_in_the_middle(guarded, **SHUT_OUT)
    engine, container = guarded.balancer.testhosts.engine, guarded.balancer.container
    end = time.monotonic() + 4 * SECONDS
    while NOBODY in engine.podman("exec", container, *IN_FORCE.split()).stdout:
        assert time.monotonic() < end
        time.sleep(0.5)
    guarded.balancer.root("true")


def test_a_boot_knows_no_rules_that_nobody_came_in_by(guarded: Balanced) -> None:
    killed_in_the_middle(guarded, **{**SHUT_OUT, "firewall_revert_seconds": 3600})
    balancer = guarded.balancer
    balancer.testhosts.power_cut(balancer.container)
    rules = balancer.root(IN_FORCE)
    assert NOBODY not in rules
    assert "tcp dport { 80, 443 } accept" in rules
    # Before anything can come in.
    order = balancer.root("systemctl show --property=Before --value host-firewall.service").split()
    assert "network-pre.target" in order


def test_rules_of_others_stay_and_throw_away_nothing(guarded: Balanced) -> None:
    """The distribution's own service begins with `flush ruleset`."""
    balancer = guarded.balancer
    balancer.root("nft add table inet somebody; systemctl reload host-firewall")
    assert "table inet somebody" in balancer.root("nft list tables")
    for verb in ("start", "reload", "restart", "stop"):
        balancer.root(f"systemctl {verb} nftables")
        assert "policy drop" in balancer.root(IN_FORCE), verb
