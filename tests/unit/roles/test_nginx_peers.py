"""Challenges on several hosts of one name, by three running nginx with the role's configuration."""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from .ports import free_port
from .test_nginx import SITE, certificate, configuration, installed_version, lay_out, nginx_program

__all__ = ["certificate", "installed_version", "lay_out", "nginx_program"]  # fixtures

NAME = SITE["domains"][0]
PATH = "/.well-known/acme-challenge/"
# 128 bits at least, in the alphabet of base64url (RFC 8555, 8.1).
TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"


@dataclass
class Peer:
    """nginx of one host."""

    directory: Path
    port: int
    tls_port: int
    process: subprocess.Popen[str] | None = None

    def ask(
        self,
        path: str = PATH + TOKEN,
        *,
        host: str = NAME,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: str | None = None,
    ) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Host": host, **(headers or {})})
            return read(connection.getresponse())

    def ask_over_tls(self, path: str = PATH + TOKEN) -> tuple[int, str]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        raw = socket.create_connection(("127.0.0.1", self.tls_port), 20)
        with context.wrap_socket(raw, server_hostname=NAME) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
            response = HTTPResponse(connection)
            response.begin()
            return read(response)

    def answer(self, text: str) -> None:
        """Put an answer where certbot would."""
        folder = self.directory / "challenges" / PATH.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TOKEN).write_text(text)

    def asked(self) -> list[dict[str, Any]]:
        """The requests that came, by the log, which nginx writes after it has answered."""
        log = self.directory / "log" / "access.log"
        return [json.loads(line) for line in log.read_text().splitlines()]

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.communicate()


def read(response: HTTPResponse) -> tuple[int, str]:
    return response.status, response.read().decode()


def start(peer: Peer, program: Path) -> None:
    path = peer.directory / "etc/nginx/nginx.conf"
    peer.process = subprocess.Popen(
        [program, "-p", path.parent, "-c", path, "-g", "daemon off;"],
        stderr=subprocess.PIPE,
        text=True,
    )
    while True:
        try:
            socket.create_connection(("127.0.0.1", peer.port), 5).close()
            return
        except ConnectionRefusedError:
            assert peer.process.poll() is None, peer.process.stderr and peer.process.stderr.read()
            time.sleep(0.02)


@pytest.fixture
def fleet(
    tmp_path: Path,
    lay_out: Callable[..., Path],
    nginx_program: tuple[Path, Path],
    installed_version: dict[str, str],
) -> Iterator[Callable[..., list[Peer]]]:
    """Starts hosts that have each other for peers, and further peers that somebody else runs."""
    started: list[Peer] = []

    def make(number: int, *others: int) -> list[Peer]:
        peers = [Peer(tmp_path / f"host{n}", free_port(), free_port()) for n in range(number)]
        for peer in peers:
            ports = [each.port for each in peers if each is not peer] + list(others)
            laid = lay_out(
                configuration(
                    "Debian",
                    nginx_sites=[{**SITE, "static": []}],
                    nginx_http_port=peer.port,
                    nginx_https_port=peer.tls_port,
                    nginx_ipv6=False,
                    nginx_worker_processes="1",
                    nginx_worker_connections=64,
                    nginx_open_files=256,
                    nginx_challenge_directory=str(peer.directory / "challenges"),
                    nginx_challenge_peers=[f"127.0.0.1:{port}" for port in ports],
                    wsgi_host={"packages": installed_version},
                )
            )
            shutil.copytree(laid.parent, peer.directory / "etc/nginx")
            (peer.directory / "log").mkdir()
            for path in (peer.directory / "etc/nginx").rglob("*.conf"):
                text = path.read_text()
                text = text.replace(str(tmp_path / "log"), str(peer.directory / "log"))
                path.write_text(text.replace(str(tmp_path / "nginx.pid"), f"{peer.directory}/pid"))
            started.append(peer)
            start(peer, nginx_program[0])
        return peers

    yield make
    for peer in started:
        peer.stop()


def test_every_host_answers_for_the_one_that_obtains(fleet: Callable[..., list[Peer]]) -> None:
    """An authority asks any one of the name's hosts, and a CDN may lead it to HTTPS."""
    peers = fleet(3)
    for which, peer in enumerate(peers):
        peer.answer(f"answer {which}")
        for other in peers:
            assert other.ask() == (200, f"answer {which}")
            assert other.ask(host="a-new-name.example.org") == (200, f"answer {which}")
            assert other.ask_over_tls() == (200, f"answer {which}")
        shutil.rmtree(peer.directory / "challenges")


def test_each_host_is_asked_once_for_what_nobody_has(fleet: Callable[..., list[Peer]]) -> None:
    """Two hosts that ask each other for ever would take both down."""
    peers = fleet(3)
    assert peers[0].ask()[0] == 404
    for peer in peers:
        peer.stop()
    assert [len(peer.asked()) for peer in peers] == [1, 1, 1]
    assert [each["status"] for peer in peers for each in peer.asked()] == [404, 404, 404]


def test_who_has_asked_already_is_not_helped_further(fleet: Callable[..., list[Peer]]) -> None:
    peers = fleet(2)
    peers[1].answer("answer")
    assert peers[0].ask(headers={"X-Challenge-Peer": "1"})[0] == 404
    assert peers[1].ask(headers={"X-Challenge-Peer": "1"}) == (200, "answer")


def test_hosts_that_are_down_do_not_count(fleet: Callable[..., list[Peer]]) -> None:
    """A certificate is renewed while one of the hosts is away, and its name still leads there."""
    peers = fleet(2, free_port(), free_port())
    peers[1].answer("answer")
    for _ in range(4):
        assert peers[0].ask() == (200, "answer")
    peers[1].stop()
    assert peers[0].ask()[0] == 404


class Recorder(http.server.BaseHTTPRequestHandler):
    """A peer that keeps what comes."""

    came: list[tuple[str, str, dict[str, str], bytes]]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.came.append((self.command, self.path, dict(self.headers), body))
        self.send_response(200)
        self.send_header("Content-Length", "8")
        self.end_headers()
        self.wfile.write(b"recorded")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def recorder() -> Iterator[http.server.ThreadingHTTPServer]:
    handler = type("Handler", (Recorder,), {"came": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        PATH,
        f"{PATH}../../metrics",
        f"{PATH}..%2f..%2fmetrics",
        f"{PATH}{TOKEN}/more",
        f"{PATH}{TOKEN}?a=b",
        f"{PATH}a%20b",
        f"{PATH}http://198.51.100.7/",
    ],
)
def test_only_challenges_are_fetched(
    fleet: Callable[..., list[Peer]], recorder: http.server.ThreadingHTTPServer, path: str
) -> None:
    """It is no proxy: what else there is on the others can only be asked of them."""
    (peer,) = fleet(1, recorder.server_port)
    status, body = peer.ask(path)
    assert status in (301, 400, 403, 404)
    assert "recorded" not in body
    assert recorder.RequestHandlerClass.came == []  # type: ignore[attr-defined]


def test_nothing_of_the_client_goes_on(
    fleet: Callable[..., list[Peer]], recorder: http.server.ThreadingHTTPServer
) -> None:
    (peer,) = fleet(1, recorder.server_port)
    client = {
        "Cookie": "session=secret",
        "Authorization": "Basic c2VjcmV0",
        "X-Forwarded-For": "::",
    }
    for method in ("GET", "POST"):
        assert peer.ask(method=method, headers=client, body="secret=1") == (200, "recorded")
    came = recorder.RequestHandlerClass.came  # type: ignore[attr-defined]
    assert [each[:2] for each in came] == [("GET", PATH + TOKEN)] * 2
    for _, _, headers, body in came:
        assert headers == {"Host": NAME, "X-Challenge-Peer": "1", "Connection": "close"}
        assert body == b""
