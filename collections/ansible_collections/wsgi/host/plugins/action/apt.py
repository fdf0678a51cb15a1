"""Installs Debian packages by ansible.builtin.apt, and waits for every lock that apt takes.

The options are documented in plugins/modules/apt.py.
"""

from __future__ import annotations

import time
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display
from ansible_collections.wsgi.host.plugins.plugin_utils.kept_modules import KeptModules

LOOK = 10.0  # seconds that one trip to the host waits
OWN = frozenset({"name", "state", "purge", "lock_timeout", "cache_valid_time", "policy_rc_d"})

display = Display()


class ActionModule(KeptModules):
    """The action behind wsgi.host.apt."""

    TRANSFERS_FILES = False
    _VALID_ARGS = OWN

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the result of ansible.builtin.apt, with what was waited for."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        told = dict(self._task.args)
        try:
            seconds = int(told.pop("lock_timeout", 300))
        except (TypeError, ValueError) as error:
            raise AnsibleActionFail("lock_timeout: give a number of seconds") from error
        end = time.monotonic() + seconds
        waited_for: list[str] = []
        host = str(task_vars.get("inventory_hostname", "the host"))
        while True:
            refusal = self._wait(host, end, seconds, waited_for, task_vars)
            if refusal:
                return refusal
            left = max(1, round(end - time.monotonic()))
            result: dict[str, Any] = self._execute_module(
                module_name="ansible.builtin.apt",
                module_args={
                    "state": "present",
                    # What goes needs no lists of what there is.
                    "update_cache": told.get("state") != "absent",
                    "install_recommends": False,
                    "lock_timeout": left,
                    **told,
                },
                task_vars=task_vars,
            )
            # Somebody may have taken a lock since the look. Any other failure is apt's own.
            lost = result.get("failed") and self._look(0, task_vars).get("held")
            if not lost:
                return {**result, "waited_for": waited_for} if waited_for else result

    def _wait(
        self,
        host: str,
        end: float,
        seconds: int,
        waited_for: list[str],
        task_vars: dict[str, Any],
    ) -> dict[str, Any] | None:
        """Wait until no lock is held; return what failed, if something did."""
        while True:
            left = end - time.monotonic()
            # The first look is short, so that people are told at once why nothing happens.
            answer = self._look(max(0.0, min(LOOK, left)) if waited_for else 0, task_vars)
            if answer.get("failed") or answer.get("unreachable"):
                return answer
            by = str(answer["held"])
            if not by:
                return None
            if left <= 0:
                return {
                    "failed": True,
                    "changed": False,
                    "msg": f"packages cannot be installed: after {seconds} s {host} still waits "
                    f"for {by}. See what it does (`systemctl status apt-daily "
                    f"apt-daily-upgrade`), let it end, and run again",
                }
            if by not in waited_for:
                waited_for.append(by)
                display.display(f"{host} waits for {by}, for up to {seconds} s")

    def _look(self, seconds: float, task_vars: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name="wsgi.host.apt", module_args={"wait_seconds": seconds}, task_vars=task_vars
        )
        return answer
