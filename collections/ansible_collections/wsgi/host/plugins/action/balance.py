"""What the balancers of a fleet lead where, by the inventory.

What the options mean is documented with the module, `plugins/modules/balance.py`.
"""

from __future__ import annotations

from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.plugins.action import ActionBase
from ansible_collections.wsgi.host.plugins.plugin_utils.balanced import balanced
from ansible_collections.wsgi.host.plugins.plugin_utils.fleet import refusal


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
        found = balanced(self._loader, self._templar, task_vars or {})
        problems = found.pop("problems")
        if problems:
            return {"failed": True, "msg": refusal(problems, "anything can be balanced")}
        return {"changed": False, **found}
