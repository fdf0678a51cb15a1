"""`wsgi.host.release`: real releases in a folder, with this machine's Python."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.wsgi.host.plugins.action import release as action
from ansible_collections.wsgi.host.plugins.modules import release
from ansible_collections.wsgi.host.plugins.modules.release import ReleaseError
from ansible_collections.wsgi.host.plugins.plugin_utils.bundles import write_archive
from conftest import action_of
from releasing import FILES, PYTHON, Host


@pytest.fixture(autouse=True)
def owners(monkeypatch) -> list[tuple[str, int, int]]:
    """Records who gets which file, so that these tests need not be root."""
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr(release.os, "chown", lambda path, u, g: given.append((str(path), u, g)))
    return given


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


class TestInstall:
    def test_release_runs(self, host):
        result = host.run(host.bundle())
        assert (result["changed"], result["installed"], result["activated"]) == (True, True, True)
        current = host.root / "current"
        assert os.readlink(current) == "releases/" + "a" * 12
        script = "import alpha, sys; print(alpha.__file__, sys.prefix)"
        command = [current / "bin/python", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        module, prefix = done.stdout.split()
        assert prefix == str(current)
        assert module == f"{current}/lib/python{PYTHON}/site-packages/alpha/__init__.py"

    def test_packages_commands_run(self, host):
        """certbot, for one, has no other way to be started."""
        path = Path(host.run(host.bundle())["path"])
        command = [path / "bin/alpha-run"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "alpha runs\n"
        assert not (path / "bin/alpha-x").exists()

    def test_environment_is_isolated(self, host):
        """Python packages of the distribution must not leak in."""
        path = Path(host.run(host.bundle())["path"])
        done = subprocess.run(
            [path / "bin/python", "-c", "import sys; print(*sys.path, sep='\\n')"],
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": os.environ["PATH"]},
        )
        packages = [line for line in done.stdout.splitlines() if line.endswith("-packages")]
        assert packages == [f"{path}/lib/python{PYTHON}/site-packages"]

    def test_files_are_roots_and_readable_by_all_whatever_the_umask(self, host, owners):
        before = os.umask(0o077)
        try:
            path = Path(host.run(host.bundle())["path"])
        finally:
            os.umask(before)
        for each in [path, *path.rglob("*")]:
            if each.is_symlink():
                continue
            program = each.is_dir() or each.parent == path / "bin"
            assert stat.S_IMODE(each.stat().st_mode) == (0o755 if program else 0o644), each
        assert {(user, group) for _, user, group in owners} == {(0, 0)}
        files = [each for each in path.rglob("*") if not each.is_symlink()]
        assert len(owners) >= len(files)
        for each in (host.root, host.root / "releases"):
            assert stat.S_IMODE(each.stat().st_mode) == 0o755

    def test_compiled_files_are_trusted_and_name_the_final_path(self, host):
        """The service may not write, and a traceback must not name a path that is gone."""
        path = Path(host.run(host.bundle())["path"])
        [compiled] = (path / "app/__pycache__").glob("app.*.pyc")
        content = compiled.read_bytes()
        assert int.from_bytes(content[4:8], "little") == 0b01, "hash-based and unchecked"
        assert f"{path}/app/app.py".encode() in content
        assert release.TEMPORARY.encode() not in content
        packages = path / f"lib/python{PYTHON}/site-packages"
        assert list((packages / "alpha/__pycache__").glob("__init__.*.pyc"))

    def test_manifest_stays_with_the_release(self, host):
        bundle = host.bundle(revision="abc")
        path = Path(host.run(bundle)["path"])
        manifest = json.loads((path / "manifest.json").read_text())
        assert (manifest["id"], manifest["revision"]) == (bundle["id"], "abc")
        assert manifest["archive_sha256"] == bundle["sha256"]

    def test_second_run_changes_nothing_and_needs_no_archive(self, host):
        bundle = host.bundle()
        host.run(bundle)
        host.archive.unlink()
        before = self.link(host)
        result = host.run(bundle, archive=None)
        assert result["changed"] is False
        assert result["current"] == bundle["id"]
        assert result["diff"]["before"] == result["diff"]["after"]
        assert self.link(host) == before

    def link(self, host: Host) -> tuple[int, int]:
        """Which link `current` is, and since when; looking at it changes other times."""
        found = (host.root / "current").lstat()
        return found.st_ino, found.st_mtime_ns

    def test_another_build_of_the_same_content_changes_nothing(self, host):
        """CI starts without a cache: its archive has another hash and the same id."""
        host.run(host.bundle(revision="one"))
        assert host.run(host.bundle(revision="two"), archive=None)["changed"] is False

    def test_without_activation_the_live_release_stays(self, host):
        host.run(host.bundle("a" * 12))
        result = host.run(host.bundle("b" * 12), activate=False)
        assert (result["changed"], result["activated"]) == (True, False)
        assert os.readlink(host.root / "current") == "releases/" + "a" * 12
        result = host.run(host.bundle("b" * 12), archive=None)
        assert (result["installed"], result["activated"]) == (False, True)
        assert result["current"] == "a" * 12
        assert "current: " + "a" * 12 in result["diff"]["before"]
        assert "current: " + "b" * 12 in result["diff"]["after"]

    def test_module_asks_for_the_archive_and_touches_nothing(self, host):
        assert host.run(host.bundle(), archive=None) == {"changed": False, "archive_needed": True}
        assert not host.root.exists()

    def test_check_mode_tells_and_touches_nothing(self, host):
        bundle = {**host.bundle(), "sha256": None, "built": False, "unpacked_bytes": None}
        result = host.run(bundle, check=True, archive=None)
        assert (result["changed"], result["installed"], result["activated"]) == (True, True, True)
        assert "absent" in result["diff"]["before"]
        assert not host.root.exists()

    def test_check_mode_after_a_run_says_unchanged(self, host):
        bundle = host.bundle()
        host.run(bundle)
        assert host.run(bundle, check=True, archive=None)["changed"] is False

    def test_bundle_without_an_application(self, host):
        files = {name: text for name, text in FILES.items() if not name.startswith("app/")}
        path = Path(host.run(host.bundle(contents=files))["path"])
        assert not (path / "app").exists()
        assert (path / "bin/alpha-run").exists()


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
        assert release.TEMPORARY not in words

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

        monkeypatch.setattr(release.subprocess, "run", run)
        refusal = self.refused(host, host.bundle())
        assert "The packages were not compiled" in refusal
        assert words in refusal

    def test_python_that_the_host_lacks(self, host):
        bundle = {**host.bundle(), "python": "3.99"}
        words = self.refused(host, bundle, check=True)
        assert "built for Python 3.99, which this host does not have" in words

    def test_disk_too_small(self, host, monkeypatch):
        """Before the archive is even sent."""
        monkeypatch.setattr(release, "free_bytes", lambda _: 30 * 1024 * 1024)
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
        monkeypatch.setattr(release, "LOCK_SECONDS", 0.1)
        with (host.root / "releases/.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            words = self.refused(host, host.bundle())
        assert "Another run has been installing a release" in words
        assert host.run(host.bundle())["changed"] is True


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

        monkeypatch.setattr(release.subprocess, "run", run)
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


class TestRecovery:
    @pytest.mark.parametrize(
        "step", ["unpack", "make_environment", "compile_files", "set_permissions", "sync"]
    )
    def test_interrupted_install_leaves_nothing(self, host, monkeypatch, step):
        with monkeypatch.context() as patch:
            patch.setattr(release, step, MagicMock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                host.run(host.bundle())
        assert host.left() == [".lock"]
        assert host.run(host.bundle())["installed"] is True

    def test_leftovers_of_a_killed_run_are_removed(self, host):
        leftover = host.root / "releases" / f"{release.TEMPORARY}{'a' * 12}-x"
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
        assert host.run(host.bundle(), archive=None) == {"changed": False, "archive_needed": True}
        result = host.run(host.bundle())
        assert (result["installed"], result["activated"]) == (True, False)
        subprocess.run([path / "bin/python", "-c", "import alpha"], check=True)
        assert host.run(host.bundle(), archive=None)["changed"] is False

    def test_manifest_cut_short_counts_as_incomplete(self, host):
        path = Path(host.run(host.bundle())["path"])
        os.truncate(path / "manifest.json", 20)
        assert host.run(host.bundle())["installed"] is True


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

    def test_web_server_can_read_them_and_the_application_cannot_change_them(self, host):
        before = os.umask(0o077)
        try:
            host.run(host.bundle(), static="app/static")
        finally:
            os.umask(before)
        for path in (host.root / "static", *(host.root / "static").rglob("*")):
            assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


class TestVerify:
    def test_untouched_release_passes(self, host):
        bundle = host.bundle()
        host.run(bundle)
        assert host.run(bundle, verify=True, archive=None)["changed"] is False

    @pytest.mark.parametrize(
        ("change", "line"),
        [
            (lambda path: (path / "app/app.py").write_text("x"), "changed: app/app.py"),
            (lambda path: (path / "app/static/a.css").unlink(), "missing: app/static/a.css"),
            (lambda path: (path / "app/x.py").write_text("x"), "added: app/x.py"),
            (
                lambda path: (path / f"lib/python{PYTHON}/site-packages/sitecustomize.py").touch(),
                f"added: lib/python{PYTHON}/site-packages/sitecustomize.py",
            ),
        ],
    )
    def test_edited_release_is_named(self, host, change: Callable[[Path], Any], line):
        """Somebody fixes a bug on the host at night, and the next deploy brings it back."""
        bundle = host.bundle()
        change(Path(host.run(bundle)["path"]))
        assert host.run(bundle, archive=None)["changed"] is False
        with pytest.raises(ReleaseError) as refusal:
            host.run(bundle, verify=True, archive=None)
        assert line in str(refusal.value).splitlines()
        assert "remove its manifest.json and run again" in str(refusal.value)


class TestAction:
    """The part on the control node: how often it talks to the host, and what it sends."""

    @pytest.fixture
    def plugin(self, host):
        def make(**arguments: Any) -> action.ActionModule:
            given = {"root": "/opt/x", "bundle": host.bundle(), **arguments}
            plugin = action_of(action.ActionModule, given)
            plugin._make_tmp_path = MagicMock(return_value="/tmp/t")
            plugin._connection._shell.join_path = lambda *parts: "/".join(parts)
            plugin._transfer_file = MagicMock()
            plugin._fixup_perms2 = MagicMock()
            plugin._execute_module = MagicMock()
            return plugin

        return make

    def test_release_that_is_there_costs_one_trip(self, plugin):
        made = plugin()
        made._execute_module.return_value = {"changed": False, "id": "a"}
        assert made.run(task_vars={})["changed"] is False
        assert made._execute_module.call_count == 1
        made._transfer_file.assert_not_called()
        made._make_tmp_path.assert_not_called()

    def test_archive_is_sent_when_asked_for(self, plugin, host):
        made = plugin()
        made._execute_module.side_effect = [
            {"changed": False, "archive_needed": True},
            {"changed": True, "id": "a"},
        ]
        result = made.run(task_vars={})
        assert result["changed"] is True
        assert "archive_needed" not in result
        made._transfer_file.assert_called_once_with(str(host.archive), "/tmp/t/bundle.tar.gz")
        arguments = made._execute_module.call_args.kwargs["module_args"]
        assert arguments["archive"] == "/tmp/t/bundle.tar.gz"

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (lambda path: os.truncate(path, 10), "is damaged: its SHA-256 is"),
            (lambda path: path.unlink(), "cannot be read: No such file"),
        ],
    )
    def test_damaged_archive_is_not_sent(self, plugin, host, damage, words):
        made = plugin()
        damage(host.archive)
        made._execute_module.return_value = {"changed": False, "archive_needed": True}
        with pytest.raises(AnsibleActionFail, match=words):
            made.run(task_vars={})
        made._transfer_file.assert_not_called()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"bundle": "x"}, "bundle is not what wsgi.host.bundle returns"),
            ({"bundle": {"id": "x"}}, "bundle is not what wsgi.host.bundle returns"),
            ({"archive": "/x"}, "archive is set by wsgi.host.release itself"),
        ],
    )
    def test_wrong_argument_is_refused_before_any_trip(self, plugin, arguments, words):
        made = plugin(**arguments)
        with pytest.raises(AnsibleActionFail, match=words):
            made.run(task_vars={})
        made._execute_module.assert_not_called()


class TestRecord:
    """What is written down beside a release, for what becomes of it."""

    def record(self, host: Host, name: str = "a" * 12) -> dict[str, Any]:
        return dict(json.loads((host.root / "state" / "releases" / f"{name}.json").read_text()))

    def test_begins_unjudged_and_says_where_it_comes_from(self, host):
        bundle = {**host.bundle(), "content": "c" * 12, "revision": "abc", "lock_hash": "d" * 64}
        result = host.run(bundle, records=True, shipped_by="anna@desk", activate=False)
        record = self.record(host)
        assert result["record"] == record
        assert record["verdict"] == "unjudged"
        assert record["shipped_by"] == "anna@desk"
        assert (record["content"], record["revision"]) == ("c" * 12, "abc")
        assert record["lock_sha256"] == "d" * 64
        path = host.root / "state" / "releases" / ("a" * 12 + ".json")
        assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def test_second_run_changes_nothing(self, host):
        host.run(host.bundle(), records=True)
        record = self.record(host)
        assert host.run(host.bundle(), records=True)["changed"] is False
        assert self.record(host) == record

    def test_what_others_wrote_stays_when_it_is_shipped_again(self, host):
        host.run(host.bundle(), records=True)
        told = {**self.record(host), "verdict": "healthy", "more": 1}
        release.write_record(str(host.root), told)
        host.run(host.bundle(), records=True, shipped_by="ben@desk")
        assert self.record(host) == told

    def leave(self, host: Host, name: str = "a" * 12, **facts: Any) -> None:
        left = {"left_at": "2026-11-25", "left_by": "anna@desk", "left_reason": "slow"}
        release.write_record(str(host.root), {**self.record(host, name), **left, **facts})

    def rolled_back(self, host: Host, **facts: Any) -> dict[str, Any]:
        """The second of two releases was left for the first one; ship it again."""
        options = {"records": True, "activate": False}
        host.run(host.bundle(), records=True)
        host.run(host.bundle("b" * 12), **options)
        self.leave(host, "b" * 12, **facts)
        return host.run(host.bundle("b" * 12), keep_left=True, **options)

    def test_rollback_is_remembered_by_a_deploy_that_only_ships(self, host):
        """`--tags ship` and a deploy that fails before its handover undo no decision."""
        self.rolled_back(host)
        told = host.run(host.bundle("b" * 12), records=True, activate=False)
        assert told["left"] is None
        assert told["changed"] is False
        assert self.record(host, "b" * 12)["left_by"] == "anna@desk"

    @pytest.mark.parametrize("facts", [{}, {"left_kind": "decision"}])
    def test_rollback_is_remembered_if_so_wished(self, host, facts):
        """A routine run must not deploy what somebody has rolled back from."""
        told = self.rolled_back(host, **facts)
        assert told["changed"] is False
        assert told["left"]["left_by"] == "anna@desk"
        assert self.record(host, "b" * 12)["left_reason"] == "slow"

    def test_what_a_failed_deploy_left_is_tried_again(self, host):
        told = self.rolled_back(host, left_kind="failure")
        assert told["left"] is None
        assert "left_at" not in self.record(host, "b" * 12)

    def test_rollback_holds_for_the_same_content_for_another_python(self, host):
        """An upgrade of the system between the rollback and the run gives it another id."""
        host.run(host.bundle(), records=True)
        options = {"records": True, "activate": False}
        host.run({**host.bundle("b" * 12), "content": "c"}, **options)
        self.leave(host, "b" * 12)
        bundle = {**host.bundle("d" * 12), "content": "c"}
        assert host.run(bundle, keep_left=True, **options)["left"]["id"] == "b" * 12
        # Left for the Python of before is not left where the content serves.
        host.run(bundle, records=True)
        bundle = {**host.bundle("e" * 12), "content": "c"}
        assert host.run(bundle, keep_left=True, **options)["left"] is None

    def test_who_serves_what_was_left_goes_on(self, host):
        host.run(host.bundle(), records=True)
        self.leave(host)
        assert host.run(host.bundle(), records=True, keep_left=True)["left"] is None

    def test_damaged_record_is_begun_anew(self, host):
        host.run(host.bundle(), records=True)
        (host.root / "state" / "releases" / ("a" * 12 + ".json")).write_text("{")
        host.run(host.bundle(), records=True)
        assert self.record(host)["verdict"] == "unjudged"

    def test_check_mode_writes_none(self, host):
        assert host.run(host.bundle(), records=True, check=True)["record"] is None
        assert not (host.root / "state").exists()

    def test_without_the_option_there_is_none(self, host):
        """certbot's releases are judged by nobody."""
        assert host.run(host.bundle())["record"] is None
        assert not (host.root / "state").exists()

    def test_releases_on_the_host_are_told(self, host):
        host.run(host.bundle())
        told = host.run(host.bundle("b" * 12), check=True)
        assert told["releases"] == ["a" * 12, "b" * 12]


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
        said = release.preview(bundle, "old", manifest)
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
        [line] = release.preview(bundle, None, None)["preview"]
        assert line.startswith("release new (no revision) would be installed: 2 files")
        assert line.endswith("2 packages")

    def test_is_never_long(self, host):
        files = {f"f{number}": "1" for number in range(300)}
        bundle = {"id": "new", "contents": self.contents(**files)}
        said = release.preview(bundle, "old", {"files": {}})["preview"]
        assert len(said) == release.PREVIEW_LINES + 1
        assert said[-1] == "... and 243 more"

    def test_is_part_of_check_mode_alone(self, host):
        bundle = host.bundle()
        told = host.run({**bundle, "contents": self.contents(a="1")}, check=True)
        assert "would be installed" in told["preview"][0]
        assert "preview" not in host.run(bundle)
        assert "preview" not in host.run(bundle, check=True)
