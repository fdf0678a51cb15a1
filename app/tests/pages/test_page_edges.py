"""Numbers and times at the edge of their range, and texts of any kind: an error, never a failure.

Each parameter of the API and of the pages, and each field of a form, is sent each of these values.
"""

from __future__ import annotations

import base64

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toll.errors import InvalidParameters
from toll.services import passages, times

ONE_DATABASE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

MOMENTS = [
    "0001-01-01T00:00:00+14:00",
    "0001-01-01T00:00:00-14:00",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59-14:00",
    "9999-12-31T23:59:59+14:00",
    "9999-12-31T23:59:59.999999999Z",
    "9999-12-31T23:59",
    "0001-01-01T00:00",
    "0000-01-01T00:00:00Z",
    "2026-02-30T00:00:00Z",
    "2026-05-04T24:00:00Z",
    "2026-05-04T07:15:60Z",
    "2026-05-04T07:15:00+24:00",
    "2026-05-04T07:15:00+23:59",
    "0001-01-01",
    "9999-12-31",
]
NUMBERS = [
    *("0", "-1", "-0", "1.5", "1e400", "NaN", "Infinity", "\u0663", "1_0", "0x10"),
    *(
        str(2**31 - 1),
        str(2**31),
        str(2**63 - 1),
        str(2**63),
        str(2**64),
        "9" * 999,
        "-" + "9" * 30,
    ),
]
TEXTS = [
    "",
    " ",
    "\0",
    "A\0B",
    "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    "\U0010ffff",
]


def cursor(text: str) -> str:
    """Return a text as a cursor."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


CURSORS = [
    cursor(text)
    for text in (
        "0001-01-01T00:00:00+14:00 1",
        "0001-01-01T00:00:00+00:00 1",
        "9999-12-31T23:59:59-14:00 1",
        "9999-12-31T23:59:59+00:00 1",
        "2026-05-04T07:15:00 1",
        "2026-05-04T07:15:00+00:00 0",
        f"2026-05-04T07:15:00+00:00 {2**63}",
        f"2026-05-04T07:15:00+00:00 {'9' * 20}",
        "2026-05-04T07:15:00+00:00 -1",
        "2026-05-04T07:15:00+00:00",
        "",
    )
]
VALUES = [*MOMENTS, *NUMBERS, *TEXTS, *CURSORS]


@pytest.mark.parametrize("text", CURSORS[:-1])
def test_a_cursor_at_the_edge_is_malformed(recorder, log_in, text):
    answer = recorder.get("/passages", cursor=text)
    assert answer.status_code == 400
    assert [each["field"] for each in answer.json["errors"]] == ["cursor"]
    assert log_in("viewer").get("/passages", cursor=text).status_code == 400


def test_a_cursor_is_good_up_to_the_edge(recorder):
    for moment in (times.EARLIEST, times.LATEST):
        text = cursor(f"{moment.isoformat()} {2**63 - 1}")
        assert recorder.get("/passages", cursor=text).status_code == 200


@settings(deadline=None)
@given(st.datetimes(timezones=st.timezones()), st.integers())
def test_any_cursor_is_read_or_refused(moment, number):
    try:
        text = cursor(f"{moment.isoformat()} {number}")
        passed_at, _ = passages._read_cursor(text)
    except InvalidParameters:
        return
    assert times.EARLIEST <= passed_at <= times.LATEST


@ONE_DATABASE
def test_every_parameter_of_the_api(recorder, app):
    """Those that the document names, so that a new one is tried as well."""
    document = app.test_client().get("/api/v1/openapi.json").json
    tried = 0
    for path, methods in document["paths"].items():
        operation = methods.get("get")
        names = [each["name"] for each in (operation or {}).get("parameters", [])]
        needed = {
            each["name"]: each["example"]
            for each in (operation or {}).get("parameters", [])
            if each.get("required") and each["in"] == "query" and "example" in each
        } | ({"group": "hour"} if path.endswith("/revenue") else {})
        for name in names:
            for value in VALUES:
                if name == "passage_id":
                    if not value.isdecimal():
                        continue
                    answer = recorder.get(f"/passages/{value}")
                else:
                    answer = recorder.get(path.removeprefix("/api/v1"), **(needed | {name: value}))
                assert answer.status_code < 500, (path, name, value, answer.text)
                tried += 1
    assert tried > 500


@ONE_DATABASE
def test_every_field_of_a_passage_by_the_api(recorder):
    body = {
        "plaza": "harbour-bridge", "lane": "3", "class": "car", "plate": "AB-12-CD",
        "passed_at": "2026-05-04T07:15:00Z", "payment_method": "tag",
    }  # fmt: skip
    for name in body:
        for value in [*VALUES, "\ud800", 2**63, -(2**80), 1.5, None, True, [], {}]:
            for answer in (
                recorder.record(body | {name: value}),
                recorder.record_batch([body | {name: value}]),
            ):
                assert answer.status_code in (201, 400, 422), (name, value, answer.text)


@ONE_DATABASE
def test_every_parameter_of_the_pages(log_in):
    admin = log_in("admin")
    for path, names in {
        "/": ("plaza", "class", "at"),
        "/dashboard": ("plaza",),
        "/dashboard/parts": ("plaza",),
        "/passages": (
            "plaza", "plate", "since", "until", "class", "lane", "payment", "cursor",
        ),
        "/passages/export.csv": ("plaza", "plate", "since", "until", "class", "lane", "payment"),
        "/passages/new": ("plaza", "lane"),
        "/tariffs": ("ended",),
        "/tariffs/new": ("plaza",),
        "/login": ("next",),
    }.items():  # fmt: skip
        for name in names:
            for value in VALUES:
                # With a plaza as well, where the page knows one and it is not what is tried.
                beside = "plaza" in names and name != "plaza"
                for more in ({}, {"plaza": "bay-crossing"}) if beside else ({},):
                    page = admin.get(path, **(more | {name: value}))
                    assert page.status_code < 500, (path, name, value)
    for number in (each for each in NUMBERS if each.isdecimal()):
        for path in (f"/passages/{number}", f"/tariffs/{number}/end"):
            assert admin.get(path).status_code < 500, path


@ONE_DATABASE
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_field_of_a_form(log_in, data):
    """Several at once: what one field holds decides how another is read."""
    admin = log_in("admin")
    anything = st.sampled_from(VALUES) | st.text(max_size=50)
    days = st.lists(st.sampled_from(["0", "6", "7", "-1", str(10**12), "x"]), max_size=3)
    for path, good in {
        "/passages/new": {
            "plaza": "harbour-bridge", "vehicle_class": "car", "payment_method": "tag",
            "plate": "AB12", "lane": "3", "at": "2026-05-04T08:15",
        },
        "/tariffs/new": {
            "plaza": "harbour-bridge", "vehicle_class": "car", "name": "Later", "amount": "2",
            "valid_from": "2090-01-01T00:00", "valid_until": "2090-02-01T00:00",
            "windows-0-name": "Peak", "windows-0-amount": "3", "windows-0-days": ["0"],
            "windows-0-starts": "07:30", "windows-0-ends": "10:00",
        },
        "/tariffs/1/end": {"at": "2090-01-01T00:00"},
    }.items():  # fmt: skip
        sent = {
            name: data.draw(days if isinstance(value, list) else st.just(value) | anything)
            for name, value in good.items()
        }
        page = admin.send(path, **sent)
        assert page.status_code in (303, 422), (path, sent)


@ONE_DATABASE
@pytest.mark.parametrize("day", ["7", "-1", str(10**12), str(2**63)])
def test_a_day_that_no_week_has(log_in, day):
    """It was a number of bits to shift by."""
    sent = log_in("admin").send(
        "/tariffs/new",
        **{"plaza": "harbour-bridge", "vehicle_class": "car", "name": "Later", "amount": "2"},
        **{"valid_from": "2090-01-01T00:00", "windows-0-name": "Peak", "windows-0-amount": "3"},
        **{"windows-0-days": [day], "windows-0-starts": "07:30", "windows-0-ends": "10:00"},
    )
    assert sent.status_code == 422
    assert "Choose at least one day." in sent.text


@ONE_DATABASE
@pytest.mark.parametrize(
    "command",
    [
        ("prune", "--days", "999999999"),
        ("prune", "--days", "9" * 30),
        ("demo", "seed", "--passages", "9" * 30),
        ("tariffs", "list", "--plaza", "\udcff"),
        ("user", "disable", "\udcff"),
    ],
)
def test_commands_end_with_a_message(app, command):
    result = app.test_cli_runner().invoke(args=["toll", *command])
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
