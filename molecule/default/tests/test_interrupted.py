"""A run that is cut off anywhere is finished by running the same command again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml

PROJECT = Path(__file__).parents[3]
TESTHOSTS = [sys.executable, str(PROJECT / "testhosts" / "testhosts.py")]
# The control process is killed when these tasks begin: files on disk but no reload, a database that
# is being made, a release that serves nothing yet, a service whose handler is still due.
POINTS = {
    "Put a certificate behind each link": False,
    "Reload, start or restart nginx": True,
    "Migrate the data to the release": False,
    "switch | Hand over]": True,
    "Ask the release through nginx": False,
}
# `make proof` tries all of them, `make test` a handler that is still due and a handover half done.
TRIED = [point for point, quick in POINTS.items() if quick or os.environ.get("EVERY_SYSTEM")]
# What tells a host that was finished from one that was not.
LEFT = {
    "systemctl is-active nginx toll-app.socket toll-app": "\n".join(3 * ["active"]),
    "systemctl is-enabled nginx toll-app.socket": "\n".join(2 * ["enabled"]),
    "systemctl show --property=NeedDaemonReload --value nginx toll-app": "no\n\nno",
    "systemctl --failed --plain --no-legend": "",
    "find /opt/toll-app -name '.new-*' -o -name handover.json -o -name deploy.json": "",
}


def run_testhosts(*arguments: str, hosts: list[dict[str, str]] | None = None) -> Any:
    done = subprocess.run(
        [*TESTHOSTS, *arguments],
        input=json.dumps(hosts) if hosts else None,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout) if done.stdout.strip() else None


@pytest.fixture(scope="module")
def bare_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A host of its own that nothing has touched. Gives the path of an inventory for it."""
    checkout = subprocess.run(
        [*TESTHOSTS, "checkout"], check=True, capture_output=True, text=True
    ).stdout.strip()
    scope = f"interrupted-{checkout}"
    wanted = [{"name": "interrupted", "image": "debian13"}]
    (host,) = run_testhosts("up", "--from", "-", "--scope", scope, hosts=wanted)
    inventory = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    variables = {
        "ansible_host": host["address"],
        "ansible_port": host["port"],
        "ansible_user": host["user"],
        "ansible_ssh_private_key_file": host["identity_file"],
        "ansible_ssh_common_args": (
            "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
            "-o IdentitiesOnly=yes -o LogLevel=ERROR"
        ),
        "applications": {"toll-app": {"role": "toll_app", "domains": ["interrupted.toll.test"]}},
        "certbot_obtain": False,
    }
    inventory.write_text(yaml.safe_dump({"web": {"hosts": {"interrupted": variables}}}))
    yield inventory
    run_testhosts("down", "--scope", scope)


def command(inventory: Path, *options: str) -> list[str]:
    playbook = Path(sys.executable).with_name("ansible-playbook")
    return [str(playbook), "-i", str(inventory), "site.yml", *options]


def environment() -> dict[str, str]:
    return {**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}


def run_and_kill(inventory: Path, point: str) -> bool:
    """Runs until a line names `point` and kills the control process and its workers there."""
    process = subprocess.Popen(
        command(inventory),
        cwd=PROJECT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    killed = False
    for line in process.stdout:
        if point in line:
            os.killpg(process.pid, signal.SIGKILL)
            killed = True
            break
    process.stdout.close()
    process.wait()
    return killed


def run_to_the_end(inventory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(inventory),
        cwd=PROJECT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_run_converges_after_being_killed_at_each_point(bare_host: Path) -> None:
    """One host, cut off at one point after the other: each run starts where the last one died."""
    for point in TRIED:
        assert run_and_kill(bare_host, point), f"the run never came to: {point}"
    finished = run_to_the_end(bare_host)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    # What was notified before a run died was done, and nothing of it is left.
    host = testinfra.get_host("ansible://interrupted", ansible_inventory=str(bare_host))
    for command_, wanted in LEFT.items():
        said = host.run(f"sudo {command_}")
        assert (said.stdout + said.stderr).strip() == wanted, command_
    if os.environ.get("EVERY_SYSTEM"):
        again = run_to_the_end(bare_host)
        assert re.search(r"changed=0 .*failed=0", again.stdout), again.stdout + again.stderr
