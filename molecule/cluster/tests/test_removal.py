"""A database leaves for good, the primary at that, and with it a voter."""

from __future__ import annotations

from typing import Any

PLAYBOOK = "../../playbooks/remove_database.yml"
CLUSTER = "/usr/local/sbin/postgresql-cluster"
GOES = "db3"
STAYS = ("db1", "db2")


def well(cluster: Any) -> dict[str, Any]:
    cluster.run("db1", CLUSTER, "well", "--seconds=60", f"--without={GOES}")
    found: dict[str, Any] = cluster.state("db1")
    return found


def test_a_host_that_the_others_need_stays(cluster: Any) -> None:
    cluster.well()
    last = cluster.control.run_playbook(PLAYBOOK, limit="db2,db3")
    said = " ".join(last.output.split())
    assert "Without db2 and db3, the group databases has db1 alone, and nobody would" in said
    even = cluster.control.run_playbook(PLAYBOOK, limit=GOES)
    said = " ".join(even.output.split())
    assert "Without db3, db1 and db2 would vote on the primary, and it has to be an odd" in said
    assert (last.changed, even.changed) == (0, 0)
    assert cluster.well()
    # The program says the same to who does not come by the playbook.
    refused = cluster.run("db1", "sh", "-c", f"{CLUSTER} dismiss {GOES} 2>&1", check=False)
    assert "Without db3, db1 and db2 would vote" in refused


def test_a_primary_that_leaves_loses_nothing(cluster: Any, voters: tuple[str, ...]) -> None:
    done = cluster.control.run_playbook("converge.yml", arguments=voters)
    assert done.returncode == 0, done.output
    if cluster.well()["primary"] != GOES:
        cluster.run("db1", CLUSTER, "switchover", GOES)
    preview = cluster.control.run_playbook(PLAYBOOK, check=True, limit=GOES, arguments=voters)
    assert preview.returncode == 0, preview.output
    assert cluster.well()["primary"] == GOES
    with cluster.writing("db1", 25) as written:
        done = cluster.control.run_playbook(PLAYBOOK, limit=GOES, arguments=voters)
    assert done.returncode == 0, done.output
    print(f"left: {written.pause:.1f} s without a write")
    state = well(cluster)
    assert state["primary"] in STAYS
    # Patroni remembers one that has stopped for some seconds.
    there = {each["name"] for each in state["members"] if each["state"] != "stopped"}
    assert there == set(STAYS)
    assert state["voters"] == dict.fromkeys([*STAYS, "vote"], True)
    rows = {int(x) for x in cluster.ask(state["primary"], "SELECT n FROM written").split()}
    assert {number for number, _ in written.acknowledged} - rows == set()
    # Not only away: without it, one of the others may be lost.
    assert "does not vote." in cluster.run("db1", CLUSTER, "dismiss", GOES)


def test_what_has_left_stays_away(cluster: Any, voters: tuple[str, ...]) -> None:
    """Its data are there for somebody who is not sure yet; nothing starts with them."""
    cluster.testhosts.reboot(cluster.container(GOES))
    running = ("pgrep", "--full", "bin/postgres|patroni|bin/etcd")
    assert cluster.run(GOES, *running, check=False) == ""
    assert cluster.run(GOES, "sh", "-c", "ls /var/lib/postgresql/*/main/PG_VERSION")
    gone = "ls /var/lib/etcd/default /etc/etcd/member.key"
    assert cluster.run(GOES, "sh", "-c", gone, check=False) == ""
    again = cluster.control.run_playbook(PLAYBOOK, limit=GOES, arguments=voters)
    assert (again.returncode, again.changed) == (0, 0), again.output
    assert well(cluster)["primary"] in STAYS


def test_a_host_that_has_left_may_come_back(cluster: Any, voters: tuple[str, ...]) -> None:
    done = cluster.control.run_playbook("converge.yml", arguments=voters)
    assert done.returncode == 0, done.output
    state = cluster.well()
    assert {each["name"] for each in state["members"]} == {*STAYS, GOES}
