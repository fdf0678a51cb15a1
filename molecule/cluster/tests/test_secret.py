"""Another secret: voters, databases and clients have another authority and other passwords.

The last of the scenario, after test_removal.py, whose voters it finds.
"""

from __future__ import annotations

from typing import Any

SECRET = "another-one-of-a-test-that-keeps-nothing"


def processes(cluster: Any) -> dict[str, str]:
    """The main process of each member's unit; systemd ends one that it does not hear."""
    shown = ("systemctl", "show", "--property=MainPID", "postgresql@*")
    return {name: cluster.run(name, *shown) for name in cluster.names}


def test_another_secret_takes_one_run(cluster: Any, voters: tuple[str, ...]) -> None:
    """etcd reads its authority only when it starts, and waits for others that trust it."""
    cluster.well()
    before = processes(cluster)
    cluster.secret = SECRET
    secret = {"application_database_secret": SECRET}
    done = cluster.control.run_playbook("converge.yml", variables=secret, arguments=voters)
    assert done.returncode == 0, done.output
    assert processes(cluster) == before
    state = cluster.well()
    assert state["voters"] == dict.fromkeys(("db1", "db2", "vote"), True)
    # What copies the primary logs in anew, and who writes as well.
    primary = state["primary"]
    cluster.ask(primary, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
    cluster.well()
    for pooled in (False, True):
        with cluster.writing(primary, 4, pooled) as written:
            pass
        assert cluster.missing(written) == set()
