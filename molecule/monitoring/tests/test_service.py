"""A host that is well: everything is watched, nothing is open, nothing is told that is secret."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from conftest import LOOKING_BACK, Watched, open_ports, until

testinfra_hosts = ["ansible://watched"]

SERVICES = (
    "prometheus",
    "prometheus-alertmanager",
    "prometheus-node-exporter",
    "prometheus-blackbox-exporter",
    "prometheus-nginx-exporter",
)
SECRET = "not-a-secret-5f1c"


def test_each_source_is_reached(watched: Watched) -> None:
    found = until(
        lambda: {
            target["labels"]["job"]: target["health"]
            for target in watched.ask("targets")["activeTargets"]
        },
        lambda health: set(health.values()) == {"up"},
    )
    assert set(found) == {"alertmanager", "app", "blackbox", "nginx", "node", "probe", "prometheus"}


@pytest.mark.parametrize(
    "query",
    [
        'probe_success{instance="https://watched.toll.test/readyz"} == 1',
        "(probe_ssl_earliest_cert_expiry - time()) / 86400 > 1",
        "nginx_up == 1",
        "app_memory_bytes > 1e7",
        "rate(app_cpu_seconds_total[3m]) >= 0",
        "app_workers >= 2",
        "app_deploy_last_failed == 0",
        "time() - app_release_activated_timestamp_seconds < 86400",
        'app_release_info * on (release) group_right toll_info{job="app"}',
        'node_systemd_unit_state{name="toll-app.service",state="active"} == 1',
        'node_systemd_service_restart_total{name="nginx.service"} >= 0',
        'app:failures:ratio_rate5m{measure="requests"} == 0',
        "app:availability:ratio1d > 0.5",
        "app:duration_seconds:p99 > 0",
    ],
)
def test_what_the_rules_rest_on_is_there(watched: Watched, query: str) -> None:
    """A rule over a metric of another name is silent for ever."""
    watched.wait_for(query)


def test_a_copy_of_the_data_is_seen(watched: Watched) -> None:
    """Its age, as the program that makes it tells it."""
    watched.run("systemctl start toll-app-backup.service")
    query = "time() - app_backup_last_success_timestamp_seconds < 3600"
    watched.wait_for(query)
    assert watched.value("app_backup_last_run_failed") == 0
    assert (watched.value("app_backup_size_bytes") or 0) > 1000


def test_a_host_that_is_well_calls_nobody(watched: Watched) -> None:
    # A busy machine may have kept an exporter from answering in time, and nobody takes alerts yet.
    until(lambda: watched.firing() - LOOKING_BACK, lambda firing: not firing)


def test_nothing_is_open(watched: Watched) -> None:
    """Prometheus has no log-in, and what it knows is worth knowing."""
    # The last two are for the balancer.
    assert open_ports(watched.host) == {"22", "80", "443", "10080", "10443"}


def test_the_receiver_is_known_to_root_alone(watched: Watched) -> None:
    assert SECRET in watched.run("cat /etc/monitoring/alertmanager.yml")
    denied = watched.host.run("runuser -u prometheus -- cat /etc/monitoring/alertmanager.yml")
    assert "Permission denied" in denied.stderr
    assert SECRET not in watched.run("ps axww; systemctl show 'prometheus*'")
    if "version 0.25" in watched.run("prometheus-alertmanager --version 2>&1"):
        pytest.xfail("Alertmanager 0.25 (Debian 12) logs the address of a receiver that is away")
    assert SECRET not in watched.run("journalctl --no-pager -u 'prometheus*'")


@pytest.mark.parametrize("service", SERVICES)
def test_the_sandbox_is_in_force(watched: Watched, service: str) -> None:
    """systemd leaves a directive out that the kernel cannot do, and starts the service."""
    pid = watched.run(f"systemctl show --property MainPID --value {service}").strip()
    status = watched.run(f"cat /proc/{pid}/status")
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    assert not re.search(r"^Uid:\s+0", status, re.MULTILINE)
    exposure = watched.run(f"systemd-analyze security --no-pager {service}").splitlines()[-1]
    assert float(exposure.split(":")[1].split()[0]) < 2


def test_the_user_of_prometheus_cannot_lead_root_astray(watched: Watched) -> None:
    """Whoever breaks into Prometheus owns its directory, and must not own the host by that."""
    target = "/etc/toll-app-astray"
    place = "/var/lib/prometheus/node-exporter"
    watched.run(f"install -d -m 0700 {target} && touch -d @0 {target}")
    before = watched.run(f"stat -c '%a %U %Y' {target}")
    as_prometheus = "setpriv --reuid=prometheus --regid=prometheus --clear-groups --"
    watched.run(f"{as_prometheus} sh -c 'mv {place} {place}.away; ln -s {target} {place}'")
    try:
        watched.run("systemctl start toll-app-metrics.service toll-app-backup.service")
        assert watched.run(f"ls -A {target}") == ""
        assert watched.run(f"stat -c '%a %U %Y' {target}") == before
    finally:
        watched.run(f"rm {place}; mv {place}.away {place}; rmdir {target}")


def test_probes_that_go_well_are_not_in_the_journal(watched: Watched) -> None:
    watched.wait_for("probe_success == 1")
    quiet = "journalctl --quiet --no-pager --unit=prometheus-blackbox-exporter --since=-20s"
    assert [line for line in watched.run(quiet).splitlines() if "level=INFO" in line] == []


def test_limits_of_what_is_kept_are_set(watched: Watched) -> None:
    flags = watched.ask("status/flags")
    assert flags["storage.tsdb.retention.time"] in ("90d", "12w6d")
    assert flags["storage.tsdb.retention.size"] in ("2GB", "2GiB", "2048MB")


def test_everything_comes_back_after_a_reboot(watched: Watched, reboot: Callable[[], None]) -> None:
    reboot()
    until(
        lambda: {name: watched.host.service(name).is_running for name in SERVICES},
        lambda running: all(running.values()),
    )
    until(lambda: watched.value("min(up)"), lambda value: value == 1)
    assert watched.host.service("toll-app-metrics.timer").is_running
