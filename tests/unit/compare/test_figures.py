"""What is read from wrk, control groups and senders, and the arithmetic over it."""

from __future__ import annotations

import json
import statistics

import figures
import pytest
from figures import Sent

WRK = """Running 2s test @ https://10.89.0.5:443/healthz
  1 threads and 5 connections

RESULT {"requests":900,"seconds":2.0,"connect":1,"read":2,"write":3,"status":4,"timeout":0,\
"p50":1.5,"p99":20.25,"most":31.0}
"""


def test_wrk_counts_only_good_answers() -> None:
    """A server that answers 502 quickly must not look fast."""
    load = figures.read_wrk(WRK)
    assert load.errors == 10
    assert load.rate == pytest.approx((900 - 10) / 2)
    assert (load.p50, load.p99, load.most) == (1.5, 20.25, 31.0)


@pytest.mark.parametrize("output", ["", "unable to connect", WRK + WRK])
def test_wrk_without_one_result_is_an_error(output: str) -> None:
    with pytest.raises(ValueError, match="results"):
        figures.read_wrk(output)


def test_processor_time_of_a_control_group() -> None:
    assert figures.read_cpu_stat("usage_usec 932392\nuser_usec 1\nsystem_usec 2\n") == 0.932392
    with pytest.raises(ValueError, match="usage_usec"):
        figures.read_cpu_stat("nr_periods 0\n")


def test_control_group_is_that_of_the_unified_hierarchy() -> None:
    """On a hybrid machine the first lines are of hierarchies that have no cpu.stat."""
    assert figures.read_cgroup("8:pids:/x\n1:cpu:/y\n0::/machine/init.scope\n") == (
        "/machine/init.scope"
    )
    with pytest.raises(ValueError, match="cgroup v2"):
        figures.read_cgroup("8:pids:/x\n")


def test_busy_time_leaves_out_idle_and_waiting_for_the_disk() -> None:
    stat = "cpu  100 10 50 1000 500 5 5 30 7 0\ncpu0 1 1 1 1\n"
    assert figures.busy_seconds(stat, 100) == pytest.approx(2.0)


def test_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert figures.percentile(values, 0.5) == 50
    assert figures.percentile(values, 0.99) == 99
    assert figures.percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    with pytest.raises(ValueError, match="no values"):
        figures.percentile([], 0.5)


def test_ratios_are_of_the_same_round() -> None:
    """The machine became three times as fast between the rounds, and the ratio stays."""
    found = figures.paired({0: 200.0, 1: 600.0, 5: 1.0}, {0: 100.0, 1: 300.0})
    assert (found.least, found.median, found.most) == (2, 2, 2)
    with pytest.raises(statistics.StatisticsError):
        figures.paired({0: 1.0}, {1: 1.0})


@pytest.mark.parametrize(
    ("ratios", "clear"),
    [
        ((1.05, 1.08, 1.1), True),
        ((0.99, 1.3, 1.4), False),
        ((1.01, 1.02, 1.03), False),
    ],
)
def test_a_default_changes_only_for_a_gain_in_every_round(
    ratios: tuple[float, float, float], clear: bool
) -> None:
    assert figures.clearly_better(figures.spread(ratios), 0.05) is clear


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0421, "0.042"),
        (1.309, "1.31"),
        (20.44, "20.4"),
        (412.3, "412"),
        (12_345.0, "12 300"),
        (0.0, "0.00"),
        (float("inf"), "-"),
    ],
)
def test_numbers_have_the_digits_that_count(value: float, text: str) -> None:
    assert figures.number(value) == text


def at_rate(answers: list[tuple[float, str]], rate: float = 10.0) -> list[Sent]:
    """Requests at a constant rate: seconds and error of each."""
    return [
        Sent(number / rate, number / rate, number / rate + seconds, 0 if error else 200, error)
        for number, (seconds, error) in enumerate(answers)
    ]


def test_an_open_loop_is_timed_from_when_a_request_was_due() -> None:
    """A sender that was held up must not hide what clients waited."""
    found = figures.latency([Sent(due=1.0, sent=3.0, done=3.5, status=200, error="")])
    assert found.most == pytest.approx(2500)
    assert found.late == pytest.approx(2000)


def test_failed_requests_are_counted_and_not_timed() -> None:
    found = figures.latency(at_rate([(0.1, ""), (9.0, "refused"), (0.2, "")]))
    assert (found.sent, found.failed) == (3, 1)
    assert found.most == pytest.approx(200)
    with pytest.raises(ValueError, match="refused"):
        figures.latency(at_rate([(0.1, "refused")]))


def test_an_outage_counts_refused_and_slow_from_the_fault_on() -> None:
    answers = [(0.01, "")] * 10 + [(0.01, "refused")] * 5 + [(1.5, "")] * 2 + [(0.01, "")] * 10
    found = figures.outage(at_rate(answers), fault=1.0)
    assert found.refused == pytest.approx(0.5)
    assert found.slow == pytest.approx(0.2)
    assert found.until_good == pytest.approx(0.7)


def test_an_outage_without_an_end_has_none() -> None:
    answers = [(0.01, "")] * 10 + [(0.01, "refused")] * 10
    assert figures.outage(at_rate(answers), fault=1.0).until_good is None


def test_a_fault_that_nobody_notices_costs_nothing() -> None:
    found = figures.outage(at_rate([(0.01, "")] * 20), fault=1.0)
    assert (found.refused, found.slow, found.until_good) == (0, 0, 0)


def test_requests_are_read_in_the_order_in_which_they_were_due() -> None:
    lines = [json.dumps([2.0, 2.0, 2.1, 200, ""]), json.dumps([1.0, 1.0, 9.0, 0, "refused"])]
    assert [each.due for each in figures.read_sent(lines)] == [1.0, 2.0]


def test_three_nines_of_thirty_days_are_43_minutes() -> None:
    assert figures.allowance(0.999) == pytest.approx(2592)
    assert figures.availability(2592) == pytest.approx(0.999)
    assert figures.bad_seconds({"reboot": 2, "deploy": 30}, {"reboot": 4.0, "deploy": 0.1}) == 11
    with pytest.raises(KeyError):
        figures.bad_seconds({"flood": 1}, {})
