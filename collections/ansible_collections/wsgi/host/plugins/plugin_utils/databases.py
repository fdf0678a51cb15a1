"""Where the database of a fleet is, who uses it, and with what: by the inventory alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ansible.module_utils.parsing.convert_bool import boolean

from .balancing import SERVING, described_by
from .roles import Described
from .sharing import address_of

DATABASES = "databases"
# Without this group, those with a database.
VOTERS = "database_voters"
VOTERS_AT_LEAST = 3
SECRET = "application_database_secret"
SECRET_CHARACTERS = 32
LOOPBACK = "127.0.0.1"
# The primary of several, and no waiting for one that is gone: for a new connection two seconds, and
# five for one that is open.
PRIMARY = (
    "target_session_attrs=read-write&connect_timeout=2&tcp_user_timeout=5000"
    "&keepalives_idle=2&keepalives_interval=1&keepalives_count=3"
)
# What a description says of it, in `data`.
WANTED = "postgresql"
# Whether its processes share connections there, where the databases have a pooler.
POOLED = "pooler"
# Variables of the role postgresql, on hosts with a database, and its port unless they say another.
POOLER, POOLER_PORT = "postgresql_pooler", "postgresql_pooler_port"
USUAL_POOLER_PORT = 6432
# Names that PostgreSQL has for itself, as a role or as a database.
RESERVED = frozenset({"none", "postgres", "public", "template0", "template1"})


def authority_file(name: str) -> str:
    """Where a host has the certificate by which an application knows its database."""
    return f"/etc/{name}/database-authority.pem"


def secret_of(
    groups: Mapping[str, Iterable[str]], hostvars: Mapping[str, Any]
) -> tuple[str, dict[str, str]]:
    """The secret that passwords and keys are made of, and what is wrong with it.

    It may stand among the variables of the database's host or of those that serve.
    """
    found: dict[str, str] = {}
    for host in (*(groups.get(DATABASES) or ()), *(groups.get(SERVING) or ())):
        told = hostvars[host].get(SECRET)
        if told:
            found.setdefault(str(told), host)
    if len(found) > 1:
        first, second = list(found.values())[:2]
        problem = f"differs between {first} and {second}, which use the same database"
    elif not found:
        problem = "is not set, and the passwords for the group databases are derived from it"
    elif len(next(iter(found))) < SECRET_CHARACTERS:
        problem = f"is shorter than {SECRET_CHARACTERS} characters"
    else:
        return next(iter(found)), {}
    remedy = (
        "generate one with `openssl rand -hex 32`, and put it into the vault of group_vars/all, so "
        "that all hosts have the same"
    )
    return "", {"variable": SECRET, "problem": problem, "remedy": remedy}


def reserved(name: str) -> dict[str, str]:
    """What is wrong with an application of such a name."""
    return {
        "variable": f"applications.{name}",
        "problem": "has a name that PostgreSQL reserves for itself",
        "remedy": "give the application another name, or its own data.database_url",
    }


def password(secret: str, name: str) -> str:
    """The password of an application's role, in characters that a URL takes as they are."""
    return base64.urlsafe_b64encode(derived(secret, f"password {name}")).decode().rstrip("=")


def archive_passphrase(secret: str) -> str:
    """What the archive of the database is encrypted with. It is worthless without the secret."""
    return derived(secret, "archive").hex()


def derived(secret: str, purpose: str) -> bytes:
    """32 bytes for one purpose, which say nothing of the secret or of those for another."""
    return hmac.digest(secret.encode(), f"wsgi.host database {purpose}".encode(), hashlib.sha256)


def server(
    groups: Mapping[str, Iterable[str]],
    hostvars: Mapping[str, Any],
    uses: Callable[[str], Iterable[str]],
) -> dict[str, Any]:
    """Where the database is, and who uses it.

    All of the inventory counts and not only the hosts of a run: with `--limit`, too, everybody is
    let in who was before.

    Args:
        uses: the applications of a host that have a database there.

    Returns:
        `addresses`, where others reach it, by the name of its host, or of each of several; the
        loopback if nobody else has to, nothing without a group. `voters`, those of the hosts that
        say which of several is the primary; none for one. `applications`, the addresses of the
        hosts of each, by name; none on the loopback. `pooler_port`, where applications share
        connections; 0 for nowhere. `problems`, each with `variable`, `problem` and `remedy`.
    """
    names = list(groups.get(DATABASES) or ())
    if not names:
        return {
            "addresses": {},
            "voters": {},
            "applications": {},
            "pooler_port": 0,
            "problems": [],
        }
    users = {host: list(uses(host)) for host in groups.get(SERVING) or ()}
    users = {host: theirs for host, theirs in users.items() if theirs}
    alone = set(users) <= set(names[:1]) and len(names) == 1
    addresses = {
        name: LOOPBACK if alone else address_of(hostvars[name], name)
        for name in dict.fromkeys((*names, *voters_of(groups)))
    }
    pooler_port, problems = pooler(names, hostvars)
    problems += voting(groups)
    applications: dict[str, list[str]] = {}
    nowhere = [name for name, address in addresses.items() if not address]
    for host, theirs in users.items():
        where = LOOPBACK if alone else address_of(hostvars[host], host)
        if not where and host not in nowhere:
            nowhere.append(host)
        # Where the database's own host came first, its application goes by the loopback until it
        # is handed over.
        both = [where, LOOPBACK] if host in names and not alone else [where]
        for each in theirs:
            applications.setdefault(each, []).extend(both)
    if nowhere:
        problems.append(
            {
                "variable": "application_peer_address",
                "problem": f"is not set for {' and '.join(nowhere)}, whose ansible_host is not an "
                "IP address, and the database admits listed addresses only",
                "remedy": "set it for each of these hosts to the address at which the others "
                "reach it, or from which it reaches them",
            }
        )
    others = {each for theirs in applications.values() for each in theirs} | {*addresses.values()}
    others -= {"", LOOPBACK}
    first = next(filter(None, addresses.values()), "")
    apart = [each for each in sorted(others) if (":" in each) != (":" in first)]
    if apart:
        of_first = next(name for name, address in addresses.items() if address == first)
        problems.append(
            {
                "variable": "application_peer_address",
                "problem": f"or ansible_host is {' and '.join(apart)}, and that of {of_first} is "
                f"{first}: one is IPv4 and the other IPv6, so they cannot connect",
                "remedy": "use IPv4 for both, or IPv6 for both",
            }
        )
    return {
        "addresses": {name: addresses[name] for name in names},
        "voters": {name: addresses[name] for name in voters_of(groups)},
        "applications": applications,
        "pooler_port": pooler_port,
        "problems": problems,
    }


def pooler(names: Iterable[str], hostvars: Mapping[str, Any]) -> tuple[int, list[dict[str, str]]]:
    """The port at which databases share connections, 0 for none, and what is wrong with that."""
    found: dict[int, str] = {}
    for host in names:
        told = hostvars[host]
        wanted = boolean(told.get(POOLER, False), strict=False)
        port = str(told.get(POOLER_PORT, USUAL_POOLER_PORT)) if wanted else "0"
        # The role says what is wrong with one that is no number.
        found.setdefault(int(port) if port.isdecimal() else USUAL_POOLER_PORT, host)
    ports = list(found)
    if len(ports) < 2:
        return next(iter(ports), 0), []
    first, second = list(found.values())[:2]
    problem = {
        "variable": POOLER if 0 in ports else POOLER_PORT,
        "problem": f"differs between {first} and {second}, and any of them may be the primary",
        "remedy": f"set it for all of them, in group_vars/{DATABASES}",
    }
    return ports[0], [problem]


def voters_of(groups: Mapping[str, Iterable[str]]) -> list[str]:
    """The hosts that say which of several databases is the primary; nobody has to for one."""
    names = list(groups.get(DATABASES) or ())
    return list(groups.get(VOTERS) or names) if len(names) > 1 else []


def voting(groups: Mapping[str, Iterable[str]]) -> list[dict[str, str]]:
    """What is wrong with those who vote."""
    names, voters = list(groups.get(DATABASES) or ()), voters_of(groups)
    told = bool(groups.get(VOTERS))
    if not voters or (len(voters) % 2 and len(voters) >= VOTERS_AT_LEAST):
        return []
    fewer = len(voters) < VOTERS_AT_LEAST
    why = (
        "if one is lost, the others are no majority"
        if fewer
        else "an even number survives the loss of no more hosts than one voter less would"
    )
    where = f"the group {VOTERS if told else DATABASES}"
    problem = f"has {' and '.join(voters)}, the voters that elect the primary database: {why}"
    remedy = (
        f"add a host to {VOTERS}, any of the inventory"
        if told
        else f"add a host to {DATABASES}, or create a group {VOTERS} with "
        f"{' and '.join(names if fewer else names[:-1])}"
        + (" and one more host of the inventory, such as a balancer" if fewer else "")
    )
    return [{"variable": where, "problem": problem, "remedy": remedy}]


def users_of(
    groups: Mapping[str, Iterable[str]],
    hostvars: Mapping[str, Any],
    base: Callable[[str], Mapping[str, Any]],
) -> Callable[[str], list[str]]:
    """Says which applications of a host have a database on the host of the group.

    Args:
        base: what a role that describes an application says of it.
    """

    def uses(host: str) -> list[str]:
        told = described_by(hostvars[host], base)
        return [name for name, description in told.items() if is_wanted(description)]

    return uses


def read_of(role: Described) -> dict[str, Any]:
    """Of what a role says of its application, what decides whether it has a database there."""
    said = _data(role.told)
    return {"data": {WANTED: said[WANTED]} if WANTED in said else {}}


def is_wanted(description: Mapping[str, Any]) -> bool:
    """Whether an application has its database there. A URL of its own goes before."""
    told = _data(description)
    return told.get(WANTED) is True and not told.get("database_url")


def may_be_wanted(description: object) -> bool:
    """Whether an application may have its database there, as far as its host's variables say."""
    if not isinstance(description, Mapping):
        return False
    told = _data(description)
    # A role may say it.
    return told.get(WANTED, "role" in description) is True and not told.get("database_url")


def _data(description: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a description says of its data; nothing where that is no dictionary."""
    data = description.get("data")
    return data if isinstance(data, Mapping) else {}


def is_made(
    groups: Mapping[str, Iterable[str]], hostvars: Mapping[str, Any], name: str, url: str
) -> bool:
    """Whether a URL is one that follows from the inventory."""
    secret = secret_of(groups, hostvars)[0] if groups.get(DATABASES) else ""
    return bool(secret) and f":{password(secret, name)}@" in url


def is_pooled(description: Mapping[str, Any]) -> bool:
    """Whether the processes of an application take part where connections are shared."""
    return _data(description).get(POOLED, True) is not False


def url(secret: str, addresses: Sequence[str], name: str, port: int = 0) -> str:
    """Where an application finds its database, or that of several which is the primary.

    Args:
        port: another one than PostgreSQL's own.
    """
    login = f"{quote(name)}:{password(secret, name)}"
    at = f":{port}" if port else ""
    if list(addresses) == [LOOPBACK]:
        # What the kernel passes from one process to another needs no TLS.
        return f"postgresql://{login}@{LOOPBACK}{at}/{quote(name)}?sslmode=disable"
    trust = f"sslmode=verify-full&sslrootcert={authority_file(name)}"
    if len(addresses) == 1:
        (address,) = addresses
        place = f"[{address}]" if ":" in address else address
        return f"postgresql://{login}@{place}{at}/{quote(name)}?{trust}"
    each = ",".join(addresses)
    # Several addresses of IPv6 in front of the path are read by libpq alone.
    place, hosts = ("", f"host={each}&") if ":" in each else (each, "")
    # One port for all of them.
    hosts += f"port={port}&" if port else ""
    return f"postgresql://{login}@{place}/{quote(name)}?{hosts}{PRIMARY}&{trust}"
