"""Keeps the interpreters of releases on the host, with a package that depends on theirs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator

from ansible_collections.wsgi.host.plugins.module_utils.releases.errors import ReleaseError
from ansible_collections.wsgi.host.plugins.module_utils.releases.manifests import read_manifest

# The lock of apt and its like, which dpkg takes as well unless it is told that its caller has it.
PACKAGES_LOCK = "/var/lib/dpkg/lock-frontend"
PACKAGES_LOCK_SECONDS = 300
CONTROL = """\
Package: {name}
Version: 1
Architecture: all
Maintainer: Ansible <root@localhost>
Priority: optional
Section: misc
Protected: yes
Depends: {depends}
Description: Python that the releases in {root} run on
 Made by Ansible (wsgi.host.release), so that the interpreter of a release is not removed while the
 release may still be started. A deploy lets go what is no longer needed.
"""


def needed_pythons(root: str, also: str, current: str | None, *, each: bool) -> set[str]:
    """Return the Python versions of releases that may be started: of each one, or the current."""
    releases = os.path.join(root, "releases")
    names = os.listdir(releases) if each and os.path.isdir(releases) else [current or ""]
    manifests = [read_manifest(os.path.join(releases, name)) for name in names if name]
    return {also, *(str(manifest["python"]) for manifest in manifests if manifest)}


def missing_interpreters(
    package: str, pythons: set[str], *, exact: bool
) -> tuple[list[str] | None, list[str] | None]:
    """Return what a package depends on, None without it, and what it should depend on instead.

    The latter is None if it may stay as it is. Unless exact, it may keep more than is needed.
    """
    if not package or shutil.which("dpkg-query") is None:
        return None, None
    known = described_packages([package, *(f"python{version}" for version in sorted(pythons))])
    kept = known.pop(package, None)
    wanted = sorted(known)
    enough = wanted == kept if exact else set(wanted) <= set(kept or [])
    return kept, None if enough or not wanted else wanted


def described_packages(names: list[str]) -> dict[str, list[str]]:
    """Return what each installed package of these depends on, by name; those not installed lack."""
    shown = subprocess.run(
        [
            "dpkg-query",
            "--show",
            "--showformat=${Package}|${db:Status-Abbrev}|${Depends}\\n",
            *names,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = {}
    for line in shown.stdout.splitlines():
        name, status, depends = line.split("|", 2)
        # What is wanted, then what there is: "ii", "hi" for one on hold, "rc" for one removed.
        if status[1:2] == "i":
            found[name] = [each.strip() for each in depends.split(",") if each.strip()]
    return found


@contextlib.contextmanager
def packages_locked() -> Iterator[None]:
    """Hold the lock of the package manager; raise ReleaseError if another process keeps it."""
    with open(PACKAGES_LOCK, "a", encoding="utf-8") as file:
        end = time.monotonic() + PACKAGES_LOCK_SECONDS
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() > end:
                    raise ReleaseError(
                        f"Another process has been installing packages for "
                        f"{PACKAGES_LOCK_SECONDS} s ({PACKAGES_LOCK} is locked). Wait for it to "
                        f"end, then run again."
                    ) from None
                time.sleep(0.2)
        yield


def keep_interpreters(package: str, depends: list[str], root: str) -> None:
    """Install a package that depends on these, and on nothing else."""
    with tempfile.TemporaryDirectory(prefix="interpreters-") as folder:
        os.makedirs(f"{folder}/tree/DEBIAN")
        for path in (f"{folder}/tree", f"{folder}/tree/DEBIAN"):
            os.chmod(path, 0o755)
        with open(f"{folder}/tree/DEBIAN/control", "w", encoding="utf-8") as file:
            file.write(CONTROL.format(name=package, depends=", ".join(depends), root=root))
        build = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", f"{folder}/tree"]
        commands = [[*build, f"{folder}/{package}.deb"]]
        commands.append(["dpkg", "--install", f"{folder}/{package}.deb"])
        with packages_locked():
            for command in commands:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                    env={
                        **os.environ,
                        # Where dpkg expects its helpers.
                        "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
                        "DPKG_FRONTEND_LOCKED": "1",
                    },
                )
                if done.returncode:
                    words = (done.stdout + done.stderr).strip()[-1000:]
                    raise ReleaseError(
                        f"The package {package}, which keeps {', '.join(depends)} on this host, "
                        f"cannot be installed. If packages are half configured, run "
                        f"`dpkg --configure -a`, then run again.\n{words}"
                    )
