"""Nobody sees by accident what is not for everybody: every route of the application is walked."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from toll import create_app, security

# What strangers may see, by name: a route that becomes public is to be noticed here.
PUBLIC = {
    "account.login",
    "account.make_known",
    "account.send_login",
    "api.list_classes",
    "api.list_plazas",
    "api.list_tariffs",
    "api.quote",
    "assets.serve",
    "docs.page",
    "document.openapi",
    "health.healthz",
    "health.readyz",
    "health.version",
    "metrics.metrics",
    "public.calculator",
}
VALUES = {"token": "none", "passage_id": "1", "tariff_id": "1", "digest": "0", "name": "toll.css"}

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


def address(rule) -> str:
    """Return an address of the rule, with a value for each of its variables."""
    return re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", lambda match: VALUES[match[1]], rule.rule)


def routes(app):
    """Yield each rule with each of its methods."""
    for rule in app.url_map.iter_rules():
        for method in sorted(rule.methods - {"OPTIONS"}):
            yield rule, method


def test_public_are_those_that_are_listed(app):
    assert security.public_endpoints(app) == PUBLIC
    assert PUBLIC <= {rule.endpoint for rule in app.url_map.iter_rules()}


def test_every_other_route_refuses_a_stranger(app):
    refused = 0
    for rule, method in routes(app):
        if rule.endpoint in PUBLIC:
            continue
        # A new visitor each time: none has a session.
        answer = app.test_client().open(address(rule), method=method)
        if rule.rule.startswith("/api/"):
            assert answer.status_code == 401, (method, rule)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer"), (method, rule)
        elif method in ("GET", "HEAD"):
            assert answer.status_code == 303, (method, rule)
            assert urlsplit(answer.headers["Location"]).path == "/login", (method, rule)
        else:
            # 400 would be said of a missing token, to somebody who is known.
            assert answer.status_code == 401, (method, rule)
        refused += 1
    assert refused > 20


def test_a_stranger_sees_what_is_public(app):
    for rule, method in routes(app):
        if rule.endpoint in PUBLIC and method == "GET":
            with app.test_client().open(address(rule), method=method) as answer:
                # A quote for nothing is refused for what it lacks.
                expected = {"api.quote": 400, "account.make_known": 303}.get(rule.endpoint, 200)
                assert answer.status_code == expected, rule


def test_a_route_without_a_marker_keeps_the_application_from_starting(app):
    app.add_url_rule("/forgotten", view_func=lambda: "secret", endpoint="forgotten")
    with pytest.raises(RuntimeError, match="who may see forgotten"):
        security.check_routes(app)
    assert app.test_client().get("/forgotten").status_code == 403


def test_options_say_the_methods_and_nothing_else(app):
    for rule in app.url_map.iter_rules():
        answer = app.test_client().open(address(rule), method="OPTIONS")
        if rule.endpoint in PUBLIC or rule.rule.startswith("/api/"):
            assert (answer.status_code, answer.text) == (200, ""), rule
        else:
            assert answer.status_code == 401, rule


@pytest.mark.parametrize("path", ["//login", "/login/", "/api//v1/quote", "//x.example/"])
def test_no_answer_leads_to_a_host_that_the_client_named(settings, path):
    """nginx's default site passes every name on, and a redirect would spread it."""
    client = create_app(replace(settings, proxies=1)).test_client()
    named = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    # As the server hands it over: the test client would take //x for a host.
    answer = client.get("/", headers=named, environ_overrides={"PATH_INFO": path})
    assert answer.status_code in (200, 404)
    assert "Location" not in answer.headers
