"""The postgresql role's configuration, rendered, and read by PostgreSQL itself."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.wsgi.host.plugins.filter.scram import scram
from ansible_collections.wsgi.host.plugins.plugin_utils import databases
from ansible_collections.wsgi.host.plugins.plugin_utils.authority import (
    MEMBERS,
    authority,
    certificate,
    member_certificate,
)
from cryptography import x509

from .ports import free_port
from .preflight import Case, preflight
from .render import evaluate, render

SECRET, ADDRESS = "s" * 64, "192.0.2.31"
NOW = datetime.datetime.now(datetime.UTC)
CERTIFICATE, KEY = certificate(SECRET, ADDRESS, NOW)
# Where the client of these tests is taken to be.
CLIENT, STRANGER = "192.0.2.11", "192.0.2.99"


def application(name: str, *addresses: str) -> dict[str, Any]:
    verifier = scram(databases.password(SECRET, name), name)
    return {"name": name, "verifier": verifier, "addresses": list(addresses)}


# Every branch of the templates is taken by one of these.
VARIANTS: dict[str, dict[str, Any]] = {
    "nobody": {},
    "this-host": {"postgresql_applications": [application("shop", "127.0.0.1")]},
    "other-hosts": {
        "postgresql_applications": [
            application("shop", CLIENT, "2001:db8::12"),
            application("toll-app", CLIENT),
            application("far-away", STRANGER),
        ],
        "postgresql_certificate": CERTIFICATE,
        "postgresql_certificate_key": KEY,
        "postgresql_memory_mib": 1024,
        "postgresql_max_connections": 20,
        "postgresql_idle_transaction_seconds": 7,
        "postgresql_stop_timeout_seconds": 9,
    },
}
MEMBER, MEMBER_KEY = member_certificate(SECRET, ADDRESS, NOW)
VARIANTS["member"] = {
    **VARIANTS["other-hosts"],
    "postgresql_members": [
        {"name": f"db{number}", "address": f"192.0.2.3{number}"} for number in (1, 2, 3)
    ],
    "postgresql_member_name": "db1",
    "postgresql_member_certificate": MEMBER,
    "postgresql_member_certificate_key": MEMBER_KEY,
    "postgresql_member_authority": authority(SECRET, MEMBERS),
    "postgresql_authority": authority(SECRET),
    "postgresql_voters": [
        {"name": f"vote{number}", "address": f"192.0.2.4{number}"} for number in (1, 2, 3)
    ],
    "postgresql_replication_password": "copies-" + "c" * 36,
    "postgresql_rewind_password": "rewinds-" + "r" * 36,
}
TEMPLATES = (
    *("postgresql.conf", "pg_hba.conf", "pg_ident.conf", "applications.sql", "drop-in.conf"),
    *("createcluster.conf", "systemd/postgresql-applications.service"),
    "libexec/postgresql-metrics",
)


def configuration(family: str, variant: str, **overrides: Any) -> dict[str, str]:
    told = {**VARIANTS[variant], **overrides}
    return {name: render("postgresql", f"{name}.j2", family, **told) for name in TEMPLATES}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_port_is_opened_to_others_only_where_one_comes(variant: str) -> None:
    text = configuration("Debian", variant)["postgresql.conf"]
    listen = re.findall(r"^listen_addresses = '(.*)'$", text, re.MULTILINE)
    open_to_others = variant in ("other-hosts", "member")
    assert listen == ["*" if open_to_others else "127.0.0.1"]
    assert ("\nssl = on\n" in text) == open_to_others


def test_memory_follows_from_the_host() -> None:
    def shared(mib: int, **told: Any) -> int:
        facts = {"memory_mib": mib}
        found = evaluate("postgresql", "__postgresql_shared_mib", "Debian", wsgi_host=facts, **told)
        return int(found)

    assert shared(16000) == 3968
    # After an upgrade of the kernel, without a restart.
    assert shared(15997) == shared(16000)
    assert shared(16000, __postgresql_shares_host=True) == 1984
    assert shared(16000, postgresql_memory_mib=2048) == 512
    assert shared(200) == 64


@pytest.mark.parametrize(
    ("packages", "version"),
    [({}, "17"), ({"postgresql-15": "15.18", "postgresql-client-17": "17.5"}, "15")],
)
def test_a_version_that_has_data_stays(packages: dict[str, str], version: str) -> None:
    """A distribution that was upgraded would begin anew, with an empty cluster."""
    found = evaluate(
        "postgresql", "__postgresql_version", "Debian", wsgi_host={"packages": packages}
    )
    assert str(found) == version


# PostgreSQL itself --------------------------------------------------------------------------------


class Server:
    """PostgreSQL with the role's files, on the loopback."""

    def __init__(self, folder: Path, **told: Any) -> None:
        self.folder, self.port, self.told = folder, free_port(), told
        self.bin = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        # It refuses to run as root, so root starts it as Debian's user.
        self.user = "postgres" if os.geteuid() == 0 else None
        self.process: subprocess.Popen[bytes] | None = None

    def options(self) -> dict[str, Any]:
        groups: list[str] | None = [] if self.user else None
        return {
            "user": self.user,
            "group": self.user,
            "extra_groups": groups,
            "cwd": self.folder,
        }

    def run(self, *command: str | Path, given: str = "") -> str:
        done = subprocess.run(
            [str(each) for each in command],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            **self.options(),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def lay_out(self, **told: Any) -> dict[str, str]:
        texts = configuration(
            "Debian",
            "other-hosts",
            __postgresql_etc=str(self.folder),
            __postgresql_data=str(self.folder / "data"),
            __postgresql_sockets=str(self.folder),
            **{
                "__postgresql_port": self.port,
                "__postgresql_programs": str(self.bin),
                "postgresql_archive": False,
                **self.told,
                **told,
            },
        )
        # Whoever runs these tests is not called postgres, and comes from here.
        rules = re.sub("peer( map=.*)?", "trust", texts["pg_hba.conf"])
        rules = rules.replace(CLIENT, "127.0.0.1")
        conf = texts["postgresql.conf"].replace("= '*'", "= '127.0.0.1'")
        texts |= {"postgresql.conf": conf, "pg_hba.conf": rules}
        texts |= {"server.crt": CERTIFICATE, "server.key": KEY}
        for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf", "server.crt", "server.key"):
            path = self.folder / name
            path.write_text(texts[name])
            path.chmod(0o600)
            if self.user:
                shutil.chown(path, self.user, self.user)
        (self.folder / "authority.pem").write_text(authority(SECRET))
        return texts

    def start(self) -> None:
        if self.user:
            shutil.chown(self.folder, self.user, self.user)
        made = render("postgresql", "createcluster.conf.j2", "Debian")
        (initdb,) = re.findall(r"^initdb_options = '(.*)'$", made, re.MULTILINE)
        self.run(
            *(self.bin / "initdb", "--pgdata", self.folder / "data", "--username", "postgres"),
            *("--auth", "trust", "--no-sync", *initdb.split()),
        )
        settings = self.lay_out()
        self.launch(settings)
        self.apply(settings["applications.sql"])

    def launch(self, settings: dict[str, str]) -> None:
        """Run it with the files that are there."""
        drop_in = settings["drop-in.conf"]
        (command,) = re.findall(r"^ExecStart=\S+/postgres (.+)$", drop_in, re.MULTILINE)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.bin / "postgres", *command.split(), "-c", "fsync=off"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self.options(),
            )
        while self.process.poll() is None:
            try:
                self.run(self.bin / "pg_isready", "-q", "-h", self.folder, "-p", str(self.port))
                return
            except AssertionError:
                time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def restart(self) -> None:
        """As systemd does it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        self.launch(self.lay_out())

    def apply(self, text: str) -> None:
        unit = configuration("Debian", "other-hosts")["systemd/postgresql-applications.service"]
        (command,) = re.findall(r"^ExecStart=\S+/psql (.+)$", unit, re.MULTILINE)
        words = command.replace("/run/postgresql", str(self.folder)).replace("5432", str(self.port))
        self.run(self.bin / "psql", "--username=postgres", *words.split(), given=text)

    def ask(self, statement: str, database: str = "postgres") -> str:
        told = ("-h", self.folder, "-p", str(self.port), "-U", "postgres", "-d", database)
        return self.run(self.bin / "psql", "-XqAt", *told, given=statement).strip()

    def url(self, name: str = "shop", secret: str = SECRET, **options: str) -> str:
        """What the application is given, but that the address is here."""
        found = databases.url(secret, [ADDRESS], name)
        found = found.replace(databases.authority_file(name), str(self.folder / "authority.pem"))
        more = {"hostaddr": "127.0.0.1", "port": str(self.port), **options}
        return "&".join([found, *(f"{key}={value}" for key, value in more.items())])

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # A socket's path is at most 107 characters long, which pytest's directories may exceed.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        server = Server(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


def refusal(url: str) -> str:
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(url).close()
    return str(caught.value)


def test_an_application_gets_into_its_database_with_tls(server: Server) -> None:
    with psycopg.connect(server.url()) as connection:
        row = connection.execute(
            "SELECT current_database(), current_user, version FROM pg_stat_ssl"
            " WHERE pid = pg_backend_pid()"
        ).fetchone()
        assert row == ("shop", "shop", "TLSv1.3")
        connection.execute("CREATE TABLE things (id int)")
        connection.rollback()


def test_nobody_gets_in_without_tls(server: Server) -> None:
    url = server.url().replace("sslmode=verify-full", "sslmode=disable")
    assert re.search("no pg_hba.conf entry for host .*, no encryption", refusal(url))


def test_an_address_that_is_not_listed_is_refused(server: Server) -> None:
    said = refusal(server.url("far-away"))
    assert 'no pg_hba.conf entry for host "127.0.0.1", user "far-away"' in said


def test_a_wrong_password_is_refused(server: Server) -> None:
    assert "password authentication failed" in refusal(server.url(secret="t" * 64))


def test_a_server_of_another_authority_is_not_trusted(server: Server, tmp_path: Path) -> None:
    other = tmp_path / "authority.pem"
    other.write_text(authority("t" * 64))
    assert "certificate verify failed" in refusal(server.url(sslrootcert=str(other)))


def test_a_server_of_another_name_is_not_trusted(server: Server) -> None:
    said = refusal(server.url().replace(f"@{ADDRESS}/", "@192.0.2.32/"))
    assert f'server certificate for "{ADDRESS}"' in said
    assert "does not match" in said


def test_an_application_gets_into_no_other_database(server: Server) -> None:
    for other in ("toll-app", "postgres", "template1"):
        url = server.url().replace("/shop?", f"/{other}?")
        assert f'no pg_hba.conf entry for host "127.0.0.1", user "shop", database "{other}"' in (
            refusal(url)
        )
    # Whatever the rules of the door were.
    allowed = server.ask(
        "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database"
        " WHERE datallowconn AND has_database_privilege('shop', datname, 'CONNECT')"
    )
    assert allowed == "shop"
    assert server.ask(
        "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
        " FROM pg_roles WHERE rolname = 'shop'"
    ) == ("f")


def test_every_rule_and_setting_is_understood(server: Server) -> None:
    assert server.ask("SELECT line_number FROM pg_hba_file_rules WHERE error IS NOT NULL") == ""
    assert server.ask("SELECT name FROM pg_file_settings WHERE error IS NOT NULL") == ""
    wanted = {"data_checksums": "on", "shared_buffers": "256MB", "server_encoding": "UTF8"}
    assert {name: server.ask(f"SHOW {name}") for name in wanted} == wanted


def test_roles_and_databases_are_made_once_and_a_new_password_counts(server: Server) -> None:
    before = server.ask("SELECT oid FROM pg_database WHERE datname = 'shop'")
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    other = "t" * 64
    changed = application("shop", CLIENT) | {
        "verifier": scram(databases.password(other, "shop"), "shop")
    }
    text = server.lay_out(postgresql_applications=[changed])["applications.sql"]
    server.apply(text)
    assert server.ask("SELECT oid FROM pg_database WHERE datname = 'shop'") == before
    assert "password authentication failed" in refusal(server.url())
    with psycopg.connect(server.url(secret=other)) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
    server.apply(server.lay_out()["applications.sql"])


def test_what_is_wrong_is_said_without_the_verifier(server: Server) -> None:
    """psql and the server's log repeat a line that fails."""
    text = server.lay_out()["applications.sql"]
    verifier = scram(databases.password(SECRET, "shop"), "shop")
    assert verifier in text
    with pytest.raises(AssertionError) as caught:
        server.apply(text.replace("NOSUPERUSER", "NOSUCHTHING"))
    assert "NOSUCHTHING" in str(caught.value) or "nosuchthing" in str(caught.value)
    assert verifier not in str(caught.value)
    assert verifier not in (server.folder / "log").read_text()


# What is known of it ------------------------------------------------------------------------------


def numbers(server: Server, **told: Any) -> dict[str, str]:
    """What alerts know of it, as `postgresql-metrics` writes it."""
    program, file = server.folder / "postgresql-metrics", server.folder / "postgresql.prom"
    program.write_text(server.lay_out(**told)["libexec/postgresql-metrics"])
    server.run("/bin/sh", program, file)
    assert file.stat().st_mode & 0o777 == 0o644
    assert not list(server.folder.glob(".postgresql-*"))
    return dict(line.rsplit(" ", 1) for line in file.read_text().splitlines())


def test_what_alerts_rest_on_is_told(server: Server) -> None:
    before = numbers(server)
    assert before["postgresql_up"] == "1"
    assert before["postgresql_primary"] == "1"
    assert before["postgresql_connections_max"] == "17"
    assert before['postgresql_connections{database="shop"}'] == "0"
    assert int(before['postgresql_database_bytes{database="shop"}']) > 1000000
    assert before['postgresql_longest_transaction_seconds{database="shop"}'] == "0"
    ends = x509.load_pem_x509_certificate(CERTIFICATE.encode()).not_valid_after_utc.timestamp()
    assert (
        int(before['postgresql_certificate_expires_timestamp_seconds{certificate="server"}'])
        == ends
    )
    # Without an archive there is nothing to be known of one.
    assert "postgresql_archive_fails" not in before
    with psycopg.connect(server.url()) as connection, psycopg.connect(server.url()):
        connection.execute("SELECT 1")
        time.sleep(0.01)
        during = numbers(server)
    assert during['postgresql_connections{database="shop"}'] == "2"
    assert float(during['postgresql_longest_transaction_seconds{database="shop"}']) > 0


def name_who_confirms(server: Server, name: str) -> None:
    """Have commits wait for a replica, or for nobody."""
    server.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    server.ask("SELECT pg_reload_conf()")
    wanted = (
        f"SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND '{name}' <> ''"
    )
    while server.ask(wanted) != ("1" if name else "0"):
        time.sleep(0.05)


def test_who_is_the_primary_and_who_follows_it_is_told(server: Server) -> None:
    """By the primary and by a copy of it."""
    assert numbers(server)["postgresql_replicas"] == "0"
    rules = server.folder / "pg_hba.conf"
    rules.write_text(rules.read_text() + "local replication postgres trust\n")
    server.ask("SELECT pg_reload_conf()")
    copy, port = server.folder / "copy", free_port()
    at = ("-h", server.folder, "-p", str(server.port), "-U", "postgres")
    server.run(server.bin / "pg_basebackup", *at, "-D", copy, "-R", "-c", "fast", "--no-sync")
    settings = {
        "port": port,
        "listen_addresses": "",
        "unix_socket_directories": server.folder,
        "hba_file": rules,
        "cluster_name": "web2",
    }
    words = [f"--{name}={value}" for name, value in settings.items()]
    log = (server.folder / "copy.log").open("ab")
    with (
        log,
        subprocess.Popen(
            [server.bin / "postgres", "-D", copy, *words],
            stdout=log,
            stderr=log,
            **server.options(),
        ) as follower,
    ):
        try:
            streaming = "SELECT count(replay_lsn) FROM pg_stat_replication"
            while server.ask(streaming) != "1":
                assert follower.poll() is None, (server.folder / "copy.log").read_text()
                time.sleep(0.05)
            found = numbers(server)
            followed = numbers(server, __postgresql_port=port)
            name_who_confirms(server, "web2")
            confirmed = numbers(server)
        finally:
            name_who_confirms(server, "")
            follower.send_signal(signal.SIGINT)
    assert (found["postgresql_primary"], found["postgresql_replicas"]) == ("1", "1")
    assert int(found['postgresql_replica_behind_bytes{replica="web2"}']) >= 0
    told = [each["postgresql_replicas_synchronous"] for each in (found, confirmed)]
    assert told == ["0", "1"]
    assert followed["postgresql_primary"] == "0"
    assert "postgresql_replicas" not in followed


def test_who_reads_that_can_do_nothing_else(server: Server) -> None:
    """Only root of the host is let in as it, over the socket; nobody has a password for it."""
    assert server.ask(
        "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
        " OR rolpassword IS NOT NULL FROM pg_authid WHERE rolname = 'host_metrics'"
    ) == ("f")
    memberships = "SELECT string_agg(roleid::regrole::text, ' ') FROM pg_auth_members WHERE member"
    assert server.ask(f"{memberships} = 'host_metrics'::regrole") == "pg_monitor"
    assert server.ask(
        "SELECT string_agg(type || ' ' || array_to_string(database, ' ') || ' ' || auth_method,"
        " '; ') FROM pg_hba_file_rules WHERE 'host_metrics' = ANY (user_name)"
    ) == ("local postgres trust")  # peer on a host
    rules = configuration("Debian", "other-hosts")
    assert re.findall("host_metrics.*", rules["pg_hba.conf"]) == [
        "host_metrics  peer map=host_metrics"
    ]
    assert rules["pg_ident.conf"].splitlines()[-1].split() == [
        "host_metrics",
        "root",
        "host_metrics",
    ]


def test_a_server_that_is_full_is_not_called_down(server: Server) -> None:
    with contextlib.ExitStack() as crowd:
        refused = ""
        while not refused:
            try:
                crowd.enter_context(psycopg.connect(server.url()))
            except psycopg.OperationalError as error:
                refused = str(error)
        found = numbers(server)
    assert "connection slots" in refused
    assert found["postgresql_up"] == "1"
    assert found['postgresql_connections{database=""}'] == "20"
    assert found["postgresql_connections_max"] == "20"


def test_a_server_that_does_not_answer_is_told(server: Server) -> None:
    found = numbers(server, __postgresql_port=free_port(), postgresql_certificate="")
    assert found == {"postgresql_up": "0"}


# What is refused ----------------------------------------------------------------------------------

GOOD = VARIANTS["other-hosts"]
POOLER = {"program": "pgbouncer", "unit": "pgbouncer.service", "pid": 7}
BAD: dict[str, tuple[Case, str]] = {
    "another version of the system": (
        Case(GOOD, {"distribution_version": "11", "pretty_name": "Debian GNU/Linux 11"}),
        "the host's system is Debian GNU/Linux 11, and this role does not support its PostgreSQL: "
        "use one of debian 12, debian 13, ubuntu 22.04, ubuntu 24.04",
    ),
    "two versions": (
        Case(
            GOOD,
            {"packages": {"postgresql-15": "1", "postgresql-17": "1"}, "trees": ["postgresql"]},
        ),
        "the host has PostgreSQL 15 and 17, and only one version can be managed: move the data "
        "with",
    ),
    "one that somebody else has set up": (
        Case(GOOD, {"packages": {"postgresql-17": "1"}}),
        "postgresql_take_over (false) does not allow reconfiguring a PostgreSQL server that "
        "somebody else set up: postgresql-17",
    ),
    "a name twice": (
        Case({**GOOD, "postgresql_applications": [application("shop", CLIENT)] * 2}),
        "postgresql_applications has two entries with the same name, among shop, shop",
    ),
    "a name with a quotation mark": (
        Case({**GOOD, "postgresql_applications": [application('a"b', CLIENT)]}),
        "postgresql_applications has a name that does not consist of lower-case letters",
    ),
    "a name of PostgreSQL's": (
        Case({**GOOD, "postgresql_applications": [application("postgres", CLIENT)]}),
        "postgresql_applications has a name that PostgreSQL reserves for itself",
    ),
    "a password in place of its verifier": (
        Case(
            {
                **GOOD,
                "postgresql_applications": [{**application("shop", CLIENT), "verifier": "hunter2"}],
            }
        ),
        "postgresql_applications has a verifier that is not in the format of SCRAM-SHA-256: write "
        "it as {{ vault_password | wsgi.host.scram(name) }}",
    ),
    "no certificate": (
        Case({"postgresql_applications": [application("shop", CLIENT)]}),
        'postgresql_certificate ("") is empty, so 192.0.2.11 would connect without TLS',
    ),
    "no key": (
        Case({**GOOD, "postgresql_certificate_key": ""}),
        "postgresql_certificate_key and postgresql_certificate belong together",
    ),
    "the path of a certificate": (
        Case({**GOOD, "postgresql_certificate": "/etc/ssl/db1.crt"}),
        "is not in PEM format: write the content of the file",
    ),
    "a member of nothing": (
        Case({**VARIANTS["member"], "postgresql_member_name": "db7"}),
        'postgresql_member_name ("db7") is not in postgresql_members: db1, db2, db3: set it to',
    ),
    "one member": (
        Case({**VARIANTS["member"], "postgresql_members": [{"name": "db1", "address": ADDRESS}]}),
        "postgresql_members has only one entry, so nothing could take its place",
    ),
    "a member twice": (
        Case(
            {
                **VARIANTS["member"],
                "postgresql_members": [{"name": "db1", "address": ADDRESS}] * 2,
            }
        ),
        "postgresql_members has two entries with the same name, among db1, db1",
    ),
    "two voters": (
        Case(
            {**VARIANTS["member"], "postgresql_voters": VARIANTS["member"]["postgresql_voters"][:2]}
        ),
        "postgresql_voters has 2 entries; three survive the loss of one, and five the loss of two",
    ),
    "members that do not know one another": (
        Case({**VARIANTS["member"], "postgresql_member_authority": ""}),
        "postgresql_members needs certificates and keys in PEM format, and these are not: "
        "postgresql_member_authority: write",
    ),
    "members with a short password": (
        Case({**VARIANTS["member"], "postgresql_rewind_password": "hunter2"}),
        "postgresql_replication_password or postgresql_rewind_password is shorter than 32",
    ),
    "members on a system on which nobody has tried it": (
        Case(
            VARIANTS["member"],
            {
                "distribution": "ubuntu",
                "distribution_version": "24.04",
                "pretty_name": "Ubuntu 24.04 LTS",
            },
        ),
        "postgresql_members includes this host, which runs Ubuntu 24.04 LTS, and this role does "
        "not",
    ),
    "a time that Patroni could not keep": (
        Case({**VARIANTS["member"], "postgresql_failover_seconds": 5}),
        "postgresql_failover_seconds is 5",
    ),
    "somebody else's port of Patroni": (
        Case(
            VARIANTS["member"],
            {"listeners": [{"address": "0.0.0.0", "port": 8008, **POOLER}]},
        ),
        "8008",
    ),
    "somebody else's port": (
        Case(GOOD, {"listeners": [{"address": "127.0.0.1", "port": 5432, **POOLER}]}),
        "5432",
    ),
}


def test_what_cannot_work_is_said() -> None:
    said = preflight("postgresql", {name: case for name, (case, _) in BAD.items()})
    assert {name: BAD[name][1] for name in BAD if BAD[name][1] not in said[name]} == {}, said
    assert "hunter2" not in str(said)


def test_what_works_is_not_refused() -> None:
    cases = {name: Case(told) for name, told in VARIANTS.items()}
    there = {"packages": {"postgresql-17": "1"}}
    cases["taken over"] = Case({**GOOD, "postgresql_take_over": True}, there)
    cases["of an earlier run"] = Case(GOOD, {**there, "trees": ["postgresql"]})
    cases["of a run that was interrupted"] = Case(GOOD, {**there, "trees": ["postgresql-cluster"]})
    assert set(preflight("postgresql", cases).values()) == {""}
