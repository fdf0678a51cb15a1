"""Tells whether a run has anything to do, by what it was given and by what the host looks like.

What the options mean is documented with the module, `plugins/modules/seal.py`.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible import context
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.release import __version__
from ansible_collections.wsgi.host.plugins.plugin_utils.bundles import (
    EXCLUDE,
    application_files,
    content_id,
)
from ansible_collections.wsgi.host.plugins.plugin_utils.host import FACT, play_of, probed
from ansible_collections.wsgi.host.plugins.plugin_utils.locks import BundleError, lock_in
from ansible_collections.wsgi.host.plugins.plugin_utils.roles import role_directory
from ansible_collections.wsgi.host.plugins.plugin_utils.variables import UNPREDICTABLE

COLLECTION = Path(__file__).parents[2]
# Of Ansible's own variables, those that change what is done.
CONNECTION = re.compile(
    r"ansible_(host|port|user|connection|python_interpreter|become\w*|ssh_\w+)$"
)
# Ansible's own without the prefix, and what it makes anew in each run.
MAGIC = frozenset(
    {
        *("hostvars", "vars", "omit", "environment", "play_hosts", "playbook_dir", "role_names"),
        *("inventory_file", "inventory_dir", "role_path", "role_name", "discovered_interpreter"),
    }
)
# A variable's value that names a file of the control node stands for its content, up to this size.
NAMED_BYTES = 2**20


class ActionModule(ActionBase):
    """Changes nothing but the seal itself."""

    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _, args = self.validate_argument_spec(
            argument_spec={
                "state": {"type": "str", "default": "kept", "choices": ["kept", "set"]},
                "hours": {"type": "float", "default": 24.0},
                "inputs": {"type": "str", "default": ""},
                "applications": {"type": "list", "elements": "dict", "default": []},
                "said": {"type": "list", "elements": "str", "default": []},
            }
        )
        if args["state"] == "set":
            return self._set(args, task_vars)
        return self._kept(float(args["hours"]), task_vars)

    def _kept(self, hours: float, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Whether nothing has changed since the last whole run."""
        why, inputs = _only_a_part(), ""
        if hours <= 0:
            why = "it is to look at everything"
        if not why:
            try:
                inputs = self._inputs(task_vars)
            except (AnsibleError, OSError) as error:
                why = f"what it was given cannot be told ({str(error).splitlines()[0]})"
        if why:
            return {"changed": False, "kept": False, "why": why, "inputs": ""}
        result = probed(self, task_vars, seal={"hours": hours, "inputs": inputs})
        if result.get("failed") or result.get("unreachable"):
            return result
        seal = result["seal"]
        why = seal["broken"]
        if not why:
            why = self._sources(seal["sources"], task_vars)
        host = {**result["ansible_facts"][FACT], "play": play_of(self)}
        return {
            "changed": False,
            "kept": not why,
            "why": why,
            "inputs": inputs,
            "at": _moment(seal.get("at", 0)),
            "said": seal.get("said", []),
            "ansible_facts": {FACT: host},
            "_ansible_verbose_override": True,
        }

    def _set(self, args: Mapping[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Note how the host is after a whole run."""
        quiet = {"changed": False, "_ansible_verbose_override": True}
        base = Path(str(task_vars.get("playbook_dir") or "."))
        sources = []
        for each in args["applications"]:
            source, content = _source_of(each, base), each["content"]
            if not content or next(_changed_sources([source], base), ""):
                # A repository, build steps, or files that have changed since the build.
                return {**quiet, "msg": f"What {each['name']} is made of cannot be told again."}
            sources.append(source)
        if not args["inputs"] or self._task.check_mode:
            return {**quiet, "msg": "Only a whole run seals a host."}
        told = {
            "inputs": args["inputs"],
            "sources": sources,
            "questions": [each["question"] for each in args["applications"]],
            "said": args["said"],
        }
        result = probed(self, task_vars, seal={"told": told})
        if result.get("failed") or result.get("unreachable"):
            return result
        return quiet

    def _sources(self, sources: Iterable[Mapping[str, str]], task_vars: dict[str, Any]) -> str:
        """Why an application is not made of what it was. No host says where to look."""
        base = Path(str(task_vars.get("playbook_dir") or "."))
        own = task_vars["hostvars"].raw_get(task_vars["inventory_hostname"])
        told = {(base / os.path.expanduser(text)).resolve() for text in _paths(own)}
        project = role_directory(self._loader, task_vars, "application").parents[1].resolve()
        for source in sources:
            for key in ("directory", "lock"):
                path = (base / str(source.get(key) or ".")).resolve()
                known = path in told or any(parent in told for parent in path.parents)
                if source.get(key) and not known and not path.is_relative_to(project):
                    return f"the source of {source.get('name')} is not where it was"
        return next(_changed_sources(sources, base), "")

    # What a run is given

    def _inputs(self, task_vars: Mapping[str, Any]) -> str:
        """A hash of all that decides what a run does, but for the applications' sources."""
        digest = hashlib.sha256()
        for part in self._parts(task_vars):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(data) + data)
        return digest.hexdigest()

    def _parts(self, task_vars: Mapping[str, Any]) -> Iterator[str]:
        base = Path(str(task_vars.get("playbook_dir") or "."))
        yield __version__
        yield repr(sorted((name, list(hosts)) for name, hosts in task_vars["groups"].items()))
        own = task_vars["hostvars"].raw_get(task_vars["inventory_hostname"])
        for name in sorted(own):
            private = name.startswith(("_", "ansible_")) and not CONNECTION.match(name)
            if name in MAGIC or private:
                continue
            value = own[name]
            text = repr(value)
            if UNPREDICTABLE.search(text):
                value = self._templar.template(value)
                text = repr(value)
            yield name
            yield text
            yield from _named_files(value, base)
        roles = role_directory(self._loader, task_vars, "application").parent
        for place in (roles, COLLECTION, *_inventories(), base / "group_vars", base / "host_vars"):
            yield from _tree(place)
        for path in sorted(base.glob("*.yml")):
            yield _content(path)


def _only_a_part() -> str:
    """Why this run is none of everything, empty if it is."""
    arguments = context.CLIARGS
    if list(arguments.get("tags") or ["all"]) != ["all"] or arguments.get("skip_tags"):
        return "it is run for some tags"
    if arguments.get("subset"):
        return "it is run for some hosts"
    if arguments.get("start_at_task") or arguments.get("step"):
        return "it is run step by step"
    return ""


def _moment(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _source_of(application: Mapping[str, Any], base: Path) -> dict[str, str]:
    """Where an application comes from, as each control node finds it from its playbooks."""
    places = {
        key: os.path.relpath(application[key], base) if application[key] else ""
        for key in ("directory", "lock")
    }
    return {"name": application["name"], **places, "content": application["content"]}


def _changed_sources(sources: Iterable[Mapping[str, str]], base: Path) -> Iterator[str]:
    for source in sources:
        directory = base / source["directory"] if source["directory"] else None
        try:
            lock = base / source["lock"] if source["lock"] else lock_in(directory or Path())
            files = application_files(directory, EXCLUDE) if directory else {}
            found = content_id(lock.read_bytes(), files)
        except (BundleError, OSError):
            found = ""
        if found != source["content"]:
            yield f"the source of {source['name']} has changed"


def _inventories() -> Iterator[Path]:
    """Files that say what hosts there are, and their variables."""
    for source in context.CLIARGS.get("inventory") or ():
        path = Path(str(source))
        if path.is_dir():
            yield path
        elif path.is_file():
            yield from (path, path.parent / "group_vars", path.parent / "host_vars")


def _tree(place: Path) -> Iterator[str]:
    """Names and contents of all files below a directory, or of one file."""
    if place.is_file():
        yield _content(place)
    for folder, directories, names in os.walk(place, followlinks=True):
        directories[:] = sorted(name for name in directories if name != "__pycache__")
        for name in sorted(names):
            path = Path(folder, name)
            yield str(path.relative_to(place))
            yield _content(path)


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _named_files(value: Any, base: Path) -> Iterator[str]:
    """The contents of files that a variable's value names."""
    for text in _paths(value):
        path = base / os.path.expanduser(text)
        if path.is_file() and path.stat().st_size <= NAMED_BYTES:
            yield _content(path)


def _paths(value: Any) -> Iterator[str]:
    """All text in a value that may be a path."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if name not in MAGIC:
                yield from _paths(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _paths(item)
    elif isinstance(value, str) and "/" in value and len(value) < 1024 and "\n" not in value:
        yield value
