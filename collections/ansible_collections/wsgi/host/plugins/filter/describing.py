"""`wsgi.host.describing`: the roles that describe an application, of those that are named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible_collections.wsgi.host.plugins.plugin_utils.roles import (
    describes,
    directory_of,
    places_of_roles,
)

DOCUMENTATION = r"""
name: describing
short_description: Leave out roles that describe no application
version_added: "0.1.0"
description:
  - Returns the roles that Ansible finds and that have C(tasks/describe.yml). M(wsgi.host.describe)
    refuses the others with the name of the application, where C(include_role) would end the run
    with an error about files of the role.
positional: role_path, playbook_dir
options:
  _input:
    description: Names of roles, as somebody wrote them.
    type: list
    elements: str
    required: true
  role_path:
    description: The directory of the role that asks. Others are looked for beside it.
    type: path
    required: true
  playbook_dir:
    description: Ansible's C(playbook_dir).
    type: path
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
- name: Read what roles say of applications
  ansible.builtin.include_role:
    name: "{{ item }}"
    tasks_from: describe
  loop: "{{ ['toll_app', 'nginx'] | wsgi.host.describing(role_path, playbook_dir) }}"
"""

RETURN = r"""
_value:
  description: Those that describe one.
  type: list
  elements: str
"""


def describing(names: Sequence[str], role_path: str, playbook_dir: str) -> list[str]:
    """Return the roles that describe an application."""
    places = places_of_roles(role_path, playbook_dir)
    return [name for name in names if describes(directory_of(name, places), role_path)]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        return {"describing": describing}
