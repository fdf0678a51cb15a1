"""What a host was seen to be in this play."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.vars import get_unique_id

from .reach import run_module

FACT = "wsgi_host"


def play_of(action: ActionBase) -> str:
    """What tells this play of this run from all others."""
    play = getattr(action._task._role, "_play", None)
    return str(getattr(play, "_uuid", None) or get_unique_id().rpartition("-")[0])


def known(action: ActionBase, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """The host as probed in this play, empty if it was not.

    A fact of an earlier play, or of an earlier run out of a fact cache, would describe a host that
    has changed since.
    """
    found: dict[str, Any] = task_vars.get("ansible_facts", {}).get(FACT) or {}
    return found if found.get("play") == play_of(action) else {}


def looked_at(
    action: ActionBase, task_vars: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The host, probed if it was not in this play; or nothing, and the result that says why."""
    host = known(action, task_vars)
    if host:
        return host, {}
    probed = run_module(action, "wsgi.host.probe", task_vars, {})
    if probed.get("failed") or probed.get("unreachable"):
        return {}, probed
    return {**probed["ansible_facts"][FACT], "play": play_of(action)}, {}
