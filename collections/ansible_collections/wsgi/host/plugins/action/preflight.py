"""Checks a role's variables and the host, and reports everything that is wrong at once.

What the options mean is documented with the module, `plugins/modules/preflight.py`.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.vault import EncryptedString
from ansible.plugins.loader import module_loader
from ansible.template import Templar, is_trusted_as_template, trust_as_template
from ansible.utils.vars import load_extra_vars
from ansible_collections.wsgi.host.plugins.plugin_utils import families
from ansible_collections.wsgi.host.plugins.plugin_utils.host import FACT, known, looked_at
from ansible_collections.wsgi.host.plugins.plugin_utils.kept_modules import KeptModules
from ansible_collections.wsgi.host.plugins.plugin_utils.roles import (
    content_of,
    defaults_of,
    options_of,
    read_options,
    reason,
    role_directory,
)
from ansible_collections.wsgi.host.plugins.plugin_utils.variables import (
    UNPREDICTABLE,
    Checker,
    covers,
    is_secret,
    shown,
    walk,
)

# Templated here and not by Ansible, whose own error would come before the one that explains it.
LATE = frozenset({"rules", "each", "free_disk_mib", "executable", "modules", "ports"})
# What stays as it is during a play, or is the host itself.
FIXED = frozenset({FACT, "ansible_facts", "groups", "group_names", "play_hosts", "role_path"})


class ActionModule(KeptModules):
    """Finds every problem with a role's variables and the host; changes nothing."""

    TRANSFERS_FILES = False
    _requires_connection = True
    _VALID_ARGS = frozenset(
        {
            "role",
            "formats",
            "rules",
            "each",
            "values",
            "computed",
            "free_disk_mib",
            "executable",
            "modules",
            "ports",
            "short_names",
        }
    )

    @classmethod
    def finalize_task_arg(cls, name: str, value: Any, templar: Any, context: Any) -> Any:
        if name in LATE:
            return value
        return super().finalize_task_arg(name, value, templar, context)

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        role = str(self._task.args.get("role") or "")
        if not role:
            raise AnsibleActionFail("role: name the role whose variables are to be checked")
        directory = role_directory(self._loader, task_vars, role)
        if self._passed(role, directory, task_vars):
            return {"changed": False}
        try:
            checker = Checker(
                role,
                self._options(directory),
                self._task.args.get("formats") or {},
                self._templar.template(task_vars.get(f"__{role}_origins")),
            )
        except ValueError as error:
            raise AnsibleActionFail(f"formats: {error}") from error

        host, failure = looked_at(self, task_vars)
        if failure:
            return failure
        _check_host(checker, host)
        variables = {
            # The role reads these after the preflight, and its defaults may refer to them.
            **self._family_variables(str(host["family_file"])),
            **task_vars,
            # The task's own `vars` would give way to what somebody typed with -e.
            **(self._task.args.get("computed") or {}),
            "ansible_facts": {**task_vars.get("ansible_facts", {}), FACT: host},
        }
        templar = self._templar.copy_with_new_env(available_variables=variables)
        self._check_variables(checker, templar, variables, directory)
        for check in (
            self._check_rules,
            self._check_each,
            self._check_disk,
            self._check_executable,
            self._check_modules,
            self._check_ports,
        ):
            check(checker, templar, host)
        if checker.problems:
            return _refusal(checker, str(task_vars.get("inventory_hostname", "the host")))
        passed = {**host.get("passed", {})}
        # A role that serves several applications is asked for each of them.
        passed[role] = [*passed.get(role, []), self._digest(role, directory, variables)]
        # The list of packages is nothing to fill a screen with.
        quiet = {"changed": False, "_ansible_verbose_override": True}
        return {**quiet, "ansible_facts": {FACT: {**host, "passed": passed}}}

    def _family_variables(self, file: str) -> dict[str, Any]:
        return content_of(self._loader, Path(file)) if file else {}

    def _passed(self, role: str, directory: Path, task_vars: Mapping[str, Any]) -> bool:
        """Whether the same variables have passed in this play.

        A role asks when all roles are checked and when it runs itself. Without this the second time
        would cost what the first does, most of it for loading Jinja's filters.
        """
        before = known(self, task_vars).get("passed", {}).get(role)
        digest = self._digest(role, directory, task_vars) if before else None
        return digest is not None and digest in before

    def _digest(self, role: str, directory: Path, variables: Mapping[str, Any]) -> str | None:
        """A hash of all that the verdict rests on, None if that cannot be said.

        It covers the role's variables, what its checks read, and what those are made of in turn, as
        they are written and not as they compute: a template gives the same as long as what it reads
        is the same.
        """
        pending = {name for name in variables if name.startswith(f"{role}_")}
        pending |= _words(self._task.args)
        used: dict[str, str] = {}
        while pending:
            name = pending.pop()
            if name in used or name in FIXED or name not in variables:
                continue
            used[name] = repr(variables[name])
            if UNPREDICTABLE.search(used[name]):
                return None
            pending |= _words(variables[name]) - set(used)
        text = repr(
            (
                sorted(used.items()),
                list(_names(variables)),
                repr(sorted(self._task.args.items())),
                (directory / "meta" / "argument_specs.yml").stat().st_mtime_ns,
            )
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def _check_variables(
        self, checker: Checker, templar: Templar, variables: Mapping[str, Any], directory: Path
    ) -> None:
        defaults = defaults_of(self._loader, directory)

        def is_set(name: str) -> bool:
            return name in variables and not (
                name in defaults and variables[name] == defaults[name]
            )

        short = [str(name) for name in self._task.args.get("short_names") or []]
        # Typed for this run, so meant for it.
        for name in load_extra_vars(self._loader):
            whole = f"{checker.role}_{name}"
            if whole in checker.spec and name not in short:
                checker.add(
                    name,
                    f"{name} is given with -e, and no role has such a variable; did you mean "
                    f"{whole}? Rename it, or remove it",
                )
        checker.unknown(_names(variables), is_set, _roles_beside(directory), short)
        values: dict[str, Any] = {}
        errors: dict[str, AnsibleError] = {}
        for name in checker.spec:
            if name not in variables:
                checker.missing(name)
                continue
            try:
                values[name] = templar.template(variables[name])
            except AnsibleError as error:
                errors[name] = error
        for name, value in values.items():
            checker.value(name, value, secret=isinstance(variables[name], EncryptedString))
        # What somebody set comes first: a default that is made of it has then nothing new to say.
        for name in sorted(errors, key=lambda name: not is_set(name)):
            if not is_set(name) and _concerns(variables[name], checker.faulty()):
                checker.doubtful.add(name)
                continue
            hidden = isinstance(variables[name], EncryptedString) or is_secret(checker.spec[name])
            why = "" if hidden else f" ({reason(errors[name])})"
            checker.add(
                name, f"{name} cannot be computed{why}: define what it refers to, or correct it"
            )

    def _options(self, directory: Path) -> dict[str, dict[str, Any]]:
        """The role's options, with those of dictionaries whose keys are names of a person's."""
        options = options_of(directory)
        for name, file in (self._task.args.get("values") or {}).items():
            path = directory / str(file)
            values = families.spread(read_options(path, path.stat().st_mtime_ns))
            options = {**options, str(name): {**options[name], "values": values}}
        return options

    def _check_rules(self, checker: Checker, templar: Templar, host: Mapping[str, Any]) -> None:
        self._hold(checker, templar, _listed(templar, "rules", self._task.args.get("rules")))

    def _check_each(self, checker: Checker, templar: Templar, host: Mapping[str, Any]) -> None:
        """Rules that hold for each entry of a dictionary."""
        each = self._task.args.get("each") or {}
        if not each:
            return
        _refuse_keys(
            "each", each, {"variable", "entries", "as", "name_as", "rules"}, optional=set()
        )
        variable = str(each["variable"])
        entries = _templated(templar, "each", each["entries"], {variable})
        rules = _listed(templar, "each", each["rules"])
        for name, entry in (entries if isinstance(entries, Mapping) else {}).items():
            if f"{variable}.{name}" in checker.faulty():
                continue
            available = {
                **templar.available_variables,
                str(each["as"]): entry,
                str(each["name_as"]): name,
            }
            inner = templar.copy_with_new_env(available_variables=available)
            self._hold(checker, inner, rules, f"{variable}.{name}.")

    def _hold(
        self,
        checker: Checker,
        templar: Templar,
        rules: list[Mapping[str, Any]],
        prefix: str = "",
    ) -> None:
        """Hold what was set against some rules.

        Args:
            prefix: of the variables that they name, which are members of it.
        """
        faulty = checker.faulty()
        applying = []
        for rule in rules:
            _refuse_keys("rules", rule, {"that", "variable", "problem", "remedy"}, optional=set())
            # Each rule of an entry reads the entry by a private variable, and it is right so far.
            concerned = _words(rule["that"]) & faulty if prefix else _concerns(rule["that"], faulty)
            if not concerned and str(rule["variable"]) not in faulty:
                applying.append(rule)
        if _all_hold(templar, applying):
            return
        for rule in applying:
            variable = str(rule["variable"])
            try:
                if templar.evaluate_conditional(rule["that"]):
                    continue
                problem, remedy = (
                    " ".join(str(templar.template(rule[key])).split())
                    for key in ("problem", "remedy")
                )
            except AnsibleError as error:
                if checker.problems:  # which the condition may stumble over by a way of its own
                    continue
                raise AnsibleActionFail(
                    f"{variable} could not be checked, by a fault of role {checker.role} and not "
                    f"of yours: the rule `{rule['that']}` fails with {reason(error)}. Nothing was "
                    f"changed. Report the rule and what the variable is set to"
                ) from error
            named = prefix + variable if prefix else _named(checker, templar, variable)
            checker.add(prefix + variable, f"{named} {problem}: {remedy}")

    def _check_disk(self, checker: Checker, templar: Templar, host: Mapping[str, Any]) -> None:
        raw = self._task.args.get("free_disk_mib") or {}
        needed = _templated(templar, "free_disk_mib", raw, checker.faulty())
        by_mount: dict[str, list[str]] = defaultdict(list)
        for path in needed or {}:
            mount = _mount(str(path), host["mounts"])
            if mount:
                by_mount[mount].append(str(path))
        for mount, paths in by_mount.items():
            total = sum(int(needed[path]) for path in paths)
            free = host["mounts"][mount]
            if free < total:
                where = " and ".join(paths)
                checker.add(
                    "",
                    f"{where} has {free} MiB free on the file system {mount}; {total} MiB are "
                    f"needed: remove what is not needed there, or enlarge the file system",
                )

    def _check_executable(
        self, checker: Checker, templar: Templar, host: Mapping[str, Any]
    ) -> None:
        raw = self._task.args.get("executable") or []
        for path in _templated(templar, "executable", raw, checker.faulty()) or []:
            mount = _mount(str(path), host["mounts"])
            if mount in host.get("noexec", []):
                checker.add(
                    "",
                    f"{path} is on the file system {mount}, which is mounted with noexec, and "
                    f"programs run from there: mount it without, `mount -o remount,exec {mount}`, "
                    f"and take the option out of /etc/fstab",
                )

    def _check_modules(self, checker: Checker, templar: Templar, host: Mapping[str, Any]) -> None:
        raw = self._task.args.get("modules") or []
        for module in _templated(templar, "modules", raw, checker.faulty()) or []:
            if not module_loader.has_plugin(str(module)):
                checker.add(
                    "",
                    f"the control node has no {module}, which this host needs: run "
                    f"`ansible-galaxy collection install -r requirements.yml` there",
                )

    def _check_ports(self, checker: Checker, templar: Templar, host: Mapping[str, Any]) -> None:
        faulty = checker.faulty()
        for entry in _listed(templar, "ports", self._task.args.get("ports")):
            _refuse_keys(
                "ports", entry, {"port", "programs", "variable"}, optional={"programs", "variable"}
            )
            raw = entry["port"]
            wanted = _templated(templar, "ports", raw, faulty)
            programs = _templated(templar, "ports", entry.get("programs", []), faulty)
            about = str(entry.get("variable") or min(_words(raw) & set(checker.spec), default=""))
            for item in walk(wanted):
                _check_port(checker, host, about, item, set(map(str, programs or [])))


def _roles_beside(directory: Path) -> dict[str, list[str]]:
    """Variables of the role and of those beside it, by the role's name."""
    return {
        path.name: (
            list(options_of(path)) if (path / "meta" / "argument_specs.yml").is_file() else []
        )
        for path in directory.parent.iterdir()
        if (path / "tasks").is_dir()
    }


def _names(variables: Mapping[str, Any]) -> Iterator[str]:
    """Variables that somebody set: without facts, Ansible's own and the roles' private ones."""
    for name in sorted(variables):
        if name != FACT and not name.startswith(("_", "ansible_")):
            yield name


def _words(value: Any) -> set[str]:
    """The words in all text of a value, which are the names that its templates read, and more."""
    if isinstance(value, str):
        return set(re.findall(r"[A-Za-z_]\w*", value))
    if isinstance(value, Mapping):
        return {word for item in value.values() for word in _words(item)}
    if isinstance(value, (list, tuple)):
        return {word for item in value for word in _words(item)}
    return set()


def _concerns(template: Any, names: set[str]) -> bool:
    """Whether a template reads one of these variables; a private one may be made of any of them."""
    words = _words(template)
    return bool(words & names) or any(names and word.startswith("__") for word in words)


def _templated(templar: Templar, option: str, value: Any, faulty: set[str]) -> Any:
    """A value of the task, None if it cannot be had because a variable in it is faulty."""
    try:
        return templar.template(value)
    except AnsibleError as error:
        if faulty:
            return None
        raise AnsibleActionFail(f"{option}: {reason(error)}") from error


def _listed(templar: Templar, option: str, value: Any) -> list[Mapping[str, Any]]:
    """A list of the task, its items not templated yet."""
    if isinstance(value, str):
        value = templar.template(value)
    if not isinstance(value or [], list):
        raise AnsibleActionFail(f"{option}: a list is needed")
    return value or []


def _all_hold(templar: Templar, rules: list[Mapping[str, Any]]) -> bool:
    """Whether all rules hold, for the price of one: they hardly ever do not.

    A template costs more to set up than a rule to evaluate, and a variable that several rules read
    is computed once. False where it cannot be told so, and each has to be asked by itself.
    """
    conditions = [rule["that"] for rule in rules]
    # Joining them would make a template of what only a role's author may write.
    if not all(isinstance(each, str) and is_trusted_as_template(each) for each in conditions):
        return False
    joined = trust_as_template(f"[{', '.join(f'({each})' for each in conditions)}]")
    try:
        return all(each is True for each in templar.evaluate_expression(joined))
    except AnsibleError:
        return False


def _refuse_keys(
    option: str, entry: Mapping[str, Any], known: set[str], *, optional: set[str]
) -> None:
    if not isinstance(entry, Mapping) or set(entry) - known or known - optional - set(entry):
        raise AnsibleActionFail(
            f"{option}: each entry has the keys {', '.join(sorted(known))}; found {shown(entry)}"
        )


def _named(checker: Checker, templar: Templar, variable: str) -> str:
    """A variable for the start of a sentence, with its value where that is short and no secret."""
    written = checker.written(variable)
    if is_secret(checker.spec.get(variable, {})):
        return written
    if isinstance(templar.available_variables.get(variable), EncryptedString):
        return written
    try:
        value = templar.evaluate_expression(trust_as_template(variable))
    except AnsibleError:
        return written
    if value is None or isinstance(value, (list, dict)):
        return written
    return f"{written} ({shown(value)})"


def _check_host(checker: Checker, host: Mapping[str, Any]) -> None:
    family = str(host["family"])
    supporting = families.supporting(checker.role)
    # A role without such variables does the same everywhere.
    if supporting and family not in supporting:
        checker.add(
            "",
            f"the host runs {host['pretty_name']} (family {family}); role {checker.role} supports "
            f"{', '.join(supporting)}: use such a system, or add the role's variables "
            f"(__{checker.role}_...) to {families.PLACE}/{family}.yml",
        )
    if not host["systemd"]["running"]:
        checker.add(
            "",
            "the host is not run by systemd: boot it with systemd as its first process; a "
            "container needs an image that starts /sbin/init",
        )
    if not host["root"]:
        checker.add(
            "", "tasks do not run as root: set `become: true` in the play, or pass --become"
        )


def _mount(path: str, mounts: Mapping[str, int]) -> str:
    """The mount point that a path, there or not yet there, is on."""
    parents = [path, *map(str, Path(path).parents)]
    return next((parent for parent in parents if parent in mounts), "")


def _check_port(
    checker: Checker, host: Mapping[str, Any], about: str, item: Any, programs: set[str]
) -> None:
    text = str(item)
    if text.startswith("unix:"):
        return
    address, _, number = text.rpartition(":")
    if not number.isdigit():  # not a port: its own check has said so
        return
    for listener in host["listeners"]:
        if listener["port"] != int(number) or {listener["program"], listener["unit"]} & programs:
            continue
        if not covers(listener["address"], address.removeprefix("[").removesuffix("]")):
            continue
        checker.add(about, f"{about or 'the role'} needs port {number}, but {_holder(listener)}")
        return


def _holder(listener: Mapping[str, Any]) -> str:
    """Who listens and what to do about it."""
    address = listener["address"]
    where = f"[{address}]" if ":" in address else address
    if not listener["pid"]:
        return f"another program listens on {where}: run as root to see which, or use another port"
    unit = listener["unit"]
    if listener["program"] == "sshd":  # the way in to the host
        return f"sshd listens on {where}: use another port"
    who = f"{listener['program']} (pid {listener['pid']}{', ' + unit if unit else ''})"
    stop = f"systemctl disable --now {unit}" if unit else f"kill {listener['pid']}"
    return f"{who} listens on {where}: stop it with `{stop}`, or use another port"


def _refusal(checker: Checker, host: str) -> dict[str, Any]:
    """The result that says everything that is wrong, without the facts, which would bury it."""
    problems = sorted(set(checker.problems))
    count = "1 problem has" if len(problems) == 1 else f"{len(problems)} problems have"
    lines = [f"{count} to be fixed before role {checker.role} can run:"]
    lines += [f"- {problem.message}" for problem in problems]
    lines += [f"Nothing was changed on {host}."]
    return {"changed": False, "failed": True, "msg": "\n".join(lines)}
