"""A client that runs on the host, because only there are the sockets: `client.py COMMAND OPTIONS`.

Takes its options as JSON, prints its result as JSON. Needs nothing but the host's Python.
"""

from __future__ import annotations

import collections
import glob
import http.client
import ipaddress
import json
import pathlib
import socket
import struct
import sys
import threading
import time
from typing import Any

TIMEOUT = 60


class Connection(http.client.HTTPConnection):
    """HTTP over `unix:/path` or `address:port`."""

    def __init__(self, to: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self.to = to

    def connect(self) -> None:
        if self.to.startswith("unix:"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(TIMEOUT)
            self.sock.connect(self.to.removeprefix("unix:"))
        else:
            address, _, port = self.to.rpartition(":")
            self.sock = socket.create_connection((address, int(port)), TIMEOUT)


def ask(to: str, path: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """One GET on a connection of its own."""
    connection = Connection(to)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return {
            "status": response.status,
            "headers": {name.lower(): value for name, value in response.getheaders()},
            "body": response.read().decode(),
        }
    finally:
        connection.close()


def load(to: list[str], path: str, clients: int, seconds: float, until: str = "") -> dict[str, Any]:
    """Clients that ask one request after the other, each on a new connection, for a while.

    At most for so many seconds, or until the file `until` is there.
    """
    end = time.monotonic() + seconds
    good: list[float] = []
    bad: collections.Counter[str] = collections.Counter()

    def work(number: int) -> None:
        while time.monotonic() < end and not (until and pathlib.Path(until).exists()):
            start = time.monotonic()
            try:
                status = ask(to[number % len(to)], path)["status"]
            except (OSError, http.client.HTTPException) as error:
                bad[repr(error)] += 1
            else:
                if status == 200:
                    good.append(time.monotonic() - start)
                else:
                    bad[str(status)] += 1
            # Some 50 requests a second meet a gap of 20 ms, and leave processors for the others.
            time.sleep(0.05)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"good": len(good), "bad": dict(bad), "longest": round(max(good, default=0.0), 3)}


def ports() -> list[str]:
    """Where anybody on the host listens by TCP, `address:port`."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as lines:
            for line in list(lines)[1:]:
                _, local, _, state = line.split()[:4]
                address, port = local.split(":")
                if state == "0A":
                    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
                    ip = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
                    found.add(f"{ip}:{int(port, 16)}")
    return sorted(found)


def inodes(to: list[str]) -> dict[str, str]:
    """The kernel's number of each listening socket: another number is another socket."""
    wanted = {}
    with open("/proc/net/unix") as lines:
        for line in lines:
            fields = line.split()
            if len(fields) == 8 and fields[5] == "01" and f"unix:{fields[7]}" in to:
                wanted[f"unix:{fields[7]}"] = fields[6]
    with open("/proc/net/tcp") as lines:
        for line in list(lines)[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            ip = ipaddress.ip_address(struct.pack("=I", int(address, 16)))
            if fields[3] == "0A" and f"{ip}:{int(port, 16)}" in to:
                wanted[f"{ip}:{int(port, 16)}"] = fields[9]
    return wanted


def leaks(secrets: str, places: list[str]) -> list[str]:
    """Files, below directories or by pattern, that hold what a file in `secrets` holds."""
    wanted = [path.read_bytes() for path in pathlib.Path(secrets).iterdir()]
    found = []
    for place in places:
        for name in glob.glob(place, recursive=True):
            path = pathlib.Path(name)
            try:
                content = path.read_bytes() if path.is_file() else b""
            except OSError:  # a process that has ended
                continue
            if any(secret in content for secret in wanted):
                found.append(name)
    return found


if __name__ == "__main__":
    _, command, options = sys.argv
    print(json.dumps(globals()[command](**json.loads(options))))
