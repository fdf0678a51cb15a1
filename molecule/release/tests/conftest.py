"""What the tests of releases share: the host on the bench of tests/releases."""

from __future__ import annotations

import ipaddress
import os
import secrets
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[3]
sys.path.insert(0, str(PROJECT / "tests" / "releases"))

# Beside other scenarios the machine may have less time than 30 requests a second take.
os.environ.setdefault("RELEASES_AT_ONCE", "30")
# What fails there is explained as in a test.
pytest.register_assert_rewrite("shared")

from balanced import INVENTORY, Balanced  # noqa: E402
from bench import Host, host_variables, playbook, write_inventory  # noqa: E402
from shared import DOMAIN, NAMES, Member, inventory  # noqa: E402

# Hosts keep the database that they get for a fleet (molecule/conftest.py).
STAGES = ("balanced",)
BALANCERS = ("balancer", "spare")


@pytest.fixture(scope="module")
def bench(host: Any, control: Any, testhosts: Any) -> Host:
    """The host, alone in an inventory of its own."""
    name = host.ansible.get_variables()["inventory_hostname"]
    return Host(name, host_variables(control.inventory, name), testhosts)


@pytest.fixture(scope="session")
def balanced(request: pytest.FixtureRequest, testhosts: Any) -> Balanced:
    """The hosts with one domain and one database, and the balancers, which were bare.

    One run of `site.yml` makes all of it. `make proof` makes the fleet first, and then puts the
    balancers in front of it.
    """
    told = Path(request.config.getoption("ansible_inventory"))
    given = {name: host_variables(told, name) for name in (*NAMES, *BALANCERS)}
    server = Host(NAMES[0], given[NAMES[0]], testhosts)
    shared = {
        "application_database_secret": secrets.token_hex(32),
        "toll": {
            "role": "toll_app",
            "domains": [DOMAIN],
            "secrets": {"secret_key": secrets.token_hex(32)},
        },
    }
    members = [Member(name, {**given[name], **shared}, testhosts) for name in NAMES]
    for member in members:
        member.server = server
    balancers = []
    for name in BALANCERS:
        # Host wants a description's domain; a balancer's are those of its hosts.
        each = Host(name, {**given[name], "toll": shared["toll"]}, testhosts)
        del each.variables["toll"]
        balancers.append(each)
    # The engine gives addresses from the whole network by chance.
    network = ipaddress.ip_network(f"{balancers[0].address}/24", strict=False)
    taken = {each.address for each in (*members, *balancers)}
    floating = next(str(x) for x in reversed(list(network.hosts())) if str(x) not in taken)
    moves = {"keepalived_addresses": [f"{floating}/24"], "haproxy_max_connections": 2000}
    hosts = {member.name: member.variables for member in members}
    # The first keeps the database as well.
    databases: dict[str, Any] = {NAMES[0]: {}}
    write_inventory(inventory(), hosts, databases=databases)
    leading = {each.name: {**each.variables, **moves} for each in balancers}
    write_inventory(INVENTORY, hosts, balancers=leading, databases=databases)
    for path in (inventory(), INVENTORY) if os.environ.get("EVERY_SYSTEM") else (INVENTORY,):
        # Other tests have left passages in each host's own database, which nobody wants.
        done = playbook(path, "site", application_abandon=["database"]).wait()
        assert done.returncode == 0, done.output
    # Placeholders have the same subject, so a client could not tell whose signature it looks at.
    first, second = members
    for name in ("fullchain.pem", "privkey.pem"):
        path = f"/etc/ssl/sites/{DOMAIN}/{name}"
        second.root(f"cat >$(readlink -f {path})", given=first.root(f"cat {path}"))
    second.root("systemctl reload nginx")
    made = Balanced(members, *balancers, floating)
    # A busy machine may have kept a host from answering a check.
    made.wait_until_up()
    return made


@pytest.fixture(scope="session")
def fleet(balanced: Balanced) -> list[Member]:
    """Its hosts."""
    return balanced.members
