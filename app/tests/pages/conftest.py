"""People of each role, logged in by the form, on each database."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from argon2 import PasswordHasher
from flask import Flask
from sqlalchemy.orm import Session
from visiting import PASSWORD, Visitor

from toll.services import accounts


@pytest.fixture(autouse=True)
def passwords_are_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a hash costs is argon2's and the accounts' tests' to show; here are many log-ins."""
    monkeypatch.setattr(accounts, "_hasher", PasswordHasher(time_cost=1, memory_cost=64))


@pytest.fixture
def visitor(app: Flask) -> Visitor:
    """A stranger."""
    return Visitor(app)


@pytest.fixture
def log_in(app: Flask, session: Session) -> Callable[[str], Visitor]:
    """Make a user of that role, and return them logged in; their name is the role's."""

    def log_in_as(role: str) -> Visitor:
        if accounts.find_user(session, role) is None:
            accounts.create_user(session, role, PASSWORD, role)
        visitor = Visitor(app)
        assert visitor.log_in(role).status_code == 303
        return visitor

    return log_in_as
