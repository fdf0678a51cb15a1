"""What a host opens, and to whom, by its roles and the inventory.

What the options mean is documented with the module, `plugins/modules/openings.py`.
"""

from __future__ import annotations

from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.plugins.action import ActionBase
from ansible_collections.wsgi.host.plugins.plugin_utils.fleet import refusal
from ansible_collections.wsgi.host.plugins.plugin_utils.openings import openings


class ActionModule(ActionBase):
    """Reads roles and the inventory; asks no host."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        found = openings(self._loader, self._templar, task_vars or {})
        problems = found.pop("problems")
        if problems:
            return {"failed": True, "msg": refusal(problems, "the firewall can be set up")}
        return {"changed": False, **found}
