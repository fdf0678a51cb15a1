#!/usr/bin/python
"""Puts together what is said of the applications of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: describe
short_description: Complete the descriptions of a host's applications
version_added: "0.1.0"
description:
  - Takes the descriptions of applications as a person wrote them, in the variable C(applications), merges each with the one that a role brings, and fills in the
    defaults, those of C(web) from the variables of C(gunicorn_systemd). Wrong ones are left as they are, for
    M(wsgi.host.preflight) to refuse.
  - Runs on the control node. The host is probed first, unless it was in this play.
  - The result holds secrets in memory. It is not shown, whatever the verbosity, and is not a fact, so no cache keeps it.
options:
  bases:
    description: The descriptions that roles bring, by the name of the role.
    type: dict
    default: {}
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
- name: describe | Put the descriptions together
  wsgi.host.describe:
    bases:
      toll_app: "{{ toll_app_application }}"
  register: __application_descriptions
"""

RETURN = r"""
applications:
  description: >-
    The whole descriptions by name. Each has C(name); C(service), the variables of the service's role without their prefix; whether it has its database on the
    host of the group C(databases), C(database_of_fleet), the addresses that stand for it, C(database_names), and C(database_authority), a
    certificate.
  type: dict
  returned: success
described:
  description: The same without what follows from them, for M(wsgi.host.preflight).
  type: dict
  returned: success
sites:
  description: The sites, for C(nginx_sites).
  type: list
  returned: success
certificates:
  description: Their certificates, for C(certbot_certificates).
  type: list
  returned: success
sharing:
  description: >-
    Of the hosts of the inventory that serve a name of this one, C(peers), where their nginx answers plain HTTP; C(nowhere), those whose
    address is not known; C(alike), the hosts that have the same set of names on a certificate, for the set that most have.
  type: dict
  returned: success
asking:
  description: >-
    Whose monitoring asks for the health of this host's sites, C(addresses), and C(nowhere), other hosts whose address is not
    known; and C(closed), the applications whose health path is open to them alone. Empty where there is no such application.
  type: dict
  returned: success
balancers:
  description: >-
    The hosts of the group C(balancers), C(names) and C(addresses), and C(nowhere), those whose address is not known.
  type: dict
  returned: success
database:
  description: >-
    The C(names) of the hosts of the group C(databases); C(applications), which of this host have their database there;
    C(without), which are to have it there although the inventory has no such group; and C(problems), what of the inventory
    stands in the way, each with C(variable), C(problem) and C(remedy).
  type: dict
  returned: success
origins:
  description: What a person wrote that the certificates are made of.
  type: dict
  returned: success
https_port:
  description: The port of nginx for HTTPS.
  type: int
  returned: success
names:
  description: Their names, in the order in which they were written.
  type: list
  returned: success
"""
