"""`wsgi.host.watched`: the hosts of an inventory that name one as what watches them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: watched
short_description: List the hosts that one watches
version_added: "1.2.0"
description:
  - Reads from the inventory which hosts are watched by one of them, for C(monitoring_watched) of
    the role C(monitoring). A host is watched by the one that its C(monitoring_server) names, if
    its C(monitoring_enabled) is set.
  - Of hosts that share a database, which is those with the same C(toll_app_database_url), the
    first is the one whose backups are expected, as in the role C(toll_app).
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
    msg: "{{ hostvars | wsgi.host.watched(inventory_hostname, groups['toll_app']) }}"
"""

RETURN = r"""
_value:
  description: For each host C(name), C(address) with the port of its gateway, and C(backups).
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


def backs_up(hostvars: Mapping[str, Any], name: str, hosts: Sequence[str]) -> bool:
    """Whether a host makes copies: with a database of its own, or as the first of a shared one."""
    own = hostvars[name]
    if "monitoring_backups" in own:
        return bool(own["monitoring_backups"])
    url = own.get("toll_app_database_url") or ""
    sharing = [each for each in hosts if (hostvars[each].get("toll_app_database_url") or "") == url]
    return bool(own.get("toll_app_backup", True)) and (not url or sharing[0] == name)


def watched(
    hostvars: Mapping[str, Any], server: str, hosts: Sequence[str]
) -> list[dict[str, str | bool]]:
    """List the hosts that `server` watches."""
    return [
        {
            "name": name,
            "address": address(hostvars[name], name),
            "backups": backs_up(hostvars, name, hosts),
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
