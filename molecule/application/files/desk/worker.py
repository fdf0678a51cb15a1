"""Does the jobs of the queue. One that it was told to stop in is finished first.

python worker.py INSTANCE
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import redis

from app import VERSION

STATE = Path(os.environ["STATE_DIRECTORY"])


def main() -> None:
    """Work until told to stop."""
    queue = redis.Redis.from_url(os.environ["REDIS_URL"])
    taken = f"taken:{sys.argv[1]}"
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    while not told:
        job = queue.blmove("jobs", taken, 1)
        if job:
            time.sleep(0.4)
            with (STATE / "done").open("a") as done:
                done.write(f"{job.decode()} {VERSION}\n")
            queue.lrem(taken, 1, job)


main()
