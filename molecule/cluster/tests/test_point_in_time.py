"""All hosts of a cluster go back to a point in time, by the playbook."""

from __future__ import annotations

from typing import Any

PLAYBOOK = "../../playbooks/restore_database.yml"
# Nobody serves in this scenario, so there is nobody to stop and to start.
NOBODY: dict[str, Any] = {"__application_archived": [], "__application_archived_here": []}


def rows(cluster: Any, name: str) -> list[str]:
    return list(cluster.ask(name, "SELECT what FROM kept ORDER BY what").split())


def test_a_point_in_time_comes_back_on_all_of_them(cluster: Any) -> None:
    primary = cluster.well()["primary"]
    copy = next(name for name in cluster.names if name != primary)
    cluster.run(primary, "systemctl", "start", "postgresql-copy-full")
    cluster.ask(primary, "CREATE TABLE kept (what text); INSERT INTO kept VALUES ('before')")
    noted = cluster.ask(primary, "SELECT clock_timestamp()")
    cluster.ask(primary, "INSERT INTO kept VALUES ('after')")

    said = cluster.run(copy, "sh", "-c", f"postgresql-archive restore --to '{noted}' 2>&1 || :")
    assert f"Restore on {primary}. Nothing was changed." in said
    said = cluster.run(primary, "sh", "-c", f"postgresql-archive restore --to '{noted}' 2>&1 || :")
    assert "would go on with the present data" in said
    early = {**NOBODY, "application_restore_to": "2020-01-01 00:00:00Z"}
    done = cluster.control.run_playbook(PLAYBOOK, variables=early)
    assert "cannot be restored. The archive reaches from" in " ".join(done.output.split())
    assert rows(cluster, copy) == ["after", "before"]

    told = {**NOBODY, "application_restore_to": noted}
    done = cluster.control.run_playbook(PLAYBOOK, variables=told)
    assert done.returncode == 0, done.output
    state = cluster.well()
    assert [rows(cluster, name) for name in cluster.names] == [["before"]] * 3
    assert len({each["timeline"] for each in state["members"]}) == 1
    assert "main.replaced-" in cluster.run(primary, "sh", "-c", "ls /var/lib/postgresql/*/")
    cluster.run(primary, "systemctl", "start", "postgresql-archive")
    # As ever: what is acknowledged from now on survives the primary.
    with cluster.writing(copy, 4) as written:
        pass
    assert cluster.missing(written) == set()
