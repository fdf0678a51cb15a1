"""What the others need: a failure, names beside a path, and how to write and to call."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

BLOCK = 1 << 20
# How the names of directories begin that go with the process that made them.
WORKING = ".working-copy-"

# What the caller says, from the JSON of the second argument.
Told = dict[str, Any]


class Failure(Exception):
    """It cannot be done, and the data are as they were; the message says why."""

    # That of a refusal, as the caller ends with it.
    code = 2


class UncertainError(Failure):
    """It may have been done all the same."""

    code = 1


def beside(path: str, suffix: str) -> str:
    """A name in the same directory, so that a rename is one step."""
    above, name = os.path.split(path)
    return os.path.join(above, f".{name}.restore-{suffix}")


def sync(directory: str) -> None:
    """Make the names in a directory outlive a power cut."""
    descriptor = os.open(directory or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(target: BinaryIO, block: bytes) -> None:
    """Write all of it: a stream without a buffer takes a part at the end of a full disk."""
    left = memoryview(block)
    while left:
        left = left[target.write(left) :]


@contextlib.contextmanager
def working_directory() -> Iterator[str]:
    """A directory beside the data, since /tmp may be in memory; whoever was killed has left one."""
    for name in os.listdir("."):
        if name.startswith(WORKING):
            with contextlib.suppress(OSError):
                remove_unused(name)
    with tempfile.TemporaryDirectory(prefix=WORKING, dir=".") as path:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            # Not every file system has locks for a directory, and then nobody removes it.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield path
        finally:
            os.close(descriptor)


def remove_unused(path: str) -> None:
    """Remove a working directory unless its process lives. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # One without a file may be so new that its process comes to the lock after this one.
        if os.listdir(descriptor):
            shutil.rmtree(path)
    finally:
        os.close(descriptor)


def remove(path: str) -> None:
    """Remove a file, a link or a whole directory, if it is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def connection(told: Told) -> tuple[str, dict[str, str]]:
    """The database without its password, and an environment with it: other users see arguments."""
    path = os.path.join(os.environ.get("CREDENTIALS_DIRECTORY", ""), told["credential"])
    with open(path, encoding="utf-8") as file:
        parts = urlsplit(file.read().strip())
    user, _, place = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    options = parse_qsl(parts.query, keep_blank_values=True)
    hidden = dict(options).get("password", unquote(password))
    if any(key == "sslpassword" for key, _ in options):
        raise Failure(
            "The URL of the database has sslpassword, which others would see: leave it out"
        )
    query = urlencode([each for each in options if each[0] != "password"], quote_via=quote)
    address = f"{name}@{place}" if name else place
    url = f"postgresql://{address}{parts.path}{'?' if query else ''}{query}"
    environment = {**os.environ, "PGCONNECT_TIMEOUT": "30", "PGAPPNAME": "copy of the data"}
    return url, {**environment, "PGPASSWORD": hidden} if hidden else environment


def run(argv: list[str], environment: dict[str, str], **options: Any) -> bytes:
    """Run a program of PostgreSQL's; return what it wrote, where that goes nowhere else."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **options}
    try:
        result = subprocess.run(
            argv, env=environment, stderr=subprocess.PIPE, check=False, **options
        )
    except FileNotFoundError:
        raise Failure(f"{argv[0]} is not on this host: run site.yml, which installs it") from None
    if result.returncode:
        raise Failure(f"{argv[0]} failed: {result.stderr.decode(errors='replace').strip()}")
    return result.stdout or b""
