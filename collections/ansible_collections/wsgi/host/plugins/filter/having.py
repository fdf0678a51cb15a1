"""The hosts that have an application, by the descriptions in the inventory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.wsgi.host.plugins.plugin_utils.descriptions import entries

DOCUMENTATION = r"""
name: having
short_description: List the hosts that have an application
version_added: "0.1.0"
description:
  - Of some hosts, those whose C(applications) in the inventory describe one of that name.
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
author: [toll-app maintainers]
"""

EXAMPLES = r"""
hosts: "{{ ansible_play_hosts_all | wsgi.host.having(hostvars, 'shop') }}"
"""

RETURN = r"""
_value:
  description: Names of hosts, in the order in which they came.
  type: list
  elements: str
"""


def having(hosts: Iterable[str], hostvars: Mapping[str, Any], name: str) -> list[str]:
    """List those of the hosts that have the application."""
    return [host for host in hosts if name in entries(hostvars[host])]


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by name."""
        return {"having": having}
