"""The rate limit on log-in, counted in the database: it holds across processes and restarts.

An attempt is counted before its password is looked at, so that many at once cannot all pass
before the first of them has failed. Success takes the account's attempts from that address away.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from toll.database import writing
from toll.models import LoginAttempt

WINDOW = timedelta(minutes=10)
LOCK = "log-in"


@dataclass(frozen=True)
class Limit:
    """How many attempts one key has within the window."""

    key: str
    attempts: int


def limits(name: str, address: str | None) -> tuple[Limit, Limit, Limit]:
    """Return what counts against an attempt to log in.

    Guessing one account's password from one address ends soon; one address that tries many
    accounts, and many addresses that try one account, end later. So a stranger elsewhere cannot
    easily keep a user out, and a shared address has room for several people's slips.
    """
    # Names are what visitors type: of any length, and not to be kept.
    account = hashlib.sha256(name.strip().casefold().encode()).hexdigest()[:24]
    place = _network(address)
    return (
        Limit(f"both:{account}:{place}", 5),
        Limit(f"address:{place}", 30),
        Limit(f"account:{account}", 100),
    )


def attempt(
    s: Session, name: str, address: str | None, now: datetime | None = None
) -> timedelta | None:
    """Count an attempt to log in, durably.

    Returns:
        None if it may go on, else how long to wait. A refused attempt is not counted, so that
        whoever waits is let in.
    """
    now = now or datetime.now(UTC)
    begin = now - WINDOW
    waits = []
    with writing(s, lock=LOCK):
        s.execute(delete(LoginAttempt).where(LoginAttempt.at <= begin))
        for limit in limits(name, address):
            # The attempt that must grow old before there is room again.
            oldest = s.scalar(
                select(LoginAttempt.at)
                .where(LoginAttempt.key == limit.key)
                .order_by(LoginAttempt.at.desc(), LoginAttempt.id.desc())
                .offset(limit.attempts - 1)
                .limit(1)
            )
            if oldest is not None:
                waits.append(oldest + WINDOW - now)
        if not waits:
            s.add_all(LoginAttempt(key=limit.key, at=now) for limit in limits(name, address))
    return max(waits) if waits else None


def succeeded(s: Session, name: str, address: str | None) -> None:
    """Forget the account's attempts from this address, and its own among the others."""
    both, place, account = limits(name, address)
    with writing(s, lock=LOCK):
        s.execute(delete(LoginAttempt).where(LoginAttempt.key == both.key))
        for limit in (place, account):
            # Only the one that succeeded: the others were guesses.
            newest = select(func.max(LoginAttempt.id)).where(LoginAttempt.key == limit.key)
            s.execute(delete(LoginAttempt).where(LoginAttempt.id == newest.scalar_subquery()))


def _network(address: str | None) -> str:
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
