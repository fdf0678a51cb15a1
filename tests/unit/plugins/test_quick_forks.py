"""`wsgi.host.quick_forks`: the collector of garbage in forks, and templates compiled once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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


# Counts what is compiled; a filter tells it where a task's templates are, which is in its fork.
COUNTING = """
from ansible._internal._templating import _jinja_bits as engine
from ansible.plugins.callback import CallbackBase
engine.compiled = []
ansibles = engine.AnsibleEnvironment._generate
def counted(self, *args, **named):
    engine.compiled.append(1)
    return ansibles(self, *args, **named)
engine.AnsibleEnvironment._generate = counted
class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, "aggregate", "of_the_test"
    CALLBACK_NEEDS_ENABLED = True
"""
COMPILATIONS = """
from ansible._internal._templating import _jinja_bits as engine
class FilterModule:
    def filters(self):
        return {"compilations": lambda _: len(engine.compiled)}
"""
QUICK = "wsgi.host.quick_forks"


@pytest.mark.parametrize("callback", [QUICK, "wsgi.host.halt"])
@pytest.mark.parametrize("settings", ["ansible.cfg", "setup/lib.sh"])
def test_everybody_who_runs_the_playbooks_has_it(settings: str, callback: str) -> None:
    """A variable of the environment replaces what ansible.cfg says."""
    [line] = [
        line
        for line in (PROJECT / settings).read_text().splitlines()
        if "callbacks_enabled" in line.lower()
    ]
    assert callback in line


def play(tmp_path: Path, tasks: list[dict[str, Any]], /, vars: Any = None, **settings: str) -> str:
    """What `ansible-playbook` says about these tasks, with the project's settings."""
    played = {"hosts": "localhost", "gather_facts": False, "vars": vars or {}, "tasks": tasks}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([played]))
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
            "ANSIBLE_HOME": str(tmp_path / "home"),
            **settings,
        },
    )
    return done.stdout


def write_plugin(tmp_path: Path, kind: str, text: str) -> None:
    """A plugin beside the play."""
    folder = tmp_path / f"{kind}_plugins"
    folder.mkdir(exist_ok=True)
    (folder / "of_the_test.py").write_text(text)


def test_forks_leave_alone_what_was_there_before(tmp_path: Path) -> None:
    write_plugin(tmp_path, "filter", FILTER)
    tasks = [{"ansible.builtin.debug": {"msg": "{{ '' | collector | to_json }}"}}]
    said = play(tmp_path, tasks, ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    [line] = [line for line in said.splitlines() if '"msg":' in line]
    frozen, threshold = json.loads(json.loads("{" + line.strip().rstrip(",") + "}")["msg"])
    assert frozen > 50_000
    assert threshold == 100_000


def compilations(tmp_path: Path, callback: str = QUICK) -> int:
    """How many templates a task compiles that looks at two variables of a role."""
    write_plugin(tmp_path, "filter", COMPILATIONS)
    write_plugin(tmp_path, "callback", COUNTING)
    said = "{{ [__nginx_version, __nginx_tls_listen] | length }}={{ '' | compilations }}."
    tasks: list[dict[str, Any]] = [
        {"ansible.builtin.include_vars": {"file": str(PROJECT / "roles/nginx/vars/main.yml")}},
        {
            "ansible.builtin.debug": {"msg": said},
            "vars": {"ansible_facts": {"wsgi_host": {"packages": {"nginx": "1.26.0"}}}},
        },
    ]
    told = play(
        tmp_path,
        tasks,
        ANSIBLE_CALLBACKS_ENABLED=f"{callback},of_the_test",
        ANSIBLE_CALLBACK_PLUGINS=str(tmp_path / "callback_plugins"),
    )
    return int(told.split("2=")[1].split(".")[0])


def test_a_second_run_compiles_only_what_is_the_inventorys(tmp_path: Path) -> None:
    first = compilations(tmp_path)
    # The play's own text, whose pieces may be secrets, is compiled each time.
    assert 0 < compilations(tmp_path) < first
    [kept] = (tmp_path / "home/wsgi-host").glob("*.codes")
    assert b"compilations" not in kept.read_bytes()
    assert compilations(tmp_path, "ansible.builtin.default") > first
