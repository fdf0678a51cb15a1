"""Who may do what, and that nothing of a key gets out."""

from __future__ import annotations

import hmac
import json
import logging

import pytest
from callers import PASSAGE, Caller

from toll.logs import JsonFormatter
from toll.services import accounts

READS = ["/passages", "/passages.csv", "/passages/1", "/revenue?group=day"]
WRITES = ["/passages", "/passages/batch"]

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


def test_a_stranger_reads_nothing(client):
    for path in READS:
        answer = client.get(f"/api/v1{path}")
        assert answer.status_code == 401, path
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="toll-app"'
        assert "Authorization: Bearer" in answer.json["detail"]


def test_a_stranger_records_nothing_whatever_the_body(client, reader):
    for path in WRITES:
        for body in (PASSAGE, {"passages": [PASSAGE]}, None):
            answer = client.post(f"/api/v1{path}", json=body, headers={"Idempotency-Key": "a"})
            assert answer.status_code == 401, path
        assert client.post(f"/api/v1{path}", data="{").status_code == 401
    assert reader.get("/passages").json["passages"] == []


def test_a_reader_may_read_and_not_record(reader):
    for path in READS:
        assert reader.get(path).status_code in (200, 404), path
    refused = reader.record()
    assert refused.status_code == 403
    assert "bookkeeping has the role reader" in refused.json["detail"]
    assert "--role recorder" in refused.json["detail"]
    assert reader.record_batch([PASSAGE]).status_code == 403
    assert reader.get("/passages").json["passages"] == []


def test_a_recorder_may_do_both(recorder):
    assert recorder.record().status_code == 201
    assert len(recorder.get("/passages").json["passages"]) == 1


def test_a_revoked_key_is_refused_at_once(recorder, session):
    assert recorder.get("/passages").status_code == 200
    accounts.revoke_key(session, "lane-7")
    answer = recorder.get("/passages")
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic bGFuZS03OnNlY3JldA==",
        "Bearer toll_abcdefgh_" + "A" * 43,
        "Bearer \N{SNOWMAN}",
        "Bearer toll_%00",
    ],
)
def test_what_is_no_key_is_refused(client, given):
    headers = {"Authorization": given.encode().decode("latin-1")}
    assert client.get("/api/v1/passages", headers=headers).status_code == 401


def test_half_of_a_key_is_refused(client, recorder_key):
    """The prefix alone is public: it is in lists of keys."""
    for slip in (recorder_key[:-1], recorder_key[:14] + "A" * 43, recorder_key.upper()):
        answer = client.get("/api/v1/passages", headers={"Authorization": f"Bearer {slip}"})
        assert answer.status_code == 401


def test_keys_are_compared_in_constant_time(client, recorder_key, monkeypatch):
    """An unknown prefix costs the same comparison as a known one with a wrong secret."""
    compared = []

    def compare(a, b):
        compared.append((a, b))
        return compare_digest(a, b)

    compare_digest = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    unknown = "toll_abcdefgh_" + "A" * 43
    for key in (recorder_key, recorder_key[:14] + "A" * 43, unknown):
        client.get("/api/v1/passages", headers={"Authorization": f"Bearer {key}"})
    assert len(compared) == 3
    # Hashes of one length: not the key, whose beginning a comparison could give away.
    assert {len(each) for pair in compared for each in pair} == {64}


def test_no_key_in_the_log(app, recorder_key, client):
    """Neither a good one nor a slip of it."""
    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(JsonFormatter().format(record))

    handler = Collect()
    logger = logging.getLogger()
    logger.addHandler(handler)
    logging.getLogger("toll").addHandler(handler)
    app.add_url_rule("/api/v1/boom", view_func=lambda: 1 / 0, endpoint="boom")
    app.view_functions["boom"].access = "public"  # type: ignore[attr-defined]
    try:
        good = Caller(client, recorder_key)
        good.record()
        good.record({**PASSAGE, "lane": recorder_key})
        good.get("/boom")
        slip = Caller(client, recorder_key[:-1])
        assert slip.get("/passages").status_code == 401
    finally:
        logger.removeHandler(handler)
        logging.getLogger("toll").removeHandler(handler)
    messages = [json.loads(line)["message"] for line in lines]
    assert "an API key was refused" in messages
    assert any("Exception" in message for message in messages)
    for line in lines:
        assert recorder_key[14:40] not in line


def test_a_browsers_session_is_no_key(app, session):
    """Whoever is logged in to the pages has not logged in to the API, and gets no cookie there."""
    accounts.create_user(session, "anna", "correct horse battery", "admin")
    visitor = app.test_client()
    with app.test_request_context("/"):
        serializer = app.session_interface.get_signing_serializer(app)
        cookie = serializer.dumps({"_user_id": "1", "token": "x"})
    visitor.set_cookie(app.config["SESSION_COOKIE_NAME"], cookie, secure=True)
    answer = visitor.get("/api/v1/passages", base_url="https://localhost")
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers
    assert "Cookie" not in answer.headers.get("Vary", "")
