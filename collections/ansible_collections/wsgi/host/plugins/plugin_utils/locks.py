"""Lock files: what they pin, with hashes, and whether they are current.

Everything is built from the requirements format. The lock files of other tools are written in it.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement

from .addresses import without_login

LOCKED = re.compile(
    r"^(?P<name>[\w.-]+)(\[[^]]*\])?[ \t]*==[ \t]*(?P<version>[^\s;\\]+)"
    r"([ \t]*;[ \t]*(?P<marker>.+?)(?=[ \t]*(\\|--hash|#|$)))?",
    re.MULTILINE,
)
REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?\s*==\s*(?P<version>[^\s;=]+)"
    r"(\s*;\s*(?P<marker>.+))?"
)
# PEP 508, such as `name @ git+https://…`.
DIRECT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?\s*@")
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
            written = without_login(requirement.split(" --")[0])
            direct = DIRECT.match(written)
            if direct:
                raise fail(
                    start,
                    f"{written!r} comes from an address, which no hash in a lock file vouches for",
                    f"Build a wheel of {direct['name']} (`uv build --wheel`), publish it to your "
                    f"package index or put it into a directory that UV_FIND_LINKS names, and "
                    f"require {direct['name']}==VERSION in its place. Then write the lock file "
                    f"anew: {COMPILE.format(lock=path.name)}",
                )
            raise fail(start, f"{written!r} is not of the form name==version", again)
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
    locked = pins(lock)
    for number, raw in enumerate(read_text(source, "lock").splitlines(), 1):
        text = re.sub(r"(^|\s)#.*$", "", raw).strip()
        if not text or text.startswith("-"):
            continue
        try:
            wanted = Requirement(text)
        except InvalidRequirement as error:
            wrong = without_login(f"{text!r} is no requirement: {error}")
            raise BundleError(f"{source}, line {number}: {wrong}") from None
        found = locked.get(normalise(wanted.name), ())
        if not found and wanted.marker is not None and not wanted.marker.evaluate():
            continue
        # Locked for several versions of Python, it may be there once for each.
        if not any(wanted.specifier.contains(pin, prereleases=True) for pin in found):
            pin = " and ".join(found)
            has = f"has {wanted.name} {pin}" if pin else f"has no {wanted.name}"
            raise BundleError(
                f"{source}, line {number}: {without_login(text)} is wanted, and {lock.name} {has}. "
                f"Write the lock file anew with `make lock`, or in its folder with "
                f"{COMPILE.format(lock=lock.name)}; then run this again"
            )


def pins(lock: Path) -> dict[str, tuple[str, ...]]:
    """Return the versions of each package in a lock file, by its normalised name.

    More than one where the markers of its lines leave each host with one of them.
    """
    found: dict[str, tuple[str, ...]] = {}
    for match in LOCKED.finditer(read_text(lock, "lock")):
        name = normalise(match["name"])
        found[name] = (*found.get(name, ()), match["version"])
    return found


def pins_on(lock: Path, python: str, architecture: str) -> dict[str, str]:
    """Return the version of each package that a host gets, by its normalised name.

    Args:
        python: its version, for example 3.13.
        architecture: as `uname -m` prints it.

    Raises BundleError for a marker that is none.
    """
    host = {
        **{"python_version": python, "python_full_version": f"{python}.0"},
        **{"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
        **{"implementation_name": "cpython", "platform_python_implementation": "CPython"},
        **{"implementation_version": f"{python}.0", "platform_machine": architecture},
    }
    found: dict[str, str] = {}
    for match in LOCKED.finditer(read_text(lock, "lock")):
        try:
            if match["marker"] and not Marker(match["marker"]).evaluate(host):
                continue
        except (ValueError, LookupError):
            # Also of a name that says something of the lock file, and nothing of a host (PEP 751).
            raise BundleError(
                f"{lock}: {match['marker']!r}, the marker of {match['name']}, is none. Write the "
                f"lock file anew: {COMPILE.format(lock=lock.name)}"
            ) from None
        found[normalise(match["name"])] = match["version"]
    return found


def check_needs(needs: Iterable[str], packages: Mapping[str, str], where: str, remedy: str) -> None:
    """Raise BundleError where a package is missing, or too old, that a release is run with.

    Otherwise it would be missed first when the release is started, on the host.

    Args:
        needs: requirements (PEP 508).
        packages: version by normalised name.
        where: what holds them, for the message.
    """
    for text in needs:
        wanted = Requirement(text)
        version = packages.get(normalise(wanted.name))
        if version is None:
            raise BundleError(
                f"{where} has no {wanted.name}, without which a host cannot run the release. "
                f"{remedy}"
            )
        if not wanted.specifier.contains(version, prereleases=True):
            raise BundleError(
                f"{where} has {wanted.name} {version}, and a host needs {text} to run the release. "
                f"{remedy}"
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


# In the order in which they are looked for beside an application.
NAMES = ("requirements.txt", "uv.lock", "pylock.toml", "poetry.lock")


def lock_in(directory: Path) -> Path:
    """Return the lock file of an application; raise BundleError where there is none."""
    for name in NAMES:
        if (directory / name).is_file():
            return directory / name
    raise BundleError(
        f"{directory} has no lock file: write one of {', '.join(NAMES)} into it, for example with "
        f"{COMPILE.format(lock='requirements.txt')}"
    )


def as_requirements(lock: Path, uv: str) -> str | None:
    """Return a lock file of another tool in the requirements format, None for one that is in it.

    Raises BundleError where it cannot be read, or has no hashes.
    """
    if lock.name == "uv.lock":
        return _exported(lock, uv)
    if lock.name == "poetry.lock":
        return "".join(_of_poetry(lock))
    if re.fullmatch(r"pylock(\.[^.]+)?\.toml", lock.name):
        return "".join(_of_pylock(lock))
    return None


def _exported(lock: Path, uv: str) -> str:
    """What `uv export` makes of uv.lock: it knows which packages the project itself needs."""
    words = [uv, "export", "--frozen", "--no-dev", "--no-emit-project", "--no-header"]
    done = subprocess.run(
        [*words, "--no-annotate", "--format=requirements.txt", "--directory", str(lock.parent)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BundleError(
            f"{lock} cannot be used: {without_login(done.stderr.strip())}. Write it anew in "
            f"{lock.parent}: uv lock"
        )
    return done.stdout


def _read_toml(lock: Path, again: str) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(lock, "lock"))
    except tomllib.TOMLDecodeError as error:
        raise BundleError(f"{lock} cannot be read: {error}. Write it anew: {again}") from error


def _of_pylock(lock: Path) -> Iterator[str]:
    """The packages of a lock file as PEP 751 has it."""
    again = "uv export --format pylock.toml"
    for package in _read_toml(lock, again).get("packages", []):
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        hashes = [each.get("hashes", {}).get("sha256") for each in files]
        yield _requirement(lock, package, hashes, package.get("marker"), again)


def _of_poetry(lock: Path) -> Iterator[str]:
    """The packages that poetry.lock has for the project itself, and not for its development."""
    again = "poetry lock, with Poetry 2 or newer"
    content = _read_toml(lock, again)
    version = str(content.get("metadata", {}).get("lock-version", "0"))
    if tuple(int(part) for part in version.split(".")) < (2, 1):
        raise BundleError(
            f"{lock} has the format {version}, which does not say what each package is for. Write "
            f"it anew: {again}"
        )
    for package in content.get("package", []):
        if "main" not in package.get("groups", ["main"]) or package.get("optional"):
            continue
        hashes = [str(each.get("hash", "")).removeprefix("sha256:") for each in package["files"]]
        marker = package.get("markers")
        if isinstance(marker, Mapping):
            marker = marker.get("main")
        yield _requirement(lock, package, hashes, marker, again)


def _requirement(
    lock: Path, package: Mapping[str, Any], hashes: list[Any], marker: Any, again: str
) -> str:
    name, version = package.get("name"), package.get("version")
    if not name or not version or not hashes or not all(hashes):
        raise BundleError(
            f"{lock}: {name or 'a package'} has no version, or no SHA-256 of its files: it comes "
            f"from a directory or a repository, which nobody can hold to a hash. Lock a version of "
            f"it from the package index, and write the lock file again: {again}"
        )
    condition = f" ; {marker}" if marker else ""
    return f"{name}=={version}{condition}" + "".join(f" --hash=sha256:{h}" for h in hashes) + "\n"
