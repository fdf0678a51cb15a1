"""How a command ends."""

from __future__ import annotations

DONE, FAILED, REFUSED = 0, 1, 2
# That of sysexits.h for a command that was used wrongly.
USAGE = 64


class HostError(Exception):
    """It could not be done; the message says why, what became of it, and what to do."""

    code = FAILED


class RefusedError(HostError):
    """Nothing was touched; the message says why and what to do."""

    code = REFUSED


class UsageError(HostError):
    """The command was used wrongly."""

    code = USAGE
