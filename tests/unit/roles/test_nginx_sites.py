"""What `nginx_sites` says of clients, proxies and locations, by a running nginx on loopback.

All of 127.0.0.0/8 is this machine's, so each client here has an address of its own. The rates are
one request a minute, so that how long a test takes changes no count.
"""

from __future__ import annotations

import base64
import http.client
import json
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from .ports import free_port
from .test_nginx import certificate, configuration, installed_version, lay_out, nginx_program
from .test_nginx_refusals import http2

__all__ = ["certificate", "installed_version", "lay_out", "nginx_program"]  # fixtures

NAME = "shop.example.org"
CLIENT, NEIGHBOUR, PROXY = "127.0.0.1", "127.0.0.2", "127.0.0.3"
# Nothing of it comes back within a test.
ONCE = {"rate": "1r/m", "burst": 4, "at_once": 4}


class Application(ThreadingHTTPServer):
    """Says what it was asked, and on which connection; `/hold` only once it is let go."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__((CLIENT, 0), Handler)
        self.asked: list[tuple[str, str, int]] = []
        self.said: dict[str, str] = {}
        self.go = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"{CLIENT}:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Application

    def answer(self) -> None:
        self.server.asked.append((self.command, self.path, self.client_address[1]))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/break":
            self.close_connection = True
            return
        if self.path == "/hold":
            self.server.go.wait(20)
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        for name, value in self.server.said.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


class Answer:
    """Status, headers by name in lower case, and body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    def json(self) -> dict[str, str]:
        return dict(json.loads(self.body))


class Served:
    """nginx with a site, and the application behind it."""

    process: subprocess.Popen[str]

    def __init__(self, directory: Path, port: int, tls_port: int) -> None:
        self.directory, self.port, self.tls_port = directory, port, tls_port

    def send(
        self,
        path: str = "/",
        *,
        client: str = CLIENT,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        tls: ssl.SSLContext | None = None,
        to: str = CLIENT,
        first: bytes = b"",
    ) -> http.client.HTTPConnection:
        """A request under way. `first` goes before anything else on the connection."""
        port = self.tls_port if tls else self.port
        connection = http.client.HTTPConnection(to, port, timeout=20)
        connection.sock = socket.create_connection((to, port), 20, source_address=(client, 0))
        connection.sock.sendall(first)
        if tls:
            connection.sock = tls.wrap_socket(connection.sock, server_hostname=NAME)
        connection.request(method, path, body, {"Host": NAME, **(headers or {})})
        return connection

    def ask(self, path: str = "/", **how: Any) -> Answer:
        connection = self.send(path, **how)
        try:
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def statuses(self, many: int, path: str = "/", **how: Any) -> list[int]:
        return [self.ask(path, **how).status for _ in range(many)]

    def workers(self) -> set[str]:
        """The processes that the master has started."""
        master = self.process.pid
        return set(Path(f"/proc/{master}/task/{master}/children").read_text().split())

    def logged(self, path: str) -> dict[str, Any]:
        """The line about a path that was asked for once. It comes after the answer."""
        while True:
            text = (self.directory / "log/access.log").read_text()
            for line in text.splitlines():
                if json.loads(line)["uri"] == path:
                    return dict(json.loads(line))
            time.sleep(0.01)


def anybody(pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """A client that asks for no proof, with a certificate of its own or without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if pair:
        context.load_cert_chain(*pair)
    return context


@pytest.fixture
def application() -> Iterator[Application]:
    with Application() as made:
        yield made
        made.go.set()
        made.shutdown()


@pytest.fixture
def serve(
    tmp_path: Path,
    application: Application,
    lay_out: Callable[..., Path],
    nginx_program: tuple[Path, Path],
    installed_version: dict[str, str],
) -> Iterator[Callable[..., Served]]:
    """Starts nginx with one site, which is said by its members, and with variables of the role.

    `over` is one that runs, and is reloaded.
    """
    with ExitStack() as stack:

        def start(
            variables: Mapping[str, Any] | None = None, over: Served | None = None, **members: Any
        ) -> Served:
            site = {"name": "shop", "domains": [NAME], "upstream": application.address, **members}
            port, tls_port = (over.port, over.tls_port) if over else (free_port(), free_port())
            told: dict[str, Any] = {
                "nginx_sites": [{key: value for key, value in site.items() if value is not None}],
                "nginx_http_port": port,
                "nginx_https_port": tls_port,
                "nginx_ipv6": False,
                "nginx_worker_processes": "1",
                "nginx_worker_connections": 256,
                "nginx_open_files": 1024,
                "nginx_challenge_directory": str(tmp_path / "challenge"),
                "wsgi_host": {"packages": installed_version},
                **(variables or {}),
            }
            files = {
                path: text.replace("/etc/nginx/pages", str(tmp_path / "etc/nginx/pages"))
                for path, text in configuration("Debian", **told).items()
            }
            path = lay_out(files)
            if over:
                over.process.send_signal(signal.SIGHUP)
                return over
            process = subprocess.Popen(
                [nginx_program[0], "-p", path.parent, "-c", path, "-g", "daemon off;"],
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.send_signal, signal.SIGTERM)
            for each in (port, tls_port):
                while True:
                    try:
                        socket.create_connection((CLIENT, each), 20).close()
                        break
                    except ConnectionRefusedError:
                        assert process.poll() is None, process.stderr and process.stderr.read()
                        time.sleep(0.02)
            served = Served(tmp_path, port, tls_port)
            served.process = process
            return served

        yield start


def test_a_client_has_its_burst_and_one_more(serve: Callable[..., Served]) -> None:
    """Exactly that many; the rest learns when to come back, and nobody else notices."""
    served = serve(limits=ONCE)
    assert served.statuses(9) == [200] * 5 + [429] * 4
    refused = served.ask()
    assert refused.status == 429
    assert refused.headers["retry-after"] == "10"
    assert b"<h1>Too many requests</h1>" in refused.body
    assert "content-security-policy" in refused.headers
    assert served.statuses(5, client=NEIGHBOUR) == [200] * 5
    # The log of errors is for what went wrong.
    assert "limiting" not in (served.directory / "log/error.log").read_text()


def test_the_defaults_hold_without_a_word_about_them(serve: Callable[..., Served]) -> None:
    served = serve({"nginx_limit_rate": "1r/m", "nginx_limit_burst": 2, "nginx_limit_at_once": 2})
    assert served.statuses(5) == [200] * 3 + [429] * 2


def test_who_waits_for_a_turn_is_not_refused(serve: Callable[..., Served]) -> None:
    """Beyond `at_once` requests are spread out at the rate, up to the burst."""
    served = serve(limits={"rate": "50r/s", "burst": 6, "at_once": 2})
    begun = time.monotonic()
    connections = [served.send() for _ in range(7)]
    assert [each.getresponse().status for each in connections] == [200] * 7
    # Four of them came after the others, a fiftieth of a second apart.
    assert time.monotonic() - begun > 3 / 50
    for each in connections:
        each.close()


def test_a_location_has_limits_of_its_own(serve: Callable[..., Served]) -> None:
    """Wrong log-ins use up nothing but log-ins."""
    served = serve(locations=[{"path": "/login", "exact": True, "limits": ONCE}])
    assert served.statuses(6, "/login", method="POST") == [200] * 5 + [429]
    assert served.statuses(9) == [200] * 9
    assert served.ask("/login/help").status == 200


def test_files_are_not_counted_by_the_rate(serve: Callable[..., Served], tmp_path: Path) -> None:
    """A page has one request of the application, and dozens of files."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.css").write_text("a {}")
    static = [{"location": "/static/", "directory": str(tmp_path / "files")}]
    served = serve(limits=ONCE, static=static)
    assert served.statuses(20, "/static/a.css") == [200] * 20
    assert served.statuses(6) == [200] * 5 + [429]


def test_a_client_has_so_many_requests_at_one_time(
    serve: Callable[..., Served], application: Application
) -> None:
    served = serve(limits={"connections": 3})
    held = [served.send("/hold") for _ in range(3)]
    while len(application.asked) < 3:
        time.sleep(0.01)
    refused = served.ask()
    assert (refused.status, refused.headers["retry-after"]) == (429, "10")
    assert served.ask(client=NEIGHBOUR).status == 200
    application.go.set()
    assert [each.getresponse().status for each in held] == [200] * 3
    for each in held:
        each.close()
    assert served.ask().status == 200


def test_a_body_that_drips_is_one_of_them(
    serve: Callable[..., Served], application: Application
) -> None:
    """nginx cannot say how long a whole body may take, so this is what bounds them."""
    served = serve(limits={"connections": 2})
    held = []
    for _ in range(2):
        each = socket.create_connection((CLIENT, served.port), 20)
        each.sendall(f"POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 100\r\n\r\nslow".encode())
        held.append(each)
    while served.ask().status == 200:  # until nginx has read both
        time.sleep(0.02)
    assert served.ask().status == 429
    assert served.ask(client=NEIGHBOUR).status == 200
    assert not any(method == "POST" for method, _, _ in application.asked)
    for each in held:
        each.close()


def test_a_network_of_ipv6_is_one_client(serve: Callable[..., Served]) -> None:
    """Who has one address has 2^64 of them."""
    served = serve({"nginx_trusted_proxies": [PROXY]}, limits=ONCE)

    def ask(address: str) -> int:
        return served.ask(client=PROXY, headers={"X-Forwarded-For": address}).status

    assert [ask(f"2001:db8:0:1::{n:x}") for n in range(1, 7)] == [200] * 5 + [429]
    assert ask("2001:db8:0:1:ffff:ffff:ffff:ffff") == 429
    assert ask("2001:db8:0:2::1") == 200
    # An address that holds every byte there is, line breaks and zeros among them.
    assert [ask("2001:a00:d00:0:a0d::") for _ in range(6)] == [200] * 5 + [429]
    assert [ask("192.0.2.1") for _ in range(6)] == [200] * 5 + [429]
    assert ask("192.0.2.2") == 200


def test_a_key_counts_by_itself_and_made_up_keys_together(serve: Callable[..., Served]) -> None:
    """Lanes behind one address do not use up each other's; a new key for each request is no way."""
    limits = {
        **ONCE,
        "key_header": "Authorization",
        "at_once": 11,
        **{"key_rate": "1r/m", "key_burst": 2, "keys_rate": "1r/m", "keys_burst": 11},
    }
    served = serve(limits=limits)

    def ask(key: str, client: str = CLIENT) -> int:
        return served.ask(client=client, headers={"Authorization": key}).status

    long = "Bearer " + "x" * 200
    assert [ask(f"{long}1") for _ in range(4)] == [200] * 3 + [429]
    assert [ask(f"{long}2") for _ in range(4)] == [200] * 3 + [429]
    # Of the twelve for all keys six are left.
    assert [ask(f"Bearer {n}") for n in range(8)] == [200] * 6 + [429] * 2
    assert served.statuses(6) == [200] * 5 + [429]
    assert ask(f"{long}1", NEIGHBOUR) == 200


def test_a_key_changes_nothing_in_a_location_with_limits(serve: Callable[..., Served]) -> None:
    """Or a made-up one would open the log-in to guessing."""
    served = serve(
        limits={"key_header": "Authorization"},
        locations=[{"path": "/login", "limits": ONCE}],
    )
    keys = [served.ask("/login", headers={"Authorization": f"{n}"}).status for n in range(6)]
    assert keys == [200] * 5 + [429]


def test_a_reload_may_change_what_is_counted(serve: Callable[..., Served]) -> None:
    """nginx keeps the old configuration if a zone of the same name counts by something else."""
    served = serve(limits=ONCE)
    for header in ("Authorization", "X-Api-Key"):
        limits = {**ONCE, "key_header": header}
        new = f'location = /new-{header} {{ return 200 "new"; }}'
        serve(over=served, limits=limits, extra=new)
        while served.ask(f"/new-{header}").body != b"new":
            assert "[emerg]" not in (served.directory / "log/error.log").read_text()
            time.sleep(0.02)


def test_some_clients_have_no_limits(serve: Callable[..., Served]) -> None:
    served = serve({"nginx_unlimited_clients": [f"{NEIGHBOUR}/32"]}, limits=ONCE)
    assert served.statuses(20, client=NEIGHBOUR) == [200] * 20
    assert served.statuses(6) == [200] * 5 + [429]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "CF-Connecting-IP"])
def test_only_a_trusted_proxy_says_who_the_client_is(
    serve: Callable[..., Served], header: str
) -> None:
    variables = {"nginx_trusted_proxies": [PROXY], "nginx_client_address_header": header}
    served = serve(variables)
    cases = (
        (PROXY, "192.0.2.7", "192.0.2.7"),
        # What the client made up stands first.
        (PROXY, "198.51.100.1, 192.0.2.7", "192.0.2.7"),
        (PROXY, f"198.51.100.1, 192.0.2.7, {PROXY}", "192.0.2.7"),
        (NEIGHBOUR, "192.0.2.7", NEIGHBOUR),
        (PROXY, "nonsense", PROXY),
    )
    for number, (sender, said, expected) in enumerate(cases):
        told = served.ask(f"/{number}", client=sender, headers={header: said}).json()
        assert told["x-forwarded-for"] == told["x-real-ip"] == expected
        assert "cf-connecting-ip" not in told
        assert served.logged(f"/{number}")["remote_addr"] == expected


def test_without_trusted_proxies_nobody_says_it(serve: Callable[..., Served]) -> None:
    told = serve().ask(headers={"X-Forwarded-For": "192.0.2.7"}).json()
    assert told["x-forwarded-for"] == CLIENT


@pytest.fixture
def with_tls(certificate: tuple[Path, Path]) -> dict[str, str]:
    """Members of a site with HTTPS."""
    return {"certificate": str(certificate[0]), "certificate_key": str(certificate[1])}


def test_tls_may_end_at_a_trusted_proxy(
    serve: Callable[..., Served], with_tls: dict[str, str], tmp_path: Path
) -> None:
    """A redirect to where the client has been already never ends."""
    challenge = tmp_path / "challenge/.well-known/acme-challenge"
    challenge.mkdir(parents=True)
    (challenge / "token").write_text("proof")
    served = serve({"nginx_trusted_proxies": [PROXY]}, **with_tls)
    https, plain = {"X-Forwarded-Proto": "https"}, {"X-Forwarded-Proto": "http"}
    answer = served.ask("/a", client=PROXY, headers=https)
    assert answer.status == 200
    assert "strict-transport-security" in answer.headers
    told = answer.json()
    assert (told["x-forwarded-proto"], told["x-forwarded-port"]) == (
        "https",
        str(served.tls_port),
    )
    for client, headers in ((PROXY, plain), (PROXY, {}), (NEIGHBOUR, https)):
        answer = served.ask("/a?b", client=client, headers=headers)
        assert answer.status == 301
        assert answer.headers["location"] == f"https://{NAME}:{served.tls_port}/a?b"
        assert "strict-transport-security" not in answer.headers
        found = served.ask("/.well-known/acme-challenge/token", client=client, headers=headers)
        assert (found.status, found.body) == (200, b"proof")
    # Who comes by HTTPS has come by HTTPS, whatever somebody says.
    told = served.ask(tls=anybody(), client=NEIGHBOUR, headers=plain).json()
    assert told["x-forwarded-proto"] == "https"


def proxied(address: str) -> bytes:
    """What a balancer sends first."""
    return f"PROXY TCP4 {address} 127.0.0.9 40000 443\r\n".encode()


def test_the_proxy_protocol_says_who_the_client_is(
    serve: Callable[..., Served], with_tls: dict[str, str]
) -> None:
    """From a balancer alone; and this host still asks its nginx as before."""
    served = serve(
        {"nginx_trusted_proxies": [PROXY], "nginx_proxy_protocol": True}, limits=ONCE, **with_tls
    )
    # Every address but the one that the host asks itself at.
    outside = "127.0.0.9"

    def ask(said: str, client: str = PROXY, **how: Any) -> Answer:
        first = proxied(said)
        return served.ask(to=outside, client=client, first=first, tls=anybody(), **how)

    forged = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http"}
    told = ask("192.0.2.7", path="/once", headers=forged).json()
    assert told["x-forwarded-for"] == "192.0.2.7"
    assert told["x-forwarded-proto"] == "https"
    assert served.logged("/once")["remote_addr"] == "192.0.2.7"
    # Anybody can speak the protocol.
    assert ask("192.0.2.8", NEIGHBOUR).json()["x-forwarded-for"] == NEIGHBOUR
    # The limits are those of the client.
    assert [ask("192.0.2.7").status for _ in range(5)] == [200] * 4 + [429]
    assert ask("192.0.2.9").status == 200
    with pytest.raises(OSError, match=r"."):
        served.ask(to=outside, client=PROXY, tls=anybody())
    answer = served.ask(tls=anybody())
    assert (answer.status, answer.json()["x-forwarded-for"]) == (200, CLIENT)
    assert served.ask().status == 301
    forged = {"X-Forwarded-Proto": "https"}
    plain = served.ask(to=outside, client=PROXY, first=proxied("192.0.2.7"), headers=forged)
    assert plain.status == 301


def test_the_proxy_protocol_is_switched_on_by_a_reload(serve: Callable[..., Served]) -> None:
    """A fleet goes behind its balancers while it serves."""
    served = serve()
    assert served.ask(to="127.0.0.9").status == 200
    before = served.workers()
    serve({"nginx_trusted_proxies": [PROXY], "nginx_proxy_protocol": True}, over=served)
    while before & served.workers():  # they still take connections for a moment
        time.sleep(0.02)
    how: dict[str, Any] = {"client": PROXY, "to": "127.0.0.9", "first": proxied("192.0.2.7")}
    assert served.ask(**how).json()["x-forwarded-for"] == "192.0.2.7"
    assert served.ask().json()["x-forwarded-for"] == CLIENT


def test_the_proxy_protocol_can_have_ports_of_its_own(serve: Callable[..., Served]) -> None:
    own = free_port()
    served = serve(
        {
            "nginx_trusted_proxies": [PROXY],
            "nginx_proxy_protocol": True,
            "nginx_proxy_protocol_http_port": own,
        }
    )
    assert served.ask(to="127.0.0.9").json()["x-forwarded-for"] == CLIENT
    balancer = Served(served.directory, own, own)
    told = balancer.ask(client=PROXY, first=proxied("192.0.2.7")).json()
    assert told["x-forwarded-for"] == "192.0.2.7"


def test_a_server_that_is_gone_costs_no_request(
    serve: Callable[..., Served], application: Application
) -> None:
    """Nobody took the request, so another server gets it, a POST too."""
    gone = f"{CLIENT}:{free_port()}"
    served = serve(upstream=None, upstreams=[{"address": gone}, {"address": application.address}])
    assert served.statuses(4) == [200] * 4
    served = serve(upstream=None, upstreams=[{"address": gone}, {"address": application.address}])
    assert served.statuses(4, method="POST", body=b"x") == [200] * 4
    assert [method for method, _, _ in application.asked] == ["GET"] * 4 + ["POST"] * 4


def test_servers_get_their_share(serve: Callable[..., Served], application: Application) -> None:
    """By weight; one that is down gets nothing, and a backup only what the others do not take."""
    with Application() as second, Application() as down, Application() as backup:
        told = [
            {"address": second.address},
            {"address": down.address, "down": True},
            {"address": backup.address, "backup": True},
        ]
        upstreams = [{"address": application.address, "weight": 3}, *told]
        assert serve(upstream=None, upstreams=upstreams).statuses(8) == [200] * 8
        everybody = (application, second, down, backup)
        assert [len(each.asked) for each in everybody] == [6, 2, 0, 0]
        second.shutdown()
        second.server_close()
        assert serve(upstream=None, upstreams=told).statuses(4) == [200] * 4
        assert [len(each.asked) for each in everybody] == [6, 2, 0, 4]
        for each in (down, backup):
            each.shutdown()


@pytest.mark.parametrize("keepalive", [0, 4])
def test_what_a_server_may_have_begun_is_not_sent_again(
    serve: Callable[..., Served], application: Application, keepalive: int
) -> None:
    """A POST that is sent twice charges twice."""
    with Application() as second:
        served = serve(
            upstream=None,
            upstreams=[{"address": application.address}, {"address": second.address}],
            upstream_keepalive=keepalive,
        )
        served.ask()
        for each in (application, second):
            each.asked.clear()
        assert served.ask("/break", method="POST", body=b"x").status == 502
        assert len(application.asked + second.asked) == 1
        second.shutdown()


def test_one_upstream_is_never_asked_twice(
    serve: Callable[..., Served], application: Application
) -> None:
    served = serve()
    assert served.statuses(2, "/break") == [502] * 2
    assert len(application.asked) == 2


def test_only_what_may_be_repeated_goes_over_a_kept_connection(
    serve: Callable[..., Served], application: Application
) -> None:
    served = serve(upstream_keepalive=4)
    for method in ("GET", "POST", "GET", "PUT", "GET", "POST"):
        assert served.ask(method=method, body=b"x" if method != "GET" else None).status == 200
    ports: dict[str, list[int]] = {}
    for method, _, port in application.asked:
        ports.setdefault(method, []).append(port)
    assert len(set(ports["GET"])) == 1
    others = ports["POST"] + ports["PUT"]
    assert len({*others, *ports["GET"]}) == len(others) + 1


@pytest.mark.parametrize("keepalive", [0, 4])
def test_a_method_opens_nothing(
    serve: Callable[..., Served],
    with_tls: dict[str, str],
    certificate: tuple[Path, Path],
    application: Application,
    keepalive: int,
) -> None:
    """What keeps clients out of a location does so whichever upstream a method leads to."""
    members: dict[str, tuple[dict[str, Any], int]] = {
        "/vault/": ({"client_certificate": True}, 403),
        "/closed/": ({"extra": "return 403;"}, 403),
        "/search/": ({"extra": "if ($arg_q) {\n    return 404;\n}"}, 404),
        "/office/": ({"allow": [NEIGHBOUR]}, 403),
        "/abroad/": ({"deny": [CLIENT]}, 403),
        "/users/": ({"basic_auth": {"users": [{"name": "anna", "hash": "$6$" + "a" * 86}]}}, 401),
        "/few/": ({"limits": {"rate": "1r/m", "burst": 0}}, 429),
    }
    served = serve(
        upstream_keepalive=keepalive,
        client_certificates={"authority": str(certificate[0]), "verify": "optional"},
        locations=[{"path": path, **those} for path, (those, _) in members.items()],
        **with_tls,
    )
    (served.directory / "etc/nginx/users").mkdir()
    (served.directory / "etc/nginx/users/shop~6").write_text("anna:$6$a\n")
    assert served.ask("/few/", tls=anybody()).status == 200
    application.asked.clear()
    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    for method in methods:
        found = {
            path: served.ask(f"{path}?q=1", method=method, tls=anybody()).status for path in members
        }
        assert (method, found) == (method, {path: status for path, (_, status) in members.items()})
    assert application.asked == []
    # And to whom a location is open, it is for all methods; the path goes on as it came.
    for method in methods:
        answer = served.ask("/vault/a%2Fb//c?d=%20", method=method, tls=anybody(certificate))
        assert answer.status == 200
    assert {path for _, path, _ in application.asked} == {"/vault/a%2Fb//c?d=%20"}
    assert [method for method, _, _ in application.asked] == list(methods)


def test_a_location_can_have_an_application_of_its_own(
    serve: Callable[..., Served], application: Application
) -> None:
    with Application() as other:
        served = serve(
            locations=[
                {"path": "/api/", "upstream": other.address, "max_body_size": "2k"},
                {"path": "/api/large", "exact": True, "upstream": other.address},
            ]
        )
        assert served.ask("/api/x").status == 200
        assert served.ask("/x").status == 200
        assert [path for _, path, _ in other.asked] == ["/api/x"]
        assert [path for _, path, _ in application.asked] == ["/x"]
        body = b"x" * 3000
        assert served.ask("/api/x", method="POST", body=body).status == 413
        assert served.ask("/api/large", method="POST", body=body).status == 200
        other.shutdown()


def test_redirects(serve: Callable[..., Served]) -> None:
    served = serve(
        locations=[
            {"path": "/old", "redirect": {"to": "/new"}},
            {"path": "/docs/", "redirect": {"to": "https://docs.example.org", "status": 301}},
            {
                "path": "/moved/",
                "redirect": {"to": "https://b.example.org", "status": 308, "keep_path": True},
            },
        ]
    )
    for path, status, location in (
        ("/old", 302, "/new"),
        ("/docs/a", 301, "https://docs.example.org"),
        ("/moved/a?b=%20", 308, "https://b.example.org/moved/a?b=%20"),
    ):
        answer = served.ask(path)
        assert (answer.status, answer.headers["location"]) == (status, location)
        assert "content-security-policy" in answer.headers


def test_a_redirect_leads_to_no_host_of_a_clients_choice(serve: Callable[..., Served]) -> None:
    """`path` is a prefix, and nginx takes two slashes for one where it looks for a location."""
    served = serve(
        locations=[
            {"path": path, "redirect": {"to": to, "keep_path": True}}
            for path, to in (("/old", "/new/"), ("/moved", "https://b.example.org/"))
        ]
    )
    for path, location in (
        ("/old.evil.example/x", "/new/old.evil.example/x"),
        ("//old.evil.example/x", "/new//old.evil.example/x"),
        ("/moved.evil.example", "https://b.example.org/moved.evil.example"),
        ("//moved@evil.example", "https://b.example.org//moved@evil.example"),
    ):
        assert served.ask(path).headers["location"] == location


def test_a_site_may_only_lead_elsewhere(
    serve: Callable[..., Served], application: Application
) -> None:
    to = {"to": "https://new.example.org", "status": 307, "keep_path": True}
    served = serve(upstream=None, redirect=to)
    answer = served.ask("/a?b", method="POST", body=b"x")
    assert (answer.status, answer.headers["location"]) == (307, "https://new.example.org/a?b")
    assert not application.asked


def test_one_file_of_a_directory(serve: Callable[..., Served], tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name in ("robots.txt", "other.txt"):
        (tmp_path / "files" / name).write_text(name)
    place = {"path": "/robots.txt", "exact": True, "directory": str(tmp_path / "files")}
    served = serve(upstream=None, locations=[place])
    assert served.ask("/robots.txt").body == b"robots.txt"
    assert served.ask("/robots.txt/../other.txt").status == 404
    assert served.ask("/other.txt").status == 404


def logged_in(name: str, word: str) -> dict[str, str]:
    token = base64.b64encode(f"{name}:{word}".encode()).decode()
    return {"Authorization": f"Basic {token}"}


@pytest.mark.parametrize("place", ["/", "/files/"])
def test_hidden_files_are_not_served(
    place: str, serve: Callable[..., Served], tmp_path: Path
) -> None:
    """A repository or settings come into a directory by mistake; security.txt on purpose."""
    files = tmp_path / "files"
    good = ("page.html", "a.b", ".well-known/security.txt")
    bad = (".env", ".git/config", "sub/.env", ".well-known/.env", ".well-knownx")
    for path in (*good, *bad):
        (files / path).parent.mkdir(parents=True, exist_ok=True)
        (files / path).write_text(path)
    served = serve(upstream=None, static=[{"location": place, "directory": str(files)}])
    assert [served.ask(place + path).body.decode() for path in good] == list(good)
    encoded = ("%2eenv", "sub/..//.env", ".git/")
    assert [served.ask(place + path).status for path in (*bad, *encoded)] == [404] * 8


def test_users_log_in(serve: Callable[..., Served], with_tls: dict[str, str]) -> None:
    """And the application never sees their passwords."""
    done = subprocess.run(
        ["openssl", "passwd", "-6", "correct"], check=True, capture_output=True, text=True
    )
    users = [{"name": "anna", "hash": done.stdout.strip()}]
    served = serve(
        basic_auth={"users": users},
        limits=ONCE,
        locations=[{"path": "/open", "basic_auth": {}, "limits": {"rate": "unlimited"}}],
        **with_tls,
    )
    # The role's tree writes it; relative to the configuration, so that it is found where nginx is.
    (served.directory / "etc/nginx/users").mkdir()
    (served.directory / "etc/nginx/users/shop").write_text(f"anna:{users[0]['hash']}\n")
    answer = served.ask(tls=anybody())
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Basic realm="Restricted"')
    assert served.ask(tls=anybody(), headers=logged_in("anna", "wrong")).status == 401
    answer = served.ask(tls=anybody(), headers=logged_in("anna", "correct"))
    assert answer.status == 200
    assert "authorization" not in answer.json()
    assert served.ask("/open", tls=anybody()).status == 200
    # Guessing is limited, and refused as such.
    assert [served.ask(tls=anybody()).status for _ in range(4)] == [401] * 2 + [429] * 2


def test_addresses_come_in_or_do_not(serve: Callable[..., Served]) -> None:
    served = serve(
        locations=[
            {"path": "/admin/", "allow": ["127.0.0.0/30"], "deny": [NEIGHBOUR]},
            {"path": "/public/", "deny": [NEIGHBOUR]},
        ]
    )
    found = {
        path: [served.ask(path, client=each).status for each in (CLIENT, NEIGHBOUR, "127.0.0.9")]
        for path in ("/", "/admin/", "/public/")
    }
    assert found == {"/": [200] * 3, "/admin/": [200, 403, 403], "/public/": [200, 403, 200]}


def test_a_path_is_open_to_the_host_itself(
    serve: Callable[..., Served], with_tls: dict[str, str]
) -> None:
    """What asks nginx whether an application is well has no password."""
    served = serve(
        {"nginx_trusted_proxies": [PROXY], "nginx_proxy_protocol": True},
        basic_auth={"users": [{"name": "anna", "hash": "$6$" + "a" * 86}]},
        allow=[NEIGHBOUR],
        locations=[{"path": "/healthz", "exact": True, "open_to_host": True}],
        **with_tls,
    )
    assert served.ask("/healthz", tls=anybody()).status == 200
    assert served.ask("/", tls=anybody()).status == 403

    def ask(address: str) -> int:
        said = {"client": PROXY, "first": proxied(address), "tls": anybody()}
        return served.ask("/healthz", to="127.0.0.9", **said).status

    assert (ask("192.0.2.7"), ask(NEIGHBOUR)) == (403, 401)


@pytest.mark.parametrize(
    "rule",
    [
        {"basic_auth": {"users": [{"name": "anna", "hash": "$6$" + "a" * 86}]}},
        {"allow": ["192.0.2.0/24"]},
        {"deny": ["127.0.0.0/8"]},
    ],
    ids=["basic_auth", "allow", "deny"],
)
@pytest.mark.parametrize("protocol", [True, False])
def test_who_looks_after_a_site_is_let_in(
    serve: Callable[..., Served], with_tls: dict[str, str], rule: dict[str, Any], protocol: bool
) -> None:
    """Or it would be down for ever, to balancers and to who monitors it, and works for people."""
    watch = "127.0.0.7"
    served = serve(
        {"nginx_trusted_proxies": [PROXY], "nginx_proxy_protocol": protocol},
        locations=[{"path": "/up", "open_to_host": True, "open_to": [watch]}],
        **rule,
        **with_tls,
    )
    (served.directory / "etc/nginx/users").mkdir()
    (served.directory / "etc/nginx/users/shop").write_text("anna:$6$a\n")
    kept_out = 401 if "basic_auth" in rule else 403

    def through(address: str, path: str = "/up") -> int:
        how: dict[str, Any] = {"client": PROXY, "to": "127.0.0.9", "tls": anybody()}
        if protocol:
            how["first"] = proxied(address)
        elif address != PROXY:
            how["headers"] = {"X-Forwarded-For": address}
        return served.ask(path, **how).status

    # A balancer that asks for itself, a server of monitoring, and the host at one of its addresses.
    assert [through(each) for each in (PROXY, watch, "127.0.0.9")] == [200] * 3
    assert served.ask("/up", tls=anybody()).status == 200
    # What they may ask for is no way to the rest, and nobody comes in behind them.
    assert [through(each, "/") for each in (PROXY, watch, "127.0.0.9")] == [kept_out] * 3
    assert [through(each) for each in ("127.0.0.8", NEIGHBOUR)] == [kept_out] * 2
    if not protocol:
        claim = {"X-Forwarded-For": watch}
        answer = served.ask("/up", client=NEIGHBOUR, headers=claim, tls=anybody())
        assert answer.status == kept_out


@pytest.mark.parametrize("verify", ["required", "optional"])
def test_client_certificates(
    serve: Callable[..., Served],
    with_tls: dict[str, str],
    certificate: tuple[Path, Path],
    verify: str,
) -> None:
    """Who shows none gets no further, and nobody can say that they showed one."""
    served = serve(
        client_certificates={"authority": str(certificate[0]), "verify": verify},
        locations=[{"path": "/vault/", "client_certificate": True}],
        **with_tls,
    )
    forged = {"X-Client-Certificate-Subject": "CN=admin"}
    with_it = served.ask("/vault/", tls=anybody(certificate), headers=forged)
    assert with_it.status == 200
    assert with_it.json()["x-client-certificate-subject"] == "CN=toll.example.org"
    without = served.ask(tls=anybody(), headers=forged)
    assert without.status == (400 if verify == "required" else 200)
    if verify == "optional":
        assert "x-client-certificate-subject" not in without.json()
        assert served.ask("/vault/", tls=anybody()).status == 403


def test_the_cache_is_not_asked_for_a_certificate_or_a_body(
    serve: Callable[..., Served],
    with_tls: dict[str, str],
    certificate: tuple[Path, Path],
    application: Application,
) -> None:
    """The application is told of both, and neither is part of the key."""
    served = serve(
        client_certificates={"authority": str(certificate[0]), "verify": "optional"},
        cache={"locations": ["/", "/direct"]},
        locations=[{"path": "/direct", "extra": "proxy_request_buffering off;"}],
        **with_tls,
    )
    application.said["Cache-Control"] = "public, s-maxage=60"

    def over_http2(body: bytes = b"") -> str:
        raw = socket.create_connection((CLIENT, served.tls_port), 20)
        connection = http2.offering(anybody()).wrap_socket(raw, server_hostname=NAME)
        # Without Content-Length.
        (stream,) = http2.exchange(connection, [http2.get(NAME, "/a")], body)
        return str(stream.headers.get("cache-status", ""))

    def over_http1(path: str, client: ssl.SSLContext, body: bytes | None = None) -> str:
        return served.ask(path, tls=client, body=body).headers.get("cache-status", "")

    hit, miss = "nginx; hit", "nginx; fwd=miss"
    assert [over_http2(b"x"), over_http2(), over_http2(), over_http2(b"x")] == ["", miss, hit, ""]
    # nginx writes it to a file, or has not read it yet.
    assert over_http1("/a", anybody(), b"x" * 50_000) == ""
    assert [over_http1("/direct", anybody(), body) for body in (b"x", None)] == ["", miss]
    assert [over_http1("/b", each) for each in (anybody(certificate), anybody())] == ["", miss]
    assert over_http1("/b", anybody(certificate)) == ""


def test_further_lines(serve: Callable[..., Served]) -> None:
    served = serve(
        extra='location = /hello {\n    return 200 "hello";\n}\n',
        locations=[{"path": "/api/", "extra": "proxy_set_header X-Api yes;"}],
    )
    assert served.ask("/hello").body == b"hello"
    assert served.ask("/api/").json()["x-api"] == "yes"


def test_a_websocket_per_location(serve: Callable[..., Served]) -> None:
    asking = {"Connection": "Upgrade", "Upgrade": "websocket"}
    served = serve(locations=[{"path": "/live/", "websockets": True}])
    told = served.ask("/live/", headers=asking).json()
    assert (told["connection"], told["upgrade"]) == ("upgrade", "websocket")
    told = served.ask("/", headers=asking).json()
    assert (told["connection"], told.get("upgrade")) == ("close", None)
