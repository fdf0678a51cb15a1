"""What a balancer leads where, by the inventory and by what roles say of their applications."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.wsgi.host.plugins.filter.probed import probed

from .balancing import SERVING, sites
from .floating import floating
from .roles import Described, said_by_roles

# Of what a role says of its application, what a balancer has to know.
READ = ("domains", "health")


def balanced(loader: DataLoader, templar: Templar, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """What `balancing.sites` returns, and two things more.

    They are `verify`, whether certificates can be trusted, and `floating`, who can have the
    floating addresses.
    """
    groups, hostvars = task_vars["groups"], task_vars["hostvars"]

    def read(role: Described) -> dict[str, Any]:
        filled = templar.copy_with_new_env(available_variables=role.variables(task_vars))
        return {name: filled.template(role.told[name]) for name in READ if name in role.told}

    found = sites(groups, hostvars, said_by_roles(loader, task_vars, read))
    moving = floating(groups, hostvars, str(task_vars["inventory_hostname"]))
    serving = [probed(hostvars[name]) for name in groups.get(SERVING) or ()]
    return {
        **found,
        "problems": [*found["problems"], *moving.pop("problems")],
        "verify": all(each["verify"] for each in serving),
        "floating": moving,
    }
