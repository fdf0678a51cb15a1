"""A quote from a request's parameters, the same for the page and the API."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from toll.problems import FieldError, InvalidParameters
from toll.tariffs import Plaza, Quote, Tariffs

FIELDS = ("plaza", "class", "at")
TIMESTAMP = re.compile(
    r"(?P<local>\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?)(?P<offset>Z|[+-]\d\d:\d\d)?", re.ASCII
)
# In a query string an unescaped plus arrives as a space.
LOST_PLUS = re.compile(r"(?<=:\d\d) (?=\d\d:\d\d$)", re.ASCII)


def unknown_fields(parameters: Mapping[str, str]) -> list[FieldError]:
    """Return an error for each parameter that is none of ours: `time` is not `at`."""
    errors = []
    for name, value in parameters.items():
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            remedy = f"Did you mean {near[0]}?" if near else f"Use {', '.join(FIELDS)} only"
            errors.append(FieldError(name[:100], value[:100], "is not a parameter", remedy))
    return errors


def quote(tariffs: Tariffs, parameters: Mapping[str, str], now: datetime | None = None) -> Quote:
    """Return the quote that the parameters ask for; raise InvalidParameters with every error.

    An absent or empty `at` is now. One without an offset is local time at the plaza.
    """
    errors: list[FieldError] = []

    def choice(field: str, options: Mapping[str, object]) -> str:
        value = parameters.get(field, "")
        if value not in options:
            problem = "is not known" if value else "is missing"
            remedy = f"Choose one of {', '.join(options)}"
            errors.append(FieldError(field, value[:100] or None, problem, remedy))
        return value

    plaza = tariffs.plazas.get(choice("plaza", tariffs.plazas))
    vehicle_class = choice("class", tariffs.classes)
    text = parameters.get("at", "").strip()
    at = now or datetime.now(UTC)
    if text:
        try:
            at = _timestamp(text, plaza)
        except ValueError as error:
            problem, remedy = error.args
            errors.append(FieldError("at", text[:100], problem, remedy))
    if errors or plaza is None:
        raise InvalidParameters(errors)
    return tariffs.quote(plaza.id, vehicle_class, at)


def _timestamp(text: str, plaza: Plaza | None) -> datetime:
    """Return the time with its zone; raise ValueError(problem, remedy).

    Without a plaza (it was wrong too) a local time is taken as UTC.
    """
    write = "Write it like 2026-05-04T08:15, local time at the plaza, or like 2026-05-04T08:15Z"
    match = TIMESTAMP.fullmatch(LOST_PLUS.sub("+", text))
    if match is None:
        raise ValueError("is not a date and time", write)
    try:
        at = datetime.fromisoformat(match[0])
        if at.tzinfo is None:
            at = at.replace(tzinfo=plaza.zone if plaza else UTC)
        # Both directions: dates at either end of the calendar have no equivalent elsewhere.
        back = at.astimezone(UTC).astimezone(at.tzinfo)
        if plaza:
            at.astimezone(plaza.zone)
    except (ValueError, OverflowError) as error:
        raise ValueError("is not a date and time that exists", write) from error
    if back.replace(tzinfo=None) != at.replace(tzinfo=None):
        raise ValueError(
            "does not exist at this plaza: the clocks go forward over it",
            f"Take a time after the change, such as {back:%Y-%m-%dT%H:%M}",
        )
    return at
