"""Puts together what is said of the applications of a host.

What the options mean is documented with the module, `plugins/modules/describe.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.vault import EncryptedString
from ansible.template import Templar
from ansible_collections.wsgi.host.plugins.plugin_utils import (
    balancing,
    databases,
    descriptions,
    families,
    sharing,
)
from ansible_collections.wsgi.host.plugins.plugin_utils.bundles import project_of
from ansible_collections.wsgi.host.plugins.plugin_utils.descriptions import filled, merged
from ansible_collections.wsgi.host.plugins.plugin_utils.host import FACT, looked_at
from ansible_collections.wsgi.host.plugins.plugin_utils.kept_modules import KeptModules
from ansible_collections.wsgi.host.plugins.plugin_utils.roles import (
    content_of,
    defaults_of,
    describes,
    directory_of,
    places_of_roles,
    reason,
    role_directory,
    said_by_roles,
    variables_of,
)
from ansible_collections.wsgi.host.plugins.plugin_utils.variables import is_secret, nearest

# A template that is a variable and nothing else.
REFERENCE = re.compile(r"\s*\{\{\s*([A-Za-z_]\w*)\s*\}\}\s*")
# Whose variables `web` of a description names without their prefix.
SERVICE_ROLE = "gunicorn_systemd"


class ActionModule(KeptModules):
    """Changes nothing, and makes no trip where the host was looked at before."""

    TRANSFERS_FILES = False
    _requires_connection = True
    _VALID_ARGS = frozenset({"bases"})

    @classmethod
    def finalize_task_arg(cls, name: str, value: Any, templar: Any, context: Any) -> Any:
        # Templated here, so that an error says what it is about.
        return value if name == "bases" else templar.template(value)

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the whole descriptions."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        args = self._task.args
        host, failure = looked_at(self, task_vars)
        if failure:
            return failure
        variables = {
            **task_vars,
            "ansible_facts": {**task_vars.get("ansible_facts", {}), FACT: host},
        }
        templar = self._templar.copy_with_new_env(available_variables=variables)
        directory = role_directory(self._loader, task_vars, "application")
        options = families.spread(content_of(self._loader, directory / "meta" / "description.yml"))
        service = self._service(templar, task_vars)
        project = str(project_of(Path(str(task_vars.get("playbook_dir") or "."))))
        result: dict[str, Any] = {}
        described: dict[str, Any] = {}
        without: list[str] = []
        written = self._written(templar, task_vars.get("applications", {}), options)
        bases = _templated(templar, "bases", args.get("bases") or {})
        self._check_roles(written, bases, task_vars)
        found = self._databases(task_vars)
        for name, told in written.items() if isinstance(written, Mapping) else ():
            role = str(told.get("role") or "") if isinstance(told, Mapping) else ""
            base, own = map(descriptions.in_full, (bases.get(role, {}), told))
            whole = merged(base, own)
            if isinstance(whole, Mapping) and "source" in whole:
                whole = {**whole, "source": descriptions.located(whole["source"], project)}
            if isinstance(whole, Mapping):
                whole = self._filled(name, whole, options, variables)
                whole, more = _with_database(name, whole, found)
                result[name] = {**_with_what_follows(name, {**whole, **more}, service), **more}
                # What a role says of its application is no wish of the person's.
                wanted = all(map(databases.is_wanted, (own, whole)))
                if wanted and not found["addresses"]:
                    without.append(name)
            described[name] = whole
        right = {name: whole for name, whole in result.items() if "credentials" in whole}
        (links,) = self._settings(templar, task_vars, "certbot", "certbot_links_directory")
        port, public = self._settings(
            templar, task_vars, "nginx", "nginx_https_port", "nginx_public_https_port"
        )
        for whole in right.values():
            whole.update(descriptions.reached(whole, links, port, public))
        # Who brings a certificate along also renews it.
        obtained = [n for n, whole in right.items() if not whole["site"].get("certificate")]
        groups, hostvars = task_vars.get("groups") or {}, task_vars.get("hostvars") or {}
        own = str(task_vars.get("inventory_hostname"))
        sites = [descriptions.site(whole, links) for whole in right.values()]
        asking: dict[str, list[str]] = {"addresses": [], "nowhere": []}
        closed = descriptions.closed(sites)
        # Whose variables are read only where it matters.
        if closed:
            domains = [str(domain) for whole in right.values() for domain in whole["domains"]]
            asking = sharing.asking(own, domains, groups.get("all", []), hostvars)
            addresses = asking["addresses"]
            sites = [descriptions.site(whole, links, addresses) for whole in right.values()]
        certificates = [
            {"name": right[name]["certificate_name"], "domains": right[name]["domains"]}
            for name in obtained
        ]
        return {
            "changed": False,
            "https_port": port,
            # The check of the variable says what is wrong with one that is no dictionary.
            "described": described if isinstance(written, Mapping) else written,
            "applications": result,
            "names": list(result),
            "certificates": certificates,
            "sharing": sharing.sharing(own, certificates, groups.get("all", []), hostvars),
            "asking": {**asking, "closed": closed},
            "balancers": balancing.balancers(groups, hostvars),
            "database": {
                "names": list(found["addresses"]),
                "applications": [
                    each for each, whole in result.items() if whole["database_of_fleet"]
                ],
                "without": without,
                "problems": found["problems"],
            },
            "sites": sites,
            "origins": _origins(obtained),
            "ansible_facts": {FACT: host},
            "_ansible_verbose_override": True,
        }

    def _written(self, templar: Templar, raw: Any, options: Mapping[str, Any]) -> Any:
        """What the person wrote, by the names of the applications if it is right so far.

        The variable is no argument of the task: its error would show the line that has a secret.
        """
        found = raw
        if not isinstance(raw, Mapping):
            found = _templated(templar, "applications", raw, {"values": options})
        if not isinstance(found, Mapping):
            return found
        return {
            str(name): _templated(templar, f"applications.{name}", told, {"options": options})
            for name, told in found.items()
        }

    def _check_roles(
        self, written: Any, bases: Mapping[str, Any], task_vars: Mapping[str, Any]
    ) -> None:
        """Refuse roles that describe no application, which nobody has included."""
        own = str(task_vars.get("role_path"))
        places = places_of_roles(own, str(task_vars.get("playbook_dir")))
        for name, told in written.items() if isinstance(written, Mapping) else ():
            role = told.get("role") if isinstance(told, Mapping) else None
            # What is no text at all is refused with the rest.
            if not isinstance(role, str) or not role or role in bases:
                continue
            beside = [path for place in places if place.is_dir() for path in place.iterdir()]
            known = sorted({path.name for path in beside if describes(path, own)})
            near = nearest(role, known)
            found = directory_of(role, places)
            lacks = "" if found in (None, Path(own)) else " (it has no tasks/describe.yml)"
            hint = f"did you mean {near}?" if near else f"{', '.join(known) or 'none here'} does."
            raise AnsibleActionFail(
                f"applications.{name}.role is {role}, which is no role that describes an "
                f"application{lacks}; {hint} Otherwise leave it out "
                f"and describe the application in the inventory. Nothing was changed"
            )

    def _settings(
        self, templar: Templar, task_vars: Mapping[str, Any], role: str, *names: str
    ) -> list[Any]:
        """Variables of a role, as the inventory or the role says."""
        defaults = defaults_of(self._loader, role_directory(self._loader, task_vars, role))
        inner = templar.copy_with_new_env(
            available_variables={**defaults, **templar.available_variables}
        )
        return [_templated(inner, name, task_vars.get(name, defaults[name])) for name in names]

    def _databases(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """The database of the fleet, with its secret and its certificate, and what is wrong."""
        groups, hostvars = task_vars.get("groups") or {}, task_vars.get("hostvars") or {}
        if not groups.get(databases.DATABASES):
            return {"addresses": {}, "pooler_port": 0, "problems": []}
        base = said_by_roles(self._loader, task_vars, databases.read_of)
        found = databases.server(groups, hostvars, databases.users_of(groups, hostvars, base))
        secret, wrong = databases.secret_of(groups, hostvars)
        if not found["applications"]:
            return found
        # One of several is another name of the same. On its own host the database goes by the
        # loopback as well, whoever else uses it. The loopback of others is another.
        names = {sharing.address_of(hostvars[name], name) for name in found["addresses"]}
        own = task_vars.get("inventory_hostname") in found["addresses"]
        names |= {databases.LOOPBACK} if own else set()
        return {
            **found,
            "secret": secret,
            "names": sorted(filter(None, names)),
            "problems": [*found["problems"], *([wrong] if wrong else [])],
        }

    def _service(self, templar: Templar, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """The service's variables without their prefix, as the inventory or their role says."""
        directory = role_directory(self._loader, task_vars, SERVICE_ROLE)
        defaults = defaults_of(self._loader, directory)
        private = variables_of(self._loader, directory, "vars")
        inner = templar.copy_with_new_env(
            available_variables={**private, **defaults, **templar.available_variables}
        )
        prefix = f"{SERVICE_ROLE}_"
        found = {}
        for name in defaults:
            try:
                found[name.removeprefix(prefix)] = inner.template(
                    task_vars.get(name, defaults[name])
                )
            except AnsibleError:
                # Made of what the application's own description says: the role computes it.
                continue
        return found

    def _filled(
        self,
        name: str,
        description: Mapping[str, Any],
        options: Mapping[str, Any],
        variables: dict[str, Any],
    ) -> dict[str, Any]:
        def compute(default: Any, so_far: Mapping[str, Any]) -> Any:
            available = {**variables, **so_far, "name": name}
            inner = self._templar.copy_with_new_env(available_variables=available)
            try:
                return inner.template(default)
            except AnsibleError:
                # It reads something that is wrong, which the check says.
                return None

        return filled(description, options, compute)


def _with_database(
    name: str, description: Mapping[str, Any], found: Mapping[str, Any]
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The description with the URL of its database on the fleet's host, and what goes with it."""
    addresses = list(found["addresses"].values())
    wanted = bool(addresses) and databases.is_wanted(description)
    # Where something is missing the check says so.
    if not wanted or not found.get("secret") or not all(addresses):
        return description, {
            "database_of_fleet": wanted,
            "database_names": [],
            "database_authority": "",
            "database_url_pooled": "",
        }
    # Loaded where it is needed: most inventories have no such host.
    from ansible_collections.wsgi.host.plugins.plugin_utils.authority import authority

    url = databases.url(found["secret"], addresses, name)
    alone = addresses == [databases.LOOPBACK]
    port = found["pooler_port"] if databases.is_pooled(description) else 0
    pooled = databases.url(found["secret"], addresses, name, port) if port else ""
    return {**description, "data": {**description["data"], "database_url": url}}, {
        "database_of_fleet": wanted,
        "database_names": found["names"],
        "database_authority": "" if alone else authority(found["secret"]),
        "database_url_pooled": pooled,
    }


def _with_what_follows(
    name: str, description: Mapping[str, Any], service: Mapping[str, Any]
) -> dict[str, Any]:
    """The description with what follows from it; as it is where it is wrong."""
    whole = {**description, "name": name, "service": {**service}}
    try:
        network, after = descriptions.reach(whole)
        whole["certificate_name"] = descriptions.certificate_name(whole["domains"])
        told = {key: value for key, value in whole["web"].items() if key in service}
        worker = descriptions.worker(whole)
        whole["service"] |= {"network": network, "after": after, **worker, **told}
        whole["service"]["background"] = descriptions.named(whole["workers"])
        whole["service"]["timers"] = descriptions.named(whole["timers"])
        whole |= descriptions.with_redis(whole)
        descriptions.site(whole, "")
        whole["lock"] = descriptions.lock_of(whole["source"])
        whole["credentials"] = descriptions.credentials(whole)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        # Something is missing or of a wrong type, which the check of the description says.
        pass
    return whole


def _origins(obtained: list[str]) -> dict[str, str]:
    """What a person wrote that certificates are made of."""
    found = {}
    for index, name in enumerate(obtained):
        found[f"certbot_certificates[{index}]"] = f"applications.{name}.domains"
        found[f"certbot_certificates[{index}].domains"] = f"applications.{name}.domains"
    return found


def _templated(
    templar: Templar, where: str, value: Any, option: Mapping[str, Any] | None = None
) -> Any:
    """A value without its templates; an error names the member that has it, and shows no line.

    Args:
        where: what the person called it.
        option: what the specification says of it, which tells a secret from the rest.
    """
    try:
        return templar.template(value)
    except AnsibleError as error:
        fault = _fault(templar, where, value, option or {}, error)
    # Ansible shows the line of a cause.
    raise AnsibleActionFail(f"{fault}. Nothing was changed") from None


def _fault(
    templar: Templar, where: str, value: Any, option: Mapping[str, Any], error: AnsibleError
) -> str:
    """What is wrong with a value that cannot be computed, of the innermost member that has it."""
    if isinstance(value, str) and not isinstance(value, EncryptedString):
        reference = REFERENCE.fullmatch(value)
        # No further where a variable is made of itself.
        behind = templar.available_variables.get(reference[1]) if reference else None
        if isinstance(behind, (Mapping, list, EncryptedString)):
            return _fault(templar, where, behind, option, error)
    for name, item in _members(value):
        inner = _option_of(option, name)
        try:
            templar.template(item)
        except AnsibleError as cause:
            inside = f"{where}[{name}]" if isinstance(name, int) else f"{where}.{name}"
            return _fault(templar, inside, item, inner, cause)
    if isinstance(value, EncryptedString):
        return (
            f"{where} is encrypted, and no password of this run decrypts it: give that of its "
            f"vault with --vault-password-file or --ask-vault-pass, or encrypt it anew"
        )
    if is_secret(option):
        # The words of an error may be those of the value.
        return (
            f"{where} cannot be computed: define what it refers to, or write !unsafe before a "
            f"value that has braces of its own"
        )
    return f"{where} cannot be computed ({reason(error)}): define what it refers to, or correct it"


def _members(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def _option_of(option: Mapping[str, Any], name: Any) -> Mapping[str, Any]:
    """What the specification says of a member, or of an item of a list."""
    if option.get("no_log"):
        return option
    inner: Mapping[str, Any] = option.get("options") or {}
    if isinstance(name, int):
        return {"options": inner}
    if "values" in option:
        return {"options": option["values"]}
    return inner.get(name) or {}
