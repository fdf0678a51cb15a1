"""Plots as SVG: lines over steps, and bars by group. Plain text, the same for the same figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from figures import number

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 64, 52
# Told apart by people who do not see all colours (Okabe and Ito), and by their dashes in print.
COLOURS = {
    "development": "#d55e00",
    "tutorial": "#e69f00",
    "project": "#0072b2",
    "grey": "#777777",
}
DASHES = {"http": "6 4", "https": ""}
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Series:
    """One line, or one bar of each group.

    Attributes:
        name: in the legend.
        colour: a key of COLOURS.
        values: one for each step; None where there is none.
        dash: of the line.
    """

    name: str
    colour: str
    values: Sequence[float | None]
    dash: str = ""


def ticks(least: float, most: float, logarithmic: bool) -> list[float]:
    """Round numbers for an axis that holds `least` to `most`.

    On a logarithmic axis 1, 2 and 5 times powers of ten; else up to six steps from 0.
    """
    if logarithmic:
        found = []
        power = math.floor(math.log10(least))
        while 10**power <= most * 10:
            found += [factor * 10.0**power for factor in (1, 2, 5)]
            power += 1
        below = max(each for each in found if each <= least * 1.0001)
        above = min(each for each in found if each >= most * 0.9999)
        inside = [each for each in found if below <= each <= above]
        if len(inside) > 8:
            inside = [each for each in inside if math.log10(each) == round(math.log10(each))]
            inside = sorted({below, *inside, above})
        return inside
    step = 10 ** math.floor(math.log10(most / 5)) if most else 1.0
    step = next(step * factor for factor in (1, 2, 5, 10) if step * factor * 6 >= most)
    return [step * count for count in range(math.ceil(most / step - 1e-9) + 1)]


class Drawing:
    """What both kinds share: frame, axis, legend."""

    def __init__(
        self, title: str, unit: str, series: Sequence[Series], logarithmic: bool, room: float = 1.0
    ) -> None:
        """Choose the axis.

        Args:
            title: above the plot.
            unit: of the values.
            series: what is drawn.
            logarithmic: whether the axis is.
            room: where a logarithmic axis begins, as a share of the least value.
        """
        known = [value for each in series for value in each.values if value is not None]
        if not known or (logarithmic and min(known) <= 0):
            raise ValueError(f"{title}: nothing to draw, or no logarithm of it")
        self.logarithmic = logarithmic
        self.ticks = ticks(min(known) * room, max(known), logarithmic)
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" role="img" font-family="{escape(FONT)}" '
            f'font-size="13" fill="#222">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            f'<text x="{LEFT - 48}" y="22" font-size="15" font-weight="600">{escape(title)}</text>',
        ]
        for tick in self.ticks:
            y = self.y(tick)
            self.parts += [
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>',
                f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{plain(tick)}</text>',
            ]
        x = float(LEFT - 48)
        for each in series:
            line = f'stroke="{COLOURS[each.colour]}" stroke-width="3"'
            dash = f' stroke-dasharray="{each.dash}"' if each.dash else ""
            self.parts += [
                f'<line x1="{x:.0f}" x2="{x + 24:.0f}" y1="42" y2="42" {line}{dash}/>',
                f'<text x="{x + 28:.0f}" y="46" font-size="11.5">{escape(each.name)}</text>',
            ]
            x += 36 + 6.3 * len(each.name)
        self.parts.append(
            f'<text x="{WIDTH - RIGHT}" y="22" text-anchor="end" fill="#555">{escape(unit)}</text>'
        )

    def y(self, value: float) -> float:
        """Where a value lies."""
        low, high = self.ticks[0], self.ticks[-1]
        if self.logarithmic:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low))

    def label(self, x: float, text: str, y: float = HEIGHT - BOTTOM + 20) -> None:
        """Write a centred text below the plot."""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.0f}" text-anchor="middle">{escape(text)}</text>'
        )

    def finish(self, axis: str) -> str:
        """The whole file, with the name of the other axis."""
        self.label((LEFT + WIDTH - RIGHT) / 2, axis, HEIGHT - 12)
        return "\n".join([*self.parts, "</svg>", ""])


def plain(value: float) -> str:
    """A tick's number: as short as it can be."""
    return f"{value:,.6g}".replace(",", " ") if value < 1_000_000 else f"{value:.0e}"


def lines(
    title: str,
    steps: Sequence[str],
    series: Sequence[Series],
    *,
    unit: str,
    axis: str,
    logarithmic: bool = True,
) -> str:
    """A line for each series over steps that lie at equal distances.

    Raises:
        ValueError: there is nothing to draw.
    """
    drawing = Drawing(title, unit, series, logarithmic)
    width = (WIDTH - LEFT - RIGHT) / len(steps)
    places = [LEFT + width * (index + 0.5) for index in range(len(steps))]
    for place, step in zip(places, steps, strict=True):
        drawing.label(place, step)
    for each in series:
        points = [
            (x, drawing.y(value))
            for x, value in zip(places, each.values, strict=True)
            if value is not None
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dash = f' stroke-dasharray="{each.dash}"' if each.dash else ""
        colour = COLOURS[each.colour]
        drawing.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"{dash}/>'
        )
        drawing.parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in points
        ]
    return drawing.finish(axis)


def bars(
    title: str,
    groups: Sequence[str],
    series: Sequence[Series],
    *,
    unit: str,
    axis: str = "",
    logarithmic: bool = False,
) -> str:
    """Bars side by side for each group, each with its number above.

    Raises:
        ValueError: there is nothing to draw.
    """
    # The least of them is a bar too.
    drawing = Drawing(title, unit, series, logarithmic, room=0.5)
    width = (WIDTH - LEFT - RIGHT) / len(groups)
    bar = min(width * 0.8 / len(series), 70)
    bottom = HEIGHT - BOTTOM
    for index, group in enumerate(groups):
        middle = LEFT + width * (index + 0.5)
        drawing.label(middle, group)
        for place, each in enumerate(series):
            value = each.values[index]
            if value is None:
                continue
            x = middle + bar * (place - len(series) / 2)
            y = drawing.y(value)
            drawing.parts += [
                f'<rect x="{x + 1:.1f}" y="{y:.1f}" width="{bar - 2:.1f}" '
                f'height="{max(bottom - y, 1):.1f}" fill="{COLOURS[each.colour]}"/>',
                f'<text x="{x + bar / 2:.1f}" y="{y - 4:.1f}" text-anchor="middle" '
                f'font-size="11">{number(value)}</text>',
            ]
    return drawing.finish(axis)
