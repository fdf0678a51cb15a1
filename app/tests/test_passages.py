"""Passages are recorded once, are charged right, are there after a crash, and are found."""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.orm import Session

from toll.database import make_engine
from toll.errors import InvalidParameters
from toll.models import IdempotencyRecord, Passage, Tariff, now
from toll.services import fields, passages, tariffs
from toll.services.passages import IdempotencyConflict, NewPassage, PassageFilter

MORNING = datetime(2026, 5, 4, 7, 30, tzinfo=UTC)  # A Monday, 08:30 in Lisbon: peak.
MOMENT = timedelta(seconds=1)
processes = multiprocessing.get_context("fork")


def new(**changes: object) -> NewPassage:
    given = {
        "plaza": "harbour-bridge",
        "lane": "3",
        "vehicle_class": "car",
        "plate": "aa-12-bb",
        "payment_method": "tag",
        "passed_at": MORNING,
    }
    return NewPassage(**(given | changes))


def refusal(session: Session, **changes: object) -> dict[str, str]:
    with pytest.raises(InvalidParameters) as error:
        passages.record(session, new(**changes), "key:test")
    return {each.field: f"{each.problem}; {each.remedy}" for each in error.value.errors}


def test_a_passage_is_charged_by_the_tariff_of_its_time(session):
    recorded = passages.record(session, new(), "key:lane-3")
    assert not recorded.replayed
    passage = passages.get(session, recorded.passage.id)
    assert (passage.amount, passage.currency, passage.tariff_name) == (320, "EUR", "Peak")
    assert (passage.plate, passage.lane, passage.recorded_by) == ("AA12BB", "3", "key:lane-3")
    assert passage.passed_at == MORNING
    assert passage.local_time.isoformat() == "2026-05-04T08:30:00+01:00"


@contextmanager
def beside(url: str, what: Callable[[Session], object]) -> Iterator[Callable[[], Future[object]]]:
    """Yield what lets another thread, connected already, begin; it has to wait for us there."""
    ready, begin = Event(), Event()

    def work() -> object:
        with Session(make_engine(url)) as other:
            tariffs.list_plazas(other)
            ready.set()
            begin.wait()
            return what(other)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        assert ready.wait(30)

        def start() -> Future[object]:
            begin.set()
            assert wait([working], timeout=0.3).not_done
            return working

        try:
            yield start
        finally:
            begin.set()


def test_a_tariff_does_not_end_between_the_charge_and_its_passage(
    session, database_url, monkeypatch
):
    """To end one now is to end it before a passage that is being recorded."""
    (tariff,) = tariffs.list_tariffs(session, "harbour-bridge", "car", at=now())
    ending: list[Future[object]] = []

    def end(other: Session) -> None:
        tariffs.end_tariff(other, tariffs.get_tariff(other, tariff.id), now() - MOMENT)

    with beside(database_url, end) as start:
        insert = passages._insert
        monkeypatch.setattr(
            passages, "_insert", lambda *given: (ending.append(start()), insert(*given))
        )
        passages.record(session, new(passed_at=None), "key:test")
        with pytest.raises(InvalidParameters) as error:
            ending[0].result()
    assert "is before 1 passages that were charged by" in error.value.errors[0].problem


def test_a_passage_waits_for_a_tariff_that_is_being_ended(session, database_url, monkeypatch):
    (tariff,) = tariffs.list_tariffs(session, "harbour-bridge", "car", at=now())
    recording: list[Future[object]] = []

    def record(other: Session) -> None:
        passages.record(other, new(passed_at=None), "key:test")

    with beside(database_url, record) as start:
        charged = tariffs._charged
        monkeypatch.setattr(
            tariffs, "_charged", lambda *given: [charged(*given), recording.append(start())][0]
        )
        tariffs.end_tariff(session, tariff, now() - MOMENT)
        with pytest.raises(InvalidParameters) as error:
            recording[0].result()
    assert "has no tariff for car" in error.value.errors[0].problem


# SQLite has one writer at a time.
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_an_import_keeps_passages_from_being_recorded_at_its_end_alone(
    session, database_url, monkeypatch
):
    """One of many lines takes longer than a request waits for a lock."""
    create = tariffs._create

    def slowly(*given):
        made = create(*given)
        with Session(make_engine(database_url)) as other:
            other.execute(select(func.set_config("lock_timeout", "1000", False)))
            passages.record(other, new(passed_at=None), "key:test")
        return made

    monkeypatch.setattr(tariffs, "_create", slowly)
    columns = "plaza,class,name,amount,valid_from"
    line = f"harbour-bridge,car,New,250,{(now() - MOMENT).isoformat(timespec='seconds')}"
    (error,) = tariffs.import_csv(session, io.StringIO(f"{columns}\n{line}\n")).errors
    assert (error.line, error.field) == (2, "valid_from")
    assert "is before 1 passages that were charged by" in error.problem


def test_without_a_time_it_is_now(session):
    before = now()
    passed_at = passages.record(session, new(passed_at=None), "key:test").passage.passed_at
    assert before <= passed_at <= now()


def test_a_passage_keeps_what_it_was_charged(session):
    """The books of yesterday do not change with the prices of today."""
    number = passages.record(session, new(), "key:test").passage.id
    session.execute(update(Tariff).values(amount=9999, name="Other"))
    session.commit()
    session.expire_all()
    passage = passages.get(session, number)
    assert (passage.amount, passage.tariff_name) == (320, "Peak")


def test_every_error_of_a_passage_is_named(session):
    found = refusal(
        session, plaza="moon", lane="", plate="!", payment_method="barter",
        passed_at=now() + timedelta(hours=1),
    )  # fmt: skip
    assert set(found) == {"plaza", "lane", "plate", "payment_method", "passed_at"}
    assert "cash, card, tag, invoice" in found["payment_method"]
    assert "is in the future" in found["passed_at"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"vehicle_class": "boat"}, "class"),
        ({"lane": "12345678901"}, "lane"),
        ({"lane": "3\n4"}, "lane"),
        ({"plate": "A" * 17}, "plate"),
        ({"plate": "AA\0BB"}, "plate"),
        ({"passed_at": datetime(1999, 1, 1, tzinfo=UTC)}, "passed_at"),
    ],
)
def test_passages_that_are_refused(session, changes, field):
    assert list(refusal(session, **changes)) == [field]
    assert passages.count(session, PassageFilter()) == 0


def test_a_lanes_clock_may_run_ahead_a_little(session):
    passages.record(session, new(passed_at=now() + timedelta(minutes=4)), "key:test")


@given(st.text(max_size=24))
def test_plates_have_one_form(text):
    """The same plate is found however it was typed, and nothing but letters and digits is kept."""
    try:
        plate = fields.plate(text)
    except ValueError as error:
        assert len(error.args) == 2  # noqa: PT017
        return
    assert plate.isalnum()
    assert 2 <= len(plate) <= 16
    assert fields.plate(plate) == plate
    assert fields.plate(f" {plate[:1]}-{plate[1:]} ") == plate


# Idempotency


def test_the_same_key_gives_the_same_passage(session):
    first = passages.record(session, new(), "key:test", ("key:1", "k", "hash"))
    again = passages.record(session, new(), "key:test", ("key:1", "k", "hash"))
    assert (first.replayed, again.replayed) == (False, True)
    assert again.passage.id == first.passage.id
    assert passages.count(session, PassageFilter()) == 1


def test_the_same_key_for_something_else_is_a_conflict(session):
    passages.record(session, new(), "key:test", ("key:1", "k", "hash"))
    with pytest.raises(IdempotencyConflict, match="'k' was used for another request"):
        passages.record(session, new(plate="CC34DD"), "key:test", ("key:1", "k", "other"))
    assert passages.count(session, PassageFilter()) == 1


def test_keys_of_others_are_others(session):
    passages.record(session, new(), "key:a", ("key:1", "k", "hash"))
    assert not passages.record(session, new(), "key:b", ("key:2", "k", "other")).replayed


def test_a_refused_request_does_not_use_its_key(session):
    with pytest.raises(InvalidParameters):
        passages.record(session, new(plaza="moon"), "key:test", ("key:1", "k", "bad"))
    assert not passages.record(session, new(), "key:test", ("key:1", "k", "good")).replayed


def test_old_keys_are_forgotten_and_passages_stay(session):
    passages.record(session, new(), "key:test", ("key:1", "k", "hash"))
    assert passages.prune_idempotency(session, now() - timedelta(days=1)) == 0
    assert passages.prune_idempotency(session, now() + timedelta(seconds=1)) == 1
    assert passages.count(session, PassageFilter()) == 1


def _record_many(url: str, barrier, results, keys: list[str], body: str) -> None:
    """Record once for each key, all processes at once for each."""
    outcomes = []
    with Session(make_engine(url)) as session:
        for key in keys:
            barrier.wait()
            try:
                done = passages.record(session, new(plate=body), "key:x", ("key:1", key, body))
                outcomes.append((key, done.passage.id, done.replayed))
            except IdempotencyConflict:
                outcomes.append((key, None, None))
    results.put(outcomes)


def at_once(url: str, keys: list[str], bodies: list[str]) -> list[tuple[str, int, bool]]:
    """Let as many processes as there are bodies record at once; return all outcomes."""
    barrier, results = processes.Barrier(len(bodies)), processes.Queue()
    running = [
        processes.Process(target=_record_many, args=(url, barrier, results, keys, body))
        for body in bodies
    ]
    for process in running:
        process.start()
    outcomes = [outcome for _ in running for outcome in results.get()]
    for process in running:
        process.join()
        assert process.exitcode == 0
    return outcomes


def test_processes_with_the_same_key_at_once_record_once(database_url, session):
    """A lane whose request timed out sends it again, maybe to another worker or host."""
    keys = [f"k{number}" for number in range(20)]
    outcomes = at_once(database_url, keys, ["SAME01"] * 4)
    for key in keys:
        of_key = [(number, replayed) for each, number, replayed in outcomes if each == key]
        assert len({number for number, _ in of_key}) == 1
        assert sorted(replayed for _, replayed in of_key) == [False, True, True, True]
    assert passages.count(session, PassageFilter()) == len(keys)
    assert session.scalar(select(func.count(IdempotencyRecord.id))) == len(keys)


def test_processes_with_one_key_for_different_passages_record_one(database_url, session):
    outcomes = at_once(database_url, ["k0", "k1", "k2", "k3"], ["BODY01", "BODY02", "BODY03"])
    assert passages.count(session, PassageFilter()) == 4
    for key in ("k0", "k1", "k2", "k3"):
        numbers = [number for each, number, _ in outcomes if each == key]
        assert sum(number is not None for number in numbers) == 1


def _record_and_die(url: str, ready) -> None:
    """Record without end, saying what was recorded, until somebody kills it."""
    with Session(make_engine(url)) as session:
        while True:
            number = passages.record(session, new(), "key:x").passage.id
            os.write(ready, f"{number}\n".encode())


def test_what_was_recorded_survives_the_writers_sudden_death(database_url, session):
    """Whoever was told that it is recorded can rely on it."""
    reader, writer = os.pipe()
    process = processes.Process(target=_record_and_die, args=(database_url, writer))
    process.start()
    os.close(writer)
    told = b""
    while told.count(b"\n") < 10:
        told += os.read(reader, 65536)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while more := os.read(reader, 65536):
        told += more
    os.close(reader)
    # The last line may have been cut off.
    numbers = [int(line) for line in told.split(b"\n")[:-1]]
    kept = set(session.scalars(select(Passage.id)))
    assert set(numbers) <= kept
    assert len(kept) - len(numbers) <= 1


# Batches


def test_a_batch_is_recorded_in_order_and_once(session):
    batch = [new(plate=f"PL{number:04}") for number in range(25)]
    done = passages.record_batch(session, batch, "key:test", ("key:1", "b", "hash"))
    assert [each.plate for each in done.passages] == [each.plate for each in batch]
    again = passages.record_batch(session, batch, "key:test", ("key:1", "b", "hash"))
    assert again.replayed
    assert [each.id for each in again.passages] == [each.id for each in done.passages]
    assert passages.count(session, PassageFilter()) == 25


def test_a_batch_with_errors_records_nothing_and_names_each(session):
    batch = [new(), new(plate="!"), new(), new(plaza="moon", lane="")]
    with pytest.raises(InvalidParameters) as error:
        passages.record_batch(session, batch, "key:test")
    assert sorted(each.field for each in error.value.errors) == [
        "passages[1].plate",
        "passages[3].lane",
        "passages[3].plaza",
    ]
    assert passages.count(session, PassageFilter()) == 0


@pytest.mark.parametrize("size", [0, passages.MOST_AT_ONCE + 1])
def test_a_batch_has_a_size(session, size):
    with pytest.raises(InvalidParameters, match="has"):
        passages.record_batch(session, [new()] * size, "key:test")


# Finding


@pytest.fixture
def some(session):
    """Six passages, an hour between each, at two plazas."""
    for number in range(6):
        passages.record(
            session,
            new(
                plaza=("harbour-bridge", "bay-crossing")[number % 2],
                vehicle_class=("car", "truck")[number // 3],
                plate=f"PL{number}",
                lane=str(number % 3),
                payment_method=("tag", "cash")[number // 4],
                passed_at=MORNING + timedelta(hours=number),
            ),
            "key:test",
        )
    return session


@pytest.mark.parametrize(
    ("which", "plates"),
    [
        ({}, "543210"),
        ({"plaza": "harbour-bridge"}, "420"),
        ({"vehicle_class": "truck"}, "543"),
        ({"plate": "p l-3"}, "3"),
        ({"payment_method": "cash"}, "54"),
        ({"lane": "1"}, "41"),
        ({"since": MORNING + timedelta(hours=4)}, "54"),
        ({"until": MORNING + timedelta(hours=1)}, "0"),
        ({"plaza": "bay-crossing", "vehicle_class": "car"}, "1"),
        ({"plate": "NONE1"}, ""),
    ],
)
def test_filters(some, which, plates):
    filtered = PassageFilter(**which)
    expected = [f"PL{each}" for each in plates]
    assert [each.plate for each in passages.find(some, filtered).items] == expected
    assert [each.plate for each in passages.iterate(some, filtered, chunk=2)] == expected
    assert passages.count(some, filtered) == len(plates)
    assert passages.total(some, filtered).count == len(plates)


def test_totals_are_by_currency(some):
    total = passages.total(some, PassageFilter())
    rows = some.execute(select(Passage.currency, Passage.amount)).all()
    assert total.amounts == {
        currency: sum(amount for each, amount in rows if each == currency)
        for currency in ("EUR", "JPY")
    }


@pytest.mark.parametrize(
    ("which", "field"),
    [
        ({"plaza": "moon"}, "plaza"),
        ({"vehicle_class": "boat"}, "class"),
        ({"plate": "?"}, "plate"),
        ({"payment_method": "barter"}, "payment_method"),
        ({"lane": "a b"}, "lane"),
        ({"since": MORNING, "until": MORNING}, "until"),
    ],
)
def test_filters_that_cannot_match_say_so(session, which, field):
    """An empty list would look like no traffic."""
    for search in (passages.find, passages.count, passages.total, passages.iterate):
        with pytest.raises(InvalidParameters) as error:
            search(session, PassageFilter(**which))
        assert [each.field for each in error.value.errors] == [field]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=15,
)
@given(minutes=st.lists(st.integers(0, 5), min_size=1, max_size=12), limit=st.integers(1, 5))
def test_pages_hold_each_passage_once_whatever_comes_in_between(session, minutes, limit):
    """Many pass at the same moment, and new ones arrive while somebody turns the pages."""
    session.execute(delete(Passage))
    session.commit()
    batch = [new(passed_at=MORNING + timedelta(minutes=minute)) for minute in minutes]
    passages.record_batch(session, batch, "key:test")
    expected = [
        each.id for each in session.scalars(select(Passage).order_by(Passage.passed_at, Passage.id))
    ][::-1]
    seen: list[int] = []
    cursor = None
    while True:
        page = passages.find(session, PassageFilter(), cursor, limit)
        seen += [each.id for each in page.items]
        assert len(page.items) <= limit
        passages.record(session, new(passed_at=MORNING + timedelta(hours=1)), "key:test")
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == expected


@given(st.text(max_size=40))
def test_a_cursor_of_any_text_is_read_or_refused(text):
    try:
        passed_at, number = passages._read_cursor(text)
    except InvalidParameters as error:
        assert error.errors[0].field == "cursor"  # noqa: PT017
    else:
        assert passed_at.tzinfo is not None
        assert number > 0


@pytest.mark.parametrize("number", [0, -1, 1, 1 << 63, 1 << 70])
def test_a_passage_that_is_not_there(session, number):
    assert passages.get(session, number) is None


def test_the_export_does_not_hold_everything(session):
    passages.record_batch(session, [new(plate=f"PL{n:04}") for n in range(60)], "key:test")
    count = held = 0
    for _ in passages.iterate(session, PassageFilter(), chunk=10):
        count += 1
        # At another place of each chunk; a look takes a quarter of a second.
        if count % 13 == 0:
            held = max(held, sum(isinstance(each, Row) for each in gc.get_objects()))
    assert count == 60
    assert 0 < held <= 20


def test_an_export_that_is_broken_off_gives_its_connection_back(session):
    """A browser's download that was cancelled; the fixture counts connections in use."""
    passages.record_batch(session, [new(plate=f"PL{n:04}") for n in range(20)], "key:test")
    rows = passages.iterate(session, PassageFilter(), chunk=5)
    next(rows)
    rows.close()


def test_the_charge_uses_few_queries(session, queries):
    """Recording is the busiest thing it does."""
    passages.record(session, new(), "key:test", ("key:1", "first", "hash"))
    session.expunge_all()
    queries.clear()
    passages.record(session, new(), "key:test", ("key:1", "k", "hash"))
    # SQLite's BEGIN IMMEDIATE is the lock.
    lock = ["SELECT"] * (session.get_bind().dialect.name == "postgresql")
    assert [each.split()[0] for each in queries if not each.startswith("BEGIN")] == [
        "SELECT", *lock, "SELECT", "INSERT", "INSERT"
    ]  # fmt: skip
    queries.clear()
    tariffs.quote(session, "harbour-bridge", "car")
    assert len([each for each in queries if not each.startswith("BEGIN")]) == 1
