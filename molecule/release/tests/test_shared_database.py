"""Two hosts behind one name, with one database: a fleet as it stands behind a load balancer."""

from __future__ import annotations

import secrets

import variants
from balanced import Balanced, run
from bench import FLASK, FOLDER, RATE, described, playbook
from shared import Member, inventory, lost_nothing, sql


def schema(member: Member) -> str:
    """What the database's schema is, as a host sees it."""
    return member.root(f"{FLASK} toll schema")


def test_hosts_of_a_fleet_share_users_keys_and_data(fleet: list[Member]) -> None:
    first, second = fleet
    key = first.key()
    second._key = key
    with second.under_load(steady=1.0) as load:
        pass
    lost_nothing(load)
    assert len([record for record in load.records if record.acknowledged]) > 5


def test_a_release_with_a_migration_reaches_all_and_migrates_once(balanced: Balanced) -> None:
    """Both hosts and the balancer take requests all the while, of which none fails."""
    fleet = balanced.members
    before = [schema(member) for member in fleet]
    mark = f"fleet-{secrets.token_hex(3)}"
    source = variants.make(FOLDER / "shared" / "sources", mark, migration=variants.Migration())
    given = described(source=str(source))
    # Together no more than one address may ask of a host (nginx_limit_rate).
    with (
        fleet[0].under_load(rate=RATE / 2) as first,
        fleet[1].under_load(rate=RATE / 2) as second,
        balanced.under_load(rate=RATE / 2) as through,
    ):
        done = run("deploy", **given)
    assert done.returncode == 0, done.output
    lost_nothing(first, second, through)
    for load in (first, second, through):
        assert mark in load.answered_by
    # On a busy machine a check may just have been late.
    balanced.wait_until_up()
    states = [member.settle() for member in fleet]
    # Its ids differ with the Python that it was built for.
    assert len({each["records"][each["current"]]["content"] for each in states}) == 1
    after = [schema(member) for member in fleet]
    assert before[0] == before[1] != after[0] == after[1]
    copies = [member.root("ls /var/lib/toll-app/backups 2>/dev/null || true") for member in fleet]
    assert ".dump" in copies[0]
    assert ".dump" not in copies[1], "two hosts have migrated one database"
    again = run("deploy", **given)
    assert again.returncode == 0, again.output
    assert again.changed == 0, again.output


def test_a_copy_replaces_the_data_of_the_whole_fleet(fleet: list[Member]) -> None:
    """No host serves while it does, and all serve it afterwards."""
    first, second = fleet
    key = second._key = first.key()
    with first.under_load(steady=1.0) as kept:
        pass
    copied = playbook(inventory(), "backup").wait()
    assert copied.returncode == 0, copied.output
    with second.under_load(steady=1.0) as lost:
        pass
    masters = [member.state()["units"]["toll-app.service"]["MainPID"] for member in fleet]
    done = playbook(inventory(), "restore", application_restore="latest").wait()
    assert done.returncode == 0, done.output
    now = [member.settle()["units"]["toll-app.service"]["MainPID"] for member in fleet]
    assert set(now).isdisjoint(masters)
    plates = sql(first.server, "SELECT plate FROM passages").splitlines()
    assert {record.plate for record in kept.records if record.acknowledged} <= set(plates)
    assert {record.plate for record in lost.records if record.acknowledged}.isdisjoint(plates)
    assert first.key() == key
    with first.under_load(steady=1.0) as here, second.under_load(steady=1.0) as there:
        pass
    lost_nothing(here, there)


def test_a_part_of_a_fleet_gets_no_copy(fleet: list[Member]) -> None:
    """The hosts that are left out would go on writing."""
    masters = [member.state()["units"]["toll-app.service"]["MainPID"] for member in fleet]
    done = playbook(
        inventory(), "restore", f"--limit={fleet[1].name}", application_restore="latest"
    ).wait()
    assert done.returncode != 0, done.output
    assert "--limit" in done.output
    now = [member.state()["units"]["toll-app.service"]["MainPID"] for member in fleet]
    assert now == masters
