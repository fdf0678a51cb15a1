"""Names the group that a play is for, or says that the inventory has none."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display

DOCUMENTATION = r"""
name: group
short_description: Name the group that a play is for
version_added: "0.1.0"
description:
  - Returns the name of a group that has hosts. Without one, a play would end green and have done
    nothing.
  - Warns of hosts in a group whose name is nearly one that this project acts on, such as
    C(database), unless they are in such a group as well. Inventories are shared, so that may be
    right.
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
ACTED_ON = ("web", "balancers", "databases", "database_voters", "monitoring")
# Of difflib. Inventories are shared, and old_app_databases may be a group of somebody else's.
ALIKE = 0.8


def group(groups: Mapping[str, Sequence[str]], name: str) -> str:
    """Return `name`.

    Args:
        groups: hosts by the name of their group.
        name: the group that is wanted.

    Raises:
        AnsibleFilterError: there is no such group, or no host in it.
    """
    if groups.get(name):
        for warning in misspelt(groups):
            Display().warning(warning)
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


def misspelt(groups: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What is to be said of groups that somebody may take for those that this project acts on."""
    acted_on = {host for name in ACTED_ON for host in groups.get(name) or ()}
    for name, hosts in groups.items():
        left_out = [host for host in hosts if host not in acted_on]
        # Who numbers a group has several, and means it.
        if name in (*IMPLIED, *ACTED_ON) or name[-1:].isdigit() or not left_out:
            continue
        near = difflib.get_close_matches(name.lower(), ACTED_ON, n=1, cutoff=ALIKE)
        if near:
            yield (
                f"The inventory has {' and '.join(left_out)} in the group {name}, on which no "
                f"playbook acts: did you mean {near[0]}? Then rename the group."
            )


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by name."""
        return {"group": group}
