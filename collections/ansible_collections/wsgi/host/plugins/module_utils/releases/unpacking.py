"""Unpacks an archive, trusting nothing in it but what the manifest's hashes confirm."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from typing import Any, BinaryIO

from ansible_collections.wsgi.host.plugins.module_utils.releases.errors import ReleaseError
from ansible_collections.wsgi.host.plugins.module_utils.releases.manifests import (
    MANIFEST,
    member_path,
)

FORMAT = 1


def read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return the content of a regular file in the archive."""
    file = archive.extractfile(member)
    if file is None:
        raise ReleaseError(f"The archive holds something not a file: {member.name!r}.")
    return file.read()


def unpack(archive: BinaryIO, target: str, python: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Unpack the archive below target, checking each file's hash.

    Returns its manifest, and the hashes of the manifest's files that are not in the archive.
    """
    # Not "r|gz", which reads only the first member of a gzip file.
    with gzip.open(archive) as packed, tarfile.open(fileobj=packed, mode="r|") as members:
        entries = iter(members)
        first = next(entries, None)
        if first is None or first.name != MANIFEST or not first.isreg():
            raise ReleaseError("The archive does not begin with a manifest: it is not a bundle.")
        manifest = json.loads(read_member(members, first))
        if manifest.get("format") != FORMAT:
            raise ReleaseError(
                f"The bundle's format is {manifest.get('format')}, and this module knows "
                f"{FORMAT}. Build the bundle with the same version of the project."
            )
        missing = dict(manifest["files"])
        made = {target}
        for member in entries:
            if not member.isreg():
                raise ReleaseError(f"The archive holds something not a file: {member.name!r}.")
            path = os.path.join(target, member_path(member.name, python))
            content = read_member(members, member)
            if hashlib.sha256(content).hexdigest() != missing.pop(member.name, None):
                raise ReleaseError(f"{member.name} in the archive is not what the manifest says.")
            folder = os.path.dirname(path)
            if folder not in made:
                os.makedirs(folder, exist_ok=True)
                made.add(folder)
            with open(path, "xb") as file:
                file.write(content)
    return manifest, missing
