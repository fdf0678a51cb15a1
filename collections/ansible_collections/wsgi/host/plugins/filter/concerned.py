"""`wsgi.host.concerned`: the hosts that a play of a whole run is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.wsgi.host.plugins.plugin_utils import away

DOCUMENTATION = r"""
name: concerned
short_description: Say which hosts a play of a whole run is for
version_added: "0.1.0"
description:
  - Returns a pattern of the hosts in some groups; one of nobody where no such group has any.
  - One of nobody, too, where M(wsgi.host.seal) has found that there is nothing to do. The role
    C(application) adds the group C(wsgi_host_sealed) to the inventory then, for the rest of the
    run.
  - And one of nobody once a host could not be reached, if the callback P(wsgi.host.halt#callback)
    is on.
positional: names
options:
  _input:
    description: Ansible's C(groups).
    type: dict
    required: true
  names:
    description: The groups, each as an argument of its own.
    type: str
    required: true
  without:
    description: Groups whose hosts are left out.
    type: list
    elements: str
    default: []
author: [toll-app maintainers]
"""

EXAMPLES = r"""
- name: Provision the balancers
  hosts: "{{ groups | wsgi.host.concerned('balancers', without=['web']) }}"
  tasks: []
"""

RETURN = r"""
_value:
  description: The pattern, for C(hosts) of a play.
  type: str
"""

NOBODY = "all:!all"
SEALED = "wsgi_host_sealed"


def concerned(groups: Mapping[str, Sequence[str]], *names: str, without: Sequence[str] = ()) -> str:
    """Return a pattern of hosts.

    Args:
        groups: hosts by the name of their group.
        names: of the groups.
        without: groups whose hosts are left out.
    """
    # Ansible warns of a group that is not there.
    found = [name for name in names if groups.get(name)]
    if not found or SEALED in groups or away.hosts:
        return NOBODY
    return ":".join([*found, *(f"!{name}" for name in without if groups.get(name))])


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by name."""
        return {"concerned": concerned}
