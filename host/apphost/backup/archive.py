"""A copy of several things in one file: a tar archive that any `tar` unpacks.

manifest.json           what it is a copy of
databases/NAME          each database
files/DIRECTORY/...     what is in the directories
SHA256SUMS              of all of them, as `sha256sum --check` reads it
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..errors import HostError

VERSION = 1
MANIFEST, DATABASES, FILES, SUMS = "manifest.json", "databases/", "files/", "SHA256SUMS"
BLOCK = 1 << 20
KINDS = {"file": tarfile.REGTYPE, "directory": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}


@dataclass
class Directory:
    """What is in a directory.

    Attributes:
        files: how many.
        bytes: of them together.
        changing: how many of them were written to while they were copied.
    """

    files: int = 0
    bytes: int = 0
    changing: int = 0


class Writer:
    """Writes an archive in one pass, into a file that can be sought in."""

    def __init__(self, file: IO[bytes], manifest: dict[str, Any]) -> None:
        self.file = file
        self.sums: list[bytes] = []
        text = json.dumps({"version": VERSION, **manifest}, indent=1).encode() + b"\n"
        self.add(MANIFEST, {"kind": "file", "mode": 0o600}, [text])

    def add(self, name: str, entry: dict[str, Any], content: Iterable[bytes] = ()) -> int:
        """Add a file, a directory or a link; return its size.

        Args:
            entry: `kind`, and `mode`, `mtime` in seconds, `target` of a link.
            content: of a file.
        """
        info = tarfile.TarInfo(name)
        info.type = KINDS[entry["kind"]]
        info.mode = int(entry.get("mode", 0)) & 0o777
        info.mtime = int(entry.get("mtime", 0))
        info.linkname = str(entry.get("target", ""))
        start = self.file.tell()
        self.file.write(header(info))
        if entry["kind"] != "file":
            return 0
        digest = hashlib.sha256()
        for block in content:
            digest.update(block)
            self.file.write(block)
            info.size += len(block)
        self.file.write(bytes(-info.size % tarfile.BLOCKSIZE))
        if info.size:
            end = self.file.tell()
            self.file.seek(start)
            # Of the same length, whatever the size.
            self.file.write(header(info))
            self.file.seek(end)
        self.sums.append(sum_line(name, digest.hexdigest()))
        return info.size

    def close(self) -> None:
        """Write the end."""
        self.add(SUMS, {"kind": "file", "mode": 0o600}, list(self.sums))
        self.file.write(bytes(2 * tarfile.BLOCKSIZE))


def header(info: tarfile.TarInfo) -> bytes:
    """What stands before the content."""
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def sum_line(name: str, digest: str) -> bytes:
    """A line of SHA256SUMS."""
    text = os.fsencode(name)
    escaped = text.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"\\" if escaped != text else b"") + f"{digest}  ".encode() + escaped + b"\n"


@dataclass
class Archive:
    """What was read of an archive, every byte of it.

    Attributes:
        manifest: its first file.
        databases: the SHA-256 of each by its name.
        directories: by their names.
        digests: of the files, in their order, each with its directory.
    """

    manifest: dict[str, Any] = field(default_factory=dict)
    databases: dict[str, str] = field(default_factory=dict)
    directories: dict[str, Directory] = field(default_factory=dict)
    digests: list[tuple[str, bytes]] = field(default_factory=list)

    def digest(self, directories: Iterable[str]) -> str:
        """Of all files of some directories."""
        wanted = set(directories)
        whole = hashlib.sha256()
        for directory, digest in self.digests:
            if directory in wanted:
                whole.update(digest)
        return whole.hexdigest()


def read(path: Path, owner: str, place: Callable[[str], Path]) -> Archive:
    """Read all of an archive, and write its databases elsewhere. Raises HostError.

    Args:
        owner: the name of the application.
        place: where a database is written to, by its name.
    """
    try:
        with tarfile.open(path, "r:", errorlevel=2) as archive:
            found = Archive()
            lines: list[bytes] = []
            for name, member in members(archive):
                if found.manifest and name == SUMS:
                    check_sums(opened(archive, member), lines)
                    if archive.next() is not None:
                        raise HostError("The copy is damaged: something comes after its end.")
                    return found
                lines += read_member(archive, name, member, found, owner, place)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise HostError(f"The copy is damaged, or not a copy of {owner}'s: {error}.") from None
    raise HostError(f"The copy is damaged: it has no {SUMS}.")


def members(archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Each member and its name."""
    while True:
        member = archive.next()
        if member is None:
            return
        # Python keeps them all otherwise.
        archive.members = []  # type: ignore[attr-defined]
        yield member.name, member


def opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """A file of it."""
    source = archive.extractfile(member)
    if source is None:
        raise tarfile.ReadError(f"{member.name} is not a file")
    return source


def content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    """The content of a file."""
    source = opened(archive, member)
    return iter(lambda: source.read(BLOCK), b"")


def read_member(
    archive: tarfile.TarFile,
    name: str,
    member: tarfile.TarInfo,
    found: Archive,
    owner: str,
    place: Callable[[str], Path],
) -> list[bytes]:
    """Read one, note it; return its line of SHA256SUMS."""
    if not found.manifest:
        text = b"".join(content(archive, member)) if name == MANIFEST and member.isreg() else b""
        found.manifest = json.loads(text or "{}")
        if found.manifest.get("application") != owner:
            raise HostError(f"The copy is not one of {owner}'s: its {MANIFEST} does not say so.")
        found.directories = {each: Directory() for each in found.manifest["directories"]}
        return [sum_line(name, hashlib.sha256(text).hexdigest())]
    if not member.isreg():
        return []
    digest = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        target = None
        if name.startswith(DATABASES):
            target = stack.enter_context(place(name[len(DATABASES) :]).open("wb"))
        for block in content(archive, member):
            digest.update(block)
            if target is not None:
                target.write(block)
    if name.startswith(DATABASES):
        found.databases[name[len(DATABASES) :]] = digest.hexdigest()
    else:
        path = name[len(FILES) :]
        directory = next(each for each in found.directories if path.startswith(f"{each}/"))
        found.directories[directory].files += 1
        found.directories[directory].bytes += member.size
        found.digests.append((directory, digest.digest()))
    return [sum_line(name, digest.hexdigest())]


def check_sums(written: IO[bytes], lines: Iterable[bytes]) -> None:
    """Hold what was read to the digests that were written. Raises HostError."""
    for line in lines:
        if written.readline() != line:
            name = line.lstrip(b"\\")[66:].decode(errors="replace").strip()
            raise HostError(f"The copy is damaged: {name} is not what was copied.")
    if written.read(1):
        raise HostError("The copy is damaged: it has fewer files than were copied.")
