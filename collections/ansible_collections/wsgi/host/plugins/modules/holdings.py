#!/usr/bin/python
"""Says where an application's data are on a host, and whether they still are where they were."""

from __future__ import annotations

DOCUMENTATION = r"""
module: holdings
short_description: Compare where an application's data are with where they should be
version_added: "0.1.0"
description:
  - A change of a variable, or a disk that is not mounted, can leave data behind without an error. This reads
    what earlier runs have written, so that a role can refuse before it changes anything.
  - Opens no database and creates nothing. Never changes anything, in check mode or out of it.
options:
  files:
    description: >-
      The databases of an application that has no server. The first one says whether there are data. None at all for
      an application without a database, or whose data are other files.
    type: list
    elements: path
    required: true
  credential:
    description: A file with the URL of the database, where it is on a server.
    type: path
    required: true
  stamp:
    description: >-
      A JSON file whose C(database) starts with C(file:) or C(url:) once the database of that kind holds data.
    type: path
    required: true
  url:
    description: The URL that the database should have, or nothing for O(files).
    type: str
    default: ""
  names:
    description: Addresses of this host, where O(url) names one of them. They are one server.
    type: list
    elements: str
    default: []
  backup_settings:
    description: A JSON file with the C(directory) and the C(recipient) of copies.
    type: path
    required: true
  backup_directory:
    description: Where copies should be.
    type: path
    required: true
  mounts:
    description: Mount points that must be mounted, each a file system of its own.
    type: list
    elements: path
    default: []
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
- name: keep | Look up where the data are
  wsgi.host.holdings:
    files: [/var/lib/shop/shop.db]
    credential: /etc/shop/credentials/database_url
    stamp: /opt/shop/state/data.json
    url: "{{ shop_database_url }}"
    backup_settings: /etc/shop/backup.json
    backup_directory: /var/backups/shop
  register: __shop_holdings
"""

RETURN = r"""
database:
  description: >-
    C(kind) (C(sqlite), C(postgresql), or empty if there are no data yet), C(where) without a password,
    C(moves), whether it is to be another one, and C(gone), whether the file held data and holds none now.
  type: dict
  returned: always
copies:
  description: >-
    C(directory) and C(recipient) up to now, C(moves), whether copies there would be left behind, and
    C(gone), whether there were copies and are none now.
  type: dict
  returned: always
unmounted:
  description: Those of O(mounts) that are not mounted.
  type: list
  returned: always
"""

import os
import re
import stat
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost import environment
from ansible_collections.wsgi.host.plugins.module_utils.apphost.database import is_same, place
from ansible_collections.wsgi.host.plugins.module_utils.apphost.files import read_json_if_possible

COPY = re.compile(r"\d{8}T\d{6}Z-\w+(-before-restore)?\.(sqlite|dump|tar)(\.age)?")


def read_text(path: str) -> str:
    """A file's text; empty if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def holds(path: str) -> bool:
    """Whether it is a file with something in it."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def shown(url: str) -> str:
    """Which database a URL of PostgreSQL names, for people."""
    parts = urlsplit(url)
    hosts = [*parse_qs(parts.query).get("host", []), parts.netloc.rpartition("@")[2]]
    host = next((each for each in hosts if each), "localhost")
    port = "" if re.search(r":\d+$", host) or "/" in host else ":5432"
    return f"postgresql://{unquote(host)}{port}/{unquote(parts.path.lstrip('/'))}"


def database(options: dict[str, Any]) -> dict[str, Any]:
    """Where the data are, and whether they are to be elsewhere."""
    stamp = str(read_json_if_possible(Path(options["stamp"])).get("database") or "")
    # Where a pooler is in front of the server, the URL of the server itself has a file beside.
    direct = read_text(options["credential"] + "_direct")
    current = direct or read_text(options["credential"])
    wanted, files = options["url"], options["files"]
    if current and stamp.startswith("url:"):
        names = options["names"]
        moves = not wanted or not is_same(place(wanted, names), place(current, names))
        return {"kind": "postgresql", "where": shown(current), "moves": moves, "gone": False}
    # Settings of a server whose database was never made do not count.
    first = files[0] if files else ""
    if first and holds(first):
        return {"kind": "sqlite", "where": first, "moves": bool(wanted), "gone": False}
    gone = bool(first) and stamp.startswith("file:") and not current
    return {"kind": "sqlite" if gone else "", "where": first, "moves": False, "gone": gone}


def names_of_copies(directory: str) -> list[str]:
    """The copies in a directory."""
    try:
        return [each for each in os.listdir(directory) if COPY.fullmatch(each)]
    except OSError:
        return []


def copies(options: dict[str, Any]) -> dict[str, Any]:
    """Where the copies are, and whether they are to be elsewhere."""
    settings = read_json_if_possible(Path(options["backup_settings"]))
    directory = str(settings.get("directory") or "")
    state = read_json_if_possible(Path(options["stamp"]).with_name("copies.json"))
    there = names_of_copies(directory) if directory else []
    other = bool(directory) and directory != options["backup_directory"]
    held = state.get("directory") == directory and bool(state.get("sequence"))
    return {
        "directory": directory,
        "recipient": str(settings.get("recipient") or ""),
        # A person who has taken them along has left nothing behind.
        "moves": other and bool(there),
        "gone": bool(directory) and held and not there and not other,
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "path", "required": True},
            "credential": {"type": "path", "required": True},
            "stamp": {"type": "path", "required": True},
            "url": {"type": "str", "default": "", "no_log": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "backup_settings": {"type": "path", "required": True},
            "backup_directory": {"type": "path", "required": True},
            "mounts": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    options = module.params
    module.exit_json(
        changed=False,
        database=database(options),
        copies=copies(options),
        unmounted=[each for each in options["mounts"] if not os.path.ismount(each)],
    )


if __name__ == "__main__":
    environment.apply()
    main()
