"""Which database an application has, and what was done to it before: state/data.json."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from . import files
from .application import Application
from .errors import RefusedError
from .schema import Schema


def is_postgresql(application: Application) -> bool:
    """Whether the rows are on a server; else they are in a file of SQLite."""
    return application.database.kind == "postgresql"


def database_file(application: Application) -> Path | None:
    """The first file of SQLite; None without one."""
    name = next(iter(application.database.files), "")
    if not name:
        return None
    if os.path.isabs(name):
        return application.host / name.lstrip("/")
    return application.data / name


def identity(application: Application) -> str | None:
    """A name for the database that changes when it is another one; None if there is none yet."""
    try:
        if is_postgresql(application):
            # A pooler in front of it makes it no other one.
            url = application.direct_credential(application.database.credential)
            return "url:" + files.digest(url)
        path = database_file(application)
        if path is None:
            return None
        # The number of a device changes with a reboot, what the file system calls itself does not.
        return f"file:{os.statvfs(path).f_fsid}:{os.lstat(path).st_ino}"
    except FileNotFoundError:
        return None


def read_stamp(application: Application) -> dict[str, Any]:
    """What earlier runs did: `database`, and `seeds` with the key of each by its name."""
    return files.read_json_if_possible(application.state / "data.json")


def seeded(application: Application) -> dict[str, str]:
    """The seeds of this very database."""
    stamp = read_stamp(application)
    if stamp.get("database") is None or stamp["database"] != identity(application):
        return {}
    return dict(stamp.get("seeds") or {})


def write_stamp(application: Application, seeds: dict[str, str]) -> None:
    """Keep what was done to the database for the next run, for root only.

    Args:
        seeds: the key of each seed that it has, by its name.
    """
    stamp = {"database": identity(application), "seeds": seeds}
    files.write_json(application.state / "data.json", stamp, 0o600)


def note_served(application: Application) -> None:
    """Keep that the server's database is the one that serves, on a host that did not prepare it.

    Of the hosts of a fleet one prepares it. The others would go on saying that their rows are in a
    file of before, and each run would ask what is to become of that.
    """
    try:
        on_server = is_postgresql(application)
    except RefusedError:
        return  # A service that no role describes as an application.
    now = identity(application) if on_server else None
    if now is not None and read_stamp(application).get("database") != now:
        write_stamp(application, {})


def is_emptied(application: Application, now: Schema) -> bool:
    """Whether this host's data were in this database, and are no more."""
    before = str(read_stamp(application).get("database") or "")
    on_server = is_postgresql(application)
    if now.numbered:
        empty = now.database is None
    else:
        path = database_file(application)
        empty = not on_server and path is not None and not _has_bytes(path)
    same = before == identity(application) if on_server else before.startswith("file:")
    return empty and same


def emptied(application: Application) -> RefusedError:
    """What is raised for data that are no more: their disk may be away."""
    where = (
        f"The database of {application.database.credential}"
        if is_postgresql(application)
        else database_file(application)
    )
    return RefusedError(
        f"{where} held data, and is empty or gone now. Nothing was made in its place. If its disk "
        f"is not mounted, or another server answers, fix that, then run this again. If the "
        f"data are lost, restore a copy, or begin with an empty database: {application.name} "
        f"migrate --anew."
    )


def _has_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
