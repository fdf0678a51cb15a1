"""`wsgi.host.release` on a folder that stands for a host, for several test modules."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible_collections.wsgi.host.plugins.modules import release
from ansible_collections.wsgi.host.plugins.plugin_utils.bundles import write_archive

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
FILES = {
    "app/app.py": "import alpha\n",
    "app/static/a.css": "a {}\n",
    "site-packages/alpha/__init__.py": "def main():\n    print('alpha runs')\n",
    "site-packages/alpha/python2.py": "print 'for another Python'\n",
    "site-packages/alpha-1.0.dist-info/entry_points.txt": (
        "[console_scripts]\nalpha-run = alpha:main\n[gui_scripts]\nalpha-x = alpha:x\n"
    ),
}


def recorded_owners(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Records who gets which file, so that tests need not be root."""
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr(os, "chown", lambda path, u, g: given.append((str(path), u, g)))
    return given


class Host:
    """A folder for the releases, and the module as Ansible would start it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "opt"
        self.archive = root / "bundle.tar.gz"

    def bundle(
        self, name: str = "a" * 12, contents: dict[str, str] | None = None, **manifest: Any
    ) -> dict[str, Any]:
        """Write an archive; return what the bundle task would."""
        packed = {key: text.encode() for key, text in (contents or FILES).items()}
        packages = {key: text for key, text in packed.items() if key.startswith("site-packages/")}
        own = {key: text for key, text in packed.items() if key not in packages}
        facts = {
            "format": 1,
            "id": name,
            "name": "demo",
            "python": PYTHON,
            "architecture": "x86_64",
            "files": self.digests(contents or FILES),
            **manifest,
        }
        rest = self.archive.with_name("packages.tar.gz")
        write_archive(rest, packages)
        return {
            "name": "demo",
            "id": name,
            "python": PYTHON,
            "architecture": "x86_64",
            "archive": str(self.archive),
            "built": True,
            "sha256": write_archive(
                self.archive, {"manifest.json": json.dumps(facts).encode(), **own}, rest
            ),
            "unpacked_bytes": sum(map(len, packed.values())),
        }

    @staticmethod
    def digests(contents: dict[str, str]) -> dict[str, str]:
        """What a manifest says of files."""
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in contents.items()}

    def run(self, bundle: dict[str, Any], *, check: bool = False, **options: Any) -> dict[str, Any]:
        defaults = {"activate": True, "verify": False, "static": "", "archive": str(self.archive)}
        defaults |= {
            "beginning": "",
            "partial": False,
            "records": False,
            "shipped_by": "",
            "keep_excluded": False,
            "interpreter_package": "",
        }
        parameters = {**defaults, **options}
        module = MagicMock(check_mode=check)
        module.params = {"root": str(self.root), "bundle": bundle, **parameters}
        return release.run(module)

    def left(self) -> list[str]:
        """Names in the releases' folder."""
        return sorted(path.name for path in (self.root / "releases").iterdir())
