"""Reads what the roles need to know about a host, and says which family of systems it belongs to.

What it returns is documented with the module, `plugins/modules/probe.py`.
"""

from __future__ import annotations

from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible_collections.wsgi.host.plugins.plugin_utils.host import probed
from ansible_collections.wsgi.host.plugins.plugin_utils.kept_modules import KeptModules


class ActionModule(KeptModules):
    """The families are files of the control node, which the host does not have."""

    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self.validate_argument_spec({})
        return probed(self, task_vars or {})
