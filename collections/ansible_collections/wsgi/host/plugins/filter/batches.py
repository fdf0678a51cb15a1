"""`wsgi.host.batches`: hosts one batch after the other, within one play."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.wsgi.host.plugins.plugin_utils import fleet

DOCUMENTATION = r"""
name: batches
short_description: Cut hosts into batches
version_added: "0.1.0"
description:
  - Ansible's C(serial) repeats a whole play for each batch, so nothing can be done to the hosts of
    an earlier batch when a later one fails. This cuts the hosts within a play.
  - Raises an error if a size is neither a number nor a percentage.
options:
  _input:
    description: Hosts.
    type: list
    elements: str
    required: true
  serial:
    description: >-
      How many hosts a batch has, a number, a percentage of all, or a list of both whose last one
      holds for all that follow.
    type: raw
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
- name: handover | One host first, then the others
  ansible.builtin.include_tasks: switch.yml
  loop: "{{ ansible_play_hosts_all | wsgi.host.batches([1, '100%']) }}"
  loop_control: {loop_var: batch}
  when: inventory_hostname in batch
"""

RETURN = r"""
_value:
  description: Lists of hosts.
  type: list
  elements: list
"""


def batches(hosts: Sequence[str], serial: object) -> list[list[str]]:
    """Cut hosts into batches."""
    try:
        return fleet.batches(hosts, serial)
    except ValueError as error:
        raise AnsibleFilterError(f"batches: {error}") from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"batches": batches}
