"""What separates the answers of one release from those of another in the web server's cache.

nginx resolves `<root>/cache-key` for each request and makes it part of the key (option `cache` of
the role nginx). While two releases answer side by side, either's answers are kept, as clients get
them from either. Once one of them answers alone, the link leads elsewhere, and nothing from before
is used again. A name is never taken twice, so that a way back does not find them either.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from .. import files


def renew(root: Path | None, release: str | None) -> None:
    """Have nothing used any more that was kept until now. Raises OSError.

    Args:
        root: where `current` is; None for a service without releases.
        release: that answers from now on, for people who look into the cache.
    """
    if root is None:
        return
    link, keys = root / "cache-key", root / "cache-keys"
    new = f"{release or 'none'}.{secrets.token_hex(4)}"
    for directory in (keys, keys / new):
        directory.mkdir(exist_ok=True)
        # nginx's workers look, whatever the umask is.
        directory.chmod(0o755)
    before = _name(link)
    files.point(link, Path(keys.name, new))
    for each in keys.iterdir():
        # A request may be resolving the one before at this moment.
        if each.name not in (new, before):
            with contextlib.suppress(OSError):
                each.rmdir()


def renew_anyway(root: Path | None, release: str | None) -> None:
    """The same for the way back, which has to end without room on the disk too."""
    try:
        renew(root, release)
    except OSError:
        # Then the key is another one as well.
        if root is not None:
            with contextlib.suppress(OSError):
                files.remove(root / "cache-key")


def is_there(root: Path | None) -> bool:
    """Whether the link leads somewhere."""
    return root is None or (root / "cache-key").is_dir()


def _name(link: Path) -> str:
    try:
        return os.path.basename(os.readlink(link))
    except OSError:
        return ""
