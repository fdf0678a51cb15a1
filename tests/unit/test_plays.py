"""What plays rely on is said in them: no setting of a user changes how a run goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import PROJECT

PLAYBOOKS = sorted((PROJECT / "playbooks").glob("*.yml"))
# Hosts go through each task together, and stop together: batches, the lock and the way back are
# made for that. Whatever is done is done as root, reads no facts, and is not cut off in the middle.
PINNED: dict[str, Any] = {
    "strategy": "ansible.builtin.linear",
    "any_errors_fatal": True,
    "become": True,
    "become_user": "root",
    "gather_facts": False,
    # A handler of a failed host would hand over what was to be taken back.
    "force_handlers": False,
    "timeout": 0,
    # Ansible's own modules start systemctl with what sudo passes on. It enabled an init script.
    "environment": {"SYSTEMD_UNIT_PATH": ":", "SYSTEMD_OFFLINE": "0"},
}
# A status asks every host that answers.
EXCEPTIONS: dict[str, dict[str, Any]] = {"status.yml": {"any_errors_fatal": False}}
# Here there is nothing to take back: a host that fails is left out, and no other one is touched.
ONE_BY_ONE = ("drain.yml", "undrain.yml", "reboot.yml", "remove_database.yml", "upgrade.yml")
# Each may stand in somebody's environment, or in an ansible.cfg of theirs.
HOSTILE = {
    "ANSIBLE_STRATEGY": "free",
    "ANSIBLE_GATHERING": "implicit",
    "ANSIBLE_ANY_ERRORS_FATAL": "false",
    "ANSIBLE_FORCE_HANDLERS": "true",
    "ANSIBLE_TASK_TIMEOUT": "7",
    "ANSIBLE_BECOME": "false",
    "ANSIBLE_BECOME_USER": "nobody",
    "ANSIBLE_ERROR_ON_MISSING_HANDLER": "false",
    "ANSIBLE_FORKS": "1",
}
# Prints what Ansible makes of each play, inheritance of its configuration included.
EFFECTIVE = """
import json, sys
from ansible.parsing.dataloader import DataLoader
from ansible.playbook import Playbook
from ansible.plugins.loader import init_plugin_loader
from ansible.inventory.manager import InventoryManager
from ansible.vars.manager import VariableManager
init_plugin_loader()
loader = DataLoader()
inventory = InventoryManager(loader=loader, sources=["h,"])
variables = VariableManager(loader=loader, inventory=inventory)
skipped = {"tasks", "pre_tasks", "post_tasks", "handlers", "roles", "vars", "diff", "connection"}
found = {}
for path in sys.argv[1:]:
    book = Playbook.load(path, variable_manager=variables, loader=loader)
    found[path] = [
        {key: repr(getattr(play, key)) for key in play.fattributes if key not in skipped}
        for play in book.get_plays()
    ]
print(json.dumps(found))
"""


def plays() -> list[tuple[str, dict[str, Any]]]:
    return [
        (path.name, play)
        for path in PLAYBOOKS
        for play in yaml.safe_load(path.read_text())
        if "ansible.builtin.import_playbook" not in play
    ]


@pytest.mark.parametrize(
    ("book", "play"), plays(), ids=lambda each: getattr(each, "get", str)("name")
)
def test_play_says_what_it_relies_on(book: str, play: dict[str, Any]) -> None:
    one_by_one = {"any_errors_fatal": False} if book in ONE_BY_ONE else {}
    wanted = {**PINNED, **one_by_one, **EXCEPTIONS.get(book, {})}
    assert {key: play.get(key) for key in wanted} == wanted
    # Ansible's own batches cannot be taken back, and a share of failures is one too many.
    assert play.get("serial") == (1 if book in ONE_BY_ONE else None)
    assert not {"max_fail_percentage", "ignore_errors", "ignore_unreachable"} & set(play)


@pytest.mark.parametrize("book", ONE_BY_ONE)
def test_no_host_follows_one_that_cannot_be_reached(book: str, tmp_path: Path) -> None:
    """With any_errors_fatal Ansible counts such a host twice, and goes on to the next one."""
    away = {name: {"ansible_host": "127.0.0.1", "ansible_port": 1} for name in ("a1", "a2", "a3")}
    group = "databases" if book == "remove_database.yml" else "web"
    inventory = {group: {"hosts": away}, "balancers": {"hosts": {"b1": {"ansible_port": 1}}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("ansible-playbook"), "-i", tmp_path / "hosts.yml"),
            *(PROJECT / "playbooks" / book, "--limit=a1,a2"),
            *("-e", "application_drain_last=yes application_balancers_down=b1"),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_HOME": str(tmp_path / "home")},
    )
    assert done.returncode
    _, *told = done.stdout.split("PLAY RECAP")[1].splitlines()
    tried = {line.split()[0]: "unreachable=1" in line.split() for line in told if line}
    assert set(tried) == {"a1"}, done.stdout
    # A database that leaves is asked about through those that stay.
    assert tried["a1"] or book == "remove_database.yml"


def test_no_setting_of_a_user_reaches_a_play() -> None:
    """ANSIBLE_STRATEGY=free once switched both hosts before either had looked at the lock."""

    def effective(**environment: str) -> Any:
        plain = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        done = subprocess.run(
            [sys.executable, "-c", EFFECTIVE, *map(str, PLAYBOOKS)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
            env={**plain, **environment},
        )
        return json.loads(done.stdout.splitlines()[-1])

    assert len(plays()) >= 9
    assert effective(**HOSTILE) == effective()


def test_playbooks_that_are_not_looked_at_are_none() -> None:
    """site.yml imports; every other playbook is in playbooks/."""
    others = [
        path for path in Path(PROJECT).glob("*.yml") if path.name not in ("requirements.yml",)
    ]
    for path in others:
        for play in yaml.safe_load(path.read_text()):
            assert set(play) <= {"name", "ansible.builtin.import_playbook"}, path
