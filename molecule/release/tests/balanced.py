"""The fleet behind a balancer: what its tests have in common."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench import FOLDER, Done, Host, Load, playbook
from shared import Member

SERVERS = "/usr/local/sbin/haproxy-servers"
# Of the hosts, the balancer and the database.
INVENTORY = FOLDER / "balanced" / "hosts.yml"


@dataclass
class Balanced:
    """Two hosts and what stands in front of them.

    Attributes:
        members: the hosts; the first has the database as well.
        balancer: which clients know.
    """

    members: list[Member]
    balancer: Host

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
        with self.members[0].under_load(steady, address=self.balancer.address, **given) as load:
            yield load

    def answered(self) -> dict[str, int]:
        """How many of clients' requests each host has answered so far."""
        return {each.name: len(log(each)) for each in self.members}

    def answering(self, seconds: float = 2.0) -> set[str]:
        """The hosts that answer clients for the next seconds."""
        before = self.answered()
        time.sleep(seconds)
        return {name for name, count in self.answered().items() if count > before[name]}


def log(member: Host) -> list[dict[str, Any]]:
    """Requests for the API in nginx's log; what balancers and the host itself ask is not there."""
    lines = member.root("cat /var/log/nginx/access.log").splitlines()
    return [line for line in map(json.loads, lines) if "/api/v1/" in line["uri"]]


def run(name: str, *arguments: str, **extra: Any) -> Done:
    return playbook(INVENTORY, name, *arguments, **extra).wait()
