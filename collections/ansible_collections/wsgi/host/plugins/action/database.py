"""What a host of a fleet's database has to know of those that use it, by the inventory.

What the options mean is documented with the module, `plugins/modules/database.py`.
"""

from __future__ import annotations

import datetime
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.plugins.action import ActionBase
from ansible_collections.wsgi.host.plugins.filter.scram import scram
from ansible_collections.wsgi.host.plugins.plugin_utils import databases
from ansible_collections.wsgi.host.plugins.plugin_utils.authority import (
    MEMBERS,
    authority,
    certificate,
    member_certificate,
)
from ansible_collections.wsgi.host.plugins.plugin_utils.fleet import refusal
from ansible_collections.wsgi.host.plugins.plugin_utils.roles import said_by_roles


class ActionModule(ActionBase):
    """Reads the inventory; asks no host."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        task_vars = task_vars or {}
        groups, hostvars = task_vars["groups"], task_vars["hostvars"]
        base = said_by_roles(self._loader, task_vars, databases.read_of)
        uses = databases.users_of(groups, hostvars, base)
        found = databases.server(groups, hostvars, uses)
        secret, wrong = databases.secret_of(groups, hostvars)
        several = bool(found["voters"])
        needed = found["applications"] or several
        problems = [*found["problems"], *([wrong] if wrong and needed else [])]
        problems += [
            databases.reserved(name) for name in found["applications"] if name in databases.RESERVED
        ]
        if problems:
            return {"failed": True, "msg": refusal(problems, "the database can be set up")}
        applications = [
            {
                "name": name,
                "verifier": scram(databases.password(secret, name), name),
                "addresses": addresses,
            }
            for name, addresses in found["applications"].items()
        ]
        own = str(task_vars["inventory_hostname"])
        now = datetime.datetime.now(datetime.UTC)
        address = found["addresses"].get(own, "")
        open_to_others = needed and address not in ("", databases.LOOPBACK)
        public, private = certificate(secret, address, now) if open_to_others else ("", "")
        return {
            "changed": False,
            "applications": applications,
            "certificate": public,
            "certificate_key": private,
            "cluster": _cluster(secret, own, found, now) if several else NO_CLUSTER,
            "archive_passphrase": databases.archive_passphrase(secret) if secret else "",
            "_ansible_no_log": True,
        }


NO_CLUSTER: dict[str, Any] = {
    "members": [],
    "voters": [],
    "authority": "",
    "member_authority": "",
    "member_certificate": "",
    "member_certificate_key": "",
    "passwords": {"replication": "", "rewind": ""},
}


def _cluster(
    secret: str, own: str, found: dict[str, Any], now: datetime.datetime
) -> dict[str, Any]:
    """What a host that has one of several databases, or votes, is told of the others."""
    listed = {
        each: [{"name": name, "address": address} for name, address in found[key].items()]
        for each, key in (("members", "addresses"), ("voters", "voters"))
    }
    address = {**found["voters"], **found["addresses"]}[own]
    public, private = member_certificate(secret, address, now)
    # A host that only votes logs in nowhere.
    has_data = own in found["addresses"]
    return {
        **listed,
        "authority": authority(secret),
        "member_authority": authority(secret, MEMBERS),
        "member_certificate": public,
        "member_certificate_key": private,
        "passwords": {
            each: databases.password(secret, f"cluster_{each}") if has_data else ""
            for each in ("replication", "rewind")
        },
    }
