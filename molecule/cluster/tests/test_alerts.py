"""Faults of the cluster, and the alert of each, where Prometheus hears what its hosts say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EXPORTER = Path(__file__).with_name("exporter.py").read_text()
ASK = (
    "import urllib.request as r;"
    "print(r.urlopen('http://127.0.0.1:9090/api/v1/alerts').read().decode())"
)
UNIT = "postgresql@*"
# Those that do not hide one another, in two steps.
FIRST = {"ReplicaMissing", "ReplicaBehind", "VoterDown", "DatabaseDown"}
SECOND = {"VotersDisagree", "DatabaseHasNoPrimary"}
# More than ReplicaBehind allows.
MIB = 80
SECONDS = 120


def until(good: Callable[[], bool], what: Callable[[], Any]) -> None:
    end = time.monotonic() + SECONDS
    while not good():
        assert time.monotonic() < end, f"after {SECONDS} s: {what()}"
        time.sleep(1)


def test_faults_are_told_and_end(cluster: Any) -> None:
    """Its rules have tests in made-up time; here a host says what they rest on."""
    primary = cluster.well()["primary"]
    lost, behind = (name for name in cluster.names if name != primary)
    for name in cluster.names:
        cluster.run(name, "sh", "-c", "cat >/run/exporter.py", given=EXPORTER)
        cluster.run(name, "systemd-run", "--unit=exporter", "python3", "/run/exporter.py")
    done = cluster.control.run_playbook("watch.yml", limit=behind)
    assert done.returncode == 0, done.output

    def firing() -> set[str]:
        said = json.loads(cluster.run(behind, "python3", "-c", ASK))["data"]["alerts"]
        return {x["labels"]["alertname"] for x in said if x["state"] == "firing"}

    units = cluster.run(primary, "systemctl", "list-units", "--plain", "--no-legend", UNIT)
    unit = units.split()[0]
    try:
        cluster.run(lost, "systemctl", "stop", "etcd", unit)
        # It goes on receiving, and writes nothing of it into its data.
        cluster.run(behind, "pkill", "-STOP", "--full", "startup recovering")
        message = f"pg_logical_emit_message(false, '', repeat('x', {MIB} * 1024 * 1024))"
        cluster.ask(primary, f"SELECT {message}")
        until(lambda: firing() >= FIRST, firing)
        # The voters are no majority any more, so nobody takes the place of the primary.
        cluster.run(primary, "systemctl", "stop", "etcd", unit)
        until(lambda: firing() >= SECOND, firing)
    finally:
        cluster.run(behind, "pkill", "-CONT", "--full", "startup recovering", check=False)
        for name in (primary, lost):
            cluster.run(name, "systemctl", "start", "etcd")
        for name in (primary, lost):
            cluster.run(name, "systemctl", "start", unit)
    cluster.well()
    until(lambda: firing().isdisjoint(FIRST | SECOND), firing)
    for name in cluster.names:
        cluster.run(name, "systemctl", "stop", "exporter")
    cluster.run(behind, "systemctl", "stop", "prometheus")
