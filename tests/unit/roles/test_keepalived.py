"""The keepalived role's configuration, and what says who has the address."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .balancing import Balancer, find_program, lay_out
from .ports import free_ports
from .preflight import Case, preflight
from .render import FAMILIES, evaluate, render
from .test_haproxy import SHOP

GOOD: dict[str, Any] = {
    "keepalived_addresses": ["192.0.2.20/24"],
    "keepalived_peers": [{"name": f"lb{n}", "address": f"192.0.2.{n}"} for n in (1, 2, 3)],
    "keepalived_name": "lb2",
    "keepalived_check": ["/usr/local/libexec/haproxy-answers"],
    "keepalived_check_user": "haproxy",
    "keepalived_unit": "haproxy.service",
}
TEMPLATES = (
    *("keepalived/keepalived.conf", "systemd/keepalived.service.d/10-role.conf"),
    *("sbin/floating-address", "libexec/keepalived-try", "libexec/keepalived-metrics"),
)
TWO_CARDS = [
    {"interface": "eth0", "network": "198.51.100.0/24"},
    {"interface": "eth0", "network": "2001:db8::/64"},
    {"interface": "eth1", "network": "192.0.2.0/24"},
]


def configuration(family: str = "Debian", **overrides: Any) -> dict[str, str]:
    told = {**GOOD, **overrides}
    return {name: render("keepalived", f"{name}.j2", family, **told) for name in TEMPLATES}


def words(text: str) -> str:
    """The configuration without its comments, in one line."""
    return " ".join(re.sub(r"#.*", "", text).split())


@pytest.mark.parametrize("family", FAMILIES)
def test_hosts_tell_one_another_and_nobody_flaps(family: str) -> None:
    said = words(configuration(family)["keepalived/keepalived.conf"])
    peers = "192.0.2.1 min_ttl 255 192.0.2.3 min_ttl 255"
    assert f"unicast_src_ip 192.0.2.2 unicast_peer {{ {peers} }}" in said
    assert "state BACKUP nopreempt interface eth0 virtual_router_id 51 priority 199" in said
    assert "virtual_ipaddress { 192.0.2.20/24 dev eth0 }" in said
    assert "enable_script_security script_user haproxy" in said
    # What does not preempt must not weigh: a master that is worth less would keep the address.
    assert "weight" not in said
    assert "auth" not in said


def test_an_address_is_on_the_card_of_its_network() -> None:
    """Balancers may tell one another over another network than their clients come from."""
    told: dict[str, Any] = {
        "keepalived_addresses": ["198.51.100.20/24", "2001:db8::20/64", "192.0.2.20/32"],
        "wsgi_host": {"networks": TWO_CARDS},
    }
    said = words(configuration(**told)["keepalived/keepalived.conf"])
    assert "interface eth1 " in said
    four = "198.51.100.20/24 dev eth0 192.0.2.20/32 dev eth1"
    assert f"virtual_ipaddress {{ {four} }}" in said
    assert "virtual_ipaddress_excluded { 2001:db8::20/64 dev eth0 }" in said
    assert "track_interface { eth0 }" in said


def test_what_comes_from_another_link_is_not_asked_for_its_way() -> None:
    """Of a peer behind a router each packet has lost a hop."""
    peers = [*GOOD["keepalived_peers"][:2], {"name": "lb3", "address": "203.0.113.3"}]
    said = words(configuration(keepalived_peers=peers)["keepalived/keepalived.conf"])
    assert "unicast_peer { 192.0.2.1 min_ttl 255 203.0.113.3 }" in said


@pytest.mark.parametrize("family", FAMILIES)
def test_systemd_accepts_the_drop_in(family: str, tmp_path: Path) -> None:
    unit = tmp_path / "keepalived.service"
    unit.write_text("[Service]\nType=notify\nExecStart=/bin/true\n")
    drop_in = tmp_path / "keepalived.service.d/10-role.conf"
    drop_in.parent.mkdir()
    text = configuration(family)["systemd/keepalived.service.d/10-role.conf"]
    drop_in.write_text(text.replace("/usr/sbin/keepalived", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    # The address goes before what serves at it stops.
    assert "After=haproxy.service" in text


TRIES = {
    # As 2.3.3 and 2.2.7 do it; the latter ends itself, whether it liked what it read or not.
    "good": ("exit 0", True),
    "bad": ("echo 'Unknown keyword' >&2; exit 5", False),
    "good, by a signal": ("kill -TERM $$", True),
    "bad, by a signal": ("echo 'Unknown keyword'; kill -TERM $$", False),
}


@pytest.mark.parametrize("name", TRIES)
def test_a_configuration_that_keepalived_refuses_is_told(name: str, tmp_path: Path) -> None:
    script, good = TRIES[name]
    program = tmp_path / "keepalived"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    text = configuration()["libexec/keepalived-try"].replace("/usr/sbin/keepalived", str(program))
    done = subprocess.run(
        ["/bin/sh", "-c", text, "try", "/etc/keepalived/keepalived.conf"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == good, done
    assert good or "Unknown keyword" in done.stderr


@pytest.fixture
def address() -> ModuleType:
    """The program floating-address, of a host whose own address is the loopback's."""
    told: dict[str, Any] = {
        "keepalived_addresses": ["127.0.0.1/8", "::1/128"],
        "wsgi_host": {"networks": [{"interface": "lo", "network": "127.0.0.0/8"}]},
    }
    module = ModuleType("floating_address")
    text = configuration(**told)["sbin/floating-address"]
    exec(compile(text, "floating-address", "exec"), module.__dict__)
    return module


def test_who_has_an_address_is_asked_of_the_kernel(address: ModuleType) -> None:
    """Not by binding to it: with `ip_nonlocal_bind`, everybody could."""
    assert address.held("127.0.0.1")
    assert not address.held("192.0.2.20")
    assert not address.held("2001:db8::20")
    # Of a longer one, or of the network, it is only a part.
    assert not address.held("127.0.0.0")
    assert not address.held("27.0.0.1")
    if Path("/proc/self/net/if_inet6").read_text():
        assert address.held("::1")


class Unit:
    """keepalived's unit, and who takes the address when it stops."""

    def __init__(self, module: Any, held: bool, taken: bool) -> None:
        self.active, self.here, self.taken, self.done = True, held, taken, []  # type: ignore[var-annotated]
        module.systemctl, module.held, module.answers = self.systemctl, self.held, self.answers
        module.ADDRESSES = ["192.0.2.20"]

    def systemctl(self, *words: str) -> str:
        self.done += [] if words[0] == "is-active" else [words[0]]
        self.active = {"stop": False, "start": True}.get(words[0], self.active)
        return "active" if self.active else "inactive"

    def held(self, address: str) -> bool:
        return self.here and self.active

    def answers(self, address: str) -> bool:
        return self.taken


@pytest.mark.parametrize(
    ("held", "taken", "anyway", "expected", "done"),
    [
        (True, True, False, "lb2 has given 192.0.2.20 away, and another host answers", ["stop"]),
        (True, False, False, "No other host answered at 192.0.2.20", ["stop", "start"]),
        (True, False, True, "lb2 has given 192.0.2.20 away, and nobody answers", ["stop"]),
        (False, False, False, "lb2 takes no part any more.", ["stop"]),
    ],
    ids=["taken", "nobody", "nobody, anyway", "another has it"],
)
def test_an_address_is_given_away_to_somebody(
    held: bool, taken: bool, anyway: bool, expected: str, done: list[str], address: ModuleType
) -> None:
    unit = Unit(address, held, taken)
    failed, changed, said = address.leave(0.3, anyway, only_said=False)
    assert expected in said
    assert unit.done == done
    assert changed
    assert failed == (done == ["stop", "start"])


def test_a_dry_run_gives_nothing_away(address: ModuleType) -> None:
    unit = Unit(address, held=True, taken=True)
    assert address.leave(1, anyway=False, only_said=True)[1]
    assert address.join(only_said=True)[:2] == (False, False)
    assert unit.done == []


def test_what_alerts_rest_on_is_told(tmp_path: Path) -> None:
    program = tmp_path / "floating-address"
    said = {"addresses": {"192.0.2.20": True, "2001:db8::20": False}}
    program.write_text(f"#!/bin/sh\necho '{json.dumps(said)}'\n")
    program.chmod(0o755)
    text = configuration()["libexec/keepalived-metrics"]
    text = text.replace("/usr/local/sbin/floating-address", str(program))
    file = tmp_path / "told" / "keepalived.prom"
    file.parent.mkdir()
    subprocess.run([sys.executable, "-IB", "-c", text, file], check=True)
    assert file.read_text() == (
        'keepalived_address_held{address="192.0.2.20"} 1\n'
        'keepalived_address_held{address="2001:db8::20"} 0\n'
    )


def asked(folder: Path) -> subprocess.CompletedProcess[str]:
    """What says whether HAProxy takes connections."""
    text = render("haproxy", "libexec/haproxy-answers.j2", "Debian")
    text = text.replace("/run/haproxy", str(folder))
    return subprocess.run(
        [sys.executable, "-ISB", "-c", text], capture_output=True, text=True, check=False
    )


def test_haproxy_that_takes_connections_is_known(tmp_path: Path) -> None:
    """The real one: what it says of itself is nobody else's to say."""
    http, https = free_ports(2)
    path = lay_out(
        tmp_path,
        {"/run/haproxy": str(tmp_path)},
        haproxy_sites=[SHOP],
        haproxy_http_port=http,
        haproxy_https_port=https,
        haproxy_metrics_address="",
        haproxy_verify=False,
    )
    balancer = Balancer.start(find_program(), path)
    try:
        done = asked(tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        balancer.stop()
    done = asked(tmp_path)
    assert done.returncode == 1
    assert "HAProxy does not answer at" in done.stderr


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("# pxname,svname,status\nhttp,FRONTEND,OPEN\nhttps,FRONTEND,STOP\n", "listen for https."),
        ("# pxname,svname,status\n", "listen for https and http."),
    ],
)
def test_haproxy_that_stops_is_known(said: str, expected: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "admin.sock"))
        server.listen()

        def answer() -> None:
            client, _ = server.accept()
            client.recv(100)
            client.sendall(said.encode())
            client.close()

        threading.Thread(target=answer, daemon=True).start()
        done = asked(tmp_path)
    assert done.returncode == 1
    assert expected in done.stderr


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "nothing": ({"keepalived_addresses": []}, {}, "keepalived_addresses is empty"),
    "no prefix": (
        {"keepalived_addresses": ["192.0.2.20"]},
        {},
        'keepalived_addresses[0] is "192.0.2.20", which has no prefix, the length of its network',
    ),
    "an end of the network": (
        {"keepalived_addresses": ["192.0.2.255/24"]},
        {},
        "is an end of the network 192.0.2.0/24",
    ),
    "twice": (
        {"keepalived_addresses": ["192.0.2.20/24", "192.0.2.20/32"]},
        {},
        "keepalived_addresses has an address twice",
    ),
    "in no network": (
        {"keepalived_addresses": ["203.0.113.20/24"]},
        {},
        "has 203.0.113.20/24, which is in no network of lb2 (192.0.2.0/24, 2001:db8::/64)",
    ),
    "a host's own": (
        {"keepalived_addresses": ["192.0.2.3/24"]},
        {},
        "keepalived_addresses has 192.0.2.3, which belongs to a host",
    ),
    "no number": (
        {"keepalived_router_id": 256},
        {},
        "keepalived_router_id is 256, which is more than 255",
    ),
    "a number that is not one": ({"keepalived_router_id": 0}, {}, "use 1 to 255"),
    "alone": (
        {"keepalived_peers": GOOD["keepalived_peers"][1:2]},
        {},
        "keepalived_peers has lb2, and an address that moves needs two hosts or more",
    ),
    "not among them": (
        {"keepalived_name": "lb9"},
        {},
        "is none of keepalived_peers, lb1, lb2, lb3",
    ),
    "of two kinds": (
        {"keepalived_peers": [*GOOD["keepalived_peers"], {"name": "x", "address": "2001:db8::9"}]},
        {},
        "keepalived_peers has addresses of IPv4 and of IPv6",
    ),
    "of the other kind": (
        {"keepalived_addresses": ["2001:db8::20/64"]},
        {},
        "keepalived_addresses has no address of IPv4, by which these hosts know one another",
    ),
    "behind a translation": (
        {"keepalived_peers": [{"name": f"lb{n}", "address": f"203.0.113.{n}"} for n in (1, 2)]},
        {},
        "says that lb2 has 203.0.113.2, which is in none of its networks",
    ),
    "no program": (
        {"keepalived_check": ["true"]},
        {},
        "does not start with a program's whole path",
    ),
    "as root": ({"keepalived_check_user": "root"}, {}, 'keepalived_check_user ("root") is root'),
    "somebody else's": (
        {},
        {
            "packages": {"keepalived": "2.3.3"},
            "units": {"keepalived.service": {"active": True, "enabled": True, "state": "active"}},
        },
        "keepalived_take_over (false) does not allow replacing",
    ),
}


def test_bad_values_are_refused_with_a_remedy() -> None:
    cases = {name: Case({**GOOD, **told}, host) for name, (told, host, _) in REFUSED.items()}
    found = preflight("keepalived", {"good": Case(GOOD), **cases})
    assert found.pop("good") == ""
    wrong = [said for name, said in found.items() if REFUSED[name][2] not in said]
    assert wrong == []


def test_the_first_of_those_that_start_together_gets_the_address() -> None:
    found = [
        evaluate(
            "keepalived", "__keepalived_priority", "Debian", **{**GOOD, "keepalived_name": name}
        )
        for name in ("lb1", "lb2", "lb3")
    ]
    assert found == [200, 199, 198]
