"""`wsgi.host.former_poolers`: databases whose pooler nobody uses any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.wsgi.host.plugins.filter.concerned import NOBODY
from ansible_collections.wsgi.host.plugins.filter.has_pooler import has_pooler
from ansible_collections.wsgi.host.plugins.plugin_utils.balancing import SERVING
from ansible_collections.wsgi.host.plugins.plugin_utils.databases import DATABASES, POOLER

DOCUMENTATION = r"""
name: former_poolers
short_description: List the databases whose pooler nobody uses any more
version_added: "0.1.0"
description:
  - Returns a pattern of the hosts in the group C(databases) that have PgBouncer of the role
    C(postgresql), and should not have it any more.
  - One of nobody where a host of the group C(web) took no part in the run, because its applications
    may still connect there.
positional: groups, hostvars
options:
  _input:
    description: What P(wsgi.host.concerned#filter) says of the group C(databases).
    type: str
    required: true
  groups:
    description: Ansible's C(groups).
    type: dict
    required: true
  hostvars:
    description: C(hostvars), with the fact C(wsgi_host) of the hosts that took part.
    type: dict
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
- name: Remove poolers that nobody uses any more
  hosts: >-
    {{ groups | wsgi.host.concerned('databases') | wsgi.host.former_poolers(groups, hostvars) }}
  tasks: []
"""

RETURN = r"""
_value:
  description: The pattern, for C(hosts) of a play.
  type: str
"""


def former_poolers(
    concerned: str, groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Any]
) -> str:
    """Return a pattern of hosts."""
    if concerned == NOBODY:
        return NOBODY
    # Nothing is known of hosts while a play is only read.
    if not hostvars or not all(_seen(hostvars[host]) for host in groups.get(SERVING) or ()):
        return NOBODY
    found = [
        host
        for host in groups.get(DATABASES) or ()
        if has_pooler(_seen(hostvars[host]))
        and not boolean(hostvars[host].get(POOLER, False), strict=False)
    ]
    return ":".join(found) or NOBODY


def _seen(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is known of a host; nothing if the run has not looked at it."""
    facts: Mapping[str, Any] = variables.get("ansible_facts") or {}
    return facts.get("wsgi_host") or {}


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by name."""
        return {"former_poolers": former_poolers}
