"""What anybody may ask: plazas, classes, tariffs and quotes."""

from __future__ import annotations

import pytest
from callers import fields


def test_plazas_and_classes(client):
    plazas = client.get("/api/v1/plazas").json["plazas"]
    assert {plaza["code"]: plaza["currency"] for plaza in plazas} == {
        "bay-crossing": "JPY",
        "glacier-tunnel": "CHF",
        "harbour-bridge": "EUR",
    }
    classes = client.get("/api/v1/classes").json["classes"]
    assert [each["code"] for each in classes] == ["motorcycle", "car", "truck", "trailer"]


FOR_EVERYBODY = (
    "/api/v1/plazas",
    "/api/v1/classes",
    "/api/v1/tariffs?plaza=harbour-bridge",
    "/api/v1/quote?plaza=harbour-bridge&class=car",
)


@pytest.mark.parametrize("path", FOR_EVERYBODY)
def test_what_is_the_same_for_everybody_may_be_shared(client, path, reader_key):
    """For seconds, and only without a cookie: a cache would keep nothing with one."""
    for headers in ({}, {"Authorization": f"Bearer {reader_key}"}):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 200
        directives = dict(
            each.strip().partition("=")[::2] for each in answer.headers["Cache-Control"].split(",")
        )
        assert "public" in directives
        assert directives["max-age"] == "0"
        assert int(directives["s-maxage"]) + int(directives["stale-while-revalidate"]) < 10
        assert not {"Set-Cookie", "Vary"} & set(answer.headers.keys())


@pytest.mark.parametrize(
    "path", [f"{FOR_EVERYBODY[3]}&at=x", "/api/v1/quote", "/api/v1/tariffs?x=1"]
)
def test_a_refusal_is_not_shared(client, path):
    """It names its request."""
    answer = client.get(path)
    assert answer.status_code in (400, 422)
    assert answer.headers["Cache-Control"] == "no-store"


def test_nothing_else_is_shared(app, client, reader_key):
    """What depends on log-in, a key or a session is for one."""
    shared = {path.partition("?")[0] for path in FOR_EVERYBODY}
    for rule in app.url_map.iter_rules():
        if "GET" not in rule.methods or rule.arguments or rule.rule in shared:
            continue
        for headers in ({}, {"Authorization": f"Bearer {reader_key}"}):
            said = client.get(rule.rule, headers=headers).headers["Cache-Control"]
            assert "s-maxage" not in said, rule.rule


def test_tariffs_by_plaza_class_and_time(client):
    query = {"plaza": "harbour-bridge", "class": "car"}
    [tariff] = client.get("/api/v1/tariffs", query_string=query).json["tariffs"]
    assert (tariff["plaza"], tariff["class"]) == ("harbour-bridge", "car")
    assert tariff["amount"] == {"minor_units": 210, "currency": "EUR", "formatted": "2.10 EUR"}
    assert {window["amount"]["minor_units"] for window in tariff["windows"]} == {320}
    assert len(client.get("/api/v1/tariffs").json["tariffs"]) == 12
    before = query | {"at": "2020-01-01T00:00:00Z"}
    assert client.get("/api/v1/tariffs", query_string=before).json["tariffs"] == []


@pytest.mark.parametrize(
    ("at", "window", "amount", "shown"),
    [
        # Monday; Lisbon is an hour ahead of UTC in summer.
        ("2026-05-04T07:00", "Peak", 320, "2026-05-04T07:00:00+01:00"),
        ("2026-05-04T06:00Z", "Peak", 320, "2026-05-04T07:00:00+01:00"),
        ("2026-05-04T08:00+02:00", "Peak", 320, "2026-05-04T07:00:00+01:00"),
        ("2026-05-04T06:59:59", None, 210, "2026-05-04T06:59:59+01:00"),
        ("2026-05-04T10:00", None, 210, "2026-05-04T10:00:00+01:00"),
        # Winter.
        ("2026-01-05T07:00Z", "Peak", 320, "2026-01-05T07:00:00+00:00"),
        # An unescaped plus arrives as a space.
        ("2026-05-04T08:00 02:00", "Peak", 320, "2026-05-04T07:00:00+01:00"),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_quote_is_by_the_clock_at_the_plaza(client, at, window, amount, shown):
    query = {"plaza": "harbour-bridge", "class": "car", "at": at}
    quote = client.get("/api/v1/quote", query_string=query).json
    assert quote["tariff"]["window"] == window
    assert quote["amount"]["minor_units"] == amount
    assert quote["at"] == shown


def test_quote_in_a_currency_without_decimals(client):
    query = {"plaza": "bay-crossing", "class": "car", "at": "2026-05-04T12:00"}
    amount = client.get("/api/v1/quote", query_string=query).json["amount"]
    assert amount["currency"] == "JPY"
    assert amount["formatted"] == f"{amount['minor_units']} JPY"


@pytest.mark.parametrize(
    ("query", "status", "field", "remedy"),
    [
        ("class=car", 400, "plaza", "Add it"),
        ("plaza=harbour-bridge&class=car&time=8", 400, "time", "Use plaza, class, at only"),
        ("plaza=harbour-bridge&clas=car", 400, "clas", "Did you mean class?"),
        ("plaza=harbour-bridge&class=car&class=truck", 400, "class", "Give it once"),
        ("plaza=Harbour+Bridge&class=car", 400, "plaza", "such as harbour-bridge"),
        ("plaza=harbour-bridge&class=car&at=noon", 400, "at", "2026-05-04T08:15"),
        ("plaza=nowhere&class=car", 422, "plaza", "bay-crossing, glacier-tunnel"),
        ("plaza=harbour-bridge&class=boat", 422, "class", "motorcycle, car"),
        ("plaza=harbour-bridge&class=car&at=2026-02-30T10:00", 422, "at", "2026-05-04T08:15"),
        ("plaza=harbour-bridge&class=car&at=2020-01-01T10:00", 422, "at", "add a tariff"),
        # The clocks go forward over it.
        ("plaza=harbour-bridge&class=car&at=2026-03-29T01:30", 422, "at", "2026-03-29T02:30"),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_bad_quote_is_answered_with_field_and_remedy(client, query, status, field, remedy):
    answer = client.get(f"/api/v1/quote?{query}")
    assert answer.status_code == status
    assert remedy in fields(answer)[field]["remedy"]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00"])
def test_the_ends_of_the_calendar_are_no_failure(client, moment):
    query = {"plaza": "harbour-bridge", "class": "car", "at": moment}
    assert client.get("/api/v1/quote", query_string=query).status_code in (200, 422)
    assert client.get("/api/v1/tariffs", query_string={"at": moment}).status_code == 200


@pytest.mark.parametrize("path", ["plazas", "classes", "openapi.json"])
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_parameters_where_there_are_none(client, path):
    """A page number that is passed over would be taken for the whole list."""
    answer = client.get(f"/api/v1/{path}?page=2")
    if path == "openapi.json":
        assert answer.status_code == 200
    else:
        assert fields(answer)["page"]["remedy"] == "Leave it out"
