"""Documentation of the action plugin wsgi.host.status_report, which runs on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: status_report
short_description: Show how all hosts do, as a table or as JSON
version_added: "0.1.0"
description:
  - Writes what the hosts answered to the terminal, and what differs between them.
  - Runs on the control node only and changes nothing.
options:
  application:
    description: Whose hosts these are, for the first line.
    type: str
    default: ""
  hosts:
    description: What C(toll-app status --json) answered, by host.
    type: dict
    required: true
  failed:
    description: Why there is no answer, by host.
    type: dict
    default: {}
  format:
    description: >-
      V(table) for people. V(json) is one line that begins with a brace, so that
      C(ansible-playbook ... | grep '^{') is what a program reads.
    type: str
    choices: [table, json]
    default: table
  variables:
    description: What the person who writes O(format) calls it, for messages.
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
- name: status | Show it
  wsgi.host.status_report:
    hosts: "{{ answers }}"
    format: json
  run_once: true
"""

RETURN = r"""
drift:
  description: What differs between hosts, or is not as it should be on one of them.
  type: list
  elements: str
  returned: success
report:
  description: The same as the format V(json), for M(wsgi.host.status_page).
  type: dict
  returned: success
down:
  description: What is wrong with each host that serves nobody.
  type: dict
  returned: success
"""
