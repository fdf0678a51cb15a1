"""Descriptions of applications as the role puts them together: the real action, in this process."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ansible.parsing.dataloader import DataLoader
from ansible.template import trust_as_template
from ansible_collections.wsgi.host.plugins.action import describe as action_plugin
from conftest import action_of

ROLES = Path(__file__).parents[3] / "roles"


class Loader(DataLoader):  # type: ignore[misc]
    """Reads a file once for all tests, and copies nothing: nobody writes into what it returns."""

    read: ClassVar[dict[str, Any]] = {}

    def load_from_file(self, file_name: str, *args: Any, **kwargs: Any) -> Any:
        if file_name not in self.read:
            self.read[file_name] = super().load_from_file(file_name, *args, **kwargs)
        return self.read[file_name]


def read(path: Path) -> Any:
    return Loader().load_from_file(str(path), trusted_as_template=True) or {}


def shop(**members: Any) -> dict[str, Any]:
    """Variables of a host with one application that no role describes."""
    return {"applications": {"shop": {"source": "app", "domains": ["app.example.com"], **members}}}


def toll_app(**members: Any) -> dict[str, Any]:
    """Variables of a host with toll-app, which has data."""
    told = {"role": "toll_app", "domains": ["app.example.com"], **members}
    return {"applications": {"toll-app": told}}


@functools.lru_cache
def of_role(role: str) -> dict[str, Any]:
    """What a role has before anybody sets anything, but for what differs between families."""
    paths = (ROLES / role / "defaults" / "main.yml", ROLES / role / "vars" / "main.yml")
    return {key: value for path in paths if path.exists() for key, value in read(path).items()}


def of_roles(variables: Mapping[str, Any]) -> dict[str, Any]:
    """What the roles have that describe these applications; Ansible reads them before."""
    told = variables.get("applications")
    entries = told.values() if isinstance(told, Mapping) else ()
    roles = [entry.get("role") for entry in entries if isinstance(entry, Mapping)]
    return {
        key: value
        for role in roles
        if isinstance(role, str) and os.path.isfile(ROLES / role / "tasks" / "describe.yml")
        for key, value in of_role(role).items()
    }


def describe(
    variables: Mapping[str, Any],
    facts: Mapping[str, Any],
    hosts: Mapping[str, Any] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """What the role's own task returns for a host with these variables and facts, beside others."""
    task_vars = {
        "inventory_hostname": "web1",
        **of_role("application"),
        **of_roles(variables),
        **variables,
        "role_path": trust_as_template(str(ROLES / "application")),
        "playbook_dir": str(ROLES.parent),
        "ansible_facts": {},
        "hostvars": dict(hosts or {}),
        "groups": {"all": list(hosts or {}), **(groups or {})},
    }
    loader = Loader()
    listed = read(ROLES / "application" / "tasks" / "describe.yml")
    told = next(each["wsgi.host.describe"] for each in listed if "wsgi.host.describe" in each)
    action = action_of(action_plugin.ActionModule, told, task_vars, loader)
    probed = {"ansible_facts": {"wsgi_host": copy.deepcopy(dict(facts))}, "changed": False}
    action._execute_module = lambda **call: probed
    found: dict[str, Any] = action.run(task_vars=task_vars)
    return found
