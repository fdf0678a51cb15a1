"""What a host opens, and to whom: what its roles say of themselves, and what its operator adds.

A role says it in `meta/openings.yml`: `groups`, whose hosts it is for, and `openings`, each with

* `ports`: numbers, or ranges such as 6000-6009; none for a protocol without ports;
* `protocol`: tcp unless it says otherwise;
* `sources`: `everybody`, `clients` (whoever `firewall_clients` says), addresses, networks, and
  names of groups and hosts of the inventory;
* `reason`: what it is for;
* `when`: whether it is open, if that depends;
* `untracked`: names of groups whose hosts open more connections there, over TCP, than the kernel's
  table has room for, at either end.

Values are templates over the host's variables and the role's, but those of `untracked`. What has
that is looked at for other hosts too, and reads what belongs to its host from
`hostvars[inventory_hostname]`.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from .roles import content_of, defaults_of, role_directory, variables_of
from .sharing import address_of

ROLE = "firewall"
FILE = "openings.yml"
GONE = "__firewall_roles_gone"
EVERYBODY, CLIENTS = "everybody", "clients"
WHO_CLIENTS_ARE = "firewall_clients"
WORDS = (EVERYBODY, CLIENTS)
ANYWHERE = ("0.0.0.0/0", "::/0")
MATCHES = {
    "tcp": "tcp dport {ports}",
    "udp": "udp dport {ports}",
    "vrrp": "meta l4proto 112",
    "any": "",
}
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass
class Inventory:
    """Who is meant by a name.

    Attributes:
        problems: what is wrong with what was asked for, each with `variable`, `problem`, `remedy`.
    """

    name: str
    groups: Mapping[str, Iterable[str]]
    hostvars: Mapping[str, Any]
    clients: Sequence[str] = (EVERYBODY,)
    problems: list[dict[str, str]] = field(default_factory=list)

    def of(self, groups: Iterable[str]) -> set[str]:
        """The hosts of these groups, which need not be in the inventory."""
        return {host for group in groups for host in self.groups.get(group) or ()}

    def networks(self, sources: Iterable[str], variable: str) -> list[Network] | None:
        """Whom these sources stand for; None for everybody.

        Args:
            variable: which a person wrote them in. Empty for those of a role, whose groups need not
                be in the inventory.
        """
        found: list[Network] = []
        for source in map(str, sources):
            if source == CLIENTS and variable == WHO_CLIENTS_ARE:
                self.problem(
                    variable,
                    f"has the source {CLIENTS}, who are the ones that it is to name",
                    f"name them, or write {EVERYBODY}",
                )
                continue
            if source == CLIENTS:
                more = self.networks(self.clients, WHO_CLIENTS_ARE)
            elif source == EVERYBODY:
                more = None
            else:
                more = list(self._named(source, variable))
            if more is None:
                return None
            found += more
        return found

    def _named(self, source: str, variable: str) -> Iterator[Network]:
        hosts = self.groups.get(source)
        if hosts is None and source in self.hostvars:
            hosts = [source]
        if hosts is not None:
            yield from self._addresses(hosts)
            return
        try:
            yield ipaddress.ip_network(source, strict=False)
        except ValueError:
            if variable:
                self._unknown(source, variable)

    def _addresses(self, hosts: Iterable[str]) -> Iterator[Network]:
        for host in hosts:
            if host == self.name:
                # What a host sends to itself does not pass the firewall.
                continue
            address = address_of(self.hostvars[host], host)
            if address:
                yield ipaddress.ip_network(address)
            else:
                self.problem(
                    "application_peer_address",
                    f"is not set for {host}, whose ansible_host is not an IP address that the "
                    f"firewall of {self.name} could admit",
                    f"set it to the address from which {host} reaches other hosts",
                )

    def _unknown(self, source: str, variable: str) -> None:
        names = [*self.groups, *self.hostvars, *WORDS]
        near = difflib.get_close_matches(source, names, n=1)
        self.problem(
            variable,
            f"has the source {source}, which is neither an address or network nor a group or "
            "host of the inventory",
            f"did you mean {near[0]}?" if near else f"use one of these, or {EVERYBODY}",
        )

    def problem(self, variable: str, problem: str, remedy: str) -> None:
        """Note what is wrong, once."""
        told = {"variable": variable, "problem": problem, "remedy": remedy}
        if told not in self.problems:
            self.problems.append(told)

    def known(self) -> list[Network]:
        """All hosts whose address the inventory has."""
        found = (address_of(self.hostvars[each], each) for each in self.groups.get("all") or ())
        return [ipaddress.ip_network(each) for each in found if each]


def openings(loader: DataLoader, templar: Templar, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """What a host opens, as `rules.nft.j2` writes it, and what is wrong with it.

    Returns:
        `openings`, each with `role`, `reason`, `protocol`, `ports`, whether it is `untracked`, and
        `matches`, how nft knows what is let in; `ssh`, the networks from which one may log in;
        `untracked`, ports whose connections take no place in the kernel's table, by protocol;
        `far`, the same of other hosts: each with `role`, `reason`, and how nft knows what is `sent`
        there and `answered`; `known`, the addresses of all hosts; and `problems`.
    """
    directory = role_directory(loader, task_vars, ROLE)
    own = _Variables(loader, templar, {**defaults_of(loader, directory), **task_vars})
    inventory = Inventory(
        str(task_vars["inventory_hostname"]), task_vars["groups"], task_vars["hostvars"]
    )
    inventory.clients = own("{{ firewall_clients }}")
    found = []
    ssh = own("{{ [ansible_port | default(22) | int] + firewall_ssh_ports }}")
    told = {"role": "SSH", "reason": "Ansible and administrators", "ports": ssh}
    may_log_in = inventory.networks(own("{{ firewall_ssh_sources }}"), "firewall_ssh_sources")
    found.append(_opening(told, may_log_in))
    # What is being taken off a host that the inventory still has in their groups.
    gone = task_vars.get(GONE) or ()
    far: list[dict[str, Any]] = []
    for path in sorted(directory.parent.glob(f"*/meta/{FILE}")):
        said, role = content_of(loader, path), path.parents[1]
        hosts = inventory.of(said["groups"])
        for each in said["openings"]:
            # Few hosts look at many others: balancers.
            if inventory.name in inventory.of(each.get("untracked", ())):
                far += _far(loader, templar, task_vars, role, each, sorted(hosts))
        if inventory.name not in hosts:
            continue
        if role.name in gone:
            continue
        theirs = _Variables(loader, templar, _of_role(loader, role, task_vars))
        for each in map(theirs, said["openings"]):
            if each.get("when", True):
                networks = inventory.networks(each["sources"], "")
                found.append(_opening({"role": role.name, **each}, networks))
    for each in own("{{ firewall_open }}"):
        first, last = each.get("port", 0), each.get("last_port", 0)
        if last and last < first:
            inventory.problem(
                "firewall_open",
                f"has a range from {first} to {last} ({each['reason']})",
                "write the lower one as port, or leave last_port out",
            )
            continue
        ports = [f"{first}-{last}" if last else first] if first else []
        networks = inventory.networks(each["sources"], "firewall_open")
        if each.get("protocol") == "any" and _has_everybody(networks):
            sources = list(map(str, each["sources"]))
            here = ", here or in firewall_clients" if CLIENTS in sources else ""
            inventory.problem(
                "firewall_open",
                f"opens every port to everybody, by the sources {' and '.join(sources)} "
                f"({each['reason']})",
                f"name the networks that you mean{here}, or set firewall_enabled: false",
            )
            continue
        found.append(_opening({"role": "firewall_open", **each, "ports": ports}, networks))
    # Connections to SSH are few, and worth a place in the kernel's table.
    many = [each for each in found[1:] if each["untracked"] and each["ports"]]
    untracked = {
        protocol: joined(
            port for each in many if each["protocol"] == protocol for port in each["ports"]
        )
        for protocol in ("tcp", "udp")
    }
    return {
        "openings": [each for each in found if each["matches"]],
        "ssh": [str(each) for each in may_log_in] if may_log_in is not None else list(ANYWHERE),
        "untracked": {protocol: ports for protocol, ports in untracked.items() if ports},
        "far": far,
        "known": _by_family(inventory.known()),
        "problems": inventory.problems,
    }


class _Variables:
    """Fills in templates of a role."""

    def __init__(self, loader: DataLoader, templar: Templar, variables: dict[str, Any]) -> None:
        self._templar = templar.copy_with_new_env(available_variables=variables)

    def __call__(self, told: Any) -> Any:
        return self._templar.template(trust_as_template(told) if isinstance(told, str) else told)


def _of_role(loader: DataLoader, role: Any, task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that a role has on a host."""
    return {
        **defaults_of(loader, role),
        **task_vars,
        **variables_of(loader, role, "vars"),
        "role_path": str(role),
    }


def _far(
    loader: DataLoader,
    templar: Templar,
    task_vars: Mapping[str, Any],
    role: Any,
    told: Any,
    hosts: Iterable[str],
) -> Iterator[dict[str, Any]]:
    """Where an untracked opening of others has a host among its sources: how nft knows that."""
    name, hostvars = str(task_vars["inventory_hostname"]), task_vars["hostvars"]
    own = address_of(hostvars[name], name)
    there: dict[tuple[str, ...], list[Network]] = {}
    variables = _of_role(loader, role, task_vars)
    for host in hosts:
        address = address_of(hostvars[host], host)
        if host == name or not own or not address:
            continue
        try:
            each = _Variables(loader, templar, {**variables, "inventory_hostname": host})(told)
        except AnsibleError:
            # Its own run needs what this one may lack, such as its facts. To track does no harm.
            continue
        networks = Inventory(host, task_vars["groups"], hostvars).networks(each["sources"], "")
        mine = ipaddress.ip_address(own)
        if each.get("when", True) and (networks is None or any(mine in net for net in networks)):
            ports = tuple(joined(each["ports"]))
            there.setdefault(ports, []).append(ipaddress.ip_network(address))
    for ports, networks in there.items():
        for family, addresses in zip(("ip", "ip6"), _by_family(networks).values(), strict=True):
            if addresses:
                yield {
                    "role": role.name,
                    "reason": told["reason"],
                    "sent": f"{family} daddr {_set(addresses)} tcp dport {_set(list(ports))}",
                    "answered": f"{family} saddr {_set(addresses)} tcp sport {_set(list(ports))}",
                }


def _opening(told: Mapping[str, Any], networks: list[Network] | None) -> dict[str, Any]:
    protocol, ports = str(told.get("protocol", "tcp")), joined(told.get("ports", ()))
    return {
        "role": told["role"],
        "reason": told["reason"],
        "protocol": protocol,
        "ports": ports,
        "untracked": networks is None or bool(told.get("untracked")),
        "matches": list(_matches(protocol, ports, networks)),
    }


def _has_everybody(networks: list[Network] | None) -> bool:
    """Whether they are all addresses of a family, also in parts."""
    if networks is None:
        return True
    return any(each in ANYWHERE for listed in _by_family(networks).values() for each in listed)


def _matches(protocol: str, ports: list[str], networks: list[Network] | None) -> Iterator[str]:
    """How nft knows what is let in: a line for each family of addresses."""
    what = MATCHES[protocol].format(ports=_set(ports))
    if networks is None:
        yield what
        return
    for family, addresses in zip(("ip", "ip6"), _by_family(networks).values(), strict=True):
        if addresses:
            yield f"{family} saddr {_set(addresses)} {what}".rstrip()


def _set(items: list[str]) -> str:
    return f"{{ {', '.join(items)} }}"


def _by_family(networks: Iterable[Network]) -> dict[str, list[str]]:
    """Networks of IPv4 and of IPv6, none of them within another: nft refuses that."""
    listed = list(networks)
    ipv4 = ipaddress.collapse_addresses(
        each for each in listed if isinstance(each, ipaddress.IPv4Network)
    )
    ipv6 = ipaddress.collapse_addresses(
        each for each in listed if isinstance(each, ipaddress.IPv6Network)
    )
    return {"ipv4": list(map(_shown, ipv4)), "ipv6": list(map(_shown, ipv6))}


def _shown(network: Network) -> str:
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def joined(ports: Iterable[Any]) -> list[str]:
    """Ports and ranges of them in order, none within another."""
    pairs = sorted(
        (int(first), int(last or first))
        for first, _, last in (str(port).partition("-") for port in ports)
    )
    found: list[tuple[int, int]] = []
    for first, last in pairs:
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return [str(first) if first == last else f"{first}-{last}" for first, last in found]
