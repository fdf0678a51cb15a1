"""Makes a release from its archive, under a temporary name until it is complete and on disk."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from ansible_collections.wsgi.host.plugins.module_utils.apphost import times
from ansible_collections.wsgi.host.plugins.module_utils.apphost.files import held
from ansible_collections.wsgi.host.plugins.module_utils.releases.compiling import (
    compile_files,
    compiled_hashes,
    reuse_compiled,
)
from ansible_collections.wsgi.host.plugins.module_utils.releases.disk import set_permissions, sync
from ansible_collections.wsgi.host.plugins.module_utils.releases.environments import (
    make_environment,
    make_scripts,
)
from ansible_collections.wsgi.host.plugins.module_utils.releases.errors import ReleaseError
from ansible_collections.wsgi.host.plugins.module_utils.releases.manifests import (
    MANIFEST,
    TEMPORARY,
    member_path,
)
from ansible_collections.wsgi.host.plugins.module_utils.releases.packages import take_packages
from ansible_collections.wsgi.host.plugins.module_utils.releases.unpacking import unpack

LOCK_SECONDS = 60


def locked(releases: str) -> AbstractContextManager[None]:
    """Hold the lock of the releases; raise ReleaseError if another run holds it for a minute."""
    # Nobody else may hold it and so keep deploys from happening.
    busy = ReleaseError(
        f"Another run has been installing a release in {releases} for a minute. Wait for it to "
        f"end, then run again."
    )
    return held(Path(releases, ".lock"), LOCK_SECONDS, busy)


def install(
    releases: str, bundle: dict[str, Any], archive: BinaryIO, interpreter: str, packages: str = ""
) -> None:
    """Make the release from the archive, under a temporary name until it is complete.

    Args:
        packages: of a release whose packages the new one has as well; the archive is then without.

    Raises DamagedError if that release no longer has what its manifest says.
    """
    final = os.path.join(releases, bundle["id"])
    # The lock makes any of these a leftover.
    for name in os.listdir(releases):
        if name.startswith(TEMPORARY):
            shutil.rmtree(os.path.join(releases, name))
    target = tempfile.mkdtemp(prefix=f"{TEMPORARY}{bundle['id']}-", dir=releases)
    try:
        manifest, missing = unpack(archive, target, bundle["python"])
        for key in ("id", "python", "architecture"):
            if manifest[key] != bundle[key]:
                raise ReleaseError(
                    f"The archive's {key} is {manifest[key]!r} in place of {bundle[key]!r}."
                )
        if packages:
            take_packages(packages, target, bundle["python"], missing)
        elif missing:
            raise ReleaseError(f"The archive lacks {sorted(missing)[0]} of its manifest.")
        make_environment(target, interpreter, bundle["python"])
        make_scripts(target, final, bundle["python"])
        ready = reuse_compiled(target, releases, manifest)
        compile_files(target, final, manifest, ready)
        manifest["compiled"] = compiled_hashes(target, manifest, ready)
        manifest["archive_sha256"] = bundle["sha256"]
        manifest["installed_at"] = times.stamp()
        with open(os.path.join(target, MANIFEST), "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
            file.write("\n")
        runnable = manifest.get("executable", ())
        set_permissions(target, [member_path(name, bundle["python"]) for name in runnable])
        sync(target)
        if os.path.lexists(final):
            # Somebody has removed a part of it, or its interpreter.
            os.rename(final, tempfile.mkdtemp(prefix=TEMPORARY, dir=releases) + "/damaged")
        os.rename(target, final)
        sync(releases)
    finally:
        for name in os.listdir(releases):
            if name.startswith(TEMPORARY):
                shutil.rmtree(os.path.join(releases, name), ignore_errors=True)
