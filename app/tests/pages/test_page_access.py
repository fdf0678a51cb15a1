"""Who may open what: strangers, roles, and what every answer says to browsers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flask import Flask
from sqlalchemy.exc import OperationalError

from toll import create_app, security
from toll.models import USER_ROLES

ONE_DATABASE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
LEAST = {
    "operator.dashboard": "viewer",
    "operator.dashboard_parts": "viewer",
    "operator.passages": "viewer",
    "operator.export": "viewer",
    "operator.passage": "viewer",
    "account.logout": "viewer",
    "operator.record": "operator",
    "operator.send_record": "operator",
    "admin.tariffs": "admin",
    "admin.new_tariff": "admin",
    "admin.send_new_tariff": "admin",
    "admin.end_tariff": "admin",
    "admin.send_end_tariff": "admin",
}
PUBLIC = {
    "public.calculator",
    "account.login",
    "account.make_known",
    "account.send_login",
    "assets.serve",
    "docs.page",
}


def rules(app: Flask) -> list[tuple[str, str, str]]:
    """Return method, path and endpoint of every route of the pages."""
    return [
        (method, rule.rule.replace("<int:passage_id>", "1").replace("<int:tariff_id>", "1"), name)
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        if (name := rule.endpoint) in LEAST
    ]


@ONE_DATABASE
def test_every_route_says_who_may_see_it_and_this_is_what_they_say(app):
    """A page that is added, or opened to more people, has to be said here too."""
    found = {name: security.access_of(app, name) for name in app.view_functions}
    assert {name: access for name, access in found.items() if access in USER_ROLES} == LEAST
    assert security.public_endpoints(app) >= PUBLIC
    pages = ("public", "account", "operator", "admin")
    ours = {name for name in found if name.partition(".")[0] in pages}
    assert ours - LEAST.keys() == PUBLIC - {"assets.serve", "docs.page"}


@ONE_DATABASE
def test_application_with_a_route_that_says_nothing_does_not_start(app):
    app.add_url_rule("/bare", "bare", lambda: "open to all", methods=["GET"])
    with pytest.raises(RuntimeError, match=r"who may see bare\. Mark each view with @public"):
        security.check_routes(app)
    # Nor would it be open if it did.
    assert app.test_client().get("/bare").status_code == 403


@ONE_DATABASE
def test_stranger_is_sent_to_log_in_and_nothing_else_happens(app, visitor):
    assert len(rules(app)) == len(LEAST)
    for method, path, _ in rules(app):
        if method == "GET":
            answer = visitor.get(path)
            assert answer.status_code == 303
            assert answer.location.startswith("/login?next=")
        else:
            assert visitor.post(path, {}).status_code == 401
    assert visitor.client.open("/dashboard", method="DELETE").status_code == 405


def test_each_role_gets_what_it_may_and_403_for_the_rest(app, log_in):
    """Also by requests that no page of theirs offers."""
    for rank, role in enumerate(USER_ROLES):
        visitor = log_in(role)
        token = visitor.hidden("/dashboard")["csrf_token"]
        for method, path, name in rules(app):
            if name == "account.logout":
                continue
            answer = (
                visitor.get(path)
                if method == "GET"
                else visitor.post(path, {"csrf_token": token, "at": "wrong"})
            )
            if rank < USER_ROLES.index(LEAST[name]):
                assert answer.status_code == 403, (role, name)
                assert f"takes the role {LEAST[name]}" in answer.text
            else:
                # 404: there is no passage yet. 422: the form was empty.
                assert answer.status_code in (200, 404, 422), (role, name)


@ONE_DATABASE
def test_live_refresh_of_a_stranger_is_not_sent_to_a_page(visitor):
    """Its script would put the log-in form where the numbers are."""
    headers = {"X-Refresh": "1"}
    assert visitor.client.get("/dashboard/parts", headers=headers).status_code == 401


@ONE_DATABASE
@pytest.mark.parametrize("fields", [{}, {"csrf_token": "x"}, {"csrf_token": ""}])
def test_form_without_its_token_is_refused(log_in, session, fields):
    visitor = log_in("admin")
    for path in ("/passages/new", "/tariffs/new", "/tariffs/1/end", "/logout"):
        answer = visitor.post(path, fields)
        assert answer.status_code == 400, path
        assert "Nothing was changed" in answer.text
    assert visitor.post("/login", fields | {"name": "admin"}).status_code == 400


@ONE_DATABASE
def test_token_of_somebody_else_is_refused(log_in):
    other, visitor = log_in("admin"), log_in("operator")
    token = other.hidden("/dashboard")["csrf_token"]
    assert visitor.post("/passages/new", {"csrf_token": token}).status_code == 400


@ONE_DATABASE
def test_form_from_another_site_is_refused(log_in):
    """Over HTTPS a browser says where a form comes from."""
    visitor = log_in("operator")
    fields = visitor.hidden("/passages/new")
    for referrer in ("https://elsewhere.example/", "https://toll.example:8443/", ""):
        answer = visitor.client.post(
            "/passages/new",
            data=fields,
            base_url="https://toll.example",
            headers={"Referer": referrer},
        )
        assert answer.status_code == 400, referrer


@ONE_DATABASE
@pytest.mark.parametrize(
    "path", ["/", "/login", "/dashboard", "/no", "/static/x/y", "/api", "/healthz"]
)
def test_every_answer_tells_browsers_what_not_to_do(visitor, path):
    headers = visitor.get(path).headers
    policy = dict(
        part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    for directive in ("script-src", "style-src", "img-src", "connect-src", "form-action"):
        assert policy[directive] == "'self'"
    for directive in ("base-uri", "frame-ancestors"):
        assert policy[directive] == "'none'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "strict-origin-when-cross-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"


@ONE_DATABASE
def test_broken_database_still_gives_a_page_that_says_so(log_in, session, app, monkeypatch):
    """The page for the error must not ask the database who is logged in, and fail too."""
    visitor = log_in("viewer")

    def fail(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr("sqlalchemy.orm.Session.get", fail)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    answer = visitor.get("/dashboard")
    assert answer.status_code == 503
    assert "please name the request" in answer.text


@ONE_DATABASE
def test_static_file_may_be_kept_only_under_the_address_of_its_content(app, visitor):
    digest = app.extensions["toll.assets"]["toll.css"]
    kept = visitor.get(f"/static/{digest}/toll.css")
    assert kept.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    other = visitor.get("/static/00000000/toll.css")
    assert other.status_code == 200
    assert other.headers["Cache-Control"] == "no-store"
    for path in ("/static/x/no.css", f"/static/{digest}/..%2f__init__.py", "/static/toll.css"):
        assert visitor.get(path).status_code == 404


@ONE_DATABASE
def test_cookies_work_over_plain_http_in_development_only(settings, session):
    """There is no certificate on one's own machine."""
    development = create_app(replace(settings, development=True))
    [cookie] = development.test_client().get("/login").headers.getlist("Set-Cookie")
    assert cookie.startswith("toll=")
    assert "Secure" not in cookie
