"""Programs of the distribution that this machine may lack, unpacked and not installed.

An installed service would be started.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .render import ROLES


@dataclass(frozen=True)
class Program:
    """A program: where it is, and where its libraries are."""

    path: Path
    libraries: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        found = {} if self.libraries is None else {"LD_LIBRARY_PATH": str(self.libraries)}
        return {**os.environ, **found}


def find_program(name: str) -> Program:
    """This machine's program, else that of the package of its name.

    Raises OSError or CalledProcessError where neither is to be had.
    """
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found:
        return Program(Path(found))
    cache = ROLES.parent / ".cache" / name
    packages, whole = cache / "packages", cache / "whole"
    packages.mkdir(parents=True, exist_ok=True)
    # Tests run side by side.
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            unpack(name, packages, cache)
            whole.touch()
    return Program(cache / "usr/sbin" / name, next(cache.glob("usr/lib/*-linux-*"), None))


def unpack(name: str, packages: Path, into: Path) -> None:
    """Download a package and what it needs that this machine lacks, and unpack all of it."""
    simulated = subprocess.run(
        ["apt-get", "--simulate", "--no-install-recommends", "install", name],
        check=True,
        capture_output=True,
        text=True,
    )
    needed = [line.split()[1] for line in simulated.stdout.splitlines() if line[:4] == "Inst"]
    subprocess.run(
        ["apt-get", "-qq", "download", *needed], cwd=packages, check=True, capture_output=True
    )
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, into], check=True, capture_output=True)
