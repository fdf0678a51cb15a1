#!/usr/bin/env python3
"""How long a lane waits for a passage to be recorded while somebody reads as much as they can.

    tests/proof/reading.py [--rounds 3] [--seconds 8] [--app FOLDER] [--only WORDS] [--write]

Serves the application under gunicorn on the loopback with what a host's service has by default
(see app_performance.py), on SQLite and on a PostgreSQL server of its own, with 60,000 passages. One
lane records passages, one after the other. Rounds without and with an attack follow each other, so
that a machine whose speed drifts does not decide: what counts is the ratio of the lane's p99 in an
attack to that in the quiet rounds beside it. The health watcher's requests are asked all the time.

--app serves another folder's application, such as an older one; --only tries the attacks whose name
holds these words; --write makes docs/proof/reading.md.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import multiprocessing
import multiprocessing.connection
import os
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from app_performance import APP, PROJECT, THREADS, WORKERS, PostgreSQL, serving

REPORT = PROJECT / "docs" / "proof" / "reading.md"
MARKER = "<!-- below: written by hand -->\n"
PASSAGES = 60_000
PASSWORD = "four words and some"
BODY = (
    '{"plaza":"harbour-bridge","lane":"3","class":"car","plate":"AB-12-CD",'
    '"passed_at":"2026-05-04T07:15:00Z","payment_method":"tag"}'
)
PATIENCE = 120
# A client that is refused comes back after a second, whatever Retry-After says.
AGAIN_SECONDS = 1
# What attackers compute comes last, as if they computed it elsewhere.
NICE = 10
FORK = multiprocessing.get_context("fork")


def cookies(answer: http.client.HTTPResponse) -> str:
    """Return what an answer sets, as a request sends it back: a session and a known device."""
    given = answer.headers.get_all("Set-Cookie") or []
    return "; ".join(each.split(";")[0] for each in given)


@dataclass
class Site:
    """What is served, and who asks.

    Attributes:
        url: of the service.
        key: a recorder's.
        cookie: of an operator's session.
    """

    url: str
    key: str
    cookie: str = ""

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection for one request."""
        parts = urllib.parse.urlsplit(self.url)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> int:
        """Ask once and read all of the answer; return its status, 0 if there was none."""
        connection = self.connect()
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def by_session(self, path: str) -> int:
        """Ask as the operator."""
        return self.ask(path, Cookie=self.cookie)

    def by_key(self, path: str) -> int:
        """Ask as a program."""
        return self.ask(path, Authorization=f"Bearer {self.key}")

    def log_in(self) -> None:
        """Log in by the form."""
        connection = self.connect()
        connection.request("GET", "/login")
        answer = connection.getresponse()
        page, cookie = answer.read().decode(), cookies(answer)
        [token] = re.findall(r'name="csrf_token"[^>]*value="([^"]+)"', page)[-1:]
        form = {"csrf_token": token, "name": "proof", "password": PASSWORD, "next": ""}
        connection = self.connect()
        connection.request(
            *("POST", "/login", urllib.parse.urlencode(form)),
            {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie},
        )
        answer = connection.getresponse()
        answer.read()
        if answer.status != 303:
            raise RuntimeError(f"log-in was answered with {answer.status}")
        self.cookie = cookies(answer)
        # An attack by somebody who is sent to the log-in page would be none.
        if (status := self.by_session("/dashboard/parts")) != 200:
            raise RuntimeError(f"the session that was begun is answered with {status}")


@dataclass
class Seen:
    """What somebody saw in one kind of round.

    Attributes:
        times: milliseconds that the lane waited for each answer.
        health: the same of the health watcher.
        refused: how often the lane had no passage recorded, and the watcher no good answer.
        statuses: of the attack's requests.
    """

    times: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    refused: int = 0
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def p99(self) -> float:
        """Milliseconds in which 99 of 100 passages were recorded."""
        return statistics.quantiles(self.times, n=100)[98]


def lane(site: Site, seen: Seen, end: float) -> None:
    """Record passages, one after the other, as a lane on which vehicle follows vehicle."""
    while time.monotonic() < end:
        begun = time.monotonic()
        status = site.ask(
            *("/api/v1/passages", "POST", BODY),
            **{
                "Authorization": f"Bearer {site.key}",
                "Content-Type": "application/json",
                "Idempotency-Key": str(uuid.uuid4()),
            },
        )
        seen.times.append((time.monotonic() - begun) * 1000)
        seen.refused += status != 201
        time.sleep(0.01)


def watcher(site: Site, seen: Seen, end: float) -> None:
    """Ask what the health watcher asks, more often than it does."""
    while time.monotonic() < end:
        for path in ("/healthz", "/readyz"):
            begun = time.monotonic()
            seen.refused += site.ask(path) != 200
            seen.health.append((time.monotonic() - begun) * 1000)
        time.sleep(0.2)


def repeat(ask: Callable[[], int]) -> Callable[[Site, Seen, float], None]:
    """Return an attacker who asks again and again."""

    def attack(_site: Site, seen: Seen, end: float) -> None:
        while time.monotonic() < end:
            status = ask()
            seen.statuses[status] = seen.statuses.get(status, 0) + 1
            time.sleep(AGAIN_SECONDS if status in (0, 429, 503) else 0)

    return attack


def slow_reader(site: Site, seen: Seen, end: float) -> None:
    """Ask for an export and take a byte of it at a time."""
    while time.monotonic() < end:
        parts = urllib.parse.urlsplit(site.url)
        with socket.socket() as connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(PATIENCE)
            connection.connect((parts.hostname, parts.port))
            connection.sendall(
                f"GET /api/v1/passages.csv HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {site.key}\r\n\r\n".encode()
            )
            status = int(connection.recv(12).split()[1])
            seen.statuses[status] = seen.statuses.get(status, 0) + 1
            while time.monotonic() < end and status == 200 and connection.recv(1):
                time.sleep(0.2)
        time.sleep(AGAIN_SECONDS)


def attacks(site: Site) -> dict[str, tuple[int, Callable[[Site, Seen, float], None]]]:
    """Return what is tried: how many at once, and what each of them does."""
    return {
        "exports of one session": (
            20,
            repeat(lambda: site.by_session("/passages/export.csv")),
        ),
        "exports of one key": (20, repeat(lambda: site.by_key("/api/v1/passages.csv"))),
        "revenue by hour": (12, repeat(lambda: site.by_key("/api/v1/revenue?group=hour"))),
        "lists with sums": (12, repeat(lambda: site.by_session("/passages"))),
        "lists that find nothing": (
            12,
            repeat(lambda: site.by_key("/api/v1/passages?lane=none&limit=200")),
        ),
        "dashboards": (12, repeat(lambda: site.by_session("/dashboard/parts"))),
        "slow readers": (12, slow_reader),
    }


def play(
    site: Site, seen: Seen, seconds: float, number: int, attack: Callable[[Site, Seen, float], None]
) -> None:
    """Let the lane record, the watcher look, and so many attackers attack for some seconds."""
    end = time.monotonic() + seconds
    # Attackers are somebody else: in one process with them, the lane would wait for Python itself.
    ours, theirs = FORK.Pipe()
    other = FORK.Process(target=attack_together, args=(site, number, attack, end, theirs))
    other.start()
    run_together([(lane, site, seen, end), (watcher, site, seen, end)])
    for status, count in ours.recv().items():
        seen.statuses[status] = seen.statuses.get(status, 0) + count
    other.join()


def attack_together(
    site: Site,
    number: int,
    attack: Callable[[Site, Seen, float], None],
    end: float,
    result: multiprocessing.connection.Connection,
) -> None:
    """Let so many attackers attack, in a process of their own; send the answers' statuses.

    They come from elsewhere, so that what they compute leaves the host's processors to the host.
    """
    os.nice(NICE)
    seen = Seen()
    run_together([(attack, site, seen, end)] * number)
    result.send(seen.statuses)


def run_together(
    jobs: Sequence[tuple[Callable[[Site, Seen, float], None], Site, Seen, float]],
) -> None:
    """Run each job in a thread of its own until all have ended."""
    threads = [threading.Thread(target=job, args=arguments) for job, *arguments in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(site: Site, rounds: int, seconds: float, only: str) -> Iterator[tuple[str, Seen, Seen]]:
    """Yield each attack with what was seen without and with it."""
    play(site, Seen(), seconds, 0, lambda *_: None)
    for name, (number, attack) in attacks(site).items():
        if only not in name:
            continue
        quiet, attacked = Seen(), Seen()
        for _ in range(rounds):
            play(site, quiet, seconds, 0, attack)
            play(site, attacked, seconds, number, attack)
        yield f"{number} {name}", quiet, attacked


def fill(database_url: str) -> None:
    """Record passages of the demo until there are PASSAGES, and make the user."""
    import sqlalchemy as sa
    from sqlalchemy.orm import Session

    from toll import models
    from toll.database import make_engine, writing
    from toll.models import Passage
    from toll.services import accounts

    engine = make_engine(database_url)
    with Session(engine) as session:
        accounts.create_user(session, "proof", PASSWORD, "operator")
        table = models.table(Passage)
        names = [column.name for column in table.c if column.name != "id"]
        rows = [
            dict(row._mapping) for row in session.execute(sa.select(*(table.c[n] for n in names)))
        ]
        with writing(session):
            for _ in range(PASSAGES // len(rows)):
                session.execute(sa.insert(table), rows)
    engine.dispose()


def row(database: str, name: str, quiet: Seen, attacked: Seen) -> str:
    """Return a line of the table."""
    statuses = ", ".join(
        f"{count} of {each or 'none'}" for each, count in sorted(attacked.statuses.items())
    )
    return (
        f"| {database} | {name} | {quiet.p99:.0f} | {attacked.p99:.0f} "
        f"| {attacked.p99 / quiet.p99:.1f} | {max(attacked.times):.0f} "
        f"| {max(attacked.health):.0f} | {attacked.refused} | {statuses} |"
    )


def main() -> None:
    """Measure, print the table, and write the report if that was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--app", type=Path, default=APP)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = [
        "| database | attack | p99 quiet, ms | p99, ms | ratio | longest, ms | health at most, ms "
        "| not answered | answers of the attack |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines), flush=True)
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="toll-reading-")))
        home.chmod(0o755)
        (home / "server").mkdir()
        server = PostgreSQL(home / "server")
        server.start()
        stack.callback(server.stop)
        server.execute("CREATE DATABASE toll")
        for database, url in (
            ("SQLite", f"sqlite:///{home}/toll.db"),
            ("PostgreSQL", server.url("toll")),
        ):
            directory = home / database
            directory.mkdir()
            with serving(options.app.resolve(), url, directory) as (address, key, _):
                fill(url)
                site = Site(address, key)
                site.log_in()
                for each in measure(site, options.rounds, options.seconds, options.only):
                    lines.append(row(database, *each))
                    print(lines[-1], flush=True)
    if options.write:
        REPORT.write_text(report(lines, options.rounds, options.seconds), encoding="utf-8")


def report(table: list[str], rounds: int, seconds: float) -> str:
    """Return the page, keeping what was written by hand below the table."""
    written = REPORT.read_text(encoding="utf-8") if REPORT.exists() else ""
    below = written.partition(MARKER)[2]
    head = f"""# What a lane notices of others who read much

Written by `.venv/bin/python tests/proof/reading.py --write`: gunicorn alone on the loopback,
{WORKERS} workers of {THREADS} threads, {PASSAGES:,} passages; {rounds} rounds of {seconds:g} s
without and with each attack in turn. Lane and attackers are two processes on the same processors as
the service; the attackers' runs at nice {NICE}, since theirs would be other processors.
Whoever is refused comes back a second later. "Not answered" counts passages that were not recorded
and health requests without a good answer.

"""
    return head + "\n".join(table) + f"\n\n{MARKER}{below}"


if __name__ == "__main__":
    main()
