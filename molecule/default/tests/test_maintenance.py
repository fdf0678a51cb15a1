"""The commands of docs/MAINTENANCE.md: a first connection, settings, new secrets."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


@dataclass
class Replaced:
    """A run that replaced settings and secrets, and what was there before it."""

    output: str
    release: str
    secrets: list[str]


@pytest.fixture(scope="module")
def replaced(host: Host, control: Any, recorder: str) -> Iterator[Replaced]:
    """As the guide has it, all in one run, the most talkative one. The key of a lane is older."""
    variables = host.ansible.get_variables()
    limit = variables["inventory_hostname"]

    def sql(text: str) -> None:
        done = host.run(text.replace("sudo -u", "runuser -u").replace(" psql", " -- psql"))
        assert done.rc == 0, done.stderr

    release = host.run("readlink /opt/toll-app/current").stdout.strip().rpartition("/")[2]
    # Typed at a prompt, which without a terminal is read from where this leads.
    coded = base64.b64encode(b"not-a-secret-2\n" * 2).decode()
    create = command("sudo -u postgres createuser --pwprompt -g toll").replace(
        "sudo -u postgres", "runuser -u postgres --"
    )
    done = host.run(
        f"umask 077; echo {coded} | base64 -d > /root/typed; cd /;"
        f" setsid --wait {create} < /root/typed; code=$?; rm /root/typed; exit $code"
    )
    assert done.rc == 0, done.stderr
    old = variables["toll"]["data"]["database_url"]
    new = old.replace("//toll:" + variables["database_password"], "//toll2:not-a-secret-2")
    assert new != old
    told = {
        "gunicorn_systemd_workers": 2,
        "toll_settings": {"secrets": {"secret_key": SECRET}, "data": {"database_url": new}},
        # A name that is new makes the whole way necessary.
        "toll_app_admin_name": "second",
    }
    run = control.run_playbook(limit=limit, variables=told, arguments=("-vvv",))
    assert run.returncode == 0, run.output
    sql(command('sudo -u postgres psql -c "ALTER ROLE'))
    known = ["not-a-secret-2", new, SECRET, variables["database_password"]]
    known.append(variables["toll_app_admin_password"])
    yield Replaced(run.output, release, known)
    if not os.environ.get("EVERY_SYSTEM"):
        return
    sql('sudo -u postgres psql -c "ALTER ROLE toll LOGIN"')
    back = control.run_playbook(limit=limit)
    assert back.returncode == 0, back.output
    sql('sudo -u postgres psql toll -c "REASSIGN OWNED BY toll2 TO toll; DROP ROLE toll2"')


@pytest.mark.one_system(13)
def test_settings_and_secrets_are_replaced_without_a_lost_passage(
    host: Host, site: Site, api: Api, replaced: Replaced
) -> None:
    """Keys of lanes are signed by nothing of it, and there is no moment in which neither password
    of the database holds."""
    assert host.file("/etc/toll-app/gunicorn.conf.py").contains("^workers = 2$")
    ready = site.get("/readyz").json()
    assert (ready["status"], ready["release"]) == ("ok", replaced.release)
    assert api.record("MAINT-1", "maintenance-1").status == 201


@pytest.mark.one_system(13)
def test_nothing_shows_a_secret(replaced: Replaced, as_root: Callable[[str], str]) -> None:
    """Not the most talkative run, which also makes an admin, and no process, file or journal."""
    assert "admin (second) seeded" in replaced.output
    assert "second" in as_root("toll-app flask toll user list")
    for secret in replaced.secrets:
        assert secret not in replaced.output
        # Neither this command nor grep's shows what is looked for.
        coded = base64.b64encode(secret.encode()).decode()
        as_root(f"umask 077; echo {coded} | base64 -d > /root/sought")
        found = as_root(
            "grep -lsaF -f /root/sought /proc/[0-9]*/cmdline /proc/[0-9]*/environ "
            "/etc/systemd/system/* /opt/toll-app/state/* /var/log/nginx/* || true"
        )
        assert found.strip() == ""
        assert as_root("journalctl --no-pager | grep -cF -f /root/sought || true").strip() == "0"
    as_root("rm /root/sought")
