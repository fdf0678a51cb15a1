"""Bars in the right places: the numbers that the template puts into the SVG."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toll.pages import charts

COUNTS = st.dictionaries(st.integers(0, 23), st.integers(0, 10**6))


@given(st.integers(0, 10**9))
def test_scale_reaches_the_highest_count_in_a_few_round_steps(highest):
    steps = charts.scale(highest)
    assert 1 <= len(steps) <= 4
    assert steps[-1] >= highest
    # Not much room is wasted above.
    assert steps[-1] - steps[0] < max(highest, 1)
    assert str(steps[0])[0] in "125"
    assert set(str(steps[0])[1:]) <= {"0"}


@given(COUNTS)
def test_bars_stay_inside_and_do_not_touch(counts):
    chart = charts.hours(counts)
    assert len(chart.bars) == 24
    for bar, after in zip(chart.bars, chart.bars[1:], strict=False):
        assert bar.x + bar.width < after.x
    assert chart.bars[-1].x + chart.bars[-1].width <= 100
    for bar in chart.bars:
        assert charts.TOP <= bar.y <= charts.BASE
        assert bar.y + bar.height == pytest.approx(charts.BASE, abs=0.11)


@given(COUNTS)
def test_every_count_is_seen_and_higher_ones_are_not_lower(counts):
    chart = charts.hours(counts)
    assert chart.total == sum(counts.values())
    for bar in chart.bars:
        assert (bar.height >= 2) == (bar.count > 0)
    ordered = sorted(chart.bars, key=lambda bar: bar.count)
    assert [bar.height for bar in ordered] == sorted(bar.height for bar in chart.bars)


def test_hour_that_is_not_over_is_marked():
    chart = charts.hours({7: 3, 8: 5}, now=8)
    assert [bar.label for bar in chart.bars if bar.now] == ["08:00"]
    assert chart.busiest
    assert chart.busiest.label == "08:00"


def test_empty_day_has_no_busiest_hour_and_still_a_scale():
    chart = charts.hours({})
    assert chart.busiest is None
    assert chart.total == 0
    assert [line.count for line in chart.lines] == [1]


def test_shares_are_of_the_whole_and_bars_relative_to_the_largest():
    rows = charts.shares([("car", 30), ("truck", 10), ("bus", 0)])
    assert [row.percent for row in rows] == [75.0, 25.0, 0.0]
    assert [row.width for row in rows] == [100.0, 33.33, 0.0]


def test_shares_of_nothing():
    assert charts.shares([]) == []
    assert charts.shares([("car", 0)])[0].percent == 0
