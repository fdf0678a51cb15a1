"""Bundles: what goes into one, its id, its archive, and where built ones are kept."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import fnmatch
import getpass
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import sources, steps
from .locks import (
    BundleError,
    as_requirements,
    check_lock_is_current,
    check_needs,
    lock_in,
    normalise,
    pins_on,
    read_lock,
)
from .wheels import check_sdists, find_uv, install, package_files

# Part of the id: raise it when the layout of the archive changes.
FORMAT = 1
EXCLUDE = [
    *("tests", "instance", "__pycache__", "node_modules"),
    *("*.pyc", "*.egg-info", "*.sqlite3", "*.log"),
]
UNUSED_SECONDS = 30 * 24 * 3600
# Folder in the cache of what bundles with the same lock file have in common.
PACKAGES = "packages"


def application_files(source: Path, exclude: list[str]) -> dict[str, Path]:
    """Return the files to ship, by path relative to `source`, in order."""
    if not source.is_dir():
        raise BundleError(f"source: {source} is not a directory on the control node")
    files: dict[str, Path] = {}

    def left_out(name: str) -> bool:
        return name.startswith(".") or any(fnmatch.fnmatchcase(name, part) for part in exclude)

    for folder, directories, names in os.walk(source):
        directories[:] = sorted(name for name in directories if not left_out(name))
        for name in sorted(directories + names):
            path = Path(folder, name)
            if left_out(name):
                continue
            if path.is_symlink():
                raise BundleError(
                    f"source: {path} is a symbolic link, which a release cannot hold. "
                    f"Put the file itself there, or move it out of the source; a virtual "
                    f"environment is left out if its name begins with a dot, as .venv does"
                )
            if name not in directories:
                files[path.relative_to(source).as_posix()] = path
    if not files:
        raise BundleError(f"source: {source} holds no file to ship")
    return dict(sorted(files.items()))


class File(NamedTuple):
    """What is in a file that is shipped, and whether it can be run."""

    content: bytes
    executable: bool = False

    @classmethod
    def read(cls, path: Path) -> File:
        """Return a file of the control node."""
        return cls(path.read_bytes(), is_executable(path))


def is_executable(path: Path) -> bool:
    """Whether its owner can run it."""
    return bool(path.stat().st_mode & stat.S_IXUSR)


def inputs_id(lock: bytes, files: Mapping[str, File], python: str, architecture: str) -> str:
    """Return the bundle's id: 12 hexadecimal digits of a hash over all that goes into it."""
    digest = hashlib.sha256()

    def add(*values: bytes) -> None:
        for value in values:
            digest.update(b"%d:" % len(value) + value)

    add(b"%d" % FORMAT, python.encode(), architecture.encode(), lock)
    for name, file in files.items():
        # No name has such an end.
        add(name.encode() + (b"\0x" if file.executable else b""), file.content)
    return digest.hexdigest()[:12]


def content_id(lock: bytes, files: Mapping[str, File]) -> str:
    """Return what the ids of one source for several Python versions have in common."""
    return inputs_id(lock, files, "", "")


def source_content(directory: str | None, lock: str | None) -> str:
    """Return the content id of an application without build steps, without making anything.

    Args:
        directory: of its source, if it has any.
        lock: its lock file, below the directory if there is one.

    Raises BundleError or OSError where it cannot be read.
    """
    source = Path(directory).resolve() if directory else None
    path = (source or Path()) / lock if lock else lock_in(source or Path())
    text = as_requirements(path, find_uv())
    found = application_files(source, EXCLUDE) if source else {}
    files = {name: File.read(place) for name, place in found.items()}
    return content_id(path.read_bytes() if text is None else text.encode(), files)


def revision(directory: Path, paths: list[Path]) -> str | None:
    """Return the commit of `directory`'s repository, with -dirty if one of `paths` differs."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(directory), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--", *map(str, paths))
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if changed else commit


def write_archive(path: Path, files: dict[str, bytes], rest: Path | None = None) -> str:
    """Write files as a reproducible tar.gz, in the given order; return its SHA-256.

    `rest` is another such archive, whose files follow. It is copied as it is: a gzip file may have
    several members.
    """
    with path.open("wb") as raw:
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
            archive = tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT)
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                member.mode = 0o644
                archive.addfile(member, io.BytesIO(content))
            # Closing it writes the mark at which readers stop.
            if rest is None:
                archive.close()
        if rest is not None:
            with rest.open("rb") as more:
                shutil.copyfileobj(more, raw, 1 << 20)
        raw.flush()
        os.fsync(raw.fileno())
    with path.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


@contextlib.contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Hold the cache's lock: workers for several hosts, and other runs, build one at a time."""
    with (cache / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Bundle:
    """One bundle: its inputs, its id and its place in the cache."""

    def __init__(
        self,
        options: dict[str, Any],
        cache: Path,
        commit: str | None = None,
        run_steps: bool = True,
    ) -> None:
        """Read the inputs, after the build steps.

        Args:
            commit: what the source was exported from, None if it is a working tree.
            run_steps: whether build steps may run that have not yet; without them the id is not the
                one that the bundle gets.
        """
        self.commit = commit
        self.name: str = options["name"]
        if not re.fullmatch(r"[a-z][a-z0-9-]*", self.name):
            raise BundleError(
                f"name: {self.name!r} is not made of lower-case letters, digits and hyphens"
            )
        version = re.fullmatch(r"(3\.\d+)(\.\d+)?", options["python"])
        if version is None:
            raise BundleError(
                f"python: {options['python']!r} is not a Python version such as '3.13'"
            )
        self.python: str = version[1]
        self.architecture: str = options["architecture"]
        self.source = Path(options["source"]).resolve() if options.get("source") else None
        self.lock = self._lock(options.get("lock"), cache)
        read_lock(self.lock)
        self.sdists: list[str] = list(options.get("sdists") or [])
        check_sdists(self.lock, self.sdists)
        # What was committed once can be deployed again as it is.
        if commit is None:
            check_lock_is_current(self.lock)
        check_needs(
            options.get("needs") or [],
            pins_on(self.lock, self.python, self.architecture),
            str(self.written_lock),
            "Add it to the requirements, and write the lock file again",
        )
        self.files = application_files(self.source, options["exclude"]) if self.source else {}
        self.steps_missing = False
        if self.source and options.get("build"):
            self.files = self._after_steps(options, cache, run_steps)
        content = self.lock.read_bytes()
        self.lock_hash = hashlib.sha256(content).hexdigest()
        read = {name: File.read(path) for name, path in self.files.items()}
        self.id = inputs_id(content, read, self.python, self.architecture)
        self.content = content_id(content, read)
        self.cache = cache
        self.archive = cache / f"{self.name}-{self.id}.tar.gz"
        self.record = cache / f"{self.name}-{self.id}.json"

    def _lock(self, told: str | None, cache: Path) -> Path:
        """Return the lock file in the requirements format."""
        if not told and self.source is None:
            raise BundleError("Neither source nor lock is set. Set one of them")
        self.written_lock = Path(told).resolve() if told else lock_in(self.source or Path())
        text = as_requirements(self.written_lock, find_uv())
        if text is None:
            return self.written_lock
        path = cache / "locks" / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.txt"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        return path

    def _after_steps(
        self, options: dict[str, Any], cache: Path, run_steps: bool
    ) -> dict[str, Path]:
        """Return the files to ship once the build steps have run, now or with the same inputs."""
        source, commands = self.source or Path(), options["build"]
        names = steps.source_files(source, self.commit is not None, list(self.files))
        lock = self.lock.read_text(encoding="utf-8")
        inputs = steps.digest(source, names, commands, lock)
        key = f"{inputs}-{hashlib.sha256(json.dumps(options['exclude']).encode()).hexdigest()[:4]}"
        place = steps.kept(cache, key)
        if not place.exists() and not run_steps:
            self.steps_missing = True
            return self.files
        with steps.scratch(cache) as scratch, locked(cache):
            if not place.exists():
                packages = steps.packages_for(self.lock, cache, self.sdists)
                limit = int(options.get("build_time_limit_seconds") or 600)
                copy = steps.copied(source, names, scratch)
                if steps.digest(copy, names, commands, lock) != inputs:
                    raise BundleError(steps.CHANGED.format(source))
                built = steps.run(copy, commands, packages, limit)
                try:
                    results = application_files(built, options["exclude"])
                except BundleError as error:
                    words = str(error).replace(str(built), "")
                    raise BundleError(f"{words}. The steps of source.build made it") from error
                for name, path in results.items():
                    (scratch / "results" / name).parent.mkdir(parents=True, exist_ok=True)
                    path.replace(scratch / "results" / name)
                place.parent.mkdir(exist_ok=True)
                (scratch / "results").replace(place)
            os.utime(place)
        # Nothing but results is there.
        return application_files(place, options["exclude"])

    def revision(self) -> str | None:
        """Return the commit that the inputs come from."""
        if self.commit:
            return self.commit
        inputs = [self.written_lock, *([self.source] if self.source else [])]
        return revision(self.source or self.written_lock.parent, inputs)

    def cached(self) -> dict[str, Any] | None:
        """Return the record of the built archive, or None if it is not (wholly) there."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            complete = self.archive.stat().st_size == record["bytes"] and record["id"] == self.id
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not complete:
            return None
        # A cache that somebody else filled may be read-only here.
        with contextlib.suppress(OSError):
            os.utime(self.record)
        return dict(record)

    def build(self) -> dict[str, Any]:
        """Build the archive if it is not there, under the cache's lock; return its record."""
        uv = find_uv()
        self.cache.mkdir(parents=True, exist_ok=True)
        with locked(self.cache):
            if record := self.cached():
                return record
            self._tidy()
            with tempfile.TemporaryDirectory(prefix=".build-", dir=self.cache) as scratch:
                return self._build(uv, Path(scratch))

    def _packages(self, uv: str, scratch: Path) -> tuple[Path, dict[str, Any]]:
        """Return the archive of the locked packages alone, and what is known of it.

        It is made once for a lock file, so that another release of the application alone neither
        installs nor compresses them again.
        """
        key = inputs_id(self.lock.read_bytes(), {}, self.python, self.architecture)
        archive = self.cache / PACKAGES / f"{key}.tar.gz"
        record = archive.with_name(f"{key}.json")
        try:
            known = dict(json.loads(record.read_text(encoding="utf-8")))
            with archive.open("rb") as file:
                complete = hashlib.file_digest(file, "sha256").hexdigest() == known["sha256"]
            complete = complete and "executable" in known
        except (OSError, ValueError, KeyError, TypeError):
            complete = False
        if complete:
            os.utime(record)
            return archive, known
        target = scratch / "site-packages"
        install(uv, self.lock, target, self.python, self.architecture, self.sdists)
        found = package_files(target)
        files = {f"site-packages/{name}": content for name, content in found.items()}
        names = sorted(path.name for path in target.glob("*.dist-info"))
        known = {
            "sha256": write_archive(scratch / "packages", files),
            "unpacked_bytes": sum(map(len, files.values())),
            "packages": dict(name.removesuffix(".dist-info").split("-", 1) for name in names),
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
            "executable": [
                f"site-packages/{name}" for name in found if is_executable(target / name)
            ],
        }
        (scratch / "known").write_text(json.dumps(known), encoding="utf-8")
        archive.parent.mkdir(exist_ok=True)
        (scratch / "packages").replace(archive)
        (scratch / "known").replace(record)
        return archive, known

    def _build(self, uv: str, scratch: Path) -> dict[str, Any]:
        rest, known = self._packages(uv, scratch)
        read = {f"app/{name}": file for name, file in self._read().items()}
        files = {name: file.content for name, file in read.items()}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        digests |= known["files"]
        now = datetime.datetime.now(datetime.UTC)
        manifest = {
            "format": FORMAT,
            "id": self.id,
            "content": self.content,
            "name": self.name,
            "revision": self.revision(),
            "python": self.python,
            "architecture": self.architecture,
            "lock_sha256": self.lock_hash,
            "built_at": now.isoformat(timespec="seconds"),
            "built_by": f"{getpass.getuser()}@{platform.node()}",
            "unpacked_bytes": sum(map(len, files.values())) + known["unpacked_bytes"],
            "packages": known["packages"],
            # Of whom nobody says so, a host lets nobody run it.
            "executable": sorted(
                [*(name for name, file in read.items() if file.executable), *known["executable"]]
            ),
            "files": dict(sorted(digests.items())),
        }
        text = json.dumps(manifest, indent=1) + "\n"
        # First in the archive, so that the host checks each file while it unpacks.
        content = {"manifest.json": text.encode(), **dict(sorted(files.items()))}
        sha256 = write_archive(scratch / "archive", content, rest)
        size = (scratch / "archive").stat().st_size
        record = {
            key: value for key, value in manifest.items() if key not in ("files", "executable")
        }
        record |= {"sha256": sha256, "bytes": size}
        (scratch / "record").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        # The record comes last: where it is, the archive is complete.
        (scratch / "archive").replace(self.archive)
        (scratch / "record").replace(self.record)
        return record

    def _read(self) -> dict[str, File]:
        """Return what is in the files; raise BundleError if it is no longer what the id is of.

        Otherwise the cache would have it under the name of what was there before, for good.
        """
        try:
            read = {name: File.read(path) for name, path in self.files.items()}
            lock = self.lock.read_bytes()
        except FileNotFoundError as error:
            raise BundleError(steps.CHANGED.format(error.filename)) from error
        if inputs_id(lock, read, self.python, self.architecture) != self.id:
            raise BundleError(steps.CHANGED.format(self.source or self.lock))
        return read

    def _tidy(self) -> None:
        """Remove what killed builds left and what no run has asked for lately."""
        for path in self.cache.glob(".build-*"):
            shutil.rmtree(path, ignore_errors=True)
        for record in (*self.cache.glob("*.json"), *self.cache.glob(f"{PACKAGES}/*.json")):
            if time.time() - record.stat().st_mtime > UNUSED_SECONDS:
                record.unlink(missing_ok=True)
                record.with_suffix(".tar.gz").unlink(missing_ok=True)
        steps.tidy(self.cache, UNUSED_SECONDS)


def project_of(start: Path) -> Path:
    """Return the project that holds a playbook's directory; that directory where there is none.

    A playbook of an installed collection is in nobody's project: the one that somebody works in is.
    """
    start = start.resolve()
    if "ansible_collections" in start.parts:
        start = Path.cwd()
    for directory in (start, *start.parents):
        if (directory / "ansible.cfg").exists() or (directory / ".git").exists():
            return directory
    return start


def default_cache(start: Path) -> Path:
    """Return .cache/bundles in the project that holds `start`, a playbook's directory."""
    return project_of(start) / ".cache" / "bundles"


def prebuilt(options: dict[str, Any], called: dict[str, str]) -> dict[str, Any]:
    """Return a bundle that was built before, its hash checked."""
    version = re.fullmatch(r"(3\.\d+)(\.\d+)?", options["python"])
    built = sources.find_built(
        Path(options["archive"]),
        name=options["name"],
        python=version[1] if version else options["python"],
        architecture=options["architecture"],
        sha256=options["archive_sha256"],
        variable=called["archive"],
        hash_variable=called["archive_sha256"],
    )
    if built.manifest["format"] != FORMAT:
        raise BundleError(
            f"{called['archive']} is {options['archive']!r}, of the format "
            f"{built.manifest['format']}, and this project knows {FORMAT}. Build it anew"
        )
    packages = packages_of(built.manifest["files"])
    where = f"{called['archive']}: {built.archive}"
    check_needs(
        options.get("needs") or [], packages, where, "Build it again from a lock file that has it"
    )
    return {
        "name": built.manifest["name"],
        "id": built.manifest["id"],
        "content": built.manifest.get("content") or built.manifest["id"],
        "archive": str(built.archive.resolve()),
        "built": True,
        "sha256": built.sha256,
        "unpacked_bytes": built.manifest["unpacked_bytes"],
        "python": built.manifest["python"],
        "architecture": built.manifest["architecture"],
        "revision": built.manifest.get("revision"),
        "lock_hash": built.manifest["lock_sha256"],
        "built_by": built.manifest.get("built_by"),
        "contents": {
            "files": {k: v for k, v in built.manifest["files"].items() if k.startswith("app/")},
            "packages": packages,
        },
    }


def packages_of(files: Iterable[str]) -> dict[str, str]:
    """Return the version of each package, by the names of the files of a bundle."""
    found = (re.match(r"site-packages/([^/]+)-([^-/]+)\.dist-info/METADATA$", x) for x in files)
    return {normalise(match[1]): match[2] for match in found if match}
