"""What a release that would be installed has other than the current one."""

from __future__ import annotations

import re
from typing import Any

# More than that nobody reads.
PREVIEW_LINES = 60


def preview(
    bundle: dict[str, Any], before: str | None, manifest: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what a release that would be installed has other than the current one, in words.

    Args:
        bundle: with its `contents`, where the control node knows them.
        before: the id of the current release.
        manifest: what is in that.
    """
    name = f"release {bundle['id']} ({bundle.get('revision') or 'no revision'})"
    contents = bundle.get("contents")
    if not contents:
        return {"preview": [f"{name} would be installed"]}
    files, packages = contents["files"], contents["packages"]
    if manifest is None:
        return {
            "preview": [
                f"{name} would be installed: {len(files)} files of the application, "
                f"{len(packages)} packages"
            ]
        }
    there = {key: value for key, value in manifest["files"].items() if key.startswith("app/")}
    had = packages_of(manifest)
    lines = [f"{name} would follow {before}"]
    for package in sorted({*packages, *had}):
        old, new = had.get(package), packages.get(package)
        if old != new:
            lines.append(f"package {package}: {old or 'none'} -> {new or 'none'}")
    changed = [path for path in sorted({*files, *there}) if files.get(path) != there.get(path)]
    for path in changed:
        what = "changed" if path in files and path in there else "new" if path in files else "gone"
        lines.append(f"{path}: {what}")
    if len(lines) == 1:
        lines.append("the same files and packages")
    more = len(lines) - PREVIEW_LINES
    shown = [*lines[:PREVIEW_LINES], *([f"... and {more} more"] if more > 0 else [])]
    return {"preview": shown, "changed_files": changed}


def packages_of(manifest: dict[str, Any]) -> dict[str, str]:
    """Return the version of each package of an installed release."""
    found = (
        re.match(r"site-packages/([^/]+)-([^-/]+)\.dist-info/METADATA$", name)
        for name in manifest["files"]
    )
    return {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2] for match in found if match}
