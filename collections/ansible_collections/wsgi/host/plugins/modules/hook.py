"""Documentation of the action plugin wsgi.host.hook, which runs on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: hook
short_description: Run a description's command for a stage of a deploy
version_added: "0.1.0"
description:
  - Runs the command of an operator before or after a stage, on the control node or, as the service would, on the host.
  - Nothing here runs as root on the host outside of the sandbox of the service.
options:
  name:
    description: What messages call it, such as C(applications.shop.hooks.before_migrate).
    type: str
    required: true
  command:
    description: The program and its arguments.
    type: list
    elements: str
    required: true
  where:
    description:
      - V(control) is the control node, in the directory of the project and with the environment of Ansible.
      - V(host) is the host, by C(exec) of O(program), with the user, settings and sandbox of the service.
    type: str
    choices: [control, host]
    required: true
  environment:
    description: Additional environment variables of the command.
    type: dict
    required: true
  time_limit_seconds:
    description: Seconds after which it is stopped.
    type: int
    default: 600
  program:
    description: The command of the application on the host.
    type: str
    required: true
  release:
    description: The release whose program runs on the host.
    type: str
    default: ""
  fatal:
    description: Whether a failure of the command fails the task.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: Says what would run.
  diff_mode:
    support: none
    description: Shows no differences.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: hooks | control | Tell the chat
  wsgi.host.hook:
    name: applications.shop.hooks.after_handover
    command: [./tell-chat, deployed]
    where: control
    program: /usr/local/sbin/shop
    environment: {RELEASE: "{{ __application_target }}"}
    fatal: false
"""

RETURN = r"""
hook_failed:
  description: What was wrong with a command that is not O(fatal); empty otherwise.
  type: str
  returned: when it ran
output:
  description: What it wrote.
  type: str
  returned: when it was done
"""
