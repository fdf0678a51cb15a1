"""`wsgi.host.watched`: the hosts of an inventory that name one as what watches them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.wsgi.host.plugins.filter.backing_up import backing_up
from ansible_collections.wsgi.host.plugins.filter.sharing import described
from ansible_collections.wsgi.host.plugins.plugin_utils.databases import voters_of

DOCUMENTATION = r"""
name: watched
short_description: List the hosts that one watches
version_added: "0.1.0"
description:
  - Reads from the inventory which hosts are watched by one of them, for C(monitoring_watched) of
    the role C(monitoring). A host is watched by the one that its C(monitoring_server) names, if
    its C(monitoring_enabled) is set.
  - Of the groups C(web), C(balancers), C(databases) and C(database_voters); a host may be in
    several.
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
  groups:
    description: C(groups).
    type: dict
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
- name: List who is watched
  ansible.builtin.debug:
    msg: "{{ hostvars | wsgi.host.watched(inventory_hostname, groups) }}"
"""

RETURN = r"""
_value:
  description: >-
    For each host C(name), C(address) with the port of its gateway, the names of its
    C(applications), those of which it makes copies, C(backed_up), and whether there are any,
    C(backups); its C(kinds), and for a balancer C(entrance), where clients reach it.
  type: list
  elements: dict
"""

# As in the roles' defaults, which another host's variables do not have.
GATEWAY_PORT = 9443
HTTPS_PORT = 443
# What a host of each group does.
KINDS = {"web": "web", "balancers": "balancer", "databases": "database"}
VOTER = "voter"


def address(variables: Mapping[str, Any], name: str, port: object) -> str:
    """Where a port of a host is reached."""
    host = str(variables.get("monitoring_gateway_address") or variables.get("ansible_host") or name)
    host = host.removeprefix("[").removesuffix("]")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def watched(
    hostvars: Mapping[str, Any], server: str, groups: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """List the hosts that `server` watches."""
    serving = groups.get("web") or ()
    doing = {kind: list(groups.get(group) or ()) for group, kind in KINDS.items()}
    doing[VOTER] = voters_of(groups)
    found = []
    for name in dict.fromkeys(name for names in doing.values() for name in names):
        told = hostvars[name]
        if told.get("monitoring_server") != server or not told.get("monitoring_enabled", False):
            continue
        kinds = [kind for kind, names in doing.items() if name in names]
        # Variables of all hosts may have applications, which only those that serve have.
        serves = "web" in kinds
        backed_up = backing_up(hostvars, name, serving) if serves else []
        entrance = address(told, name, told.get("haproxy_https_port", HTTPS_PORT))
        found.append(
            {
                "name": name,
                "address": address(told, name, told.get("monitoring_gateway_port", GATEWAY_PORT)),
                "backups": bool(backed_up),
                "backed_up": backed_up,
                "applications": list(described(told)) if serves else [],
                "kinds": kinds,
                "entrance": entrance if "balancer" in kinds else "",
            }
        )
    return found


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {"watched": watched}
