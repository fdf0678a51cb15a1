"""Moments as people and machines write them, on the clock of a plaza or with an offset."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo

TIMESTAMP = re.compile(
    r"(?P<local>\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)(?P<offset>Z|[+-]\d\d:\d\d)?",
    re.ASCII,
)
# A moment between these has an equivalent, and a day before and after it, in every time zone.
EARLIEST = datetime(1, 1, 3, tzinfo=UTC)
LATEST = datetime(9999, 12, 29, tzinfo=UTC)
# In a query string an unescaped plus arrives as a space.
LOST_PLUS = re.compile(r"(?<=:\d\d) (?=\d\d:\d\d$)", re.ASCII)


def parse(text: str, zone: tzinfo | None) -> datetime:
    """Return the moment in its zone; without an offset it is on the clock of `zone`.

    Without a zone either (the plaza is wrong too) it is taken as UTC. Of an hour that a clock
    shows twice, the first is meant.

    Raises:
        ValueError: the problem and the remedy.
    """
    write = "Write it like 2026-05-04T08:15, local time at the plaza, or like 2026-05-04T08:15Z"
    match = TIMESTAMP.fullmatch(LOST_PLUS.sub("+", text.strip()))
    if match is None:
        raise ValueError("is not a date and time", write)
    try:
        at = datetime.fromisoformat(match[0])
        if at.tzinfo is None:
            at = at.replace(tzinfo=zone or UTC)
        if not EARLIEST <= at.astimezone(UTC) <= LATEST:
            raise ValueError
        back = at.astimezone(UTC).astimezone(at.tzinfo)
    except (ValueError, OverflowError) as error:
        raise ValueError("is not a date and time that exists", write) from error
    if back.replace(tzinfo=None) != at.replace(tzinfo=None):
        raise ValueError(
            "does not exist at this plaza: the clocks go forward over it",
            f"Take a time after the change, such as {back:%Y-%m-%dT%H:%M}",
        )
    return at
