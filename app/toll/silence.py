"""A connection to PostgreSQL that does not wait for ever.

libpq has no limit on how long it waits for an answer. Where the server's host has lost its power,
`tcp_user_timeout` ends the wait; where all of its processes stand still, its kernel confirms every
packet, and nothing does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg


class Connection(psycopg.Connection[Any]):
    """Fails, and is closed, when its server says nothing for too long.

    Attributes:
        silence_seconds: how long it waits for an answer; None for as long as it takes.
        on_silence: is told, with these seconds, that there was none.
    """

    silence_seconds: float | None = None
    on_silence: Callable[[float], None] | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for an answer, as the driver's own does.

        Raises:
            psycopg.OperationalError: there was none in time. Whether the server has done what it
                was sent is not known.
        """
        limit = self.silence_seconds
        if limit is None or timeout is not None:
            return super().wait(gen, interval, timeout)
        end = time.monotonic() + limit
        try:
            return super().wait(gen, interval, limit)
        except psycopg.OperationalError as error:
            # The driver has no public name for a wait that took too long.
            if error.sqlstate or time.monotonic() < end:
                raise
        self.close()
        if self.on_silence:
            self.on_silence(limit)
        raise psycopg.OperationalError(f"the database has not answered for {limit:g} seconds")
