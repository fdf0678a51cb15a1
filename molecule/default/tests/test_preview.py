"""`--check` before a change promises what the run then does, in words that an operator wants."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://debian12"]

PROJECT = Path(__file__).parents[3]
PLAYBOOKS = PROJECT / "playbooks"
SITE = PROJECT / "site.yml"
# Six settings in six places are some 90 lines of differences and 70 headings of three lines each;
# programs have thousands.
LINES = 500
SECRET = "shown-to-nobody-" + "7" * 32
# `make proof`.
EVERY_CASE = bool(os.environ.get("EVERY_SYSTEM"))


def changes(output: str) -> list[str]:
    """Names of the tasks and handlers that reported a change, in their order."""
    found: list[str] = []
    task = ""
    for line in output.splitlines():
        if match := re.match(r"(?:TASK|RUNNING HANDLER) \[(.*)\]", line):
            task = match[1]
        elif line.startswith("changed: ["):
            found.append(task)
    return found


@dataclass
class Step:
    """One run, the preview before it, and words that the preview has to hold."""

    name: str
    promised: Any
    done: Any
    words: list[str]


@pytest.fixture(scope="module")
def previewed(host: Host, control: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """From one state of the host to the next; `make proof` has every verb of an operator."""
    source = tmp_path_factory.mktemp("source") / "app"
    ignored = shutil.ignore_patterns("__pycache__", "instance", ".*")
    shutil.copytree(PROJECT / "app", source, ignore=ignored)
    page = source / "toll" / "templates" / "base.html"
    page.write_text(page.read_text() + "<!-- changed -->\n")
    described = {
        "backup": {"jitter_seconds": 60},
        # What people paste into a chat shows no secret.
        "secrets": {"secret_key": SECRET},
    }
    settings = {
        "gunicorn_systemd_open_files": 5000,
        "gunicorn_systemd_health_interval_seconds": 11,
        "nginx_client_timeout_seconds": 61,
        "application_journal_days": 20,
        "toll_settings": described,
    }
    live = host.run("readlink /opt/toll-app/current").stdout.strip().rpartition("/")[2]
    deployed = [
        f"would follow {live}", "app/toll/templates/base.html: changed", "would hand over to"
    ]  # fmt: skip
    changed = {**settings, "toll_settings": {**described, "source": str(source)}}
    steps: list[tuple[str, Path, dict[str, Any], list[str]]] = [
        ("all at once", SITE, changed, ["client_header_timeout 61s", *deployed])
    ]
    if EVERY_CASE:
        steps = [
            ("settings", SITE, settings, ["client_header_timeout 61s", "would hand over"]),
            ("an application's change", PLAYBOOKS / "deploy.yml", changed, deployed),
            ("a rollback", PLAYBOOKS / "rollback.yml", settings, ["would hand over from release"]),
            ("a copy", PLAYBOOKS / "backup.yml", settings, ["Would write a copy to"]),
            (
                "a restore",
                PLAYBOOKS / "restore.yml",
                {**settings, "application_restore": "latest"},
                ["It would be restored"],
            ),
            ("the settings of before", SITE, {}, ["client_header_timeout 15s"]),
        ]
    limit = host.ansible.get_variables()["inventory_hostname"]
    found = []
    for name, playbook, told, words in steps:
        options = {"limit": limit, "variables": told}
        promised = control.run_playbook(playbook, check=True, **options)
        found.append(Step(name, promised, control.run_playbook(playbook, **options), words))
    return found


def test_a_preview_promises_what_the_run_does(previewed: list[Step]) -> None:
    for step in previewed:
        promised, done = step.promised, step.done
        assert promised.returncode == 0, f"{step.name}: {promised.output}"
        assert done.returncode == 0, f"{step.name}: {done.output}"
        assert changes(promised.output) == changes(done.output), step.name
        counts = [
            {host: each["changed"] for host, each in run.stats.items()} for run in (promised, done)
        ]
        assert counts[0] == counts[1], step.name
        assert sum(counts[1].values()), step.name


def test_a_preview_can_be_read(previewed: list[Step]) -> None:
    """It has the words that matter, and no secret; thousands of lines of programs it has not."""
    for step in previewed:
        said = step.promised.output
        for word in step.words:
            assert word in " ".join(said.split()), f"{step.name}: {said}"
        assert len(said.splitlines()) < LINES, f"{step.name}: {said}"
        assert SECRET not in said, step.name
        assert SECRET not in step.done.output, step.name
