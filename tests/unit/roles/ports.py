"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket

# Below those that the kernel gives to clients (ip_local_port_range): one of them may be a client's
# by the time that a server wants it, or that of whoever waits for the server and meets itself.
FIRST, LAST = 12000, 31999


def free_port() -> int:
    """A port on which nobody listens, at no address of this machine."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Several of them, each another."""
    held: dict[int, socket.socket] = {}
    try:
        while len(held) < count:
            # At random, since tests run side by side.
            port = random.randint(FIRST, LAST)
            if port in held:
                continue
            try:
                held[port] = socket.create_server(("", port))
            except OSError:
                continue
        return list(held)
    finally:
        for each in held.values():
            each.close()
