"""Compiles a release's Python files, and takes from other releases what they have compiled."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Collection
from typing import Any

from ansible_collections.wsgi.host.plugins.module_utils.releases.errors import ReleaseError
from ansible_collections.wsgi.host.plugins.module_utils.releases.manifests import (
    TEMPORARY,
    compiled_path,
    member_path,
    read_manifest,
)


def sources(manifest: dict[str, Any], top: str) -> list[str]:
    """Return the Python files of the archive below app or site-packages."""
    return [name for name in manifest["files"] if name.startswith(top) and name.endswith(".py")]


def reuse_compiled(target: str, releases: str, manifest: dict[str, Any]) -> dict[str, str | None]:
    """Copy what other releases have compiled of the same packages; return its hashes.

    By the name of the source, as `compiled_hashes` has them. Compiling is most of the work of an
    installation, and packages seldom change. A copy is taken only if it still is what was compiled
    then. Python puts the path right when it loads it.
    """
    python = manifest["python"]
    wanted = {name: manifest["files"][name] for name in sources(manifest, "site-packages/")}
    found: dict[str, str | None] = {}
    made: set[str] = set()
    for entry in sorted(os.listdir(releases)):
        path = os.path.join(releases, entry)
        other = None if entry.startswith(TEMPORARY) else read_manifest(path)
        if not other or other.get("python") != python or not wanted.keys() - found.keys():
            continue
        compiled = other.get("compiled", {})
        for name in wanted.keys() - found.keys():
            if name not in compiled or other["files"].get(name) != wanted[name]:
                continue
            if compiled[name] is None:
                found[name] = None
                continue
            place = compiled_path(member_path(name, python), python)
            try:
                with open(os.path.join(path, place), "rb") as file:
                    content = file.read()
            except OSError:
                continue
            if hashlib.sha256(content).hexdigest() != compiled[name]:
                continue
            copy = os.path.join(target, place)
            folder = os.path.dirname(copy)
            if folder not in made:
                os.makedirs(folder, exist_ok=True)
                made.add(folder)
            with open(copy, "wb") as file:
                file.write(content)
            found[name] = compiled[name]
    return found


def compiled_hashes(
    target: str, manifest: dict[str, Any], ready: dict[str, str | None]
) -> dict[str, str | None]:
    """Return the hash of each compiled file, by the name of its source in the archive.

    None for a source that cannot be compiled: packages may ship files for other Python versions.

    Args:
        ready: those that are known already.
    """
    python = manifest["python"]
    found = dict(ready)
    for name in sources(manifest, ""):
        if name in ready:
            continue
        path = os.path.join(target, compiled_path(member_path(name, python), python))
        try:
            with open(path, "rb") as file:
                found[name] = hashlib.sha256(file.read()).hexdigest()
        except FileNotFoundError:
            found[name] = None
    return found


def compile_files(
    target: str, final: str, manifest: dict[str, Any], ready: Collection[str]
) -> None:
    """Compile the Python files, but for those that are ready.

    Raises ReleaseError if one of the application has no valid syntax. Unchecked: the files never
    change, so Python need not look at the sources at each start.
    """
    python = manifest["python"]
    options = [
        *("-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", target, "-p", final),
    ]
    command = [f"{target}/bin/python", "-I", "-m", "compileall", *options]
    if os.path.isdir(f"{target}/app"):
        done = subprocess.run(
            [*command, f"{target}/app"], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            words = (done.stdout + done.stderr).strip().replace(target + "/", "")
            raise ReleaseError(f"The application cannot be compiled by Python {python}:\n{words}")
    packages = [
        os.path.join(target, member_path(name, python))
        for name in sources(manifest, "site-packages/")
        if name not in ready
    ]
    if not packages:
        return
    # A file that cannot be compiled is no error here: packages may ship files for other Python
    # versions, which nobody imports. That the compiler does not come to its end is one.
    to_the_end = [f"{target}/bin/python", "-I", "-c", "import compileall; compileall.main()"]
    done = subprocess.run(
        [*to_the_end, *options, "-i", "-"],
        input="\n".join(packages),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ReleaseError(
            f"The packages were not compiled (status {done.returncode}). Look for a lack of memory "
            f"in the host's journal, then run again.\n{done.stderr.strip()[-1000:]}"
        )
