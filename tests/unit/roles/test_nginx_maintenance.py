"""A site in maintenance, by a running nginx: who gets the page, who gets the site."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .serving import Serving, Upstream, serving
from .test_nginx import certificate, installed_version, nginx_program

__all__ = ["certificate", "installed_version", "nginx_program"]  # fixtures

# Addresses of the loopback that are not the one at which the host asks itself.
STRANGER, OFFICE = "127.0.0.2", "127.0.1.7"
SITE = {
    "maintenance_allow": ["127.0.1.0/24"],
    "maintenance_open": ["/status"],
    "health_paths": ["/healthz", "/STATUS", "/"],
    "cache": {"locations": ["/kept"]},
    "private_locations": ["/metrics"],
}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    nginx_program: tuple[Path, Path],
    certificate: tuple[Path, Path],
    installed_version: dict[str, str],
) -> Iterator[Serving]:
    directory = tmp_path_factory.mktemp("maintenance")
    for name, text in {
        "challenge/.well-known/acme-challenge/token": "proof",
        "static/style.css": "a {}",
        "etc/nginx/maintenance/other": "",
    }.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    upstream = Upstream(
        directory / "app.sock", lambda _: (200, {"Cache-Control": "public, s-maxage=60"}, "app")
    )
    static = [{"location": "/static/", "directory": str(directory / "static")}]
    with serving(
        directory,
        nginx_program,
        certificate,
        upstream,
        installed_version,
        {**SITE, "static": static},
        nginx_challenge_directory=str(directory / "challenge"),
        nginx_maintenance_retry_after_seconds=900,
    ) as made:
        yield made
    assert not made.complaints()


@pytest.fixture
def flag(running: Serving) -> Iterator[Path]:
    """The file that takes the site into maintenance; it is gone at the end."""
    path = running.directory / "etc/nginx/maintenance/plain.on"
    yield path
    path.unlink(missing_ok=True)


def test_the_file_alone_switches_it(running: Serving, flag: Path) -> None:
    """At once and without a reload; another site's file does nothing."""
    (flag.parent / "plain.example.org.on").touch()
    (flag.parent / "plain.off.on").touch()
    assert running.ask("/", source=STRANGER).body == "app"
    flag.touch()
    assert running.ask("/", source=STRANGER).status == 503
    flag.unlink()
    assert running.ask("/", source=STRANGER).body == "app"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_stranger_gets_the_page_wherever_he_asks(
    running: Serving, flag: Path, method: str
) -> None:
    """Not the application, nor what nginx keeps or serves of it."""
    assert running.ask("/kept", source=STRANGER).body == "app"
    flag.touch()
    before = len(running.paths())
    for path in ("/", "/kept", "/static/style.css", "/metrics", "/healthz/more", "/a?b=c"):
        answer = running.ask(path, method=method, source=STRANGER, body="x")
        assert answer.status == 503, path
        assert "<h1>Down for maintenance</h1>" in answer.body
        assert answer.headers["retry-after"] == "900"
        assert answer.headers["content-type"] == "text/html"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "content-security-policy" in answer.headers
    assert len(running.paths()) == before
    assert {line["status"] for line in running.log()[-6:]} == {503}
    assert {line["method"] for line in running.log()[-6:]} == {method}


@pytest.mark.parametrize(
    ("accept", "problem"),
    [
        ("application/json", True),
        ("application/problem+json, */*;q=0.1", True),
        ("text/html,application/xhtml+xml,application/json;q=0.9", False),
        ("*/*", False),
    ],
)
def test_a_program_gets_a_problem(running: Serving, flag: Path, accept: str, problem: bool) -> None:
    flag.touch()
    answer = running.ask("/api", {"Accept": accept}, source=STRANGER, method="POST", body="{}")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "900"
    if problem:
        assert answer.headers["content-type"] == "application/problem+json"
        assert json.loads(answer.body)["status"] == 503
    else:
        assert answer.headers["content-type"] == "text/html"


def test_some_get_through(running: Serving, flag: Path) -> None:
    """The office, the host itself, a balancer's question, and a certificate authority."""
    flag.touch()
    for source in (OFFICE, "127.0.0.1"):
        assert running.ask("/", source=source).body == "app"
    for path in ("/healthz", "/status"):
        assert running.ask(path, source=STRANGER).body == "app"
    token = "/.well-known/acme-challenge/token"
    assert running.ask(token, source=STRANGER).body == "proof"
    # Who claims to be there is not there.
    claims = {"X-Forwarded-For": OFFICE, "X-Real-IP": OFFICE, "Forwarded": f"for={OFFICE}"}
    assert running.ask("/", claims, source=STRANGER).status == 503


def test_the_page_has_no_address_of_its_own(running: Serving, flag: Path) -> None:
    """Outside of maintenance these are the application's, which has no such page."""
    for path in ("/.maintenance", "/.maintenance.html", "/.maintenance.json"):
        assert running.ask(path, source=STRANGER).status == 404
    flag.touch()
    for path in ("/.maintenance", "/.maintenance.html", "/x/../.maintenance"):
        assert running.ask(path, source=STRANGER).status in (404, 503)


def test_an_answer_of_the_application_keeps_its_own_time(running: Serving, flag: Path) -> None:
    running.upstream.stop()
    try:
        answer = running.ask("/", source=STRANGER)
        assert (answer.status, answer.headers.get("retry-after")) == (502, None)
    finally:
        running.upstream.start()


def test_the_option_needs_no_file(
    tmp_path: Path,
    nginx_program: tuple[Path, Path],
    certificate: tuple[Path, Path],
    installed_version: dict[str, str],
) -> None:
    upstream = Upstream(tmp_path / "app.sock", lambda _: (200, {}, "app"))
    site = {"maintenance": True, "maintenance_open": ["/healthz"]}
    with serving(tmp_path, nginx_program, certificate, upstream, installed_version, site) as made:
        assert made.ask("/", source=STRANGER).status == 503
        assert made.ask("/healthz", source=STRANGER).body == "app"
        assert made.ask("/").body == "app"
