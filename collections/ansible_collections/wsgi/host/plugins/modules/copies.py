#!/usr/bin/python
"""Removes the copies of an application's data, and nothing else that lies beside them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: copies
short_description: Remove the copies of an application's data
version_added: "0.1.0"
description:
  - Removes the files that the application's backups have written to a directory, and the directory if
    nothing else is in it. Everything else stays, and is returned.
  - Only plain files go, by the names that backups give them. Links and directories stay.
  - A directory that another user can change is refused before anything is removed.
options:
  directory:
    description: Where the copies are.
    type: path
    required: true
  state:
    description: V(absent) removes them.
    type: str
    choices: [absent]
    required: true
attributes:
  check_mode:
    support: full
    description: Reports what would be removed, and removes nothing.
  diff_mode:
    support: none
    description: Shows no differences.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: remove | Remove the copies
  wsgi.host.copies:
    directory: /var/backups/shop
    state: absent
  register: __shop_copies
"""

RETURN = r"""
files:
  description: Names of the files that were (or in check mode would be) removed.
  type: list
  returned: always
left:
  description: Names in the directory that are not of copies, and stay.
  type: list
  returned: always
stays:
  description: Whether the directory is still there afterwards.
  type: bool
  returned: always
"""

import os
import stat
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost import environment
from ansible_collections.wsgi.host.plugins.module_utils.apphost.backup.copies import is_own
from ansible_collections.wsgi.host.plugins.module_utils.paths import ForeignPathError, require_own


def remove(directory: str, *, preview: bool) -> dict[str, Any]:
    """Remove the copies in a directory. Raises ForeignPathError where others can change it."""
    require_own(directory, itself=True)
    # A link that only root can change leads to the disk of the copies.
    place = os.path.realpath(directory)
    if not os.path.isdir(place):
        return {"changed": False, "files": [], "left": [], "stays": False}
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        names = sorted(os.listdir(handle))
        copies = [name for name in names if is_own(name) and is_plain(name, handle)]
        if not preview:
            for name in copies:
                os.unlink(name, dir_fd=handle)
    finally:
        os.close(handle)
    left = sorted(set(names) - set(copies))
    # As a mount point it stays, and so does what a link leads to.
    goes = not left and not os.path.ismount(place) and not os.path.islink(directory)
    if goes and not preview:
        os.rmdir(place)
    return {"changed": bool(copies) or goes, "files": copies, "left": left, "stays": not goes}


def is_plain(name: str, handle: int) -> bool:
    """Whether it is a file, and no link to one."""
    return stat.S_ISREG(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["absent"], "required": True},
        },
        supports_check_mode=True,
    )
    try:
        result = remove(module.params["directory"], preview=module.check_mode)
    except ForeignPathError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    environment.apply()
    main()
