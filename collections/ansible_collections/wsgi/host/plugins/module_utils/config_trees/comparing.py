"""What is there compared with what is wanted. Nothing here changes the host."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import secrets
import stat
from pathlib import Path
from typing import Any

from ansible_collections.wsgi.host.plugins.module_utils.apphost.trees import Record, TreeError
from ansible_collections.wsgi.host.plugins.module_utils.config_trees.model import (
    Change,
    Found,
    Wanted,
    digest,
)
from ansible_collections.wsgi.host.plugins.module_utils.paths import require_own

DPKG_STATUS = Path("/var/lib/dpkg/status")


def require_own_places(
    record: Record, wanted: list[Wanted], directories: list[dict[str, Any]]
) -> None:
    """Raises ForeignPathError where somebody else than root can change where a path leads."""
    # One look for each directory, of which files have many in common.
    files = {*(file.dest for file in wanted), *record.files, *record.written, *record.applied}
    for path in sorted({os.path.dirname(dest): dest for dest in sorted(files)}.values()):
        require_own(path)
    for entry in directories:
        require_own(entry["path"])


def look(dest: str) -> Found:
    """What is at a path. Raises where it is something that this module must not replace."""
    try:
        status = os.lstat(dest)
    except FileNotFoundError:
        return Found("missing")
    except NotADirectoryError as error:
        raise TreeError(f"{dest}: a part of its path is a file, not a directory") from error
    if stat.S_ISLNK(status.st_mode):
        return Found("link", os.readlink(dest).encode())
    if not stat.S_ISREG(status.st_mode):
        raise TreeError(f"{dest} is not a file; move it away, or write somewhere else")
    return Found(
        "file",
        Path(dest).read_bytes(),
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
    )


def identity(database: Any, kind: str, name: str, dest: str, *, tolerant: bool) -> int | None:
    """The number of a user or group; None, if tolerant, for one that does not exist yet."""
    try:
        return int(name) if name.isdigit() else database(name)[2]
    except KeyError as error:
        if tolerant:
            return None
        raise TreeError(
            f"{dest}: there is no {kind} {name!r} on this host; create it first"
        ) from error


def compare(wanted: list[Wanted], record: Record, *, tolerant: bool) -> list[Change]:
    """Every path that differs from what is wanted, and every one of ours that no longer is."""
    changes = []
    for file in wanted:
        found = look(file.dest)
        if file.random_bytes is not None:
            file.content = (
                found.content
                if found.kind == "file"
                else secrets.token_hex(file.random_bytes).encode()
            )
        assert file.content is not None
        uid = identity(pwd.getpwnam, "user", file.owner, file.dest, tolerant=tolerant)
        gid = identity(grp.getgrnam, "group", file.group, file.dest, tolerant=tolerant)
        if found.kind == "missing":
            changes.append(Change(file.dest, "created", found, file, secret=file.secret))
        elif found.kind == "link" or found.content != file.content:
            edited = not (
                record.knows(file.dest, digest(found.content)) or pristine(file.dest, found.content)
            )
            changes.append(Change(file.dest, "updated", found, file, edited, file.secret))
        elif (found.mode, found.uid, found.gid) != (file.mode, uid, gid):
            changes.append(Change(file.dest, "permissions", found, file))
    ours = {file.dest for file in wanted}
    for dest in sorted({*record.files, *record.written, *record.applied} - ours):
        found = look(dest)
        if found.kind != "missing":
            edited = not record.knows(dest, digest(found.content))
            changes.append(Change(dest, "removed", found, None, edited, dest in record.secret))
    return changes


def pristine(path: str, content: bytes) -> bool:
    """Whether it is the file that the distribution's package brought, so that nobody's work goes.

    Only Debian records this where it can be read for the price of a file; elsewhere
    a file of a package counts as somebody's, and a copy is kept once.
    """
    try:
        status = DPKG_STATUS.read_text(errors="replace")
    except FileNotFoundError:
        return False
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return f"\n {path} {md5}\n" in status


def missing_directories(
    directories: list[dict[str, Any]], *, tolerant: bool
) -> list[dict[str, Any]]:
    """The directories that are not there or not as they shall be, with their numbers filled in."""
    result = []
    for entry in directories:
        path = entry["path"]
        uid = identity(pwd.getpwnam, "user", entry.get("owner", "root"), path, tolerant=tolerant)
        gid = identity(grp.getgrnam, "group", entry.get("group", "root"), path, tolerant=tolerant)
        wish = {"path": path, "mode": int(entry.get("mode", "0755"), 8), "uid": uid, "gid": gid}
        try:
            status = os.stat(path)
        except FileNotFoundError:
            result.append(wish)
            continue
        if not stat.S_ISDIR(status.st_mode):
            raise TreeError(f"{path} is not a directory; move it away")
        if (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) != (wish["mode"], uid, gid):
            result.append(wish)
    return result
