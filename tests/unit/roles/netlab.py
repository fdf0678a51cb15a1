"""Hosts as network namespaces with a firewall's rules in force, and who reaches whom among them.

Started by `run` in a network of its own, so that it reaches nothing of the machine. Reads what is
wanted as JSON from standard input, and writes what happened.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NFT = "/usr/sbin/nft"
# A refusal comes at once; this is for a packet that nobody answers.
WAIT_SECONDS = 2.0
CONNECTED, REFUSED, SILENT = "connected", "refused", "silent"
CLONE_NEWNET = 0x40000000
# Without a word about connections, which the kernel would begin to follow.
MISSES_ACK = """
table ip misses_ack {
    chain input {
        type filter hook input priority 0; policy accept;
        tcp flags & (syn | ack) == ack drop
    }
}
"""


@dataclass(frozen=True)
class Host:
    """A host of the lab.

    Attributes:
        addresses: one of IPv4 and one of IPv6.
        rules: as nft reads them; none for a host without a firewall.
        ports: where it listens, as `tcp/80`.
    """

    addresses: tuple[str, str]
    rules: str
    ports: tuple[str, ...]


def tried(hosts: Mapping[str, Host], tries: Iterable[Sequence[Any]]) -> dict[tuple[Any, ...], str]:
    """What comes of each try: from, to, port such as `tcp/80`, and 4 or 6."""
    listed = [tuple(each) for each in tries]
    wanted = {"hosts": {name: vars(host) for name, host in hosts.items()}, "tries": listed}
    said = run(wanted)
    return dict(zip(listed, said["tries"], strict=True))


@functools.cache
def apart() -> list[str]:
    """What starts a command in a network of its own, as root there."""
    if os.geteuid() == 0:
        return ["unshare", "--net"]
    own = ["unshare", "--map-root-user", "--net"]
    # Some systems forbid that to users.
    allowed = subprocess.run([*own, "true"], capture_output=True, check=False).returncode == 0
    return own if allowed else ["sudo", "-n", "unshare", "--net"]


def run(wanted: Mapping[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [*apart(), sys.executable, __file__],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# Within the namespace ----------------------------------------------------------------------------


class Lab:
    """One process that goes from one host to the other. A socket stays where it was made."""

    def __init__(self, hosts: Mapping[str, Mapping[str, Any]]) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.hosts = hosts
        self.outside = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.places: dict[str, int] = {}
        self.listeners: dict[tuple[str, str], socket.socket] = {}
        ip("link add switch type bridge", "link set switch up")
        for number, (name, host) in enumerate(hosts.items()):
            self._call(self.libc.unshare(CLONE_NEWNET))
            self.places[name] = os.open("/proc/self/ns/net", os.O_RDONLY)
            place = f"/proc/{os.getpid()}/fd/{self.places[name]}"
            self._call(self.libc.setns(self.outside, CLONE_NEWNET))
            ip(
                f"link add port{number} type veth peer name eth0 netns {place}",
                f"link set port{number} master switch up",
            )
            self.enter(name)
            ip("link set lo up", "link set eth0 up")
            ip(f"address add {host['addresses'][0]}/24 dev eth0")
            ip(f"address add {host['addresses'][1]}/64 dev eth0 nodad")
            for port in host["ports"]:
                self.listen(name, port)
        for name, host in hosts.items():
            if host["rules"]:
                self.load(name, host["rules"])

    def _call(self, code: int) -> None:
        if code:
            raise OSError(ctypes.get_errno(), "namespaces")

    def enter(self, name: str) -> None:
        self._call(self.libc.setns(self.places[name], CLONE_NEWNET))

    def load(self, name: str, rules: str) -> None:
        self.enter(name)
        subprocess.run([NFT, "--file", "-"], input=rules, text=True, check=True)

    def listen(self, name: str, port: str) -> None:
        protocol, _, number = port.partition("/")
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        listener = socket.socket(socket.AF_INET6, kind)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", int(number)))
        if protocol == "tcp":
            listener.listen(64)
        self.listeners[name, port] = listener

    def connect(self, source: str, target: str, port: str, family: int) -> str:
        """What a client on one host gets that wants to talk to another."""
        self.enter(source)
        protocol, _, number = port.partition("/")
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind) as client:
            client.settimeout(WAIT_SECONDS)
            try:
                client.connect((self.hosts[target]["addresses"][family == 6], int(number)))
                if protocol == "tcp":
                    accepted, _ = self.listeners[target, port].accept()
                    accepted.close()
                    return CONNECTED
                client.send(b"?")
                listener = self.listeners[target, port]
                ready, _, _ = select.select([client, listener], [], [], WAIT_SECONDS)
                if client in ready:
                    client.recv(1)
                if listener not in ready:
                    return SILENT
                _, address = listener.recvfrom(1)
                # What was asked for comes back, though nobody has opened that port.
                listener.sendto(b"!", address)
                client.recv(1)
                return CONNECTED
            except TimeoutError:
                return SILENT
            except OSError as error:
                if error.errno == errno.ECONNREFUSED:
                    return REFUSED
                return f"{error}"


def ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["/usr/sbin/ip", *command.split()], check=True)


def spoken_first(lab: Lab, wanted: Mapping[str, Any]) -> str:
    """What a server says first on a connection that is older than its client's rules.

    Where `half` is set, the server has missed the last packet of the handshake. It sends its own
    again when the rules are in force.
    """
    server, place = wanted["server"], (wanted["server"], wanted["port"])
    if wanted["half"]:
        lab.load(server, MISSES_ACK)
    lab.enter(wanted["client"])
    _, _, port = wanted["port"].partition("/")
    address = lab.hosts[server]["addresses"][0], int(port)
    with socket.create_connection(address, WAIT_SECONDS) as client:
        lab.load(wanted["client"], wanted["rules"])
        if wanted["half"]:
            lab.load(server, "delete table ip misses_ack")
        lab.listeners[place].settimeout(4 * WAIT_SECONDS)
        try:
            accepted, _ = lab.listeners[place].accept()
        except TimeoutError:
            return SILENT
        with accepted:
            accepted.send(b"still here")
            return client.recv(100).decode()


def known_connections(lab: Lab, wanted: Mapping[str, Any]) -> dict[str, int]:
    """How many connections the kernels of both hosts remember after so many of them."""
    for _ in range(wanted["count"]):
        lab.connect(wanted["client"], wanted["server"], wanted["port"], 4)
    counts = {}
    for name in (wanted["client"], wanted["server"]):
        lab.enter(name)
        counts[name] = int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())
    return counts


def main() -> None:
    wanted = json.load(sys.stdin)
    lab = Lab(wanted["hosts"])
    found: dict[str, Any] = {"tries": [lab.connect(*each) for each in wanted["tries"]]}
    if "spoken_first" in wanted:
        found["spoken_first"] = spoken_first(lab, wanted["spoken_first"])
    if "known_connections" in wanted:
        found["known_connections"] = known_connections(lab, wanted["known_connections"])
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
