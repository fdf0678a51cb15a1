"""Whether root may trust a path: nobody else can change where it leads.

Who can change a directory can put a link in the place of anything in it, at any moment between two
looks. So a module that acts as root does not open such a path more carefully: it refuses it, before
it has changed anything. Where every directory on the way is root's alone, a link was made by root,
and following it is right.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat

LINKS_LIMIT = 40  # as the kernel


class ForeignPathError(Exception):
    """Another user can change where a path leads; the message says who, and what to do."""


def user_name(uid: int) -> str:
    """The name of a user, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def members(gid: int) -> list[str]:
    """Who besides root belongs to a group, directly or as its primary group."""
    try:
        named = grp.getgrgid(gid).gr_mem
    except KeyError:
        # Nobody is known to belong to it, and anybody could be made to.
        return [f"group {gid}"]
    primary = [user.pw_name for user in pwd.getpwall() if user.pw_gid == gid]
    return sorted({*named, *primary} - {"root"})


def who_can_replace(directory: os.stat_result, entry: os.stat_result | None) -> str | None:
    """Who, besides root and whoever runs this, can put something else in the place of an entry.

    Args:
        directory: what holds the entry.
        entry: what is there now, itself and not what it links to; None if there is nothing.
    """
    trusted = {0, os.geteuid()}
    if directory.st_uid not in trusted:
        return user_name(directory.st_uid)
    mode = directory.st_mode
    # In a directory like /tmp only an entry's owner can.
    if mode & stat.S_ISVTX and entry is not None and entry.st_uid in trusted:
        return None
    if mode & stat.S_IWOTH:
        return "every user"
    if mode & stat.S_IWGRP and directory.st_gid != 0 and (able := members(directory.st_gid)):
        return " and ".join([*able[:3], *(["others"] if len(able) > 3 else [])])
    return None


def look(path: str) -> os.stat_result | None:
    """What is there, links not followed; None where there is nothing."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def require_own(path: str, *, itself: bool = False) -> None:
    """Raises ForeignPathError unless only root can change what a path leads to.

    What is not there yet is looked at as far as it is there. The last name is not followed.

    Args:
        path: an absolute path.
        itself: it is a directory of root's as well, if it is there.
    """
    done, links = "/", 0
    names = [name for name in os.path.normpath(path).split("/") if name]
    while names:
        name = names.pop(0)
        child = os.path.join(done, name)
        entry = look(child)
        if who := who_can_replace(os.lstat(done), entry):
            raise ForeignPathError(
                f"{path}: {done} can be changed by {who}, who could make it lead to any file of "
                f"this host, so root does not touch it. Choose a place that is root's alone, or "
                f"make {done} so (`chown root:root` and `chmod go-w`)."
            )
        if entry is None:
            return
        if stat.S_ISLNK(entry.st_mode) and (names or itself):
            links += 1
            if links > LINKS_LIMIT:
                raise ForeignPathError(f"{path}: too many links, one to the other. Remove them.")
            target = os.readlink(child)
            names = [part for part in target.split("/") if part not in ("", ".")] + names
            done = "/" if target.startswith("/") else done
        elif name == "..":
            done = os.path.dirname(done)
        else:
            done = child
    found = look(done)
    if itself and found is not None and stat.S_ISDIR(found.st_mode):
        if who := who_can_replace(found, None):
            raise ForeignPathError(
                f"{path} can be changed by {who}, who could put a link to any file of this host "
                f"into it, so root does not write there. Choose a directory that is root's alone, "
                f"or make it so (`chown root:root` and `chmod go-w`)."
            )


def require_own_program(path: str) -> None:
    """Raises ForeignPathError unless it is a program, and root alone can change it."""
    require_own(path)
    real = os.path.realpath(path)
    if real != path:
        require_own(real)
    found = look(real)
    if found is None or not stat.S_ISREG(found.st_mode) or not os.access(real, os.X_OK):
        raise ForeignPathError(
            f"{path} is no program on this host. Put it there and make it executable."
        )
    if who := who_can_replace(found, None):
        raise ForeignPathError(
            f"{path} can be changed by {who}, so root does not run it. Make it root's alone "
            "(`chown root:root` and `chmod go-w`)."
        )
