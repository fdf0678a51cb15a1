"""Faults on a real host, and the alert of each at its receiver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import LOOKING_BACK, Watched, until

testinfra_hosts = ["ansible://watched"]

PATH = "/not-a-secret-5f1c"
TEXTFILES = "/var/lib/application-metrics"
REHEARSED = f"{TEXTFILES}/certificates-rehearsal.prom"
LONG_AGO = "certificate_rehearsal_timestamp_seconds 1"
SITE = "/etc/ssl/sites/watched.toll.test"
WATCHED = "/etc/certificates/watch.json"
# What openssl needs to issue a certificate that is old already: soon is a share of its lifetime.
AUTHORITY = (
    r"[ca]\ndefault_ca=c\n[c]\ndatabase=index\nserial=serial\nnew_certs_dir=.\n"
    r"default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
)
# Another fault of a certificate may still be there: the last to be mended asks for success.
UNWATCH = f"cp /root/watch.json {WATCHED}; systemctl start certificates-watch.service || true"
COPIES = "/etc/toll-app/backup.json"
BROKEN = "/opt/toll-app/releases/0badbadbad00"
# Seconds between two messages about alerts of one name (group_interval).
INTERVAL = 300

# Holds the database's one writer up while passages are sent: most for a while, the last ones for
# longer than the application waits, so that they fail. The first failures of all are in no rate:
# Prometheus sees a series rise only after it was there.
BUSY = """
import json, sqlite3, sys, threading, time, urllib.error, urllib.request, uuid
body = json.dumps({"plaza": "harbour-bridge", "lane": "3", "class": "car", "plate": "AB-12-CD",
    "passed_at": "2026-05-04T07:15:00Z", "payment_method": "tag"}).encode()
def send():
    headers = {"Authorization": "Bearer " + sys.argv[1], "Content-Type": "application/json",
        "Idempotency-Key": str(uuid.uuid4())}
    url = "http://127.0.0.1:5000/api/v1/passages"
    try:
        status = urllib.request.urlopen(urllib.request.Request(url, body, headers)).status
    except urllib.error.HTTPError as error:
        status = error.code
    print(status, flush=True)
for seconds in [1.6] * 10 + [17] * 3:
    database = sqlite3.connect("/var/lib/toll-app/toll.db", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    senders = [threading.Thread(target=send) for _ in range(8)]
    for each in senders:
        each.start()
    time.sleep(seconds)
    database.execute("ROLLBACK")
    for each in senders:
        each.join()
"""
# Per alert: what breaks it, and what mends it.
FAULTS = {
    "SlowAnswers": (
        f"cat > /run/busy.py <<'END'\n{BUSY}\nEND\n"
        "key=$(toll-app flask toll key create busy --role recorder | grep -o 'toll_[[:alnum:]_-]*')"
        " && systemd-run --unit=busy -p User=toll-app python3 /run/busy.py $key",
        "systemctl stop busy.service || true",
    ),
    # A log that grows, up to more than half.
    "DiskFillsUp": (
        "mkdir -p /mnt/fills && mount -t tmpfs -o size=20m tmpfs /mnt/fills && systemd-run"
        " --unit=fills sh -c 'for n in $(seq 60); do head -c 200000 /dev/zero >>/mnt/fills/log;"
        " sleep 1; done'",
        "systemctl stop fills.service || true; umount /mnt/fills",
    ),
    # The clock cannot be turned, so the record of the last good copy is.
    "BackupTooOld": (
        "systemctl start toll-app-backup.service && sed -i"
        """ '/last_success/,/}/s/"at": "20../"at": "2001/' /var/backups/toll-app/state.json"""
        " && grep -q 2001- /var/backups/toll-app/state.json",
        "systemctl start toll-app-backup.service",
    ),
    # The copy is good, and what takes it elsewhere fails.
    "BackupFailed": (
        f"cp -p {COPIES} /root/"
        f""" && sed -i 's|"command": .*|"command": ["/bin/false"],|' {COPIES}"""
        " && ! systemctl start toll-app-backup.service",
        f"mv /root/backup.json {COPIES}",
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
        f"cp -L {SITE}/fullchain.pem {SITE}/privkey.pem /root/ && mkdir -p /root/ca && cd /root/ca"
        f" && printf '{AUTHORITY}' > ca.cnf && : > index && echo 01 > serial"
        " && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        f" -subj /CN=watched.toll.test -keyout {SITE}/privkey.pem -out request"
        f" && openssl ca -batch -selfsign -config ca.cnf -keyfile {SITE}/privkey.pem -in request"
        f" -notext -out {SITE}/fullchain.pem"
        " -startdate $(date -u -d '85 days ago' +%Y%m%d%H%M%SZ)"
        " -enddate $(date -u -d '5 days' +%Y%m%d%H%M%SZ)"
        " && systemctl reload nginx",
        f"cp /root/fullchain.pem /root/privkey.pem {SITE}/ && systemctl reload nginx"
        " && systemctl start certificates-watch.service",
    ),
    # The clock cannot be turned, so the share of the lifetime is.
    "CertificateNotRenewed": (
        f'cp -n {WATCHED} /root/watch.json && sed -i \'s/"percent": .*/"percent": 100,/\' {WATCHED}'
        " && ! systemctl start certificates-watch.service",
        UNWATCH,
    ),
    # A name that no site has: the web server refuses it.
    "CertificateWrong": (
        f"cp -n {WATCHED} /root/watch.json"
        f' && sed -i \'0,/"domains": \\[/s//&"gone.toll.test", /\' {WATCHED}'
        " && ! systemctl start certificates-watch.service",
        UNWATCH,
    ),
    # Settings that certbot cannot read.
    "RenewalWouldFail": (
        "mkdir -p /etc/letsencrypt/renewal && touch /etc/letsencrypt/renewal/broken.conf"
        " && ! systemctl start certificates-rehearsal.service",
        "rm /etc/letsencrypt/renewal/broken.conf && systemctl start certificates-rehearsal.service",
    ),
    # A rehearsal of long ago, whose timer is weekly: nothing writes it anew meanwhile.
    "CertificatesUnwatched": (
        f"cp -p {REHEARSED} /root/"
        f" && sed -i 's/^certificate_rehearsal_timestamp_seconds .*/{LONG_AGO}/' {REHEARSED}"
        f" && grep -qx '{LONG_AGO}' {REHEARSED}",
        f"mv /root/$(basename {REHEARSED}) {REHEARSED}",
    ),
    # A release that cannot be imported.
    "DeployFailed": (
        f"cp -a $(readlink -f /opt/toll-app/current) {BROKEN}"
        f" && rm -r {BROKEN}/app/__pycache__ && echo 'raise SystemExit(1)' >> {BROKEN}/app/app.py"
        " && ! toll-app handover 0badbadbad00 && systemctl start toll-app-metrics.service",
        f"rm -r {BROKEN} && toll-app handover --restart"
        " && systemctl start toll-app-metrics.service",
    ),
    "InMaintenance": (
        "toll-app maintenance on && systemctl start toll-app-metrics.service",
        "toll-app maintenance off && systemctl start toll-app-metrics.service",
    ),
    "MetricsStale": (
        "systemctl stop toll-app-metrics.timer"
        f" && touch -d '20 minutes ago' {TEXTFILES}/toll-app.prom",
        "systemctl start toll-app-metrics.timer toll-app-metrics.service",
    ),
}
OUTAGE = {"SiteDown", "UnitNotRunning", "ErrorBudgetBurnsFast", "ErrorBudgetBurnsSlowly"}


@pytest.fixture(scope="module")
def broken(watched: Watched, receiver: None) -> Iterator[Callable[[], None]]:
    """All of them at once: each is waited for in turn. Gives what mends them, once."""
    for breaks, _ in FAULTS.values():
        watched.run(breaks)
    left = [mends for _, mends in FAULTS.values()]

    def mend() -> None:
        while left:
            watched.run(left.pop())

    yield mend
    mend()


@pytest.fixture(scope="module")
def mended(broken: Callable[[], None]) -> None:
    """The faults are there no more."""
    broken()


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("alert", FAULTS)
def test_a_fault_is_told(watched: Watched, alert: str) -> None:
    """The second of its kind comes with the next message about them: Alertmanager's interval."""
    told = (PATH, "firing", alert)
    until(watched.received, lambda received: told in received, seconds=INTERVAL + 60)


@pytest.mark.usefixtures("broken")
def test_requests_that_fail_burn_the_budget(watched: Watched) -> None:
    """Of a site whose probes are all well: the application refuses what it cannot write."""
    query = 'ALERTS{alertname="ErrorBudgetBurnsFast",measure="requests",alertstate="firing"}'
    until(lambda: watched.value(query), lambda value: value == 1)
    assert watched.value('ALERTS{alertname="SiteDown"}') is None


def test_an_interpreter_that_is_gone_is_told(watched: Watched, receiver: None) -> None:
    """While all goes well: what runs has what it needs, and could not start again."""
    python = "/opt/toll-app/current/bin/python"
    real = watched.run(f"readlink {python}").strip()
    count = "systemctl start toll-app-metrics.service"
    watched.run(f"ln -sfn /usr/bin/python3.0 {python} && {count}")
    try:
        until(watched.received, lambda told: (PATH, "firing", "InterpreterMissing") in told)
    finally:
        watched.run(f"ln -sfn {real} {python} && {count}")
    until(watched.firing, lambda firing: "InterpreterMissing" not in firing)


@pytest.mark.usefixtures("broken")
def test_a_process_killed_for_want_of_memory_is_told(
    watched: Watched,
    testhosts: Any,
    container: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel counts for the whole machine, so it may happen beside the host."""
    # The engine leaves a note of it where it was started.
    monkeypatch.chdir(tmp_path)
    done = testhosts.engine.podman(
        *("run", "--rm", "--network=none", "--memory=64m", container["image"]),
        *("python3", "-c", "x = b'x' * 2**28"),
        check=False,
    )
    assert done.returncode == 137, done.stderr
    until(watched.received, lambda told: (PATH, "firing", "OutOfMemory") in told)


@pytest.mark.usefixtures("broken")
def test_a_receiver_that_refuses_is_told_about(watched: Watched) -> None:
    """The receiver answers 400 to BackupFailed."""
    # It is told once: on a busy machine of an alert that came before the receiver was there.
    until(
        lambda: (watched.received(), watched.firing()),
        lambda seen: (
            (PATH, "firing", "NotificationsFail") in seen[0] or "NotificationsFail" in seen[1]
        ),
    )


@pytest.mark.usefixtures("broken")
def test_an_outage_is_told_and_ends(watched: Watched, receiver: None) -> None:
    """With the windows of production: the budget burns fast, so it is known within seconds."""
    watched.run("systemctl stop toll-app.socket toll-app.service")
    try:
        until(watched.firing, lambda firing: OUTAGE <= firing)
        until(watched.received, lambda told: (PATH, "firing", "SiteDown") in told)
    finally:
        watched.run("systemctl start toll-app.socket toll-app.service")
    until(watched.firing, lambda firing: not {"SiteDown", "UnitNotRunning"} & firing)


@pytest.mark.usefixtures("mended")
def test_what_was_mended_is_silent(watched: Watched) -> None:
    """An alert that does not end is one that nobody reads any more."""
    until(watched.firing, lambda firing: firing <= LOOKING_BACK)
