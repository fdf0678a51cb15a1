"""Build an application and its locked dependencies once, on the control node.

The options are documented in plugins/modules/bundle.py.
"""

from __future__ import annotations

import configparser
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
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.wsgi.host.plugins.plugin_utils import sources
from packaging.requirements import InvalidRequirement, Requirement

# Part of the id: raise it when the layout of the archive changes.
FORMAT = 1
# manylinux_2_28: Debian 10, Ubuntu 20.04, RHEL 8 and everything newer.
PLATFORMS = {"x86_64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_28"}
EXCLUDE = ["tests", "instance", "__pycache__", "*.pyc", "*.egg-info", "*.sqlite3", "*.log"]
SYSTEM_PIP_FILES = (Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"))
UNUSED_SECONDS = 30 * 24 * 3600
# Folder in the cache of what bundles with the same lock file have in common.
PACKAGES = "packages"

LOCKED = re.compile(r"^(?P<name>[\w.-]+)(\[[^]]*\])?==(?P<version>[^\s;\\]+)", re.MULTILINE)
REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?\s*==\s*(?P<version>[^\s;=]+)"
    r"(\s*;\s*(?P<marker>.+))?"
)
HASH = re.compile(r"\s--hash=(\S+)")
COMPILE = (
    "uv pip compile --universal --generate-hashes --no-emit-index-url requirements.in -o {lock}"
)


class BundleError(Exception):
    """A bundle cannot be made; the message names the cause and the remedy."""


def read_lock(path: Path) -> dict[str, int]:
    """Return the line number of each requirement in the lock file, by normalised name.

    Raises BundleError with the file and line for anything but `name==version` with SHA-256 hashes.
    """

    def fail(line: int, problem: str, remedy: str) -> BundleError:
        return BundleError(f"{path}, line {line}: {problem}. {remedy}")

    again = f"Write the lock file anew: {COMPILE.format(lock=path.name)}"
    lines: dict[str, int] = {}
    start, entry = 0, ""
    for number, raw in enumerate(read_text(path, "lock").splitlines(), 1):
        text = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        if not entry:
            start = number
        entry += " " + text.removesuffix("\\").strip()
        if text.endswith("\\"):
            continue
        requirement, entry = entry.strip(), ""
        if not requirement:
            continue
        if requirement.startswith("-") and not requirement.startswith("--hash"):
            raise fail(
                start,
                f"the option {requirement.split()[0].split('=')[0]} is not allowed here",
                "Remove the line; the package index is a setting of the control node (uv.toml, "
                "UV_DEFAULT_INDEX or pip.conf)",
            )
        hashes = HASH.findall(" " + requirement)
        match = REQUIREMENT.fullmatch(HASH.sub("", " " + requirement).strip())
        if match is None:
            raise fail(
                start, f"{requirement.split(' --')[0]!r} is not of the form name==version", again
            )
        if not hashes:
            raise fail(start, f"{match['name']}=={match['version']} has no hash", again)
        for value in hashes:
            if not re.fullmatch(r"sha256:[0-9a-f]{64}", value):
                raise fail(start, f"{value!r} is not a SHA-256 hash", again)
        lines[normalise(match["name"])] = start
    if entry.strip():
        raise fail(start, "the file ends with a continued line", again)
    if not lines:
        raise BundleError(f"{path}: no requirement in this lock file. {again}")
    return lines


def check_lock_is_current(lock: Path) -> None:
    """Raise BundleError where requirements.in, beside the lock file, asks for what is not in it.

    A requirement that was added or changed without a new lock file would be missed by the release
    first when it is started.
    """
    source = lock.with_suffix(".in")
    if not source.is_file():
        return
    pins = {
        normalise(match["name"]): match["version"]
        for match in re.finditer(
            r"^(?P<name>[\w.-]+)(\[[^\]]*\])?\s*==\s*(?P<version>[^\s;]+)",
            read_text(lock, "lock"),
            re.M,
        )
    }
    for number, raw in enumerate(read_text(source, "lock").splitlines(), 1):
        text = re.sub(r"(^|\s)#.*$", "", raw).strip()
        if not text or text.startswith("-"):
            continue
        try:
            wanted = Requirement(text)
        except InvalidRequirement as error:
            raise BundleError(
                f"{source}, line {number}: {text!r} is no requirement: {error}"
            ) from error
        pin = pins.get(normalise(wanted.name))
        if pin is None and wanted.marker is not None and not wanted.marker.evaluate():
            continue
        if pin is None or not wanted.specifier.contains(pin, prereleases=True):
            has = f"has {wanted.name} {pin}" if pin else f"has no {wanted.name}"
            raise BundleError(
                f"{source}, line {number}: {text} is wanted, and {lock.name} {has}. Write the "
                f"lock file anew with `make lock`, or in its folder with "
                f"{COMPILE.format(lock=lock.name)}; then run this again"
            )


def normalise(name: str) -> str:
    """Return a package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_text(path: Path, option: str) -> str:
    """Return a text file's content; raise BundleError naming the option it came from."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BundleError(f"{option}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{option}: {path} is not UTF-8 text: {error}") from error


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
                    f"Put the file itself there, or name it in exclude"
                )
            if name not in directories:
                files[path.relative_to(source).as_posix()] = path
    if not files:
        raise BundleError(f"source: {source} holds no file to ship")
    return dict(sorted(files.items()))


def inputs_id(lock: bytes, files: dict[str, Path], python: str, architecture: str) -> str:
    """Return the bundle's id: 12 hexadecimal digits of a hash over all that goes into it."""
    digest = hashlib.sha256()

    def add(*values: bytes) -> None:
        for value in values:
            digest.update(b"%d:" % len(value) + value)

    add(b"%d" % FORMAT, python.encode(), architecture.encode(), lock)
    for name, path in files.items():
        add(name.encode(), path.read_bytes())
    return digest.hexdigest()[:12]


def content_id(lock: bytes, files: dict[str, Path]) -> str:
    """Return what the ids of one source for several Python versions have in common."""
    return inputs_id(lock, files, "", "")


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


def find_uv() -> str:
    """Return the path of uv: the one beside this Python, or else the one on PATH."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("uv")
    if found is None:
        raise BundleError(
            f"uv, which builds bundles, is neither beside {sys.executable} nor on PATH. Install "
            f"the tools of this project: {sys.executable} -m pip install -r requirements.txt"
        )
    return found


def pip_settings(environment: dict[str, str]) -> dict[str, str]:
    """Return pip's global and install settings, later files before earlier, environment first."""
    home = Path(environment.get("HOME", "/nonexistent"))
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        files = []
    else:
        files = [
            *SYSTEM_PIP_FILES,
            home / ".pip/pip.conf",
            config / "pip/pip.conf",
            Path(sys.prefix, "pip.conf"),
            *([Path(named)] if named else []),
        ]
    settings: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        # A file that pip could not read either is no reason to stop here.
        with contextlib.suppress(configparser.Error, UnicodeDecodeError):
            parser.read(file, encoding="utf-8")
        for section in ("global", "install"):
            if parser.has_section(section):
                settings |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    for key, value in environment.items():
        if key.startswith("PIP_") and value:
            settings[key[4:].lower().replace("_", "-")] = value
    return settings


def uv_environment(environment: dict[str, str]) -> dict[str, str]:
    """Return the environment for uv, in which pip's index settings fill in for missing ones.

    uv reads none of pip's settings. An operator who has configured pip for the company's index
    has said all that there is to say.
    """
    result = {"UV_NATIVE_TLS": "1", "UV_SYSTEM_CERTS": "1", "UV_NO_PROGRESS": "1", **environment}
    settings = pip_settings(environment)
    indexes = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")
    if not any(environment.get(name) for name in (*indexes, "UV_FIND_LINKS", "UV_NO_INDEX")):
        for key, name, separator in (
            ("index-url", "UV_DEFAULT_INDEX", " "),
            ("extra-index-url", "UV_INDEX", " "),
            ("find-links", "UV_FIND_LINKS", ","),
            ("trusted-host", "UV_INSECURE_HOST", " "),
        ):
            if key in settings:
                result[name] = separator.join(settings[key].split())
        if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
            result["UV_NO_INDEX"] = "1"
    authority = settings.get("cert") or environment.get("REQUESTS_CA_BUNDLE")
    if authority and not environment.get("SSL_CERT_FILE"):
        result["SSL_CERT_FILE"] = authority
    return result


def install(uv: str, lock: Path, target: Path, python: str, architecture: str) -> None:
    """Install the locked wheels into `target`; raise BundleError with uv's words if it fails."""
    command = [
        *(uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", str(target)),
        *("--python-version", python, "--python-platform", PLATFORMS[architecture]),
        *("--only-binary", ":all:", "--require-hashes", "--no-deps"),
        # Any index may have the file: its hash decides, not the index's rank.
        *("--index-strategy", "unsafe-best-match"),
        *("--requirement", str(lock)),
    ]
    # Not the directory of the playbook, whose pyproject.toml may hold settings for uv.
    done = subprocess.run(
        command,
        cwd=target.parent,
        env=uv_environment(dict(os.environ)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        return
    words = "\n".join(done.stderr.strip().splitlines()[-20:]) or f"exit status {done.returncode}"
    named = [
        f"{name} (line {line})"
        for name, line in read_lock(lock).items()
        if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", words.lower())
    ]
    lower = words.lower()
    if "hash mismatch" in lower:
        remedy = (
            "The index serves another file than the one that was locked: find out why, then "
            f"write the lock file anew: {COMPILE.format(lock=lock.name)}"
        )
    elif any(part in lower for part in ("certificate", "dns error", "connect", "timed out", "401")):
        remedy = (
            "The package index was not reached: check the control node's index, proxy and "
            "certificate authority (UV_DEFAULT_INDEX, HTTPS_PROXY, SSL_CERT_FILE, or pip.conf)"
        )
    elif "wheel" in lower or "no solution" in lower or "unsatisfiable" in lower:
        remedy = (
            f"Lock a version that has a wheel for Python {python} on {PLATFORMS[architecture]}: "
            f"{COMPILE.format(lock=lock.name)}"
        )
    else:
        remedy = "Run the command by hand to see more: " + " ".join(command)
    where = f", {', '.join(named)}" if named else ""
    raise BundleError(
        f"{lock}{where}: uv could not install the locked packages for Python {python} on "
        f"{architecture}. {remedy}\n\n{words}"
    )


def dropped(name: str) -> bool:
    """Return whether a file that uv installed stays out of the bundle."""
    parts = name.split("/")
    # Scripts carry the control node's Python in their first line: `python -m` replaces them.
    return parts[0] in ("bin", ".lock") or "__pycache__" in parts or name.endswith(".pyc")


def package_files(target: Path) -> dict[str, bytes]:
    """Return the content of each installed file by its path in site-packages."""
    files: dict[str, bytes] = {}
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target).as_posix()
        if path.is_symlink() or not path.is_file() or dropped(name):
            continue
        content = path.read_bytes()
        if name.endswith(".dist-info/RECORD"):
            lines = content.decode().splitlines(keepends=True)
            content = "".join(
                line for line in lines if not dropped(line.removeprefix("../").split(",")[0])
            ).encode()
        files[name] = content
    return files


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

    def __init__(self, options: dict[str, Any], cache: Path, commit: str | None = None) -> None:
        """`commit` is what the source was exported from, None if it is a working tree."""
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
        self.lock = Path(options["lock"]).resolve()
        self.source = Path(options["source"]).resolve() if options.get("source") else None
        read_lock(self.lock)
        # What was committed once can be deployed again as it is.
        if commit is None:
            check_lock_is_current(self.lock)
        self.files = application_files(self.source, options["exclude"]) if self.source else {}
        content = self.lock.read_bytes()
        self.lock_hash = hashlib.sha256(content).hexdigest()
        self.id = inputs_id(content, self.files, self.python, self.architecture)
        self.content = content_id(content, self.files)
        self.cache = cache
        self.archive = cache / f"{self.name}-{self.id}.tar.gz"
        self.record = cache / f"{self.name}-{self.id}.json"

    def revision(self) -> str | None:
        """Return the commit that the inputs come from."""
        if self.commit:
            return self.commit
        inputs = [self.lock, *([self.source] if self.source else [])]
        return revision(self.source or self.lock.parent, inputs)

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
        except (OSError, ValueError, KeyError, TypeError):
            complete = False
        if complete:
            os.utime(record)
            return archive, known
        target = scratch / "site-packages"
        install(uv, self.lock, target, self.python, self.architecture)
        files = {f"site-packages/{n}": content for n, content in package_files(target).items()}
        names = sorted(path.name for path in target.glob("*.dist-info"))
        known = {
            "sha256": write_archive(scratch / "packages", files),
            "unpacked_bytes": sum(map(len, files.values())),
            "packages": dict(name.removesuffix(".dist-info").split("-", 1) for name in names),
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
        (scratch / "known").write_text(json.dumps(known), encoding="utf-8")
        archive.parent.mkdir(exist_ok=True)
        (scratch / "packages").replace(archive)
        (scratch / "known").replace(record)
        return archive, known

    def _build(self, uv: str, scratch: Path) -> dict[str, Any]:
        rest, known = self._packages(uv, scratch)
        files = {f"app/{name}": path.read_bytes() for name, path in self.files.items()}
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
            "files": dict(sorted(digests.items())),
        }
        text = json.dumps(manifest, indent=1) + "\n"
        # First in the archive, so that the host checks each file while it unpacks.
        content = {"manifest.json": text.encode(), **dict(sorted(files.items()))}
        sha256 = write_archive(scratch / "archive", content, rest)
        size = (scratch / "archive").stat().st_size
        record = {key: value for key, value in manifest.items() if key != "files"}
        record |= {"sha256": sha256, "bytes": size}
        (scratch / "record").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        # The record comes last: where it is, the archive is complete.
        (scratch / "archive").replace(self.archive)
        (scratch / "record").replace(self.record)
        return record

    def _tidy(self) -> None:
        """Remove what killed builds left and what no run has asked for lately."""
        for path in self.cache.glob(".build-*"):
            shutil.rmtree(path, ignore_errors=True)
        for record in (*self.cache.glob("*.json"), *self.cache.glob(f"{PACKAGES}/*.json")):
            if time.time() - record.stat().st_mtime > UNUSED_SECONDS:
                record.unlink(missing_ok=True)
                record.with_suffix(".tar.gz").unlink(missing_ok=True)


def default_cache(start: Path) -> Path:
    """Return .cache/bundles in the project that holds `start`, a playbook's directory."""
    start = start.resolve()
    for directory in (start, *start.parents):
        if (directory / "ansible.cfg").exists() or (directory / ".git").exists():
            return directory / ".cache" / "bundles"
    return start / ".cache" / "bundles"


class ActionModule(ActionBase):
    """The action behind wsgi.host.bundle."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the bundle, built unless in check mode."""
        result = super().run(tmp, task_vars)
        options: dict[str, Any]
        _, options = self.validate_argument_spec(
            argument_spec={
                "name": {"type": "str", "required": True},
                "lock": {"type": "path", "required": True},
                "source": {"type": "path"},
                "exclude": {"type": "list", "elements": "str", "default": EXCLUDE},
                "python": {"type": "str", "required": True},
                "architecture": {"type": "str", "required": True, "choices": list(PLATFORMS)},
                "cache": {"type": "path"},
                "revision": {"type": "str", "default": ""},
                "archive": {"type": "path", "default": ""},
                "archive_sha256": {"type": "str", "default": ""},
                "variables": {"type": "dict", "default": {}},
            }
        )
        arguments: dict[str, Any] = self._task.args
        called = {key: key for key in ("revision", "archive", "archive_sha256")} | {
            key: str(value) for key, value in options["variables"].items()
        }
        cache = options["cache"]
        directory = Path((task_vars or {}).get("playbook_dir") or self._loader.get_basedir())
        result["changed"] = False
        try:
            if options["archive"] and options["revision"]:
                raise BundleError(
                    f"{called['revision']} and {called['archive']} are both set "
                    f"({arguments['revision']!r} and {arguments['archive']!r}), and a bundle "
                    f"comes from one of them. Leave one out"
                )
            if options["archive_sha256"] and not options["archive"]:
                raise BundleError(
                    f"{called['archive_sha256']} is set without {called['archive']}, whose hash "
                    f"it is. Set both, or leave it out"
                )
            place = Path(cache) if cache else default_cache(directory)
            if options["archive"]:
                built = prebuilt(options, called)
                if not self._task.check_mode:
                    del built["contents"]
                result["bundle"] = built
            elif options["revision"]:
                result["bundle"] = self._of_revision(options, place, called["revision"])
            else:
                result["bundle"] = self._of(Bundle(options, place))
        except (BundleError, sources.SourceError) as error:
            raise AnsibleActionFail(str(error)) from error
        except OSError as error:
            raise AnsibleActionFail(f"The bundle cannot be built: {error}") from error
        return result

    def _of_revision(self, options: dict[str, Any], cache: Path, variable: str) -> dict[str, Any]:
        """Return the bundle of the source as it was at a revision."""
        source = Path(options["source"] or "").resolve()
        lock = Path(options["lock"]).resolve()
        if not options["source"] or not lock.is_relative_to(source):
            raise BundleError(
                f"{variable}: the lock file {lock} is not below source, so its content at that "
                f"revision is not known. Keep it there"
            )
        with tempfile.TemporaryDirectory(prefix="bundle-") as folder:
            exported = Path(folder, source.name)
            exported.mkdir()
            commit = sources.export(source, options["revision"], exported, variable)
            changes = {"source": exported, "lock": exported / lock.relative_to(source)}
            try:
                return self._of(Bundle({**options, **changes}, cache, commit))
            except BundleError as error:
                # The folder is gone when somebody reads this.
                words = str(error).replace(folder, f"{options['revision']}:")
                raise BundleError(f"{variable} is {options['revision']!r}: {words}") from error

    def _of(self, bundle: Bundle) -> dict[str, Any]:
        """Return what is known of a bundle, built unless in check mode."""
        record = bundle.cached()
        if record is None and not self._task.check_mode:
            record = bundle.build()
        known = record or {"revision": None, "sha256": None, "unpacked_bytes": None}
        first_built = str(known["revision"] or "-dirty")
        return {
            "name": bundle.name,
            "id": bundle.id,
            "content": bundle.content,
            "archive": str(bundle.archive),
            "built": record is not None,
            "sha256": known["sha256"],
            "unpacked_bytes": known["unpacked_bytes"],
            "python": bundle.python,
            "architecture": bundle.architecture,
            # The same content may have been built from a changed working tree, and committed since.
            "revision": bundle.revision()
            if bundle.commit or first_built.endswith("-dirty")
            else first_built,
            "lock_hash": bundle.lock_hash,
            "built_by": known.get("built_by"),
            **({"contents": self._contents(bundle)} if self._task.check_mode else {}),
        }

    @staticmethod
    def _contents(bundle: Bundle) -> dict[str, dict[str, str]]:
        """What a preview compares with the live release: files' hashes, packages' versions."""
        return {
            "files": {
                f"app/{name}": hashlib.sha256(path.read_bytes()).hexdigest()
                for name, path in bundle.files.items()
            },
            "packages": {
                normalise(match["name"]): match["version"]
                for match in LOCKED.finditer(bundle.lock.read_text(encoding="utf-8"))
            },
        }


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
            "packages": packages_of(built.manifest["files"]),
        },
    }


def packages_of(files: Iterable[str]) -> dict[str, str]:
    """Return the version of each package, by the names of the files of a bundle."""
    found = (re.match(r"site-packages/([^/]+)-([^-/]+)\.dist-info/METADATA$", x) for x in files)
    return {normalise(match[1]): match[2] for match in found if match}
