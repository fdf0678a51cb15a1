"""Whatever nginx answers by itself carries the security headers, on each system's nginx."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conftest import Web
from refusals import REFUSALS, UNKNOWN, exchange, faults, get


def expected(variables: dict[str, Any], *, tls: bool) -> dict[str, str]:
    """The headers of every answer but the policy, which differs by site."""
    headers = {name: str(value) for name, value in variables["nginx_security_headers"].items()}
    if tls:
        below = "; includeSubDomains" if variables["nginx_hsts_include_subdomains"] else ""
        age = variables["nginx_hsts_max_age_seconds"]
        headers["Strict-Transport-Security"] = f"max-age={age}{below}"
    return headers


def test_whatever_nginx_refuses_carries_the_headers(
    web: Web, variables: dict[str, Any], name: str, changed: bool, as_root: Callable[[str], str]
) -> None:
    """Malformed requests, odd methods and unknown names come before a site's own rules."""
    sites = variables["nginx_sites"]
    policies = {
        str(each.get("content_security_policy", variables["nginx_content_security_policy"])).strip()
        for each in [*sites, {}]
    }
    before = as_root("grep -vc ' \\[error\\] ' /var/log/nginx/error.log || true")
    wrong = []
    for refusal in REFUSALS:
        for tls in (True, False):
            if not (refusal.tls if tls else refusal.plain):
                continue
            connection = web.handshake(name) if tls else web.connect(tls=False)
            answer = exchange(connection, refusal.request, name)
            if answer.status is None and UNKNOWN in refusal.request and not changed:
                continue  # closed, which says even less
            found = faults(refusal, answer, expected(variables, tls=tls))
            if not set(answer.headers.get("content-security-policy", [""])) <= policies:
                found.append(f"{refusal.name}: no policy")
            wrong += [f"{'https' if tls else 'http'}: {fault}" for fault in found]
    assert not wrong, "\n".join(wrong)
    after = as_root("grep -vc ' \\[error\\] ' /var/log/nginx/error.log || true")
    assert after == before, as_root("tail -n 20 /var/log/nginx/error.log")


def test_the_port_for_tls_refuses_plain_http_with_the_headers(
    web: Web, variables: dict[str, Any], name: str
) -> None:
    for request in (get("/"), get("/%00")):
        answer = exchange(web.connect(tls=True), request, name)
        assert answer.status == 400
        assert answer.headers["content-security-policy"]
        for header, value in expected(variables, tls=False).items():
            assert answer.headers[header.lower()] == [value], header
