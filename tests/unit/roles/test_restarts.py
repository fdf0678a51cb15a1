"""What clients connect to is started again at once when it was killed."""

from __future__ import annotations

import re

import pytest
import yaml

from .render import ROLES

# systemd adds up to a quarter of a second by itself.
AT_ONCE_SECONDS = 0.05
UNITS = (
    "nginx/templates/systemd/nginx.service.d/10-role.conf.j2",
    "haproxy/templates/systemd/haproxy.service.d/10-role.conf.j2",
)


@pytest.mark.parametrize("path", UNITS)
def test_clients_are_refused_no_longer_than_a_start_takes(path: str) -> None:
    """Its sockets are closed until then."""
    (delay,) = re.findall(r"^RestartSec=(\S+)$", (ROLES / path).read_text(), re.MULTILINE)
    assert float(delay) <= AT_ONCE_SECONDS


def test_requests_wait_no_longer_than_a_start_takes() -> None:
    defaults = yaml.safe_load((ROLES / "gunicorn_systemd/defaults/main.yml").read_text())
    assert defaults["gunicorn_systemd_restart_delay_seconds"] <= AT_ONCE_SECONDS
