"""Documentation of the action plugin wsgi.host.rollback_choice, which runs on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_choice
short_description: Choose the release that all hosts roll back to
version_added: "0.1.0"
description:
  - Chooses by verdict and by when a release was made live, never by a file's time. Without O(wanted)
    it is the last release that was judged healthy before the live one, that can start, and that
    nobody has left by going back, the same content on every host. Going back twice so goes further
    back, and never to one that was judged bad.
  - Fails where no host would change its release. By its name, the live one is no failure.
  - Runs on the control node only and changes nothing.
options:
  hosts:
    description: What C(toll-app releases --json) answered, by host.
    type: dict
    required: true
  wanted:
    description: >-
      An id, a content, or at least 7 digits of a revision. Hosts with other Pythons have other ids of
      the same content, so naming one of them names all.
    type: str
    default: ""
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
- name: rollback | Choose where to go
  wsgi.host.rollback_choice:
    hosts: "{{ answers }}"
  run_once: true
  register: choice
"""

RETURN = r"""
ids:
  description: The id that each host goes back to, by host.
  type: dict
  returned: success
"""
