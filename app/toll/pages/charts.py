"""Where the bars of the dashboard's charts stand, as numbers for the SVG in the templates.

Horizontally everything is in percent of the width and vertically in pixels: so the chart fills a
phone and a wide screen alike, and its letters keep their size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HOURS = 24
HEIGHT = 200
TOP, BASE = 16, 172
# The share of an hour's width that its bar takes.
FILLED = 0.72


@dataclass(frozen=True)
class Bar:
    """One bar: its place, and what it stands for."""

    label: str
    count: int
    x: float
    width: float
    y: float
    height: float
    now: bool


@dataclass(frozen=True)
class Line:
    """One line of the scale."""

    count: int
    y: float


@dataclass(frozen=True)
class HourChart:
    """Counts by hour of the day."""

    bars: tuple[Bar, ...]
    lines: tuple[Line, ...]
    total: int
    busiest: Bar | None


@dataclass(frozen=True)
class Share:
    """One row of the chart by class."""

    label: str
    count: int
    percent: float
    width: float


def scale(highest: int) -> list[int]:
    """Return two to five whole, round steps from above zero to the highest count or above it."""
    step = 1
    while step * 4 < highest:
        # 1, 2, 5, 10, 20, 50 ...
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    steps = range(step, step * 5, step)
    return [each for each in steps if each - step < max(highest, 1)]


def hours(counts: Mapping[int, int], now: int | None = None) -> HourChart:
    """Return the chart of counts by hour, 0 to 23; `now` is the hour that is not over yet."""
    steps = scale(max(counts.values(), default=0))
    pixels = (BASE - TOP) / steps[-1]
    slot = 100 / HOURS
    bars = []
    for hour in range(HOURS):
        count = counts.get(hour, 0)
        # A single passage among thousands is still seen.
        height = max(count * pixels, 2.0) if count else 0.0
        bars.append(
            Bar(
                label=f"{hour:02}:00",
                count=count,
                x=round((hour + (1 - FILLED) / 2) * slot, 3),
                width=round(slot * FILLED, 3),
                y=round(BASE - height, 1),
                height=round(height, 1),
                now=hour == now,
            )
        )
    busiest = max(bars, key=lambda bar: bar.count)
    return HourChart(
        bars=tuple(bars),
        lines=tuple(Line(step, round(BASE - step * pixels, 1)) for step in steps),
        total=sum(bar.count for bar in bars),
        busiest=busiest if busiest.count else None,
    )


def shares(rows: Sequence[tuple[str, int]]) -> list[Share]:
    """Return each label's share of the whole; its bar is relative to the largest."""
    total = sum(count for _, count in rows) or 1
    largest = max((count for _, count in rows), default=0) or 1
    return [
        Share(
            label,
            count,
            percent=round(100 * count / total, 1),
            width=round(100 * count / largest, 2),
        )
        for label, count in rows
    ]
