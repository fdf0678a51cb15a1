"""Two hosts behind one name, with one database: a fleet as it stands behind a load balancer."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pytest
import variants
from bench import (
    FLASK,
    FOLDER,
    Host,
    Load,
    described,
    host_variables,
    playbook,
    write_inventory,
)

# The first has the database too. Its pg_dump must not be older than the server.
NAMES = ("debian12", "debian13")
DOMAIN = "fleet.release.test"
STORED = """
SELECT json_object_agg(plate, times) FROM (
  SELECT plate, count(*) AS times FROM passages WHERE plate LIKE '{run}_____' GROUP BY plate
) AS found
"""


class Member(Host):
    """A host of the fleet: what it stores is in the database of `server`."""

    server: Host

    def onhost(self, command: str, **options: Any) -> Any:
        if command != "stored":
            return super().onhost(command, **options)
        found = sql(self.server, STORED.format(run=options["run"]))
        return {"plates": json.loads(found or "null") or {}, "sound": "ok"}


def sql(server: Host, *statements: str, database: str = "toll") -> str:
    """What PostgreSQL's own user is answered."""
    given = ";\n".join(statements)
    return server.root(
        f"runuser -u postgres -- psql -qAt -v ON_ERROR_STOP=1 -d {database}", given=given
    ).strip()


def install(server: Host, password: str) -> None:
    """PostgreSQL as Debian has it, open to the network of the hosts."""
    server.root(
        "apt-get -qq update"
        " && LC_ALL=C.UTF-8 apt-get -qq install --no-install-recommends postgresql"
    )
    sql(
        server,
        "DROP DATABASE IF EXISTS toll WITH (FORCE)",
        "DROP ROLE IF EXISTS toll",
        f"CREATE ROLE toll LOGIN PASSWORD '{password}'",
        "CREATE DATABASE toll OWNER toll",
        "ALTER SYSTEM SET listen_addresses = '*'",
        database="postgres",
    )
    rules = sql(server, "SHOW hba_file")
    line = "host toll toll samenet scram-sha-256"
    server.root(f"grep -qxF '{line}' {rules} || echo '{line}' >>{rules}")
    server.root("systemctl restart postgresql")


@pytest.fixture(scope="module")
def fleet(control: Any, testhosts: Any) -> list[Member]:
    """The hosts, provisioned by `site.yml` for one domain and one database."""
    given = {name: host_variables(control.inventory, name) for name in NAMES}
    server = Host(NAMES[0], given[NAMES[0]], testhosts)
    password = secrets.token_hex(16)
    install(server, password)
    shared = {
        "toll": {
            "role": "toll_app",
            "domains": [DOMAIN],
            "secrets": {"secret_key": secrets.token_hex(32)},
            "data": {"database_url": f"postgresql://toll:{password}@{server.address}/toll"},
        }
    }
    members = [Member(name, {**given[name], **shared}, testhosts) for name in NAMES]
    for member in members:
        member.server = server
    write_inventory(inventory(), {member.name: member.variables for member in members})
    # Other tests have left passages in each host's own database, which nobody wants.
    done = playbook(inventory(), "site", application_abandon=["database"]).wait()
    assert done.returncode == 0, done.output
    return members


def inventory() -> Path:
    """Where the fleet's inventory is."""
    return FOLDER / "shared" / "hosts.yml"


def schema(member: Member) -> str:
    """What the database's schema is, as a host sees it."""
    return member.root(f"{FLASK} toll schema")


def lost_nothing(*loads: Load) -> None:
    """Each request of each load was answered, and what was acknowledged is there once."""
    for load in loads:
        assert [record.error for record in load.records if record.error] == []
        assert load.reconciliation.right, load.reconciliation


def test_hosts_of_a_fleet_share_users_keys_and_data(fleet: list[Member]) -> None:
    first, second = fleet
    key = first.key()
    second._key = key
    with second.under_load(steady=1.0) as load:
        pass
    lost_nothing(load)
    assert len([record for record in load.records if record.acknowledged]) > 5


def test_a_release_with_a_migration_reaches_all_and_migrates_once(fleet: list[Member]) -> None:
    """Both hosts take requests all the while, of which none fails."""
    before = [schema(member) for member in fleet]
    mark = f"fleet-{secrets.token_hex(3)}"
    source = variants.make(FOLDER / "shared" / "sources", mark, migration=variants.Migration())
    with fleet[0].under_load() as first, fleet[1].under_load() as second:
        given = described(source=str(source))
        done = playbook(inventory(), "deploy", application_serial=1, **given).wait()
    assert done.returncode == 0, done.output
    lost_nothing(first, second)
    assert mark in first.answered_by
    assert mark in second.answered_by
    states = [member.settle() for member in fleet]
    # Its ids differ with the Python that it was built for.
    assert len({each["records"][each["current"]]["content"] for each in states}) == 1
    after = [schema(member) for member in fleet]
    assert before[0] == before[1] != after[0] == after[1]
    copies = [member.root("ls /var/lib/toll-app/backups 2>/dev/null || true") for member in fleet]
    assert ".dump" in copies[0]
    assert ".dump" not in copies[1], "two hosts have migrated one database"
    again = playbook(inventory(), "deploy", **given).wait()
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
