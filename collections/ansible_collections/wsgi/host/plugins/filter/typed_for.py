"""`wsgi.host.typed_for`: what is typed for one playbook is not ignored by another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.utils.vars import load_extra_vars
from ansible_collections.wsgi.host.plugins.plugin_utils.variables import shown

DOCUMENTATION = r"""
name: typed_for
short_description: Refuse variables that are typed for another playbook
version_added: "0.1.0"
description:
  - Some variables ask for what only one playbook does, such as C(application_remove). Any other one
    would ignore it with C(-e), and do what nobody asked for.
  - Returns C(groups) as they are, so that it can stand in C(hosts) of the first play. Nothing is
    asked of any host then, and none pays for it.
  - What is empty, or has its default, is as good as not typed.
positional: playbook
options:
  _input:
    description: Ansible's C(groups).
    type: dict
    required: true
  playbook:
    description: The playbook, as people name it.
    type: str
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
- name: Drain hosts
  hosts: "{{ groups | wsgi.host.typed_for('playbooks/drain.yml') | wsgi.host.group('web') }}"
  tasks: []
"""

RETURN = r"""
_value:
  description: The groups.
  type: dict
"""

# Playbooks that read a variable, by its name. No other one takes it.
BUILDS = ("site.yml", "playbooks/deploy.yml")
READ_BY: dict[str, tuple[str, ...]] = {
    "application_revision": BUILDS,
    "application_bundle": BUILDS,
    "application_bundle_sha256": BUILDS,
    "application_release": ("playbooks/rollback.yml",),
    "release": ("playbooks/rollback.yml",),
    "application_backup_fetch": ("playbooks/backup.yml",),
    "application_restore": ("playbooks/restore.yml",),
    "application_restore_identity": ("playbooks/restore.yml",),
    "application_restore_to": ("playbooks/restore_database.yml",),
    "application_maintenance": ("playbooks/maintenance.yml",),
    "application_remove": ("playbooks/remove.yml",),
    "application_remove_data": ("playbooks/remove.yml", "playbooks/remove_database.yml"),
    "application_primary": ("playbooks/switchover.yml",),
    "application_status_format": ("playbooks/status.yml",),
    "application_status_page": ("playbooks/status.yml",),
}
# Of those whose default is not empty (roles/application/defaults).
DEFAULTS = {"application_remove_data": "no", "application_status_format": "table"}


def typed_for(groups: Mapping[str, Sequence[str]], playbook: str) -> Mapping[str, Sequence[str]]:
    """Return the groups.

    Raises:
        AnsibleFilterError: something is typed that this playbook does not read.
    """
    taken = [name for name, readers in READ_BY.items() if playbook in readers]
    takes = f"takes {in_words(taken, 'or')}" if taken else "takes no such variable"
    problems = [
        f"{name} is {shown(value)}, and is for {in_words(READ_BY[name], 'and')}; {playbook} "
        f"{takes}: run the playbook that you mean, with its own variables."
        for name, value in typed().items()
        if name in READ_BY and name not in taken and value not in (None, "", DEFAULTS.get(name))
    ]
    if problems:
        raise AnsibleFilterError(" ".join([*problems, "Nothing was changed."]))
    return groups


def typed() -> dict[str, Any]:
    """Variables of the command line, which Ansible has read by now."""
    found: dict[str, Any] = load_extra_vars(DataLoader())
    return found


def in_words(names: Sequence[str], last: str) -> str:
    """Some names in a sentence: `a, b or c`."""
    *first, final = names
    return f"{', '.join(first)} {last} {final}" if first else final


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by name."""
        return {"typed_for": typed_for}
