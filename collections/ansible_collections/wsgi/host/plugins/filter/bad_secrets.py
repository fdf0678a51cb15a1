"""The secrets of a description that are neither text nor made on the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DOCUMENTATION = r"""
name: bad_secrets
short_description: List secrets that cannot be right
version_added: "0.1.0"
description:
  - Names the secrets of an application's description whose value is neither text in one line nor
    a dictionary with a number of bytes, C(random_bytes). Their values are not in the result.
options:
  _input:
    description: The secrets by name.
    type: dict
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
wrong: "{{ applications.shop.secrets | wsgi.host.bad_secrets }}"
"""

RETURN = r"""
_value:
  description: Names of secrets.
  type: list
  elements: str
"""

BYTES = range(16, 1025)


def is_right(value: Any) -> bool:
    """Whether it is text in one line, or says how many random bytes the host is to make."""
    if isinstance(value, Mapping):
        count = value.get("random_bytes")
        return set(value) == {"random_bytes"} and isinstance(count, int) and count in BYTES
    return isinstance(value, str) and value != "" and len(value.splitlines()) == 1


def bad_secrets(secrets: Mapping[str, Any]) -> list[str]:
    """List the names of those that are not right."""
    return [str(name) for name, value in secrets.items() if not is_right(value)]


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by name."""
        return {"bad_secrets": bad_secrets}
