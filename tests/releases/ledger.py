"""What the sender did, request by request, and what it comes to."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# An answer that is slower counts as none.
SLOW_SECONDS = 1.0
SLOW = f"slower than {SLOW_SECONDS:g} s"


@dataclass(frozen=True)
class Record:
    """One request. Times are those of CLOCK_MONOTONIC, which all processes of a machine share.

    Attributes:
        number: in its run.
        due: when it had to be sent.
        sent: when it was.
        done: when its answer was complete, or it failed.
        status: of the answer, 0 without one.
        error: empty, or why it counts as failed.
        plate: of the passage that it records; empty for a quote.
        release: who answered, as far as the answer says.
        again: whether it was sent a second time (sender.py).
        replayed: whether the answer is that of a passage which was recorded before.
    """

    number: int
    due: float
    sent: float
    done: float
    status: int
    error: str
    plate: str
    release: str = ""
    again: bool = False
    replayed: bool = False

    @property
    def seconds(self) -> float:
        """From the time it was due, not from the time the sender came to it."""
        return self.done - self.due

    @property
    def failure(self) -> str:
        """Empty, or what is wrong: no answer, a wrong one, or a slow one."""
        if self.error:
            return self.error
        return SLOW if self.seconds > SLOW_SECONDS else ""

    @property
    def acknowledged(self) -> bool:
        """Whether the sender was told that its passage is recorded. Slow is told all the same."""
        return bool(self.plate) and 200 <= self.status < 300 and not self.error


def read(path: Path) -> list[Record]:
    """The records of a ledger, in the order in which they were due.

    Raises:
        ValueError: a line is not a record; the last one too, since each is written whole.
    """
    try:
        found = [Record(**json.loads(line)) for line in path.read_text().splitlines()]
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error
    return sorted(found, key=lambda record: record.due)


def between(records: Iterable[Record], start: float, end: float) -> list[Record]:
    """Those that were due in [start, end)."""
    return [record for record in records if start <= record.due < end]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values (0 to 1) do not exceed: nearest rank, so one of them.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("No percentile of nothing.")
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


@dataclass(frozen=True)
class Summary:
    """What some requests came to; durations in seconds, of answers that came.

    Attributes:
        sent: how many.
        passages: how many of them recorded a passage.
        failed: how many failed.
        failures: how often each failure happened.
        slowest: the longest of all answers.
        p50: half were not slower.
        p99: 99 of 100 were not slower.
        late: by how much the sender itself was late at worst.
    """

    sent: int
    passages: int
    failed: int
    failures: Mapping[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    late: float = 0.0


def summarize(records: Sequence[Record]) -> Summary:
    """Add up."""
    failures = Counter(record.failure for record in records if record.failure)
    answered = [record.seconds for record in records if record.status]
    return Summary(
        sent=len(records),
        passages=sum(1 for record in records if record.plate),
        failed=failures.total(),
        failures=dict(failures.most_common()),
        slowest=max(answered, default=0.0),
        p50=percentile(answered, 0.5) if answered else 0.0,
        p99=percentile(answered, 0.99) if answered else 0.0,
        late=max((record.sent - record.due for record in records), default=0.0),
    )


def failed(records: Sequence[Record], began: float = 0.0) -> list[str]:
    """A line for each request with an error, with what tells a request from a bad moment.

    Args:
        records: of a run, in the order in which they were due.
        began: when what was tried began, CLOCK_MONOTONIC.

    Returns:
        The error, when the request was due, counted from `began`, and the slowest answer to those
        that were due within a second of it.
    """
    lines = []
    for record in records:
        if not record.error:
            continue
        about = between(records, record.due - 1.0, record.due + 1.0)
        slowest = max((near.seconds for near in about if not near.error), default=0.0)
        what = record.plate or "quote"
        lines.append(
            f"{record.error} (request {record.number}, {what}, due {record.due - began:+.1f} s, "
            f"took {record.seconds:.1f} s; of {len(about)} near it the slowest answer took "
            f"{slowest:.1f} s)"
        )
    return lines


def change_of_hands(records: Iterable[Record], mark: str) -> tuple[float, float]:
    """When a release began to answer, and when nobody else did any more; CLOCK_MONOTONIC.

    Who has no mark is another one: the application as it is.

    Raises:
        ValueError: it never answered, or nobody else did.
    """
    answered = [record for record in records if not record.error]
    own = [record.done for record in answered if record.release == mark]
    others = [record.done for record in answered if record.release != mark]
    if not own or not others:
        raise ValueError(f"Not both {mark} and another release answered.")
    return min(own), max(others)


@dataclass(frozen=True)
class Reconciliation:
    """The ledger next to the database, by plates.

    Attributes:
        acknowledged: how many passages the sender was told are recorded.
        lost: acknowledged, but not there.
        doubled: there more than once, acknowledged or not.
        unknown: there, with this run's mark, but never sent.
        unacknowledged: sent, without an answer that says so, but there; no fault, since who gets
            no answer sends again under the same key.
        open: sent, no answer, not there.
    """

    acknowledged: int
    lost: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    unacknowledged: tuple[str, ...] = ()
    open: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether each acknowledged passage is there exactly once, and nothing is there twice."""
        return not (self.lost or self.doubled or self.unknown)


def reconcile(records: Iterable[Record], stored: Mapping[str, int]) -> Reconciliation:
    """Compare.

    Args:
        records: all of a run.
        stored: how often each of the run's plates is in the database.
    """
    sent: dict[str, bool] = {}
    for record in records:
        if record.plate:
            sent[record.plate] = sent.get(record.plate, False) or record.acknowledged
    told = {own for own, acknowledged in sent.items() if acknowledged}
    silent = sent.keys() - told
    return Reconciliation(
        acknowledged=len(told),
        lost=tuple(sorted(own for own in told if not stored.get(own))),
        doubled=tuple(sorted(own for own, times in stored.items() if times > 1)),
        unknown=tuple(sorted(stored.keys() - sent.keys())),
        unacknowledged=tuple(sorted(own for own in silent if stored.get(own))),
        open=tuple(sorted(own for own in silent if not stored.get(own))),
    )
