"""Records: what is written down of a release when it is shipped, and whether somebody has left it.

Where they are and how they are written is known to `apphost.records`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible_collections.wsgi.host.plugins.module_utils.apphost import records, times
from ansible_collections.wsgi.host.plugins.module_utils.releases.disk import make_directory


def read_record(root: str, name: str) -> dict[str, Any] | None:
    """Return the record of a release, None if there is none that can be read."""
    record = records.read(Path(root, "state"), name)
    return record if record.get("id") == name else None


def write_record(root: str, record: dict[str, Any]) -> None:
    """Write the record of a release, complete or not at all."""
    path = records.path_of(Path(root, "state"), record["id"])
    make_directory(str(path.parent.parent))
    make_directory(str(path.parent))
    records.write(path, record)


def excluded_on_purpose(
    root: str, name: str, content: str, current: str | None
) -> dict[str, Any] | None:
    """Return the record of the release, or of one of its content, that somebody has left.

    None without one, and where the current release is what was asked for.
    """
    own = read_record(root, name)
    if name == current or (own and records.is_decision(own)):
        return own if name != current else None
    folder = os.path.join(root, "state", "releases")
    files = os.listdir(folder) if os.path.isdir(folder) else []
    found = [read_record(root, file[: -len(".json")]) for file in files if file.endswith(".json")]
    same = [each for each in found if each and (each.get("content") or each["id"]) == content]
    if any(each["id"] == current for each in same):
        return None
    return next((each for each in same if records.is_decision(each)), None)


def wanted_record(found: dict[str, Any] | None, bundle: dict[str, Any], by: str) -> dict[str, Any]:
    """Return what the record of a release that is shipped has to be.

    That somebody has left it stays until it is live again, which shipping it is not.
    """
    if found is not None and records.is_decision(found):
        return found
    if found is not None:
        return {key: value for key, value in found.items() if not key.startswith("excluded_")}
    return {
        "schema": records.SCHEMA,
        "id": bundle["id"],
        "content": bundle.get("content") or bundle["id"],
        "revision": bundle.get("revision"),
        "lock_sha256": bundle.get("lock_hash"),
        "python": bundle["python"],
        "architecture": bundle["architecture"],
        "archive_sha256": bundle["sha256"],
        "built_by": bundle.get("built_by"),
        "shipped_by": by,
        "shipped_at": times.stamp(),
        "verdict": records.UNJUDGED,
    }
