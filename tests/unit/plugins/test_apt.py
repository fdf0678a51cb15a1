"""`wsgi.host.apt`: which lock is held by whom, and how long the action waits for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wsgi.host.plugins.action import apt as action
from ansible_collections.wsgi.host.plugins.modules import apt as module
from conftest import PROJECT, action_of

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A lock that another process holds until its input ends."""
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield path, process


def test_module_names_who_holds_a_lock(
    lock: tuple[Path, subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, process = lock
    free = path.with_name("free")
    free.touch()
    monkeypatch.setattr(module, "LOCKS", (str(path.with_name("none")), str(free), str(path)))
    assert module.held().endswith(f"(pid {process.pid}), which holds {path}")
    process.communicate()
    assert module.held() == ""


def test_every_lock_of_apt_is_looked_at() -> None:
    """apt-get's own option covers dpkg's two, so the others are the ones that matter."""
    text = (PROJECT / "setup/apt.sh").read_text()
    for path in ("apt/lists/lock", "dpkg/lock-frontend", "dpkg/lock"):
        assert f"/var/lib/{path}" in module.LOCKS
    assert "/var/cache/apt/archives/lock" in module.LOCKS
    assert f"apt_locks=({' '.join(module.LOCKS)})" in text


def test_scripts_wait_and_name_who_holds_a_lock(
    lock: tuple[Path, subprocess.Popen[str]],
) -> None:
    path, process = lock
    script = f"""
        set -euo pipefail
        say() {{ echo "$*"; }}
        source {PROJECT}/setup/apt.sh
        apt_locks=({path})
        wait_for_apt 0
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"(pid {process.pid}), which holds {path}" in done.stdout
    process.communicate()
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


class Host:
    """Answers of a host: who holds a lock at each look, and what apt returns each time."""

    def __init__(self, held: list[str], results: list[dict[str, Any]]) -> None:
        self.held = held
        self.results = results
        self.calls: list[str] = []

    def run(self, **options: Any) -> dict[str, Any]:
        arguments = {"name": ["nginx"], "policy_rc_d": 101, **options}
        plugin = action_of(action.ActionModule, arguments)

        def execute(module_name: str, module_args: dict[str, Any], **_: Any) -> dict[str, Any]:
            self.calls.append(module_name)
            if module_name == "wsgi.host.apt":
                return {"held": self.held.pop(0)}
            assert module_args["name"] == ["nginx"]
            assert module_args["policy_rc_d"] == 101
            return dict(self.results.pop(0))

        plugin._execute_module = execute
        return plugin.run(task_vars={"inventory_hostname": "web1"})


APT = "ansible.builtin.apt"
LOOK = "wsgi.host.apt"
HELD = "apt-get (pid 7), which holds /var/lib/apt/lists/lock"


def test_it_waits_before_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    host = Host([HELD, HELD, ""], [{"changed": True}])
    assert host.run() == {"changed": True, "waited_for": [HELD]}
    assert host.calls == [LOOK, LOOK, LOOK, APT]


def test_it_tries_again_when_somebody_was_faster() -> None:
    host = Host(["", HELD, HELD, ""], [{"failed": True, "msg": "?"}, {"changed": True}])
    assert host.run() == {"changed": True, "waited_for": [HELD]}


def test_a_failure_of_apts_own_is_returned() -> None:
    failure = {"failed": True, "msg": "no such package"}
    assert Host(["", ""], [failure]).run() == failure


def test_it_gives_up_and_says_for_whom_it_waited() -> None:
    host = Host([HELD], [])
    result = host.run(lock_timeout=0)
    assert result["failed"]
    assert f"after 0 s web1 still waits for {HELD}. See what it does" in result["msg"]
