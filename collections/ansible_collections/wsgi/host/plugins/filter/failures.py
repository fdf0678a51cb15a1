"""What failed in a play, whole, and each thing once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: failures
short_description: Say what failed, whole, and each thing once
version_added: "0.1.0"
description:
  - Takes what failed on each host and returns it for people. Nothing of a message is shortened or
    changed; hosts that failed with the same words share an entry.
  - Of a loop, the words of every item that failed. A result that may hold a secret says only that.
positional: _input
options:
  _input:
    description: A list with C(host), C(task) (its name) and C(result) of each failure.
    type: list
    elements: dict
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
failed: "{{ [{'host': 'web1', 'task': 'Ask', 'result': it}] | wsgi.host.failures }}"
"""

RETURN = r"""
_value:
  description: C(hosts), C(task) and C(words) of each failure, in the order of the hosts.
  type: list
  elements: dict
"""


def words(result: Mapping[str, Any]) -> str:
    """Return all that a failed result says, for people."""
    if "censored" in result:
        return "It is not shown, since it may hold a secret."
    failed = [item for item in result.get("results") or [] if item.get("failed")]
    if failed:
        return "\n".join(dict.fromkeys(words(item) for item in failed))
    said = (
        result.get(key) for key in ("msg", "stderr", "stdout", "module_stderr", "module_stdout")
    )
    found = [str(each).strip("\n") for each in said if each and str(each).strip()]
    # `command` announces its error in `msg`, and the program has said it in `stderr`.
    if len(found) > 1 and "rc" in result and "cmd" in result:
        return "\n".join(found[:2])
    return found[0] if found else "It gave no reason; see above."


def failures(told: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return hosts, task and words of each failure."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in told:
        key = (str(each["task"]), words(each["result"]))
        found.setdefault(key, []).append(str(each["host"]))
    return [{"hosts": hosts, "task": task, "words": text} for (task, text), hosts in found.items()]


class FilterModule:
    """The filter behind wsgi.host.failures."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"failures": failures}
