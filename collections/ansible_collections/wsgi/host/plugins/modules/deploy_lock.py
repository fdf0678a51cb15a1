#!/usr/bin/python
"""Holds the lock of deploys, a file on one host, for one run of Ansible."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_lock
short_description: Let one deploy run at a time
version_added: "0.1.0"
description:
  - A file on one host says who deploys, since when and what for. As long as it is there nobody else
    gets the lock. The lock belongs to the process that the operator started, so every task of one run
    holds the same, and nothing has to be registered to free it.
  - A run that was killed does not keep others away. Where the process that holds the lock was started
    on this control node and has ended, the lock is taken over at once; else when there was no sign of
    life for O(stale_seconds). A warning reports both.
  - Never reports a change, since nothing is left of a lock.
options:
  path:
    description: The file on the host. Its directory is made if it is not there.
    type: path
    required: true
  state:
    description:
      - V(held) takes the lock. If another run has it for longer than O(wait_seconds), the task fails.
      - V(kept) gives a sign of life, and fails if the lock was lost to another run meanwhile.
      - V(seen) reports whether this run holds the lock, changes nothing, and never fails.
      - V(free) frees the lock if this run holds it, and leaves that of another run alone.
    type: str
    choices: [held, kept, seen, free]
    default: held
  reason:
    description: What the lock is for, in the words of the operator.
    type: str
    default: ""
  wait_seconds:
    description: Seconds to wait for another run.
    type: int
    default: 0
  stale_seconds:
    description: Seconds without a sign of life after which another run is taken to be dead.
    type: int
    default: 1800
  variables:
    description: What messages call O(wait_seconds) and O(stale_seconds), by the names of these options.
    type: dict
    default: {}
  releases:
    description:
      - The name of an application, whose releases on this host are returned with a lock that is held,
        once no handover is in progress. A handover that a killed run began continues by itself.
      - Empty returns none.
    type: str
    default: ""
  claim:
    description: Who asks. The action plugin sets it; leave it out.
    type: dict
notes:
  - Run it with C(run_once) and C(delegate_to) on the same host every time.
  - A run that no longer gives a sign of life but goes on, held up by its network say, finds out at the
    next V(kept) that it has lost the lock, so ask before what must not happen twice.
attributes:
  check_mode:
    support: full
    description: Reports who holds the lock, and takes none.
  diff_mode:
    support: none
    description: Shows no differences.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: lock | Let no other deploy run
  wsgi.host.deploy_lock:
    path: /opt/toll-app/state/deploy.json
    reason: release v1.4.0
    wait_seconds: 120
  run_once: true
  delegate_to: "{{ groups['web'][0] }}"

- name: lock | Let others deploy again
  wsgi.host.deploy_lock:
    path: /opt/toll-app/state/deploy.json
    state: free
  run_once: true
  delegate_to: "{{ groups['web'][0] }}"
"""

RETURN = r"""
mine:
  description: Whether this run holds the lock.
  type: bool
  returned: with O(state=seen)
asked_at:
  description: When the answer was asked for, by the control node's clock, in seconds since 1970.
  type: float
  returned: always
host:
  description: Where the lock is.
  type: str
  returned: always
owner:
  description: Who runs Ansible, as C(user@machine).
  type: str
  returned: always
lock:
  description: What the lock says after the task, null if it is free.
  type: dict
  returned: always
releases:
  description: The answer of C(releases list --json) of the application's command.
  type: dict
  returned: with O(releases), for a lock that is held
taken_over:
  description: What it said before, if it was taken over.
  type: dict
  returned: if it was taken over
"""

import os
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost import (
    environment,
    files,
    seal,
    times,
)
from ansible_collections.wsgi.host.plugins.module_utils.apphost.errors import (
    HostError,
    RefusedError,
)
from ansible_collections.wsgi.host.plugins.module_utils.paths import (
    ForeignPathError,
    require_own,
)

FLOCK_SECONDS = 30
# For a handover that is under way.
SETTLE_SECONDS = 600
BOOT = "/proc/sys/kernel/random/boot_id"


def make_directory(path: str) -> None:
    """Make a directory, and those above it, readable by all whatever the umask."""
    if not os.path.isdir(path):
        make_directory(os.path.dirname(path))
        os.mkdir(path)
        os.chmod(path, 0o755)


def alone(path: str) -> AbstractContextManager[None]:
    """Read and write the lock as the only process; raise TimeoutError if that cannot be had."""
    # Nobody else may hold it and so keep deploys from happening.
    guard = Path(path + ".flock")
    return files.held(guard, FLOCK_SECONDS, TimeoutError(f"{guard} is held by another process"))


def read(path: str) -> dict[str, Any] | None:
    """Return what the lock says; None if it is free, or says nothing that can be read."""
    try:
        found = files.read_json(Path(path))
    except RefusedError:
        return None
    return found if found and found.get("token") else None


def uptime() -> tuple[str, float]:
    """This boot of the host, and the seconds since, which no change of the clock moves."""
    with open(BOOT, encoding="ascii") as file:
        return file.read().strip(), time.clock_gettime(time.CLOCK_BOOTTIME)


def silence(lock: dict[str, Any], now: float, boot: tuple[str, float]) -> float:
    """Seconds since the holder's last sign of life.

    The clock is asked only if the host has booted since, and not believed if it says that the sign
    is still to come.
    """
    try:
        if lock.get("boot") == boot[0]:
            return max(0.0, boot[1] - float(lock["renewed_uptime"]))
        quiet = now - float(lock["renewed_at"])
        return quiet if quiet >= 0 else float("inf")
    except (KeyError, TypeError, ValueError):
        return float("inf")


def change(
    path: str, state: str, claim: dict[str, Any], stale: int, reason: str, *, check: bool
) -> dict[str, Any]:
    """Do one step; return `lock`, and `busy`, `lost` or `taken_over` with `why` where it applies.

    Args:
        path: the file.
        state: held, kept, seen or free.
        claim: token, owner and control of who asks; `over` is the token of a lock whose holder has
            ended, as the control node knows.
        stale: seconds without a sign of life after which a holder is taken to be dead.
        reason: what the lock is for.
        check: change nothing.
    """
    now, boot = time.time(), uptime()
    found = read(path)
    mine = found is not None and found["token"] == claim["token"]
    if state == "free":
        if mine and not check:
            os.unlink(path)
        return {"lock": found if found and not mine else None}
    if state == "seen":
        return {"lock": found, "mine": mine}
    if state == "kept" and not mine:
        return {"lock": found, "lost": True}
    result: dict[str, Any] = {}
    if found is not None and not mine:
        quiet = silence(found, now, boot)
        if found["token"] == claim.get("over"):
            why = "ended"
        elif quiet > stale:
            why = "silent"
        else:
            why = ""
        result["silence"] = round(min(quiet, 1e9))
        if not why:
            return {**result, "lock": found, "busy": True}
        result |= {"taken_over": found, "why": why}
    since = found if found is not None and mine else {"since": times.stamp()}
    lock = {
        "owner": claim["owner"],
        "reason": reason or str(since.get("reason", "")),
        "since": since["since"],
        "renewed": times.stamp(),
        "renewed_at": now,
        "boot": boot[0],
        "renewed_uptime": boot[1],
        "token": claim["token"],
        "control": claim["control"],
    }
    if not check:
        files.write_json(Path(path), lock)
        if not mine:
            seal.note_run(Path(path).parent, claim["token"])
    return {**result, "lock": lock}


def listed(name: str) -> dict[str, Any]:
    """What is known of the releases of an application, once nobody moves between them.

    Raises HostError.
    """
    # What most locks do without.
    from ansible_collections.wsgi.host.plugins.module_utils.apphost import releases
    from ansible_collections.wsgi.host.plugins.module_utils.apphost.application import Application

    return releases.listing(Application(name), SETTLE_SECONDS).facts


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {
                "type": "str",
                "choices": ["held", "kept", "seen", "free"],
                "default": "held",
            },
            "reason": {"type": "str", "default": ""},
            "wait_seconds": {"type": "int", "default": 0},
            "stale_seconds": {"type": "int", "default": 1800},
            "variables": {"type": "dict", "default": {}},
            "releases": {"type": "str", "default": ""},
            "claim": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    path = options["path"]
    directory = os.path.dirname(path)
    arguments = (
        path,
        options["state"],
        options["claim"],
        options["stale_seconds"],
        options["reason"],
    )
    try:
        require_own(directory, itself=True)
        if module.check_mode or (options["state"] != "held" and not os.path.isdir(directory)):
            result = change(*arguments, check=True)
        else:
            make_directory(directory)
            with alone(path):
                result = change(*arguments, check=False)
        if options["releases"] and options["state"] == "held" and not result.get("busy"):
            result["releases"] = listed(options["releases"])
    except HostError as error:
        module.fail_json(msg=str(error))
    except ForeignPathError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The lock {path} cannot be used: {error}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    environment.apply()
    main()
