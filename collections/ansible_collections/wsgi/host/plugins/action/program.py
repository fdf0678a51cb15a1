"""Control node's half of `wsgi.host.program`: says why a host on which nothing can be run is so.

What the options mean is documented with the module, `plugins/modules/program.py`.
"""

from __future__ import annotations

from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible_collections.wsgi.host.plugins.plugin_utils.kept_modules import KeptModules
from ansible_collections.wsgi.host.plugins.plugin_utils.reach import run_module


class ActionModule(KeptModules):
    """Runs the module as it is."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the module's answer, or the cause and the remedy where there is none."""
        result = super().run(tmp, task_vars)
        result.update(run_module(self, "wsgi.host.program", task_vars))
        return result
