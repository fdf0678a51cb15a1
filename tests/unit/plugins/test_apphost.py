"""`wsgi.host.apphost`: what is sent, and versions in a folder, compiled by this machine's Python.

Read with apphost/installation.py and its tests, tests/unit/host/test_installation.py.
"""

from __future__ import annotations

import base64
import json
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible_collections.wsgi.host.plugins.action import apphost as action
from ansible_collections.wsgi.host.plugins.modules import apphost as module
from apphost.installation import digest, installed, sources
from conftest import PROJECT, Play, action_of

PACKAGE = PROJECT / "host/apphost"
Content = dict[str, bytes]


def content(word: str, **more: str) -> Content:
    """The files of a version."""
    files = {"__init__.py": "", "cli.py": f"word = {word!r}\n", "backup/make.py": "", **more}
    return {name: text.encode() for name, text in files.items()}


OLDER, OLD, NEW = content("older"), content("old"), content("new")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "lib/apphost"


def install(place: Path, files: Content) -> str:
    """Install a version; return its name."""
    version = digest(files)
    module.install(place, version, files)
    return version


def names(place: Path) -> set[str]:
    """What is in the place, hidden or not."""
    return {path.name for path in place.iterdir()}


# On the host --------------------------------------------------------------------------------------


def test_version_is_installed_compiled_and_live(place: Path) -> None:
    version = install(place, NEW)
    assert installed(place) == version
    assert sources(place / "current/apphost") == NEW
    assert names(place) == {version, "current"}
    # Relative, so that a copy of the whole place is one.
    assert (place / "current").readlink() == Path(version)
    for path in place.rglob("*.py"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        [compiled] = path.parent.glob(f"__pycache__/{path.stem}.*.pyc")
        # PEP 552: by the content's hash, which is not compared.
        assert compiled.read_bytes()[4:8] == (1).to_bytes(4, "little")


def test_version_before_stays_for_commands_that_run(place: Path) -> None:
    """And no more than that one, whatever came before."""
    older, old = install(place, OLDER), install(place, OLD)
    assert names(place) == {older, old, "current"}
    new = install(place, NEW)
    assert names(place) == {old, new, "current"}
    # Back to what was there.
    install(place, OLD)
    assert names(place) == {old, new, "current"}
    assert installed(place) == old


@pytest.mark.parametrize("file", ["apphost/cli.py", "apphost/more.py", "apphost/backup/make.py"])
def test_version_with_a_file_changed_by_hand_is_repaired(place: Path, file: str) -> None:
    old, version = install(place, OLD), install(place, NEW)
    (place / version / file).write_text("raise SystemExit('by hand')\n")
    assert installed(place) == ""
    install(place, NEW)
    assert installed(place) == version
    assert sources(place / version / "apphost") == NEW
    assert names(place) - {old} == {version, "current"}


@pytest.mark.parametrize("step", ["run", "rename", "point"])
def test_killed_run_leaves_what_was_live_and_the_next_one_cleans_up(
    place: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """While it compiles, before the version has its name, and before `current` leads to it."""
    old = install(place, OLD)
    owner = {"run": module.subprocess, "rename": module.os, "point": module.files}[step]
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, MagicMock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            install(place, NEW)
    assert installed(place) == old
    (place / ".current").symlink_to("nowhere")
    new = install(place, NEW)
    assert installed(place) == new
    assert names(place) == {old, new, "current"}


# The module ---------------------------------------------------------------------------------------


class Ended(Exception):
    """How the module ended; holds its result."""


def payload(files: Content) -> str:
    """The files as the action sends them."""
    text = json.dumps({name: text.decode() for name, text in files.items()})
    return base64.b64encode(zlib.compress(text.encode())).decode()


@pytest.fixture
def call(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs the module's `main` on a place that belongs to whoever runs this."""
    monkeypatch.setattr(module, "PLACE", place)
    monkeypatch.setattr(module, "installed", lambda: installed(place))
    monkeypatch.setattr(module, "require_own", lambda *_, **__: None)

    def call(files: Content | None, *, check: bool = False, version: str = "") -> dict[str, Any]:
        result: dict[str, Any] = {}

        def end(**facts: Any) -> None:
            result.update(facts)
            raise Ended

        made = MagicMock(check_mode=check, exit_json=end)
        made.fail_json = lambda **facts: end(failed=True, **facts)
        made.params = {"version": None, "payload": None}
        if files is not None:
            made.params = {"version": version or digest(files), "payload": payload(files)}
        monkeypatch.setattr(module, "AnsibleModule", lambda **_: made)
        with pytest.raises(Ended):
            module.main()
        return result

    return call


def test_second_run_changes_nothing(call: Callable[..., dict[str, Any]], place: Path) -> None:
    first = call(NEW)
    assert (first["changed"], first["version"]) == (True, digest(NEW))
    before = (place / digest(NEW)).stat().st_mtime_ns
    second = call(NEW)
    assert (second["changed"], second["version"]) == (False, digest(NEW))
    assert (place / digest(NEW)).stat().st_mtime_ns == before


def test_check_mode_tells_the_versions_and_installs_none(
    call: Callable[..., dict[str, Any]], place: Path
) -> None:
    told = call(NEW, check=True)
    assert told["changed"]
    assert told["diff"] == {"before": f"{place}: nothing\n", "after": f"{place}: {digest(NEW)}\n"}
    assert not place.exists()


def test_module_that_was_called_without_its_action_says_so(
    call: Callable[..., dict[str, Any]],
) -> None:
    result = call(None)
    assert result["failed"]
    assert "Call this by its name, wsgi.host.apphost." in result["msg"]


def test_what_arrived_in_part_is_refused(call: Callable[..., dict[str, Any]], place: Path) -> None:
    result = call(NEW, version=digest(OLD))
    assert result["msg"] == f"What arrived is not version {digest(OLD)}. Run the playbook again."
    assert not place.exists()


def test_source_that_does_not_compile_never_goes_live(
    call: Callable[..., dict[str, Any]], place: Path
) -> None:
    """As with a Python of the host that is older than the package wants."""
    call(OLD)
    broken = content("new", **{"cli.py": "def start(:\n"})
    result = call(broken)
    assert result["msg"].startswith(f"/usr/bin/python3 cannot compile {place}/{digest(broken)}: ")
    assert "SyntaxError" in result["msg"]
    assert installed(place) == digest(OLD)


def test_place_that_others_can_change_is_refused(
    call: Callable[..., dict[str, Any]], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root runs what is there."""
    foreign = module.ForeignPathError("can be changed by anna")
    monkeypatch.setattr(module, "require_own", MagicMock(side_effect=foreign))
    assert call(NEW)["msg"] == "can be changed by anna"
    assert not place.exists()


# On the control node ------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[dict[str, Any], list[Any]]]:
    """Runs the action for a host with these facts; gives its result and what it sends."""

    def run(
        facts: dict[str, Any], *, check: bool = False, answer: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], list[Any]]:
        made = action_of(action.ActionModule, {}, check_mode=check)
        sent: list[Any] = []

        def execute(module_name: str, module_args: dict[str, Any], **_: Any) -> dict[str, Any]:
            sent.append((module_name, module_args))
            return answer or {"changed": True, "version": module_args["version"]}

        monkeypatch.setattr(made, "_execute_module", execute)
        return made.run(task_vars={"ansible_facts": facts}), sent

    return run


VERSION = action.packed()[0]


def test_package_of_the_repository_is_what_is_sent(run: Callable[..., Any]) -> None:
    result, [(name, arguments)] = run({})
    assert name == "wsgi.host.apphost"
    assert arguments["version"] == VERSION == digest(sources(PACKAGE))
    unpacked = json.loads(zlib.decompress(base64.b64decode(arguments["payload"])))
    assert {key: text.encode() for key, text in unpacked.items()} == sources(PACKAGE)
    assert result["changed"]
    # Without facts there is nothing to bring up to date.
    assert "ansible_facts" not in result


def test_no_trip_is_made_where_the_version_is_in_place(run: Callable[..., Any]) -> None:
    result, sent = run({"wsgi_host": {"apphost": VERSION}})
    assert (result["changed"], result["version"], sent) == (False, VERSION, [])


@pytest.mark.parametrize("seen", ["", "0123456789ab"])
def test_next_role_of_the_run_makes_no_trip(run: Callable[..., Any], seen: str) -> None:
    facts = {"wsgi_host": {"apphost": seen, "family": "Debian"}}
    result, sent = run(facts)
    assert len(sent) == 1
    assert result["ansible_facts"] == {"wsgi_host": {"apphost": VERSION, "family": "Debian"}}
    assert run(result["ansible_facts"])[1] == []


@pytest.mark.parametrize(
    ("check", "answer"), [(True, None), (False, {"failed": True, "msg": "no"})]
)
def test_what_did_not_happen_is_no_fact(
    run: Callable[..., Any], check: bool, answer: dict[str, Any] | None
) -> None:
    result, sent = run({"wsgi_host": {"apphost": ""}}, check=check, answer=answer)
    assert len(sent) == 1
    assert "ansible_facts" not in result


def test_module_runs_as_ansible_packs_it(play: Play) -> None:
    """With those parts of the package that it imports, through the link in `module_utils`."""
    result = play({"wsgi.host.apphost": None}, arguments=("--check", "--diff"))
    assert result.code == 0, result.output
    assert f"/usr/local/lib/apphost: {VERSION}" in result.output
