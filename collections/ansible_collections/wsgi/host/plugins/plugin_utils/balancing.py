"""Which hosts balance, which serve, and what the former have to know of the latter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleError

from .descriptions import entries, in_full, merged
from .sharing import address_of

BALANCERS = "balancers"
SERVING = "web"
# Where nginx of a host behind balancers expects the PROXY protocol. Its own ports go on as they
# are, so that a balancer that comes or goes costs no client a connection.
HTTP_PORT, HTTPS_PORT = 10080, 10443
PORTS = ("nginx_proxy_protocol_http_port", "nginx_proxy_protocol_https_port")


def balancers(
    groups: Mapping[str, Iterable[str]], hostvars: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Who stands in front of the hosts that serve, by the inventory alone.

    Returns:
        `names`, `addresses`, and `nowhere`, names of those whose address is not in the inventory.
    """
    names = list(groups.get(BALANCERS) or ())
    found = {name: address_of(hostvars[name], name) for name in names}
    return {
        "names": names,
        "addresses": [address for address in found.values() if address],
        "nowhere": [name for name, address in found.items() if not address],
    }


def sites(
    groups: Mapping[str, Iterable[str]],
    hostvars: Mapping[str, Any],
    base: Callable[[str], Mapping[str, Any]],
) -> dict[str, Any]:
    """What balancers lead where: the names of each application to the hosts that serve them.

    All of the inventory counts and not only the hosts of a run: with `--limit`, too, a balancer
    knows everybody.

    Args:
        base: what a role that describes an application says of it.

    Returns:
        `sites`, as in `haproxy_sites`, of which one for each set of hosts that serve the same names
        of an application; `ports`, for HTTP and HTTPS, of the hosts; and `problems`, each with
        `variable`, `problem` and `remedy`.
    """
    problems: list[dict[str, str]] = []
    ports: dict[tuple[int, int], list[str]] = {}
    serving: dict[str, dict[str, Mapping[str, Any]]] = {}
    addresses: dict[str, str] = {}
    for host in groups.get(SERVING) or ():
        described = described_by(hostvars[host], base)
        if not described:
            continue
        addresses[host] = address_of(hostvars[host], host)
        if not addresses[host]:
            problems.append(
                {
                    "variable": "application_peer_address",
                    "problem": f"is not set for {host}, whose ansible_host is no IP address that "
                    "another host could reach",
                    "remedy": "set it to the address at which the balancers reach that host",
                }
            )
        ports.setdefault(_ports(hostvars[host]), []).append(host)
        for name, description in described.items():
            serving.setdefault(name, {})[host] = description
    found = []
    for name, hosts in serving.items():
        problem = _disagreement(name, hosts)
        if problem:
            problems.append(problem)
            continue
        health = _health(next(iter(hosts.values())))
        for those, domains in _shared(hosts).items():
            whole = len(those) == len(hosts)
            servers = [{"name": host, "address": addresses[host]} for host in those]
            label = name if whole else f"{name}-{'-'.join(those)}"
            found.append({"name": label, "domains": domains, **health, "servers": servers})
    if len(ports) > 1:
        listed = "; ".join(
            f"{http} and {https} on {', '.join(hosts)}" for (http, https), hosts in ports.items()
        )
        problems.append(
            {
                "variable": " and ".join(PORTS),
                "problem": f"are not the same on all hosts behind the balancers ({listed})",
                "remedy": "set them once, in the group variables of web",
            }
        )
    if not serving:
        problems.append(
            {
                "variable": f"the group {BALANCERS}",
                "problem": f"is in front of no host: no host of the group {SERVING} has an "
                "application with domains",
                "remedy": f"put the hosts that serve into {SERVING}, or take {BALANCERS} out of "
                "the inventory",
            }
        )
    http, https = next(iter(ports), (HTTP_PORT, HTTPS_PORT))
    return {"sites": found, "ports": {"http": http, "https": https}, "problems": problems}


def _shared(hosts: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, ...], list[str]]:
    """The names of an application by the hosts that serve them.

    A name of a host's own is usual: with one, hosts do not share the limits of an authority.
    """
    who: dict[str, list[str]] = {}
    for host, description in hosts.items():
        for domain in dict.fromkeys(str(each).lower() for each in description["domains"]):
            who.setdefault(domain, []).append(host)
    found: dict[tuple[str, ...], list[str]] = {}
    for domain, those in who.items():
        found.setdefault(tuple(those), []).append(domain)
    return found


def _disagreement(name: str, hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What is wrong where hosts have their application asked for its health in two ways."""
    ways: dict[tuple[Any, ...], str] = {}
    for host, description in hosts.items():
        ways.setdefault(tuple(_health(description).values()), host)
    if len(ways) < 2:
        return {}
    (one, first), (other, second) = list(ways.items())[:2]
    return {
        "variable": f"applications.{name}.health",
        "problem": f"has {one[0]} with {one[1]} on {first}, and {other[0]} with {other[1]} on "
        f"{second}; a balancer asks all of them the same",
        "remedy": "describe the application once, in the group variables of web",
    }


def described_by(
    variables: Mapping[str, Any], base: Callable[[str], Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """A host's applications that clients reach; nothing where the host's own run will complain."""
    found: dict[str, Mapping[str, Any]] = {}
    try:
        for name, told in entries(variables).items():
            if not isinstance(told, Mapping):
                continue
            role = str(told.get("role") or "")
            whole = merged(in_full(base(role)) if role else {}, in_full(told))
            domains = whole.get("domains")
            if isinstance(domains, list) and domains:
                found[str(name)] = whole
    except AnsibleError:
        return {}
    return found


def _health(description: Mapping[str, Any]) -> dict[str, Any]:
    """How one asks whether an application is well."""
    health = description.get("health")
    told = health if isinstance(health, Mapping) else {}
    return {"health_path": str(told.get("path") or "/"), "health_status": told.get("status", 200)}


def _ports(variables: Mapping[str, Any]) -> tuple[int, int]:
    told = [
        variables.get(name, default)
        for name, default in zip(PORTS, (HTTP_PORT, HTTPS_PORT), strict=True)
    ]
    try:
        return int(told[0]), int(told[1])
    except (TypeError, ValueError):
        # The host's own run says what is wrong with it.
        return HTTP_PORT, HTTPS_PORT
