"""Times, in the form of the records: whole seconds, in UTC."""

from __future__ import annotations

import datetime

FORM = "%Y-%m-%dT%H:%M:%SZ"
UTC = datetime.timezone.utc  # noqa: UP017 (Python 3.9)


def now() -> datetime.datetime:
    """The time in whole seconds."""
    return datetime.datetime.now(UTC).replace(microsecond=0)


def stamp() -> str:
    """The time in the form of the records."""
    return written(now())


def parse(text: str) -> datetime.datetime:
    """A time of the records. Raises ValueError."""
    return datetime.datetime.strptime(text, FORM).replace(tzinfo=UTC)


def written(time: datetime.datetime) -> str:
    """A time in the form of the records."""
    return time.strftime(FORM)
