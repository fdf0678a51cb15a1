"""`wsgi.host.has_pooler`: whether a host has PgBouncer of the role postgresql."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DOCUMENTATION = r"""
name: has_pooler
short_description: Say whether a host has PgBouncer of the role postgresql
version_added: "0.1.0"
description:
  - Goes by the package and the user that the role makes. A PgBouncer that somebody else has
    installed is not meant.
options:
  _input:
    description: The fact C(wsgi_host) of M(wsgi.host.probe); empty of a host that was not seen.
    type: dict
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
pooled: "{{ ansible_facts.get('wsgi_host', {}) | wsgi.host.has_pooler }}"
"""

RETURN = r"""
_value:
  description: Whether it has.
  type: bool
"""

# As the role postgresql calls it.
USER = "postgresql-pooler"


def has_pooler(host: Mapping[str, Any]) -> bool:
    """Return whether a host has it, by its facts."""
    return "pgbouncer" in host.get("packages", ()) and USER in host.get("users", ())


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by name."""
        return {"has_pooler": has_pooler}
