"""Argument specifications: the one source of what a variable is, held against everything else."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.wsgi.host.plugins.plugin_utils import families
from ansible_collections.wsgi.host.plugins.plugin_utils.variables import TYPES, Checker
from conftest import PROJECT

ROLES = sorted(path.parent.parent for path in PROJECT.glob("roles/*/meta/argument_specs.yml"))
EACH_ROLE = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
DURATION = re.compile(r"(timeout|delay|interval|time_limit|max_age|lifetime|retry_after)")
SIZE = re.compile(r"(_size|_memory|memory_|_bytes)")
UNITS = {"seconds", "minutes", "hours", "days", "weeks", "months", "bytes", "kib", "mib", "percent"}
# Words of nginx, HAProxy, gunicorn and systemd for something that is counted, and what has no unit.
COUNTED = {"port", "status", "weight", "count", "depth", "max", "id"}
COUNTED |= {"backlog", "burst", "once", "keepalive", "fall", "rise", "jitter"}
MODULES = sorted(PROJECT.glob("collections/ansible_collections/wsgi/host/plugins/modules/*.py"))
# Names of ansible.builtin.apt, which the module stands in for; a time that the action fills in.
BORROWED = {"apt": {"lock_timeout", "cache_valid_time", "policy_rc_d"}, "firewall": {"since"}}
# What an option may stand in for when nothing but the specification is known.
PLACEHOLDERS = {"str": "name", "path": "/srv", "int": 1, "bool": True, "list": ["name"], "dict": {}}


def options(role: Path) -> dict[str, dict[str, Any]]:
    """The options of the entry point main."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
    found: dict[str, dict[str, Any]] = specs["argument_specs"]["main"]["options"]
    return found


def values(role: Path, path: str) -> dict[str, Any]:
    """The variables of one file of a role, as YAML has them."""
    file = role / path
    return (yaml.safe_load(file.read_text()) or {}) if file.exists() else {}


def everything(found: dict[str, dict[str, Any]], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every option with its path, those below others included."""
    for name, option in found.items():
        yield f"{above}{name}", option
        yield from everything(option.get("options", {}), f"{above}{name}.")
        yield from everything(option.get("values", {}), f"{above}{name}.*.")


def members() -> dict[str, dict[str, Any]]:
    """What the description of an application can say."""
    path = PROJECT / "roles/application/meta/description.yml"
    return families.spread(yaml.safe_load(path.read_text()))


def described(role: Path) -> list[tuple[str, Any]]:
    """Every option of a role with its path, members of descriptions included."""
    more = everything(members(), "applications.*.") if role.name == "application" else ()
    return [*everything(options(role)), *more]


def test_there_are_roles_to_test() -> None:
    wanted = {"application", "certbot", "firewall", "gunicorn_systemd", "haproxy", "monitoring"}
    wanted |= {"nginx", "postgresql", "toll_app"}
    assert wanted <= {role.name for role in ROLES}


@EACH_ROLE
def test_defaults_are_those_of_the_specification(role: Path) -> None:
    """Two places with the same value, because Ansible reads both; this keeps them the same."""
    specified = {
        name: option["default"] for name, option in options(role).items() if "default" in option
    }
    assert values(role, "defaults/main.yml") == specified


@EACH_ROLE
def test_what_has_no_default_is_required_or_may_be_absent(role: Path) -> None:
    """A template that reads an optional variable without a default has to say so by `default()`."""
    for name, option in options(role).items():
        assert ("default" in option) != bool(option.get("required", False)), (
            f"{name}: give it a default, or `required: true`"
        )


def test_a_member_of_a_description_has_a_default_or_is_required() -> None:
    """`describe` fills in what is left out, and templates read it without asking."""
    for path, option in everything(members()):
        required = option.get("required", False)
        needs_members = option["type"] == "dict" and any(
            each.get("required") for each in option.get("options", {}).values()
        )
        # What cannot be without members has no default: it may be left out.
        assert ("default" in option) != (required or needs_members), path
        assert set(option) <= {
            *("description", "type", "elements", "default", "required", "options", "choices"),
            *("no_log", "values"),
        }, path
        if "options" in option:
            assert option.get("default", {}) in ({}, []), f"{path}: its members have the defaults"


def test_a_secret_of_a_description_is_marked() -> None:
    hidden = {path for path, option in everything(members()) if option.get("no_log")}
    assert hidden == {"secrets", "data.database_url", "data.seeds.stdin"}


def test_the_service_is_told_every_variable_once() -> None:
    """What service.yml leaves out would be another application's, or the inventory's for all."""
    text = (PROJECT / "roles/application/tasks/service.yml").read_text()
    (task,) = yaml.safe_load(text)
    told = {name for name in task["vars"] if name.startswith("gunicorn_systemd_")}
    assert told == set(options(PROJECT / "roles/gunicorn_systemd"))
    for name in told:
        assert len(re.findall(rf"^    {name}: ", text, re.M)) == 1, name
        value = task["vars"][name]
        member = re.search(r"__application_entry\.service\.(\w+)", str(value))
        assert member is None or f"gunicorn_systemd_{member[1]}" == name, name


def test_what_the_service_is_told_has_the_name_that_a_person_wrote() -> None:
    """Where a variable follows from another member, a message names that one."""
    text = (PROJECT / "roles/application/tasks/service.yml").read_text()
    (task,) = yaml.safe_load(text)
    origins = task["vars"]["__gunicorn_systemd_origins"]
    known = {path for path, _ in everything(members())} | {"name"}
    named = dict(
        re.findall(r"'(gunicorn_systemd_\w+)': __gunicorn_systemd_written ~ '([\w.]+)'", origins)
    )
    assert named
    assert set(named) <= set(options(PROJECT / "roles/gunicorn_systemd"))
    assert set(named.values()) <= known


@EACH_ROLE
def test_every_option_says_what_it_is(role: Path) -> None:
    for path, option in described(role):
        description = option.get("description")
        text = description if isinstance(description, str) else " ".join(description or [])
        assert text.strip().endswith((".", ")")), f"{path}: a description is a sentence"
        assert option.get("type") in TYPES, f"{path}: {option.get('type')} is no type"
        if option["type"] == "list":
            assert option.get("elements") in TYPES, f"{path}: say what the list is made of"


@EACH_ROLE
def test_durations_and_sizes_say_their_unit(role: Path) -> None:
    for path, option in described(role):
        name = path.rpartition(".")[2]
        text = f"{name} {option['description']}".lower()
        if DURATION.search(name):
            assert re.search(r"second|minute|hour|day", text), f"{path}: in which unit?"
        if SIZE.search(name):
            assert re.search(r"byte|kib|mib|amount|o\(", text), f"{path}: in which unit?"


def nameless(name: str) -> bool:
    """Whether the name of a number fails to say what it is a number of.

    It ends in a unit, or it counts things: its last word is a plural, or one of COUNTED.
    """
    last = name.partition("_per_")[0].rpartition("_")[2]
    return last not in {*UNITS, *COUNTED} and not last.endswith("s")


@pytest.mark.parametrize(
    ("name", "faulty"),
    [
        ("nginx_stop_timeout_seconds", False),
        ("nginx_stop_timeout", True),
        ("monitoring_retention_mib", False),
        ("monitoring_retention_mb", True),
        ("nginx_http_port", False),
        ("haproxy_max_connections_per_address", False),
        ("nginx_interval", True),
    ],
)
def test_a_name_without_a_unit_is_found(name: str, faulty: bool) -> None:
    assert nameless(name) is faulty


@EACH_ROLE
def test_the_name_of_a_number_says_its_unit(role: Path) -> None:
    """Decision 0107: in a message or in `-e` there is nothing but the name to tell it by."""
    faulty = [
        path
        for path, option in described(role)
        if option["type"] in ("int", "float") or type(option.get("default")) in (int, float)
        if nameless(path.rpartition(".")[2])
    ]
    assert faulty == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_the_name_of_a_modules_number_says_its_unit(module: Path) -> None:
    text = re.search(r'^DOCUMENTATION = r"""(.*?)"""', module.read_text(), re.S | re.M)
    options = yaml.safe_load(text[1]).get("options") or {} if text else {}
    numbers = {name for name, option in options.items() if option["type"] in ("int", "float")}
    assert {name for name in numbers if nameless(name)} <= BORROWED.get(module.stem, set())


@EACH_ROLE
def test_public_variables_carry_the_roles_name(role: Path) -> None:
    """And the others say by their underscores that nobody is to set them."""
    short = {"applications"} if role.name == "application" else set()
    for name in set(options(role)) - short:
        assert name.startswith(f"{role.name}_")
    for file in sorted((role / "vars").glob("*.yml")):
        # The description that a role brings, for another one to read.
        for name in set(values(role, f"vars/{file.name}")) - {f"{role.name}_application"}:
            assert name.startswith(f"__{role.name}_"), f"{file.name}: {name}"


@EACH_ROLE
def test_defaults_are_right_before_the_host_is_known(role: Path) -> None:
    """Ansible validates a role's arguments before its first task, so before the probe."""
    spec = options(role)
    required = {
        name: PLACEHOLDERS[option["type"]]
        for name, option in spec.items()
        if option.get("required")
    }
    loader = DataLoader()
    files = [role / "defaults" / "main.yml", role / "vars" / "main.yml"]
    variables: dict[str, Any] = {"role_path": trust_as_template(str(role)), "ansible_facts": {}}
    for file in files:
        if file.exists():
            variables |= loader.load_from_file(str(file), trusted_as_template=True) or {}
    variables |= required
    templar = Templar(loader=loader, variables=variables)
    checker = Checker(role.name, spec, {})
    for name in spec:
        checker.value(name, templar.template(variables[name]))
    assert checker.problems == []


@EACH_ROLE
def test_other_entry_points_know_the_same_variables(role: Path) -> None:
    """A variable that one of them does not know is refused when the role is entered there."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    for name, entry in specs.items():
        assert entry["short_description"]
        assert entry.get("options") == options(role), name
        assert (role / "tasks" / f"{name}.yml").is_file()


def test_the_tables_in_the_readmes_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, PROJECT / "tools" / "role_tables.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_table_out_of_date_is_found_and_written(tmp_path: Path) -> None:
    role = tmp_path / "web"
    (role / "meta").mkdir(parents=True)
    spec = {
        "web_sites": {
            "description": ["The sites, see C(sites/)."],
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"mode": {"description": "A|B.", "choices": ["a", "b"], "required": True}},
        },
        "web_key": {"description": "Key.", "type": "str", "no_log": True, "default": ""},
    }
    (role / "meta" / "argument_specs.yml").write_text(
        yaml.safe_dump({"argument_specs": {"main": {"options": spec}}}, sort_keys=False)
    )
    readme = role / "README.md"
    readme.write_text("# web\n<!-- variables -->\nold\n<!-- /variables -->\nend\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, PROJECT / "tools" / "role_tables.py", "--roles", tmp_path, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    checked = run("--check")
    assert checked.returncode == 1
    assert "out of date; run tools/role_tables.py" in checked.stderr
    assert "old" in readme.read_text()
    assert run().returncode == 0
    assert readme.read_text().splitlines() == [
        "# web",
        "<!-- variables -->",
        "| variable | type | default | what it is for |",
        "| --- | --- | --- | --- |",
        "| `web_sites` | list of dict | `[]` | The sites, see `sites/`. |",
        "| `web_sites[].mode` | str | **required** | A\\|B. One of `a`, `b`. |",
        '| `web_key` | str | `""` | Key. A secret: never shown, belongs into a vault. |',
        "<!-- /variables -->",
        "end",
    ]
    assert run("--check").returncode == 0
    readme.write_text("# web\n")
    assert "where the table belongs" in run("--check").stderr
