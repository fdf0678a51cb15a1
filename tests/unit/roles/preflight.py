"""Runs a role's preflight for many cases at once, on hosts that are only facts."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .render import FACTS, ROLES

COLLECTION = ROLES.parent / "collections" / "ansible_collections" / "wsgi" / "host"
PROBE = """#!/usr/bin/python
import json
import os
from ansible.module_utils.basic import AnsibleModule
facts = json.loads(os.environ["TEST_HOST"])
AnsibleModule({}, supports_check_mode=True).exit_json(ansible_facts={"wsgi_host": facts})
"""


@dataclass(frozen=True)
class Case:
    """Variables that a user sets, facts unlike those of a Debian host, other hosts with theirs."""

    variables: Mapping[str, Any] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def preflight(role: str, cases: Mapping[str, Case], directory: Path) -> dict[str, str]:
    """Run the preflight of a role for each case, and return what it said: empty where it passed.

    One run of Ansible for all, with a play for each, because a run takes a second and a play does
    not. `directory` is an empty one to work in.
    """
    _collection_with_facts_for_a_probe(directory)
    plays = [
        {
            "name": name,
            "hosts": ["localhost", *case.beside],
            "connection": "local",
            "gather_facts": False,
            "any_errors_fatal": False,
            "vars": {**case.variables, "ansible_python_interpreter": sys.executable},
            "environment": {"TEST_HOST": json.dumps(_facts(case))},
            "tasks": [
                {
                    "block": [{"import_role": {"name": role, "tasks_from": "preflight"}}],
                    "rescue": [{"meta": "noop"}],
                    "when": "inventory_hostname == 'localhost'",
                }
            ],
        }
        for name, case in cases.items()
    ]
    beside = {
        name: {**variables, "ansible_python_interpreter": sys.executable}
        for case in cases.values()
        for name, variables in case.beside.items()
    }
    inventory = directory / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": {"localhost": {}, **beside}}}))
    playbook = directory / "playbook.yml"
    playbook.write_text(yaml.safe_dump(plays, sort_keys=False))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", inventory, playbook],
        cwd=ROLES.parent,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(directory),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict.fromkeys(cases, "")
    for play in json.loads(done.stdout)["plays"]:
        for task in play["tasks"]:
            result = task["hosts"].get("localhost", {})
            if result.get("failed"):
                said[play["play"]["name"]] = result["msg"]
    return said


def _facts(case: Case) -> dict[str, Any]:
    return copy.deepcopy(FACTS["Debian"]) | dict(case.host)


def _collection_with_facts_for_a_probe(directory: Path) -> None:
    """The project's collection by links, but for the probe, which returns what a case says."""
    target = directory / "ansible_collections" / "wsgi" / "host"
    for source in sorted(COLLECTION.rglob("*")):
        link = target / source.relative_to(COLLECTION)
        if source.is_dir() or "__pycache__" in source.parts:
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        if source.name == "probe.py" and source.parent.name == "modules":
            link.write_text(PROBE)
        else:
            link.symlink_to(source)
