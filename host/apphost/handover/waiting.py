"""Waiting for a handover that is under way."""

from __future__ import annotations

import time

from ..errors import RefusedError
from ..systemd import Systemd
from .config import Config
from .state import State

WAIT_POLL_SECONDS = 0.2


def wait_for_others(config: Config, systemd: Systemd, end: float) -> None:
    """Wait until no handover is under way. Raises RefusedError when the time is over.

    Args:
        end: of the time, as `time.monotonic()` counts it.
    """
    while not systemd.show(config.unit).stopped:
        state = State.read(config)
        if time.monotonic() >= end:
            what = "just begun"
            if state is not None:
                to, by = state.release or "changed settings", state.by or "somebody"
                what = f"to {to}, by {by}, since {state.started_at}"
            raise RefusedError(
                f"Another handover is under way ({what}): wait for it, or use --wait SECONDS"
            )
        time.sleep(WAIT_POLL_SECONDS)
