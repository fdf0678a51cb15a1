"""Which version of this package is on a host.

A version is a directory, `/usr/local/lib/apphost/<digest>`, named after what it holds; `current`
leads to one of them. A command resolves that link when it starts, so it ends with the version that
it began with, whatever is installed meanwhile.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

PLACE = Path("/usr/local/lib/apphost")
DIGITS = 12


def sources(package: Path) -> dict[str, bytes]:
    """The source files of the package, by their path below it."""
    return {
        path.relative_to(package).as_posix(): path.read_bytes()
        for path in sorted(package.rglob("*.py"))
    }


def digest(files: Mapping[str, bytes]) -> str:
    """The name of the version that consists of these files."""
    found = hashlib.sha256()
    for name in sorted(files):
        found.update(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return found.hexdigest()[:DIGITS]


def installed(place: Path = PLACE) -> str:
    """The version that `current` leads to; empty if there is none, or if it was changed by hand."""
    try:
        name = os.path.basename(os.readlink(place / "current"))
        files = sources(place / name / "apphost")
    except OSError:
        return ""
    return name if digest(files) == name else ""
