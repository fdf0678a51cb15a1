"""How an installation fails."""

from __future__ import annotations


class ReleaseError(Exception):
    """The release cannot be installed; the message names the cause and the remedy."""
