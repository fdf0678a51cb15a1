"""A primary is lost under a client that writes: nothing acknowledged is missing."""

from __future__ import annotations

import time
from typing import Any

# `postgresql_failover_seconds`, and as much again twice: a busy machine takes its time.
SECONDS = 3 * 8


def others(cluster: Any, primary: str) -> list[str]:
    return [name for name in cluster.names if name != primary]


def test_one_is_the_primary_and_another_has_all_that_was_acknowledged(cluster: Any) -> None:
    state = cluster.well()
    roles = sorted(each["role"] for each in state["members"])
    assert roles == ["leader", "replica", "sync_standby"]
    assert state["voters"] == dict.fromkeys(cluster.names, True)
    assert cluster.ask(state["primary"], "SHOW data_checksums") == "on"


def pooler_hosts(cluster: Any) -> list[str]:
    """The hosts on which somebody listens for clients that share connections."""
    asks = ("ss", "--no-header", "--listening", "--numeric", "--tcp", "sport = :6432")
    return [name for name in cluster.names if cluster.run(name, *asks)]


def test_connections_are_shared_where_the_primary_is(cluster: Any) -> None:
    """Elsewhere a client would be kept by a database that takes no writes."""
    primary = cluster.well()["primary"]
    assert pooler_hosts(cluster) == [primary]
    # Its console is for root alone, by the socket, and it is nobody's user but its own.
    console = "psql -XAt -h /run/pgbouncer -p 6432 -d pgbouncer -c 'SHOW DATABASES'"
    assert "shop|/run/postgresql|5432|shop" in cluster.run(
        primary, "sh", "-c", f"{console} -U root"
    )
    for user in ("postgres", "pgbouncer"):
        asks = ("runuser", "-u", "postgres", "--", "sh", "-c", f"{console} -U {user}")
        assert "shop" not in cluster.run(primary, *asks, check=False)
    assert cluster.run(primary, "pgrep", "-u", "postgresql-pooler", "-x", "pgbouncer")


def leads(cluster: Any, name: str) -> bool:
    """Whether the voter of a host leads the others."""
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:2381/metrics').read().decode())"
    return "\netcd_server_is_leader 1\n" in cluster.run(name, "python3", "-c", ask)


def test_the_voter_of_the_primary_hands_over_that_it_leads(cluster: Any) -> None:
    """Lost with both, the voters would find a leader first, and the lease would begin anew."""
    primary = cluster.well()["primary"]
    address = cluster.control.variable("ansible_host", primary)
    (leader,) = (name for name in cluster.names if leads(cluster, name))
    files = "/etc/etcd"
    keys = (
        f"--cacert={files}/authority.pem",
        f"--cert={files}/member.crt",
        f"--key={files}/member.key",
    )
    endpoint = f"--endpoints=https://{cluster.control.variable('ansible_host', leader)}:2379"
    listed = cluster.run(leader, "etcdctl", *keys, endpoint, "member", "list")
    (own,) = (line.split(", ")[0] for line in listed.splitlines() if f"//{address}:2379" in line)
    if leader != primary:
        cluster.run(leader, "etcdctl", *keys, endpoint, "move-leader", own)
    end = time.monotonic() + 60
    while leads(cluster, primary):
        assert time.monotonic() < end, "it still leads"
        time.sleep(1)
    assert sum(leads(cluster, name) for name in cluster.names) == 1


def test_what_is_said_between_hosts_is_encrypted_and_known(cluster: Any) -> None:
    primary = cluster.well()["primary"]
    copies = "SELECT count(*) FROM pg_stat_replication JOIN pg_stat_ssl USING (pid)"
    assert cluster.ask(primary, f"{copies} WHERE ssl AND usename = 'cluster_replication'") == "2"
    address = cluster.control.variable("ansible_host", primary)
    ca = "/etc/postgresql-server/member-authority.pem"
    ask = f"""
import ssl, urllib.request, urllib.error
known = ssl.create_default_context(cafile="{ca}")
def said(url, **more):
    try:
        return urllib.request.urlopen(urllib.request.Request(url, **more), context=known).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error).__name__
patroni = "https://{address}:8008"
print(said(patroni + "/metrics"), said("https://127.0.0.1:8008/metrics"),
      said(patroni + "/restart", data=b"{{}}", method="POST"),
      said("https://{address}:2379/health"), said("http://127.0.0.1:2381/metrics"))
"""
    told = cluster.run(primary, "python3", "-", given=ask).split()
    assert told[:3] == ["200", "200", "403"]
    # etcd hangs up on who has no certificate.
    assert not told[3].isdigit()
    assert told[4] == "200"


def test_a_second_server_is_not_started_on_the_same_data(cluster: Any) -> None:
    name = others(cluster, cluster.well()["primary"])[0]
    version = cluster.ask(name, "SHOW server_version_num")[:2]
    cluster.run(name, "pg_ctlcluster", version, "main", "start", check=False)
    by_hand = f"pg_ctlcluster --skip-systemctl-redirect {version} main start"
    cluster.run(name, "runuser", "-u", "postgres", "--", "sh", "-c", by_hand, check=False)
    servers = cluster.run(name, "pgrep", "--count", "--full", "bin/postgres -D")
    assert servers == "1"
    assert cluster.well()


def test_a_power_cut_of_the_primary_loses_nothing(cluster: Any) -> None:
    primary = cluster.well()["primary"]
    client = others(cluster, primary)[0]
    with (
        cluster.writing(client, SECONDS) as written,
        cluster.writing(client, SECONDS, True) as pooled,
    ):
        cluster.testhosts.cut_off(cluster.container(primary))
    after = cluster.state(others(cluster, primary)[0])["primary"]
    cluster.testhosts.start(cluster.container(primary))
    print(f"power cut: {written.pause:.1f} s, {pooled.pause:.1f} s through the pooler")
    assert after not in ("", primary)
    assert max(written.pause, pooled.pause) < SECONDS
    state = cluster.well()
    assert state["primary"] != primary
    assert cluster.missing(written) | cluster.missing(pooled) == set()
    assert {each["timeline"] for each in state["members"]} == {state["members"][0]["timeline"]}


def test_a_primary_that_crashes_hands_over(cluster: Any) -> None:
    """What ended it, as a full disk, may do so each time that it starts."""
    primary = cluster.well()["primary"]
    with cluster.writing(others(cluster, primary)[0], 15) as written:
        cluster.run(
            primary, "sh", "-c", "kill -KILL $(head -n 1 /var/lib/postgresql/*/main/postmaster.pid)"
        )
    print(f"crash: {written.pause:.1f} s")
    assert cluster.missing(written) == set()
    assert cluster.well()["primary"] != primary


def test_without_the_replica_that_acknowledges_another_one_does(cluster: Any) -> None:
    """Commits wait for it until it is taken for lost; none of them is."""
    state = cluster.well()
    primary = state["primary"]
    roles = {each["role"]: each["name"] for each in state["members"]}
    lost, other = roles["sync_standby"], roles["replica"]
    with cluster.writing(other, SECONDS) as written:
        cluster.testhosts.cut_off(cluster.container(lost))
    print(f"without a replica: {written.pause:.1f} s")
    assert written.pause < SECONDS
    after = {each["name"]: each["role"] for each in cluster.state(other)["members"]}
    assert after[other] == "sync_standby"
    cluster.testhosts.start(cluster.container(lost))
    assert cluster.missing(written) == set()
    assert cluster.well()["primary"] == primary


def test_a_primary_that_hangs_is_ended_and_loses_nothing(cluster: Any) -> None:
    """Patroni and PostgreSQL stop in the middle, and systemd does not.

    Its watchdog ends them before the lease does, so on a quick host the same one may go on.
    """
    primary = cluster.well()["primary"]
    version = cluster.ask(primary, "SHOW server_version_num")[:2]
    unit = f"postgresql@{version}-main.service"
    count = ("systemctl", "show", "--property=NRestarts", "--value", unit)
    before = int(cluster.run(primary, *count))
    client = others(cluster, primary)[0]
    with (
        cluster.writing(client, SECONDS) as written,
        cluster.writing(client, SECONDS, True) as pooled,
    ):
        # Not what follows the primary for the pooler, and not the pooler.
        cluster.run(primary, "pkill", "-STOP", "--full", "postgresql-member|postgres(ql.*/bin|:)")
    print(f"stopped: {written.pause:.1f} s, {pooled.pause:.1f} s through the pooler")
    assert max(written.pause, pooled.pause) < SECONDS
    assert cluster.missing(written) | cluster.missing(pooled) == set()
    state = cluster.well()
    assert int(cluster.run(primary, *count)) > before
    assert len({each["timeline"] for each in state["members"]}) == 1


def test_a_host_that_stood_still_acknowledges_nothing_when_it_goes_on(cluster: Any) -> None:
    """Not even systemd could notice: what holds is that nobody confirms its commits."""
    primary = cluster.well()["primary"]
    client = others(cluster, primary)[0]
    with cluster.writing(client, SECONDS) as written:
        cluster.testhosts.engine.podman("pause", cluster.container(primary))
        while cluster.state(client)["primary"] in ("", primary):
            time.sleep(0.2)
        cluster.testhosts.engine.podman("unpause", cluster.container(primary))
    assert cluster.missing(written) == set()
    assert cluster.well()["primary"] != primary


def test_the_primary_is_moved_to_who_is_named(cluster: Any) -> None:
    primary = cluster.well()["primary"]
    state = cluster.state()
    last = next(each["name"] for each in state["members"] if each["role"] == "replica")
    client = others(cluster, primary)[0]
    with cluster.writing(client, 12) as written, cluster.writing(client, 12, True) as pooled:
        done = cluster.control.run_playbook(
            "../../playbooks/switchover.yml", variables={"application_primary": last}
        )
    assert done.returncode == 0, done.output
    assert f"{last} is the primary now, and {primary} copies it." in done.output
    print(f"moved: {written.pause:.1f} s, {pooled.pause:.1f} s through the pooler")
    assert cluster.missing(written) | cluster.missing(pooled) == set()
    assert cluster.well()["primary"] == last
    # Nobody is kept by the pooler of one that takes no writes.
    assert pooler_hosts(cluster) == [last]
    again = cluster.control.run_playbook(
        "../../playbooks/switchover.yml", variables={"application_primary": last}
    )
    assert again.changed == 0
