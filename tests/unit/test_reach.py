"""A host on which nothing can be run says why and what to do, whatever language its sudo speaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT

GERMAN = "sudo: Sie müssen ein TTY haben, um sudo zu verwenden"
PROGRAM = Path(sys.executable).with_name("ansible-playbook")


@pytest.fixture
def status(tmp_path: Path):
    """Runs playbooks/status.yml on hosts that are this machine; returns exit code and output."""
    sudo = tmp_path / "sudo"
    sudo.write_text(f"#!/bin/sh\necho '{GERMAN}' >&2\nexit 1\n")
    sudo.chmod(0o755)
    hosts = {
        "well": {"ansible_connection": "local", "ansible_become": False},
        "notty": {"ansible_connection": "local", "ansible_become_exe": str(sudo)},
        "nopython": {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": "/usr/bin/python9",
        },
        # Nobody listens there.
        "gone": {"ansible_host": "127.0.0.1", "ansible_port": 9, "ansible_user": "anna"},
    }
    answer = {
        "changed": False,
        "live": "r1",
        "service": "active",
        "health": {"ok": True, "milliseconds": 1},
    }
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    program.chmod(0o755)

    def run(*names: str, book: str = "status", **variables: object) -> tuple[int, str]:
        inventory = tmp_path / "hosts.yml"
        told = {
            "applications": {"shop": {"source": "app", "domains": ["a.example.com"]}},
            "__application_program": str(program),
            **variables,
        }
        chosen = {name: hosts[name] for name in names}
        inventory.write_text(yaml.safe_dump({"web": {"hosts": chosen}}))
        done = subprocess.run(
            [PROGRAM, "-i", inventory, "-e", json.dumps(told), PROJECT / f"playbooks/{book}.yml"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "ANSIBLE_HOME": str(tmp_path / "ansible"),
                # Tests may run as root, who would otherwise need no sudo.
                "ANSIBLE_BECOME_ALLOW_SAME_USER": "1",
            },
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_each_host_that_gives_no_answer_fails_with_its_own_reason(status) -> None:
    code, output = status("well", "notty", "nopython", "gone")
    assert code != 0, "a fleet that nobody could ask is not green"
    said = " ".join(output.split())
    assert "No start of json char" not in said
    assert "cannot become root. Let it do so without a password and without a terminal" in said
    assert "!requiretty" in said
    assert GERMAN in said
    assert "NO ANSWER nopython: /usr/bin/python9 is not a working Python. Install" in said
    assert "NO ANSWER gone: The host was not reached" in said
    assert "`ssh -p 9 anna@127.0.0.1 true`" in said
    recap = {
        line.split()[0]: line
        for line in output.rpartition("PLAY RECAP")[2].splitlines()
        if ":" in line
    }
    assert {name: "failed=1" in line for name, line in recap.items()} == {
        "well": False,
        "notty": True,
        "nopython": True,
        "gone": True,
    }


def test_hosts_that_answer_are_green(status) -> None:
    code, output = status("well")
    assert code == 0, output
    assert "NO ANSWER" not in output


def test_an_application_that_is_nowhere_is_said(status) -> None:
    code, output = status("well", application="shup")
    assert code != 0, "nobody was asked, and the run was green"
    assert "There is no application shup: use one of shop." in output


@pytest.mark.parametrize("book", ["deploy", "site", "rollback", "backup", "restore"])
def test_a_run_stops_with_the_same_words(status, book: str) -> None:
    asked = {"application_restore": "latest"} if book == "restore" else {}
    code, output = status("notty", book=book, **asked)
    said = " ".join(output.split())
    assert code != 0
    assert "cannot become root. Let it do so" in said
    assert "No start of json char" not in said


def test_bare_host_is_told_what_sets_it_up(status, tmp_path: Path) -> None:
    code, output = status("well", __application_program=str(tmp_path / "none"))
    assert code != 0
    assert (
        f"{tmp_path}/none is not on this host. Run the playbook that sets it up, site.yml."
        in " ".join(output.split())
    )
