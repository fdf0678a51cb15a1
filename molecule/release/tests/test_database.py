"""The database of a fleet: who gets in, and who does not.

That a second run changes nothing there is looked at in test_balancer.py, for all of the fleet.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from bench import Host, host_variables, playbook
from shared import Member, inventory, lost_nothing, sql

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "OPERATIONS.md"
PROBE = Path(__file__).with_name("knocking.py")
CONNECT = """
import json, os, sys
import psycopg
said = []
for url in json.load(sys.stdin):
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            said.append(connection.execute("SELECT current_user").fetchone()[0])
    except psycopg.OperationalError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def knock(host: Host, server: Host, database: str = "toll-app", *, tls: bool) -> str:
    """What PostgreSQL says to a client before it asks for a password; empty where it asks."""
    given = {"host": server.address, "user": "toll-app", "database": database, "tls": tls}
    host.root("cat >/run/knocking.py", given=PROBE.read_text())
    return str(json.loads(host.root("python3 /run/knocking.py", given=json.dumps(given))))


def connect(member: Member, *urls: str) -> list[str]:
    """Who the application is on the database, by each URL, or why it is nobody."""
    member.root("cat >/run/connecting.py", given=CONNECT)
    said = member.root(
        "/opt/toll-app/current/bin/python /run/connecting.py", given=json.dumps(urls)
    )
    return list(json.loads(said))


@pytest.fixture(scope="module")
def stranger(request: pytest.FixtureRequest, testhosts: Any, fleet: list[Member]) -> Host:
    """A host of the same network that serves nothing."""
    told = Path(request.config.getoption("ansible_inventory"))
    variables = {**host_variables(told, "balancer"), "toll": fleet[0].variables["toll"]}
    return Host("balancer", variables, testhosts)


def test_only_hosts_that_serve_get_in_and_with_tls_alone(
    fleet: list[Member], stranger: Host
) -> None:
    server, second = fleet
    assert knock(second, server, tls=True) == ""
    assert "no encryption" in knock(second, server, tls=False)
    assert "no pg_hba.conf entry for host" in knock(second, server, "postgres", tls=True)
    said = knock(stranger, server, tls=True)
    assert f'no pg_hba.conf entry for host "{stranger.address}", user "toll-app"' in said


def test_an_application_knows_its_database_and_it_the_application(fleet: list[Member]) -> None:
    server, second = fleet
    urls = [each.root("cat /etc/toll-app/credentials/database_url") for each in fleet]
    assert urls[0] == urls[1]
    url = urls[0]
    assert "sslmode=verify-full" in url
    password = url.split(":")[2].split("@")[0]
    said = connect(
        second,
        url,
        url.replace(password, password[::-1]),
        # By the authorities of the system nobody knows it.
        url.replace("/etc/toll-app/database-authority.pem", "system"),
        url.replace(f"@{server.address}/", "@localhost/") + f"&hostaddr={server.address}",
    )
    assert said[0] == "toll-app"
    assert "password authentication failed" in said[1]
    assert "certificate verify failed" in said[2]
    assert 'does not match host name "localhost"' in said[3]
    for each in fleet:
        assert password not in each.root("journalctl --no-pager --output=cat")
    assert password not in server.root("cat /etc/postgresql-server/*")


def test_debians_programs_find_the_cluster(fleet: list[Member]) -> None:
    """One server, of one directory of data, by one unit, whoever starts it."""
    server = fleet[0]
    before = server.root("pg_lsclusters --no-header").split()
    assert before[1:4] == ["main", "5432", "online"]
    name = f"postgresql@{before[0]}-main.service"
    server.root(f"pg_ctlcluster {before[0]} main reload && systemctl is-active {name}")
    assert server.root(f"pg_ctlcluster {before[0]} main start", check=False) == ""
    running = server.root("pgrep --exact --parent 1 --count postgres").split()
    assert running == ["1"]
    assert sql(server, "SHOW config_file") == "/etc/postgresql-server/postgresql.conf"
    assert sql(server, "SHOW data_checksums") == "on"
    assert sql(server, "SELECT error FROM pg_hba_file_rules WHERE error IS NOT NULL") == ""


def archive(server: Host, *words: str, check: bool = True) -> str:
    """What the archive's program says."""
    return server.root(f"postgresql-archive {' '.join(words)} 2>&1", check=check)


def test_what_was_deleted_comes_back(fleet: list[Member]) -> None:
    """Rows written before a time are there again, and those written after it are not."""
    server, second = fleet
    # site.yml has begun the first copy.
    server.root("systemctl start postgresql-copy-full postgresql-archive")
    assert "The archive reaches from" in archive(server)
    with second.under_load(steady=1.0) as kept:
        pass
    noted = sql(server, "SELECT clock_timestamp()")
    with second.under_load(steady=1.0) as lost:
        pass
    sql(server, "DELETE FROM passages")

    early = playbook(inventory(), "restore_database", application_restore_to="2020-01-01 00:00:00Z")
    done = early.wait()
    assert done.returncode != 0, done.output
    assert "cannot be restored. The archive reaches from" in " ".join(done.output.split())
    masters = [member.state()["units"]["toll-app.service"]["MainPID"] for member in fleet]
    looked = playbook(inventory(), "restore_database", "--check", application_restore_to=noted)
    done = looked.wait()
    assert done.returncode == 0, done.output
    assert "Everything written since" in done.output
    assert [m.state()["units"]["toll-app.service"]["MainPID"] for m in fleet] == masters

    done = playbook(inventory(), "restore_database", application_restore_to=noted).wait()
    assert done.returncode == 0, done.output
    plates = sql(server, "SELECT plate FROM passages").splitlines()
    assert {record.plate for record in kept.records if record.acknowledged} <= set(plates)
    assert {record.plate for record in lost.records if record.acknowledged}.isdisjoint(plates)
    for member in fleet:
        member.settle()
        with member.under_load(steady=1.0) as load:
            pass
        lost_nothing(load)
    shown = playbook(inventory(), "status").wait()
    assert "The archive reaches from" in shown.output
    assert "Last archived: " in shown.output
    server.root("systemctl start postgresql-archive")
    assert server.root("systemctl list-units --failed --plain --no-legend 'postgresql*'") == ""
    assert "replaced-" in server.root("ls /var/lib/postgresql/*/")


def test_commands_of_the_guide_work_as_typed(fleet: list[Member]) -> None:
    """Those for the database's host, in the section on copies that fail."""
    section = GUIDE.read_text().split("\n## The backup fails\n", 1)[1].split("\n## ")[0]
    lines = re.findall(r"^\w[^\n]*postgresql[^\n]*$", section, re.MULTILINE)
    commands = [line.partition(" #")[0] for line in lines if not line.startswith("|")]
    assert len(commands) == 3, commands
    for command in commands:
        # `journalctl --grep` that finds nothing may say so by its exit code.
        said = fleet[0].root(f"({command}) 2>&1 || test $? -eq 1")
        for wrong in ("unrecognized", "invalid option", "Unknown command"):
            assert wrong not in said


def test_the_archive_is_for_nobody_else(fleet: list[Member]) -> None:
    server = fleet[0]
    passphrase = server.root("sed -n 's/^repo1-cipher-pass=//p' /etc/pgbackrest/pgbackrest.conf")
    assert len(passphrase.strip()) == 64
    assert passphrase.strip() not in server.root("journalctl --no-pager --output=cat")
    assert server.root("stat -c '%A %U %G' /etc/pgbackrest/pgbackrest.conf").split() == [
        *("-rw-r-----", "root", "postgres")
    ]
    mode = server.root("stat -c %A /var/lib/pgbackrest").strip()
    assert mode == "drwxr-x---"
    assert "active" in server.root("systemctl is-active postgresql-copy-full.timer")


def test_the_host_of_the_database_is_not_rebooted_by_the_way(fleet: list[Member]) -> None:
    """Behind balancers a reboot costs clients nothing; this one would turn all of them away."""
    server = fleet[0]
    done = playbook(inventory(), "reboot", f"--limit={server.name}").wait()
    assert done.returncode != 0, done.output
    assert done.changed == 0, done.output
    said = " ".join(done.output.split())
    assert f"{server.name} has the database of all hosts" in said
    assert "add -e application_drain_last=yes. It was not touched." in said
