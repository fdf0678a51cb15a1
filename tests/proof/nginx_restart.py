"""How long nginx answers nobody while it restarts. Writes docs/proof/nginx-restart.md.

    .venv/bin/python tests/proof/nginx_restart.py

On a host of each system the same is done under three units: the distribution's, the distribution's
with nothing but a stop that waits for requests, and the role's. Two clients are there all the time:
one whose request's body arrives byte by byte, and one with an open WebSocket. A third asks over and
over, each time on a connection of its own. With KEEP=1 the hosts stay.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from run_cost import PROJECT, SSH, hosts, ssh_to

REPORT = PROJECT / "docs" / "proof" / "nginx-restart.md"
SCENARIO = PROJECT / "molecule" / "nginx"
SYSTEMS = ("debian12", "debian13")
SITE = "toll.example.org"
PORT = 443
DROP_INS = "/etc/systemd/system/nginx.service.d"
# Bytes of the slow request, one in each pause. It is longer than any stop may take.
BODY_BYTES, PAUSE_SECONDS = 90, 0.5
PATIENCE_SECONDS = 60.0
# What the role's drop-in did about a stop before it handed sockets over.
WAITING_STOP = """[Service]
ExecStop=
KillSignal=SIGQUIT
KillMode=mixed
TimeoutStopSec=30
"""
UNITS = {
    "the distribution's unit": f"mv {DROP_INS}/10-role.conf /root/; rm -f {DROP_INS}/10-stop.conf",
    "with a stop that waits": (
        f"cat > {DROP_INS}/10-stop.conf <<'END'\n{WAITING_STOP}END\n"
        f"test ! -e {DROP_INS}/10-role.conf || mv {DROP_INS}/10-role.conf /root/"
    ),
    "this role": f"mv /root/10-role.conf {DROP_INS}/; rm -f {DROP_INS}/10-stop.conf",
}
ACTIONS = {
    "`systemctl reload nginx`": "systemctl reload nginx.service",
    "`systemctl restart nginx`": "systemctl restart nginx.service",
    "`apt-get install --reinstall nginx nginx-common`": (
        "DEBIAN_FRONTEND=noninteractive apt-get install -qq --reinstall nginx nginx-common"
    ),
}


def connect(address: str) -> ssl.SSLSocket:
    """A TLS connection to the site. Raises OSError."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection((address, PORT), PATIENCE_SECONDS)
    return context.wrap_socket(plain, server_hostname=SITE)


def request(head: str, *more: str) -> bytes:
    return "\r\n".join([f"{head} HTTP/1.1", f"Host: {SITE}", *more, "", ""]).encode()


@dataclass
class Seen:
    """What the three clients saw.

    Attributes:
        nobody_seconds: longest time between two good answers.
        asked: how often the third asked.
        refused: how often it was refused or cut off.
        slow: whether the slow request got its answer.
        socket: whether the WebSocket still echoed at the end.
    """

    nobody_seconds: float = 0
    asked: int = 0
    refused: int = 0
    slow: bool = False
    socket: bool = False
    action_seconds: float = 0


@dataclass
class Clients:
    """Three clients of one host."""

    address: str
    seen: Seen = field(default_factory=Seen)
    over: threading.Event = field(default_factory=threading.Event)

    def ask_over_and_over(self) -> None:
        last = time.monotonic()
        while not self.over.is_set():
            self.seen.asked += 1
            try:
                with connect(self.address) as client:
                    client.sendall(request("GET /", "Connection: close"))
                    good = client.recv(12) == b"HTTP/1.1 200"
            except OSError:
                good = False
            now = time.monotonic()
            if good:
                self.seen.nobody_seconds = max(self.seen.nobody_seconds, now - last)
                last = now
            else:
                self.seen.refused += 1
            time.sleep(0.02)
        self.seen.nobody_seconds = max(self.seen.nobody_seconds, time.monotonic() - last)

    def drip(self) -> None:
        with contextlib.suppress(OSError), connect(self.address) as client:
            client.settimeout(None)
            length = f"Content-Length: {BODY_BYTES}"
            client.sendall(request("POST /", length, "Connection: close"))
            for _ in range(BODY_BYTES):
                time.sleep(PAUSE_SECONDS)
                client.sendall(b"x")
            self.seen.slow = client.recv(12) == b"HTTP/1.1 200"

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """All three, the slow one until its request is over."""
        with connect(self.address) as echo:
            echo.sendall(request("GET /socket", "Connection: Upgrade", "Upgrade: websocket"))
            assert b" 101 " in echo.recv(1000)
            slow = threading.Thread(target=self.drip)
            asking = threading.Thread(target=self.ask_over_and_over)
            slow.start()
            asking.start()
            time.sleep(1)
            yield
            time.sleep(1)
            self.over.set()
            asking.join()
            with contextlib.suppress(OSError):
                echo.sendall(b"still there?")
                self.seen.socket = echo.recv(100) == b"still there?"
            slow.join()


def root(host: Mapping[str, Any], command: str) -> None:
    done = subprocess.run(
        [*ssh_to(host), "sudo sh -s"], input=command, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command}: {done.stdout}{done.stderr}")


def provision(
    members: Mapping[str, Mapping[str, Any]],
    folder: Path,
    own: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """The scenario's sites on each host, the first with WebSockets.

    Args:
        own: further variables of hosts, by name.
    """
    scenario = yaml.safe_load((SCENARIO / "molecule.yml").read_text())
    variables = scenario["provisioner"]["inventory"]["group_vars"]["defaults"]
    variables["nginx_sites"][0]["websockets"] = True
    told = {
        name: {
            "ansible_host": host["address"],
            "ansible_port": host["port"],
            "ansible_user": host["user"],
            "ansible_ssh_private_key_file": host["identity_file"],
            "ansible_ssh_common_args": SSH,
            **(own or {}).get(name, {}),
        }
        for name, host in members.items()
    }
    inventory = folder / "nginx-restart.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": told, "vars": variables}}))
    playbooks = [str(SCENARIO / f"{name}.yml") for name in ("prepare", "converge")]
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "-i", inventory, *playbooks],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def measure(host: Mapping[str, Any], command: str) -> Seen:
    clients = Clients(host["address"])
    with clients.at_work():
        begun = time.monotonic()
        root(host, command)
        clients.seen.action_seconds = time.monotonic() - begun
    return clients.seen


def row(action: str, unit: str, seen: Seen) -> str:
    cells = [
        action,
        unit,
        f"{seen.nobody_seconds:.1f}",
        f"{seen.refused} of {seen.asked}",
        "answered" if seen.slow else "cut off",
        "open" if seen.socket else "closed",
        f"{seen.action_seconds:.1f}",
    ]
    return f"| {' | '.join(cells)} |\n"


def report(found: Mapping[tuple[str, str, str], Seen]) -> str:
    text = (
        "# What a restart of nginx costs its clients\n\n"
        "Made by `.venv/bin/python tests/proof/nginx_restart.py`. A client asks over and over,\n"
        "each time on a connection of its own, while another's request arrives byte by byte and\n"
        "a third has a WebSocket open. *Nobody answered* is the longest time between two good\n"
        "answers to the first, in seconds; *refused* is how often it was not let in. The slow\n"
        "request takes "
        f"{BODY_BYTES * PAUSE_SECONDS:.0f} s. *Takes* is what the command takes.\n"
        "Why it is so: [decision 0053](../decisions/0053-a-restart-hands-its-sockets-over.md).\n"
    )
    for system in SYSTEMS:
        text += (
            f"\n## {system.replace('debian', 'Debian ')}\n\n"
            "| what | unit | nobody answered | refused | slow request | WebSocket | takes |\n"
            "| --- | --- | --- | --- | --- | --- | --- |\n"
        )
        for action in ACTIONS:
            for unit in UNITS:
                text += row(action, unit, found[system, action, unit])
    return text + f"\n{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, hosts in containers.\n"


def main() -> None:
    os.environ["ANSIBLE_CONFIG"] = str(PROJECT / "ansible.cfg")
    folder = PROJECT / ".cache" / "proof"
    folder.mkdir(parents=True, exist_ok=True)
    scope = "proof-nginx-restart"
    found: dict[tuple[str, str, str], Seen] = {}
    try:
        made = {
            system: hosts("up", f"restart-{system}", "--image", system, "--scope", scope)
            for system in SYSTEMS
        }
        provision(made, folder)

        def measure_all(system: str) -> None:
            for unit, change in UNITS.items():
                stopped = "systemctl stop nginx.service"
                root(made[system], f"{stopped}; {change}; systemctl daemon-reload")
                root(made[system], "systemctl start nginx.service")
                for action, command in ACTIONS.items():
                    found[system, action, unit] = measure(made[system], command)
                    print(row(f"{system} {action}", unit, found[system, action, unit]), end="")

        # Side by side: they wait most of the time.
        threads = [threading.Thread(target=measure_all, args=(system,)) for system in SYSTEMS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        if not os.environ.get("KEEP"):
            hosts("down", "--scope", scope)
    REPORT.write_text(report(found))
    # What the role promises. How long it takes depends on the machine, so it is compared.
    stock = next(iter(UNITS))
    bad = [
        (system, action, unit)
        for (system, action, unit), seen in found.items()
        if (unit == "this role" and (seen.refused or not seen.slow or not seen.socket))
        or (
            action != next(iter(ACTIONS))
            and unit == "this role"
            and seen.nobody_seconds > found[system, action, stock].nobody_seconds / 2
        )
    ]
    if bad:
        raise SystemExit(f"clients were refused, cut off or kept waiting: {json.dumps(bad)}")


if __name__ == "__main__":
    main()
