"""`wsgi.host.release`: what check mode says of a release that is to come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.releases import (
    previewing,
)
from releasing import Host, recorded_owners


@pytest.fixture(autouse=True)
def owners(monkeypatch) -> list[tuple[str, int, int]]:
    return recorded_owners(monkeypatch)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


class TestPreview:
    """What an operator reads before a deploy."""

    def contents(self, **files: str) -> dict[str, Any]:
        return {
            "files": {f"app/{name}.py": digest for name, digest in files.items()},
            "packages": {"alpha": "1.0", "flask": "3.1"},
        }

    def test_names_what_differs_from_the_current_release(self, host):
        manifest = {
            "files": {
                "app/same.py": "1",
                "app/edited.py": "1",
                "app/removed.py": "1",
                "site-packages/Flask-3.0.dist-info/METADATA": "1",
                "site-packages/alpha-1.0.dist-info/METADATA": "1",
                "site-packages/old_one-2.dist-info/METADATA": "1",
            }
        }
        bundle = {
            "id": "new",
            "revision": "v2",
            "contents": self.contents(same="1", edited="2", added="1"),
        }
        said = previewing.preview(bundle, "old", manifest)
        assert said["preview"] == [
            "release new (v2) would follow old",
            "package flask: 3.0 -> 3.1",
            "package old-one: 2 -> none",
            "app/added.py: new",
            "app/edited.py: changed",
            "app/removed.py: gone",
        ]
        assert said["changed_files"] == ["app/added.py", "app/edited.py", "app/removed.py"]

    def test_is_short_where_everything_is_new(self, host):
        bundle = {"id": "new", "contents": self.contents(a="1", b="1")}
        [line] = previewing.preview(bundle, None, None)["preview"]
        assert line.startswith("release new (no revision) would be installed: 2 files")
        assert line.endswith("2 packages")

    def test_is_never_long(self, host):
        files = {f"f{number}": "1" for number in range(300)}
        bundle = {"id": "new", "contents": self.contents(**files)}
        said = previewing.preview(bundle, "old", {"files": {}})["preview"]
        assert len(said) == previewing.PREVIEW_LINES + 1
        assert said[-1] == "... and 243 more"

    def test_is_part_of_check_mode_alone(self, host):
        bundle = host.bundle()
        told = host.run({**bundle, "contents": self.contents(a="1")}, check=True)
        assert "would be installed" in told["preview"][0]
        assert "preview" not in host.run(bundle)
        assert "preview" not in host.run(bundle, check=True)
