#!/usr/bin/python
"""Documentation of the action `wsgi.host.apt`, and its part on the host: who holds apt's locks."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt
short_description: Install or remove Debian packages, and wait for whoever else does
version_added: "0.1.0"
description:
  - Calls M(ansible.builtin.apt) when none of apt's and dpkg's locks is held, and again when it fails while one
    is. A host that has just booted runs C(apt-daily) and C(cloud-init), each of which takes the locks one
    after the other.
  - The C(lock_timeout) of M(ansible.builtin.apt) covers dpkg's two locks only. For the lock of the package lists it
    tries a few times, and not at all where it has to install python3-apt first. It does not wait for the lock of the archives as
    C(apt-get) takes it.
  - Says which process holds which lock while it waits, and when it gives up.
options:
  name:
    description: The packages.
    type: list
    elements: str
    required: true
  state:
    description: Whether they are to be there.
    type: str
    choices: [present, absent]
    default: present
  purge:
    description: Remove their settings as well.
    type: bool
    default: false
  lock_timeout:
    description: Seconds to wait for locks, in all.
    type: int
    default: 300
  cache_valid_time:
    description: Seconds for which package lists count as new. 0 fetches them.
    type: int
    default: 0
  policy_rc_d:
    description: As for M(ansible.builtin.apt). 101 keeps packages from starting their services.
    type: int
  wait_seconds:
    description: Set by the action itself.
    type: float
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
- name: install | Install the packages
  wsgi.host.apt:
    name: [nginx, logrotate]
    policy_rc_d: 101
"""

RETURN = r"""
waited_for:
  description: What held a lock meanwhile, such as C(unattended-upgr (pid 812)), each once.
  type: list
  elements: str
  returned: when it waited
"""

import fcntl
import os
import struct
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost import environment

# In the order in which apt takes them.
LOCKS = (
    "/var/lib/apt/lists/lock",
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/cache/apt/archives/lock",
)
FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid
PAUSE = 0.5  # seconds between two looks


def holder(path: str) -> int | None:
    """The process that has a file locked (fcntl(2), F_GETLK), None for none. Takes no lock."""
    try:
        with open(path, "rb") as file:
            asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
    except FileNotFoundError:
        return None
    return None if answer[0] == fcntl.F_UNLCK else answer[4]


def program(pid: int) -> str:
    """A process for people."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f"{file.read().strip()} (pid {pid})"
    except OSError:
        return f"a process (pid {pid})"


def held() -> str:
    """Who holds which lock, empty if none is held."""
    for path in LOCKS:
        pid = holder(path)
        if pid is not None:
            return f"{program(pid)}, which holds {path}"
    return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={"wait_seconds": {"type": "float", "required": True}},
        # It reads locks.
        supports_check_mode=True,
    )
    end = time.monotonic() + module.params["wait_seconds"]
    by = held()
    while by and time.monotonic() < end:
        time.sleep(PAUSE)
        by = held()
    module.exit_json(changed=False, held=by)


if __name__ == "__main__":
    environment.apply()
    main()
