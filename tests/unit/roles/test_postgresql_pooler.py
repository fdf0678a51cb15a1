"""PgBouncer with the role's configuration, in front of PostgreSQL with the role's, both real."""

from __future__ import annotations

import contextlib
import getpass
import http.server
import importlib
import json
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
import yaml
from ansible_collections.wsgi.host.plugins.plugin_utils import databases
from ansible_collections.wsgi.host.plugins.plugin_utils.authority import (
    MEMBERS,
    authority,
    member_certificate,
)
from conftest import PROJECT
from flask import Flask

from .ports import free_port
from .preflight import Case, preflight
from .render import ROLES, evaluate, render
from .test_postgresql import (
    CLIENT,
    KEY,
    NOW,
    POOLER,
    SECRET,
    VARIANTS,
    Server,
    configuration,
    refusal,
)
from .unpacking import find_program

ON = {"postgresql_pooler": True, "postgresql_pooler_connections": 5}
NAMES = ("pgbouncer.ini", "pooler.ini", "pooler_hba.conf", "pooler_users.txt", "pgbouncer.service")
WAIT_SECONDS = 2
# What PgBouncer says where no rule is met: 1.18, of its console, and 1.24.
NO_RULE = "login rejected|not allowed|no authentication method is found"


def texts(variant: str, **told: Any) -> dict[str, str]:
    """The files of the role that are PgBouncer's."""
    told = {**VARIANTS[variant], **ON, **told}
    return {name: render("postgresql", f"pooler/{name}.j2", "Debian", **told) for name in NAMES}


class Pooler:
    """PgBouncer with the role's files, on the loopback."""

    def __init__(self, server: Server, **told: Any) -> None:
        self.server, self.port, self.told = server, free_port(), told
        self.folder = server.folder / f"pooler-{self.port}"
        self.program = find_program("pgbouncer")
        # What a role's file has for a distribution goes by this machine's.
        version = subprocess.run(
            [self.program.path, "--version"],
            env=self.program.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        self.version = tuple(map(int, re.findall(r"(\d+)[.](\d+)", version)[0]))
        self.process: subprocess.Popen[bytes] | None = None

    def lay_out(self, **told: Any) -> None:
        self.folder.mkdir(exist_ok=True)
        found = texts(
            "other-hosts",
            **{
                "postgresql_pooler_port": self.port,
                "postgresql_pooler_wait_seconds": WAIT_SECONDS,
                "__postgresql_pooler_prepares": self.version >= (1, 21),
                "__postgresql_pooler_sockets": str(self.folder),
                "__postgresql_etc": str(self.folder),
                "__postgresql_sockets": str(self.server.folder),
                "__postgresql_port": self.server.port,
                **self.told,
                **told,
            },
        )
        # Who runs these tests need not be root.
        for name in ("pooler.ini", "pooler_hba.conf", "pooler_users.txt"):
            found[name] = re.sub(r"\broot\b", getpass.getuser(), found[name])
        # The client of these tests comes from here.
        found["pooler_hba.conf"] = found["pooler_hba.conf"].replace(CLIENT, "127.0.0.1")
        found["pgbouncer.ini"] = found["pgbouncer.ini"].replace("addr = *", "addr = 127.0.0.1")
        found["server.crt"] = (self.server.folder / "server.crt").read_text()
        found["pooler.key"] = KEY
        for name, text in found.items():
            (self.folder / name).write_text(text)
        for path in (self.folder, *self.folder.iterdir()):
            if self.server.user:
                shutil.chown(path, self.server.user, self.server.user)

    def start(self) -> None:
        self.lay_out()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program.path, self.folder / "pgbouncer.ini"],
                stdout=log,
                stderr=log,
                env=self.program.environment,
                **self.server.options(),
            )
        end = time.monotonic() + 60
        while not (self.folder / f".s.PGSQL.{self.port}").exists():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def reload(self, **told: Any) -> None:
        assert self.process is not None
        self.lay_out(**told)
        self.process.send_signal(signal.SIGHUP)

    def console(self, statement: str, user: str = "") -> list[dict[str, str]]:
        """What the console says to who runs these tests. Raises AssertionError where nothing."""
        words = ("-X", "-A", "-F", "|", "-h", self.folder, "-p", str(self.port))
        told = ("-U", user or getpass.getuser(), "-d", "pgbouncer", "-P", "footer=off")
        done = subprocess.run(
            [self.server.bin / "psql", *words, *told],
            input=statement,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = done.stdout
        names, *rows = (line.split("|") for line in said.splitlines())
        return [dict(zip(names, row, strict=True)) for row in rows]

    def url(self, name: str = "shop", **options: str) -> str:
        return self.server.url(name, port=str(self.port), **options)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="pooler-") as folder:
        server = Server(Path(folder), **ON, postgresql_max_connections=60)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="module")
def pooler(server: Server) -> Iterator[Pooler]:
    pooler = Pooler(server)
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.stop()


def backends(server: Server) -> int:
    return int(
        server.ask(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = 'shop' AND backend_type = 'client backend'"
        )
    )


def test_sixty_clients_share_five_connections(server: Server, pooler: Pooler) -> None:
    """PostgreSQL itself would refuse the last of them."""
    clients = 60
    served: list[int] = []
    most = 0
    with contextlib.ExitStack() as crowd:
        open_now = [
            crowd.enter_context(psycopg.connect(pooler.url(), prepare_threshold=None))
            for _ in range(clients)
        ]

        def work(connection: psycopg.Connection[Any], number: int) -> None:
            for _ in range(5):
                row = connection.execute("SELECT %s::int", (number,)).fetchone()
                connection.commit()
                assert row == (number,)
            served.append(number)

        threads = [
            threading.Thread(target=work, args=(connection, number))
            for number, connection in enumerate(open_now)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            most = max(most, backends(server))
        for thread in threads:
            thread.join()
    assert sorted(served) == list(range(clients))
    assert 1 <= most <= 5


def test_who_waits_too_long_is_told_before_it_gives_up(pooler: Pooler) -> None:
    """toll-app waits 12 seconds for an answer; a fault of the pooler's own comes before."""
    with contextlib.ExitStack() as crowd:
        for _ in range(5):
            holder = crowd.enter_context(psycopg.connect(pooler.url()))
            holder.execute("SELECT 1")
        late = crowd.enter_context(psycopg.connect(pooler.url()))
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match="query_wait_timeout"):
            late.execute("SELECT 1")
        assert time.monotonic() - began < 12
        waiting = [row for row in pooler.console("SHOW POOLS") if row["database"] == "shop"]
        assert waiting[0]["sv_active"] == "5"


def test_tls_and_the_password_are_demanded(pooler: Pooler) -> None:
    with psycopg.connect(pooler.url()) as connection:
        assert connection.pgconn.ssl_in_use
        assert connection.execute("SELECT current_user, current_database()").fetchone() == (
            "shop",
            "shop",
        )
    bare = pooler.url().replace("sslmode=verify-full", "sslmode=disable")
    assert re.search(NO_RULE, refusal(bare))
    wrong = databases.url("t" * 64, ["192.0.2.31"], "shop").split("@")[0]
    assert "SASL authentication failed" in refusal(f"{wrong}@{pooler.url().split('@')[1]}")


def test_a_stranger_is_refused(pooler: Pooler) -> None:
    """PostgreSQL sees the pooler and not its clients, so its own rules keep nobody out."""
    assert re.search(NO_RULE, refusal(pooler.url("far-away")))
    for other in ("toll-app", "postgres", "nowhere", "pgbouncer"):
        assert re.search(NO_RULE, refusal(pooler.url().replace("/shop?", f"/{other}?")))


def test_the_console_is_for_root_alone(pooler: Pooler) -> None:
    """Its commands stop the service of all applications."""
    assert {row["database"] for row in pooler.console("SHOW POOLS")} >= {"pgbouncer"}
    with pytest.raises(AssertionError):
        pooler.console("SHOW POOLS", user="postgres")
    # An empty password lets nobody in.
    url = pooler.url().replace("//shop:", "//root:").replace("/shop?", "/pgbouncer?")
    assert re.search(NO_RULE, refusal(url))
    for name, text in texts("other-hosts").items():
        lines = [line for line in text.splitlines() if "root" in line and line[0] not in "#;"]
        assert [line.split() for line in lines] == {
            "pooler_hba.conf": [["local", "pgbouncer", "root", "peer"]],
            "pooler_users.txt": [['"root"', '""']],
            "pooler.ini": [["admin_users", "=", "root"]],
        }.get(name, []), name


def test_nothing_that_a_session_has_is_left_to_the_next(pooler: Pooler) -> None:
    """What applications must not rest on: the next transaction may have another connection."""
    with psycopg.connect(pooler.url()) as connection:
        with connection.transaction():
            connection.execute("SET LOCAL statement_timeout = 1234")
            row = connection.execute("SHOW statement_timeout").fetchone()
        assert row == ("1234ms",)
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)
        # By this the application sees that it talks to a pooler.
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        assert row[0] != connection.info.backend_pid


@pytest.fixture
def toll(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The application's module for its database."""
    monkeypatch.syspath_prepend(PROJECT / "app")
    return importlib.import_module("toll.database")


def test_toll_app_keeps_nothing_in_a_session(toll: Any, pooler: Pooler) -> None:
    """Its limits hold for each of its requests, and for nobody else who gets the same process."""
    asked = sa.text("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
    clients = [toll.make_engine(pooler.url()) for _ in range(3)]
    try:
        with Flask(__name__).test_request_context(), contextlib.ExitStack() as crowd:
            for engine in clients[:2]:
                connection = crowd.enter_context(engine.connect())
                for _ in range(8):
                    assert connection.execute(asked).one() == ("10s", "4s")
                    connection.rollback()
                assert connection.connection.dbapi_connection is not None
                assert connection.connection.dbapi_connection.prepare_threshold is None
        # A command, which may take its time.
        with clients[2].connect() as connection:
            for _ in range(8):
                assert connection.execute(asked).one() == ("0", "0")
                connection.rollback()
    finally:
        for engine in clients:
            engine.dispose()


def test_toll_app_says_its_limits_once_where_it_has_a_session(toll: Any, server: Server) -> None:
    """Otherwise each transaction would pay for the pooler that others have."""
    engine = toll.make_engine(server.url())
    said: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *told: said.append(told[2]))
    with Flask(__name__).test_request_context(), engine.connect() as connection:
        assert connection.execute(sa.text("SHOW statement_timeout")).scalar() == "10s"
    engine.dispose()
    assert said == ["SHOW statement_timeout"]


def test_prepared_statements_where_the_version_has_them(pooler: Pooler) -> None:
    if pooler.version < (1, 21):
        assert "max_prepared_statements" not in (pooler.folder / "pooler.ini").read_text()
        return
    with contextlib.ExitStack() as crowd:
        clients = [crowd.enter_context(psycopg.connect(pooler.url())) for _ in range(10)]
        for number in range(20):
            for client in clients:
                row = client.execute("SELECT %s::int", (number,), prepare=True).fetchone()
                client.commit()
                assert row == (number,)


def test_a_changed_setting_is_taken_without_ending_anything(pooler: Pooler) -> None:
    with psycopg.connect(pooler.url()) as connection:
        connection.execute("SELECT 1")
        connection.commit()
        pooler.reload(postgresql_pooler_connections=7)
        end = time.monotonic() + 30

        def size() -> str:
            rows = pooler.console("SHOW DATABASES")
            return next(row["pool_size"] for row in rows if row["name"] == "shop")

        while size() != "7":
            assert time.monotonic() < end, pooler.log
        assert connection.execute("SELECT 1").fetchone() == (1,)
        connection.commit()
        pooler.reload()
        while size() != "5":
            assert time.monotonic() < end, pooler.log


def test_idle_clients_outlive_a_restart_of_postgresql(server: Server, pooler: Pooler) -> None:
    """They wait until it is back; what was under way fails, and is told so."""
    with (
        psycopg.connect(pooler.url(), autocommit=True) as idle,
        psycopg.connect(pooler.url()) as busy,
    ):
        idle.execute("SELECT 1")
        busy.execute("SELECT 1")
        server.restart()
        with pytest.raises(psycopg.OperationalError):
            busy.execute("SELECT 1")
        row = idle.execute("SELECT 1").fetchone()
    assert row == (1,)


def test_it_says_nothing_of_passwords(pooler: Pooler) -> None:
    told = (pooler.folder / "pooler_users.txt").read_text()
    (verifier,) = re.findall(r'"shop" "(SCRAM.+)"', told)
    assert verifier not in pooler.log
    assert databases.password(SECRET, "shop") not in told


def test_only_settings_that_need_it_restart_it() -> None:
    """A reload does not change them, and a restart ends the connections of clients."""
    before = texts("other-hosts")
    started = {"pgbouncer.ini", "pgbouncer.service"}

    def changed(**told: Any) -> set[str]:
        after = texts("other-hosts", **told)
        return {name for name in before if before[name] != after[name]}

    assert changed(postgresql_pooler_port=7000) <= started
    assert changed(postgresql_pooler_clients=7000) == started
    assert changed(postgresql_pooler_wait_seconds=7) == {"pooler.ini"}
    assert changed(postgresql_pooler_connections=7) == {"pooler.ini"}
    fewer = VARIANTS["other-hosts"]["postgresql_applications"][:1]
    assert changed(postgresql_applications=fewer) == {
        *("pooler.ini", "pooler_hba.conf", "pooler_users.txt")
    }


# What alerts know of it ---------------------------------------------------------------------------


def numbers(server: Server, pooler: Pooler) -> dict[str, str]:
    program, file = server.folder / "postgresql-metrics", server.folder / "postgresql.prom"
    told = {
        "postgresql_pooler_port": pooler.port,
        "__postgresql_pooler_sockets": str(pooler.folder),
        "postgresql_pooler_clients": 300,
    }
    text = server.lay_out(**told)["libexec/postgresql-metrics"]
    program.write_text(text.replace("--username=root", f"--username={getpass.getuser()}"))
    subprocess.run(["/bin/sh", program, file], check=True)
    return dict(line.rsplit(" ", 1) for line in file.read_text().splitlines())


def test_what_alerts_rest_on_is_told(server: Server, pooler: Pooler) -> None:
    before = numbers(server, pooler)
    assert before["postgresql_pooler_up"] == "1"
    assert before["postgresql_pooler_clients_max"] == "300"
    with contextlib.ExitStack() as crowd:
        for _ in range(5):
            crowd.enter_context(psycopg.connect(pooler.url())).execute("SELECT 1")
        late = crowd.enter_context(psycopg.connect(pooler.url()))
        waits = threading.Thread(target=lambda: refused(late))
        waits.start()
        while (during := numbers(server, pooler))[
            'postgresql_pooler_waiting{database="shop"}'
        ] == "0":
            assert waits.is_alive()
        waits.join()
    assert during['postgresql_pooler_waiting{database="shop"}'] == "1"
    assert float(during['postgresql_pooler_longest_wait_seconds{database="shop"}']) > 0
    assert int(during["postgresql_pooler_clients"]) == 6
    # Nothing of it where it is off.
    program = server.lay_out(postgresql_pooler=False)["libexec/postgresql-metrics"]
    assert "postgresql_pooler" not in program
    server.lay_out()


def refused(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")


def test_a_pooler_that_does_not_answer_is_told(server: Server) -> None:
    found = numbers(server, Pooler(server))
    assert found["postgresql_up"] == "1"
    assert found["postgresql_pooler_up"] == "0"
    assert "postgresql_pooler_waiting" not in str(found)


# Where the primary is -----------------------------------------------------------------------------


class Patroni:
    """Answers as Patroni does, over HTTPS, what a test has it say."""

    def __init__(self, folder: Path) -> None:
        self.status, self.role = 503, "replica"
        address = "127.0.0.1"
        public, private = member_certificate(SECRET, address, NOW)
        (folder / "patroni.crt").write_text(public + private)
        (folder / "member-authority.pem").write_text(authority(SECRET, MEMBERS))
        told = self

        class Answers(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(told.status)
                self.end_headers()
                self.wfile.write(json.dumps({"role": told.role}).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer((address, 0), Answers)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "patroni.crt")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def patroni(tmp_path: Path) -> Iterator[Patroni]:
    patroni = Patroni(tmp_path)
    yield patroni
    patroni.stop()


def test_it_runs_where_the_primary_is_and_nowhere_else(tmp_path: Path, patroni: Patroni) -> None:
    """Its clients would go on asking a database that takes no writes any more."""
    fake = tmp_path / "pgbouncer"
    fake.write_text(
        "import signal, sys, time\n"
        "file = open(sys.argv[1], 'a')\n"
        "def say(text):\n"
        "    print(text, file=file, flush=True)\n"
        "def leave(*_):\n"
        "    say('left')\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGHUP, lambda *_: say('reload'))\n"
        "signal.signal(signal.SIGINT, leave)\n"
        "say('start')\n"
        "while True:\n"
        "    time.sleep(1)\n"
    )
    told = tmp_path / "told"
    told.touch()
    text = render(
        "postgresql",
        "pooler/postgresql-pooler.j2",
        "Debian",
        **{**VARIANTS["member"], **ON},
        __postgresql_etc=str(tmp_path),
        __postgresql_patroni_port=patroni.server.server_port,
    )
    command = f'COMMAND = ["{sys.executable}", "{fake}", "{told}"]'
    program = tmp_path / "postgresql-pooler"
    program.write_text(re.sub("(?m)^COMMAND = .*$", command, text))

    def until(*wanted: str) -> None:
        end = time.monotonic() + 60
        while told.read_text().split() != list(wanted):
            assert time.monotonic() < end, told.read_text()
            time.sleep(0.02)

    def process_of(text: str) -> str:
        found = subprocess.run(["pgrep", "-f", text], capture_output=True, text=True, check=False)
        return found.stdout.strip()

    running = subprocess.Popen([sys.executable, "-I", program], stdout=subprocess.DEVNULL)
    try:
        # Another host has the lease; then this one, but it is still in recovery.
        for status, role in ((503, "replica"), (200, "replica")):
            patroni.status, patroni.role = status, role
            time.sleep(1.2)
            assert told.read_text() == ""
        patroni.role = "primary"
        until("start")
        running.send_signal(signal.SIGHUP)
        until("start", "reload")
        # It takes no writes any more: nobody is asked whether they are done.
        patroni.status = 503
        end = time.monotonic() + 60
        while process_of(str(told)):
            assert time.monotonic() < end
            time.sleep(0.02)
        until("start", "reload")
        patroni.status = 200
        until("start", "reload", "start")
        # The unit is stopped: what runs may end.
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
        until("start", "reload", "start", "left")
    finally:
        running.kill()
        running.wait()


def test_the_unit_of_a_member_runs_what_follows_the_primary() -> None:
    alone = texts("other-hosts")["pgbouncer.service"]
    member = texts("member")["pgbouncer.service"]
    (command,) = re.findall("(?m)^ExecStart=(.*)$", alone)
    assert command == "/usr/sbin/pgbouncer /etc/postgresql-server/pgbouncer.ini"
    (command,) = re.findall("(?m)^ExecStart=(.*)$", member)
    assert command == "/usr/local/libexec/postgresql-pooler"
    assert "Watchdog" not in alone
    assert "\nWatchdogSec=" in member


THERE = {"packages": {"pgbouncer": "1.24.1"}, "users": ["root", "postgresql-pooler"]}
RUNS = {"pgbouncer.service": {"active": True, "enabled": True, "state": "active"}}
# Of a host whose archive is well.
TIMERS = {
    timer: {"active": True, "enabled": True, "state": "active"}
    for timer in evaluate("postgresql", "__postgresql_archive_timers", "Debian")
}


@pytest.mark.parametrize(
    ("wanted", "host", "extra"),
    [
        (False, {}, []),
        (True, {}, ["pooler_user", "pooler_amiss"]),
        (True, {**THERE, "units": {**TIMERS, **RUNS}}, []),
        (True, {**THERE, "units": TIMERS}, ["pooler_amiss"]),
        (False, {**THERE, "units": {**TIMERS, **RUNS}}, ["pooler_gone"]),
    ],
)
def test_a_host_pays_only_for_what_it_needs(
    wanted: bool, host: dict[str, Any], extra: list[str]
) -> None:
    """Each of these is a task, or several."""
    found = []
    for name in ("configure", "service"):
        tasks = yaml.safe_load((ROLES / "postgresql/tasks" / f"{name}.yml").read_text())
        (task,) = (task for task in tasks if "loop" in task)
        expression = task["loop"].strip().removeprefix("{{").removesuffix("}}")
        told = {"wsgi_host": {"units": TIMERS, **host}, "postgresql_pooler": wanted}
        shown = "ansible_facts['wsgi_host'].units[__postgresql_pooler_unit]"
        shown += " | default(__postgresql_no_unit)"
        found += evaluate(
            "postgresql",
            expression.replace("__postgresql_shown", f"({shown})"),
            "Debian",
            **{**VARIANTS["other-hosts"], **told},
        )
    assert found == extra


@pytest.mark.parametrize("variant", ["other-hosts", "member"])
def test_off_it_leaves_nothing(variant: str) -> None:
    for name, text in configuration("Debian", variant).items():
        assert not re.search("pooler|bouncer", text, re.I), name


# What is refused ----------------------------------------------------------------------------------

GOOD = {**VARIANTS["other-hosts"], **ON, "postgresql_max_connections": 200}
BAD: dict[str, tuple[Case, str]] = {
    "a system on which nobody has tried it": (
        Case(
            GOOD,
            {
                "distribution": "ubuntu",
                "distribution_version": "24.04",
                "pretty_name": "Ubuntu 24.04 LTS",
            },
        ),
        "postgresql_pooler (true) is true, and this role does not support the PgBouncer of Ubuntu "
        "24.04 LTS: use one of debian 12, debian 13, or set it to false",
    ),
    "a port of PostgreSQL's": (
        Case({**GOOD, "postgresql_pooler_port": 5432}),
        "postgresql_pooler_port (5432) is a port of PostgreSQL, Patroni or etcd: use another one, "
        "such as 6432",
    ),
    "more than PostgreSQL has": (
        Case({**GOOD, "postgresql_pooler_connections": 61}),
        "postgresql_pooler_connections (61) lets 3 applications have 183 connections, and "
        "postgresql_max_connections (200) must exceed that by 20, for migrations and copies: use "
        "fewer, or raise postgresql_max_connections to 203, which restarts PostgreSQL",
    ),
    "an application of the console's name": (
        Case(
            {
                **GOOD,
                "postgresql_applications": [
                    {**VARIANTS["other-hosts"]["postgresql_applications"][0], "name": "pgbouncer"}
                ],
            }
        ),
        "postgresql_applications has pgbouncer, which is the name of PgBouncer's own console: "
        "choose another name, or set postgresql_pooler to false",
    ),
    "one that somebody else has set up": (
        Case(GOOD, {"packages": {"pgbouncer": "1.24.1"}}),
        "postgresql_pooler (true) is true, and this host has a PgBouncer that somebody else set "
        "up: keep a copy of /etc/pgbouncer",
    ),
    "somebody else's port": (
        Case(
            GOOD,
            {"listeners": [{"address": "0.0.0.0", "port": 6432, **POOLER, "program": "odyssey"}]},
        ),
        "6432",
    ),
    "no time to wait": (
        Case({**GOOD, "postgresql_pooler_wait_seconds": 0}),
        "postgresql_pooler_wait_seconds is 0",
    ),
}


def test_what_cannot_work_is_said() -> None:
    said = preflight("postgresql", {name: case for name, (case, _) in BAD.items()})
    assert {name: said[name] for name in BAD if BAD[name][1] not in said[name]} == {}


def test_what_works_is_not_refused() -> None:
    most = {**GOOD, "postgresql_pooler_connections": 60}
    there = {"packages": {"pgbouncer": "1.24.1"}, "users": ["root", "postgresql-pooler"]}
    running = {"listeners": [{"address": "0.0.0.0", "port": 6432, **POOLER}]}
    cases = {
        "at most": Case(most),
        "of an earlier run": Case(GOOD, {**there, **running}),
        "off": Case({**GOOD, "postgresql_pooler": False, "postgresql_pooler_connections": 5000}),
    }
    assert set(preflight("postgresql", cases).values()) == {""}
