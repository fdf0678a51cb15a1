"""Hosts that serve the same names: which there are, and where their web servers answer."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible.errors import AnsibleError

from .descriptions import certificate_name, entries

HTTP_PORT = 80


def sharing(
    name: str,
    certificates: Iterable[Mapping[str, Any]],
    hosts: Iterable[str],
    hostvars: Mapping[str, Any],
) -> dict[str, Any]:
    """Which of the hosts serve a name of this one, by the inventory alone.

    All of the inventory counts and not only the hosts of a run: with `--limit`, too, a host knows
    who may be asked for its names.

    Args:
        name: of this host in the inventory.
        certificates: of this host, each with `name` and `domains`.
        hosts: names of all hosts.
        hostvars: their variables.

    Returns:
        `peers`, where the web servers of the others answer plain HTTP, `<ip>:<port>`; `nowhere`,
        names of those whose address the inventory does not say; and `alike`, the hosts that have
        the same set of names on a certificate, this one included, for the set that most have.
    """
    own = {str(each["name"]): domains_of(each) for each in certificates}
    alike = {each: [name] for each in own}
    found: dict[str, Any] = {"peers": [], "nowhere": []}
    wanted = {domain for domains in own.values() for domain in domains}
    for host in hosts:
        if host == name:
            continue
        variables = hostvars[host]
        theirs = list(certificates_of(variables))
        if not any(wanted & domains_of(each) for each in theirs):
            continue
        where = endpoint(variables, host)
        if where:
            found["peers"].append(where)
        else:
            found["nowhere"].append(host)
        for each in theirs:
            if each["name"] in own:
                alike[each["name"]].append(host)
    return {**found, "alike": max(alike.values(), key=len, default=[])}


def asking(
    name: str, domains: Iterable[str], hosts: Iterable[str], hostvars: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Who asks for the health of this host's sites by their names, as the inventory has it.

    A host that serves one of them asks itself, or its server of monitoring does.

    Returns:
        `addresses`, and `nowhere`, names of others whose address the inventory does not say.
    """
    wanted, known = {domain.lower() for domain in domains}, list(hosts)
    asks: dict[str, None] = {}
    for host in known:
        variables = hostvars[host]
        if not variables.get("monitoring_enabled"):
            continue
        if host == name or any(wanted & domains_of(each) for each in certificates_of(variables)):
            asks[str(variables.get("monitoring_server") or host)] = None
    # The role monitoring says what is wrong with others.
    found = {host: address_of(hostvars[host], host) for host in asks if host in known}
    return {
        "addresses": [address for address in found.values() if address],
        "nowhere": [host for host, address in found.items() if not address and host != name],
    }


def certificates_of(variables: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Names and domains of a host's certificates; nothing where its own run will complain."""
    try:
        for description in entries(variables).values():
            domains = description.get("domains") if isinstance(description, Mapping) else None
            if isinstance(domains, list) and domains:
                texts = [str(domain) for domain in domains]
                yield {"name": certificate_name(texts), "domains": texts}
    except AnsibleError:
        return


def domains_of(certificate: Mapping[str, Any]) -> set[str]:
    return {str(domain).lower() for domain in certificate["domains"]}


def endpoint(variables: Mapping[str, Any], name: str) -> str:
    """Where a host's web server answers plain HTTP; empty where no address is known."""
    address = address_of(variables, name)
    if not address:
        return ""
    port = variables.get("nginx_http_port", HTTP_PORT)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def address_of(variables: Mapping[str, Any], name: str) -> str:
    """The IP address at which other hosts reach this one; empty where the inventory has none."""
    told = variables.get("application_peer_address") or variables.get("ansible_host") or name
    try:
        address = ipaddress.ip_address(str(told))
    except ValueError:
        return ""
    # A loopback address is a forwarded port of the control node.
    return "" if address.is_loopback else str(address)
