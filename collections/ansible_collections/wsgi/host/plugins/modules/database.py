#!/usr/bin/python
"""Documentation of the action plugin wsgi.host.database, which runs on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: database
short_description: Compute who uses the database of a fleet, and how
version_added: "0.1.0"
description:
  - Reads from the inventory which applications of the group C(web) have a database on the hosts of the group C(databases), and from
    which addresses they connect, for the role C(postgresql). Nobody lists anything twice - a host that you add to C(web) is admitted.
  - Passwords, and the certificate of the server, are derived from C(application_database_secret) of the inventory.
  - Fails, with the names that a person wrote, if the inventory lacks an address or the secret.
  - Runs on the control node only and changes nothing. Its result is never displayed.
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Shows no differences.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: database | Find out which applications use it
  wsgi.host.database:
  register: __application_database
"""

RETURN = r"""
applications:
  description: Who is let in, for C(postgresql_applications).
  type: list
  elements: dict
  returned: success
certificate:
  description: For C(postgresql_certificate); empty where no other host uses it.
  type: str
  returned: success
archive_passphrase:
  description: For C(postgresql_archive_passphrase); empty where there is no secret.
  type: str
  returned: success
certificate_key:
  description: For C(postgresql_certificate_key).
  type: str
  returned: success
cluster:
  description: >-
    Of several databases, C(members) and C(voters), each with C(name) and C(address), and what this host is known by to them; C(passwords), with
    which databases copy one another. Empty for one database.
  type: dict
  returned: success
"""
