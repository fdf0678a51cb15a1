"""What counts against an attempt to log in, and for how long."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime, timedelta

import pytest

from toll.services import throttle
from toll.services.throttle import Attempt, Throttle


@pytest.fixture
def counting(tmp_path) -> Throttle:
    return Throttle(tmp_path / "log-ins")


def test_one_address_cannot_try_many_accounts(counting):
    now = datetime.now(UTC)
    for number in range(throttle.PER_ADDRESS):
        assert counting.attempt(Attempt(f"name-{number}", "192.0.2.1"), now).wait is None
    assert counting.attempt(Attempt("another", "192.0.2.1"), now).wait == throttle.WINDOW
    assert counting.attempt(Attempt("another", "192.0.2.2"), now).wait is None


def test_no_number_of_addresses_closes_an_account(counting):
    now = datetime.now(UTC)
    for number in range(1000):
        made = Attempt("anna", f"198.{number // 250}.100.{number % 250}")
        assert counting.attempt(made, now).wait is None


def test_whoever_waits_is_let_in_however_often_they_tried_meanwhile(counting):
    begin = datetime.now(UTC)
    made = Attempt("anna", "192.0.2.1")
    for second in range(5):
        assert counting.attempt(made, begin + timedelta(seconds=second)).wait is None
    for minute in range(1, 10):
        at = begin + timedelta(minutes=minute)
        wait = counting.attempt(made, at).wait
        assert wait is not None
        assert abs(wait - (begin + throttle.WINDOW - at)) < timedelta(milliseconds=1)
    later = begin + throttle.WINDOW + timedelta(milliseconds=1)
    assert counting.attempt(made, later).wait is None
    assert counting.attempt(made, later).wait is not None


def test_addresses_are_counted_by_who_has_them():
    """Of IPv6 everybody has 2^64; an IPv4 address may come dressed as one."""
    place = throttle.network
    assert place("2001:db8::1") == place("2001:db8::ffff:2") != place("2001:db8:0:1::1")
    assert place("::ffff:192.0.2.1") == place("192.0.2.1")
    assert place(None) == place("") == place("nonsense")
    made = Attempt("x" * 9999, "2001:db8:1234:5678:9abc:def0:1234:5678", "d")
    for limit in (*throttle.of_stranger(made, attacked=False), throttle.of_device(made, "d")):
        assert len(limit.key) <= 80
        assert "xxx" not in limit.key
    assert Attempt(" ANNA ", None).account == Attempt("anna", None).account


def test_what_is_old_is_forgotten(counting):
    """The file is in memory, and a flood must not fill it for ever."""
    begin = datetime.now(UTC)
    for number in range(100):
        counting.attempt(Attempt("anna", f"192.0.2.{number}"), begin)
    counting.attempt(Attempt("anna", "192.0.2.1"), begin + throttle.WINDOW)
    with counting._counting() as counts:
        assert counts.execute("SELECT count(*) FROM attempts").fetchone() == (3,)


def _try(counting: Throttle, barrier, results) -> None:
    barrier.wait()
    made = Attempt("anna", "192.0.2.1")
    results.put([counting.attempt(made).wait is None for _ in range(4)].count(True))


def test_many_at_once_get_no_more_than_one_after_the_other(counting):
    """In the worker processes of one host."""
    fork = multiprocessing.get_context("fork")
    barrier, results = fork.Barrier(4), fork.Queue()
    processes = [fork.Process(target=_try, args=(counting, barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    passed = sum(results.get() for _ in processes)
    for process in processes:
        process.join()
    assert passed == throttle.PER_PLACE
