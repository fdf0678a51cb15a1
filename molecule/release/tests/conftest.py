"""What the tests of releases share: the host on the bench of tests/releases."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[3]
sys.path.insert(0, str(PROJECT / "tests" / "releases"))

from bench import Host, host_variables  # noqa: E402

# Hosts keep the database that they get for a fleet (molecule/conftest.py).
STAGES = ("fleet",)


@pytest.fixture(scope="module")
def bench(host: Any, control: Any, testhosts: Any) -> Host:
    """The host, alone in an inventory of its own."""
    name = host.ansible.get_variables()["inventory_hostname"]
    return Host(name, host_variables(control.inventory, name), testhosts)
