"""A deploy of pyinfra that keeps what `site.yml` keeps on a host, for a run that changes nothing.

It has the files as they are on the host, in place of templates and roles, and does not look whether
the site answers: less than what it is compared with.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PYINFRA = "pyinfra==3.10.0"
RECORDS = "/var/lib/config-tree"
PACKAGES = ("nginx", "logrotate")
UNITS = ("nginx", "toll-app", "certbot.timer", "logrotate.timer", "toll-app-health.timer")
FILE = "%U %G %a %n"

DEPLOY = '''"""Made by tests/proof/by_pyinfra.py."""

import json
from pathlib import Path

from pyinfra.operations import apt, files, server, systemd

told = json.loads(Path("told.json").read_text())
apt.packages(packages=told["packages"], _sudo=True)
server.user(user="toll-app", shell="/usr/sbin/nologin", home="/nonexistent", _sudo=True)
for path in told["directories"]:
    files.directory(path=path, _sudo=True)
for number, (path, (user, group, mode)) in enumerate(told["files"].items()):
    files.put(
        src=f"files/{number}", dest=path, user=user, group=group, mode=mode, _sudo=True
    )
files.link(path="/opt/toll-app/current", target=told["current"], _sudo=True)
for unit in told["units"]:
    systemd.service(service=unit, running=True, enabled=True, _sudo=True)
'''


def prepare(ssh: Sequence[str], folder: Path) -> None:
    """Write the deploy of a host that site.yml has set up.

    Args:
        ssh: the words before a command on that host.
        folder: where the deploy and its files go; made anew.
    """

    def root(command: str) -> bytes:
        return subprocess.run([*ssh, f"sudo {command}"], check=True, capture_output=True).stdout

    if folder.exists():
        shutil.rmtree(folder)
    (folder / "files").mkdir(parents=True)
    files: dict[str, list[str]] = {}
    directories: set[str] = set()
    for name in root(f"ls {RECORDS}").decode().split():
        record = json.loads(root(f"cat {RECORDS}/{name}"))
        directories |= set(record["directories"])
        for path in record["files"]:
            (folder / "files" / str(len(files))).write_bytes(root(f"cat {path}"))
            user, group, mode, _ = root(f"stat --format '{FILE}' {path}").decode().split()
            files[path] = [user, group, mode]
    told = {
        "packages": PACKAGES,
        "directories": sorted(directories),
        "files": files,
        "current": root("readlink /opt/toll-app/current").decode().strip(),
        "units": UNITS,
    }
    (folder / "told.json").write_text(json.dumps(told, indent=1))
    (folder / "deploy.py").write_text(DEPLOY)


def operations(folder: Path) -> int:
    """How many operations the deploy has."""
    told = json.loads((folder / "told.json").read_text())
    return 3 + sum(len(told[kind]) for kind in ("directories", "files", "units"))


def runs(host: Mapping[str, Any], folder: Path) -> Callable[[], None]:
    """A run of the deploy. It ends the program where it fails; `check` says what it changed."""
    inventory = {
        "ssh_user": host["user"],
        "ssh_port": host["port"],
        "ssh_key": host["identity_file"],
        "ssh_strict_host_key_checking": "no",
        "ssh_known_hosts_file": str(folder / "known_hosts"),
    }
    (folder / "inventory.py").write_text(f"hosts = [({host['address']!r}, {inventory!r})]\n")
    # Beside Python, since `make proof` has no .venv on its PATH.
    uv = str(Path(sys.executable).with_name("uv"))
    argv = [uv, "tool", "run", "--from", PYINFRA, "pyinfra", "--yes", "inventory.py", "deploy.py"]

    def run() -> None:
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
        (folder / "output").write_text(done.stdout + done.stderr)
        if done.returncode:
            raise SystemExit(f"pyinfra failed: {folder / 'output'}")

    return run


def check(folder: Path) -> None:
    """End the program unless the last run has found everything as it is to be."""
    if (folder / "output").read_text().count("No changes") != operations(folder):
        raise SystemExit(f"pyinfra had something to change: {folder / 'output'}")
