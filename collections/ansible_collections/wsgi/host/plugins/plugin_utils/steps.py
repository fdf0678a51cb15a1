"""Build steps: commands that make files of an application from its source, on the control node."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .locks import BundleError
from .wheels import find_uv, for_others, sdist_options, uv_environment

# Part of the digest: raise it when the surroundings of a step change.
FORMAT = 1
# Folders in the cache: what steps have made, and the locked packages for the control node's Python.
RESULTS = "steps"
ENVIRONMENTS = "environments"
LINES = 20
CHANGED = (
    "source: {} changed while it was built. Save what is being edited, and run this again; "
    "nothing was changed on a host"
)


def source_files(source: Path, exported: bool, shipped: Sequence[str]) -> list[str]:
    """Return what of a source the steps see, as paths relative to it, in order.

    Args:
        exported: whether git has written it and nothing else is there.
        shipped: the files of a release, which are all that counts of a directory without git.
    """
    if exported:
        found = (
            Path(folder, name).relative_to(source).as_posix()
            for folder, directories, names in os.walk(source)
            for name in [*names, *(d for d in directories if Path(folder, d).is_symlink())]
        )
        return sorted(found)
    listed = subprocess.run(
        ["git", "-C", str(source), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    # Of a directory that git ignores as a whole, it knows nothing.
    names = listed.stdout.split("\0")[:-1] if listed.returncode == 0 else []
    names = names or list(shipped)
    # A file that git knows may have been removed.
    return sorted(name for name in set(names) if os.path.lexists(source / name))


def digest(source: Path, names: Sequence[str], steps: Sequence[Sequence[str]], lock: str) -> str:
    """Return the hash of all that the results of steps come from, 16 hexadecimal digits."""
    found = hashlib.sha256()
    surroundings = [FORMAT, sys.version_info[:3], os.uname().machine, lock, steps]
    found.update(json.dumps(surroundings).encode())
    for name in names:
        path = source / name
        if path.is_symlink():
            content, kind = os.readlink(path).encode(), b"l"
        elif path.is_dir() or not path.exists():
            # A repository inside of this one, which no copy has.
            continue
        else:
            content = path.read_bytes()
            kind = b"x" if path.stat().st_mode & stat.S_IXUSR else b"f"
        for part in (name.encode(), kind, content):
            found.update(b"%d:" % len(part) + part)
    return found.hexdigest()[:16]


def environment(packages: Path) -> dict[str, str]:
    """Return the environment of a step.

    Args:
        packages: the virtual environment with the locked packages, whose programs come first.
    """
    return {
        **for_others(os.environ),
        "PATH": f"{packages / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(packages),
        # As reproducible as the surroundings can make it.
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SOURCE_DATE_EPOCH": "315619200",
        "CI": "true",
    }


def packages_for(lock: Path, cache: Path, sdists: Sequence[str] = ()) -> Path:
    """Return the virtual environment of a lock file for this Python, made unless it is there.

    Args:
        sdists: packages that are built from their source archives.

    Raises BundleError where a package cannot be installed.
    """
    key = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
    place = cache / ENVIRONMENTS / key
    complete = place / ".complete"
    if complete.exists():
        os.utime(place)
        return place
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    uv = find_uv()
    install = [uv, "pip", "install", "--quiet", "--python", str(place / "bin" / "python")]
    install += ["--require-hashes", "--no-deps", "--requirement", str(lock)]
    # Any index may have the file: its hash decides, not the index's rank.
    install += ["--index-strategy", "unsafe-best-match", *sdist_options(sdists)]
    path = {"PATH": os.environ.get("PATH", os.defpath)}
    # The build of a package runs its code.
    surroundings = {**for_others(os.environ), **path} if sdists else dict(os.environ)
    for command in ([uv, "venv", "--quiet", "--python", sys.executable, str(place)], install):
        done = subprocess.run(
            command,
            cwd=place.parent,
            env=uv_environment(surroundings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BundleError(
                f"{lock}: the locked packages, which the steps of source.build run with, cannot be "
                f"installed for the control node's Python {sys.version.split()[0]}. Lock versions "
                f"that have wheels for it as well\n\n{end_of(done.stderr)}"
            )
    complete.touch()
    return place


def copied(source: Path, names: Sequence[str], scratch: Path) -> Path:
    """Copy a source for the steps; return the directory.

    Raises BundleError where a file has gone meanwhile.
    """
    copy = scratch / "source"
    copy.mkdir()
    for name in names:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (source / name).is_dir() or (source / name).is_symlink():
            try:
                shutil.copy2(source / name, target, follow_symlinks=False)
            except FileNotFoundError as error:
                raise BundleError(CHANGED.format(error.filename)) from error
    return copy


def run(
    copy: Path, steps: Sequence[Sequence[str]], packages: Path, time_limit_seconds: int
) -> Path:
    """Run the steps in a copy of the source; return its directory.

    Raises BundleError with the step, its exit code and the end of what it wrote.
    """
    for number, step in enumerate(steps, 1):
        shown = f"source.build: step {number} of {len(steps)}, `{shlex.join(step)}`,"
        start = time.monotonic()
        try:
            code, written = call(step, copy, environment(packages), time_limit_seconds)
        except OSError as error:
            raise BundleError(
                f"{shown} cannot be run: {error.strerror}. Install {step[0]} on the control "
                f"node, or correct the step"
            ) from error
        if code == 0:
            continue
        words = end_of(written)
        if code is None:
            raise BundleError(
                f"{shown} was not finished within {time_limit_seconds} s and was stopped. Raise "
                f"source.build_time_limit_seconds if it needs longer\n\n{words}"
            )
        ended = f"failed with exit code {code}" if code > 0 else f"was ended by signal {-code}"
        seconds = time.monotonic() - start
        raise BundleError(f"{shown} {ended} after {seconds:.0f} s\n\n{words}")
    return copy


def call(
    words: Sequence[str], directory: Path, variables: Mapping[str, str], time_limit_seconds: float
) -> tuple[int | None, str]:
    """Run a command of somebody else's; return its exit code and what it wrote.

    The code is None for one that was ended because its time was over. Nothing of it goes on.
    Raises OSError where it cannot be run.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            list(words),
            cwd=directory,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o022,
        )
        code: int | None
        try:
            code = process.wait(time_limit_seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # What it has left running, too.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return code, output.read().decode(errors="replace")


def kept(cache: Path, key: str) -> Path:
    """Where the results of steps are kept: what of the source a release would ship."""
    return cache / RESULTS / key


@contextlib.contextmanager
def scratch(cache: Path) -> Iterator[Path]:
    """A directory for one run of steps."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".build-", dir=cache, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def tidy(cache: Path, unused_seconds: float) -> None:
    """Remove what no run has asked for lately."""
    for folder in (*cache.glob(f"{RESULTS}/*"), *cache.glob(f"{ENVIRONMENTS}/*")):
        if time.time() - folder.stat().st_mtime > unused_seconds:
            shutil.rmtree(folder, ignore_errors=True)


def end_of(text: str) -> str:
    """The last lines of what a command wrote."""
    return "\n".join(text.strip().splitlines()[-LINES:]) or "It wrote nothing."
