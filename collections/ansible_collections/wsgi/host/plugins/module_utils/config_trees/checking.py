"""The checks, on the whole tree as it would be, in a staging place."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.apphost.trees import TreeError
from ansible_collections.wsgi.host.plugins.module_utils.config_trees.model import Change, Wanted


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
                f"Output:\n{said}{foreign(said, wanted, given)}"
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
    return f"\nNot written by this project, so repair or remove it by hand: {', '.join(others)}"
