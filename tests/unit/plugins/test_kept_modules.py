"""Modules that stay on the host: what is sent, what becomes of it, and who goes Ansible's way."""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import pickle
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible import constants as C
from ansible.executor.module_common import modify_module
from ansible.plugins.action import ActionBase
from ansible_collections.wsgi.host.plugins.plugin_utils import kept_modules, launcher
from ansible_collections.wsgi.host.plugins.plugin_utils.kept_modules import Plain
from conftest import PROJECT, action_of

PLUGINS = PROJECT / "collections/ansible_collections/wsgi/host/plugins"
# The others are actions, and are never sent.
MODULES = [
    path
    for path in sorted((PLUGINS / "modules").glob("*.py"))
    if "AnsibleModule(" in path.read_text()
]
# Of the machines that are provisioned.
OLDEST = (3, 9)
# A module that only answers, with what it was given.
HOLDINGS = {
    "files": "/nowhere/files",
    "credential": "/nowhere/credential",
    "stamp": "/nowhere/stamp",
    "url": "",
    "backup_settings": "/nowhere/backup.json",
    "backup_directory": "",
    "mounts": [],
}
Send = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def local_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a run keeps what its processes share."""
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(folder))
    return folder


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a host keeps the modules."""
    place = tmp_path / "host" / "wsgi-host"
    place.parent.mkdir()
    text = Path(launcher.__file__).read_text().replace('"/run/wsgi-host"', repr(str(place)))
    monkeypatch.setattr(kept_modules, "_launcher", lambda: text)
    return place


@pytest.fixture
def send(tmp_path: Path, parent: Path) -> Send:
    """Run a payload as a host does, from a folder with a module that nobody wants."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    (cwd / "json.py").write_text("raise SystemExit('imported from where the task started')")

    def run(*, whole: bool, **arguments: Any) -> dict[str, Any]:
        script = kept_modules.payload("wsgi.host.holdings", {**HOLDINGS, **arguments}, whole=whole)
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable],
            input=script,
            cwd=cwd,
            capture_output=True,
            check=False,
            env=environment,
        )
        assert done.stdout, done.stderr.decode()
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return run


def version_of(parent: Path) -> Path:
    return parent / kept_modules.digest()


# What is sent -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_all_that_ansible_would_send_is_sent(path: Path, local_temporary: Path) -> None:
    modify_module(
        module_name=f"wsgi.host.{path.stem}",
        module_path=str(path),
        module_args={},
        templar=MagicMock(),
        task_vars={"ansible_playbook_python": sys.executable},
        remote_is_local=True,
    )
    (cached,) = [
        each
        for each in (local_temporary / "ansiballz_cache").iterdir()
        if each.suffix != ".lock" and path.stem in each.name
    ]
    packed = base64.b64decode(pickle.loads(cached.read_bytes()).zip_data)
    names = set(zipfile.ZipFile(io.BytesIO(packed)).namelist())
    assert names
    assert names <= set(kept_modules.contents())


def test_everything_is_understood_by_the_oldest_python_of_a_host() -> None:
    own = {name: text for name, text in kept_modules.contents().items() if "wsgi" in name}
    assert own
    for name, text in own.items():
        ast.parse(text, name, feature_version=OLDEST)
    ast.parse(Path(launcher.__file__).read_bytes(), feature_version=(3, 8))


def test_the_version_tells_what_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = kept_modules.digest()
    assert before == kept_modules.digest()
    more = tmp_path / "more.py"
    more.write_text("")
    files = [*kept_modules.own_files(), more]
    monkeypatch.setattr(kept_modules, "own_files", lambda: files)
    added = kept_modules.digest()
    more.write_text("pass")
    assert len({before, added, kept_modules.digest()}) == 3


def test_modules_that_change_during_a_run_are_not_kept(
    monkeypatch: pytest.MonkeyPatch, local_temporary: Path
) -> None:
    """A host would have them under the name of those before, and run them for whoever has these."""
    kept_modules.payload("wsgi.host.holdings", HOLDINGS, whole=False)
    assert b"archive=''" not in kept_modules.payload("wsgi.host.holdings", HOLDINGS, whole=True)
    for made in local_temporary.glob("wsgi-host-modules*"):
        made.unlink()
    monkeypatch.setattr(kept_modules, "digest", lambda: "0" * 32)
    assert b"archive=''" in kept_modules.payload("wsgi.host.holdings", HOLDINGS, whole=True)


def test_a_task_sends_no_code() -> None:
    code = kept_modules.payload("wsgi.host.holdings", HOLDINGS, whole=False)
    assert len(code) < 5_000
    assert b"AnsibleModule" not in code


# What becomes of it on the host -------------------------------------------------------------------


def test_modules_are_sent_once(send: Send, parent: Path) -> None:
    assert send(whole=False) == {launcher.MISSING: True}
    first = send(whole=True)
    assert "holdings" in str(first) or first["changed"] is False
    assert send(whole=False) == first
    assert oct(parent.stat().st_mode & 0o777) == "0o700"
    assert oct(version_of(parent).stat().st_mode & 0o777) == "0o700"


def test_byte_code_is_kept(send: Send, parent: Path) -> None:
    send(whole=True)
    compiled = sorted(path.name for path in version_of(parent).rglob("*.pyc"))
    assert any(name.startswith("basic.") for name in compiled)


def test_what_was_taken_away_is_sent_again(send: Send, parent: Path) -> None:
    first = send(whole=True)
    engine = version_of(parent) / "ansible/module_utils/_internal/_ansiballz/_loader.py"
    for path in [engine, *engine.parent.rglob("_loader.*.pyc")]:
        path.unlink()
    assert send(whole=False) == {launcher.MISSING: True}
    assert send(whole=True) == first
    assert engine.exists()


def test_no_room_is_told(send: Send, parent: Path) -> None:
    parent.write_text("in the way")
    assert send(whole=True) == {launcher.MISSING: True}


def test_old_versions_go_and_those_in_use_stay(send: Send, parent: Path) -> None:
    parent.mkdir(mode=0o700)
    ages = {"oldest": 9000, "older": 8000, "old": 7000, "new": 60}
    for name, age in ages.items():
        (parent / name).mkdir()
        os.utime(parent / name, (time.time() - age,) * 2)
    send(whole=True)
    assert {path.name for path in parent.iterdir()} == {"old", "new", version_of(parent).name}


# Who goes Ansible's own way -----------------------------------------------------------------------


def action(**said: Any) -> Any:
    task = {"delegate_to": None, "async_val": 0, **said.pop("task", {})}
    made = action_of(Plain, {}, **task)
    made._templar.template = lambda value: value
    made._connection._remote_is_local = False
    made._connection.become = said.get("become", True)
    made.get_become_option = lambda name, default=None: said.get("become_user", default)
    made._get_remote_user = lambda: said.get("user", "ops")
    return made


PYTHON = {"ansible_python_interpreter": "/usr/bin/python3"}


@pytest.mark.parametrize(
    ("said", "variables", "module", "expected"),
    [
        ({}, PYTHON, "wsgi.host.probe", "/usr/bin/python3"),
        ({"become_user": "root"}, PYTHON, "wsgi.host.probe", "/usr/bin/python3"),
        ({"become": None, "user": "root"}, PYTHON, "wsgi.host.probe", "/usr/bin/python3"),
        ({}, PYTHON, "ansible.builtin.command", ""),
        ({"become_user": "shop"}, PYTHON, "wsgi.host.probe", ""),
        ({"become": None}, PYTHON, "wsgi.host.probe", ""),
        ({"task": {"async_val": 5}}, PYTHON, "wsgi.host.probe", ""),
        ({}, {"ansible_python_interpreter": "auto"}, "wsgi.host.probe", ""),
        ({}, {**PYTHON, "ansible_python_module_rlimit_nofile": 512}, "wsgi.host.probe", ""),
    ],
)
def test_only_what_is_as_expected_stays_on_the_host(
    said: dict[str, Any], variables: dict[str, Any], module: str, expected: str
) -> None:
    assert action(**said)._interpreter_of_kept(module, variables) == expected


def test_the_python_is_that_of_the_host_that_a_task_is_delegated_to() -> None:
    variables = {
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_delegated_vars": {"other": {"ansible_python_interpreter": "/opt/python"}},
    }
    made = action(task={"delegate_to": "other"})
    assert made._interpreter_of_kept("wsgi.host.probe", variables) == "/opt/python"


def test_another_engine_than_the_expected_is_left_to_ansible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With the Ansible that is locked, nobody loses the time without noticing.
    assert kept_modules._as_expected()
    monkeypatch.setattr(kept_modules, "_as_expected", lambda: False)
    assert action()._interpreter_of_kept("wsgi.host.probe", PYTHON) == ""


@pytest.mark.parametrize(("missing", "sent"), [(0, 1), (1, 2), (2, 3)])
def test_each_way_is_tried_once(missing: int, sent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ways: list[str] = []

    def execute(self: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        ways.append(self._sends)
        return {launcher.MISSING: True} if len(ways) <= missing else {"changed": False}

    monkeypatch.setattr(ActionBase, "_execute_module", execute)
    assert action()._execute_module("wsgi.host.probe") == {"changed": False}
    assert ways == [kept_modules.NO_CODE, kept_modules.WHOLE, kept_modules.ANSIBLES][:sent]
