"""How much memory a command and all that it starts need, seen from outside."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAUSE_SECONDS = 0.1
PROC = Path("/proc")


@dataclass
class Memory:
    """The most that was in use at one moment, in bytes; what processes share counts once."""

    peak: int = 0


def children() -> list[int]:
    """This process's descendants."""
    parents = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, IndexError, ValueError):
                stat = (entry / "stat").read_text(errors="replace")
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid()})


def in_use(pid: int) -> int:
    """A process's share of its memory, in bytes."""
    with contextlib.suppress(OSError):
        told = (PROC / str(pid) / "smaps_rollup").read_text()
        return sum(map(int, re.findall(r"^Pss: +(\d+) kB", told, re.MULTILINE))) * 1024
    return 0


@contextlib.contextmanager
def watching() -> Iterator[Memory]:
    """Look ten times a second until the block ends."""
    memory, over = Memory(), threading.Event()

    def look() -> None:
        while not over.wait(PAUSE_SECONDS):
            memory.peak = max(memory.peak, sum(map(in_use, children())))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield memory
    finally:
        over.set()
        looker.join()
