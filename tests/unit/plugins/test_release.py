"""`wsgi.host.release`: real releases in a folder, with this machine's Python."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.wsgi.host.plugins.action import release as action
from ansible_collections.wsgi.host.plugins.module_utils.releases import (
    manifests,
)
from ansible_collections.wsgi.host.plugins.module_utils.releases.errors import ReleaseError
from conftest import action_of
from releasing import FILES, PYTHON, Host, recorded_owners


@pytest.fixture(autouse=True)
def owners(monkeypatch) -> list[tuple[str, int, int]]:
    return recorded_owners(monkeypatch)


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

    def test_what_the_archive_calls_a_program_can_be_run(self, host):
        """A worker's ./run.sh, and the program that a package brings."""
        programs = ("app/run.sh", "site-packages/alpha/bin/tool")
        files = {**FILES, **dict.fromkeys(programs, "#!/bin/sh\n")}
        path = Path(host.run(host.bundle(contents=files, executable=list(programs)))["path"])
        runnable = {
            str(each.relative_to(path))
            for each in path.rglob("*")
            if each.is_file() and each.parent != path / "bin" and os.access(each, os.X_OK)
        }
        assert runnable == {programs[0], f"lib/python{PYTHON}/{programs[1]}"}

    def test_compiled_files_are_trusted_and_name_the_final_path(self, host):
        """The service may not write, and a traceback must not name a path that is gone."""
        path = Path(host.run(host.bundle())["path"])
        [compiled] = (path / "app/__pycache__").glob("app.*.pyc")
        content = compiled.read_bytes()
        assert int.from_bytes(content[4:8], "little") == 0b01, "hash-based and unchecked"
        assert f"{path}/app/app.py".encode() in content
        assert manifests.TEMPORARY.encode() not in content
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
        assert host.run(host.bundle(), archive=None) == {"changed": False, "needed": "digest"}
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
        """An application can consist of packages alone, and units work in app/ all the same."""
        files = {name: text for name, text in FILES.items() if not name.startswith("app/")}
        path = Path(host.run(host.bundle(contents=files))["path"])
        assert list((path / "app").iterdir()) == []
        assert (path / "bin/alpha-run").exists()


class TestPackages:
    """A release that changes the application alone comes without its packages."""

    CHANGED: ClassVar = {**FILES, "app/app.py": "import alpha  # changed\n"}

    def beginning(self, host: Host, bundle: dict[str, Any]) -> dict[str, Any]:
        """What the action sends: which packages, and the archive without them."""
        content, manifest = action.beginning_of(host.archive)
        return {
            "bundle": {**bundle, "packages_digest": manifests.packages_digest(manifest)},
            "archive": None,
            "beginning": base64.b64encode(content).decode(),
        }

    def test_packages_come_from_another_release(self, host):
        host.run(host.bundle("a" * 12))
        result = host.run(**self.beginning(host, host.bundle("b" * 12, self.CHANGED)))
        path = Path(result["path"])
        assert (result["installed"], path.name) == (True, "b" * 12)
        assert (path / "app/app.py").read_text() == self.CHANGED["app/app.py"]
        done = subprocess.run([path / "bin/alpha-run"], capture_output=True, text=True, check=True)
        assert done.stdout == "alpha runs\n"
        verifying = host.run(host.bundle("b" * 12, self.CHANGED), verify=True)
        assert verifying["changed"] is False

    def test_releases_share_no_file(self, host):
        """Whoever edits one on the host does not edit what a rollback leads to."""
        first = Path(host.run(host.bundle("a" * 12))["path"])
        second = host.run(**self.beginning(host, host.bundle("b" * 12, self.CHANGED)))["path"]
        for path in (first, Path(second)):
            links = [each.lstat().st_nlink for each in path.rglob("*") if each.is_file()]
            assert set(links) == {1}

    def test_file_in_place_of_the_text_does_as_well(self, host, tmp_path):
        host.run(host.bundle("a" * 12))
        sent = self.beginning(host, host.bundle("b" * 12, self.CHANGED))
        file = tmp_path / "beginning"
        file.write_bytes(base64.b64decode(sent.pop("beginning")))
        result = host.run(**sent | {"archive": str(file), "partial": True})
        assert result["installed"] is True

    def test_all_is_asked_for_without_such_a_release(self, host):
        sent = self.beginning(host, host.bundle("b" * 12, self.CHANGED))
        assert host.run(**sent) == {"changed": False, "needed": "all"}
        assert not host.root.exists()
        other = {**FILES, "site-packages/alpha/__init__.py": "version = 2\n"}
        host.run(host.bundle("a" * 12, other))
        sent = self.beginning(host, host.bundle("b" * 12, self.CHANGED))
        assert host.run(**sent) == {"changed": False, "needed": "all"}

    @pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("print('x')\n")])
    def test_damaged_release_passes_nothing_on(self, host, damage):
        damaged = Path(host.run(host.bundle("a" * 12))["path"])
        [package] = damaged.glob("lib/*/site-packages/alpha/__init__.py")
        damage(package)
        sent = self.beginning(host, host.bundle("b" * 12, self.CHANGED))
        assert host.run(**sent) == {"changed": False, "needed": "all"}
        assert host.left() == [".lock", "a" * 12]

    def test_beginning_that_lacks_a_file_of_the_application_is_refused(self, host):
        host.run(host.bundle("a" * 12))
        bundle = host.bundle("b" * 12, FILES, files={**host.digests(FILES), "app/x.py": "0" * 64})
        with pytest.raises(ReleaseError, match=r"lacks app/x.py of its manifest"):
            host.run(**self.beginning(host, bundle))
        assert host.left() == [".lock", "a" * 12]


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

    def test_question_goes_alone_for_a_bundle_that_was_built_long_ago(self, plugin, host):
        """It has most likely been shipped, and nothing of it is sent in vain."""
        made = plugin()
        os.utime(host.archive, (0, 0))
        made._execute_module.return_value = {"changed": False, "id": "a"}
        made.run(task_vars={})
        [call] = made._execute_module.call_args_list
        sent = call.kwargs["module_args"]
        assert "beginning" not in sent
        assert "packages_digest" not in sent["bundle"]

    def test_beginning_goes_along_with_the_question_of_a_new_bundle(self, plugin, host):
        made = plugin()
        made._execute_module.return_value = {"changed": True, "id": "a"}
        made.run(task_vars={})
        [call] = made._execute_module.call_args_list
        sent = call.kwargs["module_args"]
        assert sent["bundle"]["packages_digest"]
        content = base64.b64decode(sent["beginning"])
        assert host.archive.read_bytes().startswith(content)
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(content))) as archive:
            names = archive.getnames()
        assert names == ["manifest.json", "app/app.py", "app/static/a.css"]
        made._transfer_file.assert_not_called()

    @pytest.mark.parametrize(("age", "trips"), [("new", 2), ("old", 3)])
    def test_archive_is_sent_when_asked_for(self, plugin, host, age, trips):
        made = plugin()
        if age == "old":
            os.utime(host.archive, (0, 0))
        asked = [{"needed": "digest"}] if age == "old" else []
        made._execute_module.side_effect = [*asked, {"needed": "all"}, {"changed": True, "id": "a"}]
        result = made.run(task_vars={})
        assert (result["changed"], "needed" in result) == (True, False)
        assert made._execute_module.call_count == trips
        made._transfer_file.assert_called_once_with(str(host.archive), "/tmp/t/bundle.tar.gz")
        arguments = made._execute_module.call_args.kwargs["module_args"]
        assert (arguments["archive"], arguments["partial"]) == ("/tmp/t/bundle.tar.gz", False)
        assert "beginning" not in arguments

    def test_large_beginning_is_sent_as_a_file(self, plugin, host, monkeypatch):
        monkeypatch.setattr(action, "ALONG_BYTES", 10)
        made = plugin()
        made._execute_module.side_effect = [{"needed": "beginning"}, {"changed": True, "id": "a"}]
        sent = []
        made._transfer_file.side_effect = lambda here, _: sent.append(Path(here).read_bytes())
        made.run(task_vars={})
        first, second = (call.kwargs["module_args"] for call in made._execute_module.call_args_list)
        assert "beginning" not in first
        assert second["partial"] is True
        assert sent == [action.beginning_of(host.archive)[0]]
        assert len(sent[0]) < host.archive.stat().st_size

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
        made._execute_module.return_value = {"changed": False, "needed": "digest"}
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
