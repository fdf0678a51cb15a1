"""A fleet of containers for the proof: hosts, inventory, and requests through its balancers."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bench import FOLDER, Done, Host, Load, playbook, unsettled, write_inventory
from engine import Engine
from hosts import IDENTITY, USER, Hosts, Spec
from shared import STORED

SCOPE = "fleetproof"
IMAGE = "debian13"
DOMAIN = "fleet.proof.test"
ACME = f"{SCOPE}-acme"
SWITCH_ON_SECONDS = 0.5
# A host with this address of a card is nowhere.
NOWHERE = "02:00:00:00:00:01"


class Serving(Host):
    """A host that serves, asked through balancers; what it stores is in the fleet's database."""

    fleet: Fleet

    @cached_property
    def authority(self) -> Path:
        """Of the ACME server."""
        return self.fleet.hosts.acme_root(ACME)

    def onhost(self, command: str, **options: Any) -> Any:
        if command != "stored":
            return super().onhost(command, **options)
        found = self.fleet.sql(STORED.format(run=options["run"]))
        return {"plates": json.loads(found or "null") or {}, "sound": "ok"}


@dataclass
class Fleet:
    """Hosts by group.

    Attributes:
        balancers: names.
        web: names.
        databases: names; three are a cluster.
    """

    balancers: list[str]
    web: list[str]
    databases: list[str]
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Name what all of them share."""
        self.hosts = Hosts(Engine(), SCOPE, SCOPE, print)
        self.inventory = FOLDER / SCOPE / "hosts.yml"
        kept = self.inventory.with_name("secrets.json")
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps([secrets.token_hex(32) for _ in range(2)]))
        database, key = json.loads(kept.read_text())
        self.variables = {
            "ansible_user": USER,
            "ansible_ssh_private_key_file": str(IDENTITY),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o LogLevel=ERROR "
            "-o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes",
            "application_database_secret": database,
            "toll": {"role": "toll_app", "domains": [DOMAIN], "secrets": {"secret_key": key}},
            "toll_settings": {},
            "applications": {"toll-app": "{{ toll | combine(toll_settings, recursive=true) }}"},
            "certbot_directory_url": f"https://{ACME}:14000/dir",
            "toll_app_demo": True,
            "haproxy_max_connections": 2000,
        }

    @property
    def names(self) -> list[str]:
        """All hosts, each once."""
        return list(dict.fromkeys([*self.balancers, *self.web, *self.databases]))

    def container(self, name: str) -> str:
        """What the engine calls a host."""
        return f"{SCOPE}-{name}"

    def address(self, name: str) -> str:
        """Of a host."""
        return str(self.made[name]["address"])

    @property
    def floating(self) -> str:
        """An address of the hosts' network that none of them has."""
        network = ipaddress.ip_network(f"{self.address(self.balancers[0])}/24", strict=False)
        taken = {str(each["address"]) for each in self.made.values()}
        return next(str(x) for x in reversed(list(network.hosts())) if str(x) not in taken)

    def holder(self) -> str:
        """The balancer that has that address; empty while none has."""
        for name in self.balancers:
            said = self.inside(name, "floating-address", "--json", check=False)
            if said and any(json.loads(said)["addresses"].values()):
                return name
        return ""

    def up(self) -> None:
        """Have the hosts running, and write their inventory."""
        aliases = {name: (DOMAIN,) for name in self.balancers}
        specs = [
            Spec(self.container(name), IMAGE, aliases=aliases.get(name, ())) for name in self.names
        ]
        made = self.hosts.up([*specs, Spec(ACME, "acme")])
        self.made = {str(each["hostname"]): each for each in made}
        self.variables["certbot_ca_file"] = str(self.hosts.acme_ca(ACME))
        self.write()

    def write(self) -> None:
        """Write the inventory."""
        told = {
            name: {"ansible_host": self.address(name), "testhost_container": self.container(name)}
            for name in self.names
        }
        # An address that moves takes two of them.
        moves = {"keepalived_addresses": [f"{self.floating}/24"]} if self.balancers[1:] else {}
        groups = {
            "balancers": {name: {**told[name], **moves} for name in self.balancers},
            "databases": {name: told[name] for name in self.databases},
        }
        write_inventory(self.inventory, {name: told[name] for name in self.web}, **groups)
        shared = self.inventory.parent / "group_vars" / "all.json"
        shared.parent.mkdir(exist_ok=True)
        shared.write_text(json.dumps(self.variables))

    def run(self, name: str, *arguments: str, **extra: Any) -> Done:
        """Run a playbook of the project to its end."""
        return playbook(self.inventory, name, *arguments, **extra).wait(1800)

    def serving(self, name: str) -> Serving:
        """A host that serves, to be asked and to send requests for."""
        given = {**self.variables, "ansible_host": self.address(name)}
        host = Serving(name, {**given, "testhost_container": self.container(name)}, self.hosts)
        host.fleet = self
        return host

    # What is going on

    def inside(self, name: str, *command: str, check: bool = True, given: str = "") -> str:
        """Run a command in a host's container, as root."""
        done = self.hosts.engine.podman(
            "exec", "-i", self.container(name), *command, check=check, text=given
        )
        return str(done.stdout)

    def primary(self) -> str:
        """The database's host that takes writes; empty while there is none."""
        for name in self.databases:
            found = self.inside(
                name,
                *("timeout", "3", "runuser", "-u", "postgres", "--", "psql", "-qAtc"),
                "SELECT pg_is_in_recovery()",
                check=False,
            )
            if found.strip() == "f":
                return name
        return ""

    def leader(self) -> str:
        """The database's host whose voter leads the others; empty for none of them."""
        ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:2381/metrics').read())"
        for name in self.databases:
            if "\\netcd_server_is_leader 1\\n" in self.inside(
                name, "python3", "-c", ask, check=False
            ):
                return name
        return ""

    def sql(self, statement: str) -> str:
        """What PostgreSQL's own user is answered."""
        command = ("runuser", "-u", "postgres", "--", "psql", "-qAt", "-v", "ON_ERROR_STOP=1")
        return self.inside(self.primary(), *command, "-d", "toll-app", given=statement).strip()

    def states(self) -> dict[str, str]:
        """What the balancers say of each host, by `balancer host`."""
        found = {}
        for balancer in self.balancers:
            said = json.loads(self.inside(balancer, "haproxy-servers", "--json"))
            for servers in said["sites"].values():
                for name, server in servers.items():
                    found[f"{balancer} {name}"] = str(server["state"])
        return found

    def healthy(self, seconds: float = 120.0) -> None:
        """Wait until each host serves, is led to, and nothing is under way.

        Raises:
            AssertionError: it does not come to that.
        """
        end = time.monotonic() + seconds
        while wrong := self.unhealthy():
            assert time.monotonic() < end, wrong
            time.sleep(1)

    def unhealthy(self) -> str:
        """What is not as it should be; empty when all is well."""
        try:
            problems = [
                f"{name}: {found}"
                for name in self.web
                if (found := unsettled(self.serving(name).state()))
            ]
            problems += [
                f"{who} is {state}" for who, state in self.states().items() if state != "UP"
            ]
            if not self.primary():
                problems.append("no primary")
        except (AssertionError, subprocess.SubprocessError, ValueError, KeyError) as error:
            return repr(error)
        return "; ".join(problems)

    # What is done to it

    def cut_off(self, name: str) -> None:
        """Kill everything on a host at once, and leave it off."""
        self.hosts.cut_off(self.container(name))

    def start(self, name: str) -> None:
        """Switch it on again."""
        self.hosts.start(self.container(name))

    def part(self, these: Sequence[str], those: Sequence[str], apart: bool = True) -> None:
        """Have packets between two groups of hosts vanish, or have them arrive again."""
        for one, others in ((these, those), (those, these)):
            for name in one:
                for other in others:
                    way = ("to", self.address(other), "dev", "eth0")
                    if apart:
                        state = ("lladdr", NOWHERE, "nud", "permanent")
                        self.inside(name, "ip", "neigh", "replace", *way, *state)
                    else:
                        self.inside(name, "ip", "neigh", "del", *way, check=False)

    @contextlib.contextmanager
    def switched_on(self) -> Iterator[None]:
        """Switch on again whichever host ends: a container's reboot ends it."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(SWITCH_ON_SECONDS):
                done = self.hosts.engine.podman(
                    *("ps", "-a", f"--filter=name=^{SCOPE}-", "--filter=status=exited"),
                    "--format={{.Names}}",
                )
                for name in done.stdout.split():
                    self.hosts.start(name)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextlib.contextmanager
    def under_load(self, through: str = "", floating: bool = False, **given: Any) -> Iterator[Load]:
        """Requests to all balancers.

        Args:
            through: the host whose key they use; it has to be well in the end.
            floating: whether to the address that moves between them, and no other.
        """
        host = self.serving(through or self.web[-1])
        listed = [self.floating] if floating else [self.address(name) for name in self.balancers]
        first, *others = listed
        given = {"others": tuple(others), "resend": True, **given}
        with host.under_load(address=first, **given) as load:
            yield load
