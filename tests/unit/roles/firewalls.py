"""A fleet's firewalls as its inventory makes them, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.template import Templar
from ansible_collections.wsgi.host.plugins.plugin_utils.openings import openings
from conftest import trusted

from .describing import ROLES, Loader
from .render import render


def opened(
    name: str, hosts: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """What the action says of a host."""
    hostvars = {each: {"inventory_hostname": each, **told} for each, told in hosts.items()}
    task_vars = trusted(
        {
            "ansible_facts": {},
            **hostvars[name],
            "hostvars": hostvars,
            "groups": {"all": list(hosts), **groups},
            "role_path": str(ROLES / "firewall"),
        }
    )
    loader = Loader()
    return openings(loader, Templar(loader=loader, variables=task_vars), task_vars)


def rules(
    name: str,
    hosts: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    family: str = "Debian",
) -> str:
    """The rules of a host, as nft reads them."""
    found = opened(name, hosts, groups)
    assert found["problems"] == []
    return render("firewall", "rules.nft.j2", family, __firewall_openings=found)
