"""What a host was seen to be in this play."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.vars import get_unique_id

from . import families
from .reach import run_module

FACT = "wsgi_host"


def play_of(action: ActionBase) -> str:
    """What tells this play of this run from all others."""
    play = getattr(action._task._role, "_play", None)
    return str(getattr(play, "_uuid", None) or get_unique_id().rpartition("-")[0])


def seen_in_this_run(action: ActionBase, host: Mapping[str, Any] | None) -> bool:
    """Whether a host was probed in this play or an earlier one of the same run."""
    run = play_of(action).rpartition("-")[0]
    return str((host or {}).get("play") or "").rpartition("-")[0] == run


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
    result = probed(action, task_vars)
    if result.get("failed") or result.get("unreachable"):
        return {}, result
    return {**result["ansible_facts"][FACT], "play": play_of(action)}, {}


def probed(action: ActionBase, task_vars: dict[str, Any], **options: Any) -> dict[str, Any]:
    """What the probe returns, with the family that the host belongs to."""
    result = run_module(action, "wsgi.host.probe", task_vars, options)
    if result.get("failed") or result.get("unreachable"):
        return result
    host = result["ansible_facts"][FACT]
    family = families.of_system([host["distribution"], *host["distribution_like"]])
    found = {
        **host,
        "family": family or host["distribution"],
        "family_file": str(families.file_of(family)) if family else "",
    }
    return {**result, "ansible_facts": {FACT: found}}
