"""`wsgi.host.release`: what is refused, and what an interrupted run leaves."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible_collections.wsgi.host.plugins.module_utils.releases import (
    compiling,
    disk,
    installing,
    manifests,
)
from ansible_collections.wsgi.host.plugins.module_utils.releases.errors import ReleaseError
from ansible_collections.wsgi.host.plugins.plugin_utils.bundles import write_archive
from releasing import FILES, Host, recorded_owners


@pytest.fixture(autouse=True)
def owners(monkeypatch) -> list[tuple[str, int, int]]:
    return recorded_owners(monkeypatch)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


class TestRefusal:
    def refused(self, host: Host, bundle: dict[str, Any], **options: Any) -> str:
        """Install, expect a refusal and nothing left of it; return the message."""
        with pytest.raises(ReleaseError) as refusal:
            host.run(bundle, **options)
        if (host.root / "releases").exists():
            assert host.left() == [".lock"]
        assert not (host.root / "current").is_symlink()
        return str(refusal.value)

    def test_archive_that_arrived_damaged(self, host):
        bundle = host.bundle()
        os.truncate(host.archive, 50)
        assert "The archive arrived with SHA-256" in self.refused(host, bundle)

    @pytest.mark.parametrize(
        "name",
        [
            "app/../../../etc/cron.d/x",
            "../x",
            "/etc/x",
            "app//x",
            "app/./x",
            "app",
            "bin/python",
            "pyvenv.cfg",
        ],
    )
    def test_path_that_leads_elsewhere(self, host, name):
        """The archive comes from the control node, and still writes only where it may."""
        bundle = host.bundle(contents={"app/app.py": "", name: "x"})
        words = self.refused(host, bundle)
        assert "unsafe path" in words or "unexpected path" in words
        assert not (host.root.parent / "etc").exists()

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
    def test_member_that_is_no_file(self, host, kind):
        """A link first and a file through it next would write anywhere."""
        bundle = host.bundle()
        with tarfile.open(host.archive) as source:
            members = [(member, source.extractfile(member)) for member in source]
            with tarfile.open(host.root.parent / "evil.tar.gz", "w:gz") as evil:
                for member, content in members[:1]:
                    evil.addfile(member, content)
                link = tarfile.TarInfo("app/link")
                link.type, link.linkname = kind, "/etc"
                evil.addfile(link)
        (host.root.parent / "evil.tar.gz").rename(host.archive)
        bundle["sha256"] = hashlib.sha256(host.archive.read_bytes()).hexdigest()
        assert "something not a file: 'app/link'" in self.refused(host, bundle)

    @pytest.mark.parametrize(
        ("digests", "words"),
        [
            ({"app/app.py": "0" * 64}, "app/app.py in the archive is not what the manifest says"),
            ({}, "app/app.py in the archive is not what the manifest says"),
            (
                {"app/app.py": hashlib.sha256(b"").hexdigest(), "app/b.py": "0" * 64},
                "lacks app/b.py",
            ),
        ],
    )
    def test_content_that_differs_from_the_manifest(self, host, digests, words):
        bundle = host.bundle(contents={"app/app.py": ""}, files=digests)
        assert words in self.refused(host, bundle)

    def test_archive_that_is_no_bundle(self, host):
        bundle = host.bundle()
        bundle["sha256"] = write_archive(host.archive, {"app/app.py": b""})
        assert "does not begin with a manifest" in self.refused(host, bundle)

    @pytest.mark.parametrize(
        ("manifest", "words"),
        [
            ({"format": 2}, "format is 2, and this module knows 1"),
            ({"id": "b" * 12}, "id is 'bbbbbbbbbbbb' in place of 'aaaaaaaaaaaa'"),
            ({"architecture": "aarch64"}, "architecture is 'aarch64'"),
        ],
    )
    def test_bundle_for_something_else(self, host, manifest, words):
        bundle = host.bundle(**manifest)
        assert words in self.refused(host, bundle)

    def test_syntax_error_in_the_application(self, host):
        """Found before anything of the old release is touched."""
        files = {**FILES, "app/views.py": "def f(:\n"}
        words = self.refused(host, host.bundle(contents=files))
        assert "The application cannot be compiled" in words
        assert "app/views.py" in words
        assert manifests.TEMPORARY not in words

    @pytest.mark.parametrize(("signal", "words"), [(9, "status -9"), (None, "MemoryError")])
    def test_compiler_that_is_killed(self, host, monkeypatch, signal, words):
        """A release without compiled files would be slow for ever, and nobody would know."""
        real = subprocess.run

        def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
            if "-i" not in command:
                return real(command, **options)
            end = f"import os; os.kill(os.getpid(), {signal})" if signal else "raise MemoryError"
            # Whoever dies at once may not have read the names.
            options["input"] = ""
            return real([sys.executable, "-c", end], **options)

        monkeypatch.setattr(compiling.subprocess, "run", run)
        refusal = self.refused(host, host.bundle())
        assert "The packages were not compiled" in refusal
        assert words in refusal

    def test_python_that_the_host_lacks(self, host):
        bundle = {**host.bundle(), "python": "3.99"}
        words = self.refused(host, bundle, check=True)
        assert "built for Python 3.99, which this host does not have" in words

    def test_disk_too_small(self, host, monkeypatch):
        """Before the archive is even sent."""
        monkeypatch.setattr(disk, "free_bytes", lambda _: 30 * 1024 * 1024)
        bundle = {**host.bundle(), "unpacked_bytes": 50 * 1024 * 1024}
        words = self.refused(host, bundle, archive=None)
        assert "has 30 MiB free, and the release needs 130 MiB" in words

    def test_current_that_is_no_link(self, host):
        (host.root / "current").mkdir(parents=True)
        words = self.refused(host, host.bundle())
        assert "current is not a symbolic link" in words

    def test_command_with_an_unsafe_name(self, host):
        files = {
            "site-packages/e-1.dist-info/entry_points.txt": (
                "[console_scripts]\n../../python = os:system\n"
            )
        }
        assert "bad command" in self.refused(host, host.bundle(contents=files))

    def test_another_run_at_work(self, host, monkeypatch):
        """Two people who deploy at once wait for each other, but not for ever."""
        (host.root / "releases").mkdir(parents=True)
        monkeypatch.setattr(installing, "LOCK_SECONDS", 0.1)
        with (host.root / "releases/.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            words = self.refused(host, host.bundle())
        assert "Another run has been installing a release" in words
        assert host.run(host.bundle())["changed"] is True


class TestRecovery:
    @pytest.mark.parametrize(
        "step", ["unpack", "make_environment", "compile_files", "set_permissions", "sync"]
    )
    def test_interrupted_install_leaves_nothing(self, host, monkeypatch, step):
        with monkeypatch.context() as patch:
            patch.setattr(installing, step, MagicMock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                host.run(host.bundle())
        assert host.left() == [".lock"]
        assert host.run(host.bundle())["installed"] is True

    def test_leftovers_of_a_killed_run_are_removed(self, host):
        leftover = host.root / "releases" / f"{manifests.TEMPORARY}{'a' * 12}-x"
        (leftover / "app").mkdir(parents=True)
        host.run(host.bundle())
        assert host.left() == [".lock", "a" * 12]

    def test_link_that_a_killed_run_left_is_no_obstacle(self, host):
        host.root.mkdir()
        (host.root / ".current").symlink_to("releases/nothing")
        host.run(host.bundle())
        assert os.readlink(host.root / "current") == "releases/" + "a" * 12

    @pytest.mark.parametrize("part", ["manifest.json", "bin/python"])
    def test_incomplete_release_is_replaced(self, host, part):
        path = Path(host.run(host.bundle())["path"])
        (path / part).unlink()
        assert host.run(host.bundle())["installed"] is True
        assert (path / part).exists()
        assert host.left() == [".lock", "a" * 12]

    def test_release_whose_interpreter_is_gone_is_installed_anew(self, host):
        """The same version may be elsewhere by now. Nothing else would link to it."""
        path = Path(host.run(host.bundle())["path"])
        (path / "bin/python").unlink()
        (path / "bin/python").symlink_to("/usr/bin/python3.0")
        assert host.run(host.bundle(), archive=None) == {"changed": False, "needed": "digest"}
        result = host.run(host.bundle())
        assert (result["installed"], result["activated"]) == (True, False)
        subprocess.run([path / "bin/python", "-c", "import alpha"], check=True)
        assert host.run(host.bundle(), archive=None)["changed"] is False

    def test_manifest_cut_short_counts_as_incomplete(self, host):
        path = Path(host.run(host.bundle())["path"])
        os.truncate(path / "manifest.json", 20)
        assert host.run(host.bundle())["installed"] is True
