"""`wsgi.host.halt`: a host that goes away ends the whole run. Who has it: test_quick_forks.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from conftest import PROJECT

CONTROL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
HOSTS = {
    "first": {"hosts": {"a1": {"ansible_host": "127.0.0.1", "ansible_port": 1}, "a2": CONTROL}},
    "second": {"hosts": {"b1": CONTROL}},
}


def run(tmp_path: Path, callbacks: str = "", **keywords: Any) -> subprocess.CompletedProcess[str]:
    """Two plays, the first of which has a host that is not there."""
    ask = {"name": "Ask", "ansible.builtin.command": {"argv": ["true"]}, **keywords}
    plays = [
        {
            "hosts": f"{{{{ groups | wsgi.host.concerned('{group}') }}}}",
            "gather_facts": False,
            "any_errors_fatal": not keywords,
            "tasks": [ask],
        }
        for group in HOSTS
    ]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(plays))
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(HOSTS))
    environment = {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_HOME": str(tmp_path)}
    if callbacks:
        environment["ANSIBLE_CALLBACKS_ENABLED"] = callbacks
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts.yml", "play.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_no_play_follows_one_in_which_a_host_went_away(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode
    assert "b1" not in done.stdout
    warned = " ".join(done.stderr.split())
    assert "a1 cannot be reached, so the plays that follow do nothing. Run again once it" in warned
    # Ansible's own way, which this is about.
    assert "changed: [b1]" in run(tmp_path, "wsgi.host.quick_forks").stdout


def test_where_a_task_says_so_the_run_goes_on(tmp_path: Path) -> None:
    done = run(tmp_path, ignore_unreachable=True)
    assert "changed: [b1]" in done.stdout
    assert "do nothing" not in done.stderr
