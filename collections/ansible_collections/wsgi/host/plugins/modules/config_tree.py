#!/usr/bin/python
"""Puts a tree of configuration files in place as a whole."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_tree
short_description: Put a tree of configuration files in place, checked as a whole
version_added: "0.1.0"
description:
  - Configuration of a service is many files that are right or wrong together. This renders them
    on the control node,
    sends them in one step, compares, lays them out in a staging place over a copy of what is
    there, runs the checks
    on that whole, and only then swaps. If a check fails, nothing has changed and the message
    names the file.
  - Files written by an earlier run that are no longer wanted are removed. A file that was edited
    by hand, or that
    was there before the first run, is reported when it is replaced, and a copy is kept.
  - A path that another user can change, since a directory on the way to it belongs to that user, is
    refused before anything is changed.
  - A tree whose handlers did not run, because the run was interrupted, reports C(changed) again
    (see O(needs_apply)).
options:
  name:
    description: Identity of the tree; its record on the host is
      C(/var/lib/config-tree/<name>.json).
    type: str
    required: true
  state:
    description:
      - V(present) puts the tree in place.
      - V(applied) records that the service runs with it; for the handlers of a tree with O(needs_apply).
      - V(reverted) restores the files that the service ran with last, if O(revertible) kept
        them; it changes nothing if there is nothing to revert to.
      - V(absent) removes the files of the tree.
    type: str
    choices: [present, applied, reverted, absent]
    default: present
  sources:
    description:
      - Directories below C(templates/) whose layout is the layout on the host, each with
        C(source) and C(dest),
        optionally C(mode), C(owner), C(group) and C(secret).
      - Files ending in C(.j2) are rendered; others are copied as they are, and C(--diff) names
        their version before and after instead of their lines.
    type: list
    elements: dict
    default: []
  files:
    description:
      - Single files, each with C(dest) and exactly one of C(template), C(content) or C(random_bytes).
      - C(random_bytes) is a number of bytes; the file is created once with so many random bytes in
        hexadecimal and is
        never replaced.
      - With C(each), a list, there is one file per element; C(as) names the element in the
        template and in the
        braces of C(dest), as in C(/etc/nginx/sites/{site[name]}.conf).
      - C(mode) (V("0644")), C(owner) and C(group) (V(root)); C(secret) keeps the content out of
        diffs, results and logs.
    type: list
    elements: dict
    default: []
  directories:
    description: Directories to have, each with C(path), optionally C(mode) (V("0755")), C(owner)
      and C(group) (V(root)).
    type: list
    elements: dict
    default: []
  inputs:
    description: Further values that the service depends on; a changed one counts as a change of
      the tree. Not for secrets.
    type: dict
    default: {}
  stage:
    description: Existing directories that are copied to the staging place first, so that the
      checks see foreign files too.
    type: list
    elements: str
    default: []
  checks:
    description:
      - Commands that must succeed on the staged tree, each with C(argv), optionally
        C(environment) (a dictionary) and C(needs) (a list of paths).
      - C({stage}) stands for the root of the staging place.
      - In check mode a check is skipped with a warning while its program is not installed yet, or
        while a path of its C(needs) is missing, which the run itself would make first.
    type: list
    elements: dict
    default: []
  units:
    description:
      - Units that run with these files and have nothing to wait for. They run, now and at every boot; with
        V(present) they are started anew when a file changes, with V(applied) each time, with V(absent) when a
        file was removed.
      - The tree counts as applied when they run, without a handler. One that does not start fails the task, and
        the next run tries again.
    type: list
    elements: str
    default: []
  needs_apply:
    description: Keep the tree marked as pending until it is called with O(state=applied).
    type: bool
    default: false
  revertible:
    description: Keep what is replaced until the tree is applied, for O(state=reverted). With O(needs_apply).
    type: bool
    default: false
  payload:
    description: The rendered files; filled in by the action, not for users.
    type: str
attributes:
  check_mode:
    support: full
    description: Reports what would change, and changes nothing.
  diff_mode:
    support: full
    description: Shows what changes, before and after.
author: toll-app maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: configure | Put nginx's configuration in place
  wsgi.host.config_tree:
    name: nginx
    sources:
      - {source: nginx, dest: /etc/nginx}
    files:
      - each: "{{ nginx_sites }}"
        as: site
        template: site.conf.j2
        dest: /etc/nginx/sites/{site[name]}.conf
    stage: [/etc/nginx]
    checks:
      - argv: [/usr/sbin/nginx, -t, -q, -c, "{stage}/etc/nginx/nginx.conf"]
    needs_apply: true
  notify: Reload nginx
"""

RETURN = r"""
files:
  description: What was (or in check mode would be) done, by path.
  type: dict
  returned: changed
  sample: {/etc/nginx/nginx.conf: updated}
edited:
  description: Paths that somebody else had written, with the place of the copy that was kept.
  type: dict
  returned: always
pending:
  description: Whether an earlier run wrote the tree without finishing.
  type: bool
  returned: always
"""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost import environment, trees
from ansible_collections.wsgi.host.plugins.module_utils.apphost.systemd import (
    Systemd,
    all_properties,
)
from ansible_collections.wsgi.host.plugins.module_utils.apphost.trees import Record, TreeError
from ansible_collections.wsgi.host.plugins.module_utils.config_trees import (
    checking,
    comparing,
    records,
    reporting,
    reverting,
    running,
    swapping,
)
from ansible_collections.wsgi.host.plugins.module_utils.config_trees.model import (
    Change,
    Wanted,
    decode,
    digest,
)
from ansible_collections.wsgi.host.plugins.module_utils.paths import ForeignPathError

UNITS = "/etc/systemd/system/"


def mark_applied(module: AnsibleModule, name: str) -> dict[str, Any]:
    """The service runs with what is on disk. Bookkeeping, so a change only where a unit starts anew."""
    units: list[str] = module.params["units"]
    if not module.check_mode:
        if units:
            running.run(units, anew=True, read_again=True)
        trees.mark_applied(records.record_of(name))
        reverting.forget(name)
    return {"changed": bool(units), "pending": False}


def unit_files(changes: list[Change]) -> list[str]:
    """Which of the files that differ systemd has read."""
    return [each.dest for each in changes if each.dest.startswith(UNITS)]


def end_units(changes: list[Change]) -> None:
    """Have units whose files go do nothing any more: nobody could stop or mend them afterwards.

    What runs until it is stopped is left to who hands over from it; it is only no failed unit.
    """
    folder = UNITS.rstrip("/")
    gone = [Path(each.dest) for each in changes if each.wanted is None]
    names = [path.name for path in gone if str(path.parent) == folder]
    if not names:
        return
    serves = {
        name
        for name, shown in all_properties(names, "Type").items()
        if shown["Type"] not in ("", "oneshot")
    }
    systemd = Systemd()
    # Timers first, so that none starts what has just been stopped.
    ends = sorted(set(names) - serves, key=lambda name: (not name.endswith(".timer"), name))
    for name in ends:
        systemd.stop(name)
    if serves:
        systemd.forgive(*sorted(serves))


def revert(module: AnsibleModule, name: str) -> dict[str, Any]:
    """Have the tree be again what the service ran with last."""
    files = reverting.revert(name, preview=module.check_mode)
    return {"changed": bool(files), "files": files, "pending": False}


def put_in_place(module: AnsibleModule, wanted: list[Wanted]) -> dict[str, Any]:
    """Compare, check, keep copies, swap: the tree as it is wanted."""
    name: str = module.params["name"]
    inputs: dict[str, Any] = module.params["inputs"]
    units: list[str] = module.params["units"]
    needs_apply: bool = module.params["needs_apply"] or bool(units)
    record = trees.read(records.record_of(name))
    comparing.require_own_places(record, wanted, module.params["directories"])
    directories = comparing.missing_directories(
        module.params["directories"], tolerant=module.check_mode
    )
    changes = comparing.compare(wanted, record, tolerant=module.check_mode)
    differs = bool(changes) or record.inputs != inputs
    kept: dict[str, str] = {}
    if differs and module.params["checks"]:
        with tempfile.TemporaryDirectory(prefix="config-tree-") as folder:
            checking.lay_out(Path(folder), module.params["stage"], changes, wanted)
            checking.run_checks(module, module.params["checks"], Path(folder), wanted)
    if not module.check_mode:
        for entry in directories:
            os.makedirs(entry["path"], mode=0o755, exist_ok=True)
            os.chown(entry["path"], entry["uid"], entry["gid"])
            os.chmod(entry["path"], entry["mode"])
        digests = {file.dest: digest(file.content or b"") for file in wanted}
        pending = (record.pending or differs) and needs_apply
        paths = [entry["path"] for entry in module.params["directories"]]
        if differs or digests != record.files or paths != record.directories:
            kept = records.keep_copies(name, changes)
            secret = sorted(file.dest for file in wanted if file.secret)
            either = sorted({*secret, *record.secret})
            applied = record.applied
            trees.write(
                records.record_of(name),
                Record(record.files, digests, record.inputs, pending, either, applied, paths),
            )
            if module.params["revertible"]:
                reverting.keep(name, record, changes)
            end_units(changes)
            swapping.swap(module, changes)
            trees.write(
                records.record_of(name),
                Record(digests, {}, inputs, pending, secret, applied, paths),
            )
    reporting.warn_of_edits(module, name, changes, kept)
    unfinished = record.pending and needs_apply
    anew = bool(differs or unfinished)
    idle = running.idle(units)
    if units and not module.check_mode:
        if anew or idle:
            running.run(units, anew=anew, read_again=not differs or bool(unit_files(changes)))
        if anew:
            trees.mark_applied(records.record_of(name))
    result: dict[str, Any] = {
        "changed": bool(anew or directories or idle),
        "units": units if anew else idle,
        "files": {change.dest: change.what for change in changes},
        "edited": {c.dest: kept.get(c.dest, "") for c in changes if c.edited},
        "directories": [entry["path"] for entry in directories],
        "pending": unfinished and not units,
        "diff": reporting.differences(changes, record.inputs, inputs),
    }
    if unfinished and not differs:
        result["msg"] = "An earlier run wrote these files but did not finish; its handlers run now."
    return result


def remove(module: AnsibleModule) -> dict[str, Any]:
    """Remove the files of the tree, and forget it."""
    name: str = module.params["name"]
    record = trees.read(records.record_of(name))
    comparing.require_own_places(record, [], [])
    changes = comparing.compare([], record, tolerant=True)
    kept: dict[str, str] = {}
    if not module.check_mode:
        kept = records.keep_copies(name, changes)
        end_units(changes)
        swapping.swap(module, changes)
        if changes and module.params["units"]:
            running.run(module.params["units"], anew=True, read_again=bool(unit_files(changes)))
        records.record_of(name).unlink(missing_ok=True)
        reverting.forget(name)
    reporting.warn_of_edits(module, name, changes, kept)
    return {
        "changed": bool(changes),
        "files": {change.dest: change.what for change in changes},
        "edited": kept,
        "pending": False,
        "diff": [],
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "default": "present",
                "choices": ["present", "applied", "reverted", "absent"],
            },
            # Holds every file, secret ones too, so that none is written to the host's log.
            "payload": {"type": "str", "no_log": True},
            "directories": {"type": "list", "elements": "dict", "default": []},
            "inputs": {"type": "dict", "default": {}},
            "stage": {"type": "list", "elements": "str", "default": []},
            "checks": {"type": "list", "elements": "dict", "default": []},
            "needs_apply": {"type": "bool", "default": False},
            "units": {"type": "list", "elements": "str", "default": []},
            "revertible": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", module.params["name"]):
        module.fail_json(msg=f"name {module.params['name']!r}: letters, digits, _ . - are allowed")
    try:
        if module.params["state"] == "applied":
            result = mark_applied(module, module.params["name"])
        elif module.params["state"] == "reverted":
            result = revert(module, module.params["name"])
        elif module.params["state"] == "absent":
            result = remove(module)
        else:
            result = put_in_place(module, decode(module.params["payload"]))
    except (TreeError, ForeignPathError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    environment.apply()
    main()
