"""Which copies stay, and which go when a new one is good."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from typing import Any

from .. import times
from .copies import BEFORE, Record, Store, is_ahead

# How many of those that a restore replaced stay.
KEEP_BEFORE = 5

# The name of a copy, and when it was made.
Dated = tuple[str, datetime.datetime]

PERIODS: dict[str, Callable[[datetime.datetime], Any]] = {
    "days": lambda time: time.date(),
    "weeks": lambda time: time.isocalendar()[:2],
    "months": lambda time: (time.year, time.month),
}


def rotate(store: Store) -> list[str]:
    """Remove copies that are no longer wanted; return their names."""
    records = store.records()
    at = times.now()
    usual = [record for record in records if record["kind"] != BEFORE]
    replaced = [record for record in records if record["kind"] == BEFORE]
    staying = to_keep(dated(usual, at), store.settings.keep, at)
    staying |= {record["name"] for record in replaced[:KEEP_BEFORE]}
    leaving = [record for record in records if record["name"] not in staying]
    for record in leaving:
        store.remove(record)
    return [record["name"] for record in leaving]


def to_keep(copies: list[Dated], keep: dict[str, int], at: datetime.datetime) -> set[str]:
    """Which of some copies stay: the newest of each of the last days, weeks and months that have
    one, all of the last 24 hours, and the newest of all.

    Args:
        copies: the newest first.
        keep: how many `days`, `weeks` (of ISO 8601) and `months`, in UTC.
        at: the time that it is.
    """
    staying = {name for name, _ in copies[:1]}
    staying |= {name for name, time in copies if at - time < datetime.timedelta(days=1)}
    for period, key in PERIODS.items():
        seen: set[Any] = set()
        for name, time in copies:
            if key(time) not in seen and len(seen) < keep[period]:
                seen.add(key(time))
                staying.add(name)
    return staying


def dated(records: Iterable[Record], at: datetime.datetime) -> list[Dated]:
    """Names and times of some copies, the newest first. A time that is still to come says nothing:
    such a copy is taken to be as old as the next newer one, or made now."""
    copies = []
    newer = at
    for record in records:
        newer = newer if is_ahead(record, at) else times.parse(record["made_at"])
        copies.append((record["name"], newer))
    return copies
