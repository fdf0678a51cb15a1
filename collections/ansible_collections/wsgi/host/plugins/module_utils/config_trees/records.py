"""What is kept of a tree on the host: its record, and copies of what somebody else wrote."""

from __future__ import annotations

import time
from pathlib import Path

from ansible_collections.wsgi.host.plugins.module_utils.apphost.files import write_bytes
from ansible_collections.wsgi.host.plugins.module_utils.config_trees.model import Change

RECORDS = Path("/var/lib/config-tree")


def record_of(name: str) -> Path:
    """Where it is recorded what is known of a tree."""
    return RECORDS / f"{name}.json"


def keep_copies(name: str, changes: list[Change]) -> dict[str, str]:
    """Copies what somebody else wrote before it is replaced. Returns path: place of the copy."""
    kept = {}
    folder = RECORDS / name / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for change in changes:
        if change.edited and change.found.kind == "file":
            copy = folder / change.dest.lstrip("/")
            copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_bytes(copy, change.found.content, 0o600)
            kept[change.dest] = str(copy)
    return kept
