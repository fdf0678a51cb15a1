"""What a release is installed from: its whole archive, or the part that the host lacks.

An archive begins with the manifest and the application, and its packages follow. Where a release of
the host has the very same packages, the beginning is enough.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, BinaryIO

from ansible_collections.wsgi.host.plugins.module_utils.apphost.files import digest
from ansible_collections.wsgi.host.plugins.module_utils.releases.errors import ReleaseError
from ansible_collections.wsgi.host.plugins.module_utils.releases.installing import install
from ansible_collections.wsgi.host.plugins.module_utils.releases.packages import (
    DamagedError,
    release_with,
)

# What the control node is asked for: which packages the archive holds, its beginning, all of it.
DIGEST, BEGINNING, ALL = "digest", "beginning", "all"


def lacking(releases: str, options: dict[str, Any]) -> str:
    """Return what has to be sent before the release can be installed, or nothing."""
    if options["archive"]:
        return ""
    packages = options["bundle"].get("packages_digest", "")
    if not packages:
        return DIGEST
    if not release_with(releases, packages):
        return ALL
    return "" if options["beginning"] else BEGINNING


def arrive(releases: str, options: dict[str, Any], interpreter: str) -> bool:
    """Install the release of the module's options; return whether the whole archive is needed.

    Raises ReleaseError.
    """
    bundle = options["bundle"]
    if options["archive"] and not options["partial"]:
        arrived = digest(Path(options["archive"]))
        if arrived != bundle["sha256"]:
            raise ReleaseError(
                f"The archive arrived with SHA-256 {arrived} in place of {bundle['sha256']}. Run "
                f"again."
            )
        with open(options["archive"], "rb") as archive:
            install(releases, bundle, archive, interpreter)
        return False
    # Another run may have removed it meanwhile.
    same = release_with(releases, bundle["packages_digest"])
    with _beginning(options) as archive:
        try:
            if same:
                install(releases, bundle, archive, interpreter, same)
        except DamagedError:
            return True
    return not same


def _beginning(options: dict[str, Any]) -> BinaryIO:
    if options["archive"]:
        return open(options["archive"], "rb")
    return io.BytesIO(base64.b64decode(options["beginning"]))
