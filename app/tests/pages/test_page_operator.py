"""Recording, filtering and exporting by the pages, on both databases."""

from __future__ import annotations

import csv
import io
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from visiting import Visitor, alert

from toll.models import Passage
from toll.services import passages
from toll.services.passages import NewPassage

ONE_DATABASE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
CAR = {
    "plaza": "harbour-bridge",
    "lane": "3",
    "plate": "ab-12-cd",
    "vehicle_class": "car",
    "payment_method": "tag",
    # A Monday morning at the plaza: peak.
    "at": "2026-11-23T08:15",
}


def rows(session) -> list[Passage]:
    session.rollback()
    return list(session.scalars(sa.select(Passage).order_by(Passage.id)))


def record(session, count: int = 1, **more: object) -> None:
    """Record passages an hour apart, the latest first, behind the pages' back."""
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    for index in range(count):
        given = {
            "plaza": "harbour-bridge",
            "lane": "1",
            "vehicle_class": "car",
            "plate": f"AA{index:04}",
            "payment_method": "cash",
            "passed_at": at - timedelta(hours=index),
        }
        passages.record(session, NewPassage(**(given | more)), "key:lane-1")


def test_passage_is_charged_by_its_time_and_keeps_who_recorded_it(log_in, session):
    visitor = log_in("operator")
    answer = visitor.send("/passages/new", **CAR)
    [made] = rows(session)
    assert answer.location == f"/passages/{made.id}"
    assert (made.amount, made.currency, made.tariff_name) == (320, "EUR", "Peak")
    assert (made.plate, made.recorded_by) == ("AB12CD", "user:operator")
    # Lisbon in winter is on UTC.
    assert made.passed_at == datetime(2026, 11, 23, 8, 15, tzinfo=UTC)
    page = visitor.get(answer.location)
    assert "3.20\N{NO-BREAK SPACE}EUR" in page.text
    assert "The passage is recorded." in page.text
    assert "The passage is recorded." not in visitor.get(answer.location).text


def test_same_form_sent_many_times_at_once_charges_once(app, log_in, session):
    visitor = log_in("operator")
    fields = visitor.hidden("/passages/new") | CAR
    cookie = visitor.cookie()

    def send(_: int) -> str:
        again = Visitor(app)
        again.client.set_cookie("__Host-toll", cookie, domain="toll.example", secure=True)
        return again.post("/passages/new", fields).location

    with ThreadPoolExecutor(4) as pool:
        locations = list(pool.map(send, range(8)))
    [made] = rows(session)
    assert set(locations) == {f"/passages/{made.id}"}


def test_form_sent_again_with_other_values_says_so_and_can_be_sent(log_in, session):
    """It may be a correction or another vehicle: that is for a person to say."""
    visitor = log_in("operator")
    fields = visitor.hidden("/passages/new")
    visitor.post("/passages/new", fields | CAR)
    answer = visitor.post("/passages/new", fields | CAR | {"plate": "OTHER1"})
    assert answer.status_code == 422
    assert "sent before with other values" in alert(answer)
    assert len(rows(session)) == 1
    token = re.search(r'name="token" type="hidden" value="([^"]+)"', answer.text)[1]
    assert token != fields["token"]
    visitor.post("/passages/new", fields | CAR | {"plate": "OTHER1", "token": token})
    assert [row.plate for row in rows(session)] == ["AB12CD", "OTHER1"]


@ONE_DATABASE
@pytest.mark.parametrize("token", ["", "x" * 300, "a\0b", "é"])
def test_form_without_a_usable_token_is_not_charged(log_in, session, token):
    """What could be charged twice is not charged at all; the page has a new token."""
    visitor = log_in("operator")
    answer = visitor.send("/passages/new", **CAR, token=token)
    assert answer.status_code == 422
    assert "Send it again" in alert(answer)
    assert rows(session) == []


@ONE_DATABASE
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("plaza", "", "Choose a plaza."),
        ("plaza", "nowhere", "“nowhere” is not known."),
        ("lane", "", "The lane is missing."),
        ("lane", "no lane", "“no lane” is not a lane."),
        ("plate", "", "The plate is missing."),
        ("plate", "\0\0\0", "is not a plate."),
        ("vehicle_class", "", "Choose a vehicle class."),
        ("vehicle_class", "tank", "“tank” is not known."),
        ("payment_method", "", "Choose how it was paid."),
        ("payment_method", "shells", "“shells” is not known."),
        ("at", "tomorrow", "“tomorrow” is not a date and time."),
        ("at", "2099-01-01T00:00", "Is in the future."),
        ("at", "2026-03-29T01:30", "Does not exist at this plaza: the clocks go forward over it."),
        ("at", "2000-01-01T00:00", "Has no tariff for car at harbour-bridge."),
    ],
)
def test_error_stands_at_its_field_and_above(log_in, session, field, value, message):
    visitor = log_in("operator")
    answer = visitor.send("/passages/new", **(CAR | {field: value}))
    assert answer.status_code == 422
    assert message in alert(answer)
    assert re.search(rf'id="{field}-fault">[^<]*{re.escape(message)}', answer.text)
    assert answer.text.count("aria-invalid") == 1
    assert 'value="ab-12-cd"' in answer.text or field == "plate"
    assert rows(session) == []


@ONE_DATABASE
def test_what_people_type_is_escaped(log_in, session):
    visitor = log_in("operator")
    attack = '"><script>alert(1)</script>'
    for path in ("/passages/new",):
        answer = visitor.send(path, **{field: attack for field in CAR})
        assert "<script>" not in answer.text
    for name in ("plaza", "plate", "since", "until", "class", "lane", "payment", "cursor"):
        assert "<script>alert" not in visitor.get("/passages", **{name: attack}).text


def plates(answer) -> list[str]:
    return re.findall(r'<span class="plate">(\w+)</span>', answer.text)


def test_filters_narrow_list_total_and_export_alike(log_in, session):
    visitor = log_in("viewer")
    record(session, 3)
    record(session, 1, plaza="bay-crossing", plate="TOKYO1", payment_method="card", lane="N-2")
    record(session, 1, vehicle_class="truck", plate="TRUCK1")
    for filters, expected in [
        ({}, 5),
        ({"plaza": "bay-crossing"}, 1),
        ({"plate": "tokyo 1"}, 1),
        ({"class": "truck"}, 1),
        ({"payment": "card"}, 1),
        ({"lane": "N-2"}, 1),
        ({"plate": "AA0001", "payment": "card"}, 0),
        ({"plaza": "", "plate": "", "since": ""}, 5),
        ({"unknown": "1"}, 5),
    ]:
        page = visitor.get("/passages", **filters)
        assert page.status_code == 200
        assert len(plates(page)) == expected, filters
        assert re.search(rf">{expected} passages?\b", page.text)
        exported = visitor.get("/passages/export.csv", **filters)
        assert exported.mimetype == "text/csv"
        found = list(csv.DictReader(io.StringIO(exported.text)))
        assert [row["plate"] for row in found] == plates(page)


def test_days_are_the_plazas_own(log_in, session):
    """23:30 UTC is another day in Tokyo; both days of a range belong to it."""
    visitor = log_in("viewer")
    late = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)
    record(session, plaza="bay-crossing", plate="LATE01", passed_at=late)
    for filters, expected in [
        ({"plaza": "bay-crossing", "since": "2026-11-21", "until": "2026-11-21"}, 1),
        ({"plaza": "bay-crossing", "until": "2026-11-20"}, 0),
        ({"since": "2026-11-20", "until": "2026-11-20"}, 1),
        ({"since": "2026-11-21"}, 0),
        ({"plaza": "harbour-bridge", "since": "2026-11-20"}, 0),
    ]:
        assert len(plates(visitor.get("/passages", **filters))) == expected, filters


@ONE_DATABASE
@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"plaza": "nowhere"}, "“nowhere” is not known."),
        ({"plate": "!"}, "“!” is not a plate."),
        ({"since": "soon"}, "“soon” is not a day. Write it like 2026-05-04."),
        ({"until": "0001-01-01"}, "is not a day."),
        ({"until": "9999-12-31"}, "is not a day."),
        ({"since": "2026-02-02", "until": "2026-02-01"}, "This day is before the first."),
        ({"cursor": "x"}, "“x” is not a cursor."),
        ({"lane": "no lane"}, "“no lane” is not a lane."),
    ],
)
def test_filter_that_cannot_match_says_why(log_in, filters, message):
    visitor = log_in("viewer")
    page = visitor.get("/passages", **filters)
    assert page.status_code == 400
    assert message in page.text
    if "cursor" not in filters:
        assert visitor.get("/passages/export.csv", **filters).location.startswith("/passages?")


def test_pages_follow_one_another_while_passages_come_in(log_in, session):
    visitor = log_in("viewer")
    record(session, 60)
    first = visitor.get("/passages")
    older = re.search(r'rel="next" href="([^"]+)"', first.text)[1].replace("&amp;", "&")
    record(session, 1, plate="NEW001")
    second = visitor.get(older)
    assert len(plates(first)) == 50
    assert len(plates(second)) == 10
    assert len({*plates(first), *plates(second)}) == 60
    assert 'rel="next"' not in second.text


def test_dashboard_counts_each_plazas_own_day_and_each_currency(log_in, session):
    visitor = log_in("viewer")
    now = datetime.now(UTC)
    record(session, passed_at=now)
    record(session, plaza="bay-crossing", plate="TOKYO1", passed_at=now)
    record(session, plaza="bay-crossing", plate="OLD001", passed_at=now - timedelta(days=1))
    page = visitor.get("/dashboard")
    assert re.search(r"<dt>Passages</dt>\s*<dd>2</dd>", page.text)
    amounts = dict(
        (currency, amount)
        for amount, currency in re.findall(r'<dd>([\d.,]+) <span class="unit">(\w+)', page.text)
    )
    assert amounts.keys() == {"CHF", "EUR", "JPY"}
    assert amounts["CHF"] == "0.00"
    assert "." in amounts["EUR"]
    assert "." not in amounts["JPY"]
    # The latest are not only of today.
    assert sorted(plates(page)) == ["AA0000", "OLD001", "TOKYO1"]
    assert "passages by hour. Busiest: " in page.text
    one = visitor.get("/dashboard", plaza="bay-crossing")
    assert re.search(r"<dt>Passages</dt>\s*<dd>1</dd>", one.text)
    assert visitor.get("/dashboard", plaza="nowhere").status_code == 404


def test_parts_for_the_script_are_the_parts_of_the_page(log_in, session):
    """What the script puts in place is what a reload would show."""
    visitor = log_in("viewer")
    record(session, 2, passed_at=datetime.now(UTC))
    page, parts = visitor.get("/dashboard").text, visitor.get("/dashboard/parts").text
    found = re.findall(r'<div id="(part-\w+)">(.*?)</div>\n(?=<div id="part|$)', parts + "\n", re.S)
    assert {name for name, _ in found} == {
        "part-stats",
        "part-hours",
        "part-classes",
        "part-latest",
    }
    for name, content in found:
        assert f'<div id="{name}" data-live-part>{content}</div>' in page


@ONE_DATABASE
@pytest.mark.parametrize("passage_id", ["0", "999", str(10**30), "x", "-1"])
def test_passage_that_is_not_there(log_in, passage_id):
    assert log_in("viewer").get(f"/passages/{passage_id}").status_code == 404


@ONE_DATABASE
def test_long_values_are_shown_whole(log_in, session):
    record(session, plate="W" * 16, lane="N-12345678", passed_at=datetime.now(UTC))
    visitor = log_in("viewer")
    for path in ("/dashboard", "/passages", "/passages/1"):
        assert "W" * 16 in visitor.get(path).text
