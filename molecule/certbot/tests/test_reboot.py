"""After the host has restarted: the timer waits, and the certificates are served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Web
from testinfra.host import Host


def test_a_reboot_keeps_the_renewal(
    host: Host,
    web: Web,
    variables: dict[str, Any],
    certificates: list[dict[str, Any]],
    reboot: Callable[[], None],
    as_root: Callable[[str], str],
) -> None:
    """/run is empty then, and the unit has to make what it needs of it."""
    if variables["certbot_install"] != "bundle":
        pytest.skip("one host per system is enough, the units are the same")
    domain = certificates[0]["domains"][0]
    before = web.certificate(domain)
    reboot()
    assert host.service("certbot.timer").is_running
    assert as_root("systemctl show certbot.timer -p NextElapseUSecRealtime --value").strip()
    assert web.certificate(domain) == before
    as_root("systemctl start certbot.service")
    assert as_root("systemctl --failed --plain --no-legend").strip() == ""
