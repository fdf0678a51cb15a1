"""Addresses in messages: whom somebody logs in as, and by what, is nobody else's business."""

from __future__ import annotations

import re

# Up to the last @ of the host's part. A password may have a slash in it that nobody escaped; what
# follows a port is a path, though, which has an @ of its own in `git+https://host:8443/lib@v1`.
LOGIN = re.compile(r"(://)(?:[^/\s:@]*:(?!\d*/)[^\s@]*@(?:[^/\s@]*@)*|[^/\s]*@)")


def without_login(text: str) -> str:
    """Return a text whose addresses have neither a user nor a password."""
    return LOGIN.sub(r"\1", text)
