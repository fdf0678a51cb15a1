"""What the tests of this scenario share: somebody at a control node, and who visits the site."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[3]
CONNECTION = (
    "ansible_host",
    "ansible_port",
    "ansible_user",
    "ansible_private_key_file",
    "ansible_ssh_private_key_file",
    "ansible_ssh_common_args",
)


class Workplace:
    """A copy of the project, in which somebody follows the guide."""

    def __init__(self, folder: Path, variables: dict[str, Any]) -> None:
        self.project = folder / "project"
        tracked = subprocess.run(
            ["git", "ls-files", "-z"], cwd=PROJECT, check=True, capture_output=True, text=True
        )
        for name in tracked.stdout.split("\0"):
            source, target = PROJECT / name, self.project / name
            if name and (source.is_file() or source.is_symlink()):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        (self.project / ".venv").symlink_to(PROJECT / ".venv")
        self.host = {key: variables[key] for key in CONNECTION if key in variables}

    def type(self, command: str, status: int = 0) -> str:
        """Type commands into a shell; return what is read."""
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")
        }
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=self.project,
            env={**environment, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == status, f"{command}\n{done.stdout}"
        return done.stdout

    @staticmethod
    def trips(as_root: Callable[[str], str], since: str) -> Counter[str]:
        """The modules that have run on the host since a moment, which `moment` was told."""
        shown = as_root(f"journalctl --quiet --output=short --after-cursor='{since}'")
        return Counter(re.findall(r" ansible-([a-z_.]+)\[\d+\]: Invoked with ", shown))

    @staticmethod
    def moment(as_root: Callable[[str], str]) -> str:
        """This moment, by the host's journal."""
        said = as_root("journalctl --quiet --lines=0 --show-cursor")
        return said.partition("cursor: ")[2].strip()

    def write_host(self) -> None:
        """The address of the host, which the guide leaves to its reader."""
        hosts = {"web": {"hosts": {"web1": {**self.host, "certbot_obtain": False}}}}
        (self.project / "inventory/production/hosts.yml").write_text(yaml.safe_dump(hosts))

    def describe(self, **applications: Any) -> None:
        """What a reader writes further on."""
        path = self.project / "inventory/production/group_vars/web/main.yml"
        found = yaml.safe_load(path.read_text())
        for name, told in applications.items():
            if told is None:
                found["applications"].pop(name)
            else:
                found["applications"].setdefault(name, {}).update(told)
        path.write_text(yaml.safe_dump(found))


# The certificate is self-signed. Without the authorities of the system, which take longer to read
# than all the rest of a request.
CLIENT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CLIENT.check_hostname, CLIENT.verify_mode = False, ssl.CERT_NONE


def connected(address: str, name: str) -> ssl.SSLSocket:
    """A connection over TLS."""
    return CLIENT.wrap_socket(socket.create_connection((address, 443), 20), server_hostname=name)


def ask(
    address: str, name: str, path: str = "/", method: str = "GET", body: bytes | None = None
) -> tuple[int, str]:
    """Status and body of an answer over HTTPS."""
    # HTTPSConnection would make a context of its own.
    connection = http.client.HTTPConnection(name, timeout=20)
    connection.sock = connected(address, name)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Visitors:
    """Ask a site all the time, and keep every answer that is not good."""

    def __init__(self, address: str, name: str) -> None:
        self.address, self.name = address, name
        self.bad: list[str] = []
        self.asked = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                status, body = ask(self.address, self.name)
                fault = "" if status == 200 else f"{status} {body[:80]}"
            except OSError as error:
                fault = repr(error)
            self.asked += 1
            if fault:
                self.bad.append(fault)
            # Some 20 requests a second; a shorter gap is looked for in molecule/gunicorn_systemd.
            time.sleep(0.2)

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
