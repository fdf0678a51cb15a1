"""Plots are well-formed, and what is drawn lies where it should."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import chart
import pytest
from chart import Series

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("least", "most", "logarithmic", "expected"),
    [
        (0.0, 1700.0, False, [0, 500, 1000, 1500, 2000]),
        (3.0, 45.0, True, [2, 5, 10, 20, 50]),
        (1.0, 10_000.0, True, [1, 10, 100, 1000, 10_000]),
    ],
)
def test_axes_have_round_numbers(
    least: float, most: float, logarithmic: bool, expected: list[float]
) -> None:
    assert chart.ticks(least, most, logarithmic) == pytest.approx(expected)


@pytest.mark.parametrize("logarithmic", [True, False])
def test_lines_go_up_with_their_values(logarithmic: bool) -> None:
    series = [Series("a < b", "project", [1, 10, None, 100]), Series("c", "tutorial", [5] * 4)]
    text = chart.lines(
        "T", ["1", "2", "3", "4"], series, unit="u", axis="x", logarithmic=logarithmic
    )
    line = ElementTree.fromstring(text).findall(f"{SVG}polyline")[0]
    points = [tuple(map(float, each.split(","))) for each in line.attrib["points"].split()]
    assert len(points) == 3
    assert points[0][1] > points[1][1] > points[2][1]
    assert all(chart.TOP - 1 <= y <= chart.HEIGHT - chart.BOTTOM + 1 for _, y in points)


def test_bars_carry_their_numbers() -> None:
    text = chart.bars("T", ["g"], [Series("a", "project", [412.3])], unit="u")
    assert "412" in [each.text for each in ElementTree.fromstring(text).findall(f"{SVG}text")]


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        chart.lines("T", ["1"], [Series("a", "project", [None])], unit="u", axis="x")
