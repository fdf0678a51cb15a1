"""An address that moves between balancers: who can have it, by the inventory."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from .balancing import BALANCERS
from .sharing import address_of

ADDRESSES, NUMBER = "keepalived_addresses", "keepalived_router_id"


def floating(
    groups: Mapping[str, Iterable[str]], hostvars: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """What a balancer has to know of the others, and what is wrong with the floating addresses.

    All of the inventory counts and not only the hosts of a run. What a single host could say, such
    as a text that is no address, its own preflight says.

    Returns:
        `addresses`, as this host's variables have them; `peers`, all balancers with `name` and
        `address`; and `problems`, each with `variable`, `problem` and `remedy`.
    """
    names = list(groups.get(BALANCERS) or ())
    told = {each: _listed(hostvars[each].get(ADDRESSES)) for each in names}
    peers = [{"name": each, "address": address_of(hostvars[each], each)} for each in names]
    if not any(told.values()):
        return {"addresses": [], "peers": peers, "problems": []}
    problems = [
        *_agree(ADDRESSES, {each: ", ".join(found) for each, found in told.items()}),
        *_agree(NUMBER, {each: str(hostvars[each].get(NUMBER, "")) for each in names}),
        *_owned(told[name], groups, hostvars),
    ]
    if len(names) < 2:
        problems.append(
            {
                "variable": ADDRESSES,
                "problem": f"is {', '.join(told[name])}, and {' and '.join(names)} is the only "
                f"host of the group {BALANCERS}, so it could go nowhere",
                "remedy": f"add a host to {BALANCERS}, or leave {ADDRESSES} empty",
            }
        )
    nowhere = [each["name"] for each in peers if not each["address"]]
    if nowhere:
        problems.append(
            {
                "variable": "application_peer_address",
                "problem": f"is not set for {' and '.join(nowhere)}, whose ansible_host is no IP "
                "address at which the other balancers reach it",
                "remedy": "set it to the host's address in the network that the balancers share",
            }
        )
    return {"addresses": told[name], "peers": peers, "problems": problems}


def _listed(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _agree(variable: str, told: Mapping[str, str]) -> list[dict[str, str]]:
    """What is wrong where balancers do not say the same."""
    first: dict[str, str] = {}
    for name, value in told.items():
        first.setdefault(value, name)
    if len(first) < 2:
        return []
    said = " and ".join(f"{value or 'not set'} on {name}" for value, name in first.items())
    return [
        {
            "variable": variable,
            "problem": f"is not the same for all balancers: {said}",
            "remedy": f"set it once, in the group variables of {BALANCERS}",
        }
    ]


def _owned(
    addresses: Iterable[str], groups: Mapping[str, Iterable[str]], hostvars: Mapping[str, Any]
) -> list[dict[str, str]]:
    """Floating addresses that are a host's own."""
    owners = {address_of(hostvars[each], each): each for each in groups.get("all") or ()}
    found = []
    for each in addresses:
        try:
            owner = owners.get(str(ipaddress.ip_interface(each).ip))
        except ValueError:
            continue
        if owner:
            found.append(
                {
                    "variable": ADDRESSES,
                    "problem": f"has {each}, which is the address of {owner}",
                    "remedy": "choose an address of the balancers' network that no host has",
                }
            )
    return found
