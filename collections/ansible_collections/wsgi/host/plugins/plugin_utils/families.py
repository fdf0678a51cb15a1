"""What differs between families of systems: one file of this collection, `families/<family>.yml`.

A file has the variables `__<role>_…` of each role that supports the family, and these of its own:

* `__family_ids`: names in `ID` or `ID_LIKE` of os-release(5) that belong to the family;
* `__family_packages`: how `wsgi.host.packages` installs and removes;
* `__family_platforms`: what is told to Ansible Galaxy.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load

DIRECTORY = Path(__file__).parents[2] / "families"
# The same for people, from the project's folder.
PLACE = "collections/ansible_collections/wsgi/host/families"


def names() -> list[str]:
    """The families that there are."""
    return sorted(path.stem for path in DIRECTORY.glob("*.yml"))


def file_of(family: str) -> Path:
    return DIRECTORY / f"{family}.yml"


def content(family: str) -> dict[str, Any]:
    """What the file of a family says, templates as they are written."""
    path = file_of(family)
    return _content(path, path.stat().st_mtime_ns)


@functools.lru_cache
def _content(path: Path, changed: int) -> dict[str, Any]:
    found: dict[str, Any] = yaml_load(path.read_text(encoding="utf-8"))
    return found


def of_system(ids: Iterable[str]) -> str:
    """The family of a system, empty if there is none.

    Args:
        ids: `ID` of os-release(5), then the names in `ID_LIKE`, the closest first.
    """
    by_id = {name: family for family in names() for name in content(family)["__family_ids"]}
    return next((by_id[name] for name in ids if name in by_id), "")


def supporting(role: str) -> list[str]:
    """Families whose file has variables of a role."""
    return [family for family in names() if supports(family, role)]


def supports(family: str, role: str) -> bool:
    """Whether the file of a family has variables of a role."""
    return any(name.startswith(f"__{role}_") for name in content(family))


def spread(options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Options in which `families` of one stands for an option by the name of each family."""
    found: dict[str, Any] = {name: dict(option) for name, option in options.items()}
    for option in found.values():
        if "families" in option:
            option["options"] = dict.fromkeys(names(), option.pop("families"))
    return found
