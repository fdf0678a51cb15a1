"""What a passage costs: windows, days, clocks that change, and tariffs that do not overlap."""

from __future__ import annotations

import io
import itertools
from datetime import UTC, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete
from sqlalchemy.orm import Session

from toll.errors import InvalidParameters
from toll.models import DAYS, MIDNIGHT, PeakWindow, Tariff
from toll.services import money, passages, tariffs, times
from toll.services.tariffs import NewTariff, NewWindow

LISBON = ZoneInfo("Europe/Lisbon")
TOKYO = ZoneInfo("Asia/Tokyo")
MINUTES = st.integers(0, 24 * 60 - 1)

# A fixture's database is the same for all examples: each begins by emptying what it fills.
same_database = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=25,
)


def clock(minutes: int) -> time:
    return time(minutes // 60 % 24, minutes % 60)


def new(**changes: object) -> NewTariff:
    """A tariff that could be made."""
    given = {
        "plaza": "harbour-bridge",
        "vehicle_class": "car",
        "name": "Summer",
        "amount": 250,
        "valid_from": datetime(2030, 6, 1, tzinfo=LISBON),
    }
    return NewTariff(**(given | changes))


def problems(error: pytest.ExceptionInfo[InvalidParameters]) -> dict[str, str]:
    return {each.field: f"{each.problem}; {each.remedy}" for each in error.value.errors}


# Quotes


@pytest.mark.parametrize(
    ("local", "name", "amount"),
    [
        ("2026-05-04T06:59:59", "Off-peak", 210),
        ("2026-05-04T07:00", "Peak", 320),
        ("2026-05-04T09:59:59", "Peak", 320),
        ("2026-05-04T10:00", "Off-peak", 210),
        ("2026-05-04T16:30", "Peak", 320),
        # Saturday.
        ("2026-05-09T08:00", "Off-peak", 210),
    ],
)
def test_quote_goes_by_the_plazas_clock(session, local, name, amount):
    at = datetime.fromisoformat(local).replace(tzinfo=LISBON)
    # The same moment, written elsewhere.
    for moment in (at, at.astimezone(UTC), at.astimezone(TOKYO)):
        quote = tariffs.quote(session, "harbour-bridge", "car", moment)
        assert (quote.name, quote.amount, quote.currency) == (name, amount, "EUR")
        assert quote.at_local.isoformat() == at.isoformat()


@pytest.mark.parametrize(
    ("local", "name", "amount"),
    [
        # A whole day as one window, up to midnight.
        ("2026-05-09T00:00", "Weekend", 1650),
        ("2026-05-10T23:59:59", "Weekend", 1650),
        ("2026-05-11T00:00", "Night", 1050),
        ("2026-05-11T06:00", "Day", 1300),
    ],
)
def test_windows_of_whole_days(session, local, name, amount):
    at = datetime.fromisoformat(local).replace(tzinfo=ZoneInfo("Europe/Zurich"))
    quote = tariffs.quote(session, "glacier-tunnel", "car", at)
    assert (quote.name, quote.amount) == (name, amount)


def test_a_yen_has_no_decimals(session):
    quote = tariffs.quote(session, "bay-crossing", "car", datetime(2026, 5, 4, 7, tzinfo=TOKYO))
    assert quote.formatted == "800 JPY"


def test_both_passes_of_a_repeated_hour_are_charged_by_the_clock(session):
    """On 2026-10-25 Lisbon shows 01:30 twice; a window that covers it holds both times."""
    tariffs.create_tariff(
        session,
        new(
            valid_from=datetime(2026, 10, 1, tzinfo=LISBON),
            windows=[NewWindow(name="Early", starts=time(1), ends=time(2), amount=99)],
        ),
    )
    start = datetime(2026, 10, 24, 23, tzinfo=UTC)
    names = [
        tariffs.quote(session, "harbour-bridge", "car", start + timedelta(minutes=30 * step)).name
        for step in range(7)
    ]
    # 00:00 00:30 01:00 01:30 01:00 01:30 02:00
    assert names == ["Summer", "Summer", "Early", "Early", "Early", "Early", "Summer"]


def test_a_window_inside_a_skipped_hour_holds_on_no_moment(session):
    """On 2026-03-29 Lisbon goes from 00:59 to 02:00."""
    tariffs.create_tariff(
        session,
        new(
            valid_from=datetime(2026, 3, 1, tzinfo=LISBON),
            windows=[NewWindow(name="Early", starts=time(1), ends=time(2), amount=99)],
        ),
    )
    start = datetime(2026, 3, 29, tzinfo=UTC)
    for minute in range(0, 180, 5):
        at = start + timedelta(minutes=minute)
        assert tariffs.quote(session, "harbour-bridge", "car", at).name == "Summer"


@pytest.mark.parametrize(
    ("plaza", "vehicle_class", "kind", "field"),
    [
        ("moon", "car", tariffs.UnknownPlaza, "plaza"),
        ("", "car", tariffs.UnknownPlaza, "plaza"),
        ("har\0bour", "car", tariffs.UnknownPlaza, "plaza"),
        ("harbour-bridge", "boat", tariffs.UnknownClass, "class"),
        ("harbour-bridge", "Car", tariffs.UnknownClass, "class"),
    ],
)
def test_unknown_codes_are_answered_with_the_known_ones(session, plaza, vehicle_class, kind, field):
    with pytest.raises(kind) as error:
        tariffs.quote(session, plaza, vehicle_class)
    assert "Choose one of" in problems(error)[field]
    assert "harbour-bridge" in problems(error)[field] or "motorcycle" in problems(error)[field]


def test_a_time_without_a_tariff(session):
    with pytest.raises(tariffs.NoTariff) as error:
        tariffs.quote(session, "harbour-bridge", "car", datetime(1999, 1, 1, tzinfo=UTC))
    assert "has no tariff for car at harbour-bridge" in problems(error)["at"]


# Windows, without a database


@given(
    days=st.integers(1, 127),
    starts=MINUTES,
    ends=MINUTES,
    moment=st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),
    zone=st.sampled_from(["Europe/Lisbon", "Asia/Kathmandu", "Australia/Lord_Howe", "Asia/Tokyo"]),
)
@example(127, 0, 0, datetime(2026, 3, 29, 1, tzinfo=UTC), "Europe/Lisbon")
def test_a_window_holds_on_its_days_between_its_times(days, starts, ends, moment, zone):
    assume(starts < ends or ends == 0)
    window = PeakWindow(days=days, starts=clock(starts), ends=clock(ends))
    local = moment.astimezone(ZoneInfo(zone))
    minutes = local.hour * 60 + local.minute
    inside = starts <= minutes < (ends or 24 * 60)
    assert window.holds(local) == (DAYS[local.weekday()] in window.day_names and inside)


@given(
    edges=st.lists(MINUTES, min_size=4, max_size=4, unique=True).map(sorted),
    moment=st.datetimes(timezones=st.just(UTC), min_value=datetime(2020, 1, 1)),
)
def test_at_most_one_window_of_a_tariff_holds(edges, moment):
    windows = [
        PeakWindow(days=127, starts=clock(start), ends=clock(end))
        for start, end in itertools.pairwise([*edges, 0])
        if start < end or end == 0
    ]
    tariff = Tariff(windows=windows)
    held = [window for window in windows if window.holds(moment)]
    assert len(held) <= 1
    assert tariff.window_at(moment) is (held[0] if held else None)


@pytest.mark.parametrize(
    ("days", "starts", "ends", "words"),
    [
        (0b11111, "07:00", "10:00", "Monday to Friday, 07:00\N{EN DASH}10:00"),
        (0b1100000, "00:00", "00:00", "Saturday, Sunday"),
        (0b1111111, "22:00", "00:00", "Every day, 22:00\N{EN DASH}00:00"),
        (0b0000101, "01:00", "02:00", "Monday, Wednesday, 01:00\N{EN DASH}02:00"),
    ],
)
def test_windows_in_words(days, starts, ends, words):
    window = PeakWindow(days=days, starts=time.fromisoformat(starts), ends=time.fromisoformat(ends))
    assert window.hours == words


# Money


@given(amount=st.integers(-(10**12), 10**12), currency=st.sampled_from(sorted(money.CURRENCIES)))
def test_money_is_written_without_loss(amount, currency):
    """A float could not hold all of these."""
    text, code = money.format_money(amount, currency).split()
    assert code == currency
    assert int(text.replace(".", "")) == amount
    _, _, decimals = text.partition(".")
    assert len(decimals) == money.CURRENCIES[currency]


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (320, "EUR", "3.20 EUR"),
        (5, "EUR", "0.05 EUR"),
        (-5, "EUR", "-0.05 EUR"),
        (320, "JPY", "320 JPY"),
        (1, "KWD", "0.001 KWD"),
    ],
)
def test_money_in_words(amount, currency, text):
    assert money.format_money(amount, currency) == text


# Times


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-04T08:15", "2026-05-04T08:15:00+01:00"),
        ("2026-05-04 08:15:30.25", "2026-05-04T08:15:30.250000+01:00"),
        ("2026-05-04T08:15Z", "2026-05-04T08:15:00+00:00"),
        ("2026-05-04T08:15+05:45", "2026-05-04T08:15:00+05:45"),
        # In a query string a plus arrives as a space.
        ("2026-05-04T08:15 05:45", "2026-05-04T08:15:00+05:45"),
        # Of an hour that comes twice the first.
        ("2026-10-25T01:30", "2026-10-25T01:30:00+01:00"),
    ],
)
def test_times_are_read(text, expected):
    assert times.parse(text, LISBON).isoformat() == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("soon", "is not a date and time"),
        ("2026-05-04", "is not a date and time"),
        ("2026-02-30T08:15", "that exists"),
        ("2026-05-04T24:01", "that exists"),
        ("0001-01-01T00:00+14:00", "that exists"),
        ("2026-03-29T01:30", "the clocks go forward over it"),
    ],
)
def test_times_that_are_none(text, problem):
    with pytest.raises(ValueError, match="is") as error:
        times.parse(text, LISBON)
    found, remedy = error.value.args
    assert problem in found
    assert "2026" in remedy


@given(st.text(max_size=30) | st.from_regex(times.TIMESTAMP, fullmatch=True))
def test_any_text_is_a_time_or_an_explained_error(text):
    try:
        moment = times.parse(text, LISBON)
    except ValueError as error:
        assert len(error.args) == 2  # noqa: PT017
    else:
        assert moment.tzinfo is not None
        assert moment.astimezone(UTC)


# Making and ending tariffs


def test_a_new_tariff_ends_the_one_before(session):
    made = tariffs.create_tariff(session, new())
    before, after = tariffs.list_tariffs(session, "harbour-bridge", "car")
    assert after.id == made.id
    assert before.valid_until == made.valid_from
    night = timedelta(hours=12)
    assert tariffs.quote(session, "harbour-bridge", "car", made.valid_from - night).amount == 210
    assert tariffs.quote(session, "harbour-bridge", "car", made.valid_from).amount == 250


def test_a_tariff_between_two_is_refused_with_the_free_time(session):
    tariffs.create_tariff(session, new())
    with pytest.raises(InvalidParameters) as error:
        tariffs.create_tariff(session, new(valid_from=datetime(2030, 5, 1, tzinfo=LISBON)))
    words = " ".join(problems(error).values())
    assert "overlaps the tariff Off-peak, which ends at 2030-06-01T00:00+01:00" in words
    assert "Begin at 2030-06-01T00:00+01:00 or after" in words


def test_every_error_of_a_tariff_is_named(session):
    with pytest.raises(InvalidParameters) as error:
        tariffs.create_tariff(
            session,
            new(
                plaza="moon",
                vehicle_class="boat",
                name=" ",
                amount=2.5,
                valid_until=datetime(2030, 5, 1, tzinfo=LISBON),
                windows=[NewWindow(name="w", starts=time(9), ends=time(8), amount=1)],
            ),
        )
    assert set(problems(error)) == {"plaza", "class", "name", "amount", "valid_until", "windows"}


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"currency": "USD"}, "currency", "is not the currency of harbour-bridge; Write EUR"),
        ({"amount": -1}, "amount", "320 for 3.20"),
        ({"amount": True}, "amount", "minor units"),
        ({"amount": 10**10}, "amount", "minor units"),
        ({"windows": [NewWindow(name="w", days=0)]}, "windows", "at least one day"),
        (
            {
                "windows": [
                    NewWindow(name="a", starts=time(7), ends=time(10)),
                    NewWindow(name="b", starts=time(9, 59), ends=MIDNIGHT),
                ]
            },
            "windows",
            "overlaps a 07:00-10:00",
        ),
    ],
)
def test_tariffs_that_are_refused(session, changes, field, words):
    with pytest.raises(InvalidParameters) as error:
        tariffs.create_tariff(session, new(**changes))
    assert words in problems(error)[field]


def test_windows_that_touch_or_have_other_days_do_not_overlap(session):
    made = tariffs.create_tariff(
        session,
        new(
            windows=[
                NewWindow(name="a", days=1, starts=time(7), ends=time(10)),
                NewWindow(name="b", days=1, starts=time(10), ends=MIDNIGHT),
                NewWindow(name="c", days=2, starts=time(7), ends=time(10)),
            ]
        ),
    )
    assert [each.name for each in made.windows] == ["a", "b", "c"]


def passage(session: Session, passed_at: datetime) -> None:
    passages.record(
        session,
        passages.NewPassage(
            plaza="harbour-bridge",
            lane="1",
            vehicle_class="car",
            plate="AA12BB",
            payment_method="tag",
            passed_at=passed_at,
        ),
        "key:test",
    )


def test_a_tariff_that_has_charged_is_not_ended_before_that(session):
    """Or the passage would have been charged by a tariff that did not hold."""
    charged = datetime(2026, 5, 4, 8, tzinfo=LISBON)
    passage(session, charged)
    with pytest.raises(InvalidParameters) as error:
        tariffs.create_tariff(session, new(valid_from=charged - timedelta(days=1)))
    assert "before 1 passages" in problems(error)["valid_from"]

    (tariff,) = tariffs.list_tariffs(session, "harbour-bridge", "car")
    with pytest.raises(InvalidParameters) as error:
        tariffs.end_tariff(session, tariff, charged)
    assert "Take 2026-05-04T08:01+01:00 or later" in problems(error)["valid_until"]
    tariffs.end_tariff(session, tariff, charged + timedelta(minutes=1))
    with pytest.raises(tariffs.NoTariff):
        tariffs.quote(session, "harbour-bridge", "car", charged + timedelta(minutes=1))


def test_a_tariff_is_not_made_longer_or_ended_before_it_begins(session):
    made = tariffs.create_tariff(session, new(valid_until=datetime(2030, 7, 1, tzinfo=LISBON)))
    with pytest.raises(InvalidParameters, match="after its end"):
        tariffs.end_tariff(session, made, datetime(2030, 8, 1, tzinfo=LISBON))
    with pytest.raises(InvalidParameters, match="not after its beginning"):
        tariffs.end_tariff(session, made, made.valid_from)
    assert tariffs.end_tariff(session, made, datetime(2030, 6, 15, tzinfo=LISBON)).valid_until


@same_database
@given(
    spans=st.lists(
        st.tuples(st.integers(0, 40), st.none() | st.integers(1, 20)), min_size=1, max_size=8
    )
)
def test_whatever_is_made_no_two_tariffs_hold_at_once(session, spans):
    """Each moment has one price at most, in whatever order tariffs come."""
    session.execute(delete(PeakWindow))
    session.execute(delete(Tariff))
    session.commit()
    zero = datetime(2030, 1, 1, tzinfo=UTC)
    for start, length in spans:
        begin = zero + timedelta(days=start)
        end = begin + timedelta(days=length) if length else None
        try:
            tariffs.create_tariff(session, new(valid_from=begin, valid_until=end))
        except InvalidParameters as error:
            assert "overlaps" in str(error)  # noqa: PT017
    made = tariffs.list_tariffs(session)
    assert made
    for one, other in itertools.pairwise(made):
        assert one.valid_until is not None
        assert one.valid_until <= other.valid_from


# CSV

HEADER = "plaza,class,name,amount,currency,valid_from,valid_until,window,days,starts,ends\n"


def load(session: Session, text: str, **options: bool) -> tariffs.ImportResult:
    return tariffs.import_csv(session, io.StringIO(text, newline=""), **options)


def test_csv_makes_tariffs_with_windows(session):
    result = load(
        session,
        HEADER + "harbour-bridge,car,Summer,250,EUR,2030-06-01T00:00,2030-09-01T00:00,,,,\n"
        "harbour-bridge,car,Summer,400,EUR,2030-06-01T00:00,2030-09-01T00:00,Fair,Sat Sun,10:00,\n"
        "\n"
        "bay-crossing,truck,New,1200,,2030-06-01T00:00+00:00,,,,,\n",
    )
    assert (result.created, result.errors) == (2, [])
    made = tariffs.list_tariffs(session, "harbour-bridge", "car")[-1]
    assert made.valid_from == datetime(2030, 6, 1, tzinfo=LISBON)
    assert [(each.name, each.hours, each.amount) for each in made.windows] == [
        ("Fair", "Saturday, Sunday, 10:00\N{EN DASH}00:00", 400)
    ]


def window_on(session: Session, days: str) -> tariffs.ImportResult:
    row = "harbour-bridge,car,New,250,EUR,2030-06-01T00:00,"
    peak = row.replace("250", "400")
    return load(session, f'{HEADER}{row},,,,\n{peak},Peak,"{days}",07:00,10:00\n')


@pytest.mark.parametrize(
    ("written", "days"),
    [
        ("", range(7)),
        ("mon", [0]),
        ("Mon-Fri", range(5)),
        ("Mon\N{EN DASH}Fri", range(5)),
        ("Monday-Wednesday SUNDAY", [0, 1, 2, 6]),
        ("Mon,Wed, Fri", [0, 2, 4]),
        ("Sat+Sun", [5, 6]),
        ("Sun/Sat; mon", [0, 5, 6]),
    ],
)
def test_csv_days(session, written, days):
    assert window_on(session, written).errors == []
    made = tariffs.list_tariffs(session, "harbour-bridge", "car")[-1]
    assert made.windows[0].days == sum(1 << day for day in days)


@pytest.mark.parametrize(
    "days",
    ["Mon-Wed-Fri", "Mon\N{EM DASH}Fri", "Mon..Fri", "Sat&Sun", "SatSun", "Monkey", "Mo", "-Fri"],
)
def test_csv_days_that_are_not_understood_are_refused(session, days):
    """A beginning that is known would charge on other days than were meant."""
    (error,) = window_on(session, days).errors
    assert (error.line, error.field, error.value) == (3, "days", days)
    assert error.problem == "are not days"
    assert error.remedy == "Write each by three letters or in full: Mon-Fri, or Sat Sun"


def test_csv_with_errors_makes_nothing_and_names_each_line(session):
    before = len(tariffs.list_tariffs(session))
    result = load(
        session,
        HEADER + "harbour-bridge,car,Good,250,EUR,2030-06-01T00:00,,,,,\n"
        "moon,car,Bad,250,EUR,2030-06-01T00:00,,,,,\n"
        "harbour-bridge,car,Bad,2.50,EUR,soon,,,,,\n"
        "harbour-bridge,truck,Bad,250,USD,2030-06-01T00:00,,,,,\n"
        "harbour-bridge,trailer,Bad,250,EUR,2030-06-01T00:00\n"
        "bay-crossing,car,Bad,1,JPY,2030-06-01T00:00,,Peak,Mon-Fri,07:00,10:00\n"
        "bay-crossing,truck,Bad,1,JPY,2030-06-01T00:00,,,,,\n"
        "bay-crossing,truck,Bad,1,JPY,2030-06-01T00:00,,Peak,Fri-Mon,7,10:00\n",
    )
    assert result.created == 0
    assert [(each.line, each.field) for each in result.errors] == [
        (3, "plaza"),
        (4, "amount"),
        (4, "valid_from"),
        (5, "currency"),
        (6, "line"),
        (7, "window"),
        (9, "days"),
        (9, "starts"),
    ]
    text = str(result.errors[1])
    assert text.startswith("line 4: amount '2.50' is not an amount in minor units.")
    assert "320 for 3.20" in text
    assert len(tariffs.list_tariffs(session)) == before


def test_csv_errors_that_only_the_database_knows_have_their_line(session):
    row = "harbour-bridge,car,Twice,250,EUR,2030-06-01T00:00,2030-07-01T00:00,,,,\n"
    result = load(session, HEADER + row + row)
    assert [(each.line, each.field) for each in result.errors] == [(3, "valid_until")]
    assert "overlaps the tariff Twice" in result.errors[0].problem


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ("plaza,class,name,amount\n", "valid_from", "is missing"),
        (HEADER.replace("ends", "end"), "end", "is not a column"),
        ("plaza,plaza,class,name,amount,valid_from\n", "plaza", "is there twice"),
        ("", "plaza", "is missing"),
        (HEADER + '"unfinished', "file", "cannot be read as CSV"),
    ],
)
def test_csv_that_is_no_tariff_table(session, text, field, problem):
    result = load(session, text)
    found = [each for each in result.errors if each.field == field]
    assert found
    assert problem in found[0].problem


def test_csv_dry_run_makes_nothing(session):
    before = len(tariffs.list_tariffs(session))
    text = HEADER + "harbour-bridge,car,Good,250,EUR,2030-06-01T00:00,,,,,\n"
    assert load(session, text, dry_run=True).created == 1
    session.expire_all()
    assert len(tariffs.list_tariffs(session)) == before
    assert all(each.valid_until is None for each in tariffs.list_tariffs(session))


@same_database
@given(st.text(max_size=200) | st.text(max_size=100).map(lambda text: HEADER + text))
def test_csv_of_any_text_is_answered_with_errors(session, text):
    result = load(session, text)
    assert result.created == 0
    # Blanks of any kind and empty columns are no row, and none after the headings is no fault.
    assert result.errors or not text.removeprefix(HEADER.strip()).replace(",", " ").split()


# Plazas and classes


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"code": "Harbour Bridge"}, "plaza"),
        ({"code": "harbour-bridge"}, "plaza"),
        ({"time_zone": "Europe/Atlantis"}, "time_zone"),
        ({"time_zone": "../etc/passwd"}, "time_zone"),
        ({"currency": "XXX"}, "currency"),
        ({"name": ""}, "name"),
    ],
)
def test_plazas_that_are_refused(session, changes, field):
    given = {
        "code": "new", "name": "New", "road": "R1", "time_zone": "UTC", "currency": "EUR"
    }  # fmt: skip
    with pytest.raises(InvalidParameters) as error:
        tariffs.create_plaza(session, **(given | changes))
    assert list(problems(error)) == [field]


def test_a_new_class_comes_last(session):
    tariffs.create_class(session, code="road-train", name="Road train")
    assert [each.code for each in tariffs.list_classes(session)][-1] == "road-train"


def test_offsets_without_a_zone_are_taken(session):
    """A client may have an offset only."""
    at = datetime(2026, 5, 4, 8, tzinfo=timezone(timedelta(hours=1)))
    assert tariffs.quote(session, "harbour-bridge", "car", at).name == "Peak"
