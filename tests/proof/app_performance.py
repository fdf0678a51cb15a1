#!/usr/bin/env python3
"""How fast the application answers a quote (read) and records a passage (write).

    tests/proof/app_performance.py [--rounds 3] [--seconds 10] [--app FOLDER]... [--write]
    tests/proof/app_performance.py --url https://HOST --key-file FILE [--header "Host: …"]

Without --url it serves the application itself: under gunicorn on the loopback, with what a host's
service has by default (preloaded, twice the CPUs and one more workers of two threads, no
keepalive), on SQLite and on a PostgreSQL server of its own, both durable at commit. Several folders
are measured in turn, round by round, so that a machine whose speed drifts does not decide. --write
makes docs/proof/app-performance.md.

With --url it asks what serves there, whatever is in front of it. The key's role is recorder; FILE
may be - for standard input. What it records stays there.

The load comes from wrk, which `make bootstrap` installs. Every passage has an Idempotency-Key.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
APP = PROJECT / "app"
REPORT = PROJECT / "docs" / "proof" / "app-performance.md"
sys.path[:0] = [str(APP), str(APP / "tests")]

from servers import free_address  # noqa: E402
from support import SECRET, PostgreSQL  # noqa: E402

CPUS = len(os.sched_getaffinity(0))
WORKERS = 2 * CPUS + 1
THREADS = 2
KINDS = ("quote", "passage")
TICK = os.sysconf("SC_CLK_TCK")
MARKER = "<!-- below: written by hand -->\n"

LUA = """
local key, run, number = os.getenv("TOLL_KEY"), os.getenv("TOLL_RUN"), 0
local passage = '{"plaza":"harbour-bridge","lane":"3","class":"car","plate":"AB-12-CD",' ..
  '"passed_at":"2026-05-04T07:15:00Z","payment_method":"tag"}'

function request()
  if wrk.method == "GET" then return wrk.format() end
  number = number + 1
  wrk.headers["Authorization"] = "Bearer " .. key
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Idempotency-Key"] = run .. "-" .. number
  return wrk.format("POST", nil, nil, passage)
end

function init(args)
  if args[1] == "passage" then wrk.method = "POST" end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests":%d,"seconds":%f,"errors":%d,"p50":%f,"p99":%f}\\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True)
class Run:
    """One run of the load.

    Attributes:
        rate: answers a second.
        p50: milliseconds in which half of the answers came.
        p99: milliseconds in which 99 of 100 came.
        cpu: milliseconds of a core that gunicorn's processes took for an answer; None if unknown.
    """

    rate: float
    p50: float
    p99: float
    cpu: float | None


def load(url: str, key: str, kind: str, seconds: int, headers: list[str]) -> tuple[int, Run]:
    """Ask for some seconds; return how many answers came, and how fast.

    Raises RuntimeError if an answer was bad.
    """
    path = "/api/v1/quote?plaza=harbour-bridge&class=car" if kind == "quote" else "/api/v1/passages"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(LUA)
        script.flush()
        done = subprocess.run(
            [
                *("wrk", "--threads", "1", "--connections", str(WORKERS * THREADS)),
                *("--duration", f"{seconds}s", "--timeout", "30s", "--script", script.name),
                *(part for header in headers for part in ("--header", header)),
                *(url.rstrip("/") + path, "--", kind),
            ],
            # Not in the list of processes.
            env={**os.environ, "TOLL_KEY": key, "TOLL_RUN": str(uuid.uuid4())},
            capture_output=True,
            text=True,
            check=True,
        )
    [line] = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    result = json.loads(line.removeprefix("RESULT "))
    if result["errors"]:
        raise RuntimeError(f"{result['errors']} of {result['requests']} went wrong: {done.stdout}")
    rate = result["requests"] / result["seconds"]
    return result["requests"], Run(rate, result["p50"], result["p99"], None)


def cpu_seconds(master: int) -> float:
    """Return what a process, its children and those that ended have used."""
    total = 0
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    for pid in (str(master), *children):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(each) for each in fields[11:15])
    return total / TICK


@contextlib.contextmanager
def serving(app: Path, database_url: str, directory: Path) -> Iterator[tuple[str, str, int]]:
    """Serve an application; yield its address, a key and the master's process id."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TOLL_")},
        "TOLL_ENVIRONMENT": "production",
        "TOLL_SECRET_KEY": SECRET,
        "TOLL_DATABASE_URL": database_url,
        "TOLL_METRICS_DIRECTORY": str(directory / "metrics"),
    }

    def flask(*arguments: str) -> str:
        command = [sys.executable, "-m", "flask", "--app", "app", "toll", *arguments]
        return subprocess.run(
            command, cwd=app, env=environment, check=True, capture_output=True, text=True
        ).stdout

    flask("migrate")
    flask("demo", "seed")
    key = flask("key", "create", f"proof-{uuid.uuid4().hex[:8]}", "--role", "recorder").split()[-1]
    address = free_address()
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "app:app", "--bind", address, "--preload"),
                *("--workers", str(WORKERS), "--worker-class", "gthread"),
                *("--threads", str(THREADS), "--worker-connections", str(THREADS)),
                *("--keep-alive", "0", "--max-requests", "10000", "--max-requests-jitter", "1000"),
                "--no-control-socket",
            ],
            cwd=app,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://{address}/readyz").close()
                break
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError((directory / "log").read_text()) from None
                time.sleep(0.1)
        yield f"http://{address}", key, process.pid
    finally:
        process.terminate()
        process.wait()


def measure_here(apps: list[Path], rounds: int, seconds: int) -> dict[tuple[str, str, str], Run]:
    """Measure applications on both databases; return the medians by folder, database, kind."""
    runs: dict[tuple[str, str, str], list[Run]] = {}
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="toll-performance-"))
        os.chmod(place, 0o755)
        home = Path(place)
        (home / "server").mkdir()
        server = PostgreSQL(home / "server")
        server.start()
        stack.callback(server.stop)
        served = {}
        for number, app in enumerate(apps):
            server.execute(f"CREATE DATABASE toll_{number}")
            for database, url in (
                ("SQLite", f"sqlite:///{home}/{number}.db"),
                ("PostgreSQL", server.url(f"toll_{number}")),
            ):
                directory = home / f"{number}-{database}"
                directory.mkdir()
                served[str(app), database] = stack.enter_context(serving(app, url, directory))
        for number in range(rounds + 1):
            for (app_name, database), (url, key, master) in served.items():
                for kind in KINDS:
                    before = cpu_seconds(master)
                    # The first round warms up: caches, connections, the machine.
                    answers, run = load(url, key, kind, seconds if number else 2, [])
                    cpu = (cpu_seconds(master) - before) / answers * 1000
                    run = Run(run.rate, run.p50, run.p99, cpu)
                    print(f"{app_name} {database} {kind}: {run}", file=sys.stderr, flush=True)
                    if number:
                        runs.setdefault((app_name, database, kind), []).append(run)
    return {key: median(each) for key, each in runs.items()}


def median(runs: list[Run]) -> Run:
    """Return the median of each figure."""
    cpus = [run.cpu for run in runs if run.cpu is not None]
    return Run(
        statistics.median(run.rate for run in runs),
        statistics.median(run.p50 for run in runs),
        statistics.median(run.p99 for run in runs),
        statistics.median(cpus) if cpus else None,
    )


def row(*names: str, run: Run) -> str:
    """Return a line of the table."""
    cpu = "" if run.cpu is None else f"{run.cpu:.2f}"
    return f"| {' | '.join(names)} | {run.rate:.0f} | {run.p50:.1f} | {run.p99:.1f} | {cpu} |"


def main() -> None:
    """Measure, print the table, and write the report if that was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url")
    parser.add_argument("--key-file")
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--app", action="append", type=Path, default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    head = "requests/s | p50 ms | p99 ms | CPU ms per request |"
    if options.url:
        if not options.key_file:
            parser.error("--url needs --key-file: a file with an API key whose role is recorder")
        file = sys.stdin if options.key_file == "-" else open(options.key_file)
        with file:
            key = file.read().strip()
        print(f"| what | {head}\n| --- | --- | --- | --- | --- |")
        for kind in KINDS:
            load(options.url, key, kind, 2, options.header)
            runs = [
                load(options.url, key, kind, options.seconds, options.header)[1]
                for _ in range(options.rounds)
            ]
            print(row(kind, run=median(runs)), flush=True)
        return
    apps = options.app or [APP]
    lines = [
        f"| application | database | what | {head}",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (app, database, kind), run in measure_here(apps, options.rounds, options.seconds).items():
        name = "this one" if Path(app).resolve() == APP else app
        lines.append(row(name, database, kind, run=run))
    print("\n".join(lines))
    if options.write:
        REPORT.write_text(report(lines, options.rounds, options.seconds), encoding="utf-8")


def report(table: list[str], rounds: int, seconds: int) -> str:
    """Return the page, keeping what was written by hand below the table."""
    written = REPORT.read_text(encoding="utf-8") if REPORT.exists() else ""
    below = written.partition(MARKER)[2]
    head = f"""# How fast the application answers

Written by `.venv/bin/python tests/proof/app_performance.py --write`: gunicorn alone on the
loopback, {WORKERS} workers of {THREADS} threads, no keepalive, {WORKERS * THREADS} connections of
wrk on the same {CPUS} CPUs; medians of {rounds} runs of {seconds} s, on
{time.strftime("%Y-%m-%d", time.gmtime())} with Python {platform.python_version()} and Linux
{platform.release()}. Every passage is on the disk when it is answered.

"""
    return head + "\n".join(table) + f"\n\n{MARKER}{below}"


if __name__ == "__main__":
    main()
