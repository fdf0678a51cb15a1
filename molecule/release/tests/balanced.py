"""The fleet behind a balancer: what its tests have in common."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from bench import FOLDER, Done, Host, Load, playbook
from shared import DOMAIN, Member

SERVERS = "/usr/local/sbin/haproxy-servers"
ADDRESS = "/usr/local/sbin/floating-address"
# Of the hosts, the balancer and the database.
INVENTORY = FOLDER / "balanced" / "hosts.yml"


@dataclass
class Balanced:
    """Two hosts and what stands in front of them.

    Attributes:
        members: the hosts; the first has the database as well.
        balancer: which clients know.
        spare: another one, with the same floating address.
        floating: that address.
    """

    members: list[Member]
    balancer: Host
    spare: Host
    floating: str

    @property
    def balancers(self) -> list[Host]:
        return [self.balancer, self.spare]

    def holders(self) -> list[Host]:
        """The balancers that have the floating address."""
        said = [json.loads(each.root(f"{ADDRESS} --json")) for each in self.balancers]
        pairs = zip(self.balancers, said, strict=True)
        return [each for each, told in pairs if told["addresses"] == {self.floating: True}]

    def settled(self) -> Host:
        """Wait until one balancer has the address and the other one could take it."""
        end = time.monotonic() + 60
        while True:
            holders = self.holders()
            last = "journalctl -u keepalived -g 'Entering .* STATE' -n 1 -o cat"
            states = {each.root(last) for each in self.balancers}
            if len(holders) == 1 and len(states) == 2 and not any("FAULT" in x for x in states):
                return holders[0]
            assert time.monotonic() < end, (holders, states)
            time.sleep(0.5)

    @contextlib.contextmanager
    def asked(self, seconds: float, beside: Host | None = None) -> Iterator[Asked]:
        """Ask the floating address from before the block until so long after its begin.

        Args:
            beside: a balancer whose own address is asked too, to tell what the machine delays.
        """
        asked = Asked(self.floating, Asked(beside.address) if beside else None)
        threads = [
            threading.Thread(target=each.run, args=(seconds + 1,))
            for each in (asked, asked.beside)
            if each
        ]
        for thread in threads:
            thread.start()
        time.sleep(1)
        yield asked
        for thread in threads:
            thread.join()

    def servers(self, *arguments: str) -> dict[str, Any]:
        """What the balancer says of its hosts."""
        said = self.balancer.root(f"{SERVERS} --json {' '.join(arguments)}", check=False)
        return dict(json.loads(said))

    def states(self) -> dict[str, str]:
        (servers,) = self.servers()["sites"].values()
        return {name: str(server["state"]) for name, server in servers.items()}

    def wait_until_up(self, seconds: float = 60.0) -> None:
        """Until the balancer sends to all hosts. Raises AssertionError if it does not."""
        end = time.monotonic() + seconds
        while set((states := self.states()).values()) != {"UP"}:
            assert time.monotonic() < end, states
            time.sleep(0.5)

    @contextlib.contextmanager
    def under_load(self, steady: float = 2.0, **given: Any) -> Iterator[Load]:
        """Requests to the balancer, whose answers any host may give."""
        given = {"address": self.balancer.address, "resend": True, **given}
        with self.members[0].under_load(steady, **given) as load:
            yield load

    def answered(self) -> dict[str, int]:
        """How many of clients' requests each host has answered so far."""
        return {each.name: len(log(each)) for each in self.members}

    def answering(self, enough: int = 40, seconds: float = 60.0) -> set[str]:
        """The hosts that answer the next requests of clients.

        Args:
            enough: requests to wait for, however long a busy machine takes; many more than
                there are connections, so that a host with none of them is asked for none.
            seconds: time limit. Raises AssertionError where so few were answered in it.
        """
        before = self.answered()
        end = time.monotonic() + seconds
        while True:
            time.sleep(0.5)
            since = {name: count - before[name] for name, count in self.answered().items()}
            if sum(since.values()) >= enough:
                return {name for name, count in since.items() if count}
            assert time.monotonic() < end, since


@dataclass
class Asked:
    """What clients of an address are answered, one new connection after the other.

    Attributes:
        address: that address.
        beside: the same of an address that stays where it is.
    """

    address: str
    beside: Asked | None = None
    good: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        context = ssl._create_unverified_context()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError, http.client.HTTPException):
                raw = socket.create_connection((self.address, 443), timeout=0.5)
                with context.wrap_socket(raw, server_hostname=DOMAIN) as connection:
                    connection.settimeout(2)
                    request = f"GET /readyz HTTP/1.0\r\nHost: {DOMAIN}\r\n\r\n"
                    connection.sendall(request.encode())
                    if b" 200 " in connection.recv(1000):
                        self.good.append(time.monotonic())
            time.sleep(0.05)
        self.ended = end

    @property
    def pause(self) -> float:
        """The longest time without a good answer, in seconds, less the longest beside it."""
        moments = [*self.good, self.ended]
        longest = max((after - before for before, after in pairwise(moments)), default=99.0)
        return longest - (self.beside.pause if self.beside else 0.0)


def log(member: Host) -> list[dict[str, Any]]:
    """Requests for the API in nginx's log; what balancers and the host itself ask is not there."""
    lines = member.root("cat /var/log/nginx/access.log").splitlines()
    return [line for line in map(json.loads, lines) if "/api/v1/" in line["uri"]]


def run(name: str, *arguments: str, **extra: Any) -> Done:
    return playbook(INVENTORY, name, *arguments, **extra).wait()
