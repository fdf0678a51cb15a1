"""What a verb answers: to programs as one JSON object, to people as text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import DONE


@dataclass
class Answer:
    """The result of a verb.

    Attributes:
        msg: what was done, or why not, in a sentence or more.
        changed: whether anything on the host is other than before, or would be with `--check`.
        facts: further members of the JSON object.
        text: what people read in place of `msg`; empty for `msg`.
        code: the exit code.
    """

    msg: str
    changed: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    code: int = DONE

    def json(self) -> str:
        """The JSON object, in one line."""
        return json.dumps({"changed": self.changed, "msg": self.msg, **self.facts})

    def words(self) -> str:
        """What people read."""
        return self.text or self.msg


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lines with their columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows)]  # noqa: B905 (Python 3.9)
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows)  # noqa: B905
    return "\n".join(line.rstrip() for line in lines)


def short_revision(revision: str | None) -> str:
    """A revision as people read it: ten digits of the commit, and whether it was changed since."""
    if not revision:
        return "-"
    commit, dash, dirty = revision.partition("-")
    return commit[:10] + dash + dirty


def short_time(text: str | None) -> str:
    """A time of the records, without what nobody reads."""
    return re.sub(r"T(\d\d:\d\d:\d\d).*", r" \1", text) if text else "-"
