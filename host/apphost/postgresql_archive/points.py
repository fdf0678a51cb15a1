"""Which points in time an archive reaches, and from which copy.

A server that was restored goes on with a new timeline: 2 after 1, and so on. "At 20:15" means the
timeline that clients saw at that time, which a restore later in the evening has left.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from .settings import RefusedError

UTC = datetime.timezone.utc  # noqa: UP017 (Python 3.9)
SEGMENT = re.compile(
    r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(-[0-9a-f]{40})?([.](gz|lz4|zst|bz2))?"
)
HISTORY = re.compile(r"([0-9A-F]{8})[.]history")
# Of 16 MiB, PostgreSQL's own size, which no cluster of this project changes.
SEGMENT_BITS = 24
PER_LOG = 1 << (32 - SEGMENT_BITS)
TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d(?:[.]\d{1,6})?)?) ?(Z|[+-]\d\d(?::?\d\d)?)"
)
LABEL = re.compile(r"\d{8}-\d{6}F(_\d{8}-\d{6}[DI])?")
LATEST = "latest"


@dataclass
class Copy:
    """A copy of all data, of pgBackRest.

    Attributes:
        label: its name.
        kind: `full`, `diff` or `incr`.
        stop: when it ended, in seconds since 1970; before that it cannot be used.
        first, last: names of the segments of the log that it needs.
        lsn: where it ended.
        size: of all data, in bytes.
    """

    label: str
    kind: str
    stop: float
    first: str
    last: str
    lsn: str
    size: int

    @property
    def timeline(self) -> int:
        """On which it was made."""
        return int(self.first[:8], 16)


@dataclass
class Timeline:
    """One that began with a restore or a failover.

    Attributes:
        begin: when it did, in seconds since 1970.
        parents: where each of those before it was left, by number.
    """

    begin: float
    parents: dict[int, int] = field(default_factory=dict)

    def read(self, text: str) -> None:
        """Take the parents from PostgreSQL's file."""
        for line in text.splitlines():
            words = line.split()
            if len(words) > 1 and words[0].isdigit():
                left = position(words[1])
                # A restore may have left it before it began, and then the earlier ones as well.
                self.parents = {number: min(end, left) for number, end in self.parents.items()}
                self.parents[int(words[0])] = left


@dataclass
class Holdings:
    """What an archive has of a server.

    Attributes:
        version: of PostgreSQL; empty if it has nothing.
        system: what tells this server from all others.
        copies: those that are whole.
        segments: of the log; when each was archived, by timeline and number.
        timelines: but the first one, by number.
    """

    version: str = ""
    system: str = ""
    copies: list[Copy] = field(default_factory=list)
    segments: dict[int, dict[int, float]] = field(default_factory=dict)
    timelines: dict[int, Timeline] = field(default_factory=dict)

    def add(self, name: str, time: float) -> None:
        """Count a file of the archive in."""
        history = HISTORY.fullmatch(name)
        if history:
            self.timelines[int(history[1], 16)] = Timeline(time)
        elif SEGMENT.fullmatch(name):
            timeline, number = place(name)
            self.segments.setdefault(timeline, {})[number] = time


@dataclass(frozen=True)
class Point:
    """What is to be restored.

    Attributes:
        copy: where it starts.
        timeline: which it follows.
        time: until when, in seconds since 1970; None for all there is, or for the copy alone.
        target: that time as it was written.
        only_copy: whether the log is read no further than the copy needs it.
        until: up to when, as far as the archive tells.
    """

    copy: Copy
    timeline: int
    time: float | None
    target: str
    only_copy: bool
    until: float


def position(lsn: str) -> int:
    """A place of the log, from PostgreSQL's `16/B374D848`."""
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def place(segment: str) -> tuple[int, int]:
    """A segment's timeline and number, from its name."""
    return int(segment[:8], 16), int(segment[8:16], 16) * PER_LOG + int(segment[16:24], 16)


def name_of(timeline: int, number: int) -> str:
    """A segment's name."""
    return f"{timeline:08X}{number // PER_LOG:08X}{number % PER_LOG:08X}"


def shown(time: float) -> str:
    """A time as people write it, in whole seconds."""
    return datetime.datetime.fromtimestamp(int(time), UTC).strftime("%Y-%m-%d %H:%M:%S+00")


def read_time(text: str) -> float:
    """Seconds since 1970. Raises RefusedError for what is no time, or one without its zone."""
    found = TIME.fullmatch(text.strip())
    if not found:
        raise RefusedError(
            f"{text!r} is not a point in time: write '2026-11-29 20:15:00+00', with the difference "
            f"to UTC, {LATEST}, or the name of a copy"
        )
    day, clock, zone = found.groups()
    hours = "+0000" if zone == "Z" else zone.replace(":", "").ljust(5, "0")
    clock = clock if clock.count(":") == 2 else f"{clock}:00"
    form = "%Y-%m-%d %H:%M:%S.%f%z" if "." in clock else "%Y-%m-%d %H:%M:%S%z"
    try:
        return datetime.datetime.strptime(f"{day} {clock}{hours}", form).timestamp()
    except ValueError as error:
        raise RefusedError(f"{text!r} is not a point in time: there is none such") from error


def timeline_at(held: Holdings, time: float) -> int:
    """The timeline that clients saw at a time, or the one that has its end."""
    seen = max((n for n, each in held.timelines.items() if each.begin <= time), default=1)
    segments = path(held, seen)
    return heir(held, seen) if segments and time > segments[max(segments)] else seen


def heir(held: Holdings, timeline: int) -> int:
    """The timeline that has the end of one: the next one after a failover, or itself.

    The segment that a lost primary wrote last is archived by its successor alone, with what that
    received of it. The successor left the timeline within this segment. A restore leaves one within
    what is archived, or where that ends.
    """
    segments = path(held, timeline)
    child = min((each for each in held.timelines if each > timeline), default=0)
    if not segments or not child:
        return timeline
    number = max(segments) + 1
    left = held.timelines[child].parents.get(timeline, 0)
    if not number << SEGMENT_BITS < left < (number + 1) << SEGMENT_BITS:
        return timeline
    # It may have been lost in the same segment.
    return child if number in held.segments.get(child, {}) else heir(held, child)


def newest_timeline(held: Holdings) -> int:
    """The one that is, or was last, in use."""
    return timeline_at(held, float("inf"))


def is_on(held: Holdings, copy: Copy, timeline: int) -> bool:
    """Whether a timeline goes through the end of a copy."""
    if copy.timeline == timeline:
        return True
    parents = held.timelines[timeline].parents if timeline in held.timelines else {}
    return copy.timeline in parents and position(copy.lsn) <= parents[copy.timeline]


def path(held: Holdings, timeline: int) -> dict[int, float]:
    """When each segment on the way along a timeline was archived, by number."""
    found: dict[int, float] = {}
    ends = {**(held.timelines[timeline].parents if timeline in held.timelines else {})}
    for each in sorted({*ends, timeline}):
        end = ends[each] >> SEGMENT_BITS if each in ends else None
        for number, time in held.segments.get(each, {}).items():
            if end is None or number <= end:
                found[number] = time
    return found


def reach(held: Holdings, copy: Copy, timeline: int) -> tuple[float, str]:
    """Up to when the log is whole from a copy on, and the segment that is missing then.

    The segment is empty where nothing later is there.
    """
    segments = path(held, timeline)
    number = place(copy.first)[1]
    until = copy.stop
    while number in segments:
        until = max(until, segments[number])
        number += 1
    later = any(each > number for each in segments)
    return until, name_of(timeline, number) if later else ""


def gap(held: Holdings) -> tuple[float, str]:
    """Up to when the log is whole from the newest copy on, and the segment that is missing."""
    timeline = newest_timeline(held)
    copy = newest(held, timeline, float("inf"))
    return reach(held, copy, timeline) if copy else (0.0, "")


def spans(held: Holdings, now: float, *, alive: bool) -> list[tuple[float, float]]:
    """What can be reached: from, to. Parts that meet are one.

    Args:
        now: the time.
        alive: whether the server runs and archives, so that everything until now can be reached.
    """
    timelines = sorted({1, *held.timelines})
    found: list[tuple[float, float]] = []
    for number, timeline in enumerate(timelines):
        begin = held.timelines[timeline].begin if timeline in held.timelines else 0.0
        end = now if timeline == timelines[-1] else held.timelines[timelines[number + 1]].begin
        way = heir(held, timeline)
        for copy in held.copies:
            if not is_on(held, copy, timeline) or copy.stop > end:
                continue
            until, missing = reach(held, copy, way)
            until = min(now if way == timelines[-1] and alive and not missing else until, end)
            if until >= max(begin, copy.stop):
                found.append((max(begin, copy.stop), until))
    return merged(found)


def merged(parts: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same times in as few parts as possible."""
    result: list[tuple[float, float]] = []
    for begin, end in sorted(parts):
        # Between the last segment of a timeline and the next one nobody could write.
        if result and begin <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((begin, end))
    return result


def words(parts: list[tuple[float, float]]) -> str:
    """What can be reached, as a sentence without its full stop."""
    if not parts:
        return "The archive has no copy yet"
    spans = [f"from {shown(begin)} to {shown(end)}" for begin, end in parts]
    return f"The archive reaches {', '.join(spans)}"


def choose(held: Holdings, wanted: str, now: float, *, alive: bool) -> Point:
    """What is to be restored. Raises RefusedError, with what can be reached."""
    parts = spans(held, now, alive=alive)
    if not held.copies:
        raise RefusedError("The archive has no copy of this database yet, and starts from one")
    if LABEL.fullmatch(wanted):
        return _of_copy(held, wanted)
    if wanted == LATEST:
        timeline = newest_timeline(held)
        copy = newest(held, timeline, now)
        if copy is None:
            raise RefusedError(f"No copy leads to the newest timeline. {words(parts)}")
        until, missing = reach(held, copy, timeline)
        return Point(copy, timeline, None, LATEST, False, now if alive and not missing else until)
    time = read_time(wanted)
    if time > now:
        raise RefusedError(f"{wanted} is in the future. {words(parts)}")
    timeline = timeline_at(held, time)
    copy = newest(held, timeline, time)
    if copy is None or not any(begin <= time <= end for begin, end in parts):
        raise RefusedError(f"{wanted} cannot be restored. {words(parts)}")
    target = datetime.datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
    return Point(copy, timeline, time, target, False, time)


def _of_copy(held: Holdings, label: str) -> Point:
    for copy in held.copies:
        if copy.label == label:
            return Point(copy, copy.timeline, None, label, True, copy.stop)
    names = ", ".join(each.label for each in held.copies)
    raise RefusedError(f"The archive has no copy {label}. It has {names}")


def newest(held: Holdings, timeline: int, time: float) -> Copy | None:
    """The last copy before a time on a timeline."""
    usable = [each for each in held.copies if each.stop <= time and is_on(held, each, timeline)]
    return max(usable, key=lambda each: each.stop, default=None)
