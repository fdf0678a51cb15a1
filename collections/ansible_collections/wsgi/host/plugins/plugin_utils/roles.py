"""Where roles are, and what they say of their variables."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.yaml import yaml_load
from ansible.parsing.dataloader import DataLoader
from ansible.utils.collection_loader._collection_finder import _get_collection_role_path

# Of files of roles, in the order in which Ansible looks for them.
ENDINGS = (".yml", ".yaml", ".json", "")


def role_directory(loader: DataLoader, task_vars: Mapping[str, Any], role: str) -> Path:
    """Where the role is: that of the task, or one beside it or in the roles path."""
    own = task_vars.get("role_path")
    candidates = [Path(str(own)), Path(str(own)).parent / role] if own else []
    candidates += [Path(loader.get_basedir()) / "roles" / role]
    places = C.config.get_config_value("DEFAULT_ROLES_PATH")
    candidates += [Path(place) / role for place in places]
    for candidate in candidates:
        if candidate.name == role and candidate.is_dir():
            return candidate
    raise AnsibleActionFail(
        f"role: there is no role {role} in {', '.join(str(path) for path in candidates)}"
    )


def places_of_roles(own: str, basedir: str) -> list[Path]:
    """Directories in which Ansible looks for a role.

    Args:
        own: the directory of the role that includes it.
        basedir: that of the playbook.
    """
    configured = map(Path, C.config.get_config_value("DEFAULT_ROLES_PATH"))
    return [Path(basedir) / "roles", *configured, Path(own).parent, Path(basedir)]


def directory_of(role: str, places: Iterable[Path]) -> Path | None:
    """Where a role is that somebody named, also by its collection; None if it is nowhere."""
    for place in places:
        # False as well for what the file system cannot hold, such as a very long name.
        if os.path.isdir(place / role):
            return place / role
    try:
        found = _get_collection_role_path(role)
    except ValueError:  # It cannot be the name of one.
        found = None
    return Path(found[1]) if found else None


def describes(directory: Path | None, own: str) -> bool:
    """Whether a role describes an application, other than the one that asks, which includes it."""
    if directory is None or directory.name == Path(own).name:
        return False
    return any((directory / "tasks" / f"describe{ending}").is_file() for ending in ENDINGS)


class Described(NamedTuple):
    """A role that describes an application.

    Attributes:
        directory: where it is.
        brought: its variables, as templates, but for defaults that somebody has replaced.
        told: what it says of the application.
    """

    directory: Path
    brought: dict[str, Any]
    told: Mapping[str, Any]

    def variables(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """All that its templates may use."""
        return {**task_vars, **self.brought, "role_path": str(self.directory)}


def role_that_describes(loader: DataLoader, task_vars: Mapping[str, Any], role: str) -> Described:
    """Return what a role brings, before Ansible has included it.

    Raises AnsibleActionFail where there is no such role.
    """
    own, basedir = task_vars.get("role_path"), str(loader.get_basedir())
    places = places_of_roles(str(own), basedir) if own else places_of_roles(basedir, basedir)
    directory = directory_of(role, places)
    if directory is None:
        among = ", ".join(str(place / role) for place in places)
        raise AnsibleActionFail(f"role: there is no role {role} in {among}")
    defaults = defaults_of(loader, directory)
    brought = {name: each for name, each in defaults.items() if name not in task_vars}
    brought |= variables_of(loader, directory, "vars")
    # As include_role names it, without a collection or a path.
    name = f"{directory.name}_application"
    told = {**task_vars, **brought}.get(name)
    return Described(directory, brought, told if isinstance(told, Mapping) else {})


def options_of(directory: Path) -> dict[str, dict[str, Any]]:
    """Options of the role's entry point `main`."""
    for name in ("argument_specs.yml", "argument_specs.yaml"):
        path = directory / "meta" / name
        if path.is_file():
            specs = read_options(path, path.stat().st_mtime_ns)
            return specs["argument_specs"]["main"].get("options") or {}
    raise AnsibleActionFail(
        f"role {directory.name} has no meta/argument_specs.yml to hold variables against"
    )


@functools.lru_cache
def read_options(path: Path, changed: int) -> dict[str, Any]:
    """A file of specifications; all roles of a project are read by each of them."""
    found: dict[str, Any] = yaml_load(path.read_text(encoding="utf-8"))
    return found


def defaults_of(loader: DataLoader, directory: Path) -> dict[str, Any]:
    """The role's defaults, as templates."""
    return variables_of(loader, directory, "defaults")


def variables_of(loader: DataLoader, directory: Path, kind: str) -> dict[str, Any]:
    """A role's variables, as templates, from where Ansible looks for them.

    Args:
        kind: `vars` or `defaults`.
    """
    for ending in ENDINGS:
        path = directory / kind / f"main{ending}"
        if path.is_file():
            return content_of(loader, path)
        if path.is_dir():
            files = sorted(each for each in path.rglob("*") if each.suffix in ENDINGS[:3])
            return {name: each for file in files for name, each in content_of(loader, file).items()}
    return {}


def content_of(loader: DataLoader, path: Path) -> dict[str, Any]:
    """What a file of a role has, as templates."""
    # Read anew it is nobody else's, so that no copy is made, which takes longer than reading it.
    found = loader.load_from_file(str(path), cache="none", unsafe=True, trusted_as_template=True)
    return found or {}


def said_by_roles(
    loader: DataLoader,
    task_vars: Mapping[str, Any],
    read: Callable[[Described], Mapping[str, Any]],
) -> Callable[[str], Mapping[str, Any]]:
    """Says what a role says of its application, each role read once.

    Args:
        read: what of it is wanted.
    """

    @functools.cache
    def said(role: str) -> Mapping[str, Any]:
        return read(role_that_describes(loader, task_vars, role))

    return said


def reason(error: AnsibleError) -> str:
    """What an error of a template says, in one line."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = getattr(cause, "message", None) or str(cause)
    return " ".join(str(text).split()).rstrip(".")
