"""A role's preflight as its user meets it: the real action, specification and rules.

All of it runs in this process, on hosts that are only facts. A play for each of some thousand cases
would take an hour; that plays stop before they change anything is shown with a few of them, in
tests/unit/plugins/test_preflight.py and test_remedies.py.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from ansible.template import Templar, trust_as_template
from ansible_collections.wsgi.host.plugins.action import preflight as action_plugin
from conftest import action_of, trusted

from .describing import Loader, describe, of_roles, read
from .render import FACTS, ROLES

HOST = "web1"


@dataclass(frozen=True)
class Case:
    """Variables that a user sets, facts unlike those of a Debian host, other hosts with theirs.

    Attributes:
        groups: further groups of the inventory, by name.
    """

    variables: Mapping[str, Any] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)


def preflight(role: str, cases: Mapping[str, Case]) -> dict[str, str]:
    """What the role's preflight says to each case: empty where it passes."""
    return {
        name: check(
            role, trusted(dict(case.variables)), case.host, trusted(dict(case.beside)), case.groups
        )
        for name, case in cases.items()
    }


@functools.lru_cache
def options(role: str) -> dict[str, dict[str, Any]]:
    text = (ROLES / role / "meta" / "argument_specs.yml").read_text()
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["argument_specs"]["main"]["options"]
    return found


@functools.lru_cache
def task_of(role: str) -> dict[str, Any]:
    """The role's task with the action. A role that only describes an application has it there."""
    path = ROLES / role / "tasks" / "preflight.yml"
    listed = read(path if path.exists() else path.with_name("describe.yml"))
    found: dict[str, Any] = next(task for task in listed if "wsgi.host.preflight" in task)
    return found


def arguments(role: str) -> dict[str, Any]:
    """What the role's own file tells the action."""
    told: dict[str, Any] = task_of(role)["wsgi.host.preflight"]
    return told


@functools.lru_cache
def own(role: str) -> dict[str, Any]:
    """Variables of the role before anybody sets one; those of the family are the preflight's."""
    files = ("defaults/main.yml", "vars/main.yml")
    paths = [ROLES / role / file for file in files]
    return {k: v for path in paths if path.exists() for k, v in read(path).items()}


def check(
    role: str,
    variables: Mapping[str, Any],
    host: Mapping[str, Any] | None = None,
    beside: Mapping[str, Mapping[str, Any]] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """What the role's preflight says, empty if it passes. A crash is raised.

    Args:
        role: whose preflight it is.
        variables: that a user sets; text is a template if `trusted` was told of it.
        host: facts unlike those of a Debian host.
        beside: other hosts of the play, with their variables.
        groups: further groups of the inventory.
    """
    facts = copy.deepcopy(FACTS["Debian"]) | dict(host or {})
    mine = {"inventory_hostname": HOST, **variables}
    hosts = {
        HOST: mine,
        **{name: {"inventory_hostname": name, **told} for name, told in (beside or {}).items()},
        **variables.get("hostvars", {}),
    }
    if role == "application":
        hosts = {name: described(told, facts, hosts, groups) for name, told in hosts.items()}
    task_vars = {
        **own(role),
        **of_roles(variables),
        **task_of(role).get("vars", {}),
        # As with -e, which comes before all else.
        **mine,
        **{key: value for key, value in hosts[HOST].items() if key not in mine},
        "role_path": trust_as_template(str(ROLES / role)),
        "playbook_dir": str(ROLES.parent),
        "ansible_facts": {},
        "ansible_check_mode": False,
        "groups": {"all": list(hosts), "web": list(hosts), **(groups or {})},
        "ansible_play_hosts_all": list(hosts),
        "hostvars": hosts,
    }
    loader = Loader()
    told = arguments(role) | {
        name: Templar(loader=loader, variables=task_vars).template(arguments(role)[name])
        for name in ("role", "formats", "computed")
        if name in arguments(role)
    }
    action = action_of(action_plugin.ActionModule, told, task_vars, loader)
    probed = {"ansible_facts": {"wsgi_host": facts}, "changed": False}
    action._execute_module = lambda **call: probed
    result = action.run(task_vars=task_vars)
    return str(result.get("msg", ""))


def described(
    variables: Mapping[str, Any],
    facts: Mapping[str, Any],
    hosts: Mapping[str, Any],
    groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """A host's variables with what its applications are, as the role registers it."""
    return {**variables, "__application_descriptions": describe(variables, facts, hosts, groups)}
