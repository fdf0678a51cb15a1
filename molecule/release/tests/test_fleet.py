"""Two hosts that are deployed to together."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
import variants
from bench import FOLDER, Host, described, host_variables, playbook, write_inventory

# In the order in which they switch; the second is the one that bad_on_one_host.py is bad on.
NAMES = ("debian12", "debian13")


@pytest.mark.proof
def test_when_one_host_fails_those_that_have_switched_go_back(control: Any, testhosts: Any) -> None:
    """Otherwise a fleet would serve two releases, until somebody sees it."""
    hosts = [Host(name, host_variables(control.inventory, name), testhosts) for name in NAMES]
    inventory = FOLDER / "fleet" / "hosts.yml"
    write_inventory(inventory, {host.name: host.variables for host in hosts})
    before = [host.settle()["current"] for host in hosts]
    mark = f"half-{secrets.token_hex(3)}"
    source = variants.make(FOLDER / "fleet" / "sources", mark, "bad_on_one_host")
    with hosts[0].under_load() as first, hosts[1].under_load() as second:
        given = described(source=str(source))
        done = playbook(inventory, "deploy", application_serial=1, **given).wait()
    assert done.returncode != 0, done.output
    assert [host.settle()["current"] for host in hosts] == before, done.output
    # It was live on the first host for a while, and never on the second.
    assert mark in first.answered_by, done.output
    assert mark not in second.answered_by
    for load in (first, second):
        assert not load.failed, f"{len(load.failed)} failed, the first: {load.failed[:20]}"
        assert load.reconciliation.right
