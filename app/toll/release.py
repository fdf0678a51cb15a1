"""Which release this is: the manifest that lies beside app/ on a host."""

from __future__ import annotations

import json
import logging
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

# <release>/manifest.json, seen from <release>/app/toll/release.py.
MANIFEST = Path(__file__).resolve().parents[2] / "manifest.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Release:
    """A release's identity; `development` where the application runs from its source."""

    id: str = "development"
    revision: str | None = None
    built_at: str | None = None
    python: str = field(default_factory=platform.python_version)
    flask: str = field(default_factory=lambda: version("flask"))


def read_release(path: Path = MANIFEST) -> Release:
    """Return the release that the manifest names."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return Release(str(manifest["id"]), manifest.get("revision"), manifest.get("built_at"))
    except FileNotFoundError:
        return Release()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # The release works all the same, and judging it by /readyz will name it as unknown.
        logger.warning("%s does not name a release: %s", path, error)
        return Release("unknown")
