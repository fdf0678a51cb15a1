"""`wsgi.host.backing_up`: the applications of whose data a host makes copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.wsgi.host.plugins.filter.sharing import database_url, described
from ansible_collections.wsgi.host.plugins.plugin_utils import databases

DOCUMENTATION = r"""
name: backing_up
short_description: List the applications of whose data a host makes copies
version_added: "0.1.0"
description:
  - A host makes copies of an application's data if they are its own, or if it is the first of the
    hosts that share them. With C(monitoring_backups) the host says that it makes all or none, and
    with C(monitoring_backed_up) which ones.
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
backed_up: "{{ hostvars | wsgi.host.backing_up(inventory_hostname, groups['web']) }}"
"""

RETURN = r"""
_value:
  description: Their names.
  type: list
  elements: str
"""

# Of a description: where data are that there are copies of.
DATA = ("sqlite", "database_url", "directories")


def backing_up(hostvars: Mapping[str, Any], name: str, hosts: Sequence[str]) -> list[str]:
    """What a host makes copies of: its own data, or as the first of those that share them."""
    own = hostvars[name]
    if not own.get("monitoring_backups", True):
        return []
    if "monitoring_backed_up" in own:
        named: list[str] = own["monitoring_backed_up"]
        return named

    def makes(application: str) -> bool:
        url = database_url(own, application)
        first = next(
            (each for each in hosts if database_url(hostvars[each], application) == url), name
        )
        return "monitoring_backups" in own or not url or first == name

    return [
        application
        for application, description in described(own).items()
        if has_copies(description) and makes(application)
    ]


def has_copies(description: object) -> bool:
    """Whether there are any, as far as it is written: where it is not, an application has data."""
    if not isinstance(description, Mapping):
        return False
    backup, data = (description.get(each) or {} for each in ("backup", "data"))
    if isinstance(backup, Mapping) and "enabled" in backup:
        return bool(backup["enabled"])
    # A role may say what is not written here.
    return (
        "role" in description
        or databases.may_be_wanted(description)
        or (isinstance(data, Mapping) and any(data.get(each) for each in DATA))
    )


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {"backing_up": backing_up}
