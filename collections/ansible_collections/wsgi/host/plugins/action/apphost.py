"""Control node's half of `wsgi.host.apphost`: makes no trip where the package is in place.

What the options mean is documented with the module, `plugins/modules/apphost.py`.
"""

from __future__ import annotations

import base64
import functools
import json
import zlib
from pathlib import Path
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible_collections.wsgi.host.plugins.module_utils.apphost import installation
from ansible_collections.wsgi.host.plugins.plugin_utils.kept_modules import KeptModules

PACKAGE = Path(__file__).parents[1] / "module_utils" / "apphost"


@functools.lru_cache(maxsize=1)
def packed() -> tuple[str, str]:
    """The version, and its files as the module reads them."""
    content = installation.sources(PACKAGE)
    text = json.dumps({name: text.decode() for name, text in content.items()})
    return installation.digest(content), base64.b64encode(zlib.compress(text.encode())).decode()


class ActionModule(KeptModules):
    """Compares with what the host was seen to have, and sends the package where it is another."""

    TRANSFERS_FILES = False
    _requires_connection = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the module's result, or at once what it would say where nothing is to be done."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        version, payload = packed()
        host = task_vars.get("ansible_facts", {}).get("wsgi_host", {})
        if host.get("apphost") == version:
            return {**result, "changed": False, "version": version}
        result.update(
            self._execute_module(
                module_name="wsgi.host.apphost",
                module_args={"version": version, "payload": payload},
                task_vars=task_vars,
            )
        )
        if host and not result.get("failed") and not self._task.check_mode:
            # Another role of the run that needs it makes no trip.
            result["ansible_facts"] = {"wsgi_host": {**host, "apphost": version}}
        return result
