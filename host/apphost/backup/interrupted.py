"""A restore that was killed: the data may be half of the copy and half of what was there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import files, times
from ..application import Application
from ..errors import RefusedError


def path(application: Application) -> Path:
    """The file that is there while a restore replaces data."""
    return application.state / "restore.json"


def begin(application: Application, name: str, by: str, before: str = "") -> None:
    """Note that a restore is under way.

    Args:
        before: the copy of what was there, as soon as there is one.
    """
    note(application, {"name": name, "by": by, "before": before, "at": times.written(times.now())})


def note(application: Application, facts: dict[str, Any]) -> None:
    """Write down what `read` has read before, where it still holds."""
    files.write_json(path(application), facts, 0o600)


def end(application: Application) -> None:
    """Note that it ended, with data that belong together."""
    files.remove(path(application))


def read(application: Application) -> dict[str, Any]:
    """What was noted; empty if no restore is under way."""
    return files.read_json_if_possible(path(application))


def words(application: Application) -> str:
    """What is wrong and what to do; empty if nothing is."""
    found = read(application)
    if not found:
        return ""
    command = f"sudo {application.name} restore"
    before = found.get("before")
    back = f", or what was there before: {command} {before}" if before else ""
    return (
        f"the restore of {found.get('name')}, begun at {found.get('at')} by {found.get('by')}, was "
        f"interrupted, so the data may be half of it. Restore it again: {command} "
        f"{found.get('name')}{back}"
    )


def check(application: Application) -> None:
    """Raise RefusedError where a restore was interrupted."""
    found = words(application)
    if found:
        raise RefusedError(f"Data of this kind cannot be copied: {found}")
