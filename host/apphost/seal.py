"""Whether a host is still as the last whole run of the playbook left it.

At its end a run notes how everything is that it looks at or relies on: files with owner, mode and
content, links, units that start at boot, packages, users, the live release. The note is the seal.
As long as the host is as noted, and what the run was given has not changed either, another run
would change nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import files
from .application import Application
from .http import NoAnswerError, get

SEAL = "var/lib/application-seal/seal.json"
RECORDS = "var/lib/config-tree"
VERSION = 1
# A file is hashed up to this size; of a larger one, size and time count.
HASHED_BYTES = 16 * 2**20
ANSWER_SECONDS = 10.0
# Directories of which it matters what else is in them.
LISTED = re.compile(r"etc/(?!systemd/system$)|usr/local/")
# What a run looks at of the host itself.
FACTS = (
    *("apphost", "architecture", "cpus", "distribution", "distribution_version", "edited_files"),
    *("foreign_files", "ipv6", "journal_limits", "logins", "memory_mib", "packages"),
    *("python", "renewals", "root", "selinux", "systemd"),
)
# Outside of trees.
MORE = ("etc/passwd", "etc/group", "opt/certbot/current", "etc/letsencrypt/renewal")


def noted(host: Path, seen: Mapping[str, Any]) -> dict[str, str]:
    """How everything is that matters, by what it is.

    Args:
        host: the root of its file system.
        seen: what the probe returns.
    """
    found = {f"fact {name}": _digest(repr(seen[name])) for name in FACTS if name in seen}
    for name, unit in seen["units"].items():
        if unit["enabled"]:
            found[f"unit {name}"] = "active" if unit["active"] else "stopped"
    for path in _databases(host):
        found[f"data {path}"] = "there" if os.path.lexists(path) else "absent"
    for path in sorted(set(_paths(host))):
        found[str(path)] = _state(path, listed=bool(LISTED.match(os.path.relpath(path, host))))
    return found


def _applications(host: Path) -> list[Application]:
    end = "-description"
    records = sorted((host / RECORDS).glob(f"*{end}.json"))
    return [Application(record.stem[: -len(end)], host) for record in records]


def _databases(host: Path) -> Iterator[Path]:
    """Files that change all the time, of which it only matters that they are there."""
    for application in _applications(host):
        yield from (application.data / name for name in application.database.files)


def _paths(host: Path) -> Iterator[Path]:
    yield from (host / path for path in MORE)
    for record in sorted((host / RECORDS).glob("*.json")):
        yield record
        for name in files.read_json_if_possible(record).get("files") or {}:
            path = host / name.lstrip("/")
            yield from (path, path.parent)
    for application in _applications(host):
        yield from _of(application)
    for link in sorted((host / "etc/ssl/sites").glob("*")):
        yield from (link, *(link.resolve() / part for part in ("fullchain.pem", "privkey.pem")))


def _of(application: Application) -> Iterator[Path]:
    """What belongs to an application."""
    kept = application.host / "var/lib/gunicorn-handover" / application.name
    yield from (application.root, application.releases, application.current, application.data)
    yield from (application.state / name for name in ("handover.json", "data.json"))
    yield from (kept, kept / "healthy.json", kept / "candidate.json")
    yield from sorted((application.etc / "credentials").glob("*"))
    yield from sorted((application.state / "workers").glob("*"))
    if application.current.is_symlink():
        release = os.path.basename(os.readlink(application.current))
        yield from (application.releases / release, application.state / f"releases/{release}.json")


def _state(path: Path, listed: bool = False) -> str:
    """One line on how a path is. Follows no link."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "absent"
    owner = f"{found.st_uid}:{found.st_gid}"
    if stat.S_ISLNK(found.st_mode):
        return f"link to {os.readlink(path)} {owner}"
    said = f"{stat.S_IMODE(found.st_mode):o} {owner}"
    if stat.S_ISDIR(found.st_mode):
        inside = f" {_digest(repr(sorted(os.listdir(path))))}" if listed else ""
        return f"directory {said}{inside}"
    if not stat.S_ISREG(found.st_mode):
        return f"other {said}"
    if found.st_size > HASHED_BYTES:
        return f"file {said} {found.st_size} {found.st_mtime_ns}"
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        return f"file {said} {hashlib.sha256(stream.read()).hexdigest()}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write(host: Path, seen: Mapping[str, Any], told: Mapping[str, Any], now: float) -> None:
    """Seal the host as it is.

    Args:
        told: what the next run is to know again: `inputs`, `sources`, `questions`, `said`.
        now: seconds since the epoch.
    """
    path = host / SEAL
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    seal = {"version": VERSION, "at": now, "noted": noted(host, seen), **told}
    files.write_json(path, seal, 0o600)


def read(host: Path) -> dict[str, Any]:
    """The seal; empty where there is none that can be used."""
    found = files.read_json_if_possible(host / SEAL)
    return found if found.get("version") == VERSION else {}


def remove(host: Path) -> None:
    """Have the next run look at everything."""
    files.remove(host / SEAL)


def broken(
    host: Path,
    seal: Mapping[str, Any],
    seen: Mapping[str, Any],
    wanted: Mapping[str, Any],
    now: float,
) -> str:
    """Why another run is needed, as far as the host can tell; empty if there is no reason.

    Args:
        wanted: `hours` after which a seal is not believed, and `inputs`, a hash of what the run is
            given.
    """
    hours = wanted["hours"]
    if not seal:
        return "no whole run has ended well on this host yet"
    if not 0 <= now - seal["at"] < hours * 3600:
        return f"the last whole run is more than {hours:g} hours ago"
    if seal["inputs"] != wanted["inputs"]:
        return "variables, the inventory, a role or a program has changed"
    was, is_now = seal["noted"], noted(host, seen)
    changed = sorted(name for name in {*was, *is_now} if was.get(name) != is_now.get(name))
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"{changed[0]} is not as it was{more}"
    return next(_unanswered(seal["questions"]), "")


def _unanswered(questions: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What is asked through the web server is not answered as it was."""
    for each in questions:
        try:
            answer = get(
                each["connect"], each["path"], deadline=ANSWER_SECONDS, name=each["name"], tls=True
            )
        except NoAnswerError as error:
            yield f"{each['name']}{each['path']} {error.words}"
            continue
        fault = answer.fault(each["status"], each["json"])
        if fault:
            yield f"{each['name']}{each['path']} {fault}"
