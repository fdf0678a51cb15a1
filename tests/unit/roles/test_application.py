"""The application's role: what it refuses, and what it tells the roles that it composes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import trusted

from .describing import of_roles, shop, toll_app
from .preflight import Case, check, preflight
from .render import FAMILIES, ROLES, evaluate

ROLE = "application"

AGE = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
# What is said of the application, or set beside it, and the message.
GUARDS: dict[str, tuple[dict[str, Any], str]] = {
    "no application": ({"applications": {}}, "applications describes no application"),
    "a list of applications": ({"applications": [{"name": "shop"}]}, "a dictionary is needed"),
    "an application of nothing": (
        {"applications": {"shop": None}},
        "applications.shop is null: remove it, or describe it",
    ),
    "an application that is text": (
        {"applications": {"shop": "../shop"}},
        # It may be one.
        "applications.shop is a secret, not shown here; a dictionary is needed",
    ),
    "no domain": (toll_app(domains=[]), "applications.toll-app.domains names no domain"),
    "a domain twice": (
        toll_app(domains=["a.example.com", "a.example.com"]),
        "applications.toll-app.domains names a domain twice",
    ),
    "a domain that is none": (
        toll_app(domains=["https://app.example.com/"]),
        'applications.toll-app.domains[0] is "https://app.example.com/"',
    ),
    "no source": (
        {"applications": {"shop": {"domains": ["app.example.com"]}}},
        "applications.shop.source is not set",
    ),
    "an empty source": (shop(source=""), "applications.shop.source names neither a directory"),
    "a source that is not there": (
        shop(source="/none"),
        "applications.shop.source.directory is /none, which is not a directory of the control",
    ),
    "a source without a lock file": (
        shop(source="docs"),
        "which has no lock file on the control node",
    ),
    "a lock file that is not there": (
        shop(source={"directory": "app", "lock": "uv.lock"}),
        "which has no lock file on the control node",
    ),
    "a revision of a directory": (
        shop(source={"directory": "app", "revision": "v1"}),
        "applications.shop.source.revision is set without source.repository",
    ),
    "an absolute directory of a repository": (
        shop(source={"repository": "https://git.example/shop", "directory": "/backend"}),
        "applications.shop.source.directory is /backend, which is not a path below source.repo",
    ),
    "a directory above a repository": (
        shop(source={"repository": "https://git.example/shop", "directory": "a/../../b"}),
        "write it from the root of the repository, for example backend, or leave it out",
    ),
    "a directory of two lines": (
        shop(source={"directory": "app\n"}),
        'app\\n", which has a line break',
    ),
    "a repository of two lines": (
        shop(source={"repository": "https://deploy:tiny-7f3a@git.example.com/shop.git\n"}),
        'source.repository is "https://git.example.com/shop.git\\n", which has a line break',
    ),
    "a variable of another's": (
        shop(web={"wrokers": 3}),
        "applications.shop.web has wrokers, which no variable of role gunicorn_systemd is called",
    ),
    "what follows from the rest": (
        shop(web={"user": "root", "workers": 3}),
        "applications.shop.web has user, which no variable",
    ),
    "a name with a capital": (
        {"applications": {"Shop": {"source": "app", "domains": ["a.example.com"]}}},
        "applications.Shop.name cannot be the name of an application",
    ),
    "a long name": (
        {"applications": {"s" * 32: {"source": "app", "domains": ["a.example.com"]}}},
        "cannot be the name of an application",
    ),
    "a name that ends in a hyphen": (
        {"applications": {"shop-": {"source": "app", "domains": ["a.example.com"]}}},
        "cannot be the name of an application",
    ),
    "a short key": (toll_app(secrets={"secret_key": "tiny-7f3a"}), "is shorter than 32 characters"),
    "a key of a number": (
        shop(secrets={"key": 123456}),
        "applications.shop.secrets has key, which is neither text in one line nor",
    ),
    "a key of two lines": (
        shop(secrets={"key": "tiny-7f3a\ntiny-7f3a"}),
        "applications.shop.secrets has key, which is neither text in one line nor",
    ),
    "a key of a few random bytes": (
        shop(secrets={"key": {"random_bytes": 4}}),
        "applications.shop.secrets has key, which is neither text in one line nor",
    ),
    "a database among the secrets": (
        shop(secrets={"database_url": "postgresql://u:tiny-7f3a@db/shop"}),
        "applications.shop.secrets has database_url, which is the credential",
    ),
    "a key for everybody": (
        toll_app(environment={"TOLL_SECRET_KEY": "seen-7f3a"}),
        "every process on the host could read",
    ),
    "an address for everybody": (
        toll_app(environment={"TOLL_DATABASE_URL": "postgresql://u:seen-7f3a@db/toll"}),
        "set secrets.secret_key or data.database_url; they reach the application as credentials",
    ),
    "another database": (
        toll_app(data={"database_url": "mysql://u:tiny-7f3a@db/toll"}),
        "starts with mysql://: write postgresql://user:password@host/database",
    ),
    "a server without a database": (
        toll_app(data={"database_url": "postgresql://u:tiny-7f3a@db"}),
        "names no database",
    ),
    "copies below none": (
        toll_app(data={"migration_copies": -1}),
        "applications.toll-app.data.migration_copies is -1, which is negative",
    ),
    "a mount with a percent sign": (
        toll_app(data={"mounts": ["/mnt/100%"]}),
        "applications.toll-app.data.mounts has a path with a percent sign",
    ),
    "a file of data elsewhere": (
        shop(data={"sqlite": "../blog/blog.db"}),
        "applications.shop.data.sqlite or data.directories has ../blog/blog.db, which is no path",
    ),
    "static files of the host": (
        shop(static="/etc"),
        "applications.shop.static is not a path below the application's directory",
    ),
    "a file of no release": (
        shop(data={"packaged": "app/../../x"}),
        "applications.shop.data.packaged is not a path below a release",
    ),
    "migrations of a package": (
        shop(data={"migrations": ["app/shop/migrations/*", "site-packages/alpha/*"]}),
        "applications.shop.data.migrations has a pattern for no file of a release's application",
    ),
    "a table that is none": (
        shop(data={"schema_table": "a; drop"}),
        "applications.shop.data.schema_table cannot be the name of a table",
    ),
    "a command that nothing runs": (
        shop(data={"commands": {"migrat": ["x"]}}),
        "applications.shop.data.commands has migrat, which nothing runs: use backup, counts",
    ),
    "a command of one text": (
        shop(data={"commands": {"migrate": "python manage.py migrate"}}),
        "applications.shop.data.commands has migrate without a list of words",
    ),
    "migrations that nobody can ask for": (
        shop(data={"commands": {"migrate": ["python", "manage.py", "migrate"]}}),
        "applications.shop.data.commands has migrate and no schema, which says whether a migration",
    ),
    "a move of data that nothing carries": (
        {**shop(data={"sqlite": "shop.db"}), "application_move": True},
        "applications.shop.data.commands has no export and import, by which playbooks/",
    ),
    "a network beside the network": (
        shop(web={"network": "any"}),
        "applications.shop.web has network, which no variable",
    ),
    "a journal of a size that is none": (
        {"application_journal_size": "much"},
        'application_journal_size is "much", which is not a size',
    ),
    "a journal without days": (
        {"application_journal_days": 0},
        "application_journal_days is 0, which is less than 1",
    ),
    "no time for copies": (toll_app(backup={"calendar": ""}), "is not a calendar event"),
    "copies before their time": (toll_app(backup={"jitter_seconds": -1}), "is negative"),
    "copies where the application destroys them": (
        toll_app(backup={"directory": "/var/lib/toll-app/copies"}),
        "is where the application can write, and destroy what should outlive it",
    ),
    "copies beside its Redis": (
        toll_app(backup={"directory": "/var/lib/toll-app-redis"}),
        "is where the application can write, and destroy what should outlive it",
    ),
    "a place for copies with a slash at its end": (
        toll_app(backup={"directory": "/mnt//copies/"}),
        "applications.toll-app.backup.directory is /mnt//copies/, where a plain path is needed: "
        "write /mnt/copies",
    ),
    "a place for copies with a dot": (
        toll_app(backup={"directory": "/mnt/./copies"}),
        "is /mnt/./copies, where a plain path is needed: write /mnt/copies",
    ),
    "a place for copies that goes up": (
        toll_app(backup={"directory": "/mnt/copies/../.."}),
        "goes up with ..",
    ),
    "a relative place for copies": (toll_app(backup={"directory": "copies"}), "is not an absolute"),
    "a percent sign in a place to write": (
        toll_app(backup={"writable_paths": ["/mnt/100%"]}),
        "which systemd would read otherwise",
    ),
    "no copy at all": (toll_app(backup={"keep_days": 0}), "is less than 1: use 1 to 3650"),
    "a recipient without a key": (
        toll_app(backup={"recipient": "ops@example.com"}),
        "is not a public key that age knows",
    ),
    "a private key for a recipient": (
        toll_app(backup={"recipient": "AGE-SECRET-KEY-1QQQ7F3A"}),
        "is a private key",
    ),
    "a command of a shell": (
        toll_app(backup={"command": ["rsync {file} host:"]}),
        "applications.toll-app.backup.command must start with the absolute path of a program",
    ),
    "a command without time": (
        toll_app(backup={"command_time_limit_seconds": 0}),
        "is less than 1: use",
    ),
    "copies of nothing": (
        shop(backup={"enabled": True}),
        "applications.shop.backup.enabled is true, but data has neither a database",
    ),
    "a relative place to fetch to": ({"application_backup_fetch": "copies"}, "application_backup"),
    "a copy by a wish": ({"application_restore": "yesterday"}, "is not the name of a copy"),
    "a copy that is not here": (
        {"application_restore": "/none/20261125T023000Z-0001.sqlite"},
        "is not a copy on this control node",
    ),
    "a key that is not here": (
        {"application_restore_identity": "/none/key.txt"},
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
        {"application_revision": "v1", "application_bundle": "/tmp/x.tar.gz"},
        "application_revision",
    ),
    "a hash of nothing": (
        {"application_bundle_sha256": "0" * 64},
        "is set without application_bundle",
    ),
    "no host at a time": ({"application_serial": 0}, "is neither a number of hosts nor a percen"),
    "more than all hosts": ({"application_serial": [1, "101%"]}, "application_serial"),
    "no size of a batch": ({"application_serial": []}, "application_serial"),
    "a word for a size": ({"application_serial": "all"}, "application_serial"),
    "yes for a size": ({"application_serial": True}, "application_serial"),
    "fewer than no releases": (toll_app(keep_releases=-1), "applications.toll-app.keep_releases"),
    "a hasty take-over": (
        {"application_lock_stale_seconds": 5},
        "is less than 60: use 60 to 86400",
    ),
    "a lock on an unknown host": (
        {"application_lock_host": "web9"},
        "is not a host of the inventory",
    ),
    "a wait of less than nothing": (
        {"application_lock_wait_seconds": -1},
        "is not a number of seconds",
    ),
    "a wait of a while": (
        {"application_lock_wait_seconds": "a while"},
        "is not a number of seconds",
    ),
    "a seal for a while": ({"application_seal_hours": "a while"}, "is not a number of hours"),
    "another form of a status": ({"application_status_format": "xml"}, "use one of table, json"),
    "a word for a number": (
        toll_app(health={"time_limit_seconds": "soon"}),
        "applications.toll-app.health.time_limit_seconds",
    ),
    "a typing error in a member": (
        toll_app(domain=["a.example.com"]),
        "applications.toll-app.domain is not a key of applications.toll-app; did you mean domains?",
    ),
    "a typing error in a variable": (
        {"application_journal_sise": "1G"},
        "did you mean application_journal_size?",
    ),
    "an application that is nowhere": (
        {"application": "shup", **shop()},
        "or application is shup, which this inventory does not have: use one of shop",
    ),
}
# Directories of others, which would become root's alone.
GUARDS |= {
    f"copies in {place}": (
        toll_app(backup={"directory": place}),
        f"applications.toll-app.backup.directory is {place}, a place of the system, of its users "
        "or of this project, and would become root's alone: choose a directory for nothing but "
        "the copies, for example /var/backups/toll-app",
    )
    for place in (
        *("/", "//", "/home", "/home/", "/home/anna", "/etc", "/etc/copies", "/tmp", "/tmp/copies"),
        *("/opt", "/opt/toll-app", "/opt/copies", "/usr/local/copies", "/run/copies", "/boot/a"),
        *(
            "/dev/shm/a",
            "/srv",
            "/mnt",
            "/copies",
            "/var",
            "/var/lib",
            "/var/backups",
            "/var/tmp/a",
        ),
        *("/var/log/nginx", "/var/www", "/var/lib/postgresql/copies", "/var/lib/config-tree"),
        *("/var/lib/pgbackrest", "/var/lib/dpkg", "/var/lib/systemd/timers"),
    )
}
SECOND = {"source": "app", "domains": ["blog.example.com"]}


def two(first: dict[str, Any], second: dict[str, Any], name: str = "blog") -> dict[str, Any]:
    """Variables of a host with two applications."""
    return {"applications": {**shop(**first)["applications"], name: {**SECOND, **second}}}


# Two on one host would take something from each other.
CLASHES: dict[str, tuple[dict[str, Any], str]] = {
    "one domain in two": (
        two({}, {"domains": ["blog.example.com", "APP.example.com"]}),
        "applications.shop.domains has app.example.com, which another application of this host",
    ),
    "one port in two": (
        two({"web": {"bind": ["127.0.0.1:5000"]}}, {"web": {"bind": ["[::1]:5000"]}}),
        "applications.shop.web.bind has port 5000, which another application of this host has too: "
        "choose another port",
    ),
    "one place for copies of two": (
        two({"backup": {"directory": "/srv/copies"}}, {"backup": {"directory": "/srv/copies"}}),
        "applications.blog.backup.directory is where another application of this host has its",
    ),
    "copies below those of another": (
        two({"backup": {"directory": "/mnt/copies"}}, {"backup": {"directory": "/mnt/copies/a/b"}}),
        "applications.blog.backup.directory is where another application of this host has its "
        "copies (shop: /mnt/copies/), or above or below that: choose another directory, for "
        "example /var/backups/blog",
    ),
    "copies above those of another": (
        two({"backup": {"directory": "/mnt/copies"}}, {"backup": {"directory": "/mnt/copies/a/b"}}),
        "applications.shop.backup.directory is where another application of this host has its "
        "copies (blog: /mnt/copies/a/b/), or above or below that",
    ),
    "copies in one place, written in two ways": (
        two({"backup": {"directory": "/mnt/copies"}}, {"backup": {"directory": "/mnt//copies/"}}),
        "applications.shop.backup.directory is where another application of this host has its",
    ),
    "copies in the data of another": (
        two({}, {"backup": {"directory": "/var/lib/shop/copies"}}),
        "applications.blog.backup.directory is /var/lib/shop/copies, where another application of "
        "this host has its data: choose another directory, for example /var/backups/blog",
    ),
    "copies in the Redis of another": (
        two({}, {"backup": {"directory": "/var/lib/shop-redis"}}),
        "where another application of this host has its data",
    ),
    "units of one name": (
        two({}, {}, "shop-backup"),
        "applications.shop.name is the beginning of shop-backup, whose units would be mistaken",
    ),
    "measured under one name": (
        two({}, {}, "shop-metrics"),
        "applications.shop.name is the beginning of shop-metrics, whose units would be mistaken",
    ),
    "a bundle for two": (
        {**two({}, {}), "application_bundle": __file__},
        "belongs to one application, and this run covers shop and blog: name it with "
        "-e application=NAME",
    ),
    "a move of two": (
        {**two({}, {}), "application_move": True},
        "moves the data of one application, and there are shop and blog: name it",
    ),
}
# Another host of the play that serves the same domain.
KEY = "0123456789abcdef" * 2
BOTH = ["app.example.com", "www.example.com"]
TWIN = {"web2": toll_app(domains=BOTH)}
DATA = {"database_url": "postgresql://u:p@db/toll"}
SHARED: dict[str, Any] = {"data": DATA, "secrets": {"secret_key": KEY}}


def fleet(number: int, address: str = "192.0.2.{}", **variables: Any) -> Case:
    """Hosts that serve one name; what is set is set for all of them."""
    others = {
        f"web{n}": {**shop(), "ansible_host": address.format(n), **variables}
        for n in range(2, number + 1)
    }
    return Case({**shop(), **variables}, beside=others)


def fleet_database(secret: str = "s" * 64, **databases: Any) -> Case:
    """Two hosts that serve toll-app, and others for its database."""
    told = toll_app(secrets=SHARED["secrets"])
    return Case(
        {**told, "ansible_host": "192.0.2.1", "application_database_secret": secret},
        beside={"web2": {**told, "ansible_host": "192.0.2.2"}, **databases},
        groups={"web": ["web1", "web2"], "databases": list(databases)},
    )


HOSTS: dict[str, tuple[Case, str]] = {
    "copies in the data of one that is not described any more": (
        Case(
            shop(backup={"directory": "/var/lib/gone/copies"}),
            {"trees": ["gone", "gone-description", "shop", "shop-description"]},
        ),
        "applications.shop.backup.directory is /var/lib/gone/copies, where another application",
    ),
    "a host of the same name without an address": (
        fleet(2, "web{}.example.com"),
        'application_peer_address ("") is not set for web2, which also serve names of web1. Their '
        "ansible_host is no IP address",
    ),
    "more hosts of one name than there are certificates": (
        fleet(6),
        "gives 6 hosts the same names (web1, web2, web3, web4, web5, web6). Each obtains and "
        "renews a certificate of its own, of which Let's Encrypt issues 5 a week for the same set "
        "of names: add a name of each host's own to its domains, such as "
        '"{{ inventory_hostname }}.example.com"',
    ),
    "another system": (
        Case(toll_app(), {"distribution": "alpine", "pretty_name": "Alpine Linux 3.22"}),
        "Alpine Linux 3.22",
    ),
    "no systemd": (Case(toll_app(), {"systemd": {"running": False, "version": 0}}), "systemd"),
    "a full disk": (Case(toll_app(), {"mounts": {"/": 20}}), "MiB"),
    "a disk for one of two": (
        Case(two({}, {}), {"mounts": {"/": 500}}),
        "/opt and /var/lib has 500 MiB free on the file system /; 600 MiB are needed",
    ),
    "an old Python": (
        Case(toll_app(), {"python": {"version": "3.9", "executable": "/usr/bin/python3"}}),
        "3.11 or newer is needed",
    ),
    "a file for each of two hosts": (
        Case(toll_app(secrets=SHARED["secrets"]), beside=TWIN),
        "applications.toll-app.data.database_url is empty, but web2 also serves app.example.com",
    ),
    "hosts that share their second domain": (
        Case(
            toll_app(secrets=SHARED["secrets"], domains=BOTH),
            beside={"web2": toll_app(domains=["shop.example.com", "www.example.com"])},
        ),
        "applications.toll-app.data.database_url is empty, but web2 also serves www.example.com",
    ),
    "a key for each of two hosts": (
        Case(toll_app(data=DATA), beside=TWIN),
        "applications.toll-app.secrets leaves secret_key to be made by each host, but web2 also",
    ),
    "a balancer of which only a name is known": (
        Case(
            shop(),
            beside={"lb1": {"ansible_host": "lb1.example.com"}},
            groups={"balancers": ["lb1"]},
        ),
        'application_peer_address ("") is not set for lb1 of the group balancers, whose',
    ),
    "a monitoring server of which only a name is known": (
        Case(
            {
                **shop(site={"allow": ["192.0.2.0/24"]}),
                "monitoring_enabled": True,
                "monitoring_server": "watch",
            },
            beside={"watch": {"ansible_host": "watch.example.com"}},
            groups={"monitoring": ["watch"]},
        ),
        'application_peer_address ("") is not set for watch, whose monitoring asks for the health '
        "path of shop, where basic_auth, allow or deny keeps others out",
    ),
    "two hosts of the group databases": (
        fleet_database(db1={"ansible_host": "192.0.2.31"}, db2={"ansible_host": "192.0.2.32"}),
        "the group databases has db1 and db2, the voters that elect the primary database: if "
        "one is lost, the others are no majority: add a host to databases, or create a group "
        "database_voters with db1 and db2 and one more host of the inventory, such as a balancer",
    ),
    "a database of which only a name is known": (
        fleet_database(db1={"ansible_host": "db1.example.com"}),
        'application_peer_address ("") is not set for db1, whose ansible_host is not an IP address',
    ),
    "a database without a secret": (
        fleet_database(secret="", db1={"ansible_host": "192.0.2.31"}),
        "application_database_secret is not set, and the passwords for the group databases are "
        "derived from it: generate one with `openssl rand -hex 32`",
    ),
    "a database for an application called postgres": (
        Case(
            {
                "applications": {
                    "postgres": {
                        "source": "app",
                        "domains": ["app.example.com"],
                        "data": {"postgresql": True},
                    }
                },
                "ansible_host": "192.0.2.1",
                "application_database_secret": "s" * 64,
            },
            beside={"db1": {"ansible_host": "192.0.2.31"}},
            groups={"web": ["web1"], "databases": ["db1"]},
        ),
        "applications.postgres.name is a name that PostgreSQL keeps for itself",
    ),
    "a database of the fleet where there is none": (
        Case(shop(data={"postgresql": True})),
        "applications.shop.data.postgresql is true, but the inventory has no host in the group "
        "databases, and data.database_url is empty: put a host into the group databases, set",
    ),
    "the same over what the role says": (
        Case(toll_app(data={"postgresql": True})),
        "applications.toll-app.data.postgresql is true, but the inventory has no host in the group",
    ),
    "the credential past the pooler": (
        Case(
            {
                "applications": {
                    "shop": {
                        "source": "app",
                        "domains": ["app.example.com"],
                        "data": {"postgresql": True},
                        "secrets": {"database_url_direct": "x"},
                    }
                },
                "ansible_host": "192.0.2.1",
                "application_database_secret": "s" * 64,
            },
            beside={"db1": {"ansible_host": "192.0.2.31"}},
            groups={"web": ["web1"], "databases": ["db1"]},
        ),
        "applications.shop.secrets has database_url_direct, which is the credential of PostgreSQL "
        "itself where connections are shared: give it another name",
    ),
    "a balancer on the ports of nginx": (
        Case({**shop(), "ansible_host": "192.0.2.1"}, groups={"balancers": ["web1"]}),
        "the ports of nginx (80 and 443) are those of HAProxy on web1, a host of both web and",
    ),
}
GOOD = {
    "a role that knows PostgreSQL, without a database of the fleet": Case(toll_app()),
    "another database than the fleet's, which has none": Case(
        shop(data={"postgresql": True, "database_url": "postgresql://u:p4ssw0rd@db.example.com/s"})
    ),
    "as many hosts of one name as certificates": fleet(5),
    "many hosts whose authority has no such limit": fleet(
        6, certbot_directory_url="https://ca.example.com/dir"
    ),
    "many hosts without an authority": fleet(6, certbot_obtain=False),
    "hosts whose address is told": fleet(
        2, "web{}.example.com", application_peer_address="192.0.2.9"
    ),
    "hosts that do not ask one another": fleet(2, "web{}.example.com", nginx_challenge_peers=[]),
    "the least": Case(shop()),
    "the least of toll-app": Case(toll_app()),
    "a source in full": Case(shop(source={"directory": "app", "lock": "requirements.txt"})),
    "a balancer": Case(
        shop(), beside={"lb1": {"ansible_host": "192.0.2.8"}}, groups={"balancers": ["lb1"]}
    ),
    "a database of the fleet": fleet_database(db1={"ansible_host": "192.0.2.31"}),
    "a database that nobody uses": Case(
        shop(),
        beside={"db1": {"ansible_host": "db1"}},
        groups={"web": ["web1"], "databases": ["db1"]},
    ),
    "a balancer of which nginx is told": Case(
        {**shop(), "nginx_trusted_proxies": ["192.0.2.8"]},
        beside={"lb1": {"ansible_host": "lb1.example.com"}},
        groups={"balancers": ["lb1"]},
    ),
    "a balancer that serves as well": Case(
        {
            **shop(),
            "ansible_host": "192.0.2.1",
            "nginx_http_port": 8080,
            "nginx_https_port": 8443,
            "nginx_public_http_port": 80,
            "nginx_public_https_port": 443,
        },
        groups={"balancers": ["web1"]},
    ),
    "a directory of a repository": Case(
        shop(source={"repository": "https://git.example/shop", "directory": "services/backend"})
    ),
    "a directory from home": Case(
        shop(source=f"~/{os.path.relpath(ROLES.parent / 'app', Path.home())}")
    ),
    "a repository": Case(shop(source={"repository": "https://git.example/shop", "revision": "v1"})),
    "a lock file alone": Case(shop(source={"lock": "app/requirements.txt"})),
    "two that leave each other alone": Case(
        two({"web": {"bind": ["127.0.0.1:5000"]}}, {"web": {"bind": ["127.0.0.1:5001"]}})
    ),
    "one of two": Case({**two({}, {}), "application": "blog"}),
    "another's application": Case(
        {**shop(), "application": "blog"}, beside={"web2": {"applications": {"blog": SECOND}}}
    ),
    "copies of directories, without a command": Case(shop(data={"directories": ["uploads"]})),
    "copies of files, without a command": Case(shop(data={"sqlite": "shop.db"})),
    "copies of a server's database, without a command": Case(
        shop(data={"database_url": "postgresql://shop:word@db/shop"})
    ),
    "copies that leave the host": Case(
        toll_app(
            backup={
                "recipient": AGE,
                "command": ["/usr/bin/rsync", "{file}", "{record}", "host:/srv/"],
                "writable_paths": ["/mnt/disk"],
            }
        )
    ),
    "copies side by side": Case(
        two({"backup": {"directory": "/mnt/copies/a"}}, {"backup": {"directory": "/mnt/copies/ab"}})
    ),
    "copies of one that was set up before": Case(shop(), {"trees": ["shop", "shop-description"]}),
    **{
        f"copies in {place}": Case(toll_app(backup={"directory": place}))
        for place in (
            *("/var/backups/toll-app", "/var/backups/copies/of.toll", "/var/lib/backups/toll-app"),
            *("/srv/copies", "/mnt/disk", "/home/anna/copies", "/root/copies", "/optional/copies"),
            *("/var/copies", "/var/lib/toll-apps"),
        )
    },
    "the latest copy": Case({**toll_app(), "application_restore": "latest"}),
    "a copy by its name": Case(
        {
            **toll_app(),
            "application_restore": "20261125T023000Z-0001-before-restore.dump.age",
        }
    ),
    "one host at a time": Case({**toll_app(), "application_serial": 1}),
    "one host at a time, from the command line": Case({**toll_app(), "application_serial": "1"}),
    "a wait, from the command line": Case({**toll_app(), "application_lock_wait_seconds": "60"}),
    "no seal, from the command line": Case({**toll_app(), "application_seal_hours": "0"}),
    "a share of the hosts": Case({**toll_app(), "application_serial": "25%"}),
    "one host, then more": Case({**toll_app(), "application_serial": [1, 5, "100%"]}),
    "a bundle and its hash": Case(
        {
            **toll_app(),
            "application_bundle": __file__,
            "application_bundle_sha256": "0" * 64,
        }
    ),
    "a key": Case(toll_app(secrets={"secret_key": KEY})),
    "two hosts of one database": Case(
        toll_app(**SHARED), beside={"web2": {**TWIN["web2"], "ansible_host": "192.0.2.2"}}
    ),
    "two hosts without data": fleet(2),
    "two hosts apart": Case(toll_app(), beside={"web3": toll_app(domains=["b.example.com"])}),
    "an admin": Case({**toll_app(), "toll_app_admin_password": "correct horse"}),
    "a role for the one, none for the other": Case(
        {"applications": {**toll_app()["applications"], "blog": SECOND}}
    ),
}


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What preflight says to each case."""
    told = GUARDS | CLASHES
    cases = {name: Case({**toll_app(), **variables}) for name, (variables, _) in told.items()}
    cases |= {name: case for name, (case, _) in HOSTS.items()} | GOOD
    # The role that describes an application comes first.
    brought = {name: case for name, case in cases.items() if of_roles(case.variables)}
    return {
        **preflight(ROLE, cases),
        **{k: v for k, v in preflight("toll_app", brought).items() if v},
    }


@pytest.mark.parametrize("guard", [*GUARDS, *CLASHES, *HOSTS])
def test_preflight_names_what_is_wrong(guard: str, said: dict[str, str]) -> None:
    expected = (GUARDS | CLASHES | HOSTS)[guard][1]
    assert expected in said[guard]
    assert "Nothing was changed on" in said[guard]


def test_a_directory_that_is_not_there_lacks_no_lock_file(said: dict[str, str]) -> None:
    """Whoever mistyped it was told to write one first."""
    assert "lock file on the control node" not in said["a source that is not there"]


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
    own = evaluate(ROLE, "__application_entry.credentials", family, **trusted(toll_app()))
    assert own == [{"name": "secret_key", "random_bytes": 32}]
    told = trusted(toll_app(**SHARED))
    assert evaluate(ROLE, "__application_entry.credentials", family, **told) == [
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
    told = trusted(shop(data={"database_url": url}))
    service = evaluate(ROLE, "__application_entry.service", "Debian", **told)
    assert (service["network"], service["after"]) == (network, after)
    # What somebody says goes before.
    told = trusted(shop(data={"database_url": url}, network="any", web={"after": ["x.service"]}))
    service = evaluate(ROLE, "__application_entry.service", "Debian", **told)
    assert (service["network"], service["after"]) == ("any", ["x.service"])


def play(**urls: str | None) -> dict[str, Any]:
    """What Ansible says of a play with these hosts and the URL that each has, if it has one."""
    hosts = {
        name: {
            "inventory_hostname": name,
            **trusted(toll_app(**({} if url is None else {"data": {"database_url": url}}))),
        }
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
    told = play(**hosts)
    for name in hosts:
        found = evaluate(
            ROLE, "__application_data_host", "Debian", **{**told["hostvars"][name], **told}
        )
        assert found == expected[name]


def test_hosts_that_share_a_database_note_its_seeds() -> None:
    """The next of them stands for the database once the first is gone, and would run them again."""
    tasks = yaml.safe_load((ROLES / "application/tasks/migrate.yml").read_text())
    (task,) = [each for each in tasks if "Note the seeds" in each["name"]]
    for demo in (True, False):
        told = {**play(a="x", b="x", c=""), "toll_app_demo": demo}
        noting = [
            name
            for name in "abc"
            if all(
                evaluate(ROLE, each, "Debian", **{**told["hostvars"][name], **told})
                for each in task["when"]
            )
        ]
        assert noting == (["b"] if demo else [])


@pytest.mark.parametrize(
    ("kind", "moves", "new"),
    [
        ("postgresql", False, False),
        ("postgresql", True, True),
        ("sqlite", True, True),
        ("", False, True),
    ],
)
def test_another_password_is_no_other_database(kind: str, moves: bool, new: bool) -> None:
    """In check mode the host has the URL of before, so the program cannot look at another one."""
    told = {
        **trusted(shop()),
        "__application_holdings": {"database": {"kind": kind, "moves": moves}},
    }
    files = {"/etc/shop/credentials/database_url": "x"}
    for tree, expected in (({"files": files}, new), ({"files": {}}, False)):
        variables = {**told, "__gunicorn_systemd_tree": tree}
        assert evaluate(ROLE, "__application_new_database", "Debian", **variables) is expected


def test_password_is_in_no_argument() -> None:
    """Arguments are in the process list of the host, and in the output of a talkative run."""
    variables = {
        **trusted(toll_app()),
        "toll_app_admin_password": "hush-hush-7f3a",
        "toll_app_demo": True,
        "__application_target": "abc",
        "__application_release": {"id": "abc"},
        "ansible_check_mode": False,
    }
    argv = evaluate(ROLE, "__application_migrate_argv", "Debian", **variables)
    assert argv[1:] == ["migrate", "--json", "--seeds", "--release", "abc", "--keep", "10"]
    admin, demo = evaluate(ROLE, "__application_entry.data.seeds", "Debian", **variables)
    assert (admin["name"], admin["key"], demo["name"]) == ("admin", "admin", "demo")
    assert admin["stdin"] == "hush-hush-7f3a"
    assert "hush-hush-7f3a" not in [*admin["words"], *demo["words"]]
    variables["toll_app_admin_password"] = ""
    assert evaluate(ROLE, "__application_entry.data.seeds", "Debian", **variables) == [demo]


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
    def packages(
        url: str = DATA["database_url"],
        copies: int = 10,
        backup: dict[str, Any] | None = None,
        **more: Any,
    ) -> Any:
        data = {"database_url": url, "migration_copies": copies}
        variables = {
            **trusted(toll_app(data=data, backup=backup or {})),
            "inventory_hostname": "a",
            "wsgi_host": {"packages": installed},
            **more,
        }
        return evaluate(ROLE, "__application_missing_packages", family, **variables)

    off = {"enabled": False}
    assert packages() == missing
    assert packages(copies=0) == missing
    assert packages(copies=0, backup=off) == []
    key = {"recipient": AGE}
    assert packages(backup=key) == [*missing, "age"]
    assert packages(backup={**key, **off}) == missing
    assert packages(backup=key, wsgi_host={"packages": {**installed, "age": "1.2"}}) == missing
    assert packages(url="") == []
    other = {"inventory_hostname": "b", **play(a=DATA["database_url"], b="x")}
    assert packages(url="x", **other) == missing
    # The first of the hosts that share it makes the copies.
    both = {"inventory_hostname": "b", **play(a=DATA["database_url"], b=DATA["database_url"])}
    assert packages(**both) == []


def selected(hosts: dict[str, dict[str, Any]], **variables: Any) -> tuple[list[str], str]:
    """What a run with these hosts goes through, and what a playbook for one application says."""
    told = {
        "inventory_hostname": "a",
        "hostvars": {name: {"inventory_hostname": name, **each} for name, each in hosts.items()},
        "ansible_play_hosts_all": list(hosts),
        **variables,
    }
    (check,) = [
        task["ansible.builtin.assert"]
        for task in load(ROLES / ROLE / "tasks" / "single.yml")
        if "ansible.builtin.assert" in task
    ]
    right = all(evaluate(ROLE, that, "Debian", **told) for that in check["that"])
    said = evaluate(ROLE, "said", "Debian", said=trusted(check["fail_msg"]), **told)
    return evaluate(ROLE, "__application_selected", "Debian", **told), "" if right else said


def test_a_playbook_for_one_application_does_not_guess() -> None:
    one, both = shop(), two({}, {})
    assert selected({"a": one}) == (["shop"], "")
    assert selected({"a": both}) == (
        ["shop", "blog"],
        "There are shop and blog: say which one is meant with -e application=NAME. "
        "Nothing was changed.",
    )
    # Of all hosts, also where each has one.
    assert selected({"a": one, "b": {"applications": {"blog": SECOND}}})[0] == ["shop", "blog"]
    for name in ("application", "application_name"):
        assert selected({"a": both}, **{name: "blog"}) == (["blog"], "")
        assert selected({"a": one, "b": both}, **{name: "blog"}) == (["blog"], "")
        # It ended green, and had done nothing.
        assert selected({"a": both}, **{name: "blgo"})[1] == (
            "There is no application blgo: use one of shop, blog. Nothing was changed."
        )
    assert "No host of this run has an application" in selected({"a": {}})[1]


def test_every_playbook_for_one_application_asks_which_first() -> None:
    for file in ("deploy", "rollback", "backup", "restore", "remove"):
        first, *_ = load(ROLES / ROLE / "tasks" / f"{file}.yml")
        assert first["ansible.builtin.import_tasks"] == "single.yml", file
    first, end, *_ = load(ROLES / ROLE / "tasks" / "single.yml")
    assert "ansible.builtin.assert" in first
    assert end["ansible.builtin.meta"] == "end_host"


def test_every_playbook_that_checks_says_which_one_it_is() -> None:
    """Only what builds a release asks for its source."""
    found = {}
    for path in (ROLES / ROLE / "tasks").glob("*.yml"):
        for task in tasks(load(path)):
            if task.get("ansible.builtin.import_tasks") in ("single.yml", "preflight.yml"):
                found[path.stem] = task.get("vars", {}).get("__application_playbook")
    # What says nothing is site.yml, and single.yml passes on what it is told.
    assert [found.pop("main"), found.pop("single")] == [None, None]
    assert found == {name: f"playbooks/{name}.yml" for name in found}


@pytest.mark.parametrize(
    ("playbook", "needed"),
    [("site.yml", True), ("playbooks/deploy.yml", True), ("playbooks/rollback.yml", False)],
)
def test_only_what_builds_a_release_needs_its_source(playbook: str, needed: bool) -> None:
    """A bundle's name let the others pass without one, and said nothing else to them."""
    message = check(ROLE, trusted({**shop(source="/none"), "__application_playbook": playbook}))
    assert ("is not a directory of the control node" in message) is needed


def test_a_host_knows_its_neighbours() -> None:
    told = {**trusted(two({}, {})), "__application_name": "blog"}
    (neighbour,) = evaluate(ROLE, "__application_neighbours", "Debian", **told)
    assert neighbour["name"] == "shop"


def test_the_other_roles_know_nothing_of_the_application() -> None:
    """They serve any WSGI application, so none of their files names this one."""
    for role in ("application", "nginx", "certbot", "gunicorn_systemd"):
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
    keys = ("ansible.builtin.import_tasks", "ansible.builtin.include_tasks")
    return [task[key] for task in listed for key in keys if isinstance(task.get(key), str)]


@pytest.mark.parametrize("name", ["application_revision", "application_bundle"])
def test_what_is_no_working_tree_is_looked_at_each_time(name: str) -> None:
    """A branch moves on, and so does what is in a directory of bundles."""
    (look,) = load(ROLES / ROLE / "tasks" / "look.yml")
    hours = look["wsgi.host.seal"]["hours"].strip().removeprefix("{{").removesuffix("}}")
    defaults = {"application_move": False, "application_revision": "", "application_bundle": ""}
    for more, wanted in (({}, 24.0), ({name: "origin/main"}, 0)):
        told = {**defaults, "application_seal_hours": 24, **more}
        assert evaluate(ROLE, trusted(hours), "Debian", **told) == wanted


def test_site_and_deploy_run_the_same_stages_in_the_same_order() -> None:
    """What a release goes through is written once: two ways of deploying would drift apart."""
    # A deploy alone has to see first which application is meant, and that site.yml was there.
    stages = imports("deploy.yml")
    assert stages[:5] == ["single.yml", "lock.yml", "build.yml", "programs.yml", "ship.yml"]
    # Packages, timers, settings, and where the data are, are a matter of setting up a host.
    own = [
        *("preflight.yml", "journal.yml", "install.yml", "service.yml", "schedule.yml"),
        *("redis.yml", "redis/remove.yml", "checked.yml"),
    ]
    site = [each for each in imports("main.yml") if each not in own]
    each = [each for each in imports("provision.yml") if each not in own]
    # All applications are through before a hook that failed fails the run, and the locks are freed.
    assert [*site[:-2], *each, *site[-2:]] == stages[1:]


def test_lock_is_freed_whatever_happens() -> None:
    for file in ("main.yml", "deploy.yml", "rollback.yml", "restore.yml"):
        [outer] = [each for each in load(ROLES / ROLE / "tasks" / file) if "block" in each]
        [free] = outer["always"]
        assert free["ansible.builtin.import_tasks"] == "unlock.yml"
        first, *_ = outer["block"] if file == "main.yml" else outer["block"][0]["block"]
        assert first["ansible.builtin.import_tasks"] == "lock.yml"


@pytest.mark.parametrize(
    ("member", "role", "default"),
    [
        ("https_port", "nginx", "nginx_https_port"),
        ("certificate", "certbot", "certbot_links_directory"),
    ],
)
def test_what_other_roles_say_holds_where_they_do_not_run(
    member: str, role: str, default: str
) -> None:
    """A deploy does not run the other roles, and so has not their defaults."""
    theirs = yaml.safe_load((ROLES / role / "defaults" / "main.yml").read_text())[default]
    told = trusted(shop())
    alone = evaluate(ROLE, f"__application_entry.{member}", "Debian", **told)
    assert str(alone).split("/app.example.com")[0] == str(theirs)
    set_by_hand = evaluate(
        ROLE, f"__application_entry.{member}", "Debian", **told, **{default: "/elsewhere"}
    )
    assert str(set_by_hand).startswith("/elsewhere")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["192.0.2.2:80", "192.0.2.3:80"]),
        ({"certbot_challenge": "dns-rfc2136"}, []),
        ({"nginx_challenge_peers": ["198.51.100.1:80"]}, ["198.51.100.1:80"]),
    ],
    ids=["by the inventory", "no web server is asked", "by hand"],
)
def test_nginx_is_told_who_serves_the_same_names(
    variables: dict[str, Any], expected: list[str]
) -> None:
    expression = "__application_nginx_challenge_peers"
    case = fleet(3, **variables)
    hosts = {"web1": {**case.variables}, **case.beside}
    told = trusted({**case.variables, "hostvars": hosts})
    assert evaluate(ROLE, expression, "Debian", **told) == expected


@pytest.mark.parametrize(
    ("file", "role", "expected"),
    [
        (
            *("service.yml", "gunicorn_systemd"),
            {
                "check.yml": ["preflight"],
                "provision.yml": ["prepare"],
                "remove_application.yml": ["remove"],
            },
        ),
        (
            *("nginx.yml", "nginx"),
            {"remove.yml": ["main", "remove"]},
        ),
        (
            *("certbot.yml", "certbot"),
            {"certificate.yml": ["main"], "remove.yml": ["remove"]},
        ),
    ],
)
def test_a_role_is_told_in_one_place(file: str, role: str, expected: dict[str, list[str]]) -> None:
    """A way that tells it less undoes what another has set up, and a preflight checks nothing."""
    stages: dict[str, list[str]] = {}
    for path in sorted((ROLES / ROLE / "tasks").rglob("*.yml")):
        listed = list(tasks(load(path)))
        roles = [
            task[key]["name"]
            for task in listed
            for key in ("ansible.builtin.import_role", "ansible.builtin.include_role")
            if key in task
        ]
        assert path.name in (file, "main.yml") or role not in roles, path
        for task in listed:
            include = task.get("ansible.builtin.include_tasks")
            if file in (include, (include or {}).get("file") if isinstance(include, dict) else ""):
                name = Path(file).stem
                stages.setdefault(path.name, []).append(task["vars"][f"__application_{name}_stage"])
    assert stages == expected


def test_every_stage_of_a_role_is_told_the_same() -> None:
    """A preflight that checks other values than those that are used afterwards checks nothing."""
    told: dict[str, list[Any]] = {}
    for task in tasks(load(ROLES / ROLE / "tasks" / "main.yml")):
        if imported := task.get("ansible.builtin.import_role"):
            told.setdefault(imported["name"], []).append(task["vars"])
    assert set(told) == {"nginx", "certbot"}
    for role, variables in told.items():
        [elsewhere] = load(ROLES / ROLE / "tasks" / f"{role}.yml")
        assert len(variables) > 1
        assert all(each == elsewhere["vars"] for each in variables)


def handed_over(file: str, role: str, stage: str, **variables: Any) -> dict[str, Any]:
    """What a file of tasks has a role do at a stage, as the role sees it."""
    own: dict[str, Any] = {}
    if file != "main.yml":
        [own] = [
            task["vars"]
            for task in tasks(load(ROLES / ROLE / "tasks" / file))
            if task.get("vars", {}).get(f"__application_{role}_stage") == stage
        ]
    [task] = load(ROLES / ROLE / "tasks" / f"{role}.yml")
    return {
        name: evaluate(ROLE, "given", "Debian", **variables, **trusted({**own, "given": told}))
        for name, told in task["vars"].items()
        if name != "__certbot_fails_later"
    }


def test_a_removal_leaves_the_other_sites_as_they_were() -> None:
    """Behind balancers nginx listens where they connect, and believes what they say."""
    told = trusted(
        {
            **two({}, {}),
            "__application_name": "shop",
            "application_remove": "application",
            "inventory_hostname": "web1",
            "__application_balancers": {"names": ["lb1"], "addresses": ["192.0.2.1"]},
        }
    )
    before = handed_over("main.yml", "nginx", "main", **told)
    after = handed_over("remove.yml", "nginx", "main", **told)
    assert before["nginx_proxy_protocol"]
    assert before["nginx_trusted_proxies"] == ["192.0.2.1"]
    shop, blog = before.pop("nginx_sites")
    assert (shop["name"], after.pop("nginx_sites")) == ("shop", [blog])
    written = before.pop("__nginx_origins")
    assert written["nginx_sites[1].domains"] == "applications.blog.domains"
    assert after.pop("__nginx_origins") == {
        "nginx_sites[0]": "applications.blog.site",
        "nginx_sites[0].domains": "applications.blog.domains",
        "nginx_sites[1:]": "application_more_sites",
    }
    assert after == before


def test_every_way_to_a_certificate_looks_at_the_same_ones() -> None:
    """Those of other sites are watched as before after a run for certificates alone."""
    more = {"name": "more", "domains": ["more.example.com"], "certificate": "/etc/ssl/more.pem"}
    told = trusted(
        {
            **two({}, {}),
            "__application_name": "blog",
            "inventory_hostname": "web1",
            "application_more_sites": [more],
        }
    )
    site = handed_over("main.yml", "certbot", "obtain", **told)
    alone = handed_over("certificate.yml", "certbot", "main", **told)
    assert site == alone
    assert [each["name"] for each in site["certbot_watched"]] == ["more"]
    gone = handed_over("remove.yml", "certbot", "remove", **told)
    [removed] = gone.pop("certbot_certificates")
    assert removed == site.pop("certbot_certificates")[1]
    assert gone.pop("__certbot_origins") == {
        "certbot_certificates[0].domains": "applications.blog.domains"
    }
    site.pop("__certbot_origins")
    assert gone == site
