"""How often somebody may try to log in; see docs/decisions/0021.

Nobody can lock out anybody else. What counts against an attempt is what came from the same device
or the same network, never what others did to the account elsewhere. Attempts are counted beside the
database, in memory that the processes of this host share: a flood of guesses takes no lock that
recording passages needs.

An attempt is counted before its password is looked at, so that many at once cannot all pass before
the first of them has failed. Success takes the attempts of its own kind away.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

WINDOW = timedelta(minutes=10)
# Wrong passwords within the window, for one account:
PER_DEVICE = 5  # from a device that logged in to it before
PER_PLACE = 5  # from any other device of one address, or of one IPv6 network
PER_PLACE_UNDER_ATTACK = 2  # the same, while many places fail
ATTACK = 20  # attempts on the account from all unknown devices that are such an attack
# For all accounts together, from unknown devices of one address.
PER_ADDRESS = 30

# A password costs 64 MiB and a processor for a moment. Strangers and known devices each have one
# hash at a time on this host, and so many who wait for it; the rest are asked to come again.
WAITING = {"stranger": 1, "known": 4}
WAIT_SECONDS = 2.0
BUSY = timedelta(seconds=3)
POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Limit:
    """How many attempts one key has within the window."""

    key: str
    attempts: int


@dataclass(frozen=True)
class Attempt:
    """An attempt to log in: to which account, from where, and from which known device."""

    name: str
    address: str | None
    # Of a device that has logged in to this account before; None for any other.
    device: str | None = None

    @property
    def account(self) -> str:
        """Names are what visitors type: of any length, and not to be kept."""
        return hashlib.sha256(self.name.strip().casefold().encode()).hexdigest()[:24]

    @property
    def place(self) -> str:
        """The address as it is counted."""
        return network(self.address)


@dataclass(frozen=True)
class Verdict:
    """What counts for an attempt: as whose it counts, and how long it has to wait, if at all."""

    known: bool
    wait: timedelta | None = None


class Throttle:
    """Counts attempts in a file that the processes of this host share."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @contextmanager
    def _counting(self) -> Iterator[sqlite3.Connection]:
        """Yield the counts, locked. A connection each time: none is inherited by a fork."""
        connection = sqlite3.connect(self.file, timeout=5, isolation_level=None)
        try:
            # They are worth nothing after a crash.
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE IF NOT EXISTS attempts (key TEXT, at REAL)")
            connection.execute("CREATE INDEX IF NOT EXISTS by_key ON attempts (key, at)")
            connection.execute("CREATE INDEX IF NOT EXISTS by_at ON attempts (at)")
            yield connection
            connection.execute("COMMIT")
        finally:
            connection.close()

    def attempt(self, made: Attempt, now: datetime | None = None) -> Verdict:
        """Count an attempt, if it may be made.

        A refused one is not counted, so that whoever waits is let in.
        """
        now = now or datetime.now(UTC)
        with self._counting() as counts:
            begin = (now - WINDOW).timestamp()
            counts.execute("DELETE FROM attempts WHERE at <= ?", (begin,))
            if made.device:
                limit = of_device(made, made.device)
                if oldest(counts, limit) is None:
                    count(counts, [limit], now)
                    return Verdict(known=True)
                # A device that guesses is worth no more than a stranger's.
            attacked = oldest(counts, everywhere(made)) is not None
            limits = of_stranger(made, attacked)
            waits = [
                datetime.fromtimestamp(at, UTC) + WINDOW - now
                for limit in limits
                if (at := oldest(counts, limit)) is not None
            ]
            if waits:
                return Verdict(known=False, wait=max(waits))
            count(counts, [*limits, everywhere(made)], now)
            return Verdict(known=False)

    def succeeded(self, made: Attempt, known: bool) -> None:
        """Forget what counted against the account from there, and this attempt among the others."""
        with self._counting() as counts:
            if known and made.device:
                forget(counts, of_device(made, made.device).key)
                return
            both, place = of_stranger(made, attacked=False)
            forget(counts, both.key)
            # Only the one that succeeded: the others were guesses.
            withdraw(counts, place.key, everywhere(made).key)

    def postponed(self, made: Attempt, known: bool) -> None:
        """Take an attempt back whose password was not looked at."""
        with self._counting() as counts:
            if known and made.device:
                withdraw(counts, of_device(made, made.device).key)
            else:
                limits = (*of_stranger(made, attacked=False), everywhere(made))
                withdraw(counts, *(limit.key for limit in limits))

    @contextmanager
    def turn(self, known: bool) -> Iterator[bool]:
        """Yield whether a password may be hashed now: one at a time, and few wait for it."""
        kind = "known" if known else "stranger"
        with contextlib.ExitStack() as held:
            place = next(
                (
                    file
                    for number in range(WAITING[kind] + 1)
                    if (file := lock(self.file.with_name(f"{self.file.name}.{kind}.{number}")))
                ),
                None,
            )
            if place is None:
                yield False
                return
            held.enter_context(place)
            end = time.monotonic() + WAIT_SECONDS
            while (hashing := lock(self.file.with_name(f"{self.file.name}.{kind}"))) is None:
                if time.monotonic() > end:
                    yield False
                    return
                time.sleep(POLL_SECONDS)
            held.enter_context(hashing)
            yield True


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def lock(path: Path) -> contextlib.AbstractContextManager[None] | None:
    """Return the lock on a file, held until it is left; None if somebody has it.

    It ends with the process too, however that ends.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return _closing(descriptor)


def of_device(made: Attempt, device: str) -> Limit:
    """Return what counts against a device that is known to the account."""
    return Limit(f"device:{made.account}:{device}", PER_DEVICE)


def of_stranger(made: Attempt, attacked: bool) -> tuple[Limit, Limit]:
    """Return what counts against any other device: the account from there, and the address."""
    attempts = PER_PLACE_UNDER_ATTACK if attacked else PER_PLACE
    return (
        Limit(f"both:{made.account}:{made.place}", attempts),
        Limit(f"address:{made.place}", PER_ADDRESS),
    )


def everywhere(made: Attempt) -> Limit:
    """Return what the account's attempts from all unknown devices are counted by."""
    return Limit(f"account:{made.account}", ATTACK)


def oldest(counts: sqlite3.Connection, limit: Limit) -> float | None:
    """Return when the attempt was made that has to grow old first; None if there is room."""
    row = counts.execute(
        "SELECT at FROM attempts WHERE key = ? ORDER BY at DESC LIMIT 1 OFFSET ?",
        (limit.key, limit.attempts - 1),
    ).fetchone()
    return float(row[0]) if row else None


def count(counts: sqlite3.Connection, limits: list[Limit], now: datetime) -> None:
    """Count an attempt against these."""
    rows = [(limit.key, now.timestamp()) for limit in limits]
    counts.executemany("INSERT INTO attempts VALUES (?, ?)", rows)


def forget(counts: sqlite3.Connection, key: str) -> None:
    """Forget what was counted for a key."""
    counts.execute("DELETE FROM attempts WHERE key = ?", (key,))


def withdraw(counts: sqlite3.Connection, *keys: str) -> None:
    """Forget the newest attempt of each key."""
    for key in keys:
        counts.execute(
            "DELETE FROM attempts WHERE rowid = (SELECT rowid FROM attempts "
            "WHERE key = ? ORDER BY at DESC, rowid DESC LIMIT 1)",
            (key,),
        )


def network(address: str | None) -> str:
    """Return the address as it is counted: of IPv6 a customer has a whole /64."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "local"  # A unix socket has no address.
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
