"""What clients meet at the balancer: the real HAProxy with the role's configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .balancing import (
    Balancer,
    Client,
    Host,
    Program,
    certified,
    find_program,
    hello,
    lay_out,
    until,
)
from .ports import free_ports
from .render import render

# Python's ssl drops a socket whose client went before the handshake, and calls it unclosed.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")

SHOP, BLOG = "shop.example.org", "blog.example.org"
SHARE = 8  # connections of one address


@dataclasses.dataclass
class Fleet:
    """A balancer, two hosts of the site shop and one of the site blog."""

    balancer: Balancer
    web1: Host
    web2: Host
    blog: Host
    https: int
    http: int
    metrics: int

    def client(self, name: str = SHOP, source: str = "127.0.0.1") -> Client:
        return Client(self.https, name, source)

    def hosts(self, times: int = 6) -> set[str]:
        """Who answers new connections."""
        said = set()
        for _ in range(times):
            with self.client() as client:
                said.add(client.ask("/", SHOP).split()[0])
        return said


@pytest.fixture(scope="session")
def haproxy_program() -> Program:
    return find_program()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, haproxy_program: Program) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("balancer")
    https, http, metrics, server_https, server_http = free_ports(5)
    ca_file, tls = certified(folder, SHOP, BLOG, "any.example.org")
    hosts = [Host(f"127.0.0.{i}", {server_https: tls, server_http: None}) for i in (11, 12, 13)]
    web1, web2, blog = hosts
    for host in hosts:
        host.listen()
    variables: dict[str, Any] = {
        "haproxy_sites": [
            {
                "name": "shop",
                "domains": [SHOP, "*.shop.example.org"],
                "health_path": "/readyz",
                "servers": [
                    {"name": "web1", "address": web1.address},
                    {"name": "web2", "address": web2.address},
                ],
            },
            {
                "name": "blog",
                "domains": ["Blog.example.org", "*.a.shop.example.org"],
                "health_path": "/readyz",
                "servers": [{"name": "web3", "address": blog.address}],
            },
        ],
        "haproxy_https_port": https,
        "haproxy_http_port": http,
        "haproxy_server_https_port": server_https,
        "haproxy_server_http_port": server_http,
        "haproxy_metrics_address": f"127.0.0.1:{metrics}",
        "haproxy_ca_file": str(ca_file),
        "haproxy_ipv6": False,
        "haproxy_name_timeout_seconds": 1,
        "haproxy_max_connections": 200,
        "haproxy_max_connections_per_address": SHARE,
    }
    # The role counts in seconds; the tests need not.
    changes = {"/run/haproxy": str(folder), "inter 2s": "inter 100ms"}
    balancer = Balancer.start(haproxy_program, lay_out(folder, changes, **variables))
    yield Fleet(balancer, web1, web2, blog, https, http, metrics)
    balancer.stop()
    for host in hosts:
        host.stop_listening()


@pytest.fixture
def fleet(running: Fleet) -> Fleet:
    """All of it, healthy, and without what the test before has left."""
    for host in (running.web1, running.web2, running.blog):
        host.status = 200
        host.let_go.clear()
        if not host.listening:
            host.listen()
    for server in ("shop:https/web1", "shop:https/web2", "blog:https/web3"):
        running.balancer.wait_for(server, "UP")
    for host in (running.web1, running.web2, running.blog):
        host.requests.clear()
    until(
        lambda: all(host.checks for host in (running.web1, running.web2, running.blog)),
        "each host was checked",
    )
    return running


def test_a_name_leads_to_its_site_and_the_clients_address_arrives(fleet: Fleet) -> None:
    assert fleet.hosts() == {fleet.web1.address, fleet.web2.address}
    leads = {
        SHOP: "shop",
        SHOP.upper(): "shop",
        "x.shop.example.org": "shop",
        "x.y.shop.example.org": "shop",
        BLOG: "blog",
        "x.a.shop.example.org": "blog",
    }
    for number, (name, site) in enumerate(leads.items(), 21):
        source = f"127.0.0.{number}"
        with fleet.client(name, source) as client:
            answered = client.ask("/", name)
        mine = [fleet.blog] if site == "blog" else [fleet.web1, fleet.web2]
        host = next(host for host in mine if answered == f"{host.address} 200")
        assert host.requests[-1] == (source, "GET", "/")
        line = fleet.balancer.logged(client=source)
        assert line["name"] == name.lower()
        assert line["site"] == site
        assert line["entry"] == "https"
        assert line["server_bytes"] > 0
    for host in (fleet.web1, fleet.web2):
        assert set(host.checks) == {SHOP}, "asked by the first name"
    assert set(fleet.blog.checks) == {BLOG}


def test_plain_http_is_led_by_host_and_passes_as_it_is(fleet: Fleet) -> None:
    for number, (host, expected) in enumerate(
        {SHOP: 2, f"{SHOP}:80": 2, "BLOG.example.org": 1}.items(), 31
    ):
        with Client(fleet.http, source=f"127.0.0.{number}") as client:
            # What a proxy that understands HTTP would change: the case of names, odd blanks.
            head = f"GET /p HTTP/1.1\r\nx-CaSe: 1\r\nHost:   {host}\r\n\r\n".encode()
            client.connection.sendall(head[:20])
            client.connection.sendall(head[20:])
            assert client.answer()
        mine = [fleet.blog] if expected == 1 else [fleet.web1, fleet.web2]
        assert (f"127.0.0.{number}", "GET", "/p") in [r for each in mine for r in each.requests]


@pytest.mark.parametrize("name", ["other.example.org", "example.org", "shop.example.org.evil", ""])
def test_who_names_no_site_gets_not_one_byte(fleet: Fleet, name: str) -> None:
    host = f"Host: {name}\r\n" if name else ""
    asked = {fleet.https: hello(name), fleet.http: f"GET / HTTP/1.1\r\n{host}\r\n".encode()}
    for port, said in asked.items():
        with Client(port) as client:
            client.connection.sendall(said)
            assert client.ending() == b""
    assert not [*fleet.web1.requests, *fleet.web2.requests, *fleet.blog.requests]


def test_a_name_that_does_not_come_is_not_waited_for(fleet: Fleet) -> None:
    """Silence and half of a request, and what is neither TLS nor HTTP."""
    said = [b"", b"SSH-2.0-x\r\n", hello(SHOP)[:40], f"GET / HTTP/1.1\r\nHost: {SHOP}".encode()]
    clients = [Client(port) for port in (fleet.https, fleet.http) for _ in said]
    for client, words in zip(clients, said * 2, strict=True):
        client.connection.sendall(words)
    for client in clients:
        with client:
            assert client.ending() == b""
    assert not [*fleet.web1.requests, *fleet.web2.requests]


def test_what_a_client_says_cannot_forge_the_log(fleet: Fleet) -> None:
    for name in (b'x","site":"shop","a":"\\', b'a"\xff\xc3b', b"a\x01b"):
        with Client(fleet.http, source="127.0.0.51") as client:
            client.connection.sendall(b"GET / HTTP/1.1\r\nHost: " + name + b"\r\n\r\n")
            client.ending()
    with Client(fleet.http, source="127.0.0.52") as client:
        assert client.ask("/", SHOP)
    assert fleet.balancer.logged(client="127.0.0.52")["site"] == "shop"
    forged = [line for line in fleet.balancer.log() if line["client"] == "127.0.0.51"]
    assert len(forged) == 3
    assert {line["site"] for line in forged} == {"-"}


def test_a_host_that_fails_its_check_keeps_what_it_has(fleet: Fleet) -> None:
    """It is being drained, or its database is away: a cut connection would help nobody."""
    kept: dict[str, Client] = {}
    while len(kept) < 2:
        client = fleet.client()
        kept[client.ask("/", SHOP).split()[0]] = client
    busy = kept[fleet.web1.address]
    fleet.web1.status = 503
    fleet.balancer.wait_for("shop:https/web1", "DOWN")
    fleet.balancer.wait_for("shop:http/web1", "DOWN")
    assert fleet.hosts() == {fleet.web2.address}
    assert busy.ask("/again", SHOP) == f"{fleet.web1.address} 503"
    fleet.web1.status = 200
    fleet.balancer.wait_for("shop:https/web1", "UP")
    assert fleet.hosts() == {fleet.web1.address, fleet.web2.address}
    assert busy.ask("/again", SHOP) == f"{fleet.web1.address} 200"
    for client in kept.values():
        client.connection.close()


def test_where_all_fail_the_hosts_say_so_themselves(fleet: Fleet) -> None:
    """Their page with Retry-After is worth more to a client than a closed connection."""
    for number, host in enumerate((fleet.web1, fleet.web2), 1):
        host.status = 503
        fleet.balancer.wait_for(f"shop:https/web{number}", "DOWN")
    with fleet.client() as client:
        assert client.ask("/", SHOP).endswith(" 503")
    with Client(fleet.http) as client:
        assert client.ask("/", SHOP).endswith(" 503")
    # One that is gone besides does not cost a client its connection.
    fleet.web1.stop_listening()
    assert fleet.hosts() == {fleet.web2.address}
    assert fleet.balancer.states()["blog:https/web3"].startswith("UP")


def test_a_host_that_refuses_costs_no_client_anything(fleet: Fleet) -> None:
    """Before any check has noticed: nothing was sent yet, so another host is tried."""
    fleet.web1.stop_listening()
    assert fleet.hosts(4) == {fleet.web2.address}
    assert all(line["server"] != "web1" or line["server_bytes"] for line in fleet.balancer.log())


def test_a_request_is_never_sent_twice(fleet: Fleet) -> None:
    """A POST whose host dies in the middle may have been done; only its sender can decide."""
    for _ in range(4):
        with fleet.client() as client:
            client.send("/die", SHOP, "POST", b"pay 5")
            with contextlib.suppress(ssl.SSLError):
                assert client.ending() == b""
    assert len([*fleet.web1.requests, *fleet.web2.requests]) == 4


def test_a_reload_cuts_nothing_and_refuses_nobody(fleet: Fleet) -> None:
    before = fleet.client()
    host = before.ask("/", SHOP).split()[0]
    before.send("/wait", SHOP)
    fleet.balancer.reload()
    assert len(fleet.hosts()) == 2
    for each in (fleet.web1, fleet.web2):
        each.let_go.set()
    assert before.answer().split()[0] == host
    assert before.ask("/after", SHOP).split()[0] == host
    before.connection.close()


def test_an_address_has_its_share_of_connections(fleet: Fleet) -> None:
    """Other addresses do not notice, and what is closed counts no longer."""
    with contextlib.ExitStack() as held:
        for _ in range(SHARE):
            held.enter_context(fleet.client(source="127.0.0.41"))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            fleet.client(source="127.0.0.41")
        with fleet.client(source="127.0.0.42") as other:
            assert other.ask("/", SHOP)
    with fleet.client(source="127.0.0.42") as again:
        assert again.ask("/", SHOP)


def test_prometheus_learns_how_the_hosts_are(fleet: Fleet) -> None:
    url = f"http://127.0.0.1:{fleet.metrics}"
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    assert 'haproxy_server_status{proxy="shop:https",server="web1",state="UP"} 1' in text
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/")
    assert refused.value.code == 404
    refused.value.close()
    assert (fleet.balancer.configuration.parent / "admin.sock").stat().st_mode & 0o777 == 0o600


# haproxy-servers ----------------------------------------------------------------------------------


def asked(fleet: Fleet, name: str, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    """A program of the host: its exit status, what it says to people and to programs."""
    code, words = said(fleet, name, *arguments)
    again, told = said(fleet, name, *arguments, "--json")
    assert code == again
    return code, words, json.loads(told)


def said(fleet: Fleet, name: str, *arguments: str) -> tuple[int, str]:
    """What one of the host's programs prints."""
    folder = fleet.balancer.configuration.parent
    ports = {"haproxy_https_port": fleet.https, "haproxy_http_port": fleet.http}
    text = render("haproxy", f"sbin/{name}.j2", "Debian", haproxy_sites=[], **ports)
    program = folder / name
    program.write_text(text.replace("/run/haproxy", str(folder)))
    argv = [sys.executable, str(program), *arguments]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def servers(fleet: Fleet, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    return asked(fleet, "haproxy-servers", *arguments)


def test_who_serves_what_is_a_table(fleet: Fleet) -> None:
    code, words, answer = servers(fleet)
    assert code == 0
    assert [line.split()[:3] for line in words.splitlines()] == [
        ["SITE", "SERVER", "STATE"],
        ["shop", "web1", "UP"],
        ["shop", "web2", "UP"],
        ["blog", "web3", "UP"],
    ]
    assert answer["changed"] is False
    assert answer["sites"]["shop"]["web1"]["check"].startswith("L7OK")


def test_a_host_that_goes_is_waited_for(fleet: Fleet) -> None:
    code, words, _ = servers(fleet, "--server", "web1", "--until", "down", "--seconds", "0.1")
    assert (code, words.split(":")[0]) == (1, "web1 is not down for shop after 0.1 s")
    fleet.web1.status = 503
    code, words, _ = servers(fleet, "--server", "web1", "--until", "down")
    assert (code, words.strip()) == (0, "web1 is down for shop.")
    # One that is on its way up gets nothing yet.
    code, words, _ = servers(fleet, "--server", "web1", "--until", "up", "--seconds", "0.1")
    assert code == 1
    assert "last check L7STS" in words
    fleet.web1.status = 200
    code, _, _ = servers(fleet, "--server", "web1", "--until", "up")
    assert code == 0


def test_a_check_that_is_under_way_is_no_check_that_has_ended() -> None:
    """HAProxy marks it with a star. After its start every host is up until it has been asked."""
    row = "shop:https,web1,UP,{},,0\n"
    heads = "# pxname,svname,status,check_status,last_chk,scur\n"

    program: dict[str, Any] = {"__name__": "haproxy_servers"}
    text = render("haproxy", "sbin/haproxy-servers.j2", "Debian", haproxy_sites=[])
    exec(text.removesuffix("sys.exit(main())\n"), program)
    assert program["SOCKET"] == "/run/haproxy/admin.sock"
    for status, well in (("* INI", False), ("INI", False), ("* L7OK", True), ("L7OK", True)):
        program["command"] = {"show stat": heads + row.format(status)}.__getitem__
        web1 = program["look"]()["shop"]["web1"]
        assert (web1["check"], program["is_well"](web1)) == (status.removeprefix("* "), well)


def test_whether_others_serve_as_well(fleet: Fleet) -> None:
    assert servers(fleet, "--server", "web1", "--spare")[0] == 0
    code, words, answer = servers(fleet, "--server", "web3", "--spare")
    assert code == 1
    assert words.startswith("Without web3 nobody serves blog: no other host of it is up.")
    assert answer["failed"] is True
    fleet.web2.status = 503
    fleet.balancer.wait_for("shop:https/web2", "DOWN")
    assert servers(fleet, "--server", "web1", "--spare")[0] == 1


def test_a_name_that_is_no_servers_is_said(fleet: Fleet) -> None:
    assert servers(fleet, "--server", "web9", "--until", "up")[1] == "No site has a server web9.\n"


# haproxy-clients ----------------------------------------------------------------------------------


def test_clients_are_left_to_other_balancers_without_cutting_one(fleet: Fleet) -> None:
    """Processes from before a reload have clients as well."""
    busy = fleet.client()
    busy.send("/wait", SHOP)
    fleet.balancer.reload()
    code, told, answer = asked(fleet, "haproxy-clients")
    assert (code, told) == (0, "It takes new connections, and 1 connection is open.\n")
    assert (answer["taking"], answer["open"], answer["changed"]) == (True, 1, False)
    assert json.loads(said(fleet, "haproxy-clients", "leave", "--check", "--json")[1])["changed"]
    assert fleet.hosts()
    assert json.loads(said(fleet, "haproxy-clients", "leave", "--json")[1])["changed"]
    for port in (fleet.https, fleet.http):
        with pytest.raises(ConnectionRefusedError):
            Client(port)
    assert not asked(fleet, "haproxy-clients", "leave")[2]["changed"]
    _, told, answer = asked(fleet, "haproxy-clients", "wait", "--seconds", "0.3")
    assert told == "It takes no new connections, and after 0.3 s 1 connection is still open.\n"
    assert (answer["taking"], answer["open"]) == (False, 1)
    for host in (fleet.web1, fleet.web2):
        host.let_go.set()
    assert busy.answer().endswith(" 200")
    busy.connection.close()
    _, told, answer = asked(fleet, "haproxy-clients", "wait")
    assert told == "It takes no new connections, and no connections are open.\n"
    assert json.loads(said(fleet, "haproxy-clients", "join", "--json")[1])["changed"]
    assert not asked(fleet, "haproxy-clients", "join")[2]["changed"]
    assert fleet.hosts() == {fleet.web1.address, fleet.web2.address}


def test_a_balancer_that_is_down_takes_no_clients(fleet: Fleet) -> None:
    text = render("haproxy", "sbin/haproxy-clients.j2", "Debian", haproxy_sites=[])
    program = fleet.balancer.configuration.with_name("haproxy-clients-elsewhere")
    program.write_text(text.replace("/run/haproxy", "/nowhere"))
    argv = [sys.executable, str(program), "leave"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "HAProxy does not answer at /nowhere/admin.sock: No such file or directory. "
        "Is it up? systemctl status haproxy\n"
    )


def numbers(fleet: Fleet, file: Path, address: str = "") -> dict[str, float]:
    """What alerts know of it, as `haproxy-metrics` writes it."""
    told = {"haproxy_metrics_address": address or f"127.0.0.1:{fleet.metrics}"}
    program = render("haproxy", "libexec/haproxy-metrics.j2", "Debian", **told)
    subprocess.run(
        [sys.executable, "-IB", "-c", program, file], check=True, stderr=subprocess.DEVNULL
    )
    assert file.stat().st_mode & 0o777 == 0o644
    assert os.listdir(file.parent) == [file.name]
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_what_alerts_rest_on_is_told(fleet: Fleet, tmp_path: Path) -> None:
    fleet.web2.status = 503
    fleet.balancer.wait_for("shop:https/web2", "DOWN")
    found = numbers(fleet, tmp_path / "haproxy.prom")
    assert found["haproxy_up"] == 1
    up = {
        name: value
        for name, value in found.items()
        if name.startswith("haproxy_server_status") and 'state="UP"' in name and ":https" in name
    }
    # Those without a check, for the case that all fail, would be up whatever happens.
    assert up == {
        'haproxy_server_status{proxy="shop:https",server="web1",state="UP"}': 1,
        'haproxy_server_status{proxy="shop:https",server="web2",state="UP"}': 0,
        'haproxy_server_status{proxy="blog:https",server="web3",state="UP"}': 1,
    }
    with fleet.client() as client:
        client.ask("/", SHOP)
        found = numbers(fleet, tmp_path / "haproxy.prom")
    assert found['haproxy_server_current_sessions{proxy="shop:https",server="web1"}'] == 1
    assert found["haproxy_process_current_connections"] >= 2
    assert found["haproxy_process_max_connections"] == 200


def test_a_balancer_that_does_not_answer_is_told(fleet: Fleet, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    assert numbers(fleet, tmp_path / "haproxy.prom", f"127.0.0.1:{port}") == {"haproxy_up": 0}
