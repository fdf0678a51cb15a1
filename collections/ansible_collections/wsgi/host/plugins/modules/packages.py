#!/usr/bin/python
"""Documentation of the action `wsgi.host.packages`, which runs the family's own module on the host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install or remove packages of the distribution, whatever its package manager
version_added: "0.1.0"
description:
  - Runs the module that the file of the host's family (C(families/<family>.yml) of this collection) names in
    C(__family_packages), with the options that it has there. M(wsgi.host.preflight) has to have run before.
  - In check mode it reports what it would install.
  - With an empty list it does nothing.
options:
  name:
    description: The packages.
    type: list
    elements: str
    default: []
  state:
    description: >-
      Whether they should be installed. V(renewed) upgrades all packages of the host, and takes no names.
    type: str
    choices: [present, absent, renewed]
    default: present
  start_services:
    description: >-
      Whether a package may start its service, if the distribution does that. Otherwise services stay off until somebody
      starts them.
    type: bool
    default: true
  look_again:
    description: Set the fact C(wsgi_host) again afterwards, with M(wsgi.host.probe).
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Reports what would change, and changes nothing.
  diff_mode:
    support: none
    description: Shows no differences.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: install | Install what is missing
  wsgi.host.packages:
    name: [nginx, logrotate]
    start_services: false
"""

RETURN = r"""
ansible_facts:
  description: The fact C(wsgi_host) of M(wsgi.host.probe).
  type: dict
  returned: with O(look_again=true)
"""
