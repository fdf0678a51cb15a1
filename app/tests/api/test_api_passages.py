"""Passages: recorded once, listed by page, exported; revenue."""

from __future__ import annotations

import csv
import io

import pytest
from callers import PASSAGE, Caller, fields

from toll.services import accounts


def test_recorded_passage_is_charged_and_found_again(recorder):
    answer = recorder.record()
    assert answer.status_code == 201
    passage = answer.json
    assert passage | {"id": 0, "recorded_at": ""} == {
        "id": 0,
        "plaza": "harbour-bridge",
        "lane": "3",
        "class": "car",
        "plate": "AB12CD",
        "passed_at": "2026-05-04T07:15:00Z",
        "amount": {"minor_units": 320, "currency": "EUR", "formatted": "3.20 EUR"},
        "tariff": "Peak",
        "payment_method": "tag",
        "recorded_by": "key:lane-7",
        "recorded_at": "",
    }
    assert answer.headers["Location"] == f"/api/v1/passages/{passage['id']}"
    assert "Idempotency-Replayed" not in answer.headers
    assert recorder.get(f"/passages/{passage['id']}").json == passage
    assert recorder.get("/passages").json == {"passages": [passage], "next": None}


def test_repetition_is_answered_with_the_same_passage(recorder):
    first = recorder.record(key="a")
    again = recorder.record(key="a")
    assert (again.status_code, again.json) == (201, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    # The same request in another notation.
    other = dict(reversed(PASSAGE.items())) | {"passed_at": "2026-05-04T09:15:00.000+02:00"}
    assert recorder.record(other, key="a").json == first.json
    assert len(recorder.get("/passages").json["passages"]) == 1


def test_another_body_with_the_same_key_is_a_conflict(recorder):
    recorder.record(key="a")
    refused = recorder.record(PASSAGE | {"lane": "4"}, key="a")
    assert refused.status_code == 409
    assert fields(refused)["Idempotency-Key"]["value"] == "a"
    assert refused.json["type"] == "/api#idempotency-conflict"
    assert recorder.record_batch([PASSAGE], key="a").status_code == 409
    assert len(recorder.get("/passages").json["passages"]) == 1


def test_keys_of_two_callers_are_apart(recorder, app, session):
    other = Caller(app.test_client(), accounts.create_key(session, "lane-8", "recorder")[1])
    assert recorder.record(key="a").json["id"] != other.record(key="a").json["id"]


def test_a_refused_request_leaves_its_key_unused(recorder):
    assert recorder.record(PASSAGE | {"plaza": "nowhere"}, key="a").status_code == 422
    assert recorder.record(key="a").status_code == 201


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("key", [None, "a b", "é", "x" * 256, "tab\there"])
@pytest.mark.parametrize("path", ["", "/batch"])
def test_recording_takes_an_idempotency_key(recorder, key, path):
    headers = recorder.headers
    if key is not None:
        headers |= {"Idempotency-Key": key}
    body = {"passages": [PASSAGE]} if path else PASSAGE
    answer = recorder.client.post(f"/api/v1/passages{path}", json=body, headers=headers)
    assert answer.status_code == 400
    error = fields(answer)["Idempotency-Key"]
    assert error["problem"] == ("is missing" if key is None else "does not have the right form")
    assert "UUID" in error["remedy"]
    assert recorder.get("/passages").json["passages"] == []


def without(name):
    return {key: value for key, value in PASSAGE.items() if key != name}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("body", "status", "field", "value", "remedy"),
    [
        (without("plaza"), 400, "plaza", None, "Add it"),
        (without("passed_at"), 400, "passed_at", None, "Add it"),
        (PASSAGE | {"plaza": 3}, 400, "plaza", "3", "in quotes"),
        (PASSAGE | {"plaza": "Harbour Bridge"}, 400, "plaza", "Harbour Bridge", "harbour-bridge"),
        (PASSAGE | {"lane": ""}, 400, "lane", None, "up to 10"),
        (PASSAGE | {"plate": "A\0B"}, 400, "plate", "A\0B", "AB-12-CD"),
        (PASSAGE | {"plate": "\ud800"}, 400, "plate", "\ud800", "Unicode"),
        (PASSAGE | {"payment_method": "gold"}, 400, "payment_method", "gold", "'tag'"),
        (PASSAGE | {"passed_at": 1}, 400, "passed_at", "1", "2026-05-04T08:15:00Z"),
        (PASSAGE | {"passed_at": "2026-05-04T08:15"}, 400, "passed_at", "2026-05-04T08:15", "UTC"),
        (PASSAGE | {"passed_at": "2026-02-30T08:15:00Z"}, 400, "passed_at", None, "offset"),
        (PASSAGE | {"payment": "tag"}, 400, "payment", "tag", "Did you mean payment_method?"),
        (PASSAGE | {"amount": 1}, 400, "amount", "1", "Use plaza, lane"),
        ([], 400, "body", None, "in braces"),
        (PASSAGE | {"plaza": "nowhere"}, 422, "plaza", "nowhere", "harbour-bridge"),
        (PASSAGE | {"class": "boat"}, 422, "class", "boat", "car"),
        (PASSAGE | {"plate": "A"}, 422, "plate", "A", "2 to 16"),
        (PASSAGE | {"passed_at": "2099-01-01T00:00:00Z"}, 422, "passed_at", None, "clock"),
        (PASSAGE | {"passed_at": "2020-01-01T00:00:00Z"}, 422, "passed_at", None, "tariff"),
    ],
)
def test_bad_passage_is_refused_with_field_value_and_remedy(
    recorder, body, status, field, value, remedy
):
    answer = recorder.record(body)
    assert answer.status_code == status
    error = fields(answer)[field]
    assert remedy in error["remedy"]
    if value is not None:
        assert error["value"] == value
    assert recorder.get("/passages").json["passages"] == []


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", None, 415),
        (b"plaza=x", "application/x-www-form-urlencoded", 415),
        (b" " * (1024 * 1024 + 1), "application/json", 413),
    ],
)
def test_bodies_that_are_no_json(recorder, data, content_type, status):
    headers = recorder.headers | {"Idempotency-Key": "a"}
    answer = recorder.client.post(
        "/api/v1/passages", data=data, content_type=content_type, headers=headers
    )
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    if status == 400:
        assert fields(answer)["body"]["problem"] == "is not JSON"


def test_batch_is_recorded_in_its_order_or_not_at_all(recorder):
    bodies = [PASSAGE | {"lane": str(number)} for number in range(1, 4)]
    answer = recorder.record_batch(bodies, key="a")
    assert answer.status_code == 201
    assert [each["lane"] for each in answer.json["passages"]] == ["1", "2", "3"]
    again = recorder.record_batch(bodies, key="a")
    assert again.json == answer.json
    assert again.headers["Idempotency-Replayed"] == "true"
    assert recorder.record_batch(bodies[::-1], key="a").status_code == 409

    refused = recorder.record_batch([PASSAGE, PASSAGE | {"class": "boat"}, {"plaza": "nowhere"}])
    assert refused.status_code == 400
    assert "passages[2].lane" in fields(refused)
    refused = recorder.record_batch([PASSAGE, PASSAGE | {"class": "boat"}])
    assert refused.status_code == 422
    assert fields(refused)["passages[1].class"]["value"] == "boat"
    assert len(recorder.get("/passages").json["passages"]) == 3


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("number", [0, 501])
def test_size_of_a_batch(recorder, number):
    refused = recorder.record_batch([PASSAGE] * number)
    assert refused.status_code == 400
    assert fields(refused)["passages"] == {
        "field": "passages",
        "value": None,
        "problem": f"has {number} entries",
        "remedy": "Send 1 to 500 at once",
    }


@pytest.fixture
def several(recorder):
    """Seven passages, some at the same moment."""
    moments = ["07:15", "07:15", "08:15", "12:00", "12:00", "12:00", "13:00"]
    bodies = [
        PASSAGE | {"passed_at": f"2026-05-04T{moment}:00Z", "lane": str(index)}
        for index, moment in enumerate(moments)
    ]
    bodies[3] |= {"plaza": "glacier-tunnel", "class": "truck", "plate": "ZH 1", "lane": "N-1"}
    bodies[4] |= {"plaza": "bay-crossing", "payment_method": "cash"}
    assert recorder.record_batch(bodies).status_code == 201
    return bodies


def test_pages_have_each_passage_once(recorder, several):
    """Also while others are recorded in between."""
    seen: list[int] = []
    cursor: dict[str, str] = {}
    pages = 0
    while True:
        page = recorder.get("/passages", limit=2, **cursor).json
        seen += [passage["id"] for passage in page["passages"]]
        pages += 1
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
        recorder.record(PASSAGE | {"passed_at": "2026-05-04T20:00:00Z"})
    assert pages == 4
    assert len(seen) == len(set(seen)) == len(several)
    times = [recorder.get(f"/passages/{each}").json["passed_at"] for each in seen]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ({"plaza": "harbour-bridge"}, 5),
        ({"class": "truck"}, 1),
        ({"plate": "zh1"}, 1),
        ({"plate": "AB 12-cd"}, 6),
        ({"payment_method": "cash"}, 1),
        ({"lane": "N-1"}, 1),
        ({"since": "2026-05-04T12:00:00Z"}, 4),
        ({"until": "2026-05-04T12:00:00Z"}, 3),
        ({"since": "2026-05-04T13:00:00+01:00", "until": "2026-05-04T12:30:00Z"}, 3),
        ({"plaza": "harbour-bridge", "payment_method": "cash"}, 0),
    ],
)
def test_filters(recorder, several, query, number):
    assert len(recorder.get("/passages", **query).json["passages"]) == number
    rows = list(csv.DictReader(io.StringIO(recorder.get("/passages.csv", **query).text)))
    assert len(rows) == number
    revenue = recorder.get("/revenue", group="plaza", **query).json["rows"]
    assert sum(row["passages"] for row in revenue) == number


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ({"limit": "0"}, 400, "limit"),
        ({"limit": "201"}, 400, "limit"),
        ({"limit": "1_0"}, 400, "limit"),
        ({"limit": ""}, 400, "limit"),
        ({"cursor": "x y"}, 400, "cursor"),
        ({"cursor": "eHl6"}, 400, "cursor"),
        ({"plaza": "nowhere"}, 422, "plaza"),
        ({"since": "yesterday"}, 400, "since"),
        ({"since": "2026-05-04T00:00:00Z", "until": "2026-05-04T00:00:00Z"}, 422, "until"),
        ({"payment": "cash"}, 400, "payment"),
    ],
)
def test_bad_filters(recorder, query, status, field):
    answer = recorder.get("/passages", **query)
    assert answer.status_code == status
    assert field in fields(answer)


def test_csv(recorder, several):
    answer = recorder.get("/passages.csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="passages.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == len(several)
    assert answer.text.count("\r\n") == len(several) + 1
    [tokyo] = [row for row in rows if row["plaza"] == "bay-crossing"]
    assert tokyo["passed_at"] == "2026-05-04T12:00:00Z"
    assert tokyo["passed_at_local"] == "2026-05-04T21:00:00"
    assert tokyo["amount"] == tokyo["amount_minor_units"]
    lisbon = rows[-1]
    assert (lisbon["amount_minor_units"], lisbon["amount"]) == ("320", "3.20")


def test_csv_streams(recorder):
    """What is large leaves in parts: nothing holds it all."""
    for start in range(0, 600, 200):
        bodies = [PASSAGE | {"lane": str(start + number)} for number in range(200)]
        recorder.record_batch(bodies)
    answer = recorder.client.get("/api/v1/passages.csv", headers=recorder.headers, buffered=False)
    assert answer.is_streamed
    parts = list(answer.response)
    assert len(parts) > 1
    assert sum(part.count(b"\r\n") for part in parts) == 601


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1"])
def test_csv_holds_no_formulas(text):
    from toll.exports import harmless

    assert harmless(text) == f"'{text}"
    assert harmless("Peak") == "Peak"


def test_revenue(recorder, several):
    def rows(group, **query):
        return {
            (row["key"], row["amount"]["currency"]): (row["passages"], row["amount"]["minor_units"])
            for row in recorder.get("/revenue", group=group, **query).json["rows"]
        }

    by_plaza = rows("plaza")
    assert by_plaza["harbour-bridge", "EUR"] == (5, 3 * 320 + 2 * 210)
    assert {key for key, _ in by_plaza} == {"harbour-bridge", "glacier-tunnel", "bay-crossing"}
    assert rows("class")["car", "EUR"] == (5, 1380)
    # 12:00 UTC is 21:00 in Tokyo: the day is the plaza's own.
    assert set(rows("day")) == {("2026-05-04", each) for each in ("EUR", "CHF", "JPY")}
    hours = rows("hour", plaza="harbour-bridge")
    assert hours["2026-05-04T08:00+01:00", "EUR"] == (2, 640)
    assert recorder.get("/revenue", group="week").status_code == 400
    assert fields(recorder.get("/revenue"))["group"]["problem"] == "is missing"


def test_unknown_passage(recorder):
    for number in (1, 1 << 62, 10**30):
        answer = recorder.get(f"/passages/{number}")
        assert answer.status_code == 404
        assert answer.mimetype == "application/problem+json"
    assert recorder.get("/passages/x").status_code == 404
