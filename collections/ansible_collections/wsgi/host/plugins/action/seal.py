"""Tells whether a run has anything to do, by what it was given and by what the host looks like.

What the options mean is documented with the module, `plugins/modules/seal.py`.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible import constants as C
from ansible import context
from ansible.errors import AnsibleError
from ansible.release import __version__
from ansible.template import Templar
from ansible.utils.display import Display
from ansible_collections.wsgi.host.plugins.filter.backing_up import backing_up
from ansible_collections.wsgi.host.plugins.filter.probed import probed as asked
from ansible_collections.wsgi.host.plugins.filter.watched import watched
from ansible_collections.wsgi.host.plugins.plugin_utils import authority, databases
from ansible_collections.wsgi.host.plugins.plugin_utils.balanced import balanced
from ansible_collections.wsgi.host.plugins.plugin_utils.balancing import (
    BALANCERS,
    SERVING,
    balancers,
)
from ansible_collections.wsgi.host.plugins.plugin_utils.bundles import project_of, source_content
from ansible_collections.wsgi.host.plugins.plugin_utils.control import this_run
from ansible_collections.wsgi.host.plugins.plugin_utils.descriptions import in_full, located, merged
from ansible_collections.wsgi.host.plugins.plugin_utils.host import (
    FACT,
    play_of,
    probed,
    seen_in_this_run,
)
from ansible_collections.wsgi.host.plugins.plugin_utils.kept_modules import (
    KeptModules,
    once_per_run,
)
from ansible_collections.wsgi.host.plugins.plugin_utils.locks import BundleError
from ansible_collections.wsgi.host.plugins.plugin_utils.openings import openings
from ansible_collections.wsgi.host.plugins.plugin_utils.roles import (
    Described,
    role_directory,
    role_that_describes,
    said_by_roles,
)
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
EVERYTHING = "it is to look at everything"
WATCHING = "monitoring"
# What variables that are not as they should be end with.
UNTOLD = (AnsibleError, OSError, AttributeError, LookupError, TypeError, ValueError)
# A variable's value that names a file of the control node stands for its content, up to this size.
NAMED_BYTES = 2**20


class ActionModule(KeptModules):
    """Changes nothing but the seal itself."""

    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        self._roles: dict[str, Described] = {}
        _, args = self.validate_argument_spec(
            argument_spec={
                "state": {"type": "str", "default": "kept", "choices": ["kept", "set"]},
                "hours": {"type": "float", "default": 24.0},
                "inputs": {"type": "str", "default": ""},
                "applications": {"type": "list", "elements": "dict", "default": []},
                "notices": {"type": "list", "elements": "str", "default": []},
                "seen": {"type": "dict", "default": {}},
                "unchanged": {"type": "bool", "default": False},
            }
        )
        if args["seen"]:
            return self._again(args["seen"], task_vars, args["unchanged"])
        if args["state"] == "set":
            return self._set(args, task_vars)
        return self._kept(float(args["hours"]), task_vars)

    def _again(
        self, seen: dict[str, Any], task_vars: Mapping[str, Any], unchanged: bool
    ) -> dict[str, Any]:
        """What an earlier play of this run was told, and what it knows of the host."""
        host = (task_vars.get("ansible_facts") or {}).get(FACT)
        # One that balances as well, has the database, or votes on it, has changed since.
        kinds = (BALANCERS, databases.DATABASES, databases.VOTERS)
        others = (task_vars["groups"].get(group, ()) for group in kinds)
        has_changed = any(task_vars["inventory_hostname"] in group for group in others)
        # A fact cache may have what an earlier run saw.
        if host and seen_in_this_run(self, host) and (unchanged or not has_changed):
            facts = {FACT: {**host, "play": play_of(self)}}
        else:
            facts = {}
        return {**seen, "ansible_facts": facts, "_ansible_verbose_override": True}

    def _kept(self, hours: float, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Whether nothing has changed since the last whole run."""
        if hours <= 0:
            return {"changed": False, "kept": False, "why": EVERYTHING, "inputs": ""}
        why, inputs = _only_a_part(task_vars), ""
        if not why:
            try:
                inputs = self._inputs(task_vars)
            except UNTOLD as error:
                # The checks that come next say it with its remedy.
                why = f"its input cannot be determined ({_first_line(error)})"
        if why:
            return {"changed": False, "kept": False, "why": why, "inputs": "", "msg": why}
        result = probed(self, task_vars, seal={"hours": hours, "inputs": inputs})
        if result.get("failed") or result.get("unreachable"):
            return result
        seal = result["seal"]
        why = seal["broken"]
        if not why:
            why = self._changed(seal["sources"], task_vars)
        if why:
            name = task_vars.get("inventory_hostname")
            Display().display(f"Full run on {name}: {why}.")
        host = {**result["ansible_facts"][FACT], "play": play_of(self)}
        return {
            "changed": False,
            "kept": not why,
            "why": why,
            "inputs": inputs,
            "at": _moment(seal.get("at", 0)),
            "notices": seal.get("notices", []),
            "ansible_facts": {FACT: host},
            "_ansible_verbose_override": True,
        }

    def _set(self, args: Mapping[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Note how the host is after a whole run."""
        quiet = {"changed": False, "_ansible_verbose_override": True}
        if not args["inputs"] or self._task.check_mode:
            return {**quiet, "msg": "Only a whole run seals a host."}
        sources = {each["name"]: each["content"] for each in args["applications"]}
        why = self._changed(sources, task_vars)
        if not why:
            told = {
                "inputs": args["inputs"],
                "sources": sources,
                "releases": {each["name"]: each["release"] for each in args["applications"]},
                "questions": [each["question"] for each in args["applications"]],
                "notices": args["notices"],
                "locked": [each["name"] for each in args["applications"] if each["locked"]],
                "run": this_run().token(),
            }
            result = probed(self, task_vars, seal={"record": told})
            if result.get("failed") or result.get("unreachable"):
                return result
            why = result["seal"]["broken"]
        if why:
            Display().display(f"The next run will be a full one: {why}.")
        return {**quiet, "msg": why}

    def _changed(self, sources: Mapping[str, str], task_vars: dict[str, Any]) -> str:
        """Why an application is not made of what it was, empty if all are.

        Where they are is what the variables of this run say: no host tells where to look.
        """
        name = task_vars["inventory_hostname"]
        own = task_vars["hostvars"].raw_get(name)
        # Variables of all hosts may have applications, which only those that serve have.
        serves = name in task_vars["groups"].get(SERVING, ())
        try:
            described = self._templar.template(own.get("applications") if serves else {}) or {}
        except AnsibleError as error:
            return f"applications cannot be computed ({_first_line(error)})"
        if set(described) != set(sources):
            return "other applications are described"
        project = str(project_of(Path(str(task_vars.get("playbook_dir") or "."))))
        for name, content in sources.items():
            if not content:
                return f"{name} has hooks or build steps, which have to run each time"
            try:
                told = self._source(described[name], task_vars)
            except UNTOLD as error:
                return f"where {name} comes from cannot be computed ({_first_line(error)})"
            if told.get("repository") or told.get("build"):
                return f"{name} is built again each time"
            places = located(told, project)
            try:
                found = source_content(places.get("directory"), places.get("lock"))
            except (BundleError, OSError, ValueError) as error:
                return f"the source of {name} cannot be read ({error})"
            if found != content:
                return f"the source of {name} has changed"
        return ""

    def _source(self, entry: Mapping[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """What a description says of where its application comes from, over what its role says."""
        base: dict[str, Any] = {}
        if entry.get("role"):
            role = self._described(str(entry["role"]), task_vars)
            templar = self._templar.copy_with_new_env(available_variables=role.variables(task_vars))
            if "source" in role.told:
                base = {"source": templar.template(role.told["source"])}
        source: dict[str, Any] = merged(in_full(base), in_full(entry)).get("source") or {}
        return source

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
        # Whom nginx believes follows from variables of other hosts, wherever these are from.
        yield repr(balancers(task_vars["groups"], task_vars["hostvars"]))
        yield from self._of_the_database(task_vars["groups"], task_vars["hostvars"], task_vars)
        if task_vars["inventory_hostname"] in task_vars["groups"].get(BALANCERS, ()):
            yield repr(balanced(self._loader, self._templar, task_vars))
        yield from _of_who_watches(task_vars)
        if task_vars.get("firewall_enabled"):
            yield repr(openings(self._loader, self._templar, task_vars))
        own = task_vars["hostvars"].raw_get(task_vars["inventory_hostname"])
        facts = {FACT, *(own.get("ansible_facts") or {})}
        for name in sorted(own):
            private = name.startswith(("__", "ansible_")) and not CONNECTION.match(name)
            if not private and name not in MAGIC and name not in facts:
                yield from _of_variable(name, own[name], self._templar, base)
        roles = [role_directory(self._loader, task_vars, "application").parent]
        roles += map(Path, C.config.get_config_value("DEFAULT_ROLES_PATH"))
        for role in self._describing(own, task_vars):
            # It may be in a collection.
            roles.append(role.directory)
            templar = self._templar.copy_with_new_env(available_variables=role.variables(task_vars))
            for name in sorted(role.brought):
                yield from _of_variable(name, role.brought[name], templar, base)
        places = [
            *dict.fromkeys([*roles, base / "roles"]),
            COLLECTION,
            *_inventories(),
            base / "group_vars",
            base / "host_vars",
        ]
        # The same for all hosts, whose processes are forks of one.
        name = hashlib.sha256(repr(list(map(str, places))).encode()).hexdigest()
        yield once_per_run(f"trees-{name}", lambda: _digest_of(places)).decode()
        for path in sorted(base.glob("*.yml")):
            yield _content(path)

    def _describing(
        self, own: Mapping[str, Any], task_vars: Mapping[str, Any]
    ) -> Iterator[Described]:
        """The roles that describe applications of this host."""
        # Where none is served, variables may refer to what only others know.
        serves = task_vars["inventory_hostname"] in task_vars["groups"].get(SERVING, ())
        told = self._templar.template(own.get("applications")) if serves else None
        entries = told.values() if isinstance(told, Mapping) else ()
        named = {each.get("role") for each in entries if isinstance(each, Mapping)}
        for role in sorted(str(name) for name in named if name):
            yield self._described(role, task_vars)

    def _described(self, role: str, task_vars: Mapping[str, Any]) -> Described:
        """A role that describes an application, whose files are read once in a look."""
        if role not in self._roles:
            self._roles[role] = role_that_describes(self._loader, task_vars, role)
        return self._roles[role]

    def _of_the_database(
        self, groups: Mapping[str, Any], hostvars: Mapping[str, Any], task_vars: Mapping[str, Any]
    ) -> Iterator[str]:
        """Where the applications find their database, and what their passwords are made of."""
        if groups.get(databases.DATABASES):
            base = said_by_roles(self._loader, task_vars, databases.read_of)
            uses = databases.users_of(groups, hostvars, base)
            yield repr(databases.server(groups, hostvars, uses))
            yield databases.secret_of(groups, hostvars)[0]
            # Which certificates there are to be by now.
            yield repr(authority.number_of(datetime.datetime.now(datetime.UTC)))


def _of_who_watches(task_vars: Mapping[str, Any]) -> Iterator[str]:
    """Whom a host watches, or what its own watcher expects of it."""
    groups, hostvars = task_vars["groups"], task_vars["hostvars"]
    name = str(task_vars["inventory_hostname"])
    if name in groups.get(WATCHING, ()):
        found = watched(hostvars, name, groups)
        yield repr(found)
        yield repr([asked(hostvars[each["name"]]) for each in found])
    if name in groups.get(SERVING, ()) and hostvars[name].get("monitoring_enabled"):
        yield repr(backing_up(hostvars, name, groups[SERVING]))


def _only_a_part(task_vars: Mapping[str, Any]) -> str:
    """Why this run is none of everything, empty if it is."""
    arguments = context.CLIARGS
    if list(arguments.get("tags") or ["all"]) != ["all"] or arguments.get("skip_tags"):
        return "it is run for some tags"
    # ansible-pull always names the host that it runs on, which may be all that there are.
    everybody = set((task_vars.get("groups") or {}).get("all") or ())
    if arguments.get("subset") and everybody - set(task_vars.get("ansible_play_hosts_all") or ()):
        return "it is run for some hosts"
    if arguments.get("start_at_task") or arguments.get("step"):
        return "it is run step by step"
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _moment(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


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
            if path.is_file():
                yield str(path.relative_to(place))
                yield _content(path)


def _digest_of(places: list[Path]) -> bytes:
    """One digest of some trees."""
    parts = [part for place in places for part in _tree(place)]
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest().encode()


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _of_variable(name: str, value: Any, templar: Templar, base: Path) -> Iterator[str]:
    """A variable as it is written, or what it is now where that differs from run to run."""
    text = repr(value)
    if UNPREDICTABLE.search(text):
        value = templar.template(value)
        text = repr(value)
    elif "{{" in text:
        # One that is made of what a role computes later names no file yet.
        with contextlib.suppress(AnsibleError):
            value = templar.template(value)
    yield name
    yield text
    yield from _named_files(value, base)


def _named_files(value: Any, base: Path) -> Iterator[str]:
    """The contents of files that a variable's value names."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _named_files(item, base)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _named_files(item, base)
    elif isinstance(value, str) and 0 < len(value) < 1024 and "\n" not in value:
        path = base / os.path.expanduser(value)
        if path.is_file() and path.stat().st_size <= NAMED_BYTES:
            yield _content(path)
