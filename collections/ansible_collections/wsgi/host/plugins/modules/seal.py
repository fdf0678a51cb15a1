#!/usr/bin/python
"""Tells whether a run has anything to do on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seal
short_description: Determine whether a run has anything to do on a host
version_added: "0.1.0"
description:
  - At the end of a complete run it records, readable by root of the host only, the state of everything that the run looked at or relied on, together
    with a hash of the run's input. This record is the seal.
  - At the beginning of the next run it compares. If nothing is different and the applications answer through the web server, that
    run would change nothing.
  - It takes the place of the first look at the host (M(wsgi.host.probe)), so it costs no trip of its own at the beginning.
  - A run for some hosts or some tags neither trusts a seal nor makes one.
options:
  state:
    description:
      - V(kept) compares, and returns RV(kept).
      - V(set) writes the record. In check mode nothing is written.
    type: str
    choices: [kept, set]
    default: kept
  hours:
    description:
      - Hours after which a seal is no longer trusted, because some of what a run looks after depends on the time, such as a certificate.
        0 means never to trust one.
    type: float
    default: 24
  inputs:
    description: RV(inputs) as it was at the beginning of the run. Without it nothing is recorded.
    type: str
    default: ""
  applications:
    description:
      - The applications, each with C(name), C(directory) and C(lock) of its source on the control node, C(content), the hash of what
        was built of them, C(locked), whether the lock of its deploys is on this host, and C(question), what is asked through the
        web server (C(connect), C(name), C(path), C(status), C(json)).
      - If the content of one cannot be determined again, as with a repository or build steps, nothing is recorded.
    type: list
    elements: dict
    default: []
  notices:
    description: Lines that the next run repeats if it has nothing to do.
    type: list
    elements: str
    default: []
  seen:
    description: The result of this module for the host in an earlier play of the same run, which it then returns again.
    type: dict
    default: {}
  unchanged:
    description:
      - With O(seen), that no earlier play of this run has changed the host. What is known of it then holds in this play, too, also
        for a balancer, a database or a voter.
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
- name: seal | Check whether there is anything to do
  wsgi.host.seal:
    hours: 24
  register: seal
"""

RETURN = r"""
kept:
  description: Whether nothing has changed since the last whole run.
  type: bool
  returned: with O(state=kept)
why:
  description: Why that is not so; empty if it is.
  type: str
  returned: with O(state=kept)
inputs:
  description: A hash of all that this run was given, but for the sources of applications.
  type: str
  returned: with O(state=kept)
at:
  description: When the seal was made.
  type: str
  returned: with O(state=kept)
notices:
  description: The lines of then.
  type: list
  returned: with O(state=kept)
"""
