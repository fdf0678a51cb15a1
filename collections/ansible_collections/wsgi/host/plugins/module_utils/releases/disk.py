"""Space, owners and modes, and writing to disk."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection

from ansible_collections.wsgi.host.plugins.module_utils.releases.errors import ReleaseError

# Compiled files are about as large as their sources.
SPACE_FACTOR = 2.2
SPACE_MARGIN = 20 * 1024 * 1024


def free_bytes(path: str) -> int:
    """Return the free bytes of the file system that holds path, or will hold it."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def check_space(root: str, unpacked: int | None) -> None:
    """Raise ReleaseError if the release will not fit."""
    needed = int((unpacked or 0) * SPACE_FACTOR) + SPACE_MARGIN
    free = free_bytes(root)
    if free < needed:
        raise ReleaseError(
            f"{root} has {free >> 20} MiB free, and the release needs {needed >> 20} MiB. Remove "
            f"releases that are no longer needed, or enlarge the file system."
        )


def set_permissions(target: str, executable: Collection[str]) -> None:
    """Give all below target to root, readable by all and writable by root, whatever the umask.

    Args:
        executable: paths below it, beside those in bin, of files that can be run.
    """
    scripts = os.path.join(target, "bin")
    programs = {os.path.join(target, path) for path in executable}
    for folder, _directories, files in os.walk(target):
        os.chown(folder, 0, 0)
        os.chmod(folder, 0o755)
        for name in files:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                os.chown(path, 0, 0)
                os.chmod(path, 0o755 if folder == scripts or path in programs else 0o644)


def sync(path: str) -> None:
    """Write the file system that holds path to disk; raise OSError if that fails."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Python has no os.syncfs, and one fsync per file costs seconds.
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs failed", path)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: str) -> None:
    """Make a directory that is root's and readable by all, unless it is there."""
    if not os.path.isdir(path):
        os.makedirs(path)
        os.chown(path, 0, 0)
        os.chmod(path, 0o755)
