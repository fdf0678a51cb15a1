"""A family of systems is one file: what each has to say, and that nothing else is needed."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.wsgi.host.plugins.action import packages
from ansible_collections.wsgi.host.plugins.action import probe as probe_action
from ansible_collections.wsgi.host.plugins.modules import probe
from ansible_collections.wsgi.host.plugins.plugin_utils import families
from conftest import PROJECT, Play, action_of

from . import (
    test_application_redis,
    test_certbot,
    test_etcd,
    test_firewall,
    test_gunicorn_systemd,
    test_haproxy,
    test_keepalived,
    test_monitoring,
    test_postgresql,
)
from . import test_nginx as nginx
from .describing import ROLES, shop
from .preflight import Case, preflight
from .render import FACTS, FAMILIES, facts_of, render

NEW = "Invented"
EACH_FAMILY = pytest.mark.parametrize("family", FAMILIES)
OWN = {"__family_ids", "__family_packages", "__family_platforms"}
# Of those that do something different from system to system.
WITH_VARIABLES = sorted(
    path.name
    for path in ROLES.iterdir()
    if any(families.supports(each, path.name) for each in FAMILIES)
)
# As people call what Ansible Galaxy abbreviates.
IN_FULL = {"EL": "Red Hat Enterprise Linux"}


# What every file has ------------------------------------------------------------------------------


@EACH_FAMILY
def test_a_file_has_what_belongs_to_it_and_to_roles(family: str) -> None:
    told = families.content(family)
    assert set(told) >= OWN
    prefixes = tuple(f"__{role}_" for role in WITH_VARIABLES)
    assert [name for name in set(told) - OWN if not name.startswith(prefixes)] == []
    assert set(told["__family_packages"]) == {
        *("module", "install", "without_services", "remove", "renew")
    }


@pytest.mark.parametrize("role", WITH_VARIABLES)
def test_families_define_the_same_variables(role: str) -> None:
    """So that no family fails in the middle of a run over a name that only another defines."""
    defined = [
        {name for name in families.content(family) if name.startswith(f"__{role}_")}
        for family in families.supporting(role)
    ]
    assert [sorted(names ^ defined[0]) for names in defined] == [[] for _ in defined]


def test_a_system_belongs_to_one_family() -> None:
    ids = Counter(name for each in FAMILIES for name in families.content(each)["__family_ids"])
    assert [name for name, times in ids.items() if times > 1] == []


@pytest.mark.parametrize("role", WITH_VARIABLES)
def test_galaxy_is_told_of_systems_that_are_supported(role: str) -> None:
    """A new family need not name any: it has platforms once somebody has tried it."""
    meta = yaml.safe_load((ROLES / role / "meta" / "main.yml").read_text())
    told = {each["name"]: set(each["versions"]) for each in meta["galaxy_info"]["platforms"]}
    supported = [families.content(each)["__family_platforms"] for each in families.supporting(role)]
    for platforms in supported:
        assert not platforms or set(platforms) & set(told), f"{role} names none of {platforms}"
    known = {name: set(versions) for each in supported for name, versions in each.items()}
    for name, versions in told.items():
        assert versions <= known.get(name, set()), f"{role}: {name}"


def test_what_was_tried_is_documented() -> None:
    table = (PROJECT / "docs" / "SYSTEMS.md").read_text()
    for family in FAMILIES:
        for name in families.content(family)["__family_platforms"]:
            assert IN_FULL.get(name, name) in table


# Which one a host belongs to ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "family"),
    [
        ("ID=debian\n", "Debian"),
        ("ID=ubuntu\nID_LIKE=debian\n", "Debian"),
        ('ID=raspbian\nID_LIKE="debian"\n', "Debian"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "Debian"),
        ('ID="rhel"\nID_LIKE="fedora"\n', "RedHat"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "RedHat"),
        ("ID=fedora\n", "RedHat"),
        ("ID=alpine\n", "alpine"),
        ("", "unknown"),
    ],
)
def test_derivatives_belong_to_their_family(
    release: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "read", lambda path: release if "os-release" in path else "")
    monkeypatch.setattr(probe, "listeners", list)
    action = action_of(probe_action.ActionModule, {})
    action._execute_module = lambda **_: {"ansible_facts": {"wsgi_host": probe.probe()}}
    host = action.run(task_vars={})["ansible_facts"]["wsgi_host"]
    known = family in FAMILIES
    assert host["family"] == family
    assert host["family_file"] == (str(families.file_of(family)) if known else "")


# One more -----------------------------------------------------------------------------------------


def write(path: Path, **own: Any) -> None:
    """A family that is like Debian, with a package manager that nobody has."""
    told = yaml.safe_load(families.file_of("Debian").read_text()) | {
        "__family_ids": ["invented", "invented-enterprise"],
        "__family_platforms": {},
        "__nginx_user": "wwwrun",
        "__gunicorn_systemd_nginx_group": "wwwrun",
        "__application_redis_package": "redis-of-invented",
        "__postgresql_versions": dict.fromkeys(("invented 12", "invented-enterprise 12"), "17"),
        **own,
    }
    path.write_text(yaml.safe_dump(told))


@pytest.fixture
def invented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The families with one more file, which is all that somebody adds."""
    folder = tmp_path / "families"
    shutil.copytree(families.DIRECTORY, folder)
    before = set(folder.iterdir())
    monkeypatch.setattr(families, "DIRECTORY", folder)
    write(families.file_of(NEW))
    assert set(folder.iterdir()) - before == {folder / f"{NEW}.yml"}
    monkeypatch.setitem(FACTS, NEW, facts_of(NEW))


def units_of_certbot(folder: Path) -> dict[str, str]:
    return {path: Path(path).read_text() for path in test_certbot.write_units(folder, NEW)}


RENDERED: dict[str, Callable[[Path], dict[str, str]]] = {
    "application": lambda _: {
        name: test_application_redis.rendered(name, True, NEW)
        for name in ("redis.service.j2", "redis.conf.j2")
    },
    "certbot": units_of_certbot,
    "etcd": lambda _: test_etcd.configuration(NEW),
    "gunicorn_systemd": lambda _: test_gunicorn_systemd.files(NEW, test_gunicorn_systemd.REQUIRED),
    "firewall": lambda _: test_firewall.configuration(NEW),
    "haproxy": lambda folder: test_haproxy.configuration(folder, NEW),
    "keepalived": lambda _: test_keepalived.configuration(NEW),
    "monitoring": lambda _: test_monitoring.configuration(NEW, **test_monitoring.ON),
    "postgresql": lambda _: test_postgresql.configuration(NEW, "other-hosts"),
    "nginx": lambda _: nginx.configuration(NEW, nginx_sites=[nginx.SITE, nginx.BOTH]),
}


@pytest.mark.usefixtures("invented")
@pytest.mark.parametrize("role", WITH_VARIABLES)
def test_templates_are_rendered_for_a_new_family(role: str, tmp_path: Path) -> None:
    assert all(text.strip() for text in RENDERED[role](tmp_path).values())
    if role == "nginx":
        assert "user wwwrun;" in render("nginx", "nginx/nginx.conf.j2", NEW)


SETTINGS: dict[str, dict[str, Any]] = {
    "application": shop(source={"directory": "app"}),
    "certbot": test_certbot.GOOD,
    "etcd": test_etcd.GOOD,
    "gunicorn_systemd": test_gunicorn_systemd.REQUIRED,
    "firewall": {"firewall_enabled": True},
    "haproxy": test_haproxy.VARIANTS["defaults"],
    "keepalived": test_keepalived.GOOD,
    "monitoring": {},
    "nginx": {"nginx_sites": [nginx.SITE]},
    "postgresql": test_postgresql.VARIANTS["other-hosts"],
}


@pytest.mark.usefixtures("invented")
@pytest.mark.parametrize("role", WITH_VARIABLES)
def test_preflight_passes_a_new_family(role: str) -> None:
    """The host says `invented-enterprise`, and the file does the rest."""
    host = {
        **{key: value for key, value in FACTS[NEW].items() if not key.startswith("family")},
        "distribution": "invented-enterprise",
    }
    case = Case(SETTINGS[role], host)
    other = Case(SETTINGS[role], host | {"distribution": "other", "pretty_name": "Other 1"})
    said = preflight(role, {"new": case, "other": other})
    assert said["new"] == ""
    assert f"the host runs Other 1 (family other); role {role} supports" in said["other"]
    assert NEW in said["other"]


@pytest.mark.usefixtures("invented")
def test_applications_may_list_packages_of_a_new_family() -> None:
    [option] = families.spread({"packages": {"families": {"type": "list"}}}).values()
    assert set(option["options"]) == {*FAMILIES, NEW}


MANAGER = """
import json
from ansible.module_utils.basic import AnsibleModule
given = ("name", "state", "only_required", "keep_off", "clean")
module = AnsibleModule({"log": {"type": "path"}, **{key: {"type": "raw"} for key in given}})
with open(module.params.pop("log"), "a") as log:
    log.write(json.dumps({k: v for k, v in module.params.items() if v is not None}) + "\\n")
module.exit_json(changed=True)
"""
# Packages that a new host lacks, by the file of tasks that installs them.
LACKING: dict[tuple[str, str], tuple[dict[str, Any], list[str], bool]] = {
    ("application", "install"): (
        {"__application_missing_packages": ["libpq5"], "application_move": False},
        ["libpq5"],
        True,
    ),
    ("certbot", "install"): ({"certbot_install": "package"}, ["certbot"], False),
    ("firewall", "install"): ({}, ["nftables"], False),
    ("haproxy", "install"): ({}, ["ca-certificates", "haproxy"], False),
    ("keepalived", "install"): ({}, ["keepalived"], False),
    ("monitoring", "install"): ({"__monitoring_packages": ["exporter"]}, ["exporter"], False),
    ("postgresql", "install"): (
        {"__postgresql_packages": ["postgresql-17"]},
        ["pgbackrest", "postgresql-17"],
        False,
    ),
    # It looks at the machine again, so it comes last.
    ("nginx", "install"): ({}, ["logrotate", "nginx"], False),
}
REDIS = ("application", "redis/install")


@pytest.mark.parametrize("check", [False, True])
def test_packages_of_a_new_family_come_from_its_manager(
    check: bool, play: Play, tmp_path: Path
) -> None:
    """With Ansible itself, the roles as they are and a collection with one file more."""
    copied = tmp_path / "collections"
    shutil.copytree(PROJECT / "collections", copied)
    file = copied / families.file_of(NEW).relative_to(PROJECT / "collections")
    log = tmp_path / "log"
    log.touch()
    manager = {
        "module": "invented_manager",
        "install": {"log": str(log), "only_required": True},
        "without_services": {"keep_off": True},
        "remove": {"log": str(log), "clean": True},
    }
    write(file, __family_packages=manager)
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "invented_manager.py").write_text(MANAGER)
    host = {**facts_of("Debian"), "family": NEW, "family_file": str(file), "packages": {}}
    tasks: list[dict[str, Any]] = []
    # The unit of a real Redis is nothing for this machine.
    wanted = {REDIS: ({}, ["redis-of-invented"], False), **LACKING} if check else LACKING
    for (role, tasks_from), (variables, _, _) in wanted.items():
        tasks += [
            {"ansible.builtin.set_fact": {"wsgi_host": host, "cacheable": True}},
            {"ansible.builtin.include_vars": "{{ ansible_facts['wsgi_host'].family_file }}"},
            {
                "ansible.builtin.include_role": {
                    "name": role,
                    "tasks_from": tasks_from,
                    "rolespec_validate": False,
                },
                "vars": variables,
            },
        ]
    run = play(
        *tasks,
        arguments=("--check",) if check else (),
        settings={
            "ANSIBLE_COLLECTIONS_PATH": str(copied),
            "ANSIBLE_ROLES_PATH": str(ROLES),
            "ANSIBLE_LIBRARY": str(tmp_path / "library"),
        },
    )
    assert run.code == 0, run.output
    done = [json.loads(line) for line in log.read_text().splitlines()]
    if check:
        assert done == []
        said = re.findall(r"Would install ([\w, -]+)", run.output)
        assert [sorted(each.split(", ")) for each in said] == [
            each for _, each, _ in wanted.values()
        ]
        return
    assert [{**each, "name": sorted(each["name"])} for each in done] == [
        {
            "name": names,
            "state": "present",
            "only_required": True,
            **({} if starts else {"keep_off": True}),
        }
        for _, names, starts in LACKING.values()
    ]


# How packages are installed -----------------------------------------------------------------------


def called(family: str, **told: Any) -> tuple[str, dict[str, Any]] | None:
    """The module that is run for a task, with its arguments; None if none is."""
    action = action_of(packages.ActionModule, told)
    calls = []

    def run(module: str, arguments: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        calls.append((module, arguments))
        return {"changed": True}

    action._run = run
    action.run(task_vars={"ansible_facts": {"wsgi_host": FACTS[family]}})
    return calls[0] if calls else None


def test_debian_keeps_services_off_and_removes_settings() -> None:
    name = ["nginx"]
    assert called("Debian", name=name, start_services=False) == (
        "wsgi.host.apt",
        {"name": name, "state": "present", "policy_rc_d": 101},
    )
    assert called("Debian", name=name) == ("wsgi.host.apt", {"name": name, "state": "present"})
    assert called("Debian", name=name, state="absent") == (
        "wsgi.host.apt",
        {"name": name, "state": "absent", "purge": True},
    )


def test_the_red_hat_family_leaves_weak_dependencies_out() -> None:
    name = ["nginx"]
    more = {"install_weak_deps": False, "lock_timeout": 300}
    for services in (True, False):
        assert called("RedHat", name=name, start_services=services) == (
            "ansible.builtin.dnf",
            {"name": name, "state": "present", **more},
        )
    assert called("RedHat", name=name, state="absent") == (
        "ansible.builtin.dnf",
        {"name": name, "state": "absent", "lock_timeout": 300},
    )


def test_what_is_there_is_renewed_by_the_familys_own_way() -> None:
    module, arguments = called("Debian", state="renewed") or ("", {})
    assert module == "ansible.builtin.apt"
    assert arguments["upgrade"] == "safe"
    module, arguments = called("RedHat", state="renewed") or ("", {})
    assert (module, arguments["name"], arguments["state"]) == ("ansible.builtin.dnf", "*", "latest")


@EACH_FAMILY
@pytest.mark.parametrize("state", ["present", "absent"])
def test_nothing_to_do_costs_no_trip(family: str, state: str) -> None:
    assert called(family, name=[], state=state) is None


@pytest.mark.parametrize("failed", [False, True])
def test_the_host_is_looked_at_after_the_installation(failed: bool) -> None:
    """Templates depend on versions; what failed has its own words, and no others."""
    action = action_of(packages.ActionModule, {"name": ["nginx"], "look_again": True})
    action._run = lambda *_: {"changed": True, "failed": failed}
    seen = {"packages": {"nginx": "1"}, "distribution": "debian", "distribution_like": []}
    action._execute_module = lambda **_: {"ansible_facts": {"wsgi_host": seen}}
    result = action.run(task_vars={"ansible_facts": {"wsgi_host": FACTS["Debian"]}})
    if failed:
        assert "ansible_facts" not in result
    else:
        assert result["ansible_facts"]["wsgi_host"]["packages"] == {"nginx": "1"}
        assert result["ansible_facts"]["wsgi_host"]["family"] == "Debian"


def test_all_roles_install_packages_this_way() -> None:
    direct = re.compile(r"^ +(ansible\.builtin\.(apt|dnf|package)|wsgi\.host\.apt):", re.MULTILINE)
    found = [*ROLES.glob("*/tasks/**/*.yml"), *PROJECT.glob("playbooks/*.yml")]
    assert [str(path) for path in found if direct.search(path.read_text())] == []
