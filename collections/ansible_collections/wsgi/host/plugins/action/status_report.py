"""Show how all hosts do, as a table or as JSON.

The options are documented in plugins/modules/status_report.py.
"""

from __future__ import annotations

from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.wsgi.host.plugins.plugin_utils import fleet

FORMATS = ("table", "json")


class ActionModule(ActionBase):
    """The action behind wsgi.host.status_report."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Write the report; return what differs."""
        result = super().run(tmp, task_vars)
        wanted = self._task.args.get("format", "table")
        called = {"format": "format"} | dict(self._task.args.get("variables") or {})
        if wanted not in FORMATS:
            raise AnsibleActionFail(
                f"{called['format']} is {wanted!r}: use one of {', '.join(FORMATS)}"
            )
        _, options = self.validate_argument_spec(
            argument_spec={
                "application": {"type": "str", "default": ""},
                "hosts": {"type": "dict", "required": True},
                "failed": {"type": "dict", "default": {}},
                "format": {"type": "str", "choices": list(FORMATS), "default": "table"},
                "variables": {"type": "dict", "default": {}},
            }
        )
        write = fleet.as_json if options["format"] == "json" else fleet.report
        # A result would be indented and quoted by whatever callback shows it.
        application = options["application"]
        Display().display(write(application, options["hosts"], options["failed"]))
        result["changed"] = False
        result["drift"] = fleet.drift(options["hosts"])
        result["report"] = fleet.as_data(application, options["hosts"], options["failed"])
        result["down"] = fleet.down(options["hosts"])
        result["complaints"] = {
            host: f"{application}: {why}" if application else why
            for host, why in {**options["failed"], **result["down"]}.items()
        }
        return result
