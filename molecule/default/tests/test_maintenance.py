"""The commands of docs/MAINTENANCE.md: a first connection, settings, new secrets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Api, Site

PROJECT = Path(__file__).resolve().parents[3]
SECRET = "0123456789abcdef" * 4
GUIDE = (PROJECT / "docs" / "MAINTENANCE.md").read_text()


def command(beginning: str) -> str:
    """The one line of the guide's commands that begins so, without its comment."""
    [line] = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if line.startswith(beginning)
    ]
    return line.partition(" #")[0].rstrip()


@pytest.mark.one_system(12)
def test_a_host_that_is_not_known_is_refused_until_its_key_was_fetched(
    variables: dict[str, Any], tmp_path: Path
) -> None:
    """With Ansible's own care, which the test hosts' settings switch off."""
    known = tmp_path / "known_hosts"
    inventory = tmp_path / "hosts.yml"
    host = {name: variables[name] for name in ("ansible_host", "ansible_private_key_file")}
    host["ansible_user"] = "ops"
    host["ansible_ssh_common_args"] = f"-o UserKnownHostsFile={known} -o IdentitiesOnly=yes"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": {"web1": host}}}))
    ping = [str(Path(sys.executable).with_name("ansible")), "-i", str(inventory)]
    ping += command("ansible all").split()[1:]
    settings = {
        **os.environ,
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(tmp_path),
        "ANSIBLE_HOST_KEY_CHECKING": "true",
    }

    def run(argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=PROJECT,
            env=settings,
        )

    refused = run(ping)
    assert refused.returncode != 0
    assert "Host key verification failed" in refused.stdout + refused.stderr
    fetch = command("ssh-keyscan").replace("web1.example.com", variables["ansible_host"])
    fetched = run(["bash", "-c", fetch.replace("~/.ssh/known_hosts", str(known))])
    assert "SHA256:" in fetched.stdout, fetched.stderr
    assert run(ping).returncode == 0


@pytest.mark.one_system(13)
def test_settings_and_secrets_are_replaced_without_a_lost_passage(
    host: Host,
    site: Site,
    api: Api,
    control: Any,
    variables: dict[str, Any],
    as_root: Callable[[str], str],
) -> None:
    """As the guide has it, all in one run. Keys of lanes are signed by nothing of it, and there is
    no moment in which neither password of the database holds."""
    before = site.get("/readyz").json()["release"]
    create = command('sudo -u postgres psql toll -c "CREATE ROLE').replace("NEW", "not-a-secret-2")
    as_root(create.replace("sudo -u", "runuser -u").replace(" psql", " -- psql"))
    old = variables["toll_app_database_url"]
    new = old.replace("//toll:" + variables["database_password"], "//toll2:not-a-secret-2")
    assert new != old
    told = {
        "gunicorn_systemd_workers": 2,
        "toll_app_secret_key": SECRET,
        "toll_app_database_url": new,
    }
    run = control.run_playbook(limit=variables["inventory_hostname"], variables=told)
    assert run.returncode == 0, run.output
    assert SECRET not in run.output
    assert "not-a-secret-2" not in run.output
    lock = command('sudo -u postgres psql -c "ALTER ROLE')
    as_root(lock.replace("sudo -u", "runuser -u").replace(" psql", " -- psql"))
    assert host.file("/etc/toll-app/gunicorn.conf.py").contains("^workers = 2$")
    ready = site.get("/readyz").json()
    assert (ready["status"], ready["release"]) == ("ok", before)
    assert api.record("MAINT-1", "maintenance-1").status == 201
    as_root('runuser -u postgres -- psql -c "ALTER ROLE toll LOGIN"')
    back = control.run_playbook(limit=variables["inventory_hostname"])
    assert back.returncode == 0, back.output
    as_root(
        'runuser -u postgres -- psql toll -c "REASSIGN OWNED BY toll2 TO toll; DROP ROLE toll2"'
    )
