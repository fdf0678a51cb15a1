"""What Jinja has compiled is kept: for forks and later runs, of this project's templates alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.wsgi.host.plugins.module_utils.paths import ForeignPathError
from ansible_collections.wsgi.host.plugins.plugin_utils.compiled_templates import Store
from conftest import PROJECT

KEYS = [bytes([number]) * 16 for number in range(3)]
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
    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, "aggregate", "counting"
    CALLBACK_NEEDS_ENABLED = True
"""
FILTER = """
from ansible._internal._templating import _jinja_bits as engine
class FilterModule:
    def filters(self):
        return {"compilations": lambda _: len(engine.compiled)}
"""
QUICK = "wsgi.host.quick_forks"


def test_forks_and_later_runs_know_what_was_compiled(tmp_path: Path) -> None:
    path = tmp_path / "home" / "a.codes"
    parent = Store(path)
    assert parent.get(KEYS[0]) is None
    if not (child := os.fork()):
        parent.add(KEYS[0], b"code")
        os._exit(0)
    os.waitpid(child, 0)
    assert parent.get(KEYS[0]) == b"code"
    assert Store(path).get(KEYS[0]) == b"code"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_half_a_record_costs_that_record_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.codes"
    first = Store(path)
    first.add(KEYS[0], b"whole")
    first.add(KEYS[1], b"in the middle of this the power was cut")
    os.truncate(path, path.stat().st_size - 5)
    again = Store(path)
    assert (again.get(KEYS[0]), again.get(KEYS[1])) == (b"whole", None)
    again.add(KEYS[2], b"later")
    assert Store(path).get(KEYS[2]) == b"later"


def test_a_changed_byte_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "a.codes"
    Store(path).add(KEYS[0], b"code")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"code", b"cose"))
    assert Store(path).get(KEYS[0]) is None


@pytest.mark.parametrize("mode", [0o660, 0o606])
def test_what_others_can_write_to_is_not_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.codes"
    Store(path)
    path.chmod(mode)
    with pytest.raises(ForeignPathError):
        Store(path)


def test_a_directory_that_others_can_change_is_not_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ForeignPathError):
        Store(tmp_path / "home" / "a.codes")
    assert not (tmp_path / "home").exists()


def compilations(tmp_path: Path, callback: str = QUICK) -> int:
    """How many templates a task compiles that looks at two variables of a role."""
    for folder, name, text in (
        ("filter_plugins", "compilations", FILTER),
        ("callback_plugins", "counting", COUNTING),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.py").write_text(text)
    said = "{{ [__nginx_version, __nginx_tls_listen] | length }}={{ '' | compilations }}."
    tasks = [
        {"ansible.builtin.include_vars": {"file": str(PROJECT / "roles/nginx/vars/main.yml")}},
        {
            "ansible.builtin.debug": {"msg": said},
            "vars": {"ansible_facts": {"wsgi_host": {"packages": {"nginx": "1.26.0"}}}},
        },
    ]
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
            "ANSIBLE_HOME": str(tmp_path / "home"),
            "ANSIBLE_CALLBACKS_ENABLED": f"{callback},counting",
            "ANSIBLE_CALLBACK_PLUGINS": str(tmp_path / "callback_plugins"),
        },
    )
    return int(done.stdout.split("2=")[1].split(".")[0])


def test_a_second_run_compiles_only_what_is_the_inventorys(tmp_path: Path) -> None:
    first = compilations(tmp_path)
    # The play's own text, whose pieces may be secrets, is compiled each time.
    assert 0 < compilations(tmp_path) < first
    [kept] = (tmp_path / "home/wsgi-host").glob("*.codes")
    assert b"compilations" not in kept.read_bytes()
    assert compilations(tmp_path, "ansible.builtin.default") > first
