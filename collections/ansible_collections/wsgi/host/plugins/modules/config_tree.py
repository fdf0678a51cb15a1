#!/usr/bin/python
"""Puts a tree of configuration files in place as a whole."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_tree
short_description: Put a tree of configuration files in place, checked as a whole
version_added: "1.0.0"
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
    (see O(settle)).
options:
  name:
    description: Identity of the tree; its record on the host is
      C(/var/lib/config-tree/<name>.json).
    type: str
    required: true
  state:
    description:
      - V(present) puts the tree in place.
      - V(settled) says that the service runs with it; for the handlers of a tree with O(settle).
      - V(absent) removes the files of the tree.
    type: str
    choices: [present, settled, absent]
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
      - Single files, each with C(dest) and exactly one of C(template), C(content) or C(random).
      - C(random) is a number of bytes; the file is created once with so many random bytes in
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
  settle:
    description: Keep the tree marked as pending until it is called with O(state=settled).
    type: bool
    default: false
  payload:
    description: The rendered files; filled in by the action, not for users.
    type: str
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [toll-app maintainers]
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
    settle: true
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

import base64
import grp
import hashlib
import json
import os
import pwd
import re
import secrets
import shutil
import stat
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost import environment, trees
from ansible_collections.wsgi.host.plugins.module_utils.apphost.files import write_bytes
from ansible_collections.wsgi.host.plugins.module_utils.apphost.trees import Record, TreeError
from ansible_collections.wsgi.host.plugins.module_utils.paths import (
    ForeignPathError,
    require_own,
)

RECORDS = Path("/var/lib/config-tree")
DPKG_STATUS = Path("/var/lib/dpkg/status")


@dataclass
class Wanted:
    """One file as it shall be. `content` is None for a random file until it is known."""

    dest: str
    mode: int
    owner: str
    group: str
    secret: bool
    content: bytes | None = None
    random: int | None = None
    program: bool = False


@dataclass
class Found:
    """One path as it is."""

    kind: str  # missing, file, link
    content: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0


@dataclass
class Change:
    """One path that differs. `wanted` is None where the file goes."""

    dest: str
    what: str  # created, updated, permissions, removed
    found: Found
    wanted: Wanted | None
    edited: bool = False
    secret: bool = False


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def decode(payload: str | None) -> list[Wanted]:
    """The files of the action's payload, random ones without content."""
    if not payload:
        return []
    entries = json.loads(zlib.decompress(base64.b64decode(payload)))
    return [
        Wanted(
            dest=entry["dest"],
            mode=int(entry["mode"], 8),
            owner=entry["owner"],
            group=entry["group"],
            secret=entry["secret"],
            content=base64.b64decode(entry["content"]) if "content" in entry else None,
            random=entry.get("random"),
            program=entry.get("program", False),
        )
        for entry in entries
    ]


def record_of(name: str) -> Path:
    """Where it is recorded what is known of a tree."""
    return RECORDS / f"{name}.json"


def require_own_places(
    record: Record, wanted: list[Wanted], directories: list[dict[str, Any]]
) -> None:
    """Raises ForeignPathError where somebody else than root can change where a path leads."""
    # One look for each directory, of which files have many in common.
    files = {*(file.dest for file in wanted), *record.files, *record.written, *record.settled}
    for path in sorted({os.path.dirname(dest): dest for dest in sorted(files)}.values()):
        require_own(path)
    for entry in directories:
        require_own(entry["path"])


def look(dest: str) -> Found:
    """What is at a path. Raises where it is something that this module must not replace."""
    try:
        status = os.lstat(dest)
    except FileNotFoundError:
        return Found("missing")
    except NotADirectoryError as error:
        raise TreeError(f"{dest}: a part of its path is a file, not a directory") from error
    if stat.S_ISLNK(status.st_mode):
        return Found("link", os.readlink(dest).encode())
    if not stat.S_ISREG(status.st_mode):
        raise TreeError(f"{dest} is not a file; move it away, or write somewhere else")
    return Found(
        "file",
        Path(dest).read_bytes(),
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
    )


def identity(database: Any, kind: str, name: str, dest: str, *, tolerant: bool) -> int | None:
    """The number of a user or group; None, if tolerant, for one that does not exist yet."""
    try:
        return int(name) if name.isdigit() else database(name)[2]
    except KeyError as error:
        if tolerant:
            return None
        raise TreeError(
            f"{dest}: there is no {kind} {name!r} on this host; create it first"
        ) from error


def compare(wanted: list[Wanted], record: Record, *, tolerant: bool) -> list[Change]:
    """Every path that differs from what is wanted, and every one of ours that no longer is."""
    changes = []
    for file in wanted:
        found = look(file.dest)
        if file.random is not None:
            file.content = (
                found.content if found.kind == "file" else secrets.token_hex(file.random).encode()
            )
        assert file.content is not None
        uid = identity(pwd.getpwnam, "user", file.owner, file.dest, tolerant=tolerant)
        gid = identity(grp.getgrnam, "group", file.group, file.dest, tolerant=tolerant)
        if found.kind == "missing":
            changes.append(Change(file.dest, "created", found, file, secret=file.secret))
        elif found.kind == "link" or found.content != file.content:
            edited = not (
                record.knows(file.dest, digest(found.content)) or pristine(file.dest, found.content)
            )
            changes.append(Change(file.dest, "updated", found, file, edited, file.secret))
        elif (found.mode, found.uid, found.gid) != (file.mode, uid, gid):
            changes.append(Change(file.dest, "permissions", found, file))
    ours = {file.dest for file in wanted}
    for dest in sorted({*record.files, *record.written, *record.settled} - ours):
        found = look(dest)
        if found.kind != "missing":
            edited = not record.knows(dest, digest(found.content))
            changes.append(Change(dest, "removed", found, None, edited, dest in record.secret))
    return changes


def pristine(path: str, content: bytes) -> bool:
    """Whether it is the file that the distribution's package brought, so that nobody's work goes.

    Only Debian records this where it can be read for the price of a file; elsewhere
    a file of a package counts as somebody's, and a copy is kept once.
    """
    try:
        status = DPKG_STATUS.read_text(errors="replace")
    except FileNotFoundError:
        return False
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return f"\n {path} {md5}\n" in status


def missing_directories(
    directories: list[dict[str, Any]], *, tolerant: bool
) -> list[dict[str, Any]]:
    """The directories that are not there or not as they shall be, with their numbers filled in."""
    result = []
    for entry in directories:
        path = entry["path"]
        uid = identity(pwd.getpwnam, "user", entry.get("owner", "root"), path, tolerant=tolerant)
        gid = identity(grp.getgrnam, "group", entry.get("group", "root"), path, tolerant=tolerant)
        wish = {"path": path, "mode": int(entry.get("mode", "0755"), 8), "uid": uid, "gid": gid}
        try:
            status = os.stat(path)
        except FileNotFoundError:
            result.append(wish)
            continue
        if not stat.S_ISDIR(status.st_mode):
            raise TreeError(f"{path} is not a directory; move it away")
        if (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) != (wish["mode"], uid, gid):
            result.append(wish)
    return result


def lay_out(root: Path, stage: list[str], changes: list[Change], wanted: list[Wanted]) -> None:
    """The whole tree as it would be, below `root`: ours over what is there, the removed gone."""
    for directory in stage:
        if os.path.isdir(directory):
            shutil.copytree(directory, root / directory.lstrip("/"), symlinks=True)
    for change in changes:
        if change.wanted is None:
            (root / change.dest.lstrip("/")).unlink(missing_ok=True)
    for file in wanted:
        path = root / file.dest.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(file.content or b"")
        path.chmod(file.mode)


def run_checks(
    module: AnsibleModule, checks: list[dict[str, Any]], root: Path, wanted: list[Wanted]
) -> None:
    """Runs the checks on the staged tree. Raises with the program's words, in paths of the host."""
    for check in checks:
        argv = [argument.replace("{stage}", str(root)) for argument in check["argv"]]
        absent = [path for path in check.get("needs") or [] if not os.path.exists(path)]
        if module.check_mode and absent:
            module.warn(
                f"{os.path.basename(argv[0])} did not check the files, because this run would make "
                f"{', '.join(absent)} first."
            )
            continue
        program = shutil.which(argv[0])
        if program is None:
            if module.check_mode:
                module.warn(f"{argv[0]} is not installed yet, so it did not check the files.")
                continue
            raise TreeError(
                f"{argv[0]} is not installed, so the files cannot be checked; install it"
            )
        environment = {
            key: str(value).replace("{stage}", str(root))
            for key, value in (check.get("environment") or {}).items()
        }
        code, out, err = module.run_command([program, *argv[1:]], environ_update=environment)
        if code:
            said = (err + out).replace(str(root), "").strip()
            given = {argument.replace(str(root), "") for argument in argv}
            raise TreeError(
                f"{os.path.basename(argv[0])} refused the configuration; nothing was changed. "
                f"It said:\n{said}{foreign(said, wanted, given)}"
            )


def foreign(said: str, wanted: list[Wanted], given: set[str]) -> str:
    """A sentence for files that a check named and that are not of this tree, else nothing.

    What the check was called with is no culprit: nginx ends each refusal with its main file's name.
    """
    ours = {file.dest for file in wanted}
    named = {path for path in re.findall(r"(/[\w./@+-]+\w)", said) if os.path.isfile(path)}
    others = sorted(path for path in named - ours if path.startswith("/etc/"))
    if not others or (named & ours) - given:
        return ""
    return f"\nNot written by this project, so mend or remove it by hand: {', '.join(others)}"


def keep_copies(name: str, changes: list[Change]) -> dict[str, str]:
    """Copies what somebody else wrote before it is replaced. Returns path: place of the copy."""
    kept = {}
    folder = RECORDS / name / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for change in changes:
        if change.edited and change.found.kind == "file":
            copy = folder / change.dest.lstrip("/")
            copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_bytes(copy, change.found.content, 0o600)
            kept[change.dest] = str(copy)
    return kept


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
            put_back(change)
        raise TreeError(
            f"{done[-1].dest} could not be written ({error.strerror}); "
            "what was there before is back in place"
        ) from error


def put_back(change: Change) -> None:
    path = Path(change.dest)
    if change.found.kind == "missing":
        path.unlink(missing_ok=True)
    elif change.found.kind == "link":
        path.unlink(missing_ok=True)
        path.symlink_to(change.found.content.decode())
    else:
        owner = (change.found.uid, change.found.gid)
        write_bytes(path, change.found.content, change.found.mode, owner)


def version(content: bytes) -> str:
    """A file of this project's own, in one line: nobody reads a program in a difference."""
    lines = content.count(b"\n")
    return f"version {digest(content)[:12]}, {lines} lines"


def differences(
    changes: list[Change], before: dict[str, Any], after: dict[str, Any]
) -> list[dict[str, str]]:
    """What `--diff` shows, file by file; of a secret only that it differs."""
    result = []
    for change in changes:
        if change.what == "permissions":
            assert change.wanted is not None
            old = f"{change.found.mode:04o} {change.found.uid}:{change.found.gid}"
            new = f"{change.wanted.mode:04o} {change.wanted.owner}:{change.wanted.group}"
        elif change.secret:
            old = "" if change.found.kind == "missing" else "(secret)"
            new = "(secret, new)" if change.wanted else ""
        elif change.wanted is not None and change.wanted.program:
            old = "" if change.found.kind == "missing" else version(change.found.content)
            new = version(change.wanted.content or b"")
        else:
            old = change.found.content.decode(errors="replace")
            new = ((change.wanted.content or b"") if change.wanted else b"").decode(
                errors="replace"
            )
        note = f" ({change.what})"
        result.append(
            {
                "before_header": change.dest + note,
                "after_header": change.dest + note,
                "before": old if not old or old.endswith("\n") else old + "\n",
                "after": new if not new or new.endswith("\n") else new + "\n",
            }
        )
    if before != after:
        result.append(
            {
                "before_header": "inputs",
                "after_header": "inputs",
                "before": json.dumps(before, indent=1, sort_keys=True) + "\n",
                "after": json.dumps(after, indent=1, sort_keys=True) + "\n",
            }
        )
    return result


def warn_of_edits(
    module: AnsibleModule, name: str, changes: list[Change], kept: dict[str, str]
) -> None:
    for change in changes:
        if not change.edited:
            continue
        verb = {"updated": "replaced", "removed": "removed"}[change.what]
        tense = "would be" if module.check_mode else "was"
        where = f"; its content is kept in {kept[change.dest]}" if change.dest in kept else ""
        module.warn(
            f"{change.dest} had been written by somebody else than tree {name!r} "
            f"and {tense} {verb}{where}."
        )


def settle(module: AnsibleModule, name: str) -> dict[str, Any]:
    """The service runs with what is on disk. Bookkeeping, so never reported as a change."""
    if not module.check_mode:
        trees.settle(record_of(name))
    return {"changed": False, "pending": False}


def put_in_place(module: AnsibleModule, wanted: list[Wanted]) -> dict[str, Any]:
    name: str = module.params["name"]
    inputs: dict[str, Any] = module.params["inputs"]
    record = trees.read(record_of(name))
    require_own_places(record, wanted, module.params["directories"])
    directories = missing_directories(module.params["directories"], tolerant=module.check_mode)
    changes = compare(wanted, record, tolerant=module.check_mode)
    differs = bool(changes) or record.inputs != inputs
    kept: dict[str, str] = {}
    if differs and module.params["checks"]:
        with tempfile.TemporaryDirectory(prefix="config-tree-") as folder:
            lay_out(Path(folder), module.params["stage"], changes, wanted)
            run_checks(module, module.params["checks"], Path(folder), wanted)
    if not module.check_mode:
        for entry in directories:
            os.makedirs(entry["path"], mode=0o755, exist_ok=True)
            os.chown(entry["path"], entry["uid"], entry["gid"])
            os.chmod(entry["path"], entry["mode"])
        digests = {file.dest: digest(file.content or b"") for file in wanted}
        pending = (record.pending or differs) and module.params["settle"]
        if differs or digests != record.files:
            kept = keep_copies(name, changes)
            secret = sorted(file.dest for file in wanted if file.secret)
            either = sorted({*secret, *record.secret})
            settled = record.settled
            trees.write(
                record_of(name),
                Record(record.files, digests, record.inputs, pending, either, settled),
            )
            swap(module, changes)
            trees.write(record_of(name), Record(digests, {}, inputs, pending, secret, settled))
    warn_of_edits(module, name, changes, kept)
    unfinished = record.pending and module.params["settle"]
    result: dict[str, Any] = {
        "changed": bool(differs or directories or unfinished),
        "files": {change.dest: change.what for change in changes},
        "edited": {c.dest: kept.get(c.dest, "") for c in changes if c.edited},
        "directories": [entry["path"] for entry in directories],
        "pending": unfinished,
        "diff": differences(changes, record.inputs, inputs),
    }
    if unfinished and not differs:
        result["msg"] = "An earlier run wrote these files but did not finish; its handlers run now."
    return result


def remove(module: AnsibleModule) -> dict[str, Any]:
    name: str = module.params["name"]
    record = trees.read(record_of(name))
    require_own_places(record, [], [])
    changes = compare([], record, tolerant=True)
    kept: dict[str, str] = {}
    if not module.check_mode:
        kept = keep_copies(name, changes)
        swap(module, changes)
        record_of(name).unlink(missing_ok=True)
    warn_of_edits(module, name, changes, kept)
    return {
        "changed": bool(changes),
        "files": {change.dest: change.what for change in changes},
        "edited": kept,
        "pending": False,
        "diff": [],
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "default": "present",
                "choices": ["present", "settled", "absent"],
            },
            # Holds every file, secret ones too, so that none is written to the host's log.
            "payload": {"type": "str", "no_log": True},
            "directories": {"type": "list", "elements": "dict", "default": []},
            "inputs": {"type": "dict", "default": {}},
            "stage": {"type": "list", "elements": "str", "default": []},
            "checks": {"type": "list", "elements": "dict", "default": []},
            "settle": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", module.params["name"]):
        module.fail_json(msg=f"name {module.params['name']!r}: letters, digits, _ . - are allowed")
    try:
        if module.params["state"] == "settled":
            result = settle(module, module.params["name"])
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
