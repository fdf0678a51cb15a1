"""A control node that is too old is told which versions are needed, in place of a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.wsgi.host.plugins.plugin_utils import versions
from conftest import PROJECT

ACTIONS = PROJECT / "collections/ansible_collections/wsgi/host/plugins/action"


@pytest.mark.parametrize(
    ("core", "python"),
    [("2.17.14", (3, 11)), ("2.18.0rc1", (3, 13)), ("2.19.3", (3, 10)), ("1.9", (3, 11))],
)
def test_what_is_needed_is_said(core: str, python: tuple[int, ...]) -> None:
    said = versions.problem(core, python)
    assert f"ansible-core {core} and Python {'.'.join(map(str, python))};" in said
    assert "ansible-core 2.19 and Python 3.11 or newer are needed" in said
    assert "pip install -r requirements.txt" in said


@pytest.mark.parametrize("core", ["2.19.0", "2.20.1rc2", "2.100.0", "3.0"])
def test_newer_ones_are_taken(core: str) -> None:
    assert versions.problem(core, (3, 14)) == ""


@pytest.mark.parametrize("path", sorted(ACTIONS.glob("*.py")), ids=lambda path: path.stem)
def test_each_action_looks_before_it_imports_what_is_new(path: Path) -> None:
    imports = [line for line in path.read_text().splitlines() if "import " in line]
    of_ansible = [line for line in imports if line.startswith(("import ansible", "from ansible"))]
    assert "plugin_utils.versions" in of_ansible[0]


@pytest.mark.parametrize(
    "book", ["site", "deploy", "rollback", "restore", "backup", "certificate", "status"]
)
def test_every_playbook_ends_with_that_message(book: str, tmp_path: Path) -> None:
    """An ansible-core that says it is 2.17; a real one was seen to end with the same message."""
    (tmp_path / "sitecustomize.py").write_text(
        "import ansible.release\nansible.release.__version__ = '2.17.14'\n"
    )
    inventory = tmp_path / "hosts.yml"
    variables = (
        "{ansible_connection: local, application_restore: latest,"
        " applications: {shop: {source: app, domains: [a.example.com]}}}"
    )
    inventory.write_text(f"web: {{hosts: {{here: {variables}}}}}\n")
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "--inventory", inventory, PROJECT / "playbooks" / f"{book}.yml"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "ANSIBLE_HOME": str(tmp_path / "ansible")},
    )
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert "This control node has ansible-core 2.17.14" in said, said
    assert "Unexpected Exception" not in said
