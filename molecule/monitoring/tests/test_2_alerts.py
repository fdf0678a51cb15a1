"""Faults on a real host, and the alert of each at its receiver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import Watched, until

PATH = "/not-a-secret-5f1c"
TEXTFILES = "/var/lib/prometheus/node-exporter"
SITE = "/etc/ssl/sites/watched.toll.test"
FLASK = "/usr/local/sbin/toll-app-flask"
BROKEN = "/opt/toll-app/releases/0badbadbad00"

# Per alert: what breaks it, and what mends it.
FAULTS = {
    # The clock cannot be turned, so the record of the last good copy is.
    "BackupTooOld": (
        "systemctl start toll-app-backup.service && sed -i"
        """ '/last_success/,/}/s/"at": "20../"at": "2001/' /var/backups/toll-app/state.json"""
        " && grep -q 2001- /var/backups/toll-app/state.json",
        "systemctl start toll-app-backup.service",
    ),
    "BackupFailed": (
        f"mv {FLASK} /root/ && printf '#!/bin/sh\\nexit 1\\n' > {FLASK} && chmod 0755 {FLASK}"
        " && ! systemctl start toll-app-backup.service",
        f"mv /root/toll-app-flask {FLASK}",
    ),
    "UnitFailed": (
        "systemd-run --unit=breaks false",
        "systemctl reset-failed breaks.service",
    ),
    "UnitRestarts": (
        "systemd-run --unit=restless -p Restart=always -p RestartSec=1"
        " -p StartLimitIntervalSec=0 false",
        "systemctl stop restless.service; systemctl reset-failed restless.service || true",
    ),
    "DiskFull": (
        "mkdir -p /mnt/full && mount -t tmpfs -o size=1m tmpfs /mnt/full"
        " && head -c 1000000 /dev/zero > /mnt/full/file",
        "umount /mnt/full",
    ),
    "TargetDown": (
        "systemctl stop prometheus-nginx-exporter",
        "systemctl start prometheus-nginx-exporter",
    ),
    "CertificateExpiresSoon": (
        f"cp -L {SITE}/fullchain.pem {SITE}/privkey.pem /root/"
        f" && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 5"
        f" -subj /CN=watched.toll.test -out {SITE}/fullchain.pem -keyout {SITE}/privkey.pem"
        " && systemctl reload nginx",
        f"cp /root/fullchain.pem /root/privkey.pem {SITE}/ && systemctl reload nginx",
    ),
    # A release that cannot be imported.
    "DeployFailed": (
        f"cp -a $(readlink -f /opt/toll-app/current) {BROKEN}"
        f" && rm -r {BROKEN}/app/__pycache__ && echo 'raise SystemExit(1)' >> {BROKEN}/app/app.py"
        " && ! toll-app-handover 0badbadbad00 && systemctl start toll-app-metrics.service",
        f"rm -r {BROKEN} && toll-app-handover --restart"
        " && systemctl start toll-app-metrics.service",
    ),
    "MetricsStale": (
        "systemctl stop toll-app-metrics.timer"
        f" && touch -d '20 minutes ago' {TEXTFILES}/toll-app.prom",
        "systemctl start toll-app-metrics.timer toll-app-metrics.service",
    ),
}
OUTAGE = {"SiteDown", "UnitNotRunning", "ErrorBudgetBurnsFast", "ErrorBudgetBurnsSlowly"}


@pytest.fixture(scope="module")
def broken(watched: Watched, receiver: None) -> Iterator[None]:
    """All of them at once: each is waited for in turn."""
    for breaks, _ in FAULTS.values():
        watched.run(breaks)
    yield
    for _, mends in reversed(FAULTS.values()):
        watched.run(mends)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("alert", FAULTS)
def test_a_fault_is_told(watched: Watched, alert: str) -> None:
    until(watched.received, lambda told: (PATH, "firing", alert) in told)


@pytest.mark.usefixtures("broken")
def test_a_receiver_that_refuses_is_told_about(watched: Watched) -> None:
    """The receiver answers 400 to BackupFailed."""
    until(watched.received, lambda told: (PATH, "firing", "NotificationsFail") in told)


def test_an_outage_is_told_and_ends(watched: Watched, receiver: None) -> None:
    """With the windows of production: the budget burns fast, so it is known within seconds."""
    watched.run("systemctl stop toll-app.socket toll-app.service")
    try:
        until(watched.firing, lambda firing: OUTAGE <= firing)
        until(watched.received, lambda told: (PATH, "firing", "SiteDown") in told)
    finally:
        watched.run("systemctl start toll-app.socket toll-app.service")
    until(watched.firing, lambda firing: not {"SiteDown", "UnitNotRunning"} & firing)
