"""The engine's own way to copy and replace data: runs `inside` in the application's sandbox."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pkgutil
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from .. import sandbox
from ..application import Application
from ..errors import REFUSED, HostError, RefusedError
from . import commands, outcome

MODULES = ("common", "reading", "replacing", "loading", "program")
START = """\
import sys, types
sys.modules["inside"] = types.ModuleType("inside")
for name, text in {texts!r}.items():
    module = sys.modules["inside." + name] = types.ModuleType("inside." + name)
    module.__package__ = "inside"
    exec(compile(text, name + ".py", "exec"), module.__dict__)
module.main()
"""
# A line of `files`. A path has at most 4096 bytes, each at most 6 characters of JSON.
LINE_LIMIT = 1 << 16


@functools.lru_cache
def program() -> str:
    """The text of the program that runs inside."""
    texts = {}
    for name in MODULES:
        text = pkgutil.get_data(f"{__package__}.inside", f"{name}.py")
        assert text is not None
        texts[name] = text.decode()
    return START.format(texts=texts)


def words(application: Application, verb: str, **told: Any) -> list[str]:
    """The command line of one of its verbs."""
    told = {
        "data": str(application.data),
        "kind": application.database.kind,
        "credential": application.database.credential,
        **told,
    }
    # Nothing of the release: only its interpreter, which is there.
    return ["python", "-ISBc", program(), verb, json.dumps(told)]


def call(
    application: Application, what: str, verb: str, /, stdin: IO[bytes] | None = None, **told: Any
) -> bytes:
    """Run a verb; return what it wrote. Raises HostError, and RefusedError if it changed nothing.

    Args:
        what: is done by it, as the subject of a sentence.
    """
    result = sandbox.run(
        application,
        words(application, verb, **told),
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if result.returncode:
        failure = RefusedError if result.returncode == REFUSED else HostError
        raise failure(f"{what} failed: {commands.output(result) or result.returncode}")
    if result.stderr:
        outcome.progress(result.stderr.decode(errors="replace").strip())
    return bytes(result.stdout)


def copy(application: Application, name: str, target: IO[bytes]) -> None:
    """Write a copy of a database. Raises HostError.

    Args:
        name: of the file of SQLite; without meaning for PostgreSQL.
    """
    result = sandbox.run(
        application,
        words(application, application.database.kind, file=name),
        stdin=subprocess.DEVNULL,
        stdout=target,
        stderr=subprocess.PIPE,
    )
    if result.returncode:
        raise HostError(f"The database could not be copied: {commands.output(result)}")


def present(application: Application, paths: Iterable[str]) -> dict[str, bool]:
    """Which paths below the directory of data are there. Raises HostError."""
    answer: dict[str, bool] = json.loads(
        call(application, "Looking at the data", "there", paths=list(paths))
    )
    return answer


@contextlib.contextmanager
def files(application: Application, directories: Iterable[str]) -> Iterator[IO[bytes]]:
    """What `entries` reads of some directories. Raises HostError at the end if that is not all."""
    argv = words(application, "files", directories=list(directories))
    ours, theirs = os.pipe()
    results: list[subprocess.CompletedProcess[Any]] = []

    def write() -> None:
        try:
            results.append(
                sandbox.run(
                    application,
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=theirs,
                    stderr=subprocess.PIPE,
                )
            )
        finally:
            os.close(theirs)

    thread = threading.Thread(target=write)
    thread.start()
    failure: HostError | None = None
    try:
        with open(ours, "rb") as stream:
            yield stream
    except HostError as error:
        failure = error
    finally:
        thread.join()
    if not results or results[0].returncode:
        reason = commands.output(results[0]) if results else "it did not start"
        raise HostError(f"The files could not be copied: {reason}") from None
    if failure is not None:
        raise failure


def entries(stream: IO[bytes]) -> Iterator[tuple[dict[str, Any], Iterator[bytes]]]:
    """What `files` writes, one entry after the other, each with its content to be read in turn.

    An entry of a file has `changing` when its content was read. Raises HostError where it ends
    early or is something else: the application could change what writes it.
    """
    while True:
        entry = read_line(stream)
        if entry.get("end"):
            return
        if entry.get("kind") not in ("file", "directory", "link"):
            raise HostError("The files could not be copied: what arrived is not a list of files")
        content = blocks(stream, entry) if entry["kind"] == "file" else iter(())
        yield entry, content
        for _ in content:
            pass


def blocks(stream: IO[bytes], entry: dict[str, Any]) -> Iterator[bytes]:
    """The content of a file."""
    while True:
        line = stream.readline(32)
        if not line.rstrip(b"\n").isdigit() or not line.endswith(b"\n"):
            raise HostError("The files could not be copied: they end early")
        left = int(line)
        if not left:
            break
        while left:
            block = stream.read(min(left, 1 << 20))
            if not block:
                raise HostError("The files could not be copied: they end early")
            left -= len(block)
            yield block
    entry["changing"] = bool(read_line(stream).get("changing"))


def read_line(stream: IO[bytes]) -> dict[str, Any]:
    """An object of JSON in a line of its own. Raises HostError."""
    line = stream.readline(LINE_LIMIT)
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise HostError("The files could not be copied: they end early")
    return found


# The way back ------------------------------------------------------------------------------------


def load(application: Application, copy: Path) -> None:
    """Make a dump the database of PostgreSQL, in one transaction. Raises as `call` does."""
    with copy.open("rb") as source:
        call(application, "Loading the dump", "load", source)


def stage(
    application: Application,
    files: Mapping[str, tuple[Path, str]],
    archive: Path | None,
    directories: Iterable[str],
    digest: str,
) -> None:
    """Write what is to be restored beside what is there. Raises HostError.

    Args:
        files: of SQLite by their names, each with the copy and its SHA-256.
        archive: with the directories.
        digest: of the digests of all their files, in their order.
    """
    for name, (path, sha256) in files.items():
        with path.open("rb") as source:
            call(application, f"Unpacking {name}", "stage-file", source, file=name, sha256=sha256)
    if archive is not None:
        with archive.open("rb") as source:
            call(
                application,
                "Unpacking the files",
                "stage-directories",
                source,
                directories=list(directories),
                sha256=digest,
            )
