"""The table, its checks, and which tariff holds when."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from toll import TariffError
from toll.settings import TARIFFS
from toll.tariffs import Tariffs, load_tariffs

TABLE = """
[currencies]
EUR = 2
BHD = 3
JPY = 0
[classes]
car = "Car"
[[plazas]]
id = "p"
name = "P"
time_zone = "Europe/Lisbon"
currency = "EUR"
[[plazas.tariffs]]
name = "Peak"
days = ["Monday", "Wednesday"]
windows = [[07:00:00, 10:00:00], [22:00:00, 00:00:00]]
amounts = { car = 320 }
[[plazas.tariffs]]
name = "Else"
amounts = { car = 205 }
"""


@pytest.fixture
def table(tmp_path: Path):
    """Write a table with replacements and load it."""

    def load(*replacements: tuple[str, str]) -> Tariffs:
        text = TABLE
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "tariffs.toml"
        path.write_text(text)
        return load_tariffs(path)

    return load


@pytest.mark.parametrize(
    ("local", "tariff"),
    [
        ("2026-11-23T06:59:59", "Else"),
        ("2026-11-23T07:00:00", "Peak"),
        ("2026-11-23T09:59:59", "Peak"),
        ("2026-11-23T10:00:00", "Else"),
        ("2026-11-23T23:59:59", "Peak"),
        ("2026-11-24T00:00:00", "Else"),
        ("2026-11-24T08:00:00", "Else"),
        ("2026-11-25T08:00:00", "Peak"),
    ],
)
def test_window_includes_its_first_moment_and_excludes_its_last(table, local, tariff):
    at = datetime.fromisoformat(local).replace(tzinfo=ZoneInfo("Europe/Lisbon"))
    assert table().quote("p", "car", at).tariff.name == tariff


def test_day_and_hour_are_those_of_the_plaza(table):
    """Sunday 23:30 in London is Monday 08:30 in Tokyo."""
    tariffs = table(("Europe/Lisbon", "Asia/Tokyo"), ('"EUR"', '"JPY"'))
    quote = tariffs.quote("p", "car", datetime(2026, 11, 22, 23, 30, tzinfo=UTC))
    assert quote.tariff.name == "Peak"
    assert quote.at.isoformat() == "2026-11-23T08:30:00+09:00"


@pytest.mark.parametrize(
    ("currency", "formatted"), [("EUR", "2.05 EUR"), ("JPY", "205 JPY"), ("BHD", "0.205 BHD")]
)
def test_amount_has_the_digits_of_its_currency(table, currency, formatted):
    tariffs = table(('"EUR"', f'"{currency}"'))
    quote = tariffs.quote("p", "car", datetime(2026, 11, 22, 12, tzinfo=UTC))
    assert quote.amount == 205
    assert quote.formatted == formatted


@pytest.mark.parametrize(
    ("days", "hours"),
    [
        ('["Monday", "Wednesday"]', "Monday, Wednesday, 07:00\u201310:00 and 22:00\u201300:00"),
        (
            '["Wednesday", "Monday", "Tuesday"]',
            "Monday to Wednesday, 07:00\u201310:00 and 22:00\u201300:00",
        ),
        ("[]", "Every day, 07:00\u201310:00 and 22:00\u201300:00"),
    ],
)
def test_hours_in_words(table, days, hours):
    tariffs = table(('["Monday", "Wednesday"]', days))
    peak, otherwise = tariffs.plazas["p"].tariffs
    assert peak.hours == hours
    assert otherwise.hours == "At all other times"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('time_zone = "Europe/Lisbon"', 'time_zone = "Europe/Lissabon"', "plaza p: 'Europe/Lissa"),
        ('time_zone = "Europe/Lisbon"', 'time_zone = "../etc"', "is no time zone"),
        ('currency = "EUR"', 'currency = "USD"', "does not give the digits (0 to 4) of USD"),
        ('"Wednesday"', '"Mittwoch"', "tariff Peak: 'Mittwoch' is no day"),
        ("07:00:00, 10:00:00", "10:00:00, 07:00:00", "tariff Peak: a window is not two times"),
        ("07:00:00, 10:00:00", '"07:00", "10:00"', "a window is not two times"),
        ("{ car = 320 }", "{ car = 3.2 }", "the amount for car is 3.2: write whole minor units"),
        ("{ car = 320 }", "{ car = -1 }", "the amount for car is -1"),
        ("{ car = 320 }", "{ truck = 320 }", "amounts and classes differ in car, truck"),
        ('name = "P"', 'label = "P"', "plaza p has an unknown key label"),
        ('name = "P"\n', "", "plaza p has no name"),
        ('name = "P"', "name = 3", "name has the type int: give it str"),
        ('name = "Else"', 'name = "Else"\ndays = ["Monday"]', "the last tariff must hold at all"),
        ("[currencies]", "currencies", "is not TOML"),
        ("[[plazas]]", "[plazas]", "plazas has the type dict: give it list"),
    ],
)
def test_fault_is_named_with_its_place(table, tmp_path, old, new, words):
    """Whoever edits the table sees what to do, and a wrong table never quotes."""
    with pytest.raises(TariffError) as fault:
        table((old, new))
    assert str(tmp_path / "tariffs.toml") in str(fault.value)
    assert words in str(fault.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(TariffError, match=r"none\.toml cannot be read: No such file"):
        load_tariffs(tmp_path / "none.toml")


def test_shipped_table_is_valid_and_shows_what_the_form_offers():
    tariffs = load_tariffs(TARIFFS)
    assert len({plaza.zone.key for plaza in tariffs.plazas.values()}) > 1
    assert len(tariffs.classes) > 1
