"""`wsgi.host.quick_forks`: the garbage collector in Ansible's forks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT

# A filter runs where a task's templates are, which is in its fork.
FILTER = """
import gc
class FilterModule:
    def filters(self):
        return {"collector": lambda _: [gc.get_freeze_count(), gc.get_threshold()[0]]}
"""


@pytest.mark.parametrize("settings", ["ansible.cfg", "setup/lib.sh"])
def test_everybody_who_runs_the_playbooks_has_it(settings: str) -> None:
    """A variable of the environment replaces what ansible.cfg says."""
    [line] = [
        line
        for line in (PROJECT / settings).read_text().splitlines()
        if "callbacks_enabled" in line.lower()
    ]
    assert "wsgi.host.quick_forks" in line


def test_forks_leave_alone_what_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "filter_plugins").mkdir()
    (tmp_path / "filter_plugins/collector.py").write_text(FILTER)
    tasks = [{"ansible.builtin.debug": {"msg": "{{ '' | collector | to_json }}"}}]
    play = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "play.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={
            "PATH": "/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
            "ANSIBLE_HOME": str(tmp_path),
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        },
    )
    [line] = [line for line in done.stdout.splitlines() if '"msg":' in line]
    frozen, threshold = json.loads(json.loads("{" + line.strip().rstrip(",") + "}")["msg"])
    assert frozen > 50_000
    assert threshold == 100_000
