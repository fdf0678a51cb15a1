"""`wsgi.host.interfaces`: where an address belongs on a host."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: interfaces
short_description: Say which of a host's interfaces an address belongs to
version_added: "0.1.0"
description:
  - The interface whose network the address is in. Of several networks the smallest counts.
  - An address that cannot be read is in none.
positional: networks
options:
  _input:
    description: The addresses, with or without a prefix.
    type: list
    elements: str
    required: true
  networks:
    description: What M(wsgi.host.probe) says of the host in C(networks).
    type: list
    elements: dict
    required: true
author: [toll-app maintainers]
"""

EXAMPLES = r"""
places: "{{ ['192.0.2.20/24'] | wsgi.host.interfaces(ansible_facts['wsgi_host'].networks) }}"
"""

RETURN = r"""
_value:
  description: >-
    For each address a dictionary with C(address), as it was given, C(interface), empty where it
    is in no network, and whether it is C(ipv6).
  type: list
"""


def interfaces(
    addresses: Iterable[str], networks: Iterable[Mapping[str, str]]
) -> list[dict[str, Any]]:
    """Where each address belongs."""
    known = [(ipaddress.ip_network(each["network"]), each["interface"]) for each in networks]
    # The longest prefix first.
    known.sort(key=lambda pair: -pair[0].prefixlen)
    found = []
    for text in addresses:
        try:
            address = ipaddress.ip_interface(text).ip
        except ValueError:
            found.append({"address": text, "interface": "", "ipv6": False})
            continue
        names = [name for network, name in known if address in network]
        found.append(
            {"address": text, "interface": (names or [""])[0], "ipv6": address.version == 6}
        )
    return found


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by name."""
        return {"interfaces": interfaces}
