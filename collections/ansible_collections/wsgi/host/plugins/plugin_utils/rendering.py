"""Renders a template as `ansible.builtin.template` does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

MANAGED = "This file is managed by Ansible: a change made by hand is reported and replaced."


def rendered(path: Path, templar: Templar, loader: DataLoader, variables: Mapping[str, Any]) -> str:
    """The text of a template; what it includes is found beside it. Raises AnsibleError.

    The lookup `ansible.builtin.template` copies all variables for it, each time.
    """
    search: list[str] = [str(path.parent)]
    for folder in variables.get("ansible_search_path", []):
        search += [os.path.join(folder, "templates"), folder]
    available = {"ansible_managed": MANAGED, **variables}
    inner = templar.copy_with_new_env(searchpath=search, available_variables=available)
    result = inner.template(
        trust_as_template(loader.get_text_file_contents(str(path))),
        escape_backslashes=False,
        overrides={"trim_blocks": True, "lstrip_blocks": True},
    )
    return "" if result is None else str(result)
