"""What the balancers of a fleet lead where, by the inventory.

What the options mean is documented with the module, `plugins/modules/balance.py`.
"""

from __future__ import annotations

from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.plugins.action import ActionBase
from ansible_collections.wsgi.host.plugins.filter.probed import probed
from ansible_collections.wsgi.host.plugins.plugin_utils.balancing import SERVING, sites
from ansible_collections.wsgi.host.plugins.plugin_utils.roles import content_of, role_directory


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
        known: dict[str, dict[str, Any]] = {}

        def base(role: str) -> dict[str, Any]:
            if role not in known:
                directory = role_directory(self._loader, task_vars, role)
                brought = content_of(self._loader, directory / "vars" / "main.yml")
                variables = {**task_vars, **brought, "role_path": str(directory)}
                templar = self._templar.copy_with_new_env(available_variables=variables)
                told = brought.get(f"{role}_application") or {}
                known[role] = {name: templar.template(told[name]) for name in READ if name in told}
            return known[role]

        found = sites(groups, hostvars, base)
        problems = found.pop("problems")
        if problems:
            return {"failed": True, "msg": _words(problems)}
        serving = [probed(hostvars[name]) for name in groups.get(SERVING) or ()]
        return {"changed": False, **found, "verify": all(each["verify"] for each in serving)}


# Of what a role says of its application, what a balancer has to know.
READ = ("domains", "health")


def _words(problems: list[dict[str, str]]) -> str:
    head = (
        "One thing has" if len(problems) == 1 else f"{len(problems)} things have"
    ) + " to be set right before anything can be balanced:"
    lines = [f"- {each['variable']} {each['problem']}: {each['remedy']}" for each in problems]
    return "\n".join([head, *lines, "Nothing was changed."])
