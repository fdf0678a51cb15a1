"""`wsgi.host.watched`: the hosts of an inventory that name one as what watches them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.wsgi.host.plugins.filter.backing_up import backing_up
from ansible_collections.wsgi.host.plugins.filter.sharing import described

DOCUMENTATION = r"""
name: watched
short_description: List the hosts that one watches
version_added: "0.1.0"
description:
  - Reads from the inventory which hosts are watched by one of them, for C(monitoring_watched) of
    the role C(monitoring). A host is watched by the one that its C(monitoring_server) names, if
    its C(monitoring_enabled) is set.
  - Of hosts whose application has a database in common, the first is the one whose backups are
    expected, as in the role C(application).
options:
  _input:
    description: C(hostvars).
    type: dict
    required: true
  server:
    description: Name of the host that watches.
    type: str
    required: true
  hosts:
    description: Names of the hosts that may be watched, in the order of the inventory.
    type: list
    elements: str
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
- name: List who is watched
  ansible.builtin.debug:
    msg: "{{ hostvars | wsgi.host.watched(inventory_hostname, groups['web']) }}"
"""

RETURN = r"""
_value:
  description: >-
    For each host C(name), C(address) with the port of its gateway, C(backups), and the names of its
    C(applications).
  type: list
  elements: dict
"""

# As in the roles' defaults, which another host's variables do not have.
GATEWAY_PORT = 9443


def address(variables: Mapping[str, Any], name: str) -> str:
    """Where a host's gateway is reached, with its port."""
    host = str(variables.get("monitoring_gateway_address") or variables.get("ansible_host") or name)
    host = host.removeprefix("[").removesuffix("]")
    port = variables.get("monitoring_gateway_port", GATEWAY_PORT)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def watched(hostvars: Mapping[str, Any], server: str, hosts: Sequence[str]) -> list[dict[str, Any]]:
    """List the hosts that `server` watches."""
    return [
        {
            "name": name,
            "address": address(hostvars[name], name),
            "backups": backing_up(hostvars, name, hosts),
            "applications": list(described(hostvars[name])),
        }
        for name in hosts
        if hostvars[name].get("monitoring_server") == server
        and hostvars[name].get("monitoring_enabled", False)
    ]


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {"watched": watched}
