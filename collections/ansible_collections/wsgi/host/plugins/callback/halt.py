"""Has a whole run end with the first host that goes away in the middle of it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: halt
type: aggregate
short_description: Let no play follow one in which a host could not be reached
version_added: "0.1.0"
description:
  - With C(any_errors_fatal) a task that fails ends a playbook. A host that cannot be reached only ends the
    play that it is in (docs/decisions/0109), and plays for other groups would go on with a fleet that is
    half changed.
  - This notes such a host, and P(wsgi.host.concerned#filter) has every play that follows be for nobody.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
# In ansible.cfg:
# [defaults]
# callbacks_enabled = wsgi.host.quick_forks, wsgi.host.halt
"""

from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible_collections.wsgi.host.plugins.plugin_utils import away


class CallbackModule(CallbackBase):
    """The callback behind wsgi.host.halt."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "wsgi.host.halt"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Called for each task and host, also where the task says to go on."""
        if result.task.ignore_unreachable:
            return
        if not away.hosts:
            self._display.warning(
                f"{result.host.get_name()} cannot be reached, so the plays that follow do nothing. "
                f"Run again once it can be."
            )
        away.hosts.append(result.host.get_name())
