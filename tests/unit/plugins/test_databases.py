"""Where the database of a fleet is and who uses it, by the inventory alone."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.wsgi.host.plugins.action import database as action_plugin
from ansible_collections.wsgi.host.plugins.filter.former_poolers import former_poolers
from ansible_collections.wsgi.host.plugins.filter.has_pooler import USER
from ansible_collections.wsgi.host.plugins.filter.sharing import sharing
from ansible_collections.wsgi.host.plugins.modules import holdings
from ansible_collections.wsgi.host.plugins.plugin_utils import authority, databases
from ansible_collections.wsgi.host.plugins.plugin_utils.descriptions import database_hosts
from ansible_collections.wsgi.host.plugins.plugin_utils.formats import postgresql_url
from conftest import PROJECT, action_of
from cryptography import x509
from psycopg.conninfo import conninfo_to_dict
from roles.render import evaluate
from sqlalchemy import make_url

SECRET = "s" * 64
DAY = datetime.timedelta(days=1)


def web(number: int, data: Mapping[str, Any] | None = None, **variables: Any) -> dict[str, Any]:
    """A host that serves shop, which can have its database in PostgreSQL."""
    told = {"domains": ["shop.example.com"], "data": data or {"postgresql": True}}
    return {"ansible_host": f"192.0.2.{number}", "applications": {"shop": told}, **variables}


ROLES = {"toll_app": {"data": {"postgresql": True}}}


def db(number: int) -> dict[str, Any]:
    return {"ansible_host": f"192.0.2.{number}"}


DB2 = db(32)
DB1 = {"ansible_host": "192.0.2.31", databases.SECRET: SECRET}


def groups(hosts: Mapping[str, Any]) -> dict[str, list[str]]:
    return {
        "all": list(hosts),
        "web": [name for name in hosts if name.startswith("web")],
        "databases": [name for name in hosts if name.startswith("db")],
    }


def found(**hosts: dict[str, Any]) -> dict[str, Any]:
    uses = databases.users_of(groups(hosts), hosts, ROLES.__getitem__)
    return databases.server(groups(hosts), hosts, uses)


def test_a_host_of_the_group_is_let_in() -> None:
    of_a_role = {"shop": {"domains": ["a.example.com"], "role": "toll_app"}}
    hosts = {
        "web1": web(11),
        "web2": web(12, application_peer_address="192.0.2.112"),
        "web3": {"ansible_host": "192.0.2.13", "applications": of_a_role},
        # Somewhere else, not at all, and not described.
        "web4": web(14, {"postgresql": True, "database_url": "postgresql://db.example.com/shop"}),
        "web5": web(15, {"sqlite": "shop.db"}),
        "web6": {"ansible_host": "192.0.2.16"},
    }
    assert found(**hosts, db1=DB1) == {
        "addresses": {"db1": "192.0.2.31"},
        "voters": {},
        "applications": {"shop": ["192.0.2.11", "192.0.2.112", "192.0.2.13"]},
        "pooler_port": 0,
        "problems": [],
    }


def test_one_host_alone_has_no_port_open() -> None:
    hosts = {"web1": {**web(11, ansible_host="gate.example.com"), databases.SECRET: SECRET}}
    uses = databases.users_of({"web": ["web1"]}, hosts, ROLES.__getitem__)
    told = databases.server({"web": ["web1"], "databases": ["web1"]}, hosts, uses)
    assert told["addresses"] == {"web1": "127.0.0.1"}
    assert told["applications"] == {"shop": ["127.0.0.1"]}
    assert told["problems"] == []


def test_a_second_host_does_not_lock_the_first_one_out() -> None:
    """Its application goes by the loopback until the end of the run that brings the second one."""
    hosts = {"web1": {**web(11), databases.SECRET: SECRET}, "web2": web(12)}
    uses = databases.users_of({"web": list(hosts)}, hosts, ROLES.__getitem__)
    told = databases.server({"web": list(hosts), "databases": ["web1"]}, hosts, uses)
    assert told["addresses"] == {"web1": "192.0.2.11"}
    assert told["applications"] == {"shop": ["192.0.2.11", "127.0.0.1", "192.0.2.12"]}
    assert told["problems"] == []


def test_without_the_group_nothing_is_looked_at() -> None:
    def uses(host: str) -> list[str]:
        raise AssertionError(host)

    assert databases.server({"web": ["web1"]}, {}, uses)["addresses"] == {}


def run(hosts: Mapping[str, Any], host: str = "db1", voters: Sequence[str] = ()) -> dict[str, Any]:
    task_vars = {
        "inventory_hostname": host,
        "groups": {**groups(hosts), **({"database_voters": list(voters)} if voters else {})},
        "hostvars": hosts,
        "role_path": str(PROJECT / "roles" / "application"),
    }
    action = action_of(action_plugin.ActionModule, {}, task_vars)
    told: dict[str, Any] = action.run(task_vars=task_vars)
    return told


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "two hosts": (
        {"web1": web(11), "db1": DB1, "db2": DB2},
        "the group databases has db1 and db2, the voters that elect the primary database: if "
        "one is lost, the others are no majority: add a host to databases, or create a group "
        "database_voters with db1 and db2 and one more host of the inventory, such as a balancer",
    ),
    "four hosts": (
        {"web1": web(11), "db1": DB1, "db2": DB2, "db3": db(33), "db4": db(34)},
        "the group databases has db1 and db2 and db3 and db4, the voters that elect the primary "
        "database: an even number survives the loss of no more hosts than one voter less would: "
        "add a host to databases, or create a group database_voters with db1 and db2 and db3",
    ),
    "one of several of which only a name is known": (
        {"web1": web(11), "db1": DB1, "db2": DB2, "db3": {"ansible_host": "db3.example.com"}},
        "application_peer_address is not set for db3, whose ansible_host is not an IP address",
    ),
    "two kinds of addresses of databases": (
        {"web1": web(11), "db1": DB1, "db2": DB2, "db3": {"ansible_host": "2001:db8::33"}},
        "application_peer_address or ansible_host is 2001:db8::33, and that of db1 is 192.0.2.31",
    ),
    "a database of which only a name is known": (
        {"web1": web(11), "db1": {**DB1, "ansible_host": "db1.example.com"}},
        "application_peer_address is not set for db1, whose ansible_host is not an IP address",
    ),
    "an application of which only a name is known": (
        {"web1": web(11, ansible_host="web1.example.com"), "db1": DB1},
        "application_peer_address is not set for web1, whose ansible_host is not an IP address",
    ),
    "two kinds of addresses": (
        {"web1": web(11, application_peer_address="2001:db8::11"), "db1": DB1},
        "application_peer_address or ansible_host is 2001:db8::11, and that of db1 is 192.0.2.31: "
        "one is IPv4 and the other IPv6, so they cannot connect: use IPv4 for both",
    ),
    "a forwarded port": (
        {"web1": web(11, ansible_host="127.0.0.1"), "db1": DB1},
        "application_peer_address is not set for web1",
    ),
    "no secret": (
        {"web1": web(11), "db1": {"ansible_host": "192.0.2.31"}},
        "application_database_secret is not set, and the passwords for the group databases are "
        "derived from it: generate one with `openssl rand -hex 32`, and put it into the vault of "
        "group_vars/all",
    ),
    "a short secret": (
        {"web1": web(11), "db1": {**DB1, databases.SECRET: "hunter2"}},
        "application_database_secret is shorter than 32 characters",
    ),
    "two secrets": (
        {"web1": web(11, application_database_secret="t" * 64), "db1": DB1},
        "application_database_secret differs between db1 and web1, which use the same database",
    ),
    "a name of PostgreSQL's": (
        {
            "web1": {
                "ansible_host": "192.0.2.11",
                "applications": {
                    "postgres": {"domains": ["a.example.com"], "data": {"postgresql": True}}
                },
            },
            "db1": DB1,
        },
        "applications.postgres has a name that PostgreSQL reserves for itself: give the "
        "application",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_set_up_is_said(name: str) -> None:
    hosts, expected = BAD[name]
    said = run(hosts)
    assert said["failed"] is True
    assert f"- {expected}" in said["msg"]
    assert said["msg"].endswith("Nothing was changed.")
    assert "hunter2" not in said["msg"]
    assert SECRET not in said["msg"]


def test_the_host_of_the_database_has_no_password() -> None:
    told = run({"web1": web(11), "db1": DB1})
    (shop,) = told["applications"]
    assert shop["verifier"].startswith("SCRAM-SHA-256$4096:")
    assert databases.password(SECRET, "shop") not in str(told)
    assert told["_ansible_no_log"] is True
    assert run({"web1": web(11), "db1": DB1}) == told


def test_a_database_that_nobody_uses_needs_no_secret() -> None:
    told = run({"web1": web(11, {"sqlite": "shop.db"}), "db1": {"ansible_host": "192.0.2.31"}})
    assert told["applications"] == []
    assert told["certificate"] == ""


@pytest.mark.parametrize("address", ["192.0.2.31", "2001:db8::31"])
def test_a_url_names_the_host_and_how_it_is_known(address: str) -> None:
    url = databases.url(SECRET, [address], "toll-app")
    assert database_hosts(url) == [address]
    assert url.endswith("?sslmode=verify-full&sslrootcert=/etc/toll-app/database-authority.pem")


def test_each_application_has_a_password_of_its_own() -> None:
    made = {
        databases.password(secret, name)
        for secret in (SECRET, "t" * 64)
        for name in ("shop", "toll-app")
    }
    assert len(made) == 4
    assert min(map(len, made)) >= 43


def test_hosts_that_a_run_leaves_out_share_a_database_that_follows_from_the_inventory() -> None:
    """A restore would replace the data below them."""
    hosts: dict[str, Any] = {
        "web1": web(11),
        "web2": web(12),
        "web3": web(13, {"postgresql": False}),
        "web4": {"applications": {"shop": {"role": "toll_app"}}},
        "web5": web(15, {"postgresql": True, "database_url": "postgresql://elsewhere/shop"}),
        "db1": DB1,
    }
    known = {name: {**told, "groups": groups(hosts)} for name, told in hosts.items()}
    url = databases.url(SECRET, ["192.0.2.31"], "shop")
    names = groups(hosts)["web"]
    assert sharing(names, known, "shop", url) == ["web1", "web2", "web4"]
    assert sharing(names, known, "shop", "postgresql://elsewhere/shop") == ["web5"]


# Several databases --------------------------------------------------------------------------------

THREE: dict[str, Any] = {"web1": web(11), "db1": DB1, "db2": DB2, "db3": db(33)}
ADDRESSES = ["192.0.2.31", "192.0.2.32", "192.0.2.33"]


def test_several_databases_vote_on_the_primary_themselves() -> None:
    told = run(THREE)["cluster"]
    assert [each["address"] for each in told["members"]] == ADDRESSES
    assert told["voters"] == told["members"]
    # Both are let in, and neither logs in as an application.
    assert len({*told["passwords"].values(), databases.password(SECRET, "shop")}) == 3
    assert min(map(len, told["passwords"].values())) >= 43
    assert run({"web1": web(11), "db1": DB1})["cluster"]["members"] == []


def test_any_host_may_vote_and_is_told_no_password() -> None:
    hosts = {**THREE, "lb1": {"ansible_host": "192.0.2.21"}}
    del hosts["db3"]
    voters = ["db1", "db2", "lb1"]
    told = run(hosts, "lb1", voters)["cluster"]
    assert [each["name"] for each in told["members"]] == ["db1", "db2"]
    assert [each["name"] for each in told["voters"]] == voters
    assert set(told["passwords"].values()) == {""}
    assert run(hosts, "lb1", voters)["certificate"] == ""
    assert run(hosts, "db2", voters)["certificate"]
    even = run(hosts, "lb1", ["lb1", "db1"])
    assert "- the group database_voters has lb1 and db1, the voters that elect" in even["msg"]
    assert "add a host to database_voters, any of the inventory" in even["msg"]


def test_each_member_has_a_certificate_of_its_own_address(tmp_path: Path) -> None:
    """It asks others and is asked by them, over the loopback too."""
    for name, address in zip(("db1", "db2"), ADDRESSES, strict=False):
        told = run(THREE, name)
        (tmp_path / "authority.pem").write_text(told["cluster"]["member_authority"])
        (tmp_path / "member.crt").write_text(told["cluster"]["member_certificate"])
        for purpose in ("sslserver", "sslclient"):
            for where in (address, "127.0.0.1"):
                openssl(
                    *("verify", "-x509_strict", "-purpose", purpose, "-verify_ip", where),
                    *("-CAfile", "authority.pem", "member.crt"),
                    folder=tmp_path,
                )
        (tmp_path / "server.crt").write_text(told["certificate"])
        (tmp_path / "database.pem").write_text(told["cluster"]["authority"])
        openssl("verify", "-verify_ip", address, "-CAfile", "database.pem", "server.crt",
                folder=tmp_path)  # fmt: skip
        # Who may log in as a database is no member by that.
        with pytest.raises(AssertionError):
            openssl("verify", "-CAfile", "authority.pem", "server.crt", folder=tmp_path)


@pytest.mark.parametrize("addresses", [ADDRESSES, ["2001:db8::31", "2001:db8::32"]])
def test_a_url_of_several_is_read_alike_by_what_connects(addresses: list[str]) -> None:
    """By libpq, and by SQLAlchemy, which takes it apart."""
    url = databases.url(SECRET, addresses, "shop")
    read = conninfo_to_dict(url)
    assert read["host"] == ",".join(addresses)
    assert read["target_session_attrs"] == "read-write"
    assert database_hosts(url) == addresses
    parsed = make_url(url).set(drivername="postgresql+psycopg")
    _, options = parsed.get_dialect()().create_connect_args(parsed)
    # Empty ports are libpq's default, and libpq itself adds them.
    assert str(read.pop("port", "")).strip(",") == ""
    assert options.pop("port", "").strip(",") == ""
    assert conninfo_to_dict(**options) == read
    assert postgresql_url(url) is None


def test_data_need_not_move_to_the_databases_that_join_theirs() -> None:
    def is_same(one: list[str], other: list[str], names: list[str]) -> bool:
        first, second = (databases.url(SECRET, each, "shop") for each in (one, other))
        return holdings.is_same(holdings.place(first, names), holdings.place(second, names))

    assert is_same(ADDRESSES[:1], ADDRESSES, ADDRESSES)
    # The first one has left.
    assert is_same(ADDRESSES[:1], ADDRESSES[1:], ADDRESSES)
    assert not is_same(ADDRESSES[:1], ADDRESSES[1:], [])
    assert not is_same(["192.0.2.77"], ADDRESSES, ADDRESSES)
    assert is_same(["2001:db8::31"], ["2001:db8::31", "2001:db8::32"], ["2001:db8::32"])


# A pooler in front of it --------------------------------------------------------------------------


@pytest.mark.parametrize("addresses", [["192.0.2.31"], ["2001:db8::31"], ["127.0.0.1"], ADDRESSES])
def test_a_url_of_the_pooler_differs_by_its_port_alone(addresses: list[str]) -> None:
    """By libpq, and by SQLAlchemy, which takes it apart."""
    direct, pooled = (databases.url(SECRET, addresses, "shop", port) for port in (0, 7432))
    read = conninfo_to_dict(pooled)
    assert str(read.pop("port")) == "7432"
    assert read == {k: v for k, v in conninfo_to_dict(direct).items() if k != "port"}
    assert database_hosts(pooled) == addresses
    assert postgresql_url(pooled) is None
    parsed = make_url(pooled).set(drivername="postgresql+psycopg")
    _, options = parsed.get_dialect()().create_connect_args(parsed)
    assert str(conninfo_to_dict(**options)["port"]) == "7432"


def test_where_connections_are_shared_is_the_same_everywhere() -> None:
    role = yaml.safe_load((PROJECT / "roles/postgresql/defaults/main.yml").read_text())
    on = {databases.POOLER: True}
    hosts: dict[str, Any] = {"web1": web(11), "db1": {**DB1, **on}, "db2": {**DB2, **on}}
    assert found(**hosts, db3={**db(33), **on})["pooler_port"] == role[databases.POOLER_PORT]
    assert found(**THREE)["pooler_port"] == 0
    text = {databases.POOLER: "yes", databases.POOLER_PORT: "7432"}
    assert found(web1=web(11), db1={**DB1, **text})["pooler_port"] == 7432
    said = run({**hosts, "db3": db(33)})["msg"]
    assert (
        "- postgresql_pooler differs between db1 and db3, and any of them may be the primary: "
        "set it for all of them, in group_vars/databases"
    ) in said
    said = run({**hosts, "db3": {**db(33), **on, databases.POOLER_PORT: 7432}})["msg"]
    assert "- postgresql_pooler_port differs between db1 and db3" in said


def test_a_pooler_goes_after_those_who_use_it() -> None:
    seen = {"ansible_facts": {"wsgi_host": {"packages": {"pgbouncer": "1.24"}}}}
    seen["ansible_facts"]["wsgi_host"]["users"] = ["postgresql-pooler"]  # type: ignore[assignment]
    others = {"ansible_facts": {"wsgi_host": {"packages": {"pgbouncer": "1.24"}, "users": []}}}
    hosts: dict[str, Any] = {"web1": {**web(11), **others}, "db1": seen, "db2": others}
    assert former_poolers("databases", groups(hosts), hosts) == "db1"
    # Still wanted, or perhaps still used.
    wanted = {**hosts, "db1": {**seen, databases.POOLER: True}}
    assert former_poolers("databases", groups(hosts), wanted) == "all:!all"
    assert former_poolers("databases", groups(hosts), {**hosts, "web1": web(11)}) == "all:!all"
    assert former_poolers("databases", {"all": []}, {}) == "all:!all"
    # Somebody was not reached, or there is nothing to do.
    assert former_poolers("all:!all", groups(hosts), hosts) == "all:!all"
    assert evaluate("postgresql", "__postgresql_pooler_user", "Debian") == USER


# The authority ------------------------------------------------------------------------------------


def openssl(*words: str, folder: Path) -> str:
    done = subprocess.run(
        ["openssl", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("address", ["192.0.2.31", "2001:db8::31"])
def test_a_certificate_is_what_the_strictest_clients_take(address: str, tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    made, key = authority.certificate(SECRET, address, now)
    (tmp_path / "authority.pem").write_text(authority.authority(SECRET))
    (tmp_path / "server.crt").write_text(made)
    (tmp_path / "server.key").write_text(key)
    openssl(
        *("verify", "-x509_strict", "-purpose", "sslserver", "-verify_ip", address),
        *("-CAfile", "authority.pem", "server.crt"),
        folder=tmp_path,
    )
    of_key = openssl("pkey", "-in", "server.key", "-pubout", folder=tmp_path)
    assert openssl("x509", "-in", "server.crt", "-pubkey", "-noout", folder=tmp_path) == of_key


def test_a_run_with_nothing_to_do_makes_the_same_certificates() -> None:
    now = authority.BEGIN + 100 * DAY
    assert authority.authority(SECRET) == authority.authority(SECRET)
    first = authority.certificate(SECRET, "192.0.2.31", now)
    assert authority.certificate(SECRET, "192.0.2.31", now + 300 * DAY) == first
    assert authority.certificate(SECRET, "192.0.2.32", now)[1] != first[1]
    assert authority.certificate("t" * 64, "192.0.2.31", now)[1] != first[1]
    assert authority.authority("t" * 64) != authority.authority(SECRET)


def test_a_run_brings_a_new_certificate_when_a_third_of_its_life_is_left() -> None:
    seen = set()
    for day in range(0, 3650, 10):
        now = authority.BEGIN + day * DAY
        made = authority.certificate(SECRET, "192.0.2.31", now)[0]
        read = x509.load_pem_x509_certificate(made.encode())
        seen.add(read.serial_number)
        life = read.not_valid_after_utc - read.not_valid_before_utc
        assert read.not_valid_before_utc < now
        assert read.not_valid_after_utc - now >= (life - authority.EARLY) / 3
    assert len(seen) == 5
