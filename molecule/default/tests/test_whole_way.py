"""From the browser's side: names, TLS, headers, answers, and that they come from the release."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Site


def test_certificate_comes_from_the_authority_and_names_every_domain(
    site: Site, toll: dict[str, Any]
) -> None:
    """The client trusts only the authority's root, so an answer proves the chain."""
    certificate = site.get("/healthz").certificate
    names = {value for kind, value in certificate["subjectAltName"] if kind == "DNS"}
    assert names == set(toll["domains"])
    issuer = {key: value for part in certificate["issuer"] for key, value in part}
    assert "Pebble" in issuer["commonName"]


def test_every_domain_is_served(site: Site, toll: dict[str, Any]) -> None:
    for name in toll["domains"]:
        assert site.get("/healthz", name=name).status == 200


def test_http_is_redirected(site: Site) -> None:
    answer = site.get("/?plaza=x", tls=False)
    assert answer.status == 301
    assert answer.headers["location"] == f"https://{site.name}/?plaza=x"


def test_unknown_name_gets_nothing(site: Site) -> None:
    """Whoever scans addresses does not learn what runs here, and no other name's cookie is set."""
    with pytest.raises((ConnectionError, OSError)):
        site.get("/", tls=False, name="elsewhere.example")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        site.get("/", name="elsewhere.example")


def test_quote_over_https(site: Site) -> None:
    plazas = site.get("/api/v1/quote?plaza=nowhere&class=car")
    assert plazas.status in (400, 404, 422)
    assert plazas.headers["content-type"] == "application/problem+json"
    problem = plazas.json()
    assert "nowhere" in json.dumps(problem)


def test_security_headers_are_on_every_answer(site: Site) -> None:
    for path in ("/", "/healthz", "/nowhere", "/static/nowhere.css"):
        headers = site.get(path).headers
        assert headers["strict-transport-security"].startswith("max-age=63072000"), path
        assert headers["x-content-type-options"] == "nosniff", path
        assert "default-src '" in headers["content-security-policy"], path
        assert "nginx/" not in headers.get("server", ""), path


def test_health_names_the_current_release(site: Site, as_root: Callable[[str], str]) -> None:
    """The link on disk is a wish; the answer says what runs."""
    current = as_root("readlink /opt/toll-app/current").strip().rsplit("/", 1)[-1]
    for path in ("/healthz", "/readyz", "/version"):
        assert site.get(path).json()["release"] == current


def test_localhost_5000_answers_on_the_host(as_root: Callable[[str], str]) -> None:
    """The command of the documentation, with what a minimal host has in place of curl."""
    script = "import urllib.request as u; print(u.urlopen('http://localhost:5000/healthz').status)"
    assert as_root(f'python3 -c "{script}"').strip() == "200"


def test_one_request_is_followed_by_its_id(
    host: Host, site: Site, as_root: Callable[[str], str]
) -> None:
    """The id that the client sees stands in nginx's log, and a client cannot choose it."""
    answer = site.get("/nowhere-to-be-found", X_Request_Id="forged", X_Forwarded_For="203.0.113.9")
    line = json.loads(as_root("grep -h nowhere-to-be-found /var/log/nginx/*.log | tail -n 1"))
    identifier = answer.headers["x-request-id"]
    assert identifier != "forged"
    assert identifier in line.values()
    assert "203.0.113.9" not in line.values()
