#!/usr/bin/env python3
"""How many passages a second several processes record, each durable when it returns.

    tests/proof/record_rate.py [PROCESSES] [SECONDS]

Without HTTP: the service alone, on SQLite and on a PostgreSQL server of its own, whose settings are
PostgreSQL's own (a commit waits for the disk). Each passage has an idempotency key.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

APP = Path(__file__).resolve().parents[2] / "app"
sys.path[:0] = [str(APP), str(APP / "tests")]

from sqlalchemy.orm import Session  # noqa: E402
from support import PostgreSQL  # noqa: E402

from toll import schema  # noqa: E402
from toll.database import make_engine  # noqa: E402
from toll.services import demo, passages, tariffs  # noqa: E402

processes = multiprocessing.get_context("fork")


def work(url: str, end: float, results: multiprocessing.Queue[list[float]], what: str) -> None:
    """Do it again and again until the end; send what each took, in seconds."""
    took: list[float] = []
    with Session(make_engine(url), expire_on_commit=False) as session:
        while (start := time.monotonic()) < end:
            if what == "quote":
                tariffs.quote(session, "harbour-bridge", "car")
                session.rollback()
            else:
                new = passages.NewPassage(
                    plaza="harbour-bridge",
                    lane="3",
                    vehicle_class="car",
                    plate="AA12BB",
                    payment_method="tag",
                )
                key = f"{os.getpid()}-{len(took)}"
                passages.record(session, new, "key:proof", ("key:1", key, "0" * 64))
            took.append(time.monotonic() - start)
            session.expunge_all()
    results.put(took)


def measure(url: str, count: int, seconds: float, what: str) -> str:
    """Return how many a second `count` processes do, and the times of one."""
    results: multiprocessing.Queue[list[float]] = processes.Queue()
    end = time.monotonic() + seconds
    running = [processes.Process(target=work, args=(url, end, results, what)) for _ in range(count)]
    for process in running:
        process.start()
    took = sorted(each for _ in running for each in results.get())
    for process in running:
        process.join()
    p50, p99 = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
    return f"{len(took) / seconds:7.0f}/s  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms"


def main(arguments: list[str]) -> None:
    """Measure on both databases."""
    count = int(arguments[0]) if arguments else 4
    seconds = float(arguments[1]) if len(arguments) > 1 else 5
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} before")
    with tempfile.TemporaryDirectory(prefix="toll-proof-") as directory:
        place = Path(directory, "postgresql")
        place.mkdir()
        Path(directory).chmod(0o755)
        server = PostgreSQL(place)
        server.start()
        try:
            for name, url in (
                ("SQLite", f"sqlite:///{directory}/toll.db"),
                ("PostgreSQL", server.url("postgres")),
            ):
                schema.migrate(url)
                engine = make_engine(url)
                with Session(engine) as session:
                    demo.seed_tariffs(session)
                engine.dispose()
                for what in ("quote", "record"):
                    for number in (1, count):
                        rate = measure(url, number, seconds, what)
                        print(f"{name:10}  {what:6}  {number} processes  {rate}", flush=True)
        finally:
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
