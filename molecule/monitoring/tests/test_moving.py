"""A host that watches itself, and then is watched by another one, and back."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Watched, open_ports, until
from testinfra.host import Host

testinfra_hosts = ["ansible://watched"]

# The application has no part in it.
ONLY = ("--tags=monitoring",)


@pytest.fixture
def moved(control: Any) -> None:
    """It is watched by the other host."""
    run = control.run_playbook(
        limit="watched",
        variables={"monitoring_server": "watcher", "monitoring_webhook_url": ""},
        arguments=ONLY,
    )
    assert run.returncode == 0, run.output


@pytest.mark.usefixtures("moved")
def test_a_host_may_change_from_watching_itself(control: Any, host: Host) -> None:
    """What it did for itself stops; what it did before goes on when it comes back."""
    for name in ("prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter"):
        assert not host.service(name).is_running
        assert not host.service(name).is_enabled
    assert not host.file("/etc/monitoring/alertmanager.yml").exists
    assert "9443" in open_ports(host)
    back = control.run_playbook(limit="watched", arguments=ONLY)
    assert back.returncode == 0, back.output
    assert host.service("prometheus").is_running
    assert "9443" not in open_ports(host)
    until(lambda: Watched(host).value("min(up)"), lambda value: value == 1)
