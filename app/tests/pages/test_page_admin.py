"""Tariffs by the pages: made, refused, ended."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time

import pytest
from visiting import alert

from toll.forms import minor_units
from toll.models import Tariff
from toll.services import tariffs

ONE_DATABASE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
NEW = {
    "plaza": "bay-crossing",
    "vehicle_class": "car",
    "name": "Standard 2099",
    "amount": "650",
    "valid_from": "2099-01-01T00:00",
    "valid_until": "",
    "windows-0-name": "Peak",
    "windows-0-days": ["0", "4"],
    "windows-0-starts": "07:00",
    "windows-0-ends": "00:00",
    "windows-0-amount": "900",
}


def made(session) -> list[Tariff]:
    session.rollback()
    found = tariffs.list_tariffs(session, "bay-crossing", "car")
    return [each for each in found if each.valid_from.year > 2090]


def test_new_tariff_ends_the_one_before(log_in, session):
    visitor = log_in("admin")
    assert visitor.send("/tariffs/new", **NEW).location == "/tariffs"
    [tariff] = made(session)
    # Midnight in Tokyo.
    assert tariff.valid_from == datetime(2098, 12, 31, 15, tzinfo=UTC)
    assert (tariff.amount, tariff.currency) == (650, "JPY")
    [window] = tariff.windows
    assert (window.day_names, window.amount) == (("Monday", "Friday"), 900)
    assert (window.starts, window.ends) == (time(7), time(0))
    before = tariffs.list_tariffs(session, "bay-crossing", "car")[0]
    assert before.valid_until == tariff.valid_from
    page = visitor.get("/tariffs")
    assert "Standard 2099 for Car or van, up to 3.5 t at Bay Crossing is made." in page.text
    assert re.search(r"until <time [^>]*>1 Jan 2099, 00:00 <span", page.text)


@ONE_DATABASE
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plaza": ""}, "Plaza : Choose a plaza."),
        ({"plaza": "nowhere"}, "Plaza : “nowhere” is not known."),
        ({"vehicle_class": ""}, "Vehicle : Choose a vehicle class."),
        ({"vehicle_class": "tank"}, "Vehicle : “tank” is not known."),
        ({"name": ""}, "Name : The name is missing."),
        ({"name": "\u202e"}, "is not a name."),
        ({"amount": ""}, "Amount : The amount is missing."),
        ({"amount": "6.50"}, "Amount : “6.50” has more digits than JPY."),
        ({"amount": "-1"}, "Amount : “-1” is not an amount."),
        ({"amount": "1e3"}, "Amount : “1e3” is not an amount."),
        ({"amount": "9" * 12}, "is not an amount in minor units."),
        ({"valid_from": ""}, "Valid from : The beginning is missing."),
        ({"valid_from": "soon"}, "Valid from : “soon” is not a date and time."),
        ({"valid_until": "2098-01-01T00:00"}, "Valid until : Is not after its beginning."),
        ({"windows-0-days": []}, "Window 1, Days : Choose at least one day."),
        ({"windows-0-days": ["9"]}, "Window 1, Days"),
        ({"windows-0-amount": ""}, "Window 1, Amount : Fill this in too"),
        ({"windows-0-starts": "7 h"}, "Window 1, From : “7 h” is not a time of day."),
        ({"windows-0-ends": "06:00"}, "does not end after it starts."),
        ({"windows-0-name": " "}, "Window 1, Name : Fill this in too"),
        (
            {
                f"windows-1-{name}": NEW[f"windows-0-{name}"]
                for name in ("name", "days", "starts", "ends", "amount")
            },
            "Windows: “07:00-00:00” overlaps Peak 07:00-00:00.",
        ),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_made(log_in, session, changes, message):
    answer = log_in("admin").send("/tariffs/new", **(NEW | changes))
    assert answer.status_code == 422
    assert message in alert(answer)
    assert made(session) == []
    # The rest of the form is as it was.
    assert 'value="07:00"' in answer.text or "windows-0-starts" in changes


@ONE_DATABASE
def test_overlap_is_refused(log_in, session):
    visitor = log_in("admin")
    visitor.send("/tariffs/new", **NEW)
    answer = visitor.send("/tariffs/new", **(NEW | {"valid_from": "2098-06-01T00:00"}))
    assert answer.status_code == 422
    assert "Overlaps the tariff Standard 2099" in alert(answer)
    assert len(made(session)) == 1


def test_tariff_is_ended(log_in, session):
    visitor = log_in("admin")
    visitor.send("/tariffs/new", **NEW)
    [tariff] = made(session)
    path = f"/tariffs/{tariff.id}/end"
    for at, message in [
        ("2098-01-01T00:00", "Is not after its beginning."),
        ("soon", "“soon” is not a date and time."),
        ("", "Is not after its beginning."),
    ]:
        answer = visitor.send(path, at=at)
        assert answer.status_code == 422
        assert message in alert(answer)
    assert visitor.send(path, at="2099-06-01T00:00").location == "/tariffs"
    [tariff] = made(session)
    assert tariff.valid_until == datetime(2099, 5, 31, 15, tzinfo=UTC)


@ONE_DATABASE
def test_ended_tariffs_have_a_list_of_their_own(log_in, session):
    visitor = log_in("admin")
    tariff = tariffs.list_tariffs(session, "harbour-bridge", "car")[0]
    assert visitor.send(f"/tariffs/{tariff.id}/end").location == "/tariffs"
    link = f'href="/tariffs/{tariff.id}/end"'
    assert link not in visitor.get("/tariffs").text
    ended = visitor.get("/tariffs", ended="1").text
    assert re.search(r'<tr class="ended">\s*<th[^>]*>Car or van', ended)
    assert "/end" not in ended


@ONE_DATABASE
@pytest.mark.parametrize("tariff_id", ["0", "999", str(10**12), "x"])
def test_tariff_that_is_not_there(log_in, tariff_id):
    assert log_in("admin").get(f"/tariffs/{tariff_id}/end").status_code == 404


@pytest.mark.parametrize(
    ("text", "currency", "amount"),
    [
        ("2.10", "EUR", 210),
        ("2,1", "EUR", 210),
        ("2", "EUR", 200),
        (" 0.05 ", "EUR", 5),
        ("0", "EUR", 0),
        ("210", "JPY", 210),
        ("2.105", "KWD", 2105),
        # A float would make 1999 of it.
        ("19.99", "EUR", 1999),
        ("8.29", "EUR", 829),
    ],
)
def test_amounts_are_read_exactly(text, currency, amount):
    assert minor_units(text, currency) == amount


@pytest.mark.parametrize(
    ("text", "currency"),
    [("2.105", "EUR"), ("2.1", "JPY"), ("", "EUR"), ("1.", "EUR"), (".5", "EUR"), ("٣", "EUR")],
)
def test_amounts_that_are_none_are_refused(text, currency):
    with pytest.raises(ValueError, match=r"amount|digits") as caught:
        minor_units(text, currency)
    problem, remedy = caught.value.args
    assert problem
    assert remedy
