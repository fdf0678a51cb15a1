"""What the tests of releases share: the host on the bench of tests/releases."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[3]
sys.path.insert(0, str(PROJECT / "tests" / "releases"))

# What fails there is explained as in a test.
pytest.register_assert_rewrite("shared")

from bench import Host, host_variables, playbook, write_inventory  # noqa: E402
from shared import DOMAIN, NAMES, Member, inventory  # noqa: E402

# Hosts keep the database that they get for a fleet (molecule/conftest.py).
STAGES = ("fleet",)


@pytest.fixture(scope="module")
def bench(host: Any, control: Any, testhosts: Any) -> Host:
    """The host, alone in an inventory of its own."""
    name = host.ansible.get_variables()["inventory_hostname"]
    return Host(name, host_variables(control.inventory, name), testhosts)


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest, testhosts: Any) -> list[Member]:
    """The hosts, provisioned by `site.yml` for one domain and one database."""
    told = Path(request.config.getoption("ansible_inventory"))
    given = {name: host_variables(told, name) for name in NAMES}
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
    # The first keeps the database as well.
    write_inventory(
        inventory(), {member.name: member.variables for member in members}, databases={NAMES[0]: {}}
    )
    # Other tests have left passages in each host's own database, which nobody wants.
    done = playbook(inventory(), "site", application_abandon=["database"]).wait()
    assert done.returncode == 0, done.output
    return members
