#!/usr/bin/python
"""Documentation of the action plugin wsgi.host.balance, which runs on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: balance
short_description: Compute where the balancers of a fleet send clients
version_added: "0.1.0"
description:
  - Reads from the inventory which hosts of the group C(web) serve which names, for C(haproxy_sites) of the role C(haproxy). Nobody lists
    anything twice - a host that you add to C(web) is balanced.
  - A name that only some hosts serve goes to those hosts only.
  - Returns which balancers can have the floating addresses of C(keepalived_addresses), for the role C(keepalived).
  - Fails, with the names that a person wrote, if hosts that serve one application cannot be balanced.
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
- name: balance | Work out which site goes to which hosts
  wsgi.host.balance:
  register: __application_balance
"""

RETURN = r"""
sites:
  description: What is led where, for C(haproxy_sites).
  type: list
  elements: dict
  returned: success
ports:
  description: Where the hosts expect the PROXY protocol, C(http) and C(https).
  type: dict
  returned: success
floating:
  description: C(addresses) that move between the balancers, and C(peers), all of these with C(name) and C(address).
  type: dict
  returned: success
verify:
  description: Whether clients can trust the certificates of all these hosts.
  type: bool
  returned: success
"""
