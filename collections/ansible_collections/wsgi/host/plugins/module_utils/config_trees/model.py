"""The terms: a file as it shall be, as it is, and what differs."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from dataclasses import dataclass


@dataclass
class Wanted:
    """One file as it shall be. `content` is None for a random file until it is known."""

    dest: str
    mode: int
    owner: str
    group: str
    secret: bool
    content: bytes | None = None
    random_bytes: int | None = None
    program: bool = False


@dataclass
class Found:
    """One path as it is."""

    kind: str  # missing, file, link
    content: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0


@dataclass
class Change:
    """One path that differs. `wanted` is None where the file goes."""

    dest: str
    what: str  # created, updated, permissions, removed
    found: Found
    wanted: Wanted | None
    edited: bool = False
    secret: bool = False


def digest(content: bytes) -> str:
    """The SHA-256 of a content."""
    return hashlib.sha256(content).hexdigest()


def decode(payload: str | None) -> list[Wanted]:
    """The files of the action's payload, random ones without content."""
    if not payload:
        return []
    entries = json.loads(zlib.decompress(base64.b64decode(payload)))
    return [
        Wanted(
            dest=entry["dest"],
            mode=int(entry["mode"], 8),
            owner=entry["owner"],
            group=entry["group"],
            secret=entry["secret"],
            content=base64.b64decode(entry["content"]) if "content" in entry else None,
            random_bytes=entry.get("random_bytes"),
            program=entry.get("program", False),
        )
        for entry in entries
    ]
