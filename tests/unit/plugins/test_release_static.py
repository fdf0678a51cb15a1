"""`wsgi.host.release`: the static files that a web server serves."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path

import pytest
from releasing import FILES, Host, recorded_owners


@pytest.fixture(autouse=True)
def owners(monkeypatch) -> list[tuple[str, int, int]]:
    return recorded_owners(monkeypatch)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


class TestStatic:
    """What a browser keeps for a year must never change under its address."""

    def address(self, content: str) -> str:
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    def served(self, host: Host) -> dict[str, str]:
        top = host.root / "static"
        return {
            str(path.relative_to(top)): path.read_text()
            for path in top.rglob("*")
            if path.is_file()
        }

    def test_each_content_has_an_address_of_its_own(self, host):
        """Two releases that answer side by side refer to both files, and both are there."""
        one, two = "a {}\n", "a { color: red }\n"
        host.run(host.bundle("a" * 12), static="app/static")
        other = host.bundle(
            "b" * 12, {**FILES, "app/static/deep/a.css": one, "app/static/a.css": two}
        )
        result = host.run(other, static="app/static/")
        assert self.served(host) == {
            f"{self.address(one)}/a.css": one,
            f"{self.address(one)}/deep/a.css": one,
            f"{self.address(two)}/a.css": two,
        }
        assert set(result["published"]) == set(self.served(host)) - {f"{self.address(one)}/a.css"}

    def test_second_run_changes_nothing(self, host):
        bundle = host.bundle()
        assert host.run(bundle, static="app/static")["published"]
        again = host.run(bundle, static="app/static")
        assert (again["changed"], again["published"]) == (False, [])

    def test_file_that_went_comes_back(self, host):
        bundle = host.bundle()
        host.run(bundle, static="app/static")
        for path in (host.root / "static").rglob("a.css"):
            path.unlink()
        assert host.run(bundle, check=True, static="app/static")["changed"]
        assert self.served(host) == {}
        assert host.run(bundle, static="app/static")["changed"]
        assert list(self.served(host).values()) == ["a {}\n"]

    def test_files_of_no_release_go(self, host):
        host.run(host.bundle("a" * 12), static="app/static")
        other = host.bundle("b" * 12, {**FILES, "app/static/a.css": "b {}\n"})
        shutil.rmtree(host.root / "releases" / ("a" * 12))
        host.run(other, static="app/static")
        assert list(self.served(host).values()) == ["b {}\n"]
        assert len(list((host.root / "static").iterdir())) == 1

    def test_another_directory_takes_nothing_from_what_serves(self, host):
        """It was without its files from the moment on at which the next release arrived."""
        host.run(host.bundle("a" * 12), static="app/static")
        before = self.served(host)
        moved = {name: text for name, text in FILES.items() if "static" not in name}
        other = host.bundle("b" * 12, {**moved, "app/shop/static/a.css": "b {}\n"})
        host.run(other, static="app/shop/static", activate=False)
        assert self.served(host) == {**before, f"{self.address('b {}' + chr(10))}/a.css": "b {}\n"}

    def test_web_server_can_read_them_and_the_application_cannot_change_them(self, host):
        before = os.umask(0o077)
        try:
            host.run(host.bundle(), static="app/static")
        finally:
            os.umask(before)
        for path in (host.root / "static", *(host.root / "static").rglob("*")):
            assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path
