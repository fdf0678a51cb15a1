"""What the balancers of a fleet lead where, by the inventory.

What the options mean is documented with the module, `plugins/modules/balance.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.plugins.action import ActionBase
from ansible_collections.wsgi.host.plugins.filter.probed import probed
from ansible_collections.wsgi.host.plugins.plugin_utils.balancing import SERVING, sites
from ansible_collections.wsgi.host.plugins.plugin_utils.fleet import refusal
from ansible_collections.wsgi.host.plugins.plugin_utils.roles import said_by_roles


class ActionModule(ActionBase):
    """Reads the inventory; asks no host."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        task_vars = task_vars or {}
        groups, hostvars = task_vars["groups"], task_vars["hostvars"]

        def read(
            directory: Path, brought: Mapping[str, Any], told: Mapping[str, Any]
        ) -> dict[str, Any]:
            variables = {**task_vars, **brought, "role_path": str(directory)}
            templar = self._templar.copy_with_new_env(available_variables=variables)
            return {name: templar.template(told[name]) for name in READ if name in told}

        base = said_by_roles(self._loader, task_vars, read)
        found = sites(groups, hostvars, base)
        problems = found.pop("problems")
        if problems:
            return {"failed": True, "msg": refusal(problems, "anything can be balanced")}
        serving = [probed(hostvars[name]) for name in groups.get(SERVING) or ()]
        return {"changed": False, **found, "verify": all(each["verify"] for each in serving)}


# Of what a role says of its application, what a balancer has to know.
READ = ("domains", "health")
