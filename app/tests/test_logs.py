"""Request ids, logs, errors and the proxy in front."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace

import pytest

from toll import create_app
from toll.logs import JsonFormatter
from toll.security import public

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def lines():
    """The JSON log lines of the application, as they would be on standard error."""
    found: list[dict[str, str]] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(json.loads(JsonFormatter().format(record)))

    handler = Collect()
    logging.getLogger("toll").addHandler(handler)
    yield found
    logging.getLogger("toll").removeHandler(handler)


@pytest.fixture
def client(settings, nginx):
    """A client behind nginx."""
    return nginx(create_app(replace(settings, proxies=1)))


@pytest.fixture
def failing(settings, nginx):
    """A client of an application with a page that fails, behind nginx."""
    app = create_app(replace(settings, proxies=1))

    @app.get("/boom")
    @app.get("/api/boom")
    @public
    def boom() -> str:
        raise RuntimeError("the database is on fire")

    return nginx(app)


def test_request_id_of_the_proxy_is_kept(client):
    answer = client.get("/healthz", headers={"X-Request-Id": "5f-A_b.9"})
    assert answer.headers["X-Request-Id"] == "5f-A_b.9"


@pytest.mark.parametrize("given", [None, "", "a b", 'x"}', "é", "x" * 65])
def test_request_id_is_made_here_if_it_could_forge_a_log(client, given):
    headers = {} if given is None else {"X-Request-Id": given}
    made = client.get("/healthz", headers=headers).headers["X-Request-Id"]
    assert re.fullmatch("[0-9a-f]{32}", made)


def test_failure_is_logged_once_with_its_request_and_traceback(failing, lines):
    assert failing.get("/boom", headers={"X-Request-Id": "abc"}).status_code == 500
    [line] = lines
    assert line["level"] == "error"
    assert (line["request_id"], line["method"], line["path"]) == ("abc", "GET", "/boom")
    assert "the database is on fire" in line["traceback"]


def test_failure_tells_the_client_nothing_but_the_request(failing):
    page = failing.get("/boom", headers={"X-Request-Id": "abc"})
    assert "database" not in page.text
    assert "abc" in page.text
    problem = failing.get("/api/boom", headers={"X-Request-Id": "abc"})
    assert problem.mimetype == "application/problem+json"
    assert "database" not in problem.text
    assert problem.json["request_id"] == "abc"


def test_log_line_outside_a_request_is_json_too(app, lines):
    app.logger.warning("two\nlines")
    [line] = lines
    assert line["message"] == "two\nlines"
    assert "request_id" not in line
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", line["time"])


def test_session_cookie_is_for_https_only_outside_development(settings):
    assert create_app(settings).config["SESSION_COOKIE_SECURE"]
    assert not create_app(replace(settings, development=True)).config["SESSION_COOKIE_SECURE"]
