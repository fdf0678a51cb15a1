"""What ansible-lint does not know of the house style."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.wsgi.host.plugins.plugin_utils.variables import Checker
from conftest import PROJECT

ROLES = sorted(path.parent.parent for path in PROJECT.glob("roles/*/tasks/main.yml"))
EACH_ROLE = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
FILES = sorted(PROJECT.glob("roles/*/tasks/**/*.yml"))
EACH_FILE = pytest.mark.parametrize(
    "file", FILES, ids=lambda file: str(file.relative_to(PROJECT / "roles"))
)
DISTRIBUTIONS = re.compile(r"\b(debian|ubuntu|centos|rhel|redhat|fedora|rocky|almalinux)\b", re.I)
IMPORTS = {
    "ansible.builtin.import_tasks",
    "ansible.builtin.import_role",
    # For each of several applications.
    "ansible.builtin.include_tasks",
}
KEYWORDS = {"name", "vars", "when", "tags", "loop", "loop_control"}
# It only describes an application, for another role, which does the work.
DESCRIBES = "toll_app"


def load(file: Path) -> list[dict[str, Any]]:
    """The tasks of a file, those in blocks with their block."""
    return yaml.safe_load(file.read_text()) or []


def tasks(listed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every task, those in blocks included."""
    for task in listed:
        if "block" in task:
            for part in ("block", "rescue", "always"):
                yield from tasks(task.get(part, []))
        else:
            yield task


def preflight(role: Path) -> dict[str, Any]:
    """The options of the role's preflight, which at most a description comes before."""
    name = "describe" if role.name == DESCRIBES else "preflight"
    first, second, *_ = [*load(role / "tasks" / f"{name}.yml"), {}]
    if first.get("ansible.builtin.import_tasks") == "describe.yml":
        first = second
    found: dict[str, Any] = first["wsgi.host.preflight"]
    return found


@EACH_ROLE
def test_main_is_a_table_of_contents(role: Path) -> None:
    for task in tasks(load(role / "tasks" / "main.yml")):
        assert set(task) & IMPORTS, task["name"]
        assert set(task) - IMPORTS <= KEYWORDS, task["name"]


@EACH_ROLE
def test_main_begins_with_the_preflight(role: Path) -> None:
    """Nothing is changed before everything is known to be right."""
    path = role / "tasks" / "main.yml"
    if role.name == DESCRIBES:
        (task,) = load(path)
        assert task["ansible.builtin.import_role"]["name"] == "application"
        return
    while path.name != "preflight.yml":
        first = load(path)[0]
        assert "ansible.builtin.import_tasks" in first, f"{path.name}: {first['name']}"
        path = path.with_name(first["ansible.builtin.import_tasks"])
    assert preflight(role)["role"] == role.name


def known(options: dict[str, Any], path: list[str]) -> bool:
    """Whether a path leads to an option, `*` for any item, key or member."""
    return leads({"options": options}, path)


def leads(at: dict[str, Any], path: list[str]) -> bool:
    if not path:
        return True
    step, *rest = path
    if step == "*" and "values" in at:
        return leads({"options": at["values"]}, rest)
    if step == "*" and at.get("type") == "dict" and "options" in at:
        return any(leads(member, rest) for member in at["options"].values())
    if step == "*":
        return leads({**at, "within": True}, rest)
    if "options" in at:
        return step in at["options"] and leads(at["options"][step], rest)
    # A member of an option that is described elsewhere.
    return bool(at["type"] == "dict")


# Ansible's, and those of other roles that have no effect in an inventory.
OTHERS = ("ansible_host", "nginx_sites", "certbot_certificates", "applications")


@EACH_ROLE
def test_the_preflight_speaks_of_real_variables(role: Path) -> None:
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
    spec = specs["argument_specs"]["main"]["options"]
    options = preflight(role)
    for name, file in options.get("values", {}).items():
        spec[name]["values"] = yaml.safe_load((role / file).read_text())
    formats = options.get("formats", {})
    Checker(role.name, spec, formats)  # raises ValueError
    for path in formats:
        assert known(spec, path.split(".")), path
    each = options.get("each", {})
    for rule in each.get("rules", []):
        members = ["*", *rule["variable"].split(".")]
        assert rule["variable"] == "name" or known(spec, [each["variable"], *members]), rule
        assert not rule["problem"].rstrip().endswith("."), rule["problem"]
        assert not rule["remedy"].rstrip().endswith("."), rule["remedy"]
    for rule in options.get("rules", []):
        # Where it is about the host, it says so in words.
        assert rule["variable"] in {*spec, *OTHERS} or " " in rule["variable"], rule
        assert not rule["problem"].rstrip().endswith("."), rule["problem"]
        assert not rule["remedy"].rstrip().endswith("."), rule["remedy"]


@EACH_FILE
def test_a_file_of_tasks_is_one_concern(file: Path) -> None:
    limit = 20 if file.name == "main.yml" else 12
    assert len(list(tasks(load(file)))) <= limit


@EACH_FILE
def test_no_distribution_is_named_in_a_task(file: Path) -> None:
    """What differs lives in the family's file in `families/` of the collection."""
    code = re.sub(r"^\s*(#.*|- name: .*)$", "", file.read_text(), flags=re.M)
    assert DISTRIBUTIONS.findall(code) == []


@EACH_FILE
def test_names_are_sentences_without_a_stop(file: Path) -> None:
    for task in tasks(load(file)):
        assert not task["name"].endswith("."), task["name"]
        if file.name != "main.yml":
            verb = task["name"].split(" | ")[-1]
            assert verb[0].isupper(), task["name"]


@EACH_FILE
def test_a_command_says_what_it_changes_and_why_no_module_does_it(file: Path) -> None:
    text = file.read_text()
    for task in tasks(load(file)):
        module = next((key for key in task if key.endswith((".command", ".shell"))), None)
        if module is None:
            continue
        assert module == "ansible.builtin.command", task["name"]
        assert "argv" in task[module], task["name"]
        assert "changed_when" in task, task["name"]
        before = text.split(f"- name: {task['name']}")[0].rstrip().splitlines()[-1]
        assert before.lstrip().startswith("#"), f"{task['name']}: say why no module fits"


@EACH_FILE
def test_no_failure_is_hidden(file: Path) -> None:
    for task in tasks(load(file)):
        # Ansible ends a host that asks another one, by run_once or delegate_to, when that one is
        # gone, unless it ignores both.
        for_others = task.get("run_once") or "delegate_to" in task
        asks = for_others and task.get("ignore_unreachable")
        assert "ignore_errors" not in task or asks, task["name"]


def test_a_handler_counts_in_check_mode() -> None:
    """A preview that leaves restarts out promises fewer changes than follow.

    The handover is the exception: the play that hands over foretells it itself.
    """
    left_out = []
    for path in sorted(PROJECT.glob("roles/*/handlers/*.yml")):
        for task in yaml.safe_load(path.read_text()):
            conditions = task.get("when", [])
            conditions = [conditions] if isinstance(conditions, str) else conditions
            looks = {"wsgi.host.judge"} & task.keys() or "explain" in str(task)
            if "not ansible_check_mode" in conditions and not looks:
                left_out.append(task["name"])
    assert left_out == ["Hand over {{ gunicorn_systemd_name }}"]
