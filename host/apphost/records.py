"""What is written down about releases: the only place where it is read and written.

A release's manifest says what it is made of and never changes. Its record, in
`<root>/state/releases/<id>.json`, says what became of it: who shipped it, who made it live, its
verdict, whether somebody has left it. `history.jsonl` has a line for each handover.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .files import append, read_json_if_possible, remove, write_json
from .times import stamp

SCHEMA = 1
HEALTHY, BAD, UNJUDGED = "healthy", "bad", "unjudged"
# Whoever leaves a release: a person who does not want it, or a deploy that failed on another host.
DECISION, FAILURE = "decision", "failure"
LEFT = ("excluded_at", "excluded_by", "excluded_reason", "excluded_kind")


def path_of(state: Path, release: str) -> Path:
    """Where the record of a release is."""
    return state / "releases" / f"{release}.json"


def read(state: Path, release: str) -> dict[str, Any]:
    """The record of a release; empty if there is none that can be read."""
    return read_json_if_possible(path_of(state, release))


def update(state: Path, release: str, facts: dict[str, Any]) -> None:
    """Keep facts in a release's record, beside what is there; what is None goes."""
    record = {"id": release, "schema": SCHEMA, **read(state, release), **facts}
    record = {key: value for key, value in record.items() if value is not None or key not in LEFT}
    path = path_of(state, release)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write(path, record)


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a whole record, complete or not at all."""
    # What a release that failed has said may be more than everybody on the host should read.
    write_json(path, record, 0o600 if record.get("failure") else 0o644)


def exclude(state: Path, release: str, by: str, reason: str, kind: str) -> None:
    """Note that somebody goes back from a release."""
    facts = {
        "excluded_at": stamp(),
        "excluded_by": by,
        "excluded_reason": reason,
        "excluded_kind": kind,
    }
    update(state, release, facts)


def take_up(state: Path, release: str) -> None:
    """Note that a release is not left after all."""
    update(state, release, dict.fromkeys(LEFT))


def is_decision(record: dict[str, Any]) -> bool:
    """Whether somebody has left a release on purpose, which a failed deploy does not."""
    return bool(record.get("excluded_at")) and record.get("excluded_kind", DECISION) == DECISION


def forget(state: Path, release: str) -> None:
    """Remove the record of a release whose files go. That somebody has left it outlasts them."""
    if not is_decision(read(state, release)):
        remove(path_of(state, release))


def history(state: Path, line: dict[str, Any]) -> None:
    """Add a line about a handover."""
    append(state / "history.jsonl", json.dumps({"time": stamp(), **line}))


def last_verdict(state: Path) -> dict[str, Any]:
    """The last line of the history that has a verdict; empty if there is none."""
    last: dict[str, Any] = {}
    try:
        with (state / "history.jsonl").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict) and entry.get("verdict"):
                    last = entry
    except OSError:
        pass
    return last
