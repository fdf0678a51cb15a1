"""Every variable and every member of a description with values of the wrong type, form and range.

The real action runs with the real specifications and rules, in this process: a run of Ansible
for each of some thousand values would take an hour.
"""

from __future__ import annotations

import copy
import itertools
import os
import re
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible_collections.wsgi.host.plugins.filter.scram import scram
from ansible_collections.wsgi.host.plugins.plugin_utils import families
from ansible_collections.wsgi.host.plugins.plugin_utils import formats as known
from ansible_collections.wsgi.host.plugins.plugin_utils.variables import TYPES
from conftest import trusted

from . import preflight
from .describing import describe, read, shop, toll_app
from .preflight import HOST, arguments, check, options, own
from .render import FACTS, ROLES

# `make proof`.
EVERY_CASE = bool(os.environ.get("EVERY_SYSTEM"))
NAMES = (
    *("application", "certbot", "etcd", "firewall", "gunicorn_systemd", "haproxy"),
    *("keepalived", "monitoring", "nginx", "postgresql", "toll_app"),
)
# What has no default, and one item of each list, so that what is below it is tried.
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"
BASE: dict[str, dict[str, Any]] = {
    "application": {
        "applications": {
            "shop": {
                "source": {"directory": "app"},
                "domains": ["app.example.com"],
                "data": {"seeds": [{"name": "admin", "words": ["bin/admin"]}]},
                "environment": {"MODE": "fast"},
                "workers": {"mail": {"command": ["work"]}},
                "timers": {"nightly": {"command": ["tidy"], "calendar": "daily"}},
            }
        }
    },
    "certbot": {
        "certbot_certificates": [{"name": "a", "domains": ["app.example.com"]}],
        "certbot_watched": [
            {
                "name": "b",
                "domains": ["b.example.com"],
                "address": "127.0.0.1:8443",
                "file": "/etc/ssl/b.pem",
            }
        ],
    },
    "etcd": {
        "etcd_name": "db1",
        "etcd_members": [{"name": f"db{n}", "address": f"192.0.2.3{n}"} for n in (1, 2, 3)],
        "etcd_certificate": CERTIFICATE,
        "etcd_certificate_key": KEY,
        "etcd_authority": CERTIFICATE,
    },
    "firewall": {
        "firewall_enabled": True,
        "firewall_open": [{"port": 25, "sources": ["192.0.2.0/24"], "reason": "mail"}],
        "firewall_ssh_ports": [2222],
    },
    "gunicorn_systemd": {
        "gunicorn_systemd_name": "shop",
        "gunicorn_systemd_directory": "/opt/shop/current/app",
        "gunicorn_systemd_python": "/opt/shop/current/bin/python",
        "gunicorn_systemd_wsgi_app": "app:app",
        "gunicorn_systemd_credentials": [{"name": "key", "value": "k"}],
        "gunicorn_systemd_environment": {"MODE": "fast"},
        "gunicorn_systemd_release_root": "/opt/shop",
        "gunicorn_systemd_background": [{"name": "mail", "command": ["work"]}],
        "gunicorn_systemd_timers": [{"name": "nightly", "command": ["tidy"], "calendar": "daily"}],
    },
    "haproxy": {
        "haproxy_sites": [
            {
                "name": "shop",
                "domains": ["app.example.com"],
                "servers": [{"name": "web1", "address": "192.0.2.11"}],
            }
        ]
    },
    "keepalived": {
        "keepalived_addresses": ["192.0.2.20/24"],
        "keepalived_peers": [{"name": f"lb{n}", "address": f"192.0.2.{n}"} for n in (1, 2)],
        "keepalived_name": "lb1",
        "keepalived_check": ["/usr/local/libexec/haproxy-answers"],
    },
    "monitoring": {
        "monitoring_enabled": True,
        "monitoring_urls": ["https://app.example.com/readyz"],
        "monitoring_watched": [{"name": "a", "address": "a.example.com:9443"}],
        "monitoring_applications": [{"name": "shop"}],
    },
    "nginx": {
        "nginx_sites": [
            {
                "name": "shop",
                "domains": ["app.example.com"],
                "upstreams": [{"address": "127.0.0.1:5000"}],
                "static": [{"location": "/static/", "directory": "/srv/static"}],
                "locations": [{"path": "/api/", "upstreams": [{"address": "127.0.0.1:5001"}]}],
            }
        ]
    },
    "postgresql": {
        "postgresql_applications": [
            {"name": "shop", "verifier": scram("k" * 43, "shop"), "addresses": ["192.0.2.11"]}
        ],
        "postgresql_certificate": CERTIFICATE,
        "postgresql_certificate_key": KEY,
        "postgresql_members": [{"name": f"db{n}", "address": f"192.0.2.3{n}"} for n in (1, 2)],
        "postgresql_member_name": "db1",
        "postgresql_member_certificate": CERTIFICATE,
        "postgresql_member_certificate_key": KEY,
        "postgresql_member_authority": CERTIFICATE,
        "postgresql_authority": CERTIFICATE,
        "postgresql_voters": [{"name": f"db{n}", "address": f"192.0.2.3{n}"} for n in (1, 2, 3)],
        "postgresql_replication_password": "p" * 43,
        "postgresql_rewind_password": "p" * 43,
    },
    "toll_app": {},
}
# Of the wrong type, and text that no variable can be: it would break a line of a configuration.
WRONG: dict[str, list[Any]] = {
    "int": ["7", 1.5, True, [], {}, -(10**12), 10**12],
    "float": ["0.5", True, [], {}, -1e12, 1e12, float("nan")],
    "bool": ["no", "true", 0, 1, []],
    "str": [True, [], {}, "a\nb", "a\0b"],
    "path": [7, True, [], "a\nb", "nowhere\0"],
    "list": ["a", 7, {}, [None]],
    "dict": ["a", 7, []],
}
# These are right for some variables. No rule may stumble over them.
ODD: dict[str, list[Any]] = {
    "int": [0, -1, 2**31],
    "float": [0, 0.0, -0.5, 1000],
    "bool": [],
    "str": ["", " ", "%", "{{", "a" * 10_000, "é", 12345678901234, "../x", "-"],
    "path": ["", "/", "relative", "/nope", "/a b"],
    "list": [[], [[]], [{}], [7], [True], ["x", "x"]],
    "dict": [{}, {"a": []}, {"1 2": None}, {7: 7}],
}


def leaves(found: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """Path of every option, `*` for an item of a list, and what it is."""
    for name, option in found.items():
        path = (*above, name)
        yield path, option
        if option["type"] == "dict" and above[:1] == ("applications",):
            yield from leaves(option.get("options", {}), path)
            # Their names are a person's.
            for named in BASE["application"]["applications"]["shop"].get(name, {}):
                yield from leaves(option.get("values", {}), (*path, named))
        if option["type"] == "list":
            inner = {"type": option["elements"], "no_log": option.get("no_log")}
            if "options" not in option and option["elements"] != "dict":
                yield (*path, "*"), inner
            yield from leaves(option.get("options", {}), (*path, "*"))


def placed(base: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Variables with this value at this path."""
    variables: Any = copy.deepcopy(dict(base))
    at = variables
    for step, following in zip(path, [*path[1:], None], strict=True):
        key: Any = 0 if step == "*" else step
        if isinstance(at, list) and not at:
            at.append(None)
        if following is None:
            at[key] = value
        elif isinstance(at, list):
            at = at[0]
        else:
            if following == "*" and not isinstance(at.get(key), list):
                at[key] = [None]
            at = at.setdefault(key, {})
    return dict(variables)


# Members of the one description that all cases begin with.
MEMBERS: dict[str, Any] = families.spread(
    yaml.safe_load((ROLES / "application/meta/description.yml").read_text())
)


def all_options(role: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path of every variable of a role, and of all that is below it."""
    yield from leaves(options(role))
    if role == "application":
        yield from leaves(MEMBERS, ("applications", "shop"))


CASES = [(role, path, option) for role in NAMES for path, option in all_options(role)]
EACH = pytest.mark.parametrize(
    ("role", "path", "option"), CASES, ids=[".".join(path) for _, path, _ in CASES]
)


@pytest.mark.parametrize("role", NAMES)
def test_what_everything_else_starts_from_passes(role: str) -> None:
    """A preflight that refuses everything would pass the tests below."""
    assert check(role, trusted(BASE[role])) == ""


def rounds(role: str) -> Iterator[list[tuple[tuple[str, ...], Any]]]:
    """Wrong values of many variables at once, since all problems are reported together."""
    mine = [(path, option) for each, path, option in CASES if each == role]
    depths = sorted({len(path) for path, _ in mine})
    for depth, turn in itertools.product(depths, range(max(map(len, WRONG.values())))):
        at_once: dict[str, tuple[tuple[str, ...], Any]] = {}
        rest = []
        for path, option in mine:
            wrong = WRONG.get(option["type"], [])
            for pattern, kind in (*((each, str) for each in WITHOUT_FORMAT), *SHORT.items()):
                if matches(path, pattern):
                    wrong = [value for value in wrong if not isinstance(value, kind)]
            if len(path) == depth and turn < len(wrong):
                # Of one description all members at once; below a list one after the other.
                whole = path if path[0] == "applications" and "*" not in path else path[:1]
                taken = at_once.setdefault(".".join(whole), (path, wrong[turn]))
                if taken[0] != path:
                    rest.append([(path, wrong[turn])])
        if at_once:
            yield list(at_once.values())
        yield from rest


@pytest.mark.parametrize("role", NAMES)
def test_a_wrong_value_is_refused_under_its_name(role: str) -> None:
    """Before the first change, with the remedy, and never by a rule that stumbles."""
    said = []
    for at_once in rounds(role):
        variables = trusted(BASE[role])
        for path, value in at_once:
            variables = placed(variables, path, trusted(value))
        lines = check(role, variables).splitlines()
        for path, value in at_once:
            where = ".".join(path).replace(".*", "[0]")
            refusal = rf"- {re.escape(where)}(\[0\])? .*(: |use one of )"
            if not any(re.match(refusal, line) for line in lines):
                about = [line for line in lines if where in line]
                said.append(f"{where} = {value!r}: {about or 'passes'}")
    assert said == []


@EACH
def test_no_value_makes_a_rule_stumble(
    role: str, path: tuple[str, ...], option: Mapping[str, Any]
) -> None:
    """Whatever it is, it passes or is refused by words that name a variable of the role.

    `make proof` tries all values on each variable, `make test` spreads them over the variables.
    """
    odd = ODD.get(option["type"], [])
    if odd and not EVERY_CASE:
        odd = [odd[zlib.crc32(".".join(path).encode()) % len(odd)]]
    for value in [*odd, None]:
        try:
            message = check(role, placed(trusted(BASE[role]), path, trusted(value)))
        except AnsibleActionFail as refusal:
            # Half a template, or a role that there is not, which is refused before any rule.
            message = f"- {refusal}"
        named = rf"^- ({role}_|applications\b)"
        assert not message or re.search(named, message, re.MULTILINE), message


@EACH
def test_every_value_has_a_format_or_a_range(
    role: str, path: tuple[str, ...], option: Mapping[str, Any]
) -> None:
    """Numbers and text that nothing bounds are found by whatever reads them in the end."""
    if option["type"] not in ("int", "float", "str", "path") or option.get("choices"):
        return
    told = arguments(role)["formats"]
    known = [*told, *WITHOUT_FORMAT]
    assert any(matches(path, each) for each in known), (
        f"{'.'.join(path)}: give it a format or a range"
    )


def matches(path: tuple[str, ...], pattern: str) -> bool:
    """Whether a path is one of those that a pattern names, `*` for any step."""
    steps = pattern.split(".")
    return len(steps) == len(path) and all(
        wanted in ("*", step) for wanted, step in zip(steps, path, strict=True)
    )


WITHOUT_FORMAT = {
    # Several lines, whose form is a rule's.
    "postgresql_certificate",
    "postgresql_certificate_key",
    "postgresql_member_certificate",
    "postgresql_member_certificate_key",
    "postgresql_member_authority",
    "postgresql_authority",
    "etcd_certificate",
    "etcd_certificate_key",
    "etcd_authority",
    # A credential may be any text, of several lines too.
    "gunicorn_systemd_credentials.*.value",
    # So may what a command reads.
    "applications.*.data.seeds.*.stdin",
    # Further lines of nginx, which nginx itself reads before any goes live.
    "nginx_sites.*.extra",
    "nginx_sites.*.locations.*.extra",
    # Ansible looks for the role, and says what it has not found.
    "applications.*.role",
}
# What can be written shorter, as a value of another type.
SHORT: dict[str, type] = {
    "applications.*.source": str,
    "applications.*.packages": list,
    "applications.*.redis": bool,
    "applications.*.hooks.*": list,
    "applications.*.data.sqlite": str,
}

SECRET = "7Zq-n0t-sh0wn-anywhere-at-all-0123456789"
EXAMPLES: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt variable of a role that is off": (
        {"monitoring_enable": True},
        "monitoring_enable is not a variable of role monitoring; did you mean monitoring_enabled?",
    ),
    "a key of digits": (
        toll_app(secrets={"secret_key": 12345678901234567890123456789012}),
        "applications.toll-app.secrets has secret_key, which is neither text in one line nor",
    ),
    "a password of blanks": (
        {"toll_app_admin_password": " " * 12},
        "toll_app_admin_password begins or ends with a blank: remove the blank",
    ),
    "a time that is none": (
        shop(backup={"calendar": "every night"}),
        'applications.shop.backup.calendar is "every night", which is not a calendar event',
    ),
    "a negative time": (
        shop(health={"time_limit_seconds": -5}),
        "applications.shop.health.time_limit_seconds is -5, which is negative: use 1 to 3600 "
        "(Seconds within which",
    ),
    "a name for itself": (
        shop(domains=["localhost"]),
        'applications.shop.domains[0] is "localhost", which is every host\'s name for itself',
    ),
    "a placeholder for a password": (
        shop(data={"database_url": "postgresql://toll:PASSWORD@db.example.com/toll"}),
        "applications.shop.data.database_url has the placeholder of an example as its password",
    ),
    "a directory that is not there": (
        shop(source="/nope"),
        "applications.shop.source.directory is /nope, which is not a directory of the control node",
    ),
    "a placeholder that is none": (
        shop(backup={"command": ["/usr/bin/rsync", "{filename}"]}),
        "applications.shop.backup.command has {filename}, which is not a placeholder: use {file}",
    ),
    "certificates that the host itself has not": (
        shop(site={"client_certificates": {"authority": "/etc/ssl/clients.pem"}}),
        "applications.shop.site has client_certificates that are required, and this host, which",
    ),
    "a setting with a bad name": (
        shop(environment={"MY-NAME": 1}),
        "applications.shop.environment has MY-NAME, which cannot be the name of an",
    ),
    "one address twice": (
        {
            "ansible_host": "192.0.2.7",
            "hostvars": {"web2": {"inventory_hostname": "web2", "ansible_host": "192.0.2.7"}},
        },
        'ansible_host ("192.0.2.7") is the same for web1 and web2, so that one host would be',
    ),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples(example: str) -> None:
    """Each was tried on a host once, and passed, crashed or was refused under another name."""
    variables, expected = EXAMPLES[example]
    told = trusted(BASE["application"] | variables)
    message = check("toll_app" if "toll_app_" in expected else "application", told)
    assert f"- {expected}" in message
    assert message.endswith(f"Nothing was changed on {HOST}.")


@pytest.mark.parametrize(
    ("role", "variables", "expected"),
    [
        (
            "certbot",
            {"certbot_email": "ops@example"},
            'certbot_email is "ops@example", which has a domain without a dot',
        ),
        (
            "gunicorn_systemd",
            {"gunicorn_systemd_workers": 1_000_000_000},
            "gunicorn_systemd_workers is 1000000000, which is more than 4096: use 1 to 4096",
        ),
        (
            "monitoring",
            {"monitoring_enabled": "no"},
            'monitoring_enabled is "no" (text); true or false is needed: write true or '
            "false, without quotation marks: monitoring_enabled: false",
        ),
    ],
)
def test_examples_of_other_roles(role: str, variables: dict[str, Any], expected: str) -> None:
    assert f"- {expected}" in check(role, trusted(BASE[role] | variables))


@pytest.mark.parametrize(
    "data",
    [
        {"sqlite": "shop.db"},
        {"directories": ["uploads"]},
        {"sqlite": ["shop.db", "queue/jobs.db"], "directories": ["uploads"]},
        {"database_url": "postgresql://shop:k9-mV2-x7@db.example.com/shop"},
    ],
)
def test_what_can_be_copied_needs_no_commands(data: dict[str, Any]) -> None:
    """A rule from before the copies were the engine's own refused each of them."""
    assert check("application", trusted(BASE["application"] | shop(data=data))) == ""


def test_a_file_system_without_programs_is_refused() -> None:
    """It was an import error of the application, after four changes."""
    host = {"mounts": {"/": 10000, "/opt": 10000}, "noexec": ["/opt"]}
    for role in ("application", "certbot", "gunicorn_systemd"):
        message = check(role, trusted(BASE[role]), host)
        assert "is on the file system /opt, which is mounted with noexec" in message
        assert "`mount -o remount,exec /opt`" in message


@pytest.mark.parametrize(
    ("role", "host", "named"),
    [
        (
            "nginx",
            {"edited_files": ["/etc/nginx/sites-enabled/shop"]},
            "/etc/nginx/sites-enabled/shop",
        ),
        (
            "certbot",
            {"renewals": {"shop.example.com": {"plugins": ["webroot"], "webroots": []}}},
            "/etc/letsencrypt/live/shop.example.com",
        ),
        (
            "haproxy",
            {"edited_files": ["/etc/haproxy/haproxy.cfg"]},
            "/etc/haproxy/haproxy.cfg",
        ),
        ("certbot", {"foreign_files": ["/usr/local/bin/certbot"]}, "/usr/local/bin/certbot"),
        (
            "gunicorn_systemd",
            {"foreign_files": ["/etc/systemd/system/shop.service"]},
            "/etc/systemd/system/shop.service",
        ),
        (
            "monitoring",
            {"edited_files": ["/etc/prometheus/prometheus.yml"]},
            "/etc/prometheus/prometheus.yml",
        ),
    ],
)
def test_what_somebody_else_set_up_needs_a_yes(role: str, host: dict[str, Any], named: str) -> None:
    """It was switched off, or replaced, by a green run."""
    message = check(role, trusted(BASE[role]), host)
    assert f"- {role}_take_over (false) does not allow " in message
    assert named in message
    agreed = trusted(BASE[role] | {f"{role}_take_over": True})
    assert check(role, agreed, host) == ""


@pytest.mark.parametrize(
    ("renewal", "install", "said"),
    [
        ({"plugins": ["nginx"], "webroots": []}, "package", "theirs (plugin nginx)"),
        ({"plugins": ["dns-ovh"], "webroots": []}, "bundle", "theirs (plugin dns-ovh)"),
        ({"plugins": ["dns-ovh"], "webroots": []}, "package", ""),
        (
            {"plugins": ["webroot"], "webroots": ["/srv/www"]},
            "bundle",
            "theirs (its challenges go to /srv/www)",
        ),
        ({"plugins": ["webroot"], "webroots": ["/var/www/acme-challenge"]}, "bundle", ""),
    ],
)
def test_what_could_not_be_renewed_is_not_taken_over(
    renewal: dict[str, Any], install: str, said: str
) -> None:
    """With a yes, a green run took the timer over, and the certificate ended weeks later."""
    packages = {**FACTS["Debian"]["packages"], "python3-certbot-dns-ovh": "2.1.0-1"}
    given = {"certbot_take_over": True, "certbot_install": install}
    for name, refused in (("theirs", said), ("app.example.com-0001", "")):
        host = {"renewals": {name: renewal}, "packages": packages}
        message = check("certbot", trusted(BASE["certbot"] | given), host)
        assert refused in message
        assert bool(message) is bool(refused)
    if said:
        again = {"renewals": {"theirs": renewal}, "packages": packages}
        message = check("certbot", trusted(BASE["certbot"] | given), again)
        assert (
            "- certbot_take_over (true) would take over certificates that certbot.timer" in message
        )
        assert "certbot delete --cert-name NAME" in message


def test_what_others_put_beside_ours_needs_no_yes() -> None:
    """Of another name, or after the role's first run."""
    beside = {"foreign_files": ["/etc/systemd/system/blog.service", "/usr/local/bin/blog"]}
    for role in ("nginx", "certbot", "gunicorn_systemd", "monitoring"):
        assert check(role, trusted(BASE[role]), beside) == ""
    mine = ["/etc/systemd/system/shop.service", "/etc/systemd/system/shop-health.timer"]
    later = {"trees": ["shop", "certbot"], "foreign_files": [*mine, "/usr/local/bin/certbot"]}
    for role in ("certbot", "gunicorn_systemd"):
        assert check(role, trusted(BASE[role]), later) == ""


def test_a_person_does_not_become_the_services_user() -> None:
    variables = trusted(BASE["gunicorn_systemd"] | {"gunicorn_systemd_user": "anna"})
    message = check("gunicorn_systemd", variables, {"logins": ["root", "anna"]})
    assert '- gunicorn_systemd_user ("anna") is a user who can log in on this host' in message


def test_a_limit_of_the_journal_that_is_there_stays() -> None:
    host = {"journal_limits": ["/etc/systemd/journald.conf.d/site.conf"]}
    message = check("application", trusted(BASE["application"]), host)
    assert "- application_journal_size " in message
    assert "/etc/systemd/journald.conf.d/site.conf has a limit already" in message
    without = trusted(BASE["application"] | {"application_journal_size": ""})
    assert check("application", without, host) == ""


def told(role: str) -> dict[str, Any]:
    """What the role `application` tells another one."""
    file = "service.yml" if role == "gunicorn_systemd" else f"{role}.yml"
    (task,) = read(ROLES / "application" / "tasks" / file)
    found: dict[str, Any] = task["vars"]
    return found


def composed(role: str, variables: Mapping[str, Any]) -> str:
    """What a role says to what the role `application` makes of these variables for it."""
    mine = trusted(BASE["application"] | dict(variables))
    mine |= {
        "__application_descriptions": describe(
            {"inventory_hostname": HOST, **mine}, FACTS["Debian"]
        )
    }
    mine |= {"ansible_play_hosts_all": [HOST], "hostvars": {HOST: dict(mine)}}
    mine |= {"role_path": str(ROLES / "application")}
    return check(role, own("application") | mine | told(role))


@pytest.mark.parametrize(
    ("role", "variables", "expected"),
    [
        (
            "nginx",
            shop(site={"max_body_size": "1GB"}),
            'applications.shop.site.max_body_size is "1GB", which is not a size: write a number',
        ),
        (
            "nginx",
            shop(site={"max_body_sise": "1m"}),
            "applications.shop.site.max_body_sise is not a key of applications.shop.site; did you",
        ),
        (
            "nginx",
            {
                "application_more_sites": [
                    {"name": "x", "domains": ["x.example.com"], "upstrem": ""}
                ]
            },
            "application_more_sites[0].upstrem is not a key of application_more_sites[0]; did you",
        ),
        (
            "nginx",
            {
                "application_more_sites": [
                    {"name": "x", "domains": ["APP.example.com"], "upstream": "127.0.0.1:1"}
                ]
            },
            "nginx_sites (made of applications.shop.site, applications.shop.domains",
        ),
        (
            "gunicorn_systemd",
            shop(environment={"A-B": "x"}),
            "applications.shop.environment has a name that cannot be an environment variable",
        ),
        (
            "gunicorn_systemd",
            shop(web={"workers": "many"}),
            'applications.shop.web.workers is "many" (text); an integer is needed',
        ),
        (
            "gunicorn_systemd",
            # For all applications of a host.
            {"gunicorn_systemd_timeout_seconds": "long"},
            'gunicorn_systemd_timeout_seconds is "long" (text); an integer is needed',
        ),
        (
            "gunicorn_systemd",
            shop(wsgi="my app"),
            'applications.shop.wsgi ("my app") does not name a WSGI or ASGI application',
        ),
        (
            "certbot",
            shop(domains=["under_score.example"]),
            'applications.shop.domains[0] is "under_score.example"',
        ),
    ],
)
def test_a_role_that_another_one_calls_uses_the_name_that_was_written(
    role: str, variables: dict[str, Any], expected: str
) -> None:
    """Nobody has written `nginx_sites[0].max_body_size`."""
    assert f"- {expected}" in composed(role, variables)


# What a description says of the web processes and of the site, by the options of other roles.
FOLLOWS = {
    *("name", "user", "group", "directory", "python", "wsgi_app", "environment", "credentials"),
    *("network", "release_root", "release", "check_path", "check_status", "check_release_member"),
    *("health_path", "background", "timers", "hands_over"),
}
SITE = options("nginx")["nginx_sites"]["options"]
PARTS = {
    ("gunicorn_systemd", "web"): {
        name.removeprefix("gunicorn_systemd_"): option
        for name, option in options("gunicorn_systemd").items()
        if name.removeprefix("gunicorn_systemd_") not in FOLLOWS
    },
    ("nginx", "site"): {
        name: option
        for name, option in SITE.items()
        if name not in ("name", "domains", "certificate", "certificate_key", "upstream")
    },
}


@pytest.mark.parametrize(("role", "part"), PARTS, ids=lambda each: str(each))
@pytest.mark.parametrize("turn", range(max(map(len, WRONG.values()))))
def test_a_wrong_value_for_another_role_is_refused_as_it_was_written(
    role: str, part: str, turn: int
) -> None:
    told = {
        name: WRONG[option["type"]][turn]
        for name, option in PARTS[role, part].items()
        if turn < len(WRONG.get(option["type"], []))
        and not (
            f"nginx_sites.*.{name}" in WITHOUT_FORMAT
            and isinstance(WRONG[option["type"]][turn], str)
        )
    }
    lines = composed(role, shop(**{part: told})).splitlines()
    missing = [
        name
        for name in told
        if not any(
            re.match(rf"- applications\.shop\.{part}\.{name}(\[0\])? .*(: |use one of )", line)
            for line in lines
        )
    ]
    assert missing == [], "\n".join(lines)


@pytest.mark.parametrize(
    ("event", "right"),
    [
        (event, right)
        for right, events in {
            True: [
                "hourly", "daily", "*-*-* 02:30:00", "*-*-* 00,12:00:00", "Mon..Fri 04:00",
                "Sun *-*-* 03:15:00", "*:0/15", "02:30", "*-*-01 04:00:00 UTC",
                "Mon,Wed *-1,7-* 1:2",
                "2099-01-01", "Sat *-*-1..7 18:00:00", "*-*~1 05:00",
                "*-*-* 02:30:00 Europe/Berlin",
                "quarterly", "*-*-* *:00/10:00", "*:*:30",
            ],
            False: [
                "every night", "", "25:00", "*-*-* 02:60:00", "*-13-01", "tomorrow", "at 3",
                "*-*-32", "02:30:00 Mars/Olympus", "3am", "* * * * *", "0 3 * * *", "hourly UTC x",
            ],
        }.items()
        for event in events
    ],
)  # fmt: skip
def test_calendar_events_are_those_of_systemd(event: str, right: bool) -> None:
    """The control node may have no systemd, so the form is known here too."""
    asked = subprocess.run(["systemd-analyze", "calendar", event], capture_output=True)
    assert (asked.returncode == 0) == right, "the example is wrong"
    assert (known.calendar(event) is None) == right


def test_a_rule_that_crashes_says_whose_fault_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    args = arguments("certbot")
    rule = {
        "that": "certbot_email | no_such_filter",
        "variable": "certbot_email",
        "problem": "x",
        "remedy": "x",
    }
    monkeypatch.setitem(args, "rules", trusted([rule]))
    with pytest.raises(AnsibleError, match=r"a fault of role certbot and not of yours: the rule"):
        check("certbot", trusted(BASE["certbot"]))


def test_types_of_this_test_are_those_of_the_specifications() -> None:
    assert set(WRONG) == set(ODD)
    assert set(WRONG) <= set(TYPES)


@pytest.mark.parametrize("name", ["gunicorn_workers", "gunicorn_bind"])
def test_a_name_with_half_of_the_roles_is_refused(name: str) -> None:
    """It looked like a setting, and had none of the effect."""
    message = check("gunicorn_systemd", trusted(BASE["gunicorn_systemd"] | {name: 3}))
    assert f"did you mean {name.replace('gunicorn', 'gunicorn_systemd')}?" in message
    assert check("nginx", trusted(BASE["nginx"] | {name: 3, "http_port": 80})) == ""


def test_a_name_typed_for_this_run_is_meant_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-e revision=v1` deployed the working tree; in an inventory it may be anybody's."""
    given = {"revision": "v1", "mine": 1}
    assert check("application", trusted(BASE["application"] | given)) == ""
    monkeypatch.setattr(preflight.action_plugin, "load_extra_vars", lambda loader: given)
    message = check("application", trusted(BASE["application"] | given))
    assert "- revision is given with -e" in message
    assert "did you mean application_revision?" in message
    assert "mine" not in message


@pytest.mark.parametrize("name", ["nginx_sites", "certbot_certificates"])
def test_what_the_role_makes_itself_has_no_effect_in_an_inventory(name: str) -> None:
    """The remedies of nginx and certbot named them, and nobody read what was written there."""
    assert f"- {name} has no effect" in check(
        "application", trusted(BASE["application"] | {name: []})
    )
