"""Calendar events of systemd.time(7), held against the rules that systemd has for them.

The control node may have no systemd, and a host refuses an event only once its unit is written.
"""

from __future__ import annotations

import calendar
import datetime
import itertools
import re
import zoneinfo
from collections.abc import Iterator
from typing import NamedTuple

SHORTHANDS = frozenset(
    (
        *("minutely", "hourly", "daily", "weekly", "monthly", "quarterly"),
        *("semiannually", "semi-annually", "yearly", "annually"),
    )
)
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
FIRST_YEAR, LAST_YEAR = 1970, 2199  # MIN_YEAR and MAX_YEAR of systemd's calendarspec.c
SHORTER = 3  # days that February lacks


class EventError(Exception):
    """It is no calendar event, or one that never comes.

    Attributes:
        problem: a clause about the event.
        remedy: in the imperative; empty where only the manual helps.
    """

    def __init__(self, problem: str = "is not a calendar event", remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


class Component(NamedTuple):
    """One place of an event, with the numbers that it can hold."""

    low: int
    high: int
    number: str = r"\d{1,2}"
    shortest: int = 0  # distance between the ends of a range without a step

    def values(self, text: str, *, from_the_end: bool = False) -> frozenset[int]:
        """Return what `text` means: `*`, or numbers, ranges and steps, without their fractions.

        Args:
            text: of the event.
            from_the_end: they are days that are counted from the end of a month.

        Raises:
            EventError: systemd would not take it.
        """
        if text == "*":
            return frozenset(range(self.low, self.high + 1))
        parts = text.split(",")
        high = self.high
        if from_the_end:
            # systemd allows for the shortest month once for each item of a list.
            high -= SHORTER * len(parts)
        return frozenset().union(*(self._values(each, high, from_the_end) for each in parts))

    def _values(self, text: str, high: int, from_the_end: bool) -> range:
        form = rf"({self.number})(?:\.\.({self.number}))?(?:/(\d{{1,4}}))?"
        match = re.fullmatch(form, text, re.ASCII)
        if not match:
            raise EventError
        first = self._number(match[1])
        last = self._number(match[2]) if match[2] else first
        if not all(self.low <= int(each) <= high for each in (first, last)):
            raise EventError
        if last < first:
            raise EventError(
                f"has {match[1]}..{match[2]}, a range that runs backwards",
                f"write the lower number first, or two ranges: "
                f"{match[1]}..{high},{self.low}..{match[2]}",
            )
        if match[2] and not match[3] and last - first < self.shortest:
            raise EventError(f"has {text}, a range of one number", f"write {match[1]} alone")
        step = 1
        if match[3]:
            step = int(match[3])
            start = int(first)
            room = high - self.low
            if not match[2]:
                room = start - self.low if from_the_end else high - start
                last = high
            if not 1 <= step <= room:
                raise EventError(
                    f"has {text}, a step that leads to no other number",
                    f"use a step from 1 to {room}" if room else f"write {match[1]} alone",
                )
            if from_the_end:
                # Towards the end of the month, which is the lower number.
                bottom, top = (first, last) if match[2] else (self.low, first)
                return range(int(top), int(bottom) - 1, -step)
        return range(int(first), int(last) + 1, step)

    def _number(self, digits: str) -> float:
        number = float(digits)
        if self.low == FIRST_YEAR and number < 100:
            return number + (2000 if number < 70 else 1900)
        return number


YEAR = Component(FIRST_YEAR, LAST_YEAR, r"\d{4}|\d{2}")
MONTH = Component(1, 12)
DAY = Component(1, 31)
HOUR = Component(0, 23)
MINUTE = Component(0, 59)
SECOND = Component(0, 59, r"\d{1,2}(?:\.\d{1,6})?", shortest=1)


def check(text: str) -> None:
    """Hold an event against the form that systemd takes, and against the calendar.

    Raises:
        EventError: systemd would refuse it, or it never comes.
    """
    words = text.split()
    if len(words) > 1 and words[-1] in zoneinfo.available_timezones() | {"UTC"}:
        words.pop()
    if not words:
        raise EventError
    if len(words) == 1 and words[0].lower() in SHORTHANDS:
        return
    weekdays = frozenset(range(7))
    if words[0][0].isalpha():
        weekdays = _weekdays(words.pop(0))
    date = "*-*-*"
    if words and ":" not in words[0]:
        date = words.pop(0)
    if words:
        _check_time(words.pop(0))
    if words:
        raise EventError
    _check_date(date, weekdays)


def _weekdays(text: str) -> frozenset[int]:
    """Return days of the week, of which Monday is 0."""
    found: set[int] = set()
    # A comma may follow the last one.
    for part in text.removesuffix(",").split(","):
        ends = [_weekday(each) for each in re.split(r"\.\.|-", part, maxsplit=1)]
        first, last = ends[0], ends[-1]
        if last < first:
            before, after = _days(first, 6), _days(0, last)
            raise EventError(
                f"has {part}, a range that runs backwards: weeks begin with Monday",
                f"write {before},{after}",
            )
        found.update(range(first, last + 1))
    return frozenset(found)


def _days(first: int, last: int) -> str:
    """A range of weekdays as systemd writes it."""
    return "..".join(WEEKDAYS[each][:3].title() for each in sorted({first, last}))


def _weekday(text: str) -> int:
    short = [each[:3] for each in WEEKDAYS]
    for names in (short, WEEKDAYS):
        if text.lower() in names:
            return names.index(text.lower())
    if text.isalpha() and text[:3].lower() in short:
        day = short.index(text[:3].lower())
        raise EventError(
            f'has "{text}", which systemd does not take for a day of the week',
            f"write {_days(day, day)} or {WEEKDAYS[day].title()}",
        )
    raise EventError


def _check_time(text: str) -> None:
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise EventError
    for component, part in zip((HOUR, MINUTE, SECOND), parts, strict=False):
        component.values(part)


def _check_date(text: str, weekdays: frozenset[int]) -> None:
    """See that there is such a day, on one of these weekdays, from today on."""
    match = re.fullmatch(r"(?:([^-~]+)-)?([^-~]+)([-~])([^-~]+)", text)
    if not match:
        raise EventError
    years = YEAR.values(match[1] or "*")
    months = MONTH.values(match[2])
    from_the_end = match[3] == "~" and match[4] != "*"
    days = DAY.values(match[4], from_the_end=from_the_end)

    # Where clocks are twelve hours behind, a day ends last.
    today = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=12)).date()
    ahead = [each for each in sorted(years) if each >= today.year]
    existing = _dates(ahead, months, days, from_the_end)
    if any(day >= today and day.weekday() in weekdays for day in existing):
        return
    ever = next(_dates(sorted(years), months, days, from_the_end), None)
    if ever is None:
        raise EventError(
            "never comes, since there is no such day", "write a day that the month has"
        )
    if max(years) > today.year:
        raise EventError(
            "never comes, since no such day has this day of the week",
            "leave out the day of the week, or the date",
        )
    raise EventError("never comes, since it is past", "write * for the year, or one to come")


def _dates(
    years: list[int], months: frozenset[int], days: frozenset[int], from_the_end: bool
) -> Iterator[datetime.date]:
    for year, month in itertools.product(years, sorted(months)):
        length = calendar.monthrange(year, month)[1]
        for day in sorted(days):
            number = length + 1 - day if from_the_end else day
            if number <= length:
                yield datetime.date(year, month, number)
