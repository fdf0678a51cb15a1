"""Write what all hosts answered as one page for a browser.

The options are documented in plugins/modules/status_page.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.wsgi.host.plugins.module_utils.apphost import files, times
from ansible_collections.wsgi.host.plugins.module_utils.apphost.page.render import page


class ActionModule(ActionBase):
    """The action behind wsgi.host.status_page."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Write the page on the control node."""
        result = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "path", "required": True},
                "reports": {"type": "list", "elements": "dict", "required": True},
            }
        )
        path = Path(os.path.abspath(options["path"]))
        try:
            files.write(path, page(options["reports"], times.stamp()), 0o600)
        except OSError as error:
            raise AnsibleActionFail(
                f"application_status_page is {options['path']}, which cannot be written: "
                f"{error.strerror}"
            ) from error
        Display().display(f"Page: {path.as_uri()}")
        # It is written anew each time and changes nothing that runs.
        return {**result, "changed": False, "path": str(path)}
