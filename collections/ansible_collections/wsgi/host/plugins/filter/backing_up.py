"""`wsgi.host.backing_up`: whether a host makes copies of the data of an application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.wsgi.host.plugins.filter.sharing import database_url, described

DOCUMENTATION = r"""
name: backing_up
short_description: Say whether a host makes copies of data
version_added: "0.1.0"
description:
  - A host makes copies of an application's data if they are its own, or if it is the first of the
    hosts that share them. What C(monitoring_backups) of the host says goes before.
positional: name, hosts
options:
  _input:
    description: C(hostvars).
    type: dict
    required: true
  name:
    description: Name of the host.
    type: str
    required: true
  hosts:
    description: Names of the hosts that may share data with it, in the order of the inventory.
    type: list
    elements: str
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
backs_up: "{{ hostvars | wsgi.host.backing_up(inventory_hostname, groups['web']) }}"
"""

RETURN = r"""
_value:
  description: Whether it does.
  type: bool
"""


def backing_up(hostvars: Mapping[str, Any], name: str, hosts: Sequence[str]) -> bool:
    """Whether a host makes copies: with a database of its own, or as the first of a shared one."""
    own = hostvars[name]
    if "monitoring_backups" in own:
        return bool(own["monitoring_backups"])
    for application, description in described(own).items():
        told = description if isinstance(description, Mapping) else {}
        url = database_url(own, application)
        first = next(
            (each for each in hosts if database_url(hostvars[each], application) == url), name
        )
        if (told.get("backup") or {}).get("enabled", True) and (not url or first == name):
            return True
    return False


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {"backing_up": backing_up}
