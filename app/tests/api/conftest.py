"""Callers of the API, each with a key of their own."""

from __future__ import annotations

import pytest
from callers import Caller
from flask import Flask
from sqlalchemy.orm import Session

from toll.services import accounts


@pytest.fixture
def recorder_key(session: Session) -> str:
    """A key that may record."""
    return accounts.create_key(session, "lane-7", "recorder")[1]


@pytest.fixture
def reader_key(session: Session) -> str:
    """A key that may read."""
    return accounts.create_key(session, "bookkeeping", "reader")[1]


@pytest.fixture
def recorder(app: Flask, recorder_key: str) -> Caller:
    """Records and reads."""
    return Caller(app.test_client(), recorder_key)


@pytest.fixture
def reader(app: Flask, reader_key: str) -> Caller:
    """Reads only."""
    return Caller(app.test_client(), reader_key)
