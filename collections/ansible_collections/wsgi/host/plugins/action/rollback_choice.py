"""Choose the release that all hosts go back to.

The options are documented in plugins/modules/rollback_choice.py.
"""

from __future__ import annotations

from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.wsgi.host.plugins.plugin_utils import fleet


class ActionModule(ActionBase):
    """The action behind wsgi.host.rollback_choice."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the choice."""
        result = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(
            argument_spec={
                "hosts": {"type": "dict", "required": True},
                "wanted": {"type": "str", "default": ""},
            }
        )
        try:
            result["ids"] = fleet.going_back(options["hosts"], options["wanted"])
        except fleet.FleetError as error:
            raise AnsibleActionFail(str(error)) from error
        result["changed"] = False
        return result
