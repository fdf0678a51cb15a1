"""`current`, the symbolic link to the release that is live."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.wsgi.host.plugins.module_utils.apphost.files import point
from ansible_collections.wsgi.host.plugins.module_utils.releases.errors import ReleaseError


def current_release(root: str) -> str | None:
    """Return the id that `current` points at, or None."""
    link = os.path.join(root, "current")
    try:
        return os.path.basename(os.readlink(link))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReleaseError(
            f"{link} is not a symbolic link. Move what is there away, then run again."
        ) from error


def activate(root: str, name: str) -> None:
    """Point `current` at a release in one step."""
    point(Path(root, "current"), Path("releases", name))
