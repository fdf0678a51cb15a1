"""Files that outlive a power cut, JSON, and locks."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import RefusedError

BLOCK = 1 << 20
LOCK_POLL_SECONDS = 0.1


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that readers see the old or the new one, also after a power cut."""
    write_bytes(path, text.encode(), mode)


def write_bytes(
    path: Path, content: bytes, mode: int = 0o644, owner: tuple[int, int] | None = None
) -> None:
    """The same with bytes.

    Args:
        owner: the user's and the group's number; this process's if left out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            os.fchmod(stream.fileno(), mode)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_json(path: Path, content: Any, mode: int = 0o644) -> None:
    """Write an object as people can read it."""
    write(path, json.dumps(content, indent=1) + "\n", mode)


def append(path: Path, line: str) -> None:
    """Add a line to a file that is only ever added to."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def sync(path: Path) -> None:
    """Make a file's content, or the names in a directory, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a link, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync(path.parent)


def point(link: Path, target: Path) -> None:
    """Have a symbolic link lead to a target, in one step."""
    temporary = link.with_name(f".{link.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.rename(temporary, link)
    sync(link.parent)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None without one. Raises RefusedError where it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise RefusedError(f"{path} cannot be read ({error}): repair or remove it") from error
    return found if isinstance(found, dict) else None


def read_settings(path: Path, otherwise: str) -> dict[str, Any]:
    """What a playbook has written. Raises RefusedError where it is missing or cannot be read.

    Args:
        otherwise: why there may be none, and what to do then.
    """
    found = read_json(path)
    if found is None:
        raise RefusedError(f"There is no {path}: {otherwise}")
    return found


def read_json_if_possible(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def known(cls: Any, data: dict[str, Any]) -> dict[str, Any]:
    """Those members that a dataclass has: another version of this program may have written more."""
    return {key: value for key, value in data.items() if key in cls.__dataclass_fields__}


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            found.update(block)
    return found.hexdigest()


@contextlib.contextmanager
def held(path: Path, seconds: float, otherwise: Exception) -> Iterator[None]:
    """Hold the lock of a file.

    Args:
        seconds: how long to wait for whoever holds it.
        otherwise: is raised when that time is over.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise otherwise from None
                time.sleep(LOCK_POLL_SECONDS)
        yield
