"""Several hosts of the role postgresql: what they are told, and what moves the primary."""

from __future__ import annotations

import base64
import datetime
import http.server
import json
import random
import re
import ssl
import sys
import threading
from argparse import Namespace as Options
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.wsgi.host.plugins.filter.scram import scram
from ansible_collections.wsgi.host.plugins.plugin_utils.authority import member_certificate

from .render import FACTS, evaluate, render
from .test_postgresql import VARIANTS, configuration

MEMBER = VARIANTS["member"]


def patroni(**overrides: Any) -> dict[str, Any]:
    text = render("postgresql", "patroni.yml.j2", "Debian", **{**MEMBER, **overrides})
    found: dict[str, Any] = yaml.safe_load(text)
    return found


# What they are told -------------------------------------------------------------------------------


def test_only_the_first_member_begins_a_cluster() -> None:
    """Another one without data would begin a second one, in front of the data of the first."""
    assert "bootstrap" in patroni()
    assert "bootstrap" not in patroni(postgresql_member_name="db2")
    assert "create_main_cluster = false" in configuration("Debian", "member")["createcluster.conf"]
    assert "create_main" not in configuration("Debian", "other-hosts")["createcluster.conf"]


def test_a_cluster_is_made_as_a_single_host_is() -> None:
    made = configuration("Debian", "member")["createcluster.conf"]
    (options,) = re.findall(r"^initdb_options = '(.*)'$", made, re.MULTILINE)
    told = [each if isinstance(each, str) else "=".join(*each.items())
            for each in patroni()["bootstrap"]["initdb"]]  # fmt: skip
    assert [f"--{each}" for each in told] == options.split()


def test_nothing_acknowledged_is_lost_with_the_primary() -> None:
    told = patroni()["bootstrap"]["dcs"]
    # Not quorum: docs/decisions/0100.
    assert told["synchronous_mode"] is True
    assert told["failsafe_mode"] is True
    # https://patroni.readthedocs.io/en/latest/dynamic_configuration.html
    assert told["loop_wait"] + 2 * told["retry_timeout"] <= told["ttl"]
    assert patroni()["bootstrap"]["dcs"]["postgresql"]["parameters"]["max_connections"] == 20


@pytest.mark.parametrize("seconds", [8, 9, 10, 30, 300])
def test_a_replica_that_is_lost_is_given_up_before_the_primary_is(seconds: int) -> None:
    """Until then commits wait for it. PostgreSQL's own limit is a minute."""
    text = configuration("Debian", "member", postgresql_failover_seconds=seconds)["postgresql.conf"]
    (silence,) = re.findall(r"^wal_sender_timeout = '(\d+)s'$", text, re.MULTILINE)
    assert int(silence) < seconds
    assert "wal_sender" not in configuration("Debian", "other-hosts")["postgresql.conf"]


@pytest.mark.parametrize("seconds", [8, 9, 10, 30, 300])
def test_every_time_of_a_primary_is_one_that_patroni_takes(seconds: int) -> None:
    told = patroni(postgresql_failover_seconds=seconds)["bootstrap"]["dcs"]
    assert told["ttl"] == seconds
    assert told["retry_timeout"] >= 3
    assert told["loop_wait"] + 2 * told["retry_timeout"] <= seconds
    drop_in = configuration("Debian", "member", postgresql_failover_seconds=seconds)["drop-in.conf"]
    (watchdog,) = re.findall(r"^WatchdogSec=(\d+)$", drop_in, re.MULTILINE)
    # A primary that hangs is killed before another one takes its place.
    assert int(watchdog) < seconds


def test_members_know_one_another_and_have_the_settings_of_the_role() -> None:
    told = patroni()
    for side in ("replication", "rewind"):
        login = told["postgresql"]["authentication"][side]
        assert login["sslmode"] == "verify-full"
        assert login["username"] == f"cluster_{side}"
    assert told["restapi"]["verify_client"] == "optional"
    assert told["etcd3"]["hosts"] == [f"192.0.2.4{number}:2379" for number in (1, 2, 3)]
    assert told["etcd3"]["protocol"] == "https"
    assert told["postgresql"]["custom_conf"] == "/etc/postgresql-server/postgresql.conf"
    hba = "/etc/postgresql-server/pg_hba.conf"
    assert told["postgresql"]["parameters"]["hba_file"] == hba
    rules = configuration("Debian", "member")["pg_hba.conf"]
    for number in (1, 2, 3):
        for database, user in (("replication", "replication"), ("postgres", "rewind")):
            rule = rf"^hostssl +{database} +cluster_{user} +192\.0\.2\.3{number}/32 +scram-sha-256$"
            assert re.search(rule, rules, re.MULTILINE)


def test_passwords_are_in_one_file_that_others_do_not_read() -> None:
    files = evaluate("postgresql", "__postgresql_member_files", "Debian", **MEMBER)
    secret = {each["dest"]: each for each in files if each.get("secret")}
    assert set(secret) == {f"/etc/postgresql-server/{x}" for x in ("patroni.yml", "member.key")}
    assert {(each["mode"], each["group"]) for each in secret.values()} == {("0640", "postgres")}
    texts = {
        **configuration("Debian", "member"),
        **{
            name: render("postgresql", f"{name}.j2", "Debian", **MEMBER)
            for name in ("cluster.json", "postgresql-member", "postgresql-cluster")
        },
    }
    for each in ("postgresql_replication_password", "postgresql_rewind_password"):
        assert [name for name, text in texts.items() if MEMBER[each] in text] == []
    verifier = scram(MEMBER["postgresql_rewind_password"], "cluster_rewind")
    assert verifier in texts["applications.sql"]


@pytest.mark.parametrize(
    "password",
    [
        "&" + "k" * 40,
        "%" + "k" * 40,
        "a horse #of forty characters, with words",
        "0" * 40,
        "😀" * 32,
    ],
)
def test_any_line_is_a_password(password: str) -> None:
    """The replicas log in with what patroni.yml says, the primary knows the password itself."""
    told = patroni(postgresql_replication_password=password, postgresql_rewind_password=password)
    logins = told["postgresql"]["authentication"]
    assert {logins[side]["password"] for side in ("replication", "rewind")} == {password}


@pytest.mark.parametrize("name", ["12", "on"])
def test_any_name_is_a_text(name: str) -> None:
    members = [{**MEMBER["postgresql_members"][0], "name": name}, MEMBER["postgresql_members"][1]]
    told = patroni(postgresql_member_name=name, postgresql_members=members)
    assert told["name"] == name


def test_one_host_alone_has_nothing_of_it() -> None:
    for name, text in configuration("Debian", "other-hosts").items():
        assert not re.search("patroni|cluster_re|is-primary|Watchdog", text, re.I), name


def test_versions_are_compared_of_all_hosts_that_the_run_has_seen() -> None:
    older = {**FACTS["Debian"], "distribution_version": "12"}
    upgraded = {**FACTS["Debian"], "packages": {"postgresql-15": "15.18"}}
    known = {"db1": FACTS["Debian"], "db2": older, "db3": upgraded}
    hostvars = {name: {"ansible_facts": {"wsgi_host": host}} for name, host in known.items()}
    found = evaluate(
        "postgresql", "__postgresql_member_versions", "Debian", **MEMBER, hostvars=hostvars
    )
    assert found == {"db1": "17", "db2": "15", "db3": "15"}
    found = evaluate("postgresql", "__postgresql_member_versions", "Debian", **MEMBER, hostvars={})
    assert found == {}


# What runs Patroni --------------------------------------------------------------------------------


class Voters:
    """etcd of three hosts, asked by its gateway, of which the first is this one."""

    def __init__(self, leader: str, *away: str) -> None:
        self.leader, self.away = leader, away
        self.asked: list[tuple[str, str]] = []

    def __call__(self, host: str, path: str, **content: str) -> Any:
        if host in self.away:
            raise OSError(f"{host} does not answer")
        if path == "maintenance/transfer-leadership":
            assert host == self.leader
            self.asked.append((host, content["targetID"]))
            self.leader = content["targetID"].removeprefix("id-")
            return {}
        assert path == "maintenance/status"
        return {"header": {"member_id": f"id-{host}"}, "leader": f"id-{self.leader}"}


@pytest.fixture
def runner() -> ModuleType:
    voters = [{"name": f"v{n}", "address": f"192.0.2.{n}"} for n in (31, 33, 34)]
    text = render(
        "postgresql",
        "postgresql-member.j2",
        "Debian",
        **{**MEMBER, "postgresql_voters": voters},
    )
    module = ModuleType("postgresql_member")
    exec(compile(text, "postgresql-member", "exec"), module.__dict__)
    return module


def test_the_voter_of_its_own_host_is_asked_first(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one's may hang with the primary, and keep who asks from taking its place."""
    patroni, dcs, etcd = (ModuleType(name) for name in ("patroni", "patroni.dcs", "etcd"))
    patroni.dcs, dcs.etcd, etcd.random = dcs, etcd, random  # type: ignore[attr-defined]
    for each in (patroni, dcs):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    runner.own_voter_first()
    urls = [f"https://192.0.2.{number}:2379" for number in (34, 33, 31)]
    etcd.random.shuffle(urls)
    assert urls[0] == "https://192.0.2.31:2379"
    assert len(urls) == 3


def test_the_voter_of_a_primary_does_not_lead(runner: ModuleType) -> None:
    """Lost with both, the leader is found first, and only then does the primary's time run."""
    voters = Voters("192.0.2.31")
    runner.voter = voters  # type: ignore[attr-defined]
    # One on a host without a database, where there is one.
    assert runner.hand_over() == "192.0.2.34"
    assert voters.asked == [("192.0.2.31", "id-192.0.2.34")]
    assert runner.hand_over() is None
    assert len(voters.asked) == 1


def test_only_who_answers_is_made_the_leader(runner: ModuleType) -> None:
    voters = Voters("192.0.2.31", "192.0.2.34")
    runner.voter = voters  # type: ignore[attr-defined]
    assert runner.hand_over() == "192.0.2.33"
    alone = Voters("192.0.2.31", "192.0.2.33", "192.0.2.34")
    runner.voter = alone  # type: ignore[attr-defined]
    assert runner.hand_over() is None
    assert alone.asked == []


def test_patroni_is_heard_while_it_has_a_certificate_of_another_authority(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files change before it reloads. Silence would have systemd kill it, on all hosts."""
    read: list[ssl.SSLContext] = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda self, *_: read.append(self))

    class Patroni(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/liveness" else 503)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    now = datetime.datetime.now(datetime.UTC)
    pair = tmp_path / "pair.pem"
    pair.write_text("".join(member_certificate("another" * 9, "127.0.0.1", now)))
    (tmp_path / "member-authority.pem").write_text(MEMBER["postgresql_member_authority"])
    runner.ETC = str(tmp_path)  # type: ignore[attr-defined]
    with http.server.HTTPServer(("127.0.0.1", 0), Patroni) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        runner.PORT = server.server_port  # type: ignore[attr-defined]
        assert runner.answer("/liveness") == 200
        assert runner.answer("/primary") == 503
        server.shutdown()
    assert runner.answer("/liveness") is None
    # It asks each second, and the host has some hundred authorities.
    assert read == []


def test_a_reload_takes_a_new_certificate_and_new_settings(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another secret brings both. As Patroni 3.0 and 4.0 have it, with what matters here."""

    class RestApiServer:
        def __init__(self) -> None:
            self.renewed = False
            self.reload_config({})
            self.serial = "1"

        def reload_local_certificate(self) -> bool | None:
            if self.serial == "2":
                return None
            self.serial, self.renewed = "2", True
            return True

        def reload_config(self, config: dict[str, Any]) -> None:
            self.config, self.listens_anew, self.renewed = config, self.renewed, False

    patroni, api = ModuleType("patroni"), ModuleType("patroni.api")
    api.RestApiServer = RestApiServer  # type: ignore[attr-defined]
    for each in (patroni, api):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    runner.certificate_and_settings()
    server = RestApiServer()
    assert not server.listens_anew
    # Patroni does not look for a certificate before this one.
    server.reload_config({"listen": "*"})
    assert (server.listens_anew, server.config) == (True, {"listen": "*"})
    server.reload_config({})
    assert not server.listens_anew


# The program --------------------------------------------------------------------------------------


@pytest.fixture
def program() -> ModuleType:
    text = render("postgresql", "postgresql-cluster.j2", "Debian", **MEMBER)
    module = ModuleType("postgresql_cluster")
    exec(compile(text, "postgresql-cluster", "exec"), module.__dict__)
    return module


class Members:
    """Patroni of all members, as far as the program sees it."""

    def __init__(self, **roles: str) -> None:
        self.roles = roles
        self.asked: list[tuple[str, str, Any]] = []
        self.lag: dict[str, Any] = {}

    def __call__(
        self, where: str, method: str, path: str, content: Any = None, seconds: float = 0
    ) -> tuple[int, str]:
        assert where.endswith(":8008")
        if method == "GET" and path == "/cluster":
            return 200, json.dumps({"members": [self.member(name) for name in self.roles]})
        self.asked.append((method, path, content))
        if path == "/switchover":
            sync = [name for name, role in self.roles.items() if role == "sync_standby"]
            candidate = content.get("candidate") or sync[0]
            if candidate not in sync:
                return 412, "candidate name does not match with sync_standby"
            self.roles |= {content["leader"]: "replica", candidate: "leader"}
        elif content == {"synchronous_node_count": 2}:
            self.roles |= {k: "sync_standby" for k, v in self.roles.items() if v == "replica"}
        return 200, "done"

    def member(self, name: str) -> dict[str, Any]:
        role = self.roles[name]
        state = "running" if role == "leader" else "streaming"
        return {"name": name, "role": role, "state": state, "lag": self.lag.get(name, 0)}


def cluster(program: ModuleType, members: Members, tmp_path: Path, name: str = "db1") -> Any:
    text = render(
        "postgresql",
        "cluster.json.j2",
        "Debian",
        **MEMBER,
    )
    (tmp_path / "cluster.json").write_text(text)
    program.ETC = str(tmp_path)  # type: ignore[attr-defined]
    program.asked = members  # type: ignore[attr-defined]
    found = program.Cluster()
    found.name = name
    found.journal = lambda: ""
    return found


def test_the_primary_is_moved_to_who_has_all_that_was_acknowledged(
    program: ModuleType, tmp_path: Path
) -> None:
    members = Members(db1="leader", db2="replica", db3="sync_standby")
    would = cluster(program, members, tmp_path).moved(only_said=True)
    assert would == (True, "db1 would no longer be the primary.")
    assert members.asked == []
    said = cluster(program, members, tmp_path).moved()
    assert said == (True, "db3 is the primary now, and db1 copies it.")
    assert members.asked == [("POST", "/switchover", {"leader": "db1"})]
    said = cluster(program, members, tmp_path).moved("db3")
    assert said == (False, "db3 is the primary already.")
    assert len(members.asked) == 1


def test_any_member_can_be_named(program: ModuleType, tmp_path: Path) -> None:
    """It has what was acknowledged before it becomes the primary, and only for that time."""
    members = Members(db1="leader", db2="replica", db3="sync_standby")
    assert cluster(program, members, tmp_path).switchover("db2") == "db2"
    counts = [content for method, _, content in members.asked if method == "PATCH"]
    assert counts == [{"synchronous_node_count": 2}, {"synchronous_node_count": None}]
    with pytest.raises(program.Refused, match="db7 is none of db1, db2, db3"):
        cluster(program, members, tmp_path).switchover("db7")


@pytest.mark.parametrize(
    ("roles", "lag", "said"),
    [
        ({"db1": "replica", "db2": "sync_standby", "db3": "replica"}, {}, "there is no primary"),
        ({"db1": "leader", "db2": "sync_standby"}, {}, "db3 is not in the cluster"),
        ({"db1": "leader", "db2": "replica", "db3": "replica"}, {}, "no other host has what was"),
        (
            {"db1": "leader", "db2": "sync_standby", "db3": "replica"},
            {"db3": "unknown"},
            "db3 is unknown bytes behind",
        ),
        ({"db1": "leader", "db2": "sync_standby", "db3": "replica"}, {}, ""),
    ],
)
def test_what_is_not_well_is_said(
    roles: dict[str, str], lag: dict[str, Any], said: str, program: ModuleType, tmp_path: Path
) -> None:
    members = Members(**roles)
    members.lag = lag
    found = cluster(program, members, tmp_path)
    found.voters = lambda: {"vote1": True}
    assert found.well().startswith(said) if said else found.well() == ""
    found.voters = lambda: {"vote1": True, "vote2": False}
    assert said or found.well() == "vote2 does not vote"


def test_who_is_in_which_role_is_shown(program: ModuleType, tmp_path: Path) -> None:
    members = Members(db1="leader", db2="sync_standby")
    found = cluster(program, members, tmp_path)
    found.voters = lambda: {"vote1": True, "vote2": False, "vote3": True}
    assert program.table(found).splitlines() == [
        "db1  primary                         running",
        "db2  has all that was acknowledged   streaming  0 bytes behind",
        "db3  is not in the cluster",
        "voters: vote1 votes, vote2 is away, vote3 votes",
    ]


def test_a_primary_is_not_restarted_while_others_are_not_well(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = Members(db1="leader", db2="sync_standby")
    found = cluster(program, members, tmp_path)
    found.stale = lambda: "unit"
    monkeypatch.setattr(program.time, "sleep", lambda _: None)
    found.wait = lambda problem, _: (_ for _ in ()).throw(program.Refused(problem()))
    with pytest.raises(program.Refused, match="db3 is not in the cluster"):
        found.renew(replicas=False)
    assert members.asked == []
    assert found.renew(replicas=True) is False


# A point in time ----------------------------------------------------------------------------------


def test_the_primary_is_restored_while_no_other_runs(program: ModuleType, tmp_path: Path) -> None:
    members = Members(db1="leader", db2="replica", db3="sync_standby")
    found = cluster(program, members, tmp_path)
    found.ask = lambda name, path: {"state": "running"} if name == "db3" else {}
    found.members = lambda: [members.member(name) for name in members.roles]
    found.require_restorable(alone=False)
    with pytest.raises(program.Refused, match=r"^db3 would go on with the present data\. Stop "):
        found.require_restorable(alone=True)
    copies = cluster(program, members, tmp_path, "db2")
    with pytest.raises(program.Refused, match=r"db1 is the primary.*Restore on db1\."):
        copies.require_restorable(alone=False)


def test_who_has_what_was_replaced_does_not_become_the_primary(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What etcd is told, by its JSON gateway; the first voter is away.

    The data may be those of a cluster that was lost, whose number is another one.
    """
    said = "pg_control version number:            1300\nDatabase system identifier:           7412"
    done = SimpleNamespace(stdout=f"{said}\nDatabase cluster state:  shut down\n", stderr="")
    monkeypatch.setattr(program.subprocess, "run", lambda *_, **__: done)
    found = cluster(program, Members(db1="leader"), tmp_path)
    told: list[tuple[str, str, str, str]] = []

    def voter(
        where: str, method: str, path: str, content: Any, seconds: float = 0
    ) -> tuple[int, str]:
        if len(told) == 0 and where.startswith(next(iter(found.told["voters"].values()))):
            raise OSError("No route to host")
        plain = {key: base64.b64decode(value).decode() for key, value in content.items()}
        told.append((method, path, plain["key"], plain.get("value", "")))
        return 200, "{}"

    program.asked = voter  # type: ignore[attr-defined]
    found.claim()
    base = "/database/" + patroni()["scope"]
    assert patroni()["namespace"] == "/database/"
    assert told[0] == ("POST", "/v3/kv/put", f"{base}/initialize", "7412")
    assert told[1][:3] == ("POST", "/v3/kv/put", f"{base}/sync")
    assert json.loads(told[1][3]) == {"leader": "db1", "sync_standby": None}
    assert [each[1:3] for each in told[2:]] == [
        ("/v3/kv/deleterange", f"{base}/status"),
        ("/v3/kv/deleterange", f"{base}/optime/leader"),
        ("/v3/kv/deleterange", f"{base}/failover"),
    ]

    def nobody(*words: Any) -> tuple[int, str]:
        return 503, "no leader"

    program.asked = nobody  # type: ignore[attr-defined]
    with pytest.raises(program.Refused, match=r"The voters do not answer\. .* no leader"):
        found.claim()
    done.stdout, done.stderr = "", "could not open file"
    with pytest.raises(program.Refused, match=r"/main: could not open file$"):
        found.claim()


def test_the_primary_is_neither_stopped_nor_thrown_away(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(program, "systemctl", lambda *words: calls.append(words))
    monkeypatch.setattr(program.subprocess, "run", lambda words, **_: calls.append(tuple(words)))
    members = Members(db1="leader", db2="sync_standby")
    with pytest.raises(program.Refused, match="db1 is the primary itself"):
        cluster(program, members, tmp_path).copy_anew(1)
    with pytest.raises(program.Refused, match="There is no primary to copy"):
        cluster(program, Members(db2="replica"), tmp_path).copy_anew(1)
    options = Options(command="stop", json=False, check=False)
    with pytest.raises(program.Refused, match="db1 is the primary"):
        program.run(cluster(program, members, tmp_path), options)
    assert calls == []
    copies = cluster(program, members, tmp_path, "db2")
    program.run(copies, Options(command="stop", json=True, check=True))
    assert calls == []
    assert copies.copy_anew(1) == "db2 copies db1 anew."
    assert [call[0] for call in calls] == ["stop", "find", "start"]


# Who leaves ---------------------------------------------------------------------------------------


class Electorate:
    """etcd's JSON gateway on all voters: who is a member, and who answers."""

    def __init__(self, *names: str, away: tuple[str, ...] = ()) -> None:
        self.members = [
            {
                "ID": str(number),
                "name": name,
                "peerURLs": [f"https://{name}:2380"],
                "clientURLs": [f"https://{name}:2379"],
            }
            for number, name in enumerate(names, 11)
        ]
        self.away = away
        self.removed: list[tuple[str, str]] = []

    def __call__(
        self, where: str, method: str, path: str, content: Any = None, seconds: float = 0
    ) -> tuple[int, str]:
        name = where.removesuffix(":2379")
        if name in self.away:
            raise OSError(f"{name} is away")
        if path == "/health":
            return 200, '{"health":"true"}'
        assert method == "POST"
        if path == "/v3/cluster/member/remove":
            self.removed.append((name, content["ID"]))
            return 200, "{}"
        assert path == "/v3/cluster/member/list"
        return 200, json.dumps({"members": self.members})


def dismissing(program: ModuleType, voters: Electorate, tmp_path: Path) -> Any:
    """A cluster whose voters are known by their names."""
    found = cluster(program, voters, tmp_path)  # type: ignore[arg-type]
    found.told["voters"] = {each["name"]: each["name"] for each in voters.members}
    return found


def test_a_voter_is_dismissed_by_one_that_stays(program: ModuleType, tmp_path: Path) -> None:
    """Whoever removes itself may be gone before it has said so."""
    voters = Electorate("db3", "db1", "db2", "lb1")
    found = dismissing(program, voters, tmp_path)
    assert found.dismiss("db3", only_said=True) == (True, "db3 would no longer vote.")
    assert voters.removed == []
    assert found.dismiss("db3") == (True, "db3 does not vote any more.")
    assert voters.removed == [("db1", "11")]
    assert found.dismiss("db9") == (False, "db9 does not vote.")


@pytest.mark.parametrize(
    ("names", "away", "said"),
    [
        (("db1", "db2", "db3"), (), "Without db3, db1 and db2 would vote, and it has to be an odd"),
        (("db1", "db2", "db3", "lb1", "lb2"), (), "Without db3, db1 and db2 and lb1 and lb2 would"),
        (
            ("db1", "db2", "db3", "lb1"),
            ("lb1",),
            "lb1 does not vote, so db3 cannot be done without",
        ),
    ],
    ids=["two left", "four left", "one away"],
)
def test_a_voter_that_the_others_need_is_not_dismissed(
    names: tuple[str, ...], away: tuple[str, ...], said: str, program: ModuleType, tmp_path: Path
) -> None:
    voters = Electorate(*names, away=away)
    with pytest.raises(program.Refused, match=said):
        dismissing(program, voters, tmp_path).dismiss("db3")
    assert voters.removed == []


@pytest.mark.parametrize(
    ("names", "away", "danger"),
    [
        (("db1", "db2", "db3", "lb1"), (), ""),
        (("db1", "db2", "db3"), (), " None of db1 and db2 may be lost until another voter has"),
        (
            ("db1", "db2", "db3", "lb1", "lb2"),
            (),
            " Only 1 of db1 and db2 and lb1 and lb2 may be lost until another voter has joined",
        ),
        # The second one that is lost goes after the first.
        (
            ("db1", "db2", "db3", "lb1", "lb2"),
            ("lb2",),
            " None of db1 and db2 and lb1 may be lost until another voter has joined",
        ),
    ],
    ids=["three left", "two left", "four left", "another one lost"],
)
def test_a_voter_that_is_lost_is_dismissed(
    names: tuple[str, ...], away: tuple[str, ...], danger: str, program: ModuleType, tmp_path: Path
) -> None:
    """etcd takes no other one in its place while it is a member that does not answer."""
    voters = Electorate(*names, away=("db3", *away))
    found = dismissing(program, voters, tmp_path)
    would = found.dismiss("db3", only_said=True)
    assert voters.removed == []
    assert would[1].startswith(f"db3 would no longer vote.{danger}")
    done = would[1].replace("would no longer vote", "does not vote any more")
    assert found.dismiss("db3") == (True, done)
    assert voters.removed == [("db1", "13")]
    assert danger or would[1].endswith("vote.")


def test_a_lost_voter_stays_where_the_others_would_be_no_majority(
    program: ModuleType, tmp_path: Path
) -> None:
    voters = Electorate("db1", "db2", "db3", away=("db2", "db3"))
    with pytest.raises(program.Refused, match="db2 does not vote, so db3 cannot be done without"):
        dismissing(program, voters, tmp_path).dismiss("db3")
    assert voters.removed == []


def test_the_others_are_well_without_a_host_that_leaves(
    program: ModuleType, tmp_path: Path
) -> None:
    members = Members(db1="leader", db2="sync_standby")
    found = cluster(program, members, tmp_path)
    found.voters = lambda: {"vote1": True, "db3": False}
    assert found.well() == "db3 is not in the cluster"
    assert found.well(("db3",)) == ""
    # Its own copy is none that is left.
    members = Members(db1="leader", db2="replica", db3="sync_standby")
    members.lag = {"db3": "unknown"}
    found = cluster(program, members, tmp_path)
    found.voters = dict
    assert found.well(("db3",)) == "no other host has what was acknowledged"
