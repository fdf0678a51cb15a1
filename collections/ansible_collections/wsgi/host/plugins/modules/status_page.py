"""Documentation of the action plugin wsgi.host.status_page, which runs on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: status_page
short_description: Write what all hosts answered as one page for a browser
version_added: "0.1.0"
description:
  - Writes a file of HTML on the control node - what runs where, releases, deploys and requests of the last day, certificates,
    copies and alerts. It loads nothing from elsewhere, runs no script, and says how old it is.
  - The page is the one that C(toll-app status --page) writes on a host.
  - Only you can read the file. Hosts are not changed.
options:
  path:
    description: The file; relative to the directory that you work in.
    type: path
    required: true
  reports:
    description: What M(wsgi.host.status_report) returned as RV(wsgi.host.status_report#module:report), an application each.
    type: list
    elements: dict
    required: true
attributes:
  check_mode:
    support: full
    description: Writes the page in any mode; nothing else is written.
  diff_mode:
    support: none
    description: Shows no differences.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: status | Write the page
  wsgi.host.status_page:
    path: status.html
    reports: "{{ reports.results | map(attribute='report') }}"
  run_once: true
"""

RETURN = r"""
path:
  description: The file.
  type: str
  returned: success
"""
