#!/usr/bin/python
"""Documentation of the action plugin wsgi.host.openings, which runs on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: openings
short_description: Compute which ports a host opens, and to whom
version_added: "0.1.0"
description:
  - Reads C(meta/openings.yml) of each role beside the role C(firewall), in which a role says which ports the hosts of some groups
    open and to whom, and adds C(firewall_open) and SSH.
  - Names of groups and hosts stand for their addresses in the inventory, all of it. A run with C(--limit) admits the same
    hosts.
  - Fails, with the names that a person wrote, if a source is unknown or has no address.
  - Runs on the control node only and changes nothing.
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
- name: preflight | Find out what is to be opened
  wsgi.host.openings:
  register: __firewall_openings
"""

RETURN = r"""
openings:
  description: >-
    What is open, each with C(role), C(reason), C(protocol), C(ports), whether it is C(untracked), and C(matches), how nft knows
    what is let in.
  type: list
  elements: dict
  returned: success
ssh:
  description: Networks from which one may log in.
  type: list
  elements: str
  returned: success
untracked:
  description: >-
    Ports whose connections take no place in the kernel's table, by protocol, such as those that are open to everybody.
  type: dict
  returned: success
far:
  description: >-
    The same of other hosts, where this one connects, each with C(role), C(reason), and how nft knows what is C(sent) there and
    C(answered).
  type: list
  elements: dict
  returned: success
known:
  description: Addresses of the hosts of the inventory, C(ipv4) and C(ipv6).
  type: dict
  returned: success
"""
