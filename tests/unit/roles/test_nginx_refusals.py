"""What nginx answers by itself, by a running nginx with the role's configuration."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from .ports import free_port
from .render import evaluate
from .test_nginx import (
    BOTH,
    PLAIN,
    PROJECT,
    SITE,
    certificate,
    configuration,
    installed_version,
    lay_out,
    nginx_program,
    self_signed,
)

__all__ = ["certificate", "installed_version", "lay_out", "nginx_program"]  # fixtures

NAME = SITE["domains"][0]
POLICY = "default-src 'none'"


def load(name: str) -> ModuleType:
    """Return a module that the tests on hosts use as well."""
    path = PROJECT / f"molecule/nginx/tests/{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


refusals, http2 = load("refusals"), load("http2")


def anybody() -> ssl.SSLContext:
    """A client that looks at no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Nginx:
    """nginx on this machine's loopback, without an application behind it."""

    def __init__(self, directory: Path, http: int, https: int) -> None:
        self.directory, self.http, self.https = directory, http, https

    def connect(self, tls: bool, greeting: str = NAME) -> socket.socket:
        raw = socket.create_connection(("127.0.0.1", self.https if tls else self.http), 20)
        return anybody().wrap_socket(raw, server_hostname=greeting) if tls else raw

    def connect_http2(self) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", self.https), 20)
        return http2.offering(anybody()).wrap_socket(raw, server_hostname=NAME)

    def ask(self, request: str, *, tls: bool, greeting: str = NAME) -> Any:
        return refusals.exchange(self.connect(tls, greeting), request, NAME)

    def complaints(self) -> str:
        """What the log of errors holds besides what single requests were refused for."""
        lines = (self.directory / "log/error.log").read_text().splitlines()
        return "\n".join(line for line in lines if not re.search(r" \[error\] ", line))

    def logged(self, count: int) -> list[str]:
        """The lines of the access log, of which a request's is written after its answer."""
        path = self.directory / "log/access.log"
        end = time.monotonic() + 20
        while path.read_bytes().count(b"\n") < count:
            assert time.monotonic() < end
            time.sleep(0.02)
        *lines, rest = path.read_bytes().decode().split("\n")
        assert (len(lines), rest) == (count, "")
        return lines


@pytest.fixture(params=[False, True], ids=["named", "default"])
def default(request: pytest.FixtureRequest) -> bool:
    """Whether the site also answers unknown names."""
    return bool(request.param)


@pytest.fixture
def nginx(
    tmp_path: Path,
    default: bool,
    lay_out: Callable[..., Path],
    nginx_program: tuple[Path, Path],
    installed_version: dict[str, str],
    certificate: tuple[Path, Path],
) -> Iterator[Nginx]:
    http, https = free_port(), free_port()
    chain = tmp_path / "fullchain.pem"
    chain.write_bytes(certificate[0].read_bytes())
    files = tmp_path / "downloads"
    files.mkdir()
    (files / "report.csv").write_text("a,b\n")
    site = {
        **SITE,
        "default": default,
        "content_security_policy": POLICY,
        # Nobody listens there.
        "upstream": f"127.0.0.1:{free_port()}",
        "static": [
            {"location": "/static/", "directory": str(files), "immutable": True},
            {"location": "/downloads/", "directory": str(files)},
        ],
    }
    text = configuration(
        "Debian",
        nginx_sites=[site, PLAIN, BOTH],
        nginx_http_port=http,
        nginx_https_port=https,
        nginx_ipv6=False,
        nginx_worker_processes="1",
        nginx_worker_connections=64,
        nginx_open_files=256,
        nginx_challenge_directory=str(files),
        nginx_client_timeout_seconds=2,
        wsgi_host={"packages": installed_version},
    )
    look = tmp_path / "nginx-look"
    look.write_text(text["/usr/local/libexec/nginx-look"].replace(site["certificate"], str(chain)))
    text = {
        path: each.replace("/etc/nginx/pages", str(tmp_path / "etc/nginx/pages"))
        for path, each in text.items()
    }
    path = lay_out(text)
    process = subprocess.Popen(
        [nginx_program[0], "-p", path.parent, "-c", path, "-g", "daemon off;"],
        stderr=subprocess.PIPE,
        text=True,
    )
    made = Nginx(tmp_path, http, https)
    try:
        while True:
            try:
                made.connect(tls=True).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.02)
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def expected(tls: bool, policy: str) -> dict[str, str]:
    """The headers of every answer, by the role's defaults."""
    defaults = yaml.safe_load((PROJECT / "roles/nginx/defaults/main.yml").read_text())
    headers = {**defaults["nginx_security_headers"], "Content-Security-Policy": policy}
    if tls:
        headers["Strict-Transport-Security"] = f"max-age={defaults['nginx_hsts_max_age_seconds']}"
    return {name: str(value) for name, value in headers.items()}


def of_the_role() -> str:
    defaults = yaml.safe_load((PROJECT / "roles/nginx/defaults/main.yml").read_text())
    return str(defaults["nginx_content_security_policy"]).strip()


def test_whatever_nginx_refuses_carries_the_headers(nginx: Nginx, default: bool) -> None:
    """Many refusals come before a site's rules, where variables that `set` makes are empty."""
    wrong = []
    for refusal in refusals.REFUSALS:
        for tls in (True, False):
            if not (refusal.tls if tls else refusal.plain):
                continue
            answer = nginx.ask(refusal.request, tls=tls)
            if answer.status is None and refusals.UNKNOWN in refusal.request and not default:
                continue  # closed, which says even less
            headers = expected(tls, POLICY)
            # Which server it is that refuses, and so whose policy holds, is nginx's to know; that
            # there is one is what matters.
            policies = answer.headers.get("content-security-policy")
            if policies in ([POLICY], [of_the_role()], [BOTH["content_security_policy"]]):
                headers["Content-Security-Policy"] = policies[0]
            wrong += [
                f"{'https' if tls else 'http'}: {fault}"
                for fault in refusals.faults(refusal, answer, headers)
            ]
    assert not wrong, "\n".join(wrong)
    assert not nginx.complaints()


def test_over_tls_it_is_the_sites_policy(nginx: Nginx) -> None:
    """The greeting names the site, so that its own policy holds before the request is read."""
    for request in (refusals.get("/%00"), refusals.get("/", method="TRACE")):
        assert nginx.ask(request, tls=True).headers["content-security-policy"] == [POLICY]


def test_plain_http_on_the_port_for_tls(nginx: Nginx) -> None:
    for request in (refusals.get("/"), refusals.get("/%00"), "nonsense\r\n\r\n"):
        connection = socket.create_connection(("127.0.0.1", nginx.https), 20)
        answer = refusals.exchange(connection, request, NAME)
        assert answer.status == 400
        assert "content-security-policy" in answer.headers
        assert "strict-transport-security" not in answer.headers
    assert not nginx.complaints()


def test_nothing_leads_to_a_name_that_a_client_made_up(nginx: Nginx, default: bool) -> None:
    """A redirect that repeats the name is kept by caches and shown to others."""
    for host in (refusals.UNKNOWN, f"{refusals.UNKNOWN}:80", "198.51.100.7", "[2001:db8::1]"):
        for request in (
            refusals.get("/a", host=host),
            f"GET http://{host}/a HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n",
            f"GET http://{host}/a HTTP/1.0\r\n\r\n",
        ):
            answer = nginx.ask(request, tls=False)
            if not default:
                assert answer.raw == b""
                continue
            assert answer.status == 421
            assert "location" not in answer.headers
            assert host.partition(":")[0].encode() not in answer.raw
            assert b"<h1>Use HTTPS</h1>" in answer.raw
            assert answer.headers["content-security-policy"] == [of_the_role()]
    # A name of the site's leads on, and so does the address that the client came to.
    ours = {NAME: nginx.https, SITE["domains"][1]: nginx.https}
    if default:
        ours["127.0.0.1"] = nginx.https
    for host, port in ours.items():
        answer = nginx.ask(refusals.get("/a?b=c", host=host), tls=False)
        assert (answer.status, answer.headers["location"]) == (
            301,
            [f"https://{host}:{port}/a?b=c"],
        )


def test_static_files_have_the_headers_beside_their_own(nginx: Nginx) -> None:
    """An add_header in a location drops those around it."""
    answer = nginx.ask(refusals.get("/static/report.csv"), tls=True)
    assert answer.status == 200
    assert answer.headers["cache-control"] == ["public, max-age=31536000, immutable"]
    for name, value in expected(True, POLICY).items():
        assert answer.headers[name.lower()] == [value], name
    missing = nginx.ask(refusals.get("/static/none"), tls=True)
    assert missing.status == 404
    assert "cache-control" not in missing.headers
    assert missing.headers["content-security-policy"] == [POLICY]


def test_an_application_that_is_not_there(nginx: Nginx) -> None:
    answer = nginx.ask(refusals.get("/"), tls=True)
    assert answer.status == 502
    assert not refusals.faults(refusals.Refusal("away", "", (502,)), answer, expected(True, POLICY))


@pytest.mark.parametrize("default", [False], indirect=True)
def test_http2_is_answered_as_http1_is(nginx: Nginx) -> None:
    """Requests side by side on one connection, each with the headers of its own."""
    paths = ("/static/report.csv", "/static/none", "/metrics", "/%00", "/")
    streams = http2.exchange(nginx.connect_http2(), [http2.get(NAME, path) for path in paths])
    assert [stream.status for stream in streams] == [200, 404, 404, 400, 502]
    for stream in streams:
        for name, value in expected(True, POLICY).items():
            assert stream.headers[name.lower()] == value, name
    assert len({stream.headers["x-request-id"] for stream in streams}) == len(paths)
    assert not nginx.complaints()


@pytest.mark.parametrize("default", [False], indirect=True)
def test_http2_smuggles_nothing(nginx: Nginx) -> None:
    """What HTTP/1 would read as another request or header is refused before the application."""
    cases: list[tuple[list[tuple[str, str]], bytes]] = [
        ([("content-length", "1")], b"xx"),
        ([("content-length", "2")], b"x"),
        ([("content-length", "1"), ("content-length", "2")], b"x"),
        ([("X-Upper", "1")], b""),
        ([("x-line", "1\r\nX-More: 2")], b""),
        ([("x-null", "a\x00b")], b""),
        ([(":path", "/other")], b""),
        ([("host", "other.example.org")], b""),
        ([(f"x-{number}", "x" * 4000) for number in range(17)], b""),
    ]
    taken = []
    for fields, body in cases:
        # 502 would be the application's, which is not there.
        (stream,) = http2.exchange(nginx.connect_http2(), [http2.get(NAME, "/", *fields)], body)
        if not (stream.status == 400 or (stream.status is None and stream.error)):
            taken.append((fields[:2], stream.status))
    assert taken == []


SECRET = "hunter2"
# What is asked for, and what the log has of it.
LOGGED = {
    f"/reset?token={SECRET}": "/reset?token=",
    f"/a?page=2&password={SECRET}&x=1": "/a?page=&password=&x=",
    f"/a?{SECRET}": "/a",
    f"/a?{SECRET}&b=1": "/a&b=",
    f"/a?b=1?c={SECRET}": "/a?b=",
    f"/a?b=c=={SECRET}": "/a?b=",
    f"/a?b[]={SECRET}&c=": "/a&c=",
    f"/a?%20={SECRET}": "/a?%20=",
    f"/a?{'n' * 41}={SECRET}": "/a",
    "/a?" + f"n={SECRET}&" * 30: "/a?n=" + "&n=" * 11,
    "/a?": "/a",
    "/a%3Fb=c": "/a%3Fb=c",
    "/\xc3\xa4?b=\xe2\x82\xac": "/ä?b=",
    f"/\xff?token={SECRET}": "(not UTF-8)",
    "/" + "\xc3\xa4" * 3000: "/" + "ä" * 3000,
}


@pytest.mark.parametrize("default", [False], indirect=True)
def test_the_log_has_no_value_of_a_parameter(nginx: Nginx) -> None:
    """Whoever reads logs, or gets a copy of them, must not be able to log in with what is there."""
    referers = {
        f"https://other.example.org/from?token={SECRET}#{SECRET}": "https://other.example.org/from",
        f"https://me:{SECRET}@other.example.org/": "(with a user)",
    }
    for target in LOGGED:
        nginx.ask(refusals.get(target), tls=False)
    for referer in referers:
        nginx.ask(refusals.get("/", f"Referer: {referer}"), tls=False)
    lines = nginx.logged(len(LOGGED) + len(referers))
    assert SECRET not in "\n".join(lines)
    found = [json.loads(line) for line in lines]
    assert [line["uri"] for line in found[: len(LOGGED)]] == list(LOGGED.values())
    assert [line["referer"] for line in found[len(LOGGED) :]] == list(referers.values())


def test_what_is_no_utf8_is_found() -> None:
    """By every combination of bytes at the edges of what UTF-8 allows."""
    pattern = re.compile(evaluate("nginx", "__nginx_not_utf8", "Debian").replace(" ", "").encode())
    edges = b"A\x80\x8f\x90\x9f\xa0\xbf\xc1\xc2\xdf\xe0\xe1\xed\xef\xf0\xf1\xf4\xf5\xff"
    for text in map(bytes, itertools.product(edges, repeat=4)):
        try:
            text.decode()
        except UnicodeDecodeError:
            assert pattern.search(text), text
        else:
            assert not pattern.search(text), text


@pytest.mark.parametrize("default", [True], indirect=True)
def test_no_client_can_forge_a_line_of_the_log(nginx: Nginx) -> None:
    """One JSON object for each request, whatever is in it."""
    texts = [
        '"},{"status":200}',
        "\\",
        "\\\\n",
        "\x01\x1b[2J\x7f",
        "\t",
        "\xff\xfe",
        "\xc3(",
        "\xc0\xaf",
        "\xed\xa0\x80",
        "\xf4\x90\x80\x80",
        "\xe2\x80\xa8\xc2\x85",
        "x" * 7000,
    ]
    asked = 0
    for text in texts:
        for request in (
            refusals.get("/", f"User-Agent: {text}", f"Referer: {text}"),
            refusals.get("/", host=text),
            refusals.get(f"/{text}"),
            refusals.get("/", method=text),
        ):
            # Of bytes, since that is what a client sends.
            nginx.ask(request, tls=False)
            asked += 1
    lines = nginx.logged(asked)
    assert len({frozenset(json.loads(line)) for line in lines}) == 1
    agents = {json.loads(line)["user_agent"] for line in lines}
    assert {"(not UTF-8)", texts[0], texts[1], texts[2], "x" * 7000} <= agents


def look(nginx: Nginx, *statuses: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-ISB", nginx.directory / "nginx-look", *statuses],
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("default", [False], indirect=True)
def test_a_look_finds_what_has_become_worse(nginx: Nginx) -> None:
    """A reload that nginx takes may still serve nobody, or yesterday's certificate."""
    code, said = look(nginx)
    assert (code, json.loads(said)) == (0, {"toll-app": 502, "plain": 502, "both": 502})
    # Neither what was as bad before, nor what is new, is the reload's doing.
    assert look(nginx, '{"toll-app": 502, "plain": null}') == (0, "")
    code, said = look(nginx, '{"plain": 404}')
    assert code == 1
    assert said.splitlines() == [
        "Site plain answered 404 before, and now 502; see /etc/nginx/sites/plain.conf"
    ]
    renewed = nginx.directory / "fullchain.pem"
    other, _ = self_signed()
    renewed.write_bytes(other)
    code, said = look(nginx, "{}")
    assert code == 1
    assert re.fullmatch(
        rf"Site toll-app serves certificate [0-9a-f]+ and not [0-9a-f]+ of {renewed}; see .*\n"
        rf"Site both serves certificate .*\n",
        said,
    )
