"""Who asks the service whether it is well, and what it leaves alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Site


def test_timer_asks_and_finds_the_service_well(host: Host, as_root: Callable[[str], str]) -> None:
    assert host.service("toll-app-health.timer").is_enabled
    assert host.service("toll-app-health.timer").is_running
    as_root("systemctl start toll-app-health.service")
    assert "toll-app is healthy" in as_root("toll-app health")


def test_database_that_is_away_is_reported_and_nothing_restarts(
    database_url: str, site: Site, as_root: Callable[[str], str]
) -> None:
    """A restart would cost the requests that can still be answered, and bring no database back."""
    if not database_url:
        pytest.skip("this host's database is a file")
    master = as_root("systemctl show --property MainPID --value toll-app.service")
    since = as_root("date +'%Y-%m-%d %H:%M:%S'").strip()
    as_root("systemctl stop postgresql.service")
    try:
        # More looks than it takes for a restart.
        for _ in range(5):
            as_root("systemctl start toll-app-health.service")
        assert site.get("/healthz").status == 200
        assert site.get("/readyz").status == 503
    finally:
        as_root("systemctl start postgresql.service")
    site.wait_until_ready()
    time.sleep(1)
    as_root("systemctl start toll-app-health.service")
    assert as_root("systemctl show --property MainPID --value toll-app.service") == master
    told = as_root(f"journalctl --no-pager --output=cat -t toll-app-health --since '{since}'")
    lines = told.strip().splitlines()
    assert len(lines) == 2, told
    assert "is not ready: /readyz answered 503" in lines[0]
    assert "It is not restarted" in lines[0]
    assert "healthy again" in lines[1]
