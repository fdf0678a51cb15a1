"""The quote as JSON, and its errors as problem documents."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

QUOTE = "/api/v1/quote"
PLAZA = {"plaza": "harbour-bridge", "class": "car"}


def test_quote(client):
    answer = client.get(QUOTE, query_string=PLAZA | {"at": "2026-11-23T08:15"})
    assert answer.status_code == 200
    assert answer.json == {
        "plaza": {
            "id": "harbour-bridge",
            "name": "Harbour Bridge",
            "time_zone": "Europe/Lisbon",
        },
        "class": {"id": "car", "name": "Car or van, up to 3.5 t"},
        "at": "2026-11-23T08:15:00+00:00",
        "tariff": {
            "name": "Peak",
            "hours": "Monday to Friday, 07:00\u201310:00 and 16:30\u201319:30",
        },
        "amount": {"minor_units": 320, "currency": "EUR", "formatted": "3.20 EUR"},
    }


@pytest.mark.parametrize(
    ("at", "local"),
    [
        ("2026-11-23T08:15:00Z", "2026-11-23T17:15:00+09:00"),
        ("2026-11-23T08:15+01:00", "2026-11-23T16:15:00+09:00"),
        ("2026-11-23T08:15", "2026-11-23T08:15:00+09:00"),
        ("2026-11-23 08:15:30", "2026-11-23T08:15:30+09:00"),
    ],
)
def test_time_with_and_without_offset(client, at, local):
    parameters = {"plaza": "bay-crossing", "class": "car", "at": at}
    assert client.get(QUOTE, query_string=parameters).json["at"] == local


def test_plus_of_an_offset_may_be_unescaped(client):
    """People type the address; the plus then arrives as a space."""
    answer = client.get(f"{QUOTE}?plaza=bay-crossing&class=car&at=2026-11-23T08:15+01:00")
    assert answer.json["at"] == "2026-11-23T16:15:00+09:00"


def test_without_a_time_it_is_now(client):
    at = datetime.fromisoformat(client.get(QUOTE, query_string=PLAZA).json["at"])
    assert abs(datetime.now(UTC) - at) < timedelta(seconds=10)


@pytest.mark.parametrize(
    ("parameters", "field", "value", "problem", "remedy"),
    [
        ({"plaza": "bridge"}, "plaza", "bridge", "is not known", "harbour-bridge, glacier-tunnel"),
        ({"plaza": ""}, "plaza", None, "is missing", "harbour-bridge"),
        ({"class": "Car"}, "class", "Car", "is not known", "motorcycle, car"),
        ({"at": "tomorrow"}, "at", "tomorrow", "is not a date and time", "2026-05-04T08:15"),
        ({"at": "2026-11-23"}, "at", "2026-11-23", "is not a date and time", "Write it like"),
        ({"at": "2026-02-30T10:00"}, "at", "2026-02-30T10:00", "that exists", "Write it like"),
        ({"at": "9999-12-31T23:59-10:00"}, "at", "9999-12-31T23:59-10:00", "that exists", "like"),
        ({"at": "0001-01-01T00:00+10:00"}, "at", "0001-01-01T00:00+10:00", "that exists", "like"),
        (
            {"at": "2026-03-29T01:30"},
            "at",
            "2026-03-29T01:30",
            "the clocks go forward",
            "2026-03-29T02:30",
        ),
        ({"time": "2026-11-23T08:15"}, "time", "2026-11-23T08:15", "is not a parameter", "Use"),
        ({"clas": "car"}, "clas", "car", "is not a parameter", "Did you mean class?"),
    ],
)
def test_error_names_field_value_and_remedy(client, parameters, field, value, problem, remedy):
    answer = client.get(QUOTE, query_string=PLAZA | parameters)
    assert answer.status_code == 400
    assert answer.mimetype == "application/problem+json"
    assert answer.json["status"] == 400
    [error] = answer.json["errors"]
    assert (error["field"], error["value"]) == (field, value)
    assert problem in error["problem"]
    assert remedy in error["remedy"]


def test_every_error_is_named_at_once(client):
    answer = client.get(QUOTE, query_string={"plaza": "x", "at": "y", "z": "1"})
    assert [error["field"] for error in answer.json["errors"]] == ["z", "plaza", "class", "at"]


def test_type_of_a_problem_leads_to_its_description(client):
    """RFC 9457 wants the type to help people; a dead anchor would not."""
    path, anchor = client.get(QUOTE).json["type"].split("#")
    assert f'id="{anchor}"' in client.get(path).text


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/x", 404), ("POST", "/quote", 405)]
)
def test_other_errors_are_problems_too(client, method, path, status):
    answer = client.open(f"/api/v1{path}", method=method)
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    assert answer.json["type"] == "about:blank"
    assert answer.json["request_id"] == answer.headers["X-Request-Id"]


def test_method_error_names_the_allowed_methods(client):
    assert "GET" in client.post(QUOTE).headers["Allow"]
