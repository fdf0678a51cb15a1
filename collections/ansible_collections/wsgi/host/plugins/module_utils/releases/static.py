"""Static files: copies under an address that has one content for ever."""

from __future__ import annotations

import os
import shutil
from typing import Any

from ansible_collections.wsgi.host.plugins.module_utils.releases.disk import make_directory
from ansible_collections.wsgi.host.plugins.module_utils.releases.manifests import (
    TEMPORARY,
    read_manifest,
)

# As the application writes them into addresses.
STATIC_DIGITS = 8


def published_names(manifest: dict[str, Any], static: str) -> dict[str, str]:
    """Return where each static file of a release goes below <root>/static, by its own path."""
    above = static.strip("/") + "/"
    return {
        name: f"{digest[:STATIC_DIGITS]}/{name[len(above) :]}"
        for name, digest in manifest["files"].items()
        if static and name.startswith(above)
    }


def missing_static(root: str, manifest: dict[str, Any], static: str) -> list[str]:
    """Return the static files of a release that are not below <root>/static yet."""
    return sorted(
        name
        for name in published_names(manifest, static).values()
        if not os.path.isfile(os.path.join(root, "static", name))
    )


def publish(root: str, path: str, manifest: dict[str, Any], static: str) -> None:
    """Copy the static files of a release to <root>/static, each complete under its name or absent.

    Must run under the lock. Files that none of the releases holds are removed, wherever each of
    them has its static files: what serves may have another directory.
    """
    target = os.path.join(root, "static")
    for name, place in published_names(manifest, static).items():
        final = os.path.join(target, place)
        if os.path.isfile(final):
            continue
        folder = target
        make_directory(folder)
        for part in place.split("/")[:-1]:
            folder = os.path.join(folder, part)
            make_directory(folder)
        temporary = os.path.join(target, TEMPORARY + place.split("/")[0])
        shutil.copyfile(os.path.join(path, name), temporary)
        os.chmod(temporary, 0o644)
        # Never renamed before its content is on the disk: those who get it keep it for a year.
        with open(temporary, "rb") as copied:
            os.fsync(copied.fileno())
        os.rename(temporary, final)
    releases = os.path.join(root, "releases")
    held = set()
    for entry in os.listdir(releases):
        each = read_manifest(os.path.join(releases, entry))
        held |= {digest[:STATIC_DIGITS] for digest in each["files"].values()} if each else set()
    for folder, _directories, files in os.walk(target, topdown=False):
        for name in files:
            path = os.path.join(folder, name)
            if os.path.relpath(path, target).split("/")[0] not in held:
                os.unlink(path)
        if folder != target and not os.listdir(folder):
            os.rmdir(folder)
