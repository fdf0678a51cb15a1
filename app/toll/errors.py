"""How this application says what is wrong: the field, its value, the problem and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

# A value is repeated in answers and logs, so it is cut.
VALUE_CHARACTERS = 100


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one parameter, and what to do."""

    field: str
    value: str | None
    problem: str
    remedy: str

    def __str__(self) -> str:
        value = "" if self.value is None else f" {self.value!r}"
        return f"{self.field}{value} {self.problem}. {self.remedy}."


class InvalidParameters(Exception):
    """What was asked for cannot be done as given."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("; ".join(f"{error.field} {error.problem}" for error in errors))
        self.errors = errors


class MalformedRequest(InvalidParameters):
    """A request does not have the form that its operation describes."""


def cut(value: object) -> str | None:
    """Return a value as an error repeats it: nothing is None."""
    return str(value)[:VALUE_CHARACTERS] if value not in (None, "") else None


def not_known(field: str, value: object, options: Iterable[str]) -> FieldError:
    """Return the error for a value that is none of the options."""
    problem = "is missing" if value in (None, "") else "is not known"
    known = list(options)
    remedy = f"Choose one of {', '.join(known)}" if known else "There is none yet: add one first"
    return FieldError(field, cut(value), problem, remedy)


def unknown_fields(names: Iterable[str], known: Collection[str]) -> list[FieldError]:
    """Return an error for each name that is none of ours: `time` is not `at`."""
    errors = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"Did you mean {near[0]}?" if near else f"Use {', '.join(known)} only"
            errors.append(FieldError(name[:VALUE_CHARACTERS], None, "is not a parameter", remedy))
    return errors
