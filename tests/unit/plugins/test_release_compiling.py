"""`wsgi.host.release`: what is compiled, and what is taken from other releases."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.releases import (
    compiling,
)
from ansible_collections.wsgi.host.plugins.module_utils.releases.errors import ReleaseError
from releasing import FILES, PYTHON, Host, recorded_owners


@pytest.fixture(autouse=True)
def owners(monkeypatch) -> list[tuple[str, int, int]]:
    return recorded_owners(monkeypatch)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


class TestCompiled:
    """Packages seldom change, and compiling them is most of the work of an installation."""

    @pytest.fixture
    def two(self, host):
        """Two releases of one set of packages, the second one not yet installed."""
        host.run(host.bundle())
        return host, {**FILES, "app/app.py": "changed = True\n"}

    @staticmethod
    def compiled(host, name):
        packages = host.root / "releases" / name / f"lib/python{PYTHON}/site-packages"
        return {str(each.relative_to(packages)): each for each in packages.rglob("*.pyc")}

    def commands(self, monkeypatch):
        """The compiler's command lines from now on."""
        real, seen = subprocess.run, []

        def run(command, **options):
            seen.append(command)
            return real(command, **options)

        monkeypatch.setattr(compiling.subprocess, "run", run)
        return seen

    def test_the_same_packages_are_not_compiled_again(self, two, monkeypatch):
        host, contents = two
        seen = self.commands(monkeypatch)
        path = Path(host.run(host.bundle("b" * 12, contents))["path"])
        assert ["-i" in command for command in seen] == [False], "the application alone"
        one, other = self.compiled(host, "a" * 12), self.compiled(host, "b" * 12)
        assert one.keys() == other.keys()
        assert one
        for name, file in one.items():
            assert file.read_bytes() == other[name].read_bytes()
            assert file.stat().st_ino != other[name].stat().st_ino, "an edit must stay an edit"
        script = "import alpha, sys; print(alpha.__cached__, compile.__module__)"
        done = subprocess.run(
            [path / "bin/python", "-c", script], capture_output=True, text=True, check=True
        )
        assert str(path) in done.stdout

    def test_what_was_changed_since_is_compiled_anew(self, two, monkeypatch):
        host, contents = two
        before = {name: file.read_bytes() for name, file in self.compiled(host, "a" * 12).items()}
        for file in self.compiled(host, "a" * 12).values():
            file.write_bytes(b"evil")
        seen = self.commands(monkeypatch)
        host.run(host.bundle("b" * 12, contents))
        assert ["-i" in command for command in seen] == [False, True]
        after = {name: file.read_bytes() for name, file in self.compiled(host, "b" * 12).items()}
        assert after.keys() == before.keys()
        assert b"evil" not in after.values()

    def test_another_source_is_compiled(self, two):
        host, contents = two
        contents["site-packages/alpha/__init__.py"] = "other = 1\n"
        host.run(host.bundle("b" * 12, contents))
        one, other = self.compiled(host, "a" * 12), self.compiled(host, "b" * 12)
        [changed] = [name for name in one if one[name].read_bytes() != other[name].read_bytes()]
        assert changed.startswith("alpha/__pycache__/__init__.")

    def test_verify_sees_a_changed_one(self, two):
        host, _ = two
        for file in self.compiled(host, "a" * 12).values():
            file.write_bytes(b"evil")
        with pytest.raises(ReleaseError, match=r"changed: lib/.*__init__.*\.pyc"):
            host.run(host.bundle(), verify=True)
