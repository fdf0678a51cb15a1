"""What `--diff` shows, and the warnings of what somebody else had written."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wsgi.host.plugins.module_utils.config_trees.model import Change, digest


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


def version(content: bytes) -> str:
    """A file of this project's own, in one line: nobody reads a program in a difference."""
    lines = content.count(b"\n")
    return f"version {digest(content)[:12]}, {lines} lines"


def warn_of_edits(
    module: AnsibleModule, name: str, changes: list[Change], kept: dict[str, str]
) -> None:
    """Warn of each file of somebody else that was replaced or removed."""
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
