"""A host is upgraded from Debian 12 to 13 in place, as docs/OPERATIONS.md says, and what follows.

    .venv/bin/python tests/proof/system_upgrade.py

The first half goes as it should: the interpreter of the releases stays until nobody needs it. In
the second half it is removed by force, which is what happened before a package kept it. Exit code 0
if all of it came out as it must; with KEEP=1 the hosts stay.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, str(PROJECT / "testhosts"))

from engine import Engine  # noqa: E402
from hosts import Hosts, read_specs  # noqa: E402

SCOPE = "proof-upgrade"
NAME = "upgraded"
DOMAIN = "upgraded.toll.test"
GUIDE = PROJECT / "docs" / "OPERATIONS.md"
# Paths whose views import something when they are asked for the first time.
PAGES = ("/", "/login", "/healthz", "/readyz", "/api/v1/openapi.json")
ASK = """
import http.client, json, socket, ssl, sys
found = {}
for path in sys.argv[2:]:
    client = http.client.HTTPConnection(sys.argv[1], timeout=20)
    try:
        plain = socket.create_connection(("127.0.0.1", 443))
        context = ssl._create_unverified_context()
        client.sock = context.wrap_socket(plain, server_hostname=sys.argv[1])
        client.request("GET", path)
        found[path] = client.getresponse().status
    except OSError as error:
        found[path] = str(error)
print(json.dumps(found))
"""


class Upgraded:
    """The host, its control node, and what was not as it must be."""

    def __init__(self, folder: Path) -> None:
        self.wrong: list[str] = []
        self.hosts = Hosts(Engine(), scope=SCOPE, network=SCOPE, say=print)
        self.folder = folder

    def make(self) -> None:
        """A bare host with Debian 12, an ACME server beside it, and an inventory."""
        wanted = [
            {"name": NAME, "image": "debian12", "aliases": [DOMAIN]},
            {"name": "acme", "image": "acme"},
        ]
        made = self.hosts.up(read_specs(json.dumps(wanted), SCOPE))
        found = {each["hostname"]: each for each in made}
        host, acme = found[NAME], found["acme"]["name"]
        self.container = host["name"]
        variables = {
            "ansible_host": host["address"],
            "ansible_user": host["user"],
            "ansible_ssh_private_key_file": host["identity_file"],
            "ansible_ssh_common_args": (
                "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
            ),
            "applications": {"toll-app": {"role": "toll_app", "domains": [DOMAIN]}},
            "certbot_directory_url": f"https://{acme}:14000/dir",
            "certbot_ca_file": str(self.hosts.acme_ca(acme)),
            "certbot_email": "ops@toll.test",
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        inventory = {"web": {"hosts": {NAME: variables}}}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(inventory))

    def on_host(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the host as root."""
        return self.hosts.engine.podman("exec", self.container, *argv, check=False)

    def shell(self, script: str) -> str:
        """Run commands on the host that have to succeed; return what they said."""
        done = self.on_host("sh", "-ec", f"export DEBIAN_FRONTEND=noninteractive\n{script}")
        self.expect(done.returncode == 0, f"`{script.strip()[:60]}` works", done.stderr[-2000:])
        return done.stdout

    def play(self, book: str, *arguments: str, fails: str = "") -> str:
        """Run a playbook that has to succeed, or to fail with these words; return its output."""
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                *("-i", str(self.folder / "hosts.yml"), book, *arguments),
            ],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )
        said = " ".join((done.stdout + done.stderr).split())
        wanted = fails in said and done.returncode != 0 if fails else done.returncode == 0
        how = f"fails: {fails}" if fails else "works"
        self.expect(wanted, " ".join([book, *arguments, how]), said[-3000:])
        return said

    def expect(self, good: bool, what: str, found: object = "") -> None:
        """Say what was looked at, and remember what is wrong."""
        print(f"{'ok   ' if good else 'WRONG'} {what}", flush=True)
        if not good:
            print(f"      {found}", flush=True)
            self.wrong.append(what)

    def asked(self) -> dict[str, Any]:
        """What nginx answers on the host, by path."""
        done = self.on_host("python3", "-c", ASK, DOMAIN, *PAGES)
        return dict(json.loads(done.stdout))

    def serves(self, release: str, when: str) -> None:
        """All pages are well, and the release is that one."""
        end = time.monotonic() + 90
        while (answers := self.asked()) and set(answers.values()) != {200}:
            if time.monotonic() > end:
                break
            time.sleep(1)
        self.expect(set(answers.values()) == {200}, f"pages are well {when}", answers)
        status = self.status()
        self.expect(status["live"] == release, f"{release} serves {when}", status["live"])
        self.expect(status["drift"] == [], f"status says nothing {when}", status["drift"])
        health = self.on_host("toll-app", "health")
        self.expect(health.returncode == 0, f"health is well {when}", health.stderr)

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.on_host("toll-app", "status", "--json").stdout))

    def works(self, when: str) -> None:
        """What runs on the releases beside the site."""
        for unit in ("toll-app-backup", "certbot"):
            done = self.on_host("systemctl", "start", unit)
            self.expect(done.returncode == 0, f"{unit} works {when}", done.stderr)

    def python(self, root: str) -> str:
        """The interpreter of the current release."""
        link = self.on_host("readlink", "-f", f"{root}/current/bin/python").stdout.strip()
        return Path(link).name


def guide() -> str:
    """The commands of the guide's section, but for the reboot, which is the container's."""
    section = GUIDE.read_text().partition("## Upgrading the system\n")[2].partition("\n## ")[0]
    [block] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    lines = [line.strip() for line in block.splitlines() if line.strip() != "reboot"]
    # Nobody is there to be asked.
    return "\n".join(line.replace("apt-get ", "apt-get -y ", 1) for line in lines).replace(
        "/etc/apt/sources.list.d/*", "$(find /etc/apt/sources.list.d -type f)"
    )


def kept(host: Upgraded) -> tuple[str, str]:
    """The upgrade as the guide says. Returns the releases of before and after."""
    host.play("site.yml")
    old = str(host.status()["live"])
    host.shell(guide())
    host.shell("apt-get -y autoremove --purge")
    refused = host.on_host("apt-get", "-y", "purge", "~o")
    host.expect(refused.returncode != 0, "`apt purge '~o'` is refused", refused.stdout[-500:])
    host.serves(old, "after the upgrade")
    host.shell("toll-app handover --restart")
    host.works("after the upgrade")
    host.hosts.reboot(host.container)
    host.serves(old, "after a reboot")
    host.expect(host.python("/opt/toll-app") == "python3.11", "it runs on Python 3.11")

    host.play("site.yml")
    new = str(host.status()["live"])
    host.expect(new != old, "site.yml deploys the release for the new Python")
    host.serves(new, "after site.yml")
    for root in ("/opt/toll-app", "/opt/certbot"):
        python = host.python(root)
        host.expect(python == "python3.13", f"{root} is on Python 3.13", python)
    again = host.play("site.yml")
    host.expect("changed=0" in again, "site.yml again changes nothing")

    host.play("playbooks/rollback.yml", fails="there is nothing to go back to")
    said = host.play("playbooks/rollback.yml", "-e", f"release={old}")
    host.expect(f"Rolled back from {new} to {old}." in said, "the rollback says what serves")
    host.serves(old, "after a rollback by name")
    said = host.play("site.yml")
    host.expect(f"NOT DEPLOYED: {new}" in said, "site.yml says that the rollback holds")
    host.serves(old, "after site.yml, since the rollback holds")
    host.play("playbooks/deploy.yml")
    host.serves(new, "after a deploy")
    return old, new


def lost(host: Upgraded, old: str, new: str) -> None:
    """The interpreter is removed under the release that serves."""
    host.shell(f"toll-app handover {old}")
    # As it was before site.yml came to this host.
    host.shell(
        "cd /opt/certbot/releases; for each in *; do test -e $each/lib/python3.11 || continue;"
        " ln -sfn releases/$each /opt/certbot/current; done"
    )
    host.shell("dpkg -r --force-remove-protected toll-app-interpreter certbot-interpreter")
    host.shell("apt-get -y autoremove --purge")
    print(f"      pages: {host.asked()}")
    host.expect(host.asked()["/readyz"] == 503, "/readyz says that it is not ready", host.asked())
    health = host.on_host("toll-app", "health")
    host.expect(
        health.returncode == 1 and "/usr/bin/python3.11 is not on this host" in health.stderr,
        "health tells the missing interpreter",
        health.stderr,
    )
    drift = " ".join(host.status()["drift"])
    host.expect(
        "cannot start again: its interpreter /usr/bin/python3.11" in drift, "so does status"
    )
    said = host.on_host("toll-app", "backup").stderr
    host.expect("its interpreter /usr/bin/python3.11 is not on" in said, "so does the backup", said)
    host.hosts.reboot(host.container)
    host.expect(200 not in host.asked().values(), "the site is down after a reboot", host.asked())

    host.play("site.yml")
    host.serves(new, "after site.yml, one run")
    host.works("after site.yml")
    host.play("playbooks/rollback.yml", fails="there is nothing to go back to")
    host.play("playbooks/rollback.yml", "-e", f"release={old}", fails="which cannot start")
    host.serves(new, "after rollbacks that were refused")


def main() -> int:
    """Both halves."""
    host = Upgraded(PROJECT / ".cache" / "upgrade")
    try:
        host.make()
        lost(host, *kept(host))
    finally:
        if not os.environ.get("KEEP"):
            host.hosts.down()
    print(f"{len(host.wrong)} of these are not as they must be." if host.wrong else "All is well.")
    return 1 if host.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
