"""dev-sec's nginx baseline, control by control (https://github.com/dev-sec/nginx-baseline, v2), and
what of CIS's benchmark no other test looks at (docs/proof/nginx-cis.md).

Its controls read one file of configuration; these look at what nginx does, and where the role has
another value than the baseline, the docstring says why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Web
from refusals import exchange, get
from testinfra.host import Host

LARGEST_HEADERS_BYTES = 64 * 1024


@pytest.fixture
def configuration(as_root: Callable[[str], str]) -> str:
    """All of it, as nginx reads it."""
    return as_root("nginx -T 2>/dev/null")


def test_nginx_01_workers_run_as_a_user_of_their_own(
    host: Host, as_root: Callable[[str], str]
) -> None:
    users = set(as_root("ps -o user= -C nginx --sort pid | tail -n +2").split())
    assert len(users) == 1
    user = users.pop()
    assert host.user(user).exists
    assert host.user(user).uid != 0
    assert host.user(user).group != "root"


def test_nginx_02_the_configuration_is_roots(host: Host) -> None:
    """The baseline also keeps others from reading it. It holds no secret here, and operators who
    are not root read it to find a mistake; keys are elsewhere, for root alone."""
    file = host.file("/etc/nginx/nginx.conf")
    assert (file.user, file.group) == ("root", "root")
    assert file.mode & 0o133 == 0


def test_nginx_03_the_packages_sites_are_not_served(
    host: Host, configuration: str, variables: dict[str, Any]
) -> None:
    assert not host.file("/etc/nginx/conf.d/default.conf").exists
    assert "sites-enabled" not in configuration


def test_nginx_04_there_is_one_instance(as_root: Callable[[str], str]) -> None:
    assert as_root("pgrep --count --full '^nginx: master process'").strip() == "1"


def test_nginx_05_no_version_is_told(web: Web, name: str) -> None:
    for answer in (web.ask(name), web.ask(name, "/downloads/")):
        assert answer.header("Server") == "nginx"
        assert b"nginx/" not in answer.body


def test_nginx_06_what_a_client_sends_has_limits(
    web: Web, name: str, variables: dict[str, Any]
) -> None:
    """The baseline takes 1 KiB for everything, which a cookie or a form exceeds."""
    size = LARGEST_HEADERS_BYTES
    many = [f"X-{number}: {'x' * 4000}" for number in range(size // 4000 + 1)]
    assert exchange(web.handshake(name), get("/", *many), name).status == 400
    large = get("/", "Content-Length: 99999999", method="POST")
    assert exchange(web.handshake(name), large, name).status == 413


def test_nginx_07_a_client_that_is_silent_is_given_up(
    configuration: str, variables: dict[str, Any]
) -> None:
    """15 s in place of 10: a mobile connection takes that to recover from a lost packet. Idle ones
    are kept for 60 s in place of 5, since a new handshake costs more than a connection's memory."""
    seconds = variables["nginx_client_timeout_seconds"]
    assert seconds <= 15
    for directive in ("client_header_timeout", "client_body_timeout", "send_timeout"):
        assert f"\n{directive} {seconds}s;" in configuration


def test_nginx_08_no_page_is_framed(web: Web, name: str, variables: dict[str, Any]) -> None:
    wanted = variables["nginx_security_headers"]["X-Frame-Options"]
    assert wanted in ("DENY", "SAMEORIGIN")
    assert web.ask(name).header("X-Frame-Options") == wanted


def test_nginx_09_scripts_are_held_off_by_a_policy(web: Web, name: str) -> None:
    """The baseline's X-XSS-Protection is gone from browsers, and opened holes in those that had it;
    a policy does what it was for."""
    answer = web.ask(name)
    assert answer.header("X-XSS-Protection") is None
    assert answer.header("Content-Security-Policy")


def test_nginx_10_types_are_not_guessed(web: Web, name: str, changed: bool) -> None:
    """The changed variant replaces the headers, and says so."""
    assert web.ask(name).header("X-Content-Type-Options") == (None if changed else "nosniff")


def test_cis_2_1_2_files_cannot_be_written(web: Web, name: str) -> None:
    """The package is built with WebDAV."""
    path = "/downloads/report.csv"
    before = web.ask(name, path).body
    for method in ("PUT", "DELETE", "MKCOL", "COPY", "MOVE"):
        assert web.ask(name, path, method=method, body=b"x").status in (404, 405), method
    assert web.ask(name, path).body == before


def test_cis_2_1_4_directories_are_not_listed(web: Web, name: str) -> None:
    assert web.ask(name, "/downloads/report.csv").status == 200
    answer = web.ask(name, "/downloads/")
    assert answer.status in (403, 404)
    assert b"report.csv" not in answer.body


def test_cis_2_2_2_the_workers_user_cannot_log_in(as_root: Callable[[str], str]) -> None:
    user = as_root("ps -o user= -C nginx --sort pid | tail -n 1").strip()
    assert as_root(f"getent passwd {user}").strip().rpartition("/")[2] in ("nologin", "false")
    assert as_root(f"getent shadow {user}").split(":")[1][0] in "!*"


def test_cis_2_3_3_the_file_with_the_masters_number_is_roots(host: Host) -> None:
    """The distribution's scripts send signals to whom it names."""
    file = host.file("/run/nginx.pid")
    assert (file.user, file.group, file.mode & 0o022) == ("root", "root", 0)
