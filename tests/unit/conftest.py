"""Helpers of the offline tests: where the repository is, and playbooks run against this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import compiled
import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

PROJECT = Path(__file__).resolve().parents[2]
# Otherwise no plugin is found under its whole name, such as `ansible.builtin.vars`.
init_plugin_loader([str(PROJECT / "collections")])
compiled.remember()


@dataclass(frozen=True)
class Run:
    """What `ansible-playbook` did."""

    code: int
    output: str

    def problems(self) -> list[str]:
        """What a preflight complained about, without the hyphens."""
        lines = [line.strip() for line in self.output.splitlines()]
        return list(dict.fromkeys(line[2:] for line in lines if line.startswith("- ")))


Play = Callable[..., Run]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Runs tasks against this machine, without SSH, with roles of `tmp_path`/roles.

    `extra` are extra variables, `inventory` those of the host, `arguments` go to ansible-playbook,
    `settings` are environment variables of its own.
    """

    def run(
        *tasks: dict[str, Any],
        extra: dict[str, Any] | None = None,
        inventory: dict[str, Any] | None = None,
        arguments: tuple[str, ...] = (),
        settings: Mapping[str, str] | None = None,
    ) -> Run:
        host = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            **(inventory or {}),
        }
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"here": host}}}))
        book = [{"name": "Test", "hosts": "all", "gather_facts": False, "tasks": list(tasks)}]
        (tmp_path / "play.yml").write_text(yaml.safe_dump(book, sort_keys=False))
        done = subprocess.run(
            [
                *(Path(sys.executable).with_name("ansible-playbook"), "play.yml"),
                *("--inventory", "hosts.yml", "--extra-vars", json.dumps(extra or {})),
                *arguments,
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / "collections"),
                "ANSIBLE_ROLES_PATH": str(tmp_path / "roles"),
                "ANSIBLE_HOME": str(tmp_path / "ansible"),
                "ANSIBLE_NOCOLOR": "1",
                **(settings or {}),
            },
        )
        return Run(done.returncode, done.stdout + done.stderr)

    return run


def action_of(
    plugin: type[ActionBase],
    arguments: Mapping[str, Any],
    variables: Mapping[str, Any] | None = None,
    loader: DataLoader | None = None,
    *,
    play: str = "play",
    **task: Any,
) -> Any:
    """An action as Ansible makes it for a task; how it calls the host is left to the test.

    Args:
        arguments: of the task.
        variables: with them the action templates; without, it is one that does not.
        loader: reads the files of roles.
        play: tells one play from another.
        task: what else the task says, such as `check_mode`.
    """
    said = {"async_val": 0, "diff": False, "check_mode": False, **task}
    made = MagicMock(args=dict(arguments), **said)
    made._role = SimpleNamespace(_play=SimpleNamespace(_uuid=play))
    templated = {} if variables is None else {"loader": loader, "variables": variables}
    return plugin(
        task=made,
        connection=MagicMock(),
        play_context=MagicMock(),
        loader=loader or MagicMock(),
        templar=Templar(**templated) if templated else MagicMock(),
        shared_loader_obj=None,
    )


def trusted(value: Any) -> Any:
    """As if it had been read from an inventory: templates in it count."""
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value
