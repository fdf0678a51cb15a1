"""Tries a firewall's rules: they stay in force only if a new connection gets through.

What the options mean is documented with the module, `plugins/modules/firewall.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.errors import AnsibleError
from ansible_collections.wsgi.host.plugins.plugin_utils.kept_modules import KeptModules

MODULE = "wsgi.host.firewall"
# Of the seconds of a trial, those that are left to the host for going back.
SPARE_SECONDS = 5
# How long a host that went back is waited for, with rules that let it be reached before.
BACK_SECONDS = 30
PAUSE_SECONDS = 1


class ActionModule(KeptModules):
    """Starts the trial, leaves, and comes back through the door."""

    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        local = bool(getattr(self._connection, "_remote_is_local", False))
        arguments = {**self._task.args, "local": local}
        begun = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=variables)
        if begun.get("failed") or begun.get("unreachable"):
            return {**result, **begun}
        since = begun.pop("since")
        result |= {"changed": True, "client": begun["client"], "port": begun["port"]}
        if not begun["client"]:
            # Whoever did not come by the network cannot be locked out by what guards it.
            return {**result, "new": False}
        seconds = int(self._task.args["seconds"])
        until = time.monotonic() + seconds
        why = self._come_in(since, until - SPARE_SECONDS, variables, new=True)
        if not why:
            return {**result, "new": True}
        time.sleep(max(0.0, until + PAUSE_SECONDS - time.monotonic()))
        away = self._come_in(since, time.monotonic() + BACK_SECONDS, variables, new=False)
        return {**result, "failed": True, "msg": self._message(begun, seconds, why, away)}

    def _come_in(self, since: int, until: float, variables: dict[str, Any], *, new: bool) -> str:
        """Open a connection and use it; why that did not work, empty if it did.

        Args:
            new: whether the host has to say that it began while the rules were tried.
        """
        while True:
            # What Ansible keeps open would go on working.
            with contextlib.suppress(AnsibleError):
                self._connection.reset()
            try:
                arguments = {**self._task.args, "since": since}
                found = self._execute_module(
                    module_name=MODULE, module_args=arguments, task_vars=variables
                )
                if found.get("new" if new else "client"):
                    return ""
                why = str(found.get("msg") or "the connection was not a new one")
            except AnsibleError as error:
                why = str(error)
            if time.monotonic() + PAUSE_SECONDS > until:
                return why
            time.sleep(PAUSE_SECONDS)

    def _message(self, begun: Mapping[str, Any], seconds: int, why: str, away: str) -> str:
        ports = ", ".join(map(str, self._task.args.get("ports") or ()))
        sources = ", ".join(map(str, self._task.args.get("sources") or ()))
        now = (
            f"It has not answered since then either ({_line(away)})"
            if away
            else "The previous rules are back in force"
        )
        return (
            f"firewall_ssh_sources or firewall_ssh_ports would lock this run out: with the new "
            f"rules no new SSH connection got through ({_line(why)}). The host reverted them by "
            f"itself after {seconds} s. {now}. The host sees this run connect from "
            f"{begun['client']} "
            f"to its port {begun['port']}; SSH is open to {sources} on {ports}. Add what is "
            "missing."
        )


def _line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
