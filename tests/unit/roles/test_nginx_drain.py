"""A drained host, by a running nginx: balancers are sent away, and nobody else is."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .serving import NAME, Serving, Upstream, serving
from .test_nginx import certificate, installed_version, nginx_program

__all__ = ["certificate", "installed_version", "nginx_program"]  # fixtures

BALANCER, STRANGER, SELF = "127.0.0.2", "127.0.0.3", "127.0.0.1"
# What a balancer says of the client whose request it passes on.
CLIENT = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    nginx_program: tuple[Path, Path],
    certificate: tuple[Path, Path],
    installed_version: dict[str, str],
) -> Iterator[Serving]:
    directory = tmp_path_factory.mktemp("drained")
    upstream = Upstream(directory / "app.sock", lambda _: (200, {}, "app"))
    with serving(
        directory,
        nginx_program,
        certificate,
        upstream,
        installed_version,
        {"health_paths": ["/", "/healthz", "/a b"], "maintenance_open": ["/status"]},
        nginx_trusted_proxies=[BALANCER],
        nginx_connection_life_seconds=1,
    ) as made:
        yield made
    assert not made.complaints()


@pytest.fixture
def drained(running: Serving) -> Iterator[None]:
    """It is, until the test is over."""
    flag = running.directory / "etc/nginx/drained.on"
    flag.touch()
    yield
    flag.unlink()


def test_a_balancer_that_asks_is_sent_away(running: Serving, drained: None) -> None:
    answer = running.ask("/healthz", source=BALANCER)
    assert answer.status == 503
    assert answer.headers["retry-after"]
    # As a client would ask through it.
    assert running.ask("/healthz", CLIENT, source=BALANCER).status == 503
    assert running.ask("/a%20b?full=1", source=BALANCER).status == 503


def test_the_front_page_is_the_clients_too(running: Serving, drained: None) -> None:
    """It is what is asked by default, and whoever comes through a balancer still gets it."""
    assert running.ask("/", source=BALANCER).status == 503
    assert running.ask("/", CLIENT, source=BALANCER).body == "app"
    for claim in (BALANCER, "192.0.2.7"):
        assert running.ask("/", {"X-Forwarded-For": claim}, source=STRANGER).body == "app"


def test_all_else_is_answered(running: Serving, drained: None) -> None:
    assert running.ask("/healthz", source=SELF).body == "app"
    assert running.ask("/healthz", source=STRANGER).body == "app"
    for path in ("/page", "/healthz/more", "/status"):
        assert running.ask(path, CLIENT, source=BALANCER).body == "app"


def test_without_the_file_nobody_is_sent_away(running: Serving) -> None:
    assert running.ask("/healthz", source=BALANCER).body == "app"


def test_the_proxy_protocol_tells_checks_from_clients(
    tmp_path: Path,
    nginx_program: tuple[Path, Path],
    certificate: tuple[Path, Path],
    installed_version: dict[str, str],
) -> None:
    upstream = Upstream(tmp_path / "app.sock", lambda _: (200, {}, "app"))
    # As HAProxy begins a check, and a connection that it passes on.
    signature = b"\r\n\r\n\0\r\nQUIT\n"
    check = signature + b"\x20\x00" + (0).to_bytes(2, "big")
    addresses = socket.inet_aton("192.0.2.7") + socket.inet_aton("127.0.0.9") + b"\x9c\x40\x00\x50"
    client = signature + b"\x21\x11" + len(addresses).to_bytes(2, "big") + addresses
    with serving(
        tmp_path,
        nginx_program,
        certificate,
        upstream,
        installed_version,
        {"health_paths": ["/"]},
        nginx_trusted_proxies=[BALANCER],
        nginx_proxy_protocol=True,
    ) as made:

        def status(first: bytes) -> int:
            # Every address but those at which the host asks itself.
            where, source = ("127.0.0.9", made.http), (BALANCER, 0)
            with socket.create_connection(where, 20, source_address=source) as connection:
                connection.sendall(first + f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
                answer = http.client.HTTPResponse(connection)
                answer.begin()
                return answer.status

        assert (status(check), status(client)) == (200, 200)
        (tmp_path / "etc/nginx/drained.on").touch()
        assert (status(check), status(client)) == (503, 200)


def test_a_busy_connection_ends_between_two_requests(running: Serving) -> None:
    """Or a balancer, which knows of no requests, would cut it in the middle of one."""
    connection = http.client.HTTPConnection("127.0.0.1", running.http, timeout=20)
    ended, start = False, time.monotonic()
    answers = 0
    while not ended:
        assert time.monotonic() < start + 20
        connection.request("GET", "/", headers={"Host": NAME})
        with connection.getresponse() as response:
            assert response.read() == b"app"
            ended = response.will_close
        answers += 1
        time.sleep(0.05)
    connection.close()
    # It lasts for that long, and thousands of requests would end it anyway.
    assert 10 < answers < 500
