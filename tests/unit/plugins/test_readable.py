"""`wsgi.host.readable` and ansible.cfg: what cannot be read is named, and ends a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT

HOSTS = "web: {hosts: {web1: {ansible_connection: local, ansible_host: 127.0.0.1}}}\n"
WRONG = "password: s3cret\nports: [1, 2\nother: 1\n"


def run(tmp_path: Path, *inventories: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A playbook that says what it read."""
    (tmp_path / "play.yml").write_text(
        "- {hosts: all, gather_facts: false, tasks: [{debug: {var: ports}}]}\n"
    )
    program = Path(sys.executable).with_name("ansible-playbook")
    named = [word for name in inventories or ["hosts.yml"] for word in ("-i", name)]
    return subprocess.run(
        [program, *named, "play.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
            "ANSIBLE_HOME": str(tmp_path / "home"),
            **settings,
        },
    )


@pytest.fixture(autouse=True)
def hosts(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(HOSTS)


@pytest.mark.parametrize("name", ["group_vars/web.yml", "group_vars/all/a.yml", "host_vars/web1"])
def test_the_line_that_is_wrong_is_named_and_not_shown(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(WRONG)
    done = run(tmp_path)
    assert done.returncode
    said = done.stdout + done.stderr
    assert f"{path}:3:6: YAML parsing failed" in said
    assert "s3cret" not in said
    # Ansible's own way, which this is about.
    alone = run(tmp_path, ANSIBLE_VARS_ENABLED="host_group_vars")
    assert alone.returncode
    assert path.name not in alone.stdout + alone.stderr


def test_it_sets_nothing_and_hides_nothing(tmp_path: Path) -> None:
    for folder, ports in {"group_vars": "[1]", "host_vars": "[2]"}.items():
        name = {"group_vars": "all.yml", "host_vars": "web1.yml"}[folder]
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(f"ports: {ports}\n")
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "- 2" in done.stdout
    assert "WARNING" not in done.stderr
    # What is wrong without a line keeps its own words.
    (tmp_path / "group_vars" / "all.yml").write_text("- 1\n")
    done = run(tmp_path)
    assert done.returncode
    assert str(tmp_path / "group_vars" / "all.yml") in done.stderr


@pytest.mark.parametrize("beside", [(), ("hosts.yml",)])
@pytest.mark.parametrize("name", ["missing.yml", "wrong.yml"])
def test_an_inventory_that_cannot_be_read_ends_the_run(
    tmp_path: Path, name: str, beside: tuple[str, ...]
) -> None:
    """Whoever misspells its name would have been told of no hosts, or had half of them deployed."""
    (tmp_path / "wrong.yml").write_text("web:\n  hosts: [\n")
    done = run(tmp_path, *beside, name)
    assert done.returncode
    assert "PLAY" not in done.stdout
    assert f"Completely failed to parse inventory source {tmp_path / name}" in done.stderr
