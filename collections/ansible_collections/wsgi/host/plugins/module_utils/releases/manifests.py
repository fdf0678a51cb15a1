"""Manifests: which releases are complete, and where the files of an archive are in one."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ansible_collections.wsgi.host.plugins.module_utils.apphost.files import read_json_if_possible
from ansible_collections.wsgi.host.plugins.module_utils.releases.errors import ReleaseError

MANIFEST = "manifest.json"
TEMPORARY = ".new-"


def read_manifest(path: str) -> dict[str, Any] | None:
    """Return the manifest of an installed release, or None if there is no complete release."""
    manifest = read_json_if_possible(Path(path, MANIFEST))
    complete = "archive_sha256" in manifest and os.path.lexists(path + "/bin/python")
    return manifest if complete else None


def can_be_used(path: str) -> bool:
    """Whether a release is complete, and its interpreter is on the host."""
    return read_manifest(path) is not None and os.path.exists(os.path.join(path, "bin/python"))


def installed(releases: str, also: str) -> list[str]:
    """Return the ids of the complete releases, and of the one that is to be one."""
    names = os.listdir(releases) if os.path.isdir(releases) else []
    complete = {name for name in names if read_manifest(os.path.join(releases, name)) is not None}
    return sorted(complete | {also})


def member_path(name: str, python: str) -> str:
    """Return where a file of the archive goes in the release; raise ReleaseError if nowhere.

    Only plain relative paths below app/ and site-packages/ have a place, so that no archive can
    write outside its release or replace its interpreter.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name or len(parts) < 2:
        raise ReleaseError(f"The archive holds an unsafe path: {name!r}. Build the bundle anew.")
    if parts[0] == "app":
        return name
    if parts[0] == "site-packages":
        return f"lib/python{python}/{name}"
    raise ReleaseError(f"The archive holds an unexpected path: {name!r}. Build the bundle anew.")


def compiled_path(path: str, python: str) -> str:
    """Return where Python keeps a source file compiled."""
    folder, name = os.path.split(path)
    tag = "cpython-" + python.replace(".", "")
    return os.path.join(folder, "__pycache__", f"{name[: -len('.py')]}.{tag}.pyc")


def packages_digest(manifest: dict[str, Any]) -> str:
    """Return what releases with the very same packages, for the same Python, have in common."""
    files = manifest["files"].items()
    packages = sorted(each for each in files if each[0].startswith("site-packages/"))
    return hashlib.sha256(json.dumps([manifest["python"], packages]).encode()).hexdigest()
