"""Say who asks for the lock of deploys, wait for it, and tell who holds it.

The options are documented in plugins/modules/deploy_lock.py.
"""

from __future__ import annotations

import time
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.errors import AnsibleActionFail
from ansible_collections.wsgi.host.plugins.plugin_utils.control import is_gone, this_run, whoami
from ansible_collections.wsgi.host.plugins.plugin_utils.kept_modules import KeptModules

MODULE = "wsgi.host.deploy_lock"
POLL_SECONDS = 1.0


class ActionModule(KeptModules):
    """The action behind wsgi.host.deploy_lock: one trip if nobody else holds the lock."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return who holds the lock; raise AnsibleActionFail if it is not who asks."""
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if "claim" in arguments:
            raise AnsibleActionFail("claim is set by wsgi.host.deploy_lock itself. Leave it out")
        called = {"wait_seconds": "wait_seconds", "stale_seconds": "stale_seconds"} | dict(
            arguments.get("variables") or {}
        )
        wait = self._number(arguments, "wait_seconds", called, 0)
        self._number(arguments, "stale_seconds", called, 1)
        process = this_run()
        claim = {"token": process.token(), "owner": whoami(), "control": process.to_dict()}
        end = time.monotonic() + wait
        while True:
            asked_at = time.time()
            asked = {**arguments, "claim": claim}
            outcome = self._execute_module(MODULE, module_args=asked, task_vars=task_vars)
            if outcome.get("failed") or outcome.get("unreachable") or not outcome.get("busy"):
                break
            holder = outcome["lock"]
            if is_gone(holder.get("control")) and claim.get("over") != holder["token"]:
                claim["over"] = holder["token"]
                continue
            if self._task.check_mode or time.monotonic() >= end:
                break
            time.sleep(min(POLL_SECONDS, max(0.0, end - time.monotonic())))
        outcome.pop("invocation", None)
        result.update(outcome)
        result["owner"] = claim["owner"]
        result["asked_at"] = asked_at
        result["host"] = self._host(task_vars)
        place = f"{arguments['path']} on {self._host(task_vars)}"
        if outcome.get("busy"):
            words = self._busy(outcome, place, called["wait_seconds"], wait)
            if not self._task.check_mode:
                raise AnsibleActionFail(words)
            result.setdefault("warnings", []).append(words)
        elif outcome.get("lost"):
            raise AnsibleActionFail(self._lost(outcome.get("lock"), place))
        elif outcome.get("taken_over"):
            result.setdefault("warnings", []).append(self._taken_over(outcome, place))
        return result

    @staticmethod
    def _number(arguments: dict[str, Any], key: str, called: dict[str, str], default: int) -> int:
        """Return a number of seconds; raise AnsibleActionFail by the name that the operator set."""
        value = arguments.get(key, default)
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < default:
            raise AnsibleActionFail(
                f"{called[key]} is {value!r}: give whole seconds, {default} or more"
            )
        return value

    def _host(self, task_vars: dict[str, Any] | None) -> str:
        return str(
            self._task.delegate_to or (task_vars or {}).get("inventory_hostname", "the host")
        )

    @staticmethod
    def _held(lock: dict[str, Any]) -> str:
        """Who holds a lock, since when and what for, for messages."""
        reason = f" for {lock['reason']!r}" if lock.get("reason") else ""
        return (
            f"{lock.get('owner', 'somebody')} since {lock.get('since', 'an unknown time')}{reason}"
        )

    def _busy(self, outcome: dict[str, Any], place: str, variable: str, wait: int) -> str:
        waited = f", and this run waited {wait} s" if wait else ""
        return (
            f"Another deploy is running: the lock {place} is held by "
            f"{self._held(outcome['lock'])}, with a sign of life {outcome['silence']} s "
            f"ago{waited}. Nothing was changed. Wait until it ends, set {variable} to a number of "
            f"seconds to wait for it, or, if you are sure that it no longer runs, remove that file"
        )

    def _lost(self, lock: dict[str, Any] | None, place: str) -> str:
        holder = f"is held by {self._held(lock)}" if lock else "is gone"
        return (
            f"This run has lost the lock {place}, which {holder}. It stops before changing "
            "anything else. "
            f"Find out why it gave no sign of life for so long, then run it again"
        )

    def _taken_over(self, outcome: dict[str, Any], place: str) -> str:
        before = self._held(outcome["taken_over"])
        why = {
            "ended": "whose process on this control node has ended without freeing it",
            "silent": f"who gave no sign of life for {outcome.get('silence')} s",
        }[outcome["why"]]
        return f"Took over the lock {place} from {before}, {why}."
