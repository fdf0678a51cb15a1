"""Whether somebody has edited a release since it was installed."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from ansible_collections.wsgi.host.plugins.module_utils.releases.manifests import (
    compiled_path,
    member_path,
)


def differences(path: str, manifest: dict[str, Any]) -> list[str]:
    """Return what differs between an installed release and its manifest, one line each."""
    expected = {
        member_path(name, manifest["python"]): digest for name, digest in manifest["files"].items()
    }
    compiled = {
        compiled_path(member_path(name, manifest["python"]), manifest["python"]): digest
        for name, digest in manifest.get("compiled", {}).items()
    }
    found: list[str] = []
    for top in ("app", f"lib/python{manifest['python']}/site-packages"):
        for folder, _directories, files in os.walk(os.path.join(path, top)):
            for name in files:
                relative = os.path.relpath(os.path.join(folder, name), path)
                digest = expected.pop(relative, compiled.get(relative))
                # Python compiles what was not, and one that is missing harms nobody.
                if digest is None and os.path.basename(folder) == "__pycache__":
                    continue
                if digest is None:
                    found.append(f"added: {relative}")
                    continue
                with open(os.path.join(folder, name), "rb") as file:
                    if hashlib.sha256(file.read()).hexdigest() != digest:
                        found.append(f"changed: {relative}")
    return sorted(found + [f"missing: {name}" for name in expected])
