"""What is wrong with a host is said before any host changes, and not after some have."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import PROJECT

from .render import ROLES

TASKS = ROLES / "application" / "tasks"
SITE: list[dict[str, Any]] = yaml.safe_load((PROJECT / "playbooks/site.yml").read_text())
# What each file changes a host by, and how it is tagged.
KINDS = {
    "voter": ("etcd", "postgresql"),
    "database": ("postgresql", "postgresql"),
    "balance": ("haproxy", "haproxy"),
}


def tasks_from(play: dict[str, Any]) -> list[str]:
    """The files of the role that a play goes through."""
    roles = (
        task.get("ansible.builtin.include_role") or task.get("ansible.builtin.import_role")
        for task in play["tasks"]
    )
    return [role.get("tasks_from", "main") for role in roles if role["name"] == "application"]


def changing(kind: str) -> int:
    return next(n for n, play in enumerate(SITE) if tasks_from(play) == [kind])


def checking(kind: str) -> int:
    return next(n for n, play in enumerate(SITE) if tasks_from(play) == ["look", kind])


@pytest.mark.parametrize("kind", KINDS)
def test_hosts_are_checked_before_any_other_changes(kind: str) -> None:
    """A balancer's mistake was found once the database had been configured."""
    check = SITE[checking(kind)]
    assert checking(kind) < min(map(changing, KINDS))
    assert check["hosts"] == SITE[changing(kind)]["hosts"]
    for task in check["tasks"]:
        assert task["vars"] == {"__application_only_checks": True}
        # A host without others pays for no task of it, not even for reading it.
        assert "ansible.builtin.include_role" in task
        assert task["tags"] == ["always"]
    _, role = (task["ansible.builtin.include_role"] for task in check["tasks"])
    # A run for some tags checks what it is to change.
    assert role["apply"] == {"tags": SITE[changing(kind)]["tasks"][0]["tags"]}


@pytest.mark.parametrize(("kind", "role"), [(kind, told[0]) for kind, told in KINDS.items()])
def test_checks_come_before_changes_and_with_the_same_variables(kind: str, role: str) -> None:
    tasks = yaml.safe_load((TASKS / f"{kind}.yml").read_text())
    last = next(n for n, task in enumerate(tasks) if "others.yml" in str(task))
    assert tasks[last]["tags"] == ["always"]
    for task in tasks[:last]:
        included = task.get("ansible.builtin.include_role")
        reads = {"wsgi.host.database", "wsgi.host.balance"} & set(task)
        floats = task.get("vars") == {"__application_floating_stage": "preflight"}
        assert reads or floats or included["tasks_from"] == "preflight", task["name"]
    (check,) = (t for t in tasks[:last] if "ansible.builtin.include_role" in t)
    (change,) = (t for t in tasks[last:] if "ansible.builtin.import_role" in t)
    assert check["ansible.builtin.include_role"]["name"] == role
    assert change["ansible.builtin.import_role"]["name"] == role
    assert check["vars"] == change["vars"]
    only = "__application_only_checks | default(false)"
    assert check["when"] == tasks[last]["when"] == only


INVENTORY = """
all:
  vars:
    ansible_connection: local
    ansible_become: false
    ansible_python_interpreter: {python}
    firewall_enabled: true
    application_database_secret: {secret}
web:
  hosts:
    web1: {{ansible_host: 192.0.2.11}}
  vars:
    applications:
      shop: {{source: app, domains: [app.example.com], data: {{postgresql: true}}}}
databases:
  hosts:
    db1: {{ansible_host: 192.0.2.31, postgresql_max_connections: "300"}}
balancers:
  hosts:
    lb1: {{ansible_host: 192.0.2.41, haproxy_http_port: "80x"}}
"""


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("db1", 'postgresql_max_connections is "300" (text); an integer is needed'),
        ("lb1", 'haproxy_http_port is "80x" (text); an integer is needed'),
    ],
)
def test_a_run_ends_before_the_firewall_and_other_hosts(
    host: str, problem: str, tmp_path: Path
) -> None:
    """The firewall had been changed when the next line said that nothing was."""
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(INVENTORY.format(python=sys.executable, secret="s" * 64))
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("ansible-playbook"), "-i", inventory),
            *("site.yml", "--check", f"--limit={host}"),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_HOME": str(tmp_path / "home"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        },
    )
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert problem in said
    assert "PLAY [Provision" not in said
    assert "TASK [firewall" not in said
    assert re.search(rf"{host} : ok=\d+ changed=0 ", said)
