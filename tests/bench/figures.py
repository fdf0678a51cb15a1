"""Reading what was measured, and the arithmetic over it. Nothing here measures."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MILLION = 1_000_000
ERRORS = ("connect", "read", "write", "status", "timeout")


@dataclass(frozen=True)
class Load:
    """What a run of wrk came to. Times are milliseconds, from sending to the last byte."""

    requests: int
    seconds: float
    errors: int
    p50: float
    p99: float
    most: float

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return (self.requests - self.errors) / self.seconds


def read_wrk(output: str) -> Load:
    """Read the line that load.lua writes.

    Raises:
        ValueError: there is none, because wrk ended early; with what it said.
    """
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    if len(lines) != 1:
        raise ValueError(f"wrk printed {len(lines)} results: {output[-400:]!r}")
    result = json.loads(lines[0].removeprefix("RESULT "))
    return Load(
        requests=result["requests"],
        seconds=result["seconds"],
        errors=sum(result[kind] for kind in ERRORS),
        p50=result["p50"],
        p99=result["p99"],
        most=result["most"],
    )


def read_cpu_stat(text: str) -> float:
    """Seconds of processor time from a control group's cpu.stat (cgroup v2).

    Raises:
        ValueError: it names no usage.
    """
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "usage_usec":
            return int(value) / MILLION
    raise ValueError(f"no usage_usec in {text!r}")


def read_cgroup(text: str) -> str:
    """The path of a process in the unified hierarchy, from /proc/<pid>/cgroup.

    Raises:
        ValueError: there is no unified hierarchy.
    """
    for line in text.splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::")
    raise ValueError("this machine has no cgroup v2 hierarchy: boot with one, hybrid at least")


def busy_seconds(stat: str, ticks: int) -> float:
    """Seconds that all processors together were not idle, from /proc/stat.

    Args:
        stat: its content.
        ticks: clock ticks a second.
    """
    fields = [int(word) for word in stat.splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / ticks


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below `share` (0 to 1) of all values.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        """As "412 (398 to 420)", or as one number where there was one."""
        if self.least == self.most:
            return number(self.median)
        return f"{number(self.median)} ({number(self.least)} to {number(self.most)})"


def spread(values: Iterable[float]) -> Spread:
    """Median, least and most.

    Raises:
        statistics.StatisticsError: there are no values.
    """
    known = list(values)
    return Spread(statistics.median(known), min(known), max(known))


def paired(new: Mapping[int, float], old: Mapping[int, float]) -> Spread:
    """The ratio new/old, round by round, so that a machine whose speed drifts does not decide.

    Args:
        new: a figure by round.
        old: the same; rounds that are not in both are left out.

    Raises:
        statistics.StatisticsError: they have no round in common.
    """
    return spread(new[each] / old[each] for each in sorted(new) if old.get(each))


def clearly_better(ratio: Spread, share: float) -> bool:
    """Whether all rounds were on the same side of 1, and the median by that much."""
    return ratio.least > 1 and ratio.median >= 1 + share


def number(value: float) -> str:
    """With about three digits that count: 0.042, 1.31, 20.4, 412, 12 300."""
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    if size >= 10_000:
        return f"{round(value, -2):,.0f}".replace(",", " ")
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1 or size == 0:
        return f"{value:.2f}"
    return f"{value:.3f}"


# Requests of an open loop


@dataclass(frozen=True)
class Sent:
    """One request: when it was due, sent and answered (CLOCK_MONOTONIC), and what went wrong."""

    due: float
    sent: float
    done: float
    status: int
    error: str

    @property
    def seconds(self) -> float:
        """What its client waited, from when the request was due."""
        return self.done - self.due

    @property
    def good(self) -> bool:
        """Whether it was answered as it should be."""
        return not self.error


def read_sent(lines: Iterable[str]) -> list[Sent]:
    """Read what openloop.py writes, in the order in which the requests were due."""
    return sorted((Sent(*json.loads(line)) for line in lines), key=lambda each: each.due)


@dataclass(frozen=True)
class Latency:
    """Of an open loop's good answers, milliseconds."""

    sent: int
    failed: int
    p50: float
    p99: float
    p999: float
    most: float
    # How late the sender itself was: 99 of 100 requests left within so many milliseconds.
    late: float


def latency(records: Sequence[Sent]) -> Latency:
    """Summarize an open loop.

    Raises:
        ValueError: nothing was answered.
    """
    waits = [each.seconds * 1000 for each in records if each.good]
    if not waits:
        raise ValueError(f"nothing was answered: {records[0].error if records else 'nothing sent'}")
    return Latency(
        sent=len(records),
        failed=len(records) - len(waits),
        p50=percentile(waits, 0.5),
        p99=percentile(waits, 0.99),
        p999=percentile(waits, 0.999),
        most=max(waits),
        late=percentile([(each.sent - each.due) * 1000 for each in records], 0.99),
    )


@dataclass(frozen=True)
class Outage:
    """What a fault did to requests that were due from then on. Seconds.

    Attributes:
        refused: in which requests were not answered at all, or with an error of nginx.
        slow: in which they were answered, but after more than a second.
        until_good: from the fault to the end of the trouble; None when it did not end.
    """

    refused: float
    slow: float
    until_good: float | None


def outage(records: Sequence[Sent], fault: float, slow_after: float = 1.0) -> Outage:
    """Lay requests at a constant rate beside a fault.

    Each request stands for the time until the next one was due.

    Args:
        records: in the order in which they were due.
        fault: when it happened.
        slow_after: seconds from which an answer is slow.

    Raises:
        ValueError: too few requests.
    """
    after = [each for each in records if each.due >= fault]
    if len(after) < 2:
        raise ValueError("nothing was sent after the fault")
    step = (after[-1].due - after[0].due) / (len(after) - 1)
    bad = [each for each in after if not each.good]
    slow = [each for each in after if each.good and each.seconds > slow_after]
    trouble = [each.due for each in (*bad, *slow)]
    until: float | None = 0.0
    if trouble:
        last = max(trouble)
        until = None if last >= after[-1].due else last + step - fault
    return Outage(len(bad) * step, len(slow) * step, until)


# Availability


def allowance(objective: float, days: float = 30.0) -> float:
    """Seconds that may be bad in so many days, for an objective such as 0.999."""
    return (1 - objective) * days * 86_400


def bad_seconds(events: Mapping[str, float], costs: Mapping[str, float]) -> float:
    """Sum of how often each thing happens times the bad seconds that it costs.

    Raises:
        KeyError: a cost is not known.
    """
    return sum(count * costs[name] for name, count in events.items())


def availability(bad: float, days: float = 30.0) -> float:
    """The share of time that was good."""
    return max(1 - bad / (days * 86_400), 0.0)


def as_round(rows: Iterable[Mapping[str, Any]], figure: str) -> dict[int, float]:
    """A figure of kept rows by their round."""
    return {int(row["round"]): float(row[figure]) for row in rows}
