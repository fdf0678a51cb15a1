"""Faults of balancers and of the database, and the alert of each where they are watched from."""

from __future__ import annotations

from collections.abc import Callable

from conftest import Watched, alerts, until
from testinfra.host import Host

testinfra_hosts = ["ansible://watcher"]

# What breaks a fleet, and what mends it.
FLAG = "/etc/nginx/drained.on"
SITES = "/etc/haproxy/haproxy.cfg"
SERVER = "/etc/postgresql-server/server.crt"
UNIT = "postgresql@$(ls /usr/lib/postgresql)-main"
PSQL = "runuser -u postgres -- psql -qc"
ADMIN = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock');"
    "s.sendall(sys.argv[1].encode() + bytes([10])); print(s.recv(9999).decode())"
)
FAULTS = {
    # A second host, that is not there.
    "BalancerHasOneHost": (
        "keeper",
        f"cp -p {SITES} /root/ && sed -i '/^backend toll-app-member:https$/,/^$/"
        r"s/^ *server member [^ ]*\(.*\)/    server gone 127.0.0.9:10443\1\n&/'"
        f" {SITES} && systemctl reload haproxy",
        f"cp -p /root/haproxy.cfg {SITES} && systemctl reload haproxy",
    ),
    "ArchiveFails": (
        "keeper",
        f"{PSQL} 'ALTER SYSTEM SET archive_mode = on'"
        f" && {PSQL} \"ALTER SYSTEM SET archive_command = 'false'\" && systemctl restart {UNIT}"
        f" && {PSQL} 'CREATE TABLE t ()' && {PSQL} 'DROP TABLE t; SELECT pg_switch_wal()'",
        f"{PSQL} 'ALTER SYSTEM RESET ALL' && systemctl restart {UNIT}",
    ),
    # Of 60, three are for superusers, and on a busy machine the application has ten: one is left
    # for who measures.
    "DatabaseConnections": (
        "keeper",
        "systemd-run --unit=crowd -p User=postgres sh -c"
        " 'for n in $(seq 46); do psql -qc \"SELECT pg_sleep(900)\" & done; wait'",
        "systemctl stop crowd || true",
    ),
    "TransactionTooLong": ("keeper", "systemctl is-active crowd", "true"),
    # As many as are in use by who asks.
    "BalancerFull": (
        "keeper",
        f'python3 -c "{ADMIN}" "set maxconn global 1"',
        "systemctl restart haproxy",
    ),
    "HostDrained": (
        "member",
        f"touch -d '5 hours ago' {FLAG} && systemctl start toll-app-metrics",
        f"rm {FLAG} && systemctl start toll-app-metrics",
    ),
    "BalancerHasNoHost": ("member", f"test -e {FLAG}", "true"),
    "BalancerDown": ("keeper", "systemctl stop haproxy", "systemctl start haproxy"),
    "DatabaseDown": ("keeper", f"systemctl stop {UNIT}", f"systemctl start {UNIT}"),
    # The last to be broken and the first to be mended: PostgreSQL would not start with it.
    "DatabaseCertificateExpiresSoon": (
        "keeper",
        f"cp -p {SERVER} /root/ && openssl req -x509 -newkey rsa:2048 -noenc -days 5 -subj /CN=x"
        f" -keyout /dev/null -out {SERVER}",
        f"cp -p /root/server.crt {SERVER}",
    ),
}
# Those that do not hide one another, in the order in which all others are still there.
STAGES = (
    ("BalancerHasOneHost", "ArchiveFails", "DatabaseConnections", "TransactionTooLong"),
    ("BalancerFull", "HostDrained", "BalancerHasNoHost"),
    ("BalancerDown", "DatabaseDown", "DatabaseCertificateExpiresSoon"),
)


def test_faults_of_a_fleet_are_told_and_end(watched: Watched, other: Callable[[str], Host]) -> None:
    def run(name: str, command: str) -> None:
        done = other(name).run(command)
        assert done.rc == 0, f"{command}: {done.stderr or done.stdout}"

    def firing() -> set[str]:
        """Without the half minute until the timers measure again.

        And without what is told of the host `watched`, which other tests break and hand over to
        this one's Prometheus at the same time.
        """
        run("keeper", "systemctl start haproxy-metrics postgresql-metrics")
        return {name for name, instance in alerts(watched) if "watched" not in instance}

    assert {alert for stage in STAGES for alert in stage} == set(FAULTS)
    mends = []
    try:
        for stage in STAGES:
            for name, breaks, mend in map(FAULTS.__getitem__, stage):
                mends.append((name, mend))
                run(name, breaks)
            until(firing, lambda told, stage=stage: told >= {*stage})
    finally:
        for name, mend in reversed(mends):
            run(name, mend)
    # What other tests break at the same time is theirs to wait for.
    until(firing, FAULTS.keys().isdisjoint)
