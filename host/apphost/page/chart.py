"""Requests and failures of a day, with the deploys on the same axis of time."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from .. import records, times
from .markup import Markup, joined, tag

WIDTH, HEIGHT = 960, 112
LABELS = 5
HOUR_SECONDS = 3600


def chart(traffic: Mapping[str, Any], deploys: Sequence[Mapping[str, Any]], at: str) -> Markup:
    """A bar for each step; a line for each deploy. Stretches to any width.

    Args:
        traffic: as `traffic.look` returns it.
        deploys: as `day.deploys` returns them.
        at: the time of both, which is the right end.
    """
    steps, seconds = traffic["steps"], int(traffic["step_seconds"])
    end = (int(times.parse(at).timestamp()) // seconds + 1) * seconds
    start = end - seconds * len(steps)
    most = max((requests for requests, _ in steps), default=0)

    def place(time: int) -> float:
        return round((time - start) * WIDTH / (end - start), 1)

    unread = place(int(times.parse(traffic["since"]).timestamp()))
    bars = []
    width = WIDTH / max(1, len(steps))
    for index, (requests, failed) in enumerate(steps):
        for kind, count in (("good", requests), ("failed", failed)):
            if count:
                # What failed is to be seen, however little it is.
                height = round(max(count * (HEIGHT - 8) / most, 2), 1)
                x, y = round(index * width + width * 0.1, 1), round(HEIGHT - height, 1)
                size = {"width": round(width * 0.8, 1), "height": height}
                bars.append(tag("rect", class_=kind, x=x, y=y, **size))
    marks = [
        tag("line", class_=f"deploy {kind_of(each)}".strip(), x1=x, x2=x, y1=0, y2=HEIGHT)
        for each, time in ((each, moment(each)) for each in deploys)
        if time is not None and start <= time <= end
        for x in [place(time)]
    ]
    drawing = tag(
        "svg",
        tag("rect", class_="unread", x=0, y=0, width=max(0.0, unread), height=HEIGHT),
        *bars,
        tag("line", class_="axis", x1=0, x2=WIDTH, y1=HEIGHT, y2=HEIGHT),
        *marks,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=words(traffic),
    )
    return joined(drawing, hours(start, end), key(traffic, marks, most, unread > 1))


def kind_of(deploy: Mapping[str, Any]) -> str:
    """The class of a deploy: nothing for one that went live."""
    return "" if deploy.get("verdict") == records.HEALTHY else "taken-back"


def moment(deploy: Mapping[str, Any]) -> int | None:
    """When a deploy ended, in seconds; None if its line does not say so."""
    try:
        return int(times.parse(str(deploy.get("time"))).timestamp())
    except ValueError:
        return None


def hours(start: int, end: int) -> Markup:
    """The times below the axis."""
    step = (end - start) / (LABELS - 1)
    labels = [
        datetime.datetime.fromtimestamp(start + step * index, times.UTC).strftime("%H:%M")
        for index in range(LABELS)
    ]
    return tag("div", *(tag("span", label) for label in labels), class_="hours")


def key(traffic: Mapping[str, Any], marks: Sequence[Markup], most: int, cut: bool) -> Markup:
    """What the colours mean."""
    minutes = int(traffic["step_seconds"]) // 60
    each = "minute" if minutes == 1 else f"{minutes} minutes"
    parts = [tag("span", f"requests per {each}, {most:,} at most")]
    if traffic["failed"]:
        parts.append(tag("span", "answered with 5xx", class_="failed"))
    if any("taken-back" not in each for each in marks):
        parts.append(tag("span", "deploy", class_="deploy"))
    if any("taken-back" in each for each in marks):
        parts.append(tag("span", "deploy that was rolled back", class_="taken-back"))
    if cut:
        parts.append(tag("small", "grey: before the part of the log that was read"))
    return tag("p", *parts, class_="key")


def span(traffic: Mapping[str, Any]) -> str:
    """How long the axis is."""
    minutes = len(traffic["steps"]) * int(traffic["step_seconds"]) // 60
    return f"the last {minutes // 60} hours" if minutes % 60 == 0 else f"the last {minutes} minutes"


def words(traffic: Mapping[str, Any]) -> str:
    """The day in a sentence."""
    failed = int(traffic["failed"])
    return (
        f"{traffic['requests']:,} requests, {f'{failed:,}' if failed else 'none'} answered with 5xx"
    )
