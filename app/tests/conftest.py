"""An application for the tests, with settings that owe nothing to this machine's environment."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient

from toll import Settings, create_app

SECRET = "0123456789abcdef" * 4


@pytest.fixture
def app() -> Flask:
    """A production application behind no proxy."""
    return create_app(Settings(secret_key=SECRET))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
