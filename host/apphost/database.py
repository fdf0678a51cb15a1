"""Which database an application has, and what was done to it before: state/data.json."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from . import files
from .application import Application
from .errors import RefusedError
from .schema import Schema

# One of the hosts in front of a URL's path, which may be an address of IPv6.
HOST = re.compile(r"\[?(.*?)\]?(?::(\d*))?")


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
    """A name for the database, see `is_same`; None if there is none yet."""
    try:
        if is_postgresql(application):
            url = _url(application).read_text(encoding="utf-8")
            return "url:" + place(url, application.database.names)
        path = database_file(application)
        if path is None:
            return None
        # The number of a device changes with a reboot, what the file system calls itself does not.
        return f"file:{os.statvfs(path).f_fsid}:{os.lstat(path).st_ino}"
    except FileNotFoundError:
        return None


def _url(application: Application) -> Path:
    # A pooler in front of it makes it no other one.
    return application.direct_credential(application.database.credential)


def place(url: str, names: Collection[str]) -> str:
    """Which database a URL of PostgreSQL names, whoever logs in to it with what password.

    Args:
        names: of one server, or of several that copy one another.
    """
    parts = urlsplit(url.strip())
    options = parse_qsl(parts.query)
    # Several are one list, or the same word again, each with a port or without.
    asked = [each for key, value in options if key == "host" for each in value.split(",")]
    listed = asked or unquote(parts.netloc.rpartition("@")[2]).split(",")
    written = [_host_and_port(each) for each in listed]
    hosts = [host for host, _ in written]
    asked = [each for key, value in options if key == "port" for each in value.split(",")]
    ports = asked or [port for _, port in written]
    # One port may be that of all.
    ports = ports * len(hosts) if len(ports) == 1 else ports
    pairs = zip(hosts, ports)  # noqa: B905 (Python 3.9)
    each = {(host or "localhost", port or "5432") for host, port in pairs}
    each |= {(name, port) for host, port in each if host in names for name in names}
    return ",".join(sorted(map(":".join, each))) + "/" + unquote(parts.path.lstrip("/"))


def _host_and_port(text: str) -> tuple[str, str]:
    match = HOST.fullmatch(text)
    # A bare address of IPv6 has no port.
    if match is None or (text.count(":") > 1 and not text.startswith("[")):
        return text, ""
    return match[1], match[2] or ""


def is_same(one: str, other: str) -> bool:
    """Whether two names are of one database: hosts join a cluster and leave it."""
    (hosts, name), (others, named) = (each.rpartition("/")[::2] for each in (one, other))
    common = {*hosts.removeprefix("url:").split(",")} & {*others.removeprefix("url:").split(",")}
    return name == named and bool(common)


def is_noted(application: Application) -> bool:
    """Whether what is kept of earlier runs is of this very database."""
    noted, now = read_stamp(application).get("database"), identity(application)
    if noted is None or now is None:
        return False
    # An earlier version went by the URL as a whole.
    return is_same(noted, now) or (
        is_postgresql(application) and noted == "url:" + files.digest(_url(application))
    )


def read_stamp(application: Application) -> dict[str, Any]:
    """What earlier runs did: `database`, and `seeds` with the key of each by its name."""
    return files.read_json_if_possible(application.state / "data.json")


def seeded(application: Application) -> dict[str, str]:
    """The seeds of this very database."""
    return dict(read_stamp(application).get("seeds") or {}) if is_noted(application) else {}


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
        # A cluster whose hosts are replaced one by one is still known when the last one goes.
        write_stamp(application, seeded(application))


def is_emptied(application: Application, now: Schema) -> bool:
    """Whether this host's data were in this database, and are no more."""
    before = str(read_stamp(application).get("database") or "")
    on_server = is_postgresql(application)
    if now.numbered:
        empty = now.database is None
    else:
        path = database_file(application)
        empty = not on_server and path is not None and not _has_bytes(path)
    same = is_noted(application) if on_server else before.startswith("file:")
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
