"""Lock files of other tools in the requirements format, and repositories as sources."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.wsgi.host.plugins.plugin_utils import sources
from ansible_collections.wsgi.host.plugins.plugin_utils.locks import (
    BundleError,
    as_requirements,
    lock_in,
    pins_on,
    read_lock,
)

A, B = "a" * 64, "b" * 64
UV = str(Path(sys.executable).with_name("uv"))
PYLOCK = f"""
lock-version = "1.0"
[[packages]]
name = "flask"
version = "3.1.0"
wheels = [{{name = "flask.whl", hashes = {{sha256 = "{A}"}}}}]
sdist = {{name = "flask.tar.gz", hashes = {{sha256 = "{B}"}}}}
[[packages]]
name = "colorama"
version = "0.4.6"
marker = "sys_platform == 'win32'"
wheels = [{{name = "colorama.whl", hashes = {{sha256 = "{B}"}}}}]
"""
POETRY = f"""
[[package]]
name = "flask"
version = "3.1.0"
optional = false
groups = ["main"]
files = [{{file = "flask.whl", hash = "sha256:{A}"}}, {{file = "f.tar.gz", hash = "sha256:{B}"}}]
[[package]]
name = "tomli"
version = "2.0.1"
optional = false
groups = ["main", "dev"]
markers = {{main = "python_version < '3.11'", dev = "python_version < '3.11'"}}
files = [{{file = "tomli.whl", hash = "sha256:{B}"}}]
[[package]]
name = "pytest"
version = "8.0.0"
optional = false
groups = ["dev"]
files = [{{file = "pytest.whl", hash = "sha256:{A}"}}]
[[package]]
name = "extra"
version = "1.0"
optional = true
groups = ["main"]
files = [{{file = "extra.whl", hash = "sha256:{A}"}}]
[metadata]
lock-version = "2.1"
"""


def requirements(tmp_path: Path, name: str, text: str) -> str:
    """What is made of a lock file, which has to be one that bundles are built from."""
    (tmp_path / name).write_text(text)
    found = as_requirements(tmp_path / name, UV)
    assert found is not None
    (tmp_path / "requirements.txt").write_text(found)
    read_lock(tmp_path / "requirements.txt")
    return found


def test_pylock(tmp_path: Path) -> None:
    assert requirements(tmp_path, "pylock.toml", PYLOCK).splitlines() == [
        f"flask==3.1.0 --hash=sha256:{A} --hash=sha256:{B}",
        f"colorama==0.4.6 ; sys_platform == 'win32' --hash=sha256:{B}",
    ]


def test_poetry_has_what_the_project_itself_needs(tmp_path: Path) -> None:
    assert requirements(tmp_path, "poetry.lock", POETRY).splitlines() == [
        f"flask==3.1.0 --hash=sha256:{A} --hash=sha256:{B}",
        f"tomli==2.0.1 ; python_version < '3.11' --hash=sha256:{B}",
    ]


@pytest.mark.parametrize("marker", ["python_version", "'default' in dependency_groups"])
def test_a_marker_that_no_host_can_tell_is_named(tmp_path: Path, marker: str) -> None:
    """PDM writes the second one for each package, and uv installs none of them."""
    requirements(tmp_path, "pylock.toml", PYLOCK.replace("sys_platform == 'win32'", marker))
    with pytest.raises(BundleError) as error:
        pins_on(tmp_path / "requirements.txt", "3.13", "x86_64")
    assert f"{marker!r}, the marker of colorama, is none" in str(error.value)


def test_an_older_poetry_does_not_say_what_a_package_is_for(tmp_path: Path) -> None:
    (tmp_path / "poetry.lock").write_text(POETRY.replace('"2.1"', '"2.0"'))
    with pytest.raises(BundleError, match=r"has the format 2\.0.*with Poetry 2 or newer"):
        as_requirements(tmp_path / "poetry.lock", UV)


def test_a_package_without_hashes_is_refused_by_name(tmp_path: Path) -> None:
    text = PYLOCK.replace('wheels = [{name = "colorama.whl"', 'xs = [{name = "colorama.whl"')
    (tmp_path / "pylock.toml").write_text(text)
    with pytest.raises(BundleError, match="colorama has no version, or no SHA-256"):
        as_requirements(tmp_path / "pylock.toml", UV)


@pytest.mark.parametrize("name", ["pylock.toml", "poetry.lock"])
def test_what_is_no_toml_is_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[[")
    with pytest.raises(BundleError, match=r"cannot be read.*Write it anew"):
        as_requirements(tmp_path / name, UV)


def test_uv_lock_is_exported(tmp_path: Path) -> None:
    """uv knows what of it the project itself needs; no package has to be reached for that."""
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = []\n'
    )
    (tmp_path / "uv.lock").write_text(
        'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n'
        '[[package]]\nname = "shop"\nversion = "1"\nsource = { virtual = "." }\n'
    )
    assert as_requirements(tmp_path / "uv.lock", UV) == ""
    (tmp_path / "pyproject.toml").unlink()
    with pytest.raises(BundleError, match=r"Write it anew in .*: uv lock"):
        as_requirements(tmp_path / "uv.lock", UV)


def test_the_first_lock_file_that_is_there_is_taken(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no lock file: write one of requirements\.txt, uv"):
        lock_in(tmp_path)
    (tmp_path / "poetry.lock").touch()
    assert lock_in(tmp_path).name == "poetry.lock"
    (tmp_path / "requirements.txt").touch()
    assert lock_in(tmp_path).name == "requirements.txt"
    assert as_requirements(tmp_path / "requirements.txt", UV) is None


class TestRepository:
    @pytest.fixture
    def repository(self, tmp_path: Path) -> Path:
        """Two commits with a tag between them, of an application in a folder."""
        folder = tmp_path / "remote"
        (folder / "web").mkdir(parents=True)
        self.git(folder, "init", "--quiet", "--initial-branch=trunk")
        for text in ("one", "two"):
            (folder / "web" / "app.py").write_text(text)
            self.git(folder, "add", ".")
            self.git(folder, "commit", "--quiet", "--message", text)
        self.git(folder, "tag", "v1", "HEAD~1")
        return folder

    @staticmethod
    def git(folder: Path, *arguments: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True)

    def text(self, repository: Path, tmp_path: Path, revision: str, folder: str = "web") -> str:
        target = tmp_path / "target"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        mirror = sources.fetched(str(repository), tmp_path / "cache")
        sources.export_tree(mirror, revision, folder, target, "application_revision")
        return (target / "app.py").read_text()

    def test_is_fetched_at_a_revision(self, repository: Path, tmp_path: Path) -> None:
        assert self.text(repository, tmp_path, "HEAD") == "two"
        assert self.text(repository, tmp_path, "v1") == "one"
        assert self.text(repository, tmp_path, "trunk") == "two"

    def test_follows_what_was_pushed_since(self, repository: Path, tmp_path: Path) -> None:
        """Also a tag that was moved, and a branch that was written anew."""
        self.text(repository, tmp_path, "HEAD")
        (repository / "web" / "app.py").write_text("three")
        self.git(repository, "commit", "--quiet", "--all", "--amend", "--message", "three")
        self.git(repository, "tag", "--force", "v1")
        assert self.text(repository, tmp_path, "HEAD") == "three"
        assert self.text(repository, tmp_path, "v1") == "three"

    def test_what_is_not_there_is_said(self, repository: Path, tmp_path: Path) -> None:
        with pytest.raises(sources.SourceError, match="application_revision is 'v9', which the"):
            self.text(repository, tmp_path, "v9")
        with pytest.raises(sources.SourceError, match="no directory api/"):
            self.text(repository, tmp_path, "HEAD", "api")
        with pytest.raises(sources.SourceError, match="cannot be fetched"):
            sources.fetched(str(tmp_path / "nowhere"), tmp_path / "cache")

    def test_a_password_in_the_address_is_not_shown(self, tmp_path: Path) -> None:
        address = f"file://user:secret@{tmp_path}/nowhere"
        with pytest.raises(sources.SourceError) as raised:
            sources.fetched(address, tmp_path / "cache")
        assert "secret" not in str(raised.value)
        assert "file://" in str(raised.value)

    def test_an_option_is_no_repository(self, tmp_path: Path) -> None:
        with pytest.raises(sources.SourceError, match="Name an address or a path"):
            sources.fetched("--upload-pack=touch /tmp/x", tmp_path / "cache")
