"""`wsgi.host.scram`: what PostgreSQL keeps of a password."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

DOCUMENTATION = r"""
name: scram
short_description: Say what PostgreSQL keeps of a password
version_added: "0.1.0"
description:
  - The verifier of SCRAM-SHA-256 (RFC 5803), which PostgreSQL takes in place of a password. The
    password itself never comes to the database's host.
  - The salt follows from the name of the role, so that the same password gives the same verifier
    and a run has nothing to do. For passwords that a machine has made, which no table of words has.
positional: name
options:
  _input:
    description: The password.
    type: str
    required: true
  name:
    description: Name of the role.
    type: str
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
verifier: "{{ vault_shop_database_password | wsgi.host.scram('shop') }}"
"""

RETURN = r"""
_value:
  description: The verifier.
  type: str
"""

# PostgreSQL's own number.
ITERATIONS = 4096


def scram(password: str, name: str) -> str:
    """The verifier as pg_authid has it: docs/catalogs, pg_authid.rolpassword."""
    salt = hashlib.sha256(f"wsgi.host scram {name}".encode()).digest()[:16]
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(each).decode() for each in (salt, stored, server)]
    return f"SCRAM-SHA-256${ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by name."""
        return {"scram": scram}
