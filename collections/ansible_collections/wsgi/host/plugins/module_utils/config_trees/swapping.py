"""Puts every change in place, or none."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost.files import write_bytes
from ansible_collections.wsgi.host.plugins.module_utils.apphost.trees import TreeError
from ansible_collections.wsgi.host.plugins.module_utils.config_trees.comparing import identity
from ansible_collections.wsgi.host.plugins.module_utils.config_trees.model import Change


def swap(module: AnsibleModule, changes: list[Change]) -> None:
    """Puts every change in place, or none: what was done is undone when one fails."""
    done: list[Change] = []
    try:
        for change in changes:
            done.append(change)
            path = Path(change.dest)
            if change.wanted is None:
                path.unlink()
                continue
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            file = change.wanted
            uid = identity(pwd.getpwnam, "user", file.owner, file.dest, tolerant=False)
            gid = identity(grp.getgrnam, "group", file.group, file.dest, tolerant=False)
            write_bytes(path, file.content or b"", file.mode, (uid or 0, gid or 0))
            if module.selinux_enabled():
                module.set_default_selinux_context(change.dest, False)
    except OSError as error:
        for change in reversed(done):
            revert(change)
        raise TreeError(
            f"{done[-1].dest} could not be written ({error.strerror}); "
            "what was there before is back in place"
        ) from error


def revert(change: Change) -> None:
    """Has a path be again what it was."""
    path = Path(change.dest)
    if change.found.kind == "missing":
        path.unlink(missing_ok=True)
    elif change.found.kind == "link":
        path.unlink(missing_ok=True)
        path.symlink_to(change.found.content.decode())
    else:
        owner = (change.found.uid, change.found.gid)
        write_bytes(path, change.found.content, change.found.mode, owner)
