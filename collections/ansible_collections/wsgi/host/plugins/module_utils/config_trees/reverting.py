"""What a service ran with last, kept until it runs with something else, to go back to."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from ansible_collections.wsgi.host.plugins.module_utils.apphost import trees
from ansible_collections.wsgi.host.plugins.module_utils.apphost.files import write as write_file
from ansible_collections.wsgi.host.plugins.module_utils.apphost.trees import Record
from ansible_collections.wsgi.host.plugins.module_utils.config_trees import records, swapping
from ansible_collections.wsgi.host.plugins.module_utils.config_trees.model import Change, Found


def place_of(name: str) -> Path:
    """Where it is kept; for root alone, since a tree may hold secrets."""
    return records.record_of(name).with_suffix(".before")


def keep(name: str, record: Record, changes: list[Change]) -> None:
    """Keep what the changes replace, if the service ran with that; what was kept already stays."""
    place = place_of(name)
    kept = _read(place)
    if kept is None and (not record.applied or record.applied != record.files):
        return
    kept = kept or {"files": {}, "record": vars(record)}
    for change in changes:
        kept["files"].setdefault(change.dest, _packed(change.found))
    write_file(place, json.dumps(kept), 0o600)


def forget(name: str) -> None:
    """The service runs with what was written."""
    place_of(name).unlink(missing_ok=True)


def revert(name: str, *, preview: bool) -> dict[str, str]:
    """Have the files and the record be again what the service ran with.

    Returns path: what was done.
    """
    kept = _read(place_of(name))
    if kept is None:
        return {}
    done = {}
    for dest, packed in kept["files"].items():
        found = _unpacked(packed)
        done[dest] = "removed" if found.kind == "missing" else "reverted"
        if not preview:
            swapping.revert(Change(dest, "reverted", found, None))
    if not preview:
        trees.write(records.record_of(name), Record(**kept["record"]))
        forget(name)
    return done


def _read(place: Path) -> dict[str, Any] | None:
    return json.loads(place.read_text()) if place.exists() else None


def _packed(found: Found) -> dict[str, Any]:
    return {**vars(found), "content": base64.b64encode(found.content).decode()}


def _unpacked(packed: dict[str, Any]) -> Found:
    return Found(**{**packed, "content": base64.b64decode(packed["content"])})
