"""`wsgi.host.certificate`: the probe sees what would fail at the authority."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.certificates import (
    probing,
)
from certifying import DOMAINS, REFUSED, Host, write_pair


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


class Server(http.server.ThreadingHTTPServer):
    """Serves the challenge directory, or what a test says."""

    def __init__(self, answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> None:
        self.hosts: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.server.hosts.append(self.headers["Host"])  # type: ignore[attr-defined]
                answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


def reply(
    handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def serve(monkeypatch: Any) -> Iterator[Callable[..., Server]]:
    """Starts a web server that every name leads to."""
    servers = []

    def start(answer: Any, addresses: list[str] | None = None) -> Server:
        server = Server(answer)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(probing, "HTTP_PORT", server.server_address[1])
        monkeypatch.setattr(probing, "resolve", lambda domain: addresses or ["127.0.0.1"])
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def from_directory(host: Host) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        path = host.challenges / handler.path.lstrip("/")
        reply(handler, 200, path.read_bytes()) if path.exists() else reply(handler, 404)

    return answer


def test_a_reachable_challenge_is_obtained(host: Host, serve: Callable[..., Server]) -> None:
    server = serve(from_directory(host))
    host.issue()
    assert not host.run(probe=True)["failures"]
    assert server.hosts == DOMAINS
    assert list((host.challenges / ".well-known/acme-challenge").iterdir()) == []


def test_a_redirect_is_followed(host: Host, serve: Callable[..., Server]) -> None:
    """The authority follows them; a site that redirects all of HTTP is common."""
    inner = from_directory(host)

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/.well-known"):
            where = f"http://127.0.0.1:{probing.HTTP_PORT}/moved{handler.path}"
            reply(handler, 301, Location=where)
        else:
            handler.path = handler.path.removeprefix("/moved")
            inner(handler)

    serve(answer)
    host.issue()
    assert not host.run(probe=True)["failures"]


def test_a_redirect_to_https_keeps_the_name(
    host: Host, serve: Callable[..., Server], tmp_path: Path
) -> None:
    """A server that refuses unknown names in the TLS handshake answers the authority."""
    pair = tmp_path / "pair"
    write_pair(pair, DOMAINS)
    seen: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair / "fullchain.pem", pair / "privkey.pem")
    context.sni_callback = lambda sock, name, context: seen.append(name)
    secure = Server(from_directory(host))
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    threading.Thread(target=secure.serve_forever, args=(0.02,), daemon=True).start()

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        where = f"https://{handler.headers['Host']}:{secure.server_address[1]}{handler.path}"
        reply(handler, 308, Location=where)

    serve(answer)
    host.issue()
    assert not host.run(probe=True)["failures"]
    assert seen == DOMAINS
    secure.shutdown()
    secure.server_close()


def test_a_redirect_to_nowhere_names_the_place(host: Host, serve: Callable[..., Server]) -> None:
    serve(lambda handler: reply(handler, 301, Location="http://nowhere.invalid/"))
    failure = host.run(probe=True)["failures"]["shop"]
    assert "127.0.0.1 (redirected to http://nowhere.invalid/: " in failure


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda handler: reply(handler, 404), "127.0.0.1 answered 404 instead of the challenge"),
        (
            lambda handler: reply(handler, 200, b"<html>parked</html>"),
            "127.0.0.1 answered 200 with another content",
        ),
        (
            lambda handler: reply(handler, 302, Location=handler.path),
            "no answer on port 80 from 127.0.0.1 (more than 10 redirects)",
        ),
    ],
    ids=["404", "another page", "loop"],
)
def test_no_authorisation_is_spent_on_a_mistake(
    host: Host, serve: Callable[..., Server], answer: Any, found: str
) -> None:
    """Five failures per name and hour, then one is locked out."""
    serve(answer)
    host.prepare()
    failure = host.run(probe=True)["failures"]["shop"]
    assert f"shop.example.org: {found}" in failure
    assert f"www.shop.example.org: {found}" in failure
    assert failure.endswith("The authority was not asked.")
    assert failure.count("record points to") == 1
    assert host.asked() == []
    assert host.reloaded() == 0


def test_one_address_that_serves_something_else_is_enough(
    host: Host, serve: Callable[..., Server], monkeypatch: Any
) -> None:
    """A forgotten AAAA record: the authority asks it first."""
    serve(from_directory(host), ["127.0.0.1", "127.0.0.2"])
    real = probing.fetch

    def fetch(address: str, domain: str, path: str) -> probing.Answer:
        if address == "127.0.0.2":
            return probing.Answer(200, "other", b"parked", f"http://{domain}{path}")
        return real(address, domain, path)

    monkeypatch.setattr(probing, "fetch", fetch)
    assert "127.0.0.2 answered 200" in host.run(probe=True)["failures"]["shop"]


def test_an_address_that_does_not_answer_is_not(
    host: Host, serve: Callable[..., Server], monkeypatch: Any
) -> None:
    """A host without IPv6 cannot reach its own AAAA record; the authority falls back too."""
    serve(from_directory(host), ["2001:db8::1", "127.0.0.1"])
    real = probing.fetch

    def fetch(address: str, domain: str, path: str) -> probing.Answer:
        if ":" in address:
            raise probing.NoAnswerError("Network is unreachable")
        return real(address, domain, path)

    monkeypatch.setattr(probing, "fetch", fetch)
    host.issue()
    assert not host.run(probe=True)["failures"]


def test_a_name_without_an_address_is_said(host: Host) -> None:
    """RFC 6761: nothing below .invalid resolves."""
    failure = host.run(("shop", ["shop.invalid"]), probe=True)["failures"]["shop"]
    assert failure.startswith("shop.invalid has no address (")
    assert "A or AAAA record" in failure


def test_a_closed_port_is_said(host: Host, serve: Callable[..., Server]) -> None:
    server = serve(from_directory(host))
    server.shutdown()
    server.server_close()
    failure = host.run(probe=True)["failures"]["shop"]
    assert "no answer on port 80 from 127.0.0.1 (Connection refused)" in failure
    assert "certbot_probe: false" in failure


def test_a_probe_of_the_loopback_proves_little(host: Host, serve: Callable[..., Server]) -> None:
    """Debian writes the host's own name into /etc/hosts."""
    serve(from_directory(host))
    host.certbot(1, REFUSED)
    failure = host.run(probe=True)["failures"]["shop"]
    assert "could not be seen whether others reach them" in failure
