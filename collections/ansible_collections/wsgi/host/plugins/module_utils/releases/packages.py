"""Takes a release's packages from another release of the host that has the very same ones.

Most releases change the application alone, and its packages are nearly all of an archive. They are
copied and not linked: what somebody changes in one release is changed in no other.
"""

from __future__ import annotations

import hashlib
import os

from ansible_collections.wsgi.host.plugins.module_utils.releases.errors import ReleaseError
from ansible_collections.wsgi.host.plugins.module_utils.releases.manifests import (
    TEMPORARY,
    member_path,
    packages_digest,
    read_manifest,
)


class DamagedError(ReleaseError):
    """A file of an installed release is not what its manifest says."""


def release_with(releases: str, digest: str) -> str:
    """Return the path of a complete release that has these packages, empty if none has."""
    names = os.listdir(releases) if digest and os.path.isdir(releases) else []
    for name in sorted(names):
        path = os.path.join(releases, name)
        manifest = None if name.startswith(TEMPORARY) else read_manifest(path)
        if manifest and packages_digest(manifest) == digest:
            return path
    return ""


def take_packages(release: str, target: str, python: str, files: dict[str, str]) -> None:
    """Copy files below site-packages, by their names in an archive, each with its SHA-256.

    Raises DamagedError if the release has another one, or none, and ReleaseError for a file that is
    none of a package's.
    """
    made = set()
    for name, digest in files.items():
        if not name.startswith("site-packages/"):
            raise ReleaseError(f"The archive lacks {name} of its manifest.")
        place = member_path(name, python)
        try:
            with open(os.path.join(release, place), "rb") as file:
                content = file.read()
        except OSError as error:
            raise DamagedError(f"{release}/{place} cannot be read: {error.strerror}.") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise DamagedError(f"{release}/{place} is not what was installed.")
        path = os.path.join(target, place)
        folder = os.path.dirname(path)
        if folder not in made:
            os.makedirs(folder, exist_ok=True)
            made.add(folder)
        with open(path, "xb") as file:
            file.write(content)
