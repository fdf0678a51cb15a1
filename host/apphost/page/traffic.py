"""Requests of an application's site over the last day, from the log that nginx keeps.

nginx writes a JSON object per request (`/var/log/nginx/access.log`); logrotate leaves the day
before beside it. What is read has a limit, so that a busy host answers in a second or two: a day
that is longer than the limit is shown from where it begins. A host that is new has a shorter axis.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .. import times

LOGS = ("access.log.1", "access.log")
LIMIT_BYTES = 32 << 20
STEPS = 96
# 96 minutes, 8 hours, a day.
STEP_SECONDS = (60, 300, 900)
FAILED = 500


def look(
    folder: Path, names: Sequence[str], now: datetime.datetime, limit: int = LIMIT_BYTES
) -> dict[str, Any] | None:
    """Requests and failures of the last day; None without a log that can be read.

    Args:
        folder: of nginx's logs.
        names: that the site answers to; `*.example.com` stands for every name below.
        limit: bytes that are read, of the end.

    Returns:
        `since` (where what was read begins), `step_seconds`, `steps` (requests and those that were
        answered with 5xx, the oldest first), `requests`, `failed`.
    """
    until = int(now.timestamp())
    minutes: dict[int, list[int]] = {}
    begins = until
    known: dict[str, int] = {}
    served: dict[str, bool] = {}
    seen = False
    for line in tail(folder, limit):
        seen = True
        try:
            entry = json.loads(line)
            time, host, status = entry["time"], entry["host"], int(entry["status"])
            minute = f"{time[:16]}:00{time[19:]}"
            if minute not in known:
                known[minute] = int(datetime.datetime.fromisoformat(minute).timestamp())
        except (ValueError, KeyError, TypeError):
            continue
        at = known[minute]
        begins = min(begins, at)
        if host not in served:
            served[host] = any(fnmatchcase(str(host), name) for name in names)
        if served[host]:
            count = minutes.setdefault(at, [0, 0])
            count[0] += 1
            count[1] += status >= FAILED
    if not seen and not (folder / LOGS[-1]).is_file():
        return None
    return summed(minutes, begins, until)


def summed(minutes: Mapping[int, Sequence[int]], begins: int, until: int) -> dict[str, Any]:
    """Counts of minutes in the steps of an axis that is as long as the log, a day at most."""
    step = next(
        (each for each in STEP_SECONDS if until - begins < each * (STEPS - 1)), STEP_SECONDS[-1]
    )
    first = until // step + 1 - STEPS
    counts = [[0, 0] for _ in range(STEPS)]
    for at, (requests, failed) in minutes.items():
        place = at // step - first
        if 0 <= place < STEPS:
            counts[place][0] += requests
            counts[place][1] += failed
    start = datetime.datetime.fromtimestamp(max(first * step, begins), times.UTC)
    return {
        "since": times.written(start),
        "step_seconds": step,
        "steps": counts,
        "requests": sum(requests for requests, _ in counts),
        "failed": sum(failed for _, failed in counts),
    }


def regular(path: str, flags: int) -> int:
    """Open what is no link, without waiting for a writer."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def tail(folder: Path, limit: int) -> Iterator[bytes]:
    """The last lines of the logs, the oldest first, and of the first one only whole lines."""
    parts = []
    left = limit
    for name in reversed(LOGS):
        try:
            size = (folder / name).stat().st_size
        except OSError:
            continue
        parts.append((folder / name, max(0, size - left)))
        left -= size
        if left <= 0:
            break
    for path, skip in reversed(parts):
        try:
            # Whoever may write there leads nobody elsewhere, and keeps nobody waiting.
            with open(path, "rb", opener=regular) as log:
                if skip:
                    log.seek(skip - 1, os.SEEK_SET)
                    log.readline()
                yield from log
        except OSError:
            continue
