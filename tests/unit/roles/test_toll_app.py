"""The application's role: what it refuses, and what it tells the roles that it composes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .preflight import Case, preflight
from .render import FAMILIES, ROLES, evaluate

ROLE = "toll_app"
REQUIRED: dict[str, Any] = {"toll_app_domains": ["app.example.com"]}

AGE = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
# What is set, and what is said about it.
GUARDS: dict[str, tuple[dict[str, Any], str]] = {
    "no domain": ({"toll_app_domains": []}, "toll_app_domains"),
    "a domain twice": (
        {"toll_app_domains": ["a.example.com", "a.example.com"]},
        "names a domain twice",
    ),
    "a domain that is none": (
        {"toll_app_domains": ["https://app.example.com/"]},
        "toll_app_domains",
    ),
    "a short key": ({"toll_app_secret_key": "tiny-7f3a"}, "is shorter than 32 characters"),
    "a key for everybody": (
        {"toll_app_environment": {"TOLL_SECRET_KEY": "seen-7f3a"}},
        "every process on the host could read",
    ),
    "an address for everybody": (
        {"toll_app_environment": {"TOLL_DATABASE_URL": "postgresql://u:seen-7f3a@db/toll"}},
        "set toll_app_database_url; it reaches the application as a credential",
    ),
    "another database": (
        {"toll_app_database_url": "mysql://u:tiny-7f3a@db/toll"},
        "starts with mysql://: write postgresql://user:password@host/database",
    ),
    "a server without a database": (
        {"toll_app_database_url": "postgresql://u:tiny-7f3a@db"},
        "names no database",
    ),
    "copies below none": (
        {"toll_app_keep_backups": -1},
        "toll_app_keep_backups is -1, which is negative",
    ),
    "a journal of a size that is none": ({"toll_app_journal_size": "much"}, "is not a size"),
    "a journal without days": (
        {"toll_app_journal_days": 0},
        "toll_app_journal_days is 0, which is less than 1",
    ),
    "no time for copies": ({"toll_app_backup_calendar": ""}, "is not a calendar event"),
    "copies before their time": ({"toll_app_backup_jitter_seconds": -1}, "is negative"),
    "copies where the application destroys them": (
        {"toll_app_backup_directory": "/var/lib/toll-app/copies"},
        "is where the application can write, and destroy what should outlive it",
    ),
    "a relative place for copies": ({"toll_app_backup_directory": "copies"}, "is not an absolute"),
    "a percent sign in a place to write": (
        {"toll_app_backup_writable_paths": ["/mnt/100%"]},
        "which systemd would read otherwise",
    ),
    "no copy at all": ({"toll_app_backup_keep_days": 0}, "is less than 1: use 1 to 3650"),
    "a recipient without a key": (
        {"toll_app_backup_recipient": "ops@example.com"},
        "is not a public key that age knows",
    ),
    "a private key for a recipient": (
        {"toll_app_backup_recipient": "AGE-SECRET-KEY-1QQQ7F3A"},
        "is a private key",
    ),
    "a command of a shell": (
        {"toll_app_backup_command": ["rsync {file} host:"]},
        "does not begin with the whole path of a program",
    ),
    "a command without time": ({"toll_app_backup_command_time_limit": 0}, "is less than 1: use"),
    "a relative place to fetch to": ({"toll_app_backup_fetch": "copies"}, "toll_app_backup_fetch"),
    "a copy by a wish": ({"toll_app_restore": "yesterday"}, "is not the name of a copy"),
    "a copy that is not here": (
        {"toll_app_restore": "/none/20261125T023000Z-0001.sqlite"},
        "is not a copy on this control node",
    ),
    "a key that is not here": (
        {"toll_app_restore_identity": "/none/key.txt"},
        "is not a file of this control node",
    ),
    "an admin that is none": (
        {"toll_app_admin_name": "anna smith"},
        'toll_app_admin_name ("anna smith") cannot be a user\'s name',
    ),
    "a short password": (
        {"toll_app_admin_password": "tiny-7f3a"},
        "toll_app_admin_password is shorter than 12 characters",
    ),
    "a password of two lines": (
        {"toll_app_admin_password": "tiny-7f3a\ntiny-7f3a"},
        "toll_app_admin_password has several lines",
    ),
    "two sources": (
        {"toll_app_revision": "v1", "toll_app_bundle": "/tmp/x.tar.gz"},
        "toll_app_revision",
    ),
    "a hash of nothing": ({"toll_app_bundle_sha256": "0" * 64}, "is set without toll_app_bundle"),
    "no host at a time": ({"toll_app_serial": 0}, "is neither a number of hosts nor a percentage"),
    "more than all hosts": ({"toll_app_serial": [1, "101%"]}, "toll_app_serial"),
    "no size of a batch": ({"toll_app_serial": []}, "toll_app_serial"),
    "a word for a size": ({"toll_app_serial": "all"}, "toll_app_serial"),
    "yes for a size": ({"toll_app_serial": True}, "toll_app_serial"),
    "fewer than no releases": ({"toll_app_keep_releases": -1}, "toll_app_keep_releases"),
    "a hasty take-over": ({"toll_app_lock_stale": 5}, "is less than 60: use 60 to 86400"),
    "a lock on an unknown host": (
        {"toll_app_lock_host": "web9"},
        "is not a host of the inventory",
    ),
    "a wait of less than nothing": ({"toll_app_lock_wait": -1}, "is not a number of seconds"),
    "a wait of a while": ({"toll_app_lock_wait": "a while"}, "is not a number of seconds"),
    "another form of a status": ({"toll_app_status_format": "xml"}, "use one of table, json"),
    "a word for a number": ({"toll_app_check_time_limit": "soon"}, "toll_app_check_time_limit"),
    "a typing error": ({"toll_app_domain": ["a.example.com"]}, "toll_app_domains"),
}
# Another host of the play that serves the same domain.
KEY = "0123456789abcdef" * 2
BOTH = ["app.example.com", "www.example.com"]
TWIN = {"web2": {"toll_app_domains": BOTH}}
SHARED = {"toll_app_database_url": "postgresql://u:p@db/toll", "toll_app_secret_key": KEY}
HOSTS: dict[str, tuple[Case, str]] = {
    "another system": (
        Case(REQUIRED, {"family": "alpine", "pretty_name": "Alpine Linux 3.22"}),
        "Alpine Linux 3.22",
    ),
    "no systemd": (Case(REQUIRED, {"systemd": {"running": False, "version": 0}}), "systemd"),
    "a full disk": (Case(REQUIRED, {"mounts": {"/": 20}}), "MiB"),
    "a file for each of two hosts": (
        Case({**REQUIRED, **SHARED, "toll_app_database_url": ""}, beside=TWIN),
        "toll_app_database_url is empty, but web2 also serves app.example.com",
    ),
    "hosts that share their second domain": (
        Case(
            {**REQUIRED, **SHARED, "toll_app_database_url": "", "toll_app_domains": BOTH},
            beside={"web2": {"toll_app_domains": ["shop.example.com", "www.example.com"]}},
        ),
        "toll_app_database_url is empty, but web2 also serves www.example.com",
    ),
    "a key for each of two hosts": (
        Case({**REQUIRED, **SHARED, "toll_app_secret_key": ""}, beside=TWIN),
        "toll_app_secret_key is empty, but web2 also serves app.example.com",
    ),
}
GOOD = {
    "the least": Case(REQUIRED),
    "copies that leave the host": Case(
        {
            **REQUIRED,
            "toll_app_backup_recipient": AGE,
            "toll_app_backup_command": ["/usr/bin/rsync", "{file}", "{record}", "host:/srv/"],
            "toll_app_backup_writable_paths": ["/mnt/disk"],
        }
    ),
    "the latest copy": Case({**REQUIRED, "toll_app_restore": "latest"}),
    "a copy by its name": Case(
        {**REQUIRED, "toll_app_restore": "20261125T023000Z-0001-before-restore.dump.age"}
    ),
    "one host at a time": Case({**REQUIRED, "toll_app_serial": 1}),
    "one host at a time, from the command line": Case({**REQUIRED, "toll_app_serial": "1"}),
    "a wait, from the command line": Case({**REQUIRED, "toll_app_lock_wait": "60"}),
    "a share of the hosts": Case({**REQUIRED, "toll_app_serial": "25%"}),
    "one host, then more": Case({**REQUIRED, "toll_app_serial": [1, 5, "100%"]}),
    "a bundle and its hash": Case(
        {**REQUIRED, "toll_app_bundle": __file__, "toll_app_bundle_sha256": "0" * 64}
    ),
    "a key": Case({**REQUIRED, "toll_app_secret_key": KEY}),
    "two hosts of one database": Case({**REQUIRED, **SHARED}, beside=TWIN),
    "two hosts apart": Case(REQUIRED, beside={"web3": {"toll_app_domains": ["b.example.com"]}}),
    "an admin": Case({**REQUIRED, "toll_app_admin_password": "correct horse"}),
}


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What preflight says to each case."""
    cases = {name: Case({**REQUIRED, **variables}) for name, (variables, _) in GUARDS.items()}
    cases |= {name: case for name, (case, _) in HOSTS.items()} | GOOD
    return preflight(ROLE, cases)


@pytest.mark.parametrize("guard", [*GUARDS, *HOSTS])
def test_preflight_names_what_is_wrong(guard: str, said: dict[str, str]) -> None:
    expected = (GUARDS | HOSTS)[guard][1]
    assert expected in said[guard]
    assert "Nothing was changed on" in said[guard]


@pytest.mark.parametrize(
    "guard",
    [guard for guard, (variables, _) in GUARDS.items() if "7f3a" in str(variables)],
)
def test_preflight_does_not_show_a_secret(guard: str, said: dict[str, str]) -> None:
    assert "7f3a" not in said[guard]


@pytest.mark.parametrize("case", GOOD)
def test_preflight_lets_good_variables_pass(case: str, said: dict[str, str]) -> None:
    """One that always complains would pass every test above."""
    assert said[case] == ""


@pytest.mark.parametrize("family", FAMILIES)
def test_credentials_are_the_vaults_or_made_by_the_host(family: str) -> None:
    own = evaluate(ROLE, "__toll_app_credentials", family, **REQUIRED)
    assert own == [{"name": "secret_key", "random": 32}]
    given = evaluate(ROLE, "__toll_app_credentials", family, **REQUIRED, **SHARED)
    assert given == [
        {"name": "secret_key", "value": KEY},
        {"name": "database_url", "value": "postgresql://u:p@db/toll"},
    ]


@pytest.mark.parametrize(
    ("url", "network", "after"),
    [
        # SQLite, and sockets that systemd or PostgreSQL opened: there is nothing to connect to.
        ("", "none", []),
        ("postgresql:///toll", "none", ["postgresql.service"]),
        ("postgresql:///toll?host=/run/postgresql", "none", ["postgresql.service"]),
        ("postgresql://u:p@/toll?x=1&host=%2Frun%2Fpostgresql", "none", ["postgresql.service"]),
        # A server on the host.
        ("postgresql://u:p@localhost/toll", "local", ["postgresql.service"]),
        ("postgresql+psycopg://u:p@127.0.0.1:5433/toll", "local", ["postgresql.service"]),
        ("postgresql://u:p@[::1]/toll", "local", ["postgresql.service"]),
        ("postgresql://u:p@/toll?host=localhost:5433", "local", ["postgresql.service"]),
        # One elsewhere, also as the second choice.
        ("postgresql://u:p@db.example.com/toll", "any", []),
        ("postgresql://u:p@/toll?host=localhost&host=192.0.2.7:5432", "any", []),
        ("postgresql://u:p@localhost.example.com/toll", "any", []),
    ],
)
def test_service_reaches_its_database_and_nothing_else(
    url: str, network: str, after: list[str]
) -> None:
    variables = {**REQUIRED, "toll_app_database_url": url}
    assert evaluate(ROLE, "__toll_app_network", "Debian", **variables) == network
    assert evaluate(ROLE, "__toll_app_after", "Debian", **variables) == after


def play(**urls: str | None) -> dict[str, Any]:
    """What Ansible says of a play with these hosts and the URL that each has, if it has one."""
    hosts = {
        name: {"inventory_hostname": name} | ({} if url is None else {"toll_app_database_url": url})
        for name, url in urls.items()
    }
    return {"hostvars": hosts, "ansible_play_hosts_all": list(urls)}


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        # Each file has one host that knows it.
        ({"a": None, "b": ""}, {"a": "a", "b": "b"}),
        # A shared database is migrated by one, and each database by somebody.
        ({"a": "x", "b": "x", "c": "y"}, {"a": "a", "b": "a", "c": "c"}),
        ({"a": "", "b": "x", "c": "x"}, {"a": "a", "b": "b", "c": "b"}),
    ],
)
def test_a_database_is_migrated_by_one_host(
    hosts: dict[str, str | None], expected: dict[str, str]
) -> None:
    for name, url in hosts.items():
        variables = {**REQUIRED, "toll_app_database_url": url or "", "inventory_hostname": name}
        found = evaluate(ROLE, "__toll_app_data_host", "Debian", **variables, **play(**hosts))
        assert found == expected[name]


def test_password_is_in_no_argument() -> None:
    """Arguments are in the process list of the host, and in the output of a talkative run."""
    variables = {
        **REQUIRED,
        "toll_app_admin_password": "hush-hush-7f3a",
        "toll_app_demo": True,
        "__toll_app_target": "abc",
        "__toll_app_release": {"id": "abc"},
        "ansible_check_mode": False,
    }
    argv = evaluate(ROLE, "__toll_app_migrate_argv", "Debian", **variables)
    assert argv[1:] == ["migrate", "--json", "--seeds", "--release", "abc", "--keep", "10"]
    admin, demo = evaluate(ROLE, "__toll_app_seeds", "Debian", **variables)
    assert (admin["name"], admin["key"], demo["name"]) == ("admin", "admin", "demo")
    assert admin["stdin"] == "hush-hush-7f3a"
    assert "hush-hush-7f3a" not in [*admin["words"], *demo["words"]]
    variables["toll_app_admin_password"] = ""
    assert evaluate(ROLE, "__toll_app_seeds", "Debian", **variables) == [demo]


# Reads commands, as words behind `flask toll`, and fails for one that is not there.
FOLLOW = """
import json, sys
import click
from toll import cli
for words in json.load(sys.stdin):
    command = cli.toll
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known, words
"""


def test_commands_that_the_host_runs_are_those_of_the_application() -> None:
    """A deploy would end at "No such command", after the copy of the database."""
    variables = {**REQUIRED, "toll_app_admin_password": "hush-hush-7f3a", "toll_app_demo": True}
    described = evaluate(ROLE, "__toll_app_described", "Debian", **variables)["commands"]
    seeds = evaluate(ROLE, "__toll_app_seeds", "Debian", **variables)
    start = [*described.pop("flask"), "toll"]
    commands = [*described.values(), *(seed["words"] for seed in seeds)]
    assert [words[: len(start)] for words in commands] == [start] * len(commands)
    result = subprocess.run(
        [sys.executable, "-c", FOLLOW],
        cwd=ROLES.parent / "app",
        input=json.dumps([words[len(start) :] for words in commands]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("family", "installed", "missing"),
    [
        ("Debian", {"nginx": "1"}, ["postgresql-client"]),
        ("Debian", {"postgresql-client-17": "17.6"}, []),
        ("RedHat", {"nginx": "1"}, ["postgresql"]),
        ("RedHat", {"postgresql": "16"}, []),
        # The server's own package name says nothing of the client there.
        ("RedHat", {"postgresql-jdbc": "42"}, ["postgresql"]),
    ],
)
def test_client_of_the_database_is_installed_for_the_copies(
    family: str, installed: dict[str, str], missing: list[str]
) -> None:
    def packages(**more: Any) -> Any:
        variables = {
            **REQUIRED,
            **SHARED,
            "inventory_hostname": "a",
            **play(a=SHARED["toll_app_database_url"]),
            "wsgi_host": {"packages": installed},
            **more,
        }
        return evaluate(ROLE, "__toll_app_missing_packages", family, **variables)

    assert packages() == missing
    assert packages(toll_app_keep_backups=0) == missing
    assert packages(toll_app_keep_backups=0, toll_app_backup=False) == []
    key = {"toll_app_backup_recipient": AGE}
    assert packages(**key) == [*missing, "age"]
    assert packages(**key, toll_app_backup=False) == missing
    assert packages(**key, wsgi_host={"packages": {**installed, "age": "1.2"}}) == missing
    assert packages(toll_app_database_url="") == []
    other = {"inventory_hostname": "b", **play(a=SHARED["toll_app_database_url"], b="x")}
    assert packages(**other, toll_app_database_url="x") == missing


def test_the_three_roles_know_nothing_of_the_application() -> None:
    """They serve any WSGI application, so none of their files names this one."""
    for role in ("nginx", "certbot", "gunicorn_systemd"):
        for path in sorted((ROLES / role).rglob("*")):
            # Who maintains a role is not what it knows.
            if path.is_file() and path.suffix in (".yml", ".j2") and path.parent.name != "meta":
                text = path.read_text()
                assert "toll_app" not in text, path
                assert "toll-app" not in text, path


def load(path: Path) -> list[dict[str, Any]]:
    """The tasks of a file, those in blocks with their block."""
    return list(yaml.safe_load(path.read_text()))


def tasks(listed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every task, those in blocks included, but not those of a rescue."""
    for task in listed:
        if "block" in task:
            yield from tasks([*task["block"], *task.get("always", [])])
        else:
            yield task


def imports(file: str) -> list[str]:
    """Files of tasks that one of them imports, those of other roles left out, in order."""
    listed = tasks(load(ROLES / ROLE / "tasks" / file))
    key = "ansible.builtin.import_tasks"
    return [task[key] for task in listed if key in task]


def test_site_and_deploy_run_the_same_stages_in_the_same_order() -> None:
    """What a release goes through is written once: two ways of deploying would drift apart."""
    # A deploy alone has to see first that site.yml was there.
    stages = [each for each in imports("deploy.yml") if each != "set_up.yml"]
    assert stages[1:5] == ["lock.yml", "build.yml", "programs.yml", "ship.yml"]
    # Packages, timers, and where the data are, are a matter of setting up a host.
    own = ("keep.yml", "install.yml", "schedule.yml")
    assert [each for each in imports("main.yml") if each not in own] == stages


def test_lock_is_freed_whatever_happens() -> None:
    for file in ("main.yml", "deploy.yml", "rollback.yml", "restore.yml"):
        [outer] = [each for each in load(ROLES / ROLE / "tasks" / file) if "block" in each]
        [free] = outer["always"]
        assert free["ansible.builtin.import_tasks"] == "unlock.yml"
        first, *_ = outer["block"][0]["block"]
        assert first["ansible.builtin.import_tasks"] == "lock.yml"


@pytest.mark.parametrize(
    ("variable", "role", "default"),
    [
        ("__toll_app_https_port", "nginx", "nginx_https_port"),
        ("__toll_app_certificate", "certbot", "certbot_links_directory"),
    ],
)
def test_default_that_stands_in_for_another_roles_is_the_same(
    variable: str, role: str, default: str
) -> None:
    """A deploy does not run the other roles, and so has not their defaults."""
    theirs = yaml.safe_load((ROLES / role / "defaults" / "main.yml").read_text())[default]
    alone = evaluate(ROLE, variable, "Debian", **REQUIRED)
    assert str(alone).split("/app.example.com")[0] == str(theirs)
    set_by_hand = evaluate(ROLE, variable, "Debian", **REQUIRED, **{default: "/elsewhere"})
    assert str(set_by_hand).startswith("/elsewhere")


def test_every_stage_of_a_role_is_told_the_same() -> None:
    """A preflight that checks other values than those that are used afterwards checks nothing."""
    told: dict[str, list[Any]] = {}
    for task in tasks(load(ROLES / ROLE / "tasks" / "main.yml")):
        if imported := task.get("ansible.builtin.import_role"):
            told.setdefault(imported["name"], []).append(task["vars"])
    assert set(told) == {"nginx", "certbot", "gunicorn_systemd"}
    for variables in told.values():
        assert len(variables) > 1
        assert all(each == variables[0] for each in variables)
