"""What a client gets: redirects, TLS, headers, the application, files, and nothing at all."""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import http2
import pytest
from conftest import TIMEOUT, Answer, Web, answers, anybody, wait_for

# https://ssl-config.mozilla.org/guidelines/6.0.json, those for a certificate with ECDSA
SUITES = {
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
}
UNKNOWN = "unknown.example.net"


def headers_of(application: Answer) -> dict[str, list[str]]:
    """What the application was sent, by name in lower case."""
    found: dict[str, list[str]] = {}
    for key, value in application.json()["headers"]:
        found.setdefault(key.lower(), []).append(value)
    return found


def outside_port(variables: dict[str, Any], kind: str) -> int:
    return int(variables[f"nginx_public_{kind}_port"])


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    data = b""
    try:
        while part := connection.recv(4096):
            data += part
    except ConnectionResetError:
        pass
    return data


def test_plain_http_leads_to_https(
    web: Web, variables: dict[str, Any], site: dict[str, Any]
) -> None:
    """Under every name of the site, to the same page, on the port that clients see."""
    port = outside_port(variables, "https")
    for domain in site["domains"]:
        answer = web.ask(domain, "/a/b?c=d&e=%20", tls=False)
        authority = domain if port == 443 else f"{domain}:{port}"
        assert answer.status == 301
        assert answer.header("Location") == f"https://{authority}/a/b?c=d&e=%20"


def test_a_site_without_certificate_is_served_over_plain_http(
    web: Web, variables: dict[str, Any]
) -> None:
    """And without HSTS, with which browsers would refuse to come back."""
    domain = next(site for site in variables["nginx_sites"] if site["name"] == "plain")["domains"][
        0
    ]
    answer = web.ask(domain, "/x", tls=False)
    assert answer.status == 200
    assert answer.json()["path"] == "/x"
    assert answer.header("Strict-Transport-Security") is None
    sent = headers_of(answer)
    assert sent["x-forwarded-proto"] == ["http"]
    assert sent["x-forwarded-port"] == [str(outside_port(variables, "http"))]


def test_one_site_can_be_served_on_both(web: Web, variables: dict[str, Any], changed: bool) -> None:
    if not changed:
        pytest.skip("the defaults have no site with http: serve")
    for tls in (True, False):
        answer = web.ask("plain.example.org", tls=tls)
        assert answer.status == 200
        assert headers_of(answer)["x-forwarded-proto"] == ["https" if tls else "http"]


def test_an_unknown_name_gets_not_one_byte(web: Web, changed: bool) -> None:
    """Scanners ask by address; whoever gets an answer comes back."""
    if changed:
        pytest.skip("here a site answers for unknown names")
    for host in (UNKNOWN, web.address):
        with web.connect(tls=False) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert received(connection) == b""
    for greeting in (UNKNOWN, None):
        with pytest.raises(ssl.SSLError, match=r"UNRECOGNIZED_NAME|unrecognized name"):
            web.handshake(greeting)


def test_an_unknown_name_behind_a_known_greeting_gets_nothing_either(
    web: Web, name: str, changed: bool
) -> None:
    """TLS for a site, then another name in Host: that must not end at the welcome page."""
    if changed:
        pytest.skip("here a site answers for unknown names")
    with web.handshake(name):
        pass
    try:
        answer = web.ask(UNKNOWN, greeting=name)
    except (ConnectionResetError, ssl.SSLEOFError):
        # Taken, and closed without an answer. A server that is down refuses the connection.
        return
    assert answer.status == 421  # newer nginx says that itself
    assert b"Welcome" not in answer.body


def test_the_default_site_answers_for_unknown_names(
    web: Web, variables: dict[str, Any], changed: bool
) -> None:
    if not changed:
        pytest.skip("the defaults have no default site")
    assert web.ask(UNKNOWN).status == 200


def test_plain_http_repeats_no_name_that_a_client_made_up(
    web: Web, variables: dict[str, Any], changed: bool
) -> None:
    """The address that the client came to is the host's own, and leads on."""
    if not changed:
        pytest.skip("the defaults have no default site")
    answer = web.ask(UNKNOWN, "/x", tls=False)
    assert (answer.status, answer.header("Location")) == (421, None)
    assert b"<h1>Use HTTPS</h1>" in answer.body
    assert UNKNOWN.encode() not in answer.body
    answer = web.ask(web.address, "/x", tls=False)
    port = outside_port(variables, "https")
    assert (answer.status, answer.header("Location")) == (301, f"https://{web.address}:{port}/x")


def test_challenges_are_answered_under_any_name(
    web: Web, variables: dict[str, Any], name: str, as_root: Callable[[str], str]
) -> None:
    """The first certificate of a new name is asked for before its site is there."""
    place = f"{variables['nginx_challenge_directory']}/.well-known/acme-challenge"
    as_root(f"mkdir -p {place} && echo proof > {place}/token")
    asked = [(domain, False) for domain in (name, "plain.example.org", UNKNOWN)]
    # What stands in front of the host may lead the authority there.
    for domain, tls in (*asked, (name, True)):
        answer = web.ask(domain, "/.well-known/acme-challenge/token", tls=tls)
        assert (answer.status, answer.body) == (200, b"proof\n"), domain
        assert answer.header("Content-Type") == "text/plain"
        missing = web.ask(domain, "/.well-known/acme-challenge/none", tls=tls)
        assert missing.status == 404
    # Who could write there could have certificates for every name of the host.
    assert (
        as_root(f"find {variables['nginx_challenge_directory']} ! -user root -o -perm /022") == ""
    )
    as_root(f"rm -r {variables['nginx_challenge_directory']}/.well-known")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(web: Web, name: str, version: ssl.TLSVersion) -> None:
    """By the server: a client that would not even ask proves nothing."""
    context = anybody()
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        web.handshake(name, context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_current_tls_is_taken(web: Web, name: str, version: ssl.TLSVersion) -> None:
    context = anybody()
    context.minimum_version = context.maximum_version = version
    with web.handshake(name, context) as connection:
        assert connection.version() == version.name.replace("_", ".")


def test_exactly_the_suites_of_the_profile_are_taken(web: Web, name: str) -> None:
    """Offered one by one, all that the client knows, weak ones too."""
    everything = anybody()
    everything.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    offered = {
        str(suite["name"])
        for suite in everything.get_ciphers()
        # Those of 1.3 are not chosen from, and these need a secret that both sides share.
        if suite["protocol"] != "TLSv1.3" and not re.search("PSK|SRP", suite["name"])
    }
    assert len(offered) > 20
    taken, refused = set(), {}
    for suite in sorted(offered):
        context = anybody()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{suite}:@SECLEVEL=0")
        try:
            web.handshake(name, context).close()
        except ssl.SSLError as error:
            refused[suite] = str(error)
        else:
            taken.add(suite)
    assert all("HANDSHAKE_FAILURE" in error for error in refused.values()), refused
    assert taken == SUITES


def test_http_2_is_spoken(web: Web, name: str) -> None:
    """Agreed on in the handshake, and really spoken: the server's first frame is its settings."""
    context = anybody()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with web.handshake(name, context) as connection:
        assert connection.selected_alpn_protocol() == "h2"
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        frame = connection.recv(9)
        assert frame[3] == 4  # SETTINGS, RFC 9113 section 6.5


def test_a_session_is_not_resumed_with_a_ticket(web: Web, name: str) -> None:
    """A ticket's key would undo forward secrecy."""
    context = anybody()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with web.handshake(name, context) as connection:
        session = connection.session
        assert session is None or not session.has_ticket


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/static/page.css", 200),
        ("/static/none.css", 404),
        ("/metrics", 404),
        ("/unavailable", 503),
    ],
)
def test_every_answer_has_the_security_headers(
    web: Web, variables: dict[str, Any], site: dict[str, Any], name: str, path: str, status: int
) -> None:
    """Errors and files too: those are where a nested add_header would have dropped them."""
    answer = web.ask(name, path)
    assert answer.status == status
    for header, value in variables["nginx_security_headers"].items():
        assert answer.header(header) == value, header
    policy = site.get("content_security_policy", variables["nginx_content_security_policy"])
    assert answer.header("Content-Security-Policy") == policy.strip()
    age = variables["nginx_hsts_max_age_seconds"]
    below = "; includeSubDomains" if variables["nginx_hsts_include_subdomains"] else ""
    assert answer.header("Strict-Transport-Security") == f"max-age={age}{below}"
    assert answer.header("Server") == "nginx"


def test_what_the_application_says_stands(web: Web, variables: dict[str, Any], name: str) -> None:
    """It knows its pages better; two policies at once would both be enforced."""
    answer = web.ask(name, "/own-headers")
    assert answer.header("Content-Security-Policy") == "default-src data:"
    assert answer.header("X-Frame-Options") == "ALLOW-FROM-THE-APPLICATION"
    assert (
        answer.header("Referrer-Policy") == (variables["nginx_security_headers"]["Referrer-Policy"])
    )
    # These are nginx's to say.
    assert answer.header("X-Request-Id") != "the-applications"
    assert answer.header("X-Powered-By") is None
    assert "max-age=1" not in answer.all("Strict-Transport-Security")


def test_a_request_can_be_followed_through(
    web: Web, name: str, as_root: Callable[[str], str]
) -> None:
    """The id that the client sees, the application gets and the log holds is one."""
    answer = web.ask(name, "/followed", headers={"X-Request-Id": "the-clients"})
    number = answer.header("X-Request-Id")
    assert number
    assert len(number) == 32
    assert headers_of(answer)["x-request-id"] == [number]
    line = json.loads(as_root(f"grep {number} /var/log/nginx/access.log"))
    assert line["uri"] == "/followed"
    assert (line["method"], line["status"], line["host"]) == ("GET", 200, name)
    assert line["tls_protocol"].startswith("TLSv1.")
    assert line["seconds"] >= 0
    assert float(line["upstream_seconds"]) >= 0
    assert line["upstream_status"] == "200"


def test_nothing_that_a_client_claims_reaches_the_application(
    web: Web, variables: dict[str, Any], name: str, as_root: Callable[[str], str]
) -> None:
    """The application believes these, so a client that may send them is anybody it likes."""
    claims = {
        "X-Forwarded-For": "203.0.113.1",
        "X-Forwarded-Proto": "gopher",
        "X-Forwarded-Host": "evil.example.net",
        "X-Forwarded-Port": "31337",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Ssl": "off",
        "X-Forwarded-Protocol": "gopher",
        "X-Forwarded-Server": "evil.example.net",
        "X-Real-IP": "203.0.113.1",
        "X-Original-URL": "/evil",
        "X-Rewrite-URL": "/evil",
        "X-Correlation-Id": "203.0.113.1",
        "Forwarded": "for=203.0.113.1;host=evil.example.net",
        "Proxy": "http://evil.example.net",
    }
    answer = web.ask(name, "/claims", headers=claims)
    sent = headers_of(answer)
    number = answer.header("X-Request-Id")
    client = json.loads(as_root(f"grep {number} /var/log/nginx/access.log"))["remote_addr"]
    assert sent["x-forwarded-for"] == [client]
    assert sent["x-real-ip"] == [client]
    assert sent["x-forwarded-proto"] == ["https"]
    assert sent["x-forwarded-host"] == sent["host"] == [name]
    assert sent["x-forwarded-port"] == [str(outside_port(variables, "https"))]
    for claim in claims.values():
        assert not any(claim in value for values in sent.values() for value in values), claim


def test_a_body_is_limited_before_the_application_sees_it(
    web: Web, variables: dict[str, Any], site: dict[str, Any], name: str
) -> None:
    limit = site.get("max_body_size", variables["nginx_max_body_size"])
    size = int(limit[:-1]) * {"k": 2**10, "m": 2**20}[limit[-1]]
    fits = web.ask(name, "/body", method="POST", body=b"x" * size)
    assert (fits.status, fits.json()["body_bytes"]) == (200, size)
    # The length alone is enough to be refused, before a byte of the body.
    answer = web.ask(name, "/body", method="POST", headers={"Content-Length": str(size + 1)})
    assert answer.status == 413
    assert answer.header("X-Frame-Options")


def test_private_locations_are_not_for_the_world(web: Web, name: str) -> None:
    """However the path is written. The application would have answered each of these."""
    for path in ("/metrics", "/metrics/", "/metrics/x", "//metrics", "/%6detrics", "/a/../metrics"):
        assert web.ask(name, path).status == 404, path
    assert web.ask(name, "/metrics-of-another-kind").status == 200


def test_files_that_never_change_are_kept_by_clients(web: Web, name: str) -> None:
    """The name changes with the content; an error must not be kept, though."""
    answer = web.ask(name, "/static/page.css")
    assert answer.header("Cache-Control") == "public, max-age=31536000, immutable"
    assert answer.header("Content-Type") == "text/css; charset=utf-8"
    assert web.ask(name, "/static/none.css").header("Cache-Control") is None
    assert web.ask(name, "/downloads/report.csv").header("Cache-Control") is None
    assert web.ask(name, "/").header("Cache-Control") is None


def test_static_files_do_not_lead_out_of_their_directory(web: Web, name: str) -> None:
    for path in ("/static../releases", "/static/../../../../etc/passwd", "/static/%2e%2e/x"):
        answer = web.ask(name, path)
        # Refused, or a path of the application's.
        assert answer.status == 400 or answer.json()["path"] == path


def test_files_of_the_next_release_are_served_at_once(
    web: Web, name: str, as_root: Callable[[str], str]
) -> None:
    """Nothing reloads nginx when `current` moves."""
    assert web.ask(name, "/static/page.css").body == b"/* release 1 */\n"
    as_root("ln -sfn releases/2 /srv/echo/next && mv -T /srv/echo/next /srv/echo/current")
    assert web.ask(name, "/static/page.css").body == b"/* release 2 */\n"
    as_root("ln -sfn releases/1 /srv/echo/next && mv -T /srv/echo/next /srv/echo/current")


def test_text_is_compressed_if_wanted(web: Web, variables: dict[str, Any], name: str) -> None:
    answer = web.ask(name, "/", headers={"Accept-Encoding": "gzip"})
    assert answer.header("Content-Encoding") == ("gzip" if variables["nginx_gzip"] else None)
    assert answer.header("Vary") == ("Accept-Encoding" if variables["nginx_gzip"] else None)


def test_a_site_of_files_needs_no_application(web: Web, changed: bool) -> None:
    if not changed:
        pytest.skip("the defaults have no such site")
    assert web.ask("files.example.org", "/report.csv", tls=False).body == b"a,b\n"
    assert web.ask("files.example.org", "/none", tls=False).status == 404


def test_the_applications_own_errors_pass(web: Web, variables: dict[str, Any], name: str) -> None:
    """/readyz says in its body what is not ready; a page of nginx's would hide that."""
    answer = web.ask(name, "/unavailable")
    assert (answer.status, answer.json()["path"]) == (503, "/unavailable")
    assert answer.header("Retry-After") == str(variables["nginx_retry_after_seconds"])


def test_a_slow_application_is_given_up(
    web: Web, variables: dict[str, Any], name: str, as_root: Callable[[str], str]
) -> None:
    """And a POST is not repeated: that would charge a toll twice."""
    if variables["nginx_proxy_read_timeout_seconds"] > 5:
        assert web.ask(name, "/slow").status == 200
        return
    start = time.monotonic()
    answer = web.ask(name, "/slow", method="POST", body=b"x")
    assert answer.status == 504
    assert time.monotonic() - start < 5
    assert b"<h1>Back in a moment</h1>" in answer.body
    line = json.loads(as_root(f"grep {answer.header('X-Request-Id')} /var/log/nginx/access.log"))
    assert (line["method"], line["upstream_status"]) == ("POST", "504")


def test_a_dead_application_is_a_calm_page(
    web: Web, name: str, as_root: Callable[[str], str]
) -> None:
    as_root("systemctl stop echo.service")
    try:
        answer = web.ask(name, "/", method="POST", body=b"x")
    finally:
        as_root("systemctl start echo.service")
        # It has begun to start. Those who come next want it to answer.
        wait_for(lambda: answers(web, name))
    assert answer.status == 502
    assert b"<h1>Back in a moment</h1>" in answer.body
    assert answer.header("X-Frame-Options")
    assert answer.header("Cache-Control") is None
    line = json.loads(as_root(f"grep {answer.header('X-Request-Id')} /var/log/nginx/access.log"))
    assert (line["method"], line["status"]) == ("POST", 502)


def test_the_page_for_errors_has_no_address_of_its_own(web: Web, name: str) -> None:
    assert web.ask(name, "/.unavailable.html").status == 404


def test_every_line_of_the_log_is_json(web: Web, name: str, as_root: Callable[[str], str]) -> None:
    """Whatever a client sends: one line that does not parse, and the log's reader stops."""
    hostile = b'"\\\x01\t{}\xc3\xa4'
    for nonsense in (
        b"GET /" + hostile + b" HTTP/1.0\r\nUser-Agent: " + hostile + b"\r\n\r\n",
        b"GET / HTTP/1.0\r\nReferer: " + hostile + b"\r\nUser-Agent: \xff\xfe\r\n\r\n",
        b"\x16\x03\x01\x02\n\n",
        b"GET\r\n\r\n",
    ):
        with web.connect(tls=False) as connection:
            connection.sendall(nonsense)
            received(connection)
    with web.connect(tls=False) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: " + name.encode())
    time.sleep(0.2)
    raw = base64.b64decode(as_root("base64 /var/log/nginx/access.log"))
    lines = raw.decode().splitlines()
    assert len(lines) > 20
    keys = {frozenset(json.loads(line)) for line in lines}
    assert len(keys) == 1


def test_http2_is_spoken(web: Web, name: str) -> None:
    """A directive of the wrong version is taken without a word, and clients get HTTP/1."""
    connection = web.handshake(name, http2.offering(anybody()))
    streams = http2.exchange(connection, [http2.get(name, path) for path in ("/a", "/b")])
    assert [stream.status for stream in streams] == [200, 200]
    assert [json.loads(stream.body)["path"] for stream in streams] == ["/a", "/b"]


def test_http3_is_spoken_where_it_is_wanted(
    web: Web, name: str, as_root: Callable[[str], str]
) -> None:
    """Of a version that does not exist, it says which ones do: nothing but QUIC answers so."""
    wanted = " quic" in as_root("nginx -T 2>/dev/null")
    offered = web.ask(name).header("Alt-Svc")
    assert bool(offered) is wanted
    if not wanted:
        return
    own, others = b"\x01" * 8, b"\x02" * 8
    hello = b"\xc0\x1a\x2a\x3a\x4a" + b"\x08" + others + b"\x08" + own
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT)
        client.sendto(hello.ljust(1200, b"\x00"), (web.address, web.https_port))
        answer = client.recv(2000)
    assert answer[1:5] == b"\0\0\0\0"
    assert answer[5:23] == b"\x08" + own + b"\x08" + others
    assert b"\0\0\0\x01" in answer[23:]


def test_a_location_asks_for_a_password(
    web: Web, name: str, changed: bool, as_root: Callable[[str], str]
) -> None:
    """Workers read the file, and nobody else on the host does."""
    if not changed:
        pytest.skip("the defaults have no users")
    assert web.ask(name, "/staff/").status == 401
    for password, status in (("swordfish", 200), ("guess", 401)):
        token = base64.b64encode(f"anna:{password}".encode()).decode()
        answer = web.ask(name, "/staff/", headers={"Authorization": f"Basic {token}"})
        assert answer.status == status
    shown = as_root("stat -c '%a %U %G' /etc/nginx/users/*").splitlines()
    assert shown == ["640 root www-data"]


def test_a_client_that_asks_too_much_waits(web: Web, name: str, changed: bool) -> None:
    """Those who ask for other pages do not."""
    if not changed:
        pytest.skip("the defaults let a client ask more than a test does")
    statuses = [web.ask(name, "/login").status for _ in range(6)]
    assert statuses == [200] * 4 + [429] * 2
    assert web.ask(name, "/login").header("Retry-After") == "30"
    assert web.ask(name, "/").status == 200
