"""Names the group that a play is for, or says that the inventory has none."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: group
short_description: Name the group that a play is for
version_added: "0.1.0"
description:
  - Returns the name of a group that has hosts. Without one, a play would end green and have done
    nothing.
positional: name
options:
  _input:
    description: Ansible's C(groups).
    type: dict
    required: true
  name:
    description: The group.
    type: str
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
- name: Provision the application
  hosts: "{{ groups | wsgi.host.group('web') }}"
  tasks: []
"""

RETURN = r"""
_value:
  description: The name.
  type: str
"""

# Ansible has these in every inventory.
IMPLIED = ("all", "ungrouped")


def group(groups: Mapping[str, Sequence[str]], name: str) -> str:
    """Return `name`.

    Args:
        groups: hosts by the name of their group.
        name: the group that is wanted.

    Raises:
        AnsibleFilterError: there is no such group, or no host in it.
    """
    if groups.get(name):
        return name
    if not groups.get("all"):
        raise AnsibleFilterError(
            "The inventory has no hosts. Name one with -i, such as -i inventory/production; "
            "inventory/example is one to copy."
        )
    others = [each for each in groups if each not in (*IMPLIED, name)]
    near = difflib.get_close_matches(name, others, n=1)
    found = f"did you mean {name} by {near[0]}?" if near else f"there are {', '.join(others)}."
    raise AnsibleFilterError(
        f"The inventory has no host in the group {name}{': ' + found if others else '.'} "
        f"Put the hosts that it is for into {name}, as inventory/example does."
    )


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by name."""
        return {"group": group}
