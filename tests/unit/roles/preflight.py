"""A role's preflight as its user meets it: the real action, specification and rules.

All of it runs in this process, on hosts that are only facts. A play for each of some thousand cases
would take an hour; that plays stop before they change anything is shown with a few of them, in
tests/unit/plugins/test_preflight.py and test_remedies.py.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.wsgi.host.plugins.action import preflight as action_plugin
from conftest import trusted

from .render import FACTS, ROLES

HOST = "web1"


@dataclass(frozen=True)
class Case:
    """Variables that a user sets, facts unlike those of a Debian host, other hosts with theirs."""

    variables: Mapping[str, Any] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def preflight(role: str, cases: Mapping[str, Case]) -> dict[str, str]:
    """What the role's preflight says to each case: empty where it passes."""
    return {
        name: check(role, trusted(dict(case.variables)), case.host, trusted(dict(case.beside)))
        for name, case in cases.items()
    }


def loaded(path: Path) -> Any:
    return DataLoader().load_from_file(str(path), trusted_as_template=True) or {}


@functools.lru_cache
def options(role: str) -> dict[str, dict[str, Any]]:
    text = (ROLES / role / "meta" / "argument_specs.yml").read_text()
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["argument_specs"]["main"]["options"]
    return found


@functools.lru_cache
def arguments(role: str) -> dict[str, Any]:
    """What the role's own file tells the action."""
    task = loaded(ROLES / role / "tasks" / "preflight.yml")[0]
    told: dict[str, Any] = task["wsgi.host.preflight"]
    return told


@functools.lru_cache
def own(role: str) -> dict[str, Any]:
    """Variables of the role before anybody sets one."""
    files = ("defaults/main.yml", "vars/main.yml", "vars/Debian.yml")
    return {k: v for file in files for k, v in loaded(ROLES / role / file).items()}


def check(
    role: str,
    variables: Mapping[str, Any],
    host: Mapping[str, Any] | None = None,
    beside: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """What the role's preflight says, empty if it passes. A crash is raised.

    Args:
        role: whose preflight it is.
        variables: that a user sets; text is a template if `trusted` was told of it.
        host: facts unlike those of a Debian host.
        beside: other hosts of the play, with their variables.
    """
    facts = copy.deepcopy(FACTS["Debian"]) | dict(host or {})
    mine = {"inventory_hostname": HOST, **variables}
    task_vars = {
        **own(role),
        **mine,
        "role_path": trust_as_template(str(ROLES / role)),
        "playbook_dir": str(ROLES.parent),
        "ansible_facts": {},
        "ansible_check_mode": False,
        "groups": {"all": [HOST, *(beside or {})], "toll_app": [HOST, *(beside or {})]},
        "ansible_play_hosts_all": [HOST, *(beside or {})],
        "hostvars": {
            HOST: mine,
            **{name: {"inventory_hostname": name, **told} for name, told in (beside or {}).items()},
        },
    }
    if "hostvars" in variables:
        task_vars |= {"hostvars": {HOST: mine, **variables["hostvars"]}}
        task_vars["ansible_play_hosts_all"] = list(task_vars["hostvars"])
    loader = DataLoader()
    task = MagicMock()
    task.args = arguments(role) | {
        name: Templar(loader=loader, variables=task_vars).template(arguments(role)[name])
        for name in ("role", "families", "formats")
    }
    task.async_val = 0
    task._role = SimpleNamespace(_play=SimpleNamespace(_uuid="play"))
    action = action_plugin.ActionModule(
        task=task,
        connection=MagicMock(),
        play_context=MagicMock(),
        loader=loader,
        templar=Templar(loader=loader, variables=task_vars),
        shared_loader_obj=None,
    )
    probed = {"ansible_facts": {"wsgi_host": facts}, "changed": False}
    action._execute_module = lambda **call: probed
    result = action.run(task_vars=task_vars)
    return str(result.get("msg", ""))
