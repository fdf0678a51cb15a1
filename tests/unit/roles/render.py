"""Renders a role's templates without a host, as `wsgi.host.config_tree` would for one.

A role's variables are its defaults, then `vars/main.yml`, then those of the family, then what a
test overrides; facts are those of a host of that family, as `wsgi.host.probe` returns them.
Where it overrides `applications`, of this host or of others in `hostvars`, they are described as in
a run.
"""

from __future__ import annotations

import copy
from typing import Any

from ansible._internal._templating import _jinja_bits
from ansible.plugins.loader import filter_loader
from ansible.template import Templar, trust_as_template
from ansible_collections.wsgi.host.plugins.filter.exec_words import exec_words
from ansible_collections.wsgi.host.plugins.filter.interfaces import interfaces
from ansible_collections.wsgi.host.plugins.filter.scram import scram
from ansible_collections.wsgi.host.plugins.filter.sites import site_faults, sites
from ansible_collections.wsgi.host.plugins.plugin_utils import families

from .describing import ROLES, Loader, describe, of_roles

# Tests import the collection without Ansible, whose own way to its filters is closed then.
_jinja_bits._BUILTIN_FILTERS.update(
    filter_loader._wrap_funcs(
        {
            "wsgi.host.exec_words": exec_words,
            "wsgi.host.interfaces": interfaces,
            "wsgi.host.scram": scram,
            "wsgi.host.sites": sites,
            "wsgi.host.site_faults": site_faults,
        },
        {},
    )
)

FAMILIES = tuple(families.names())

# Of a host on which neither these roles nor anybody else has set anything up.
BARE: dict[str, Any] = {
    "trees": [],
    "apphost": "",
    "foreign_files": [],
    "edited_files": [],
    "renewals": {},
    "journal_limits": [],
    "firewall": {"rules": "", "units": "", "loaded": False, "ufw": False},
    "logins": ["root"],
}
# Facts of a host of each family; a test overrides what matters to it with `wsgi_host={...}`.
FACTS: dict[str, dict[str, Any]] = {
    "Debian": {
        "family": "Debian",
        "family_file": str(families.file_of("Debian")),
        "distribution": "debian",
        "distribution_like": [],
        "distribution_version": "13",
        "pretty_name": "Debian GNU/Linux 13 (trixie)",
        "architecture": "x86_64",
        "python": {"version": "3.13", "executable": "/usr/bin/python3"},
        "systemd": {"running": True, "version": 257},
        "cpus": 2,
        "memory_mib": 2048,
        "selinux": False,
        "ipv6": True,
        "networks": [
            {"interface": "eth0", "network": "192.0.2.0/24"},
            {"interface": "eth0", "network": "2001:db8::/64"},
        ],
        "packages": {"libssl3t64": "3.5.9-1~deb13u1", "nginx": "1.26.3-3+deb13u10"},
        **BARE,
        "root": True,
        "units": {},
        "users": ["root", "www-data"],
        "groups": ["root", "www-data"],
        "listeners": [],
        "mounts": {"/": 10000},
    },
    "RedHat": {
        "family": "RedHat",
        "family_file": str(families.file_of("RedHat")),
        "distribution": "rocky",
        "distribution_like": ["rhel", "centos", "fedora"],
        "distribution_version": "9.6",
        "pretty_name": "Rocky Linux 9.6 (Blue Onyx)",
        "architecture": "x86_64",
        "python": {"version": "3.9", "executable": "/usr/bin/python3"},
        "systemd": {"running": True, "version": 252},
        "cpus": 2,
        "memory_mib": 2048,
        "selinux": True,
        "ipv6": True,
        "networks": [
            {"interface": "eth0", "network": "192.0.2.0/24"},
            {"interface": "eth0", "network": "2001:db8::/64"},
        ],
        "packages": {"openssl-libs": "3.2.2-6.el9", "nginx": "1.20.1-22.el9"},
        **BARE,
        "root": True,
        "units": {},
        "users": ["root", "nginx"],
        "groups": ["root", "nginx"],
        "listeners": [],
        "mounts": {"/": 10000},
    },
}


def facts_of(family: str) -> dict[str, Any]:
    """Facts of a bare host of a family that nothing but its file is known of."""
    said = families.content(family)
    return {
        **FACTS["Debian"],
        "family": family,
        "family_file": str(families.file_of(family)),
        "distribution": said["__family_ids"][0],
        "distribution_version": next(iter(said["__nginx_shipped_versions"])),
        "pretty_name": family,
        "packages": {"glibc": "2.40"},
    }


# A new family is in all tests that go through FAMILIES.
FACTS.update({family: facts_of(family) for family in FAMILIES if family not in FACTS})


def render(role: str, template: str, family: str, **overrides: Any) -> str:
    """Return the text of `roles/<role>/templates/<template>` for a host of the family.

    `overrides` are variables; `wsgi_host` among them is laid over the family's facts.
    Raises `ansible.errors.AnsibleError` where the template cannot be rendered.
    """
    path = ROLES / role / "templates" / template
    templar = _templar(role, family, overrides).copy_with_new_env(
        searchpath=[str(path.parent), str(ROLES / role / "templates")]
    )
    rendered = templar.template(
        trust_as_template(path.read_text()),
        escape_backslashes=False,
        overrides={"trim_blocks": True, "lstrip_blocks": True},
    )
    return "" if rendered is None else str(rendered)


def evaluate(role: str, expression: str, family: str, **overrides: Any) -> Any:
    """Return the value of a Jinja expression over the role's variables, as for `render`."""
    template = trust_as_template("{{ " + expression + " }}")
    return _templar(role, family, overrides).template(template)


def _templar(role: str, family: str, overrides: dict[str, Any]) -> Templar:
    loader = Loader()
    loader.set_basedir(str(ROLES / role))
    own = ROLES / role
    variables: dict[str, Any] = {
        "ansible_managed": "This file is managed by Ansible.",
        "role_path": str(own),
    }
    for path in (own / "defaults/main.yml", own / "vars/main.yml", families.file_of(family)):
        if path.exists():
            variables |= loader.load_from_file(str(path), trusted_as_template=True) or {}
    facts = copy.deepcopy(FACTS[family]) | overrides.pop("wsgi_host", {})
    if "applications" in overrides:
        variables |= of_roles(overrides)
        overrides = described(overrides, facts)
    variables |= {"ansible_facts": {"wsgi_host": facts}, **overrides}
    return Templar(loader=loader, variables=variables)


def described(overrides: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Variables with the descriptions of this host and of those that are known beside it."""
    variables = {"inventory_hostname": "web1", **overrides}
    own = str(variables["inventory_hostname"])
    told = {own: {}, **overrides.get("hostvars", {})}
    told[own] = {**variables, **told[own], "hostvars": {}}
    hosts = {
        name: (
            {**each, "__application_descriptions": describe(each, facts, told)}
            if "applications" in each
            else each
        )
        for name, each in told.items()
    }
    return {
        "ansible_play_hosts_all": list(hosts),
        "groups": {"all": list(hosts), "web": list(hosts)},
        **hosts[own],
        **variables,
        "hostvars": hosts,
    }
