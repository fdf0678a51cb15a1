"""What was charged, on the clocks of the plazas."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete
from sqlalchemy.orm import Session

from toll.errors import InvalidParameters
from toll.models import Passage
from toll.services import passages, revenue, tariffs
from toll.services.passages import NewPassage, PassageFilter


def record(session: Session, *moments: datetime, plaza: str = "harbour-bridge") -> None:
    passages.record_batch(
        session,
        [
            NewPassage(
                plaza=plaza,
                lane="1",
                vehicle_class="car",
                plate="AA12BB",
                payment_method="tag",
                passed_at=moment,
            )
            for moment in moments
        ],
        "key:test",
    )


def test_a_day_of_25_hours_has_the_repeated_one_twice(session):
    """On 2025-10-26 Lisbon goes from 01:59 back to 01:00."""
    start = datetime(2025, 10, 25, 23, tzinfo=UTC)
    record(session, *(start + timedelta(minutes=30 * step) for step in range(50)))
    hours = revenue.by(session, "hour", PassageFilter())
    assert [each.count for each in hours] == [2] * 25
    assert [each.key for each in hours[:4]] == [
        "2025-10-26T00:00+01:00",
        "2025-10-26T01:00+01:00",
        "2025-10-26T01:00+00:00",
        "2025-10-26T02:00+00:00",
    ]
    assert [(each.key, each.count) for each in revenue.by(session, "day", PassageFilter())] == [
        ("2025-10-26", 50)
    ]


def test_days_are_those_of_each_plaza(session):
    """At 23:30 UTC it is tomorrow in Tokyo."""
    moment = datetime(2026, 1, 15, 23, 30, tzinfo=UTC)
    record(session, moment)
    record(session, moment, plaza="bay-crossing")
    assert [(each.key, each.currency) for each in revenue.by(session, "day", PassageFilter())] == [
        ("2026-01-15", "EUR"),
        ("2026-01-16", "JPY"),
    ]


def test_quarters_of_an_hour_matter(session):
    """Kathmandu is 5:45 ahead of UTC: its hours begin at a quarter."""
    tariffs.create_plaza(
        session,
        code="pass",
        name="Pass",
        road="H1",
        time_zone="Asia/Kathmandu",
        currency="NPR",
    )
    tariffs.create_tariff(
        session,
        tariffs.NewTariff(
            plaza="pass",
            vehicle_class="car",
            name="All",
            amount=100,
            valid_from=datetime(2025, 1, 1, tzinfo=UTC),
        ),
    )
    record(
        session,
        datetime(2026, 1, 15, 0, 14, 59, tzinfo=UTC),
        datetime(2026, 1, 15, 0, 15, tzinfo=UTC),
        plaza="pass",
    )
    assert [each.label for each in revenue.by(session, "hour", PassageFilter())] == [
        "05:00",
        "06:00",
    ]


def test_plazas_and_classes_have_names(session):
    moment = datetime(2026, 1, 15, 12, tzinfo=UTC)
    record(session, moment, moment)
    record(session, moment, plaza="bay-crossing")
    assert [
        (each.key, each.label, each.count, each.formatted)
        for each in revenue.by(session, "plaza", PassageFilter())
    ] == [
        ("bay-crossing", "Bay Crossing", 1, "600 JPY"),
        ("harbour-bridge", "Harbour Bridge", 2, "4.20 EUR"),
    ]
    assert [
        (each.key, each.count, each.currency)
        for each in revenue.by(session, "class", PassageFilter())
    ] == [("car", 2, "EUR"), ("car", 1, "JPY")]


def test_filters_hold_here_too(session):
    moment = datetime(2026, 1, 15, 12, tzinfo=UTC)
    record(session, moment)
    record(session, moment, plaza="bay-crossing")
    for group in revenue.GROUPS:
        rows = revenue.by(session, group, PassageFilter(plaza="bay-crossing"))
        assert [each.currency for each in rows] == ["JPY"]
    with pytest.raises(InvalidParameters, match="group is not known"):
        revenue.by(session, "week", PassageFilter())


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=10,
)
@given(
    moments=st.lists(
        st.datetimes(datetime(2025, 2, 1), datetime(2026, 10, 1), timezones=st.just(UTC)),
        min_size=1,
        max_size=10,
    ),
    plaza=st.sampled_from(["harbour-bridge", "glacier-tunnel", "bay-crossing"]),
)
def test_every_grouping_adds_up_to_the_total(session, moments, plaza):
    session.execute(delete(Passage))
    session.commit()
    record(session, *moments, plaza=plaza)
    total = passages.total(session, PassageFilter())
    for group in revenue.GROUPS:
        rows = revenue.by(session, group, PassageFilter())
        assert sum(each.count for each in rows) == total.count == len(moments)
        assert {each.currency: each.amount for each in rows}.keys() == total.amounts.keys()
        assert sum(each.amount for each in rows) == sum(total.amounts.values())


def test_today_begins_at_each_plazas_midnight(session):
    moment = datetime(2026, 1, 15, 20, tzinfo=UTC)  # Already the 16th in Tokyo.
    record(session, moment - timedelta(hours=2), moment - timedelta(hours=21))
    record(session, moment - timedelta(hours=2), moment - timedelta(hours=6), plaza="bay-crossing")
    today = revenue.today(session, moment)
    days = {each.plaza.code: (each.day, each.count, each.formatted) for each in today.plazas}
    assert days == {
        "harbour-bridge": (date(2026, 1, 15), 1, "3.20 EUR"),
        "glacier-tunnel": (date(2026, 1, 15), 0, "0.00 CHF"),
        "bay-crossing": (date(2026, 1, 16), 1, "600 JPY"),
    }
    assert today.count == 2
    assert today.amounts == {"CHF": 0, "EUR": 320, "JPY": 600}
    assert {each.hour: each.count for each in today.hours if each.count} == {18: 1, 3: 1}
    assert [(each.vehicle_class.code, each.count) for each in today.classes] == [
        ("motorcycle", 0),
        ("car", 2),
        ("truck", 0),
        ("trailer", 0),
    ]
    assert revenue.today(session, moment, "bay-crossing").count == 1
