"""Users and keys: what lets somebody in, what no longer does, and what is stored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from argon2 import PasswordHasher, extract_parameters
from sqlalchemy import select
from sqlalchemy.orm import Session

from toll.database import make_engine
from toll.errors import InvalidParameters
from toll.models import ApiKey, User
from toll.services import accounts

PASSWORD = "seven random words for anna"


@pytest.fixture
def anna(session):
    return accounts.create_user(session, "anna", PASSWORD, "operator")


def test_the_password_lets_in_and_no_other(session, anna):
    assert accounts.verify_password(session, "anna", PASSWORD).id == anna.id
    assert accounts.verify_password(session, " Anna ", PASSWORD).id == anna.id
    assert accounts.verify_password(session, "anna", PASSWORD + "x") is None
    assert accounts.verify_password(session, "anna", "") is None
    assert accounts.verify_password(session, "nobody", PASSWORD) is None
    assert accounts.verify_password(session, "an\0na", PASSWORD) is None


def test_the_password_is_not_stored(session, anna):
    assert anna.password_hash.startswith("$argon2id$")
    assert PASSWORD not in anna.password_hash


def test_an_unknown_name_costs_what_a_known_one_does(session, anna, monkeypatch):
    """Or the time of an answer tells which names there are. A test that measures time may err."""
    verified = []
    monkeypatch.setattr(accounts, "_hasher", hasher := PasswordHasher())
    monkeypatch.setattr(
        PasswordHasher,
        "verify",
        lambda self, stored, password: verified.append(extract_parameters(stored)) or True,
    )
    assert hasher
    accounts.verify_password(session, "anna", "x")
    assert accounts.verify_password(session, "nobody", "x") is None
    assert verified[0] == verified[1]


def test_another_password_ends_the_sessions(session, anna):
    before = anna.session_token
    accounts.set_password(session, anna, "another seven random words")
    assert anna.session_token != before
    assert accounts.verify_password(session, "anna", PASSWORD) is None
    assert accounts.verify_password(session, "anna", "another seven random words")
    before = anna.session_token
    accounts.end_sessions(session, anna)
    assert session.scalar(select(User.session_token)) != before


def test_a_disabled_user_is_not_let_in(session, anna):
    before = anna.session_token
    accounts.disable_user(session, anna)
    assert accounts.verify_password(session, "anna", PASSWORD) is None
    assert anna.session_token != before


def test_a_weaker_hash_is_replaced_at_the_next_log_in(session, anna):
    """The costs of guessing fall each year, and the library's defaults follow."""
    anna.password_hash = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    session.commit()
    assert accounts.verify_password(session, "anna", PASSWORD)
    assert not accounts._hasher.check_needs_rehash(anna.password_hash)
    assert accounts.verify_password(session, "anna", PASSWORD)


@pytest.fixture
def during_a_log_in(session, anna, database_url, monkeypatch):
    """Has something done once, after a password was found right and before its hash is replaced."""
    anna.password_hash = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    session.commit()
    plain = accounts._hasher

    def have(act: Callable[[Session], None]) -> None:
        class Slow(PasswordHasher):
            def verify(self, *given):
                verified = super().verify(*given)
                monkeypatch.setattr(accounts, "_hasher", plain)
                with Session(make_engine(database_url)) as other:
                    act(other)
                return verified

        monkeypatch.setattr(accounts, "_hasher", Slow())

    return have


def test_a_log_in_does_not_undo_a_password_that_is_set_meanwhile(session, during_a_log_in):
    """Whoever set it may have done so because the old one is known to others."""

    def replace(other: Session) -> None:
        found = accounts.find_user(other, "anna")
        accounts.set_password(other, found, "another seven random words")

    during_a_log_in(replace)
    assert accounts.verify_password(session, "anna", PASSWORD) is None
    session.expire_all()
    assert accounts.verify_password(session, "anna", PASSWORD) is None
    assert accounts.verify_password(session, "anna", "another seven random words")


def test_two_log_ins_replace_a_weaker_hash_at_once(session, anna, during_a_log_in):
    """Both have the right password: whoever comes second is not to be told that it is wrong."""

    def log_in(other: Session) -> None:
        assert accounts.verify_password(other, "anna", PASSWORD)

    during_a_log_in(log_in)
    assert accounts.verify_password(session, "anna", PASSWORD) is anna


@pytest.mark.parametrize(
    ("name", "password", "role", "field"),
    [
        ("", PASSWORD, "admin", "name"),
        ("Anna B", PASSWORD, "admin", "name"),
        ("a" * 41, PASSWORD, "admin", "name"),
        ("anna", "short", "admin", "password"),
        ("anna", "x" * 201, "admin", "password"),
        ("anna", "aaaaaaaaaaaaaaaa", "admin", "password"),
        ("annaannaanna", "annaannaanna", "admin", "password"),
        ("anna", PASSWORD, "root", "role"),
    ],
)
def test_users_that_are_refused(session, name, password, role, field):
    with pytest.raises(InvalidParameters) as error:
        accounts.create_user(session, name, password, role)
    assert [each.field for each in error.value.errors] == [field]
    assert password not in str(error.value.errors), "errors are logged"


def test_a_name_is_given_once(session, anna):
    with pytest.raises(InvalidParameters, match="is there already"):
        accounts.create_user(session, "anna", PASSWORD, "viewer")


def test_a_key_is_found_by_its_whole_text_only(session):
    key, full = accounts.create_key(session, "lane-7", "recorder")
    assert accounts.find_key(session, full).id == key.id
    other = full[:-1] + ("A" if full[-1] != "A" else "B")
    for wrong in (other, full[:-1], full + "A", full.upper(), "", "toll__", key.prefix, "é" * 57):
        assert accounts.find_key(session, wrong) is None
    secret = full.removeprefix(f"toll_{key.prefix}_")
    stored = session.execute(select(*ApiKey.__table__.columns)).one()
    assert secret not in str(tuple(stored))


def test_a_revoked_key_is_refused(session):
    _, full = accounts.create_key(session, "lane-7", "recorder")
    first = accounts.revoke_key(session, "lane-7").revoked_at
    assert accounts.find_key(session, full) is None
    assert accounts.revoke_key(session, "lane-7").revoked_at == first
    with pytest.raises(InvalidParameters, match="name is there already"):
        accounts.create_key(session, "lane-7", "recorder")


def test_a_key_that_is_not_there_cannot_be_revoked(session):
    with pytest.raises(InvalidParameters, match="name is not known"):
        accounts.revoke_key(session, "lane-8")


@pytest.mark.parametrize(
    ("name", "role", "field"), [("Lane 7", "reader", "name"), ("a", "x", "role")]
)
def test_keys_that_are_refused(session, name, role, field):
    with pytest.raises(InvalidParameters) as error:
        accounts.create_key(session, name, role)
    assert [each.field for each in error.value.errors] == [field]
