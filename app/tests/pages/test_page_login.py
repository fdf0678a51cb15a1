"""Log-in, sessions, their cookie, and what keeps guesses few."""

from __future__ import annotations

import re

import pytest
from visiting import PASSWORD, Visitor, alert

from toll import security
from toll.services import accounts

ONE_DATABASE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


def test_cookie_goes_to_this_host_alone_over_https_and_to_no_script(visitor, session):
    accounts.create_user(session, "anna", PASSWORD, "operator")
    cookies = visitor.log_in("anna").headers.getlist("Set-Cookie")
    assert len(cookies) == 2
    for cookie, expected in zip(
        sorted(cookies), ("__Host-toll-device=", "__Host-toll="), strict=True
    ):
        name, *flags = [part.strip() for part in cookie.split(";")]
        # Browsers refuse the prefix unless it is Secure, with the path / and without a domain.
        assert name.startswith(expected)
        kept = [flag for flag in flags if not flag.startswith(("Expires=", "Max-Age="))]
        assert sorted(kept) == ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]
        # The session ends with the browser; the device is known for longer.
        assert (kept == flags) == (expected == "__Host-toll=")


def test_log_in_leaves_nothing_of_the_session_before(visitor, session):
    """Whoever planted a session, or read the token of one, has nothing of the one after."""
    accounts.create_user(session, "anna", PASSWORD, "operator")
    before = visitor.hidden("/login")["csrf_token"]
    planted = visitor.cookie()
    visitor.log_in("anna")
    assert visitor.cookie() != planted
    refused = visitor.post("/passages/new", {"csrf_token": before})
    assert refused.status_code == 400
    assert "does not belong to your session" in refused.text


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("anna", "not the password"),
        ("nobody", PASSWORD),
        ("anna", ""),
        ("\0", "x"),
        ("x" * 99, "x"),
    ],
)
def test_wrong_name_and_wrong_password_look_the_same(visitor, session, name, password):
    accounts.create_user(session, "anna", PASSWORD, "operator")
    answer = visitor.log_in(name, password)
    assert answer.status_code == 422
    assert "Set-Cookie" not in answer.headers or "since" not in str(answer.headers)
    if password:
        assert alert(answer) == "Name or password is wrong. Check both, and try again."
    assert visitor.get("/dashboard").status_code == 303
    assert PASSWORD not in answer.text


def test_disabled_user_is_refused_and_thrown_out(log_in, session):
    visitor = log_in("operator")
    assert visitor.get("/dashboard").status_code == 200
    accounts.disable_user(session, accounts.find_user(session, "operator"))
    assert visitor.get("/dashboard").status_code == 303
    assert visitor.log_in("operator").status_code == 422


@pytest.mark.parametrize("change", ["password", "sessions"])
def test_password_change_ends_sessions(log_in, session, change):
    """A cookie that was stolen ends with it."""
    visitor = log_in("operator")
    user = accounts.find_user(session, "operator")
    if change == "password":
        accounts.set_password(session, user, "some other four words")
    else:
        accounts.end_sessions(session, user)
    assert visitor.get("/dashboard").status_code == 303


@ONE_DATABASE
def test_session_ends_after_a_working_day(log_in, monkeypatch):
    visitor = log_in("operator")
    monkeypatch.setattr(security, "SESSION_HOURS", 0)
    assert visitor.get("/dashboard").status_code == 303


@ONE_DATABASE
def test_log_out_ends_the_session_and_takes_a_post(log_in):
    visitor = log_in("viewer")
    # A link or an image on another site must not log anybody out.
    assert visitor.get("/logout").status_code == 405
    assert visitor.post("/logout", {}).status_code == 400
    assert visitor.get("/dashboard").status_code == 200
    token = visitor.hidden("/dashboard")["csrf_token"]
    assert visitor.post("/logout", {"csrf_token": token}).location == "/login"
    assert visitor.get("/dashboard").status_code == 303


@ONE_DATABASE
@pytest.mark.parametrize(
    ("target", "lands"),
    [
        ("/passages?plaza=harbour-bridge", "/passages?plaza=harbour-bridge"),
        ("https://elsewhere.example/passages", "/dashboard"),
        ("//elsewhere.example/passages", "/dashboard"),
        ("/\\elsewhere.example", "/dashboard"),
        ("/%5celsewhere.example", "/dashboard"),
        ("\t//elsewhere.example", "/dashboard"),
        ("/passages\r\nSet-Cookie: a=b", "/dashboard"),
        ("javascript:alert(1)", "/dashboard"),
        ("//[", "/dashboard"),
        ("/no-such-page", "/dashboard"),
        ("/logout", "/dashboard"),
        ("", "/dashboard"),
    ],
)
def test_log_in_leads_to_pages_of_this_application_only(visitor, session, target, lands):
    """A link to the log-in page must not end on somebody else's copy of it."""
    accounts.create_user(session, "victor", PASSWORD, "viewer")
    shown = visitor.get("/login", next=target)
    assert "elsewhere" not in shown.text
    assert visitor.log_in("victor", next=target).location == lands
    assert visitor.get("/login", next=target).location == lands


def guess(visitor: Visitor, name: str = "anna") -> int:
    return visitor.log_in(name, "a wrong guess").status_code


def test_guesses_at_one_account_end_after_five(app, session):
    accounts.create_user(session, "anna", PASSWORD, "operator")
    visitor = Visitor(app)
    assert [guess(visitor) for _ in range(5)] == [422] * 5
    refused = visitor.log_in("anna", PASSWORD)
    # Right or wrong is not looked at any more.
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 600
    assert "Too many attempts. Try again in 10 minutes." in alert(refused)
    # Neither spelling nor another session helps; another address and another account are free.
    assert guess(Visitor(app), " ANNA ") == 429
    assert guess(visitor, "victor") == 422
    assert Visitor(app, "192.0.2.2").log_in("anna").status_code == 303


def test_right_password_forgets_the_slips_before_it(app, session):
    accounts.create_user(session, "anna", PASSWORD, "operator")
    for _ in range(3):
        visitor = Visitor(app)
        assert [guess(visitor) for _ in range(4)] == [422] * 4
        assert visitor.log_in("anna").status_code == 303


@ONE_DATABASE
def test_names_and_passwords_typed_stay_out_of_the_log(visitor, session, caplog):
    """People type their password into the field for the name."""
    accounts.create_user(session, "anna", PASSWORD, "operator")
    visitor.log_in(PASSWORD, "a secret typed")
    visitor.log_in("a\nforged line", "x")
    visitor.log_in(" ANNA ", "a secret typed")
    visitor.log_in("anna")
    said = caplog.text
    assert "log-in refused for an unknown name: wrong name or password" in said
    # Whose account it is has to be known to whoever reads of an attack.
    assert "log-in refused for the account anna: wrong name or password" in said
    assert "anna logged in" in said
    assert not re.search("four words|secret typed|forged", said)
