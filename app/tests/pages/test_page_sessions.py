"""Where a session ends: on the server, and not only in the browser that asks for it."""

from __future__ import annotations

import json
import logging

import pytest
import sqlalchemy as sa
from sqlalchemy import func, select
from visiting import PASSWORD, Visitor

from toll import security
from toll.models import BrowserSession, IdempotencyRecord, User, now
from toll.services import accounts


def copied(app, cookie: str) -> Visitor:
    """Somebody with a copy of a cookie."""
    thief = Visitor(app)
    thief.client.set_cookie("__Host-toll", cookie, domain="toll.example", secure=True)
    return thief


def lets_in(app, cookie: str) -> bool:
    return copied(app, cookie).get("/dashboard").status_code == 200


def log_out(visitor: Visitor) -> None:
    token = visitor.hidden("/dashboard")["csrf_token"]
    assert visitor.post("/logout", {"csrf_token": token}).status_code == 303


def test_log_out_ends_the_session_for_copies_of_its_cookie_too(app, log_in):
    """Whoever logs out at the booth's computer must not be followed by a cookie from its disk."""
    visitor, other = log_in("operator"), log_in("operator")
    cookie = visitor.cookie()
    assert lets_in(app, cookie)
    log_out(visitor)
    assert not lets_in(app, cookie)
    # The same person's other session is not this one.
    assert other.get("/dashboard").status_code == 200


def test_every_change_of_an_account_ends_its_sessions(app, log_in, session, subtests):
    """What somebody may do is decided anew at the next log-in."""
    changes = {
        "password": lambda user: accounts.set_password(session, user, "some other four words"),
        "role": lambda user: accounts.set_role(session, user, "admin"),
        "command": lambda user: accounts.end_sessions(session, user),
        "disabled": lambda user: accounts.disable_user(session, user),
        "removed": lambda user: accounts.remove_user(session, user),
    }
    bystander = log_in("viewer")
    for name, change in changes.items():
        with subtests.test(name):
            session.expire_all()
            user = accounts.find_user(session, "operator")
            if user:
                accounts.remove_user(session, user)
            cookie = log_in("operator").cookie()
            assert lets_in(app, cookie)
            change(accounts.find_user(session, "operator"))
            assert not lets_in(app, cookie)
            left = select(func.count(BrowserSession.id))
            assert session.scalar(left) == 1, "the bystander's"
    assert bystander.get("/dashboard").status_code == 200


def test_the_next_user_with_the_same_id_inherits_nothing(app, log_in, session):
    """SQLite gives the id of the last row again once that row is gone."""
    cookie = log_in("operator").cookie()
    gone = accounts.find_user(session, "operator")
    number = gone.id
    session.add(IdempotencyRecord(scope=f"user:{number}", key="k", body_hash="h", passage_ids=[1]))
    session.commit()
    accounts.remove_user(session, gone)
    assert session.scalar(select(func.count(IdempotencyRecord.id))) == 0
    next_one = accounts.create_user(session, "anna", PASSWORD, "admin")
    session.execute(sa.update(User).where(User.id == next_one.id).values(id=number))
    session.commit()
    assert not lets_in(app, cookie)


def of_the_release_before(app, user: User) -> str:
    """A cookie as the release before 0002 makes it: without a session of its own."""
    with app.test_request_context("/"):
        serializer = app.session_interface.get_signing_serializer(app)
        return serializer.dumps(
            {"_user_id": str(user.id), "_fresh": True, "token": user.session_token, "since": now()}
        )


def test_sessions_of_the_release_before_go_on_until_log_out(app, log_in, session):
    """A deploy throws nobody out; and during one, both releases start sessions."""
    with_key = log_in("operator")
    cookie = of_the_release_before(app, accounts.find_user(session, "operator"))
    visitor = copied(app, cookie)
    log_out(visitor)
    assert not lets_in(app, cookie)
    # It has no key by which it could be told from the others.
    assert with_key.get("/dashboard").status_code == 303


def test_a_session_works_with_the_release_before(app, log_in, session):
    """After a rollback it is that one which reads the cookie."""
    cookie = log_in("operator").cookie()
    user = accounts.find_user(session, "operator")
    with app.test_request_context("/"):
        held = app.session_interface.get_signing_serializer(app).loads(cookie)
    assert held["token"] == user.session_token
    assert held["since"] <= now()
    assert held["_user_id"] == str(user.id)


def test_sessions_that_ended_by_age_are_forgotten(log_in, session, monkeypatch):
    """Or a table of cookies that nobody sends any more grows for ever."""
    log_in("operator")
    assert session.scalar(select(func.count(BrowserSession.id))) == 1
    session.rollback()
    monkeypatch.setattr(security, "SESSION_HOURS", 0)
    log_in("operator")
    session.expire_all()
    assert session.scalar(select(func.count(BrowserSession.id))) == 1


def test_the_key_is_in_neither_the_database_nor_the_log(app, log_in, session, caplog):
    """A copy of the database must not be a bundle of open sessions."""
    caplog.set_level(logging.DEBUG)
    visitor = log_in("operator")
    with app.test_request_context("/"):
        held = app.session_interface.get_signing_serializer(app).loads(visitor.cookie())
    stored = session.execute(select(*BrowserSession.__table__.columns)).one()
    assert held["key"] not in str(tuple(stored))
    assert held["key"] not in caplog.text


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_commands_end_sessions(app, log_in, session):
    """Each is in the guides; an operator needs them on the worst day."""
    runner = app.test_cli_runner()

    def toll(*arguments: str) -> str:
        session.rollback()
        done = runner.invoke(args=["toll", "user", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    def both() -> list[int]:
        return [each.get("/dashboard").status_code for each in (operator, viewer)]

    operator, viewer = log_in("operator"), log_in("viewer")
    log_in("operator")
    assert toll("logout", "operator") == "operator is logged out everywhere (2 sessions).\n"
    assert both() == [303, 200]
    operator = log_in("operator")
    assert "viewer is logged out everywhere (1 session).\n" in toll("logout", "--all")
    assert both() == [303, 303]
    operator, viewer = log_in("operator"), log_in("viewer")
    assert toll("role", "operator", "viewer") == (
        "operator is now viewer, and logged out everywhere.\n"
    )
    assert both() == [303, 200]
    assert toll("remove", "viewer", "--yes") == "viewer is removed, and logged out everywhere.\n"
    assert both() == [303, 303]
    assert json.loads(runner.invoke(args=["toll", "counts"]).output)["tables"]["users"] == 1
    for wrong in (["logout"], ["logout", "operator", "--all"]):
        done = runner.invoke(args=["toll", "user", *wrong])
        assert done.exit_code == 2
        assert "give --all for everybody" in done.output
