"""What hosts said of an application, out of the results of a loop over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.wsgi.host.plugins.plugin_utils.descriptions import entries

DOCUMENTATION = r"""
name: answers
short_description: Say what hosts answered about an application
version_added: "0.1.0"
description:
  - Reads C(__application_statuses) of some hosts, which a loop over applications has registered,
    for C(hosts) and C(failed) of M(wsgi.host.status_report). A host that does not have the
    application is left out.
positional: hostvars, name
options:
  _input:
    description: Names of hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: C(hostvars).
    type: dict
    required: true
  name:
    description: Name of the application.
    type: str
    required: true
  silent:
    description: Return the hosts without an answer, with the reason.
    type: bool
    default: false
author: [toll-app maintainers]
"""

EXAMPLES = r"""
hosts: "{{ ansible_play_hosts_all | wsgi.host.answers(hostvars, 'shop') }}"
"""

RETURN = r"""
_value:
  description: The answer, or the reason that there is none, by the name of the host.
  type: dict
"""

UNREACHED = "it was not reached"


def answers(
    hosts: Iterable[str], hostvars: Mapping[str, Any], name: str, silent: bool = False
) -> dict[str, Any]:
    """Return the hosts' answers, or why there are none."""
    said: dict[str, Any] = {}
    missing: dict[str, Any] = {}
    for host in hosts:
        variables = hostvars[host]
        if name not in entries(variables):
            continue
        results = (variables.get("__application_statuses") or {}).get("results") or []
        result: Mapping[str, Any] = next(
            (each for each in results if each.get("__application_each") == name), {}
        )
        if result.get("rc") == 0 and "answer" in result:
            said[host] = result["answer"]
        else:
            missing[host] = str(result.get("msg") or UNREACHED)
    return missing if silent else said


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by name."""
        return {"answers": answers}
