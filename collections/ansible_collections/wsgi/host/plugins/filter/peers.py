"""`wsgi.host.peers`: the certificates of other hosts, read now or known from before."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: peers
short_description: Say which certificates other hosts have
version_added: "0.1.0"
description:
  - Takes what C(ansible.builtin.slurp) found in a loop over hosts, and what was written about them
    before. A host whose certificate could not be read, because it was not reached for instance,
    keeps the one that is known. One that has no certificate is left out.
options:
  _input:
    description: C(results) of the loop; each C(item) is found as O(loop_var).
    type: list
    elements: dict
    required: true
  loop_var:
    description: Name of the loop's variable, whose value is the name of a host.
    type: str
    required: true
  known:
    description: What C(slurp) found of the file that was written before, whose certificates each
      follow a line C(# host NAME).
    type: dict
    default: {}
author: [toll-app maintainers]
"""

EXAMPLES = r"""
- name: List them
  ansible.builtin.debug:
    msg: "{{ read.results | wsgi.host.peers('host', known) }}"
"""

RETURN = r"""
_value:
  description: For each host that has one C(name) and C(certificate), in the order of the loop.
  type: list
  elements: dict
"""

BLOCK = re.compile(
    r"^# host (?P<name>\S+)\n(?P<certificate>-----BEGIN CERTIFICATE-----\n.*?"
    r"-----END CERTIFICATE-----)$",
    re.MULTILINE | re.DOTALL,
)


def text(read: Mapping[str, Any]) -> str:
    """What slurp read; nothing where it read nothing."""
    return base64.b64decode(read.get("content") or "").decode()


def peers(
    results: Sequence[Mapping[str, Any]],
    loop_var: str,
    known: Mapping[str, Any] | None = None,
) -> list[dict[str, str]]:
    """List hosts with their certificates."""
    before = {each["name"]: each["certificate"] for each in BLOCK.finditer(text(known or {}))}
    found = []
    for result in results:
        name = str(result[loop_var])
        certificate = text(result).strip()
        missing = "File not found" in str(result.get("msg", ""))
        if not certificate and not missing:
            certificate = before.get(name, "")
        if certificate:
            found.append({"name": name, "certificate": certificate})
    return found


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {"peers": peers}
