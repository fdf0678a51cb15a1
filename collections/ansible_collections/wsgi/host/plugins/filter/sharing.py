"""The hosts whose application has a database in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.wsgi.host.plugins.plugin_utils import databases
from ansible_collections.wsgi.host.plugins.plugin_utils.descriptions import entries

DOCUMENTATION = r"""
name: sharing
short_description: List the hosts whose application has a database in common
version_added: "0.1.0"
description:
  - Of some hosts, those whose description of an application in the inventory names a database, or
    has one that follows from the group C(databases).
positional: hostvars, name, url
options:
  _input:
    description: Names of hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: C(hostvars).
    type: dict
    required: true
  name:
    description: Name of the application.
    type: str
    required: true
  url:
    description: The database, as C(data.database_url).
    type: str
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
hosts: "{{ groups['web'] | wsgi.host.sharing(hostvars, 'shop', shop_database_url) }}"
"""

RETURN = r"""
_value:
  description: Names of hosts, in the order in which they came.
  type: list
  elements: str
"""


def sharing(hosts: Iterable[str], hostvars: Mapping[str, Any], name: str, url: str) -> list[str]:
    """List those of the hosts whose application has this database."""
    names = list(hosts)
    # What follows from the inventory is written for no host, and known only of those in the run.
    groups = hostvars[names[0]].get("groups") if names else None
    follows = databases.is_made(groups or {}, hostvars, name, url)
    return [
        host
        for host in names
        if database_url(hostvars[host], name) == url
        or (follows and databases.may_be_wanted(described(hostvars[host]).get(name)))
    ]


def database_url(variables: Mapping[str, Any], name: str) -> str:
    """The database that a host's variables name for an application; empty for none."""
    found: Any = described(variables)
    for key in (name, "data", "database_url"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return str(found or "")


def described(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """The host's applications: whole where this run has put them together, or as written."""
    whole = variables.get("__application_descriptions") or {}
    return whole.get("applications") or entries(variables)


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by name."""
        return {"sharing": sharing}
