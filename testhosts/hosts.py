"""Hosts: containers whose PID 1 is systemd, reached over SSH as the user `ops` with sudo."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import random
import re
import shlex
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import images
from engine import (
    CACHE,
    CHECKOUT,
    LABEL_PROJECT,
    LABEL_SCOPE,
    ROOT,
    Engine,
    TestHostsError,
    locked,
)

USER = "ops"
IDENTITY = CACHE / "id_ed25519"
# Where ansible.cfg lets Ansible keep its persistent connections.
# Of the scenarios (.config/molecule/config.yml), and of a playbook that is started by hand.
CONTROL_PATHS = ROOT / ".cache" / "ssh-control"
ANSIBLE_CONTROL_PATHS = Path.home() / ".ansible" / "cp"
LABEL_SPEC = "testhosts.spec"
LABEL_ADDRESS = "testhosts.address"
BOOT_SECONDS = 90
STOP_SECONDS = 20
ACME_MANAGEMENT_PORT = 15000
INOTIFY_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_INSTANCES = 1024

NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
SHARE = re.compile(r"(/[a-z0-9][a-z0-9-]*)+")
PUBLISH = re.compile(r"(?P<address>[0-9.]+):(?P<port>\d+):(?P<inside>\d+)")


@dataclass(frozen=True)
class Spec:
    """A host that is wanted.

    Attributes:
        name: of the container; without the scope in front it is the host name as well.
        image: debian12, debian13 or acme.
        aliases: further names that other hosts of the network resolve to it.
        publish: ports of this machine that lead to the host, as `127.0.0.1:8443:443`.
        share: a directory that all hosts of the scope that name it have in common.
    """

    name: str
    image: str
    aliases: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    share: str = ""

    def hostname(self, scope: str) -> str:
        """The name that the host itself has."""
        return self.name.removeprefix(f"{scope}-")

    def problems(self) -> list[str]:
        """What is wrong with it, one message each."""
        found = []
        if not NAME.fullmatch(self.name) or len(self.name) > 63:
            found.append(f"name {self.name!r}: use at most 63 of a-z, 0-9 and the hyphen")
        if self.image not in images.RECIPES_BY_NAME:
            found.append(
                f"image {self.image!r}: there are {', '.join(sorted(images.RECIPES_BY_NAME))}"
            )
        for port in self.publish:
            if not (match := PUBLISH.fullmatch(port)) or not all(
                0 < int(match[part]) < 65536 for part in ("port", "inside")
            ):
                found.append(f"publish {port!r}: write it as 127.0.0.1:8443:443")
        if self.share and not SHARE.fullmatch(self.share):
            found.append(f"share {self.share!r}: write it as /srv/archive")
        return found

    def digest(self, network: str) -> str:
        """Changes with anything that only a new container can take up, the image's age aside."""
        wanted = [self.image, sorted(self.aliases), sorted(self.publish), network]
        wanted += [self.share] if self.share else []
        return hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:12]


def read_specs(text: str, scope: str) -> list[Spec]:
    """Read a JSON list of `{name, image, aliases, publish, share}`; other members are ignored.

    Args:
        text: the JSON.
        scope: is put in front of each name.

    Raises:
        TestHostsError: it is not such a list.
    """
    try:
        listed = json.loads(text)
        return [
            Spec(
                f"{scope}-{item['name']}",
                item["image"],
                tuple(item.get("aliases", ())),
                tuple(item.get("publish", ())),
                item.get("share", ""),
            )
            for item in listed
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TestHostsError(
            f"Not a list of hosts with `name` and `image` each: {error!r}"
        ) from error


def mac_address(address: str) -> str:
    """A locally administered MAC address that no two addresses of IPv4 share."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def free_address(subnet: str, taken: Collection[str], pick: Callable[[list[str]], str]) -> str:
    """An address for a new host.

    It is given to the host for good, so that it survives a reboot, and `pick` should choose at
    random, so that a connection kept open to a removed host is not mistaken for the new one.

    Args:
        subnet: of the network, for instance "10.89.0.0/24".
        taken: addresses in use.
        pick: chooses one of several.

    Raises:
        TestHostsError: none is left.
    """
    network = ipaddress.ip_network(subnet)
    # The engine itself counts from below, the gateway first.
    usable = [str(x) for x in list(network.hosts())[9:] if str(x) not in taken]
    if not usable:
        raise TestHostsError(f"No address is left in {subnet}: remove hosts with `down`.")
    return pick(usable)


def control_paths(address: str, port: int) -> list[Path]:
    """Sockets of persistent connections to a host: Ansible's, and that of molecule/conftest.py.

    Ansible leaves out the port when the inventory does (`_create_control_path` in its ssh plugin).
    """
    known = [f"{address}-{port}-{USER}", f"{address}-None-{USER}"]
    names = [hashlib.sha1(x.encode()).hexdigest()[:10] for x in known]
    return [
        *(folder / name for folder in (CONTROL_PATHS, ANSIBLE_CONTROL_PATHS) for name in names),
        CONTROL_PATHS / f"test-{address}-{port}",
    ]


def forget_connections(host: Mapping[str, Any]) -> None:
    """End connections that are kept open to a host which stops: they would hang, not fail."""
    ways = [(host["address"], 22)]
    for entry in host["publish"]:
        address, port, inside = entry.split(":")
        if inside == "22":
            ways.append((address, int(port)))
    for address, port in ways:
        for path in control_paths(address, port):
            if path.exists():
                subprocess.run(
                    ["ssh", "-O", "exit", "-o", f"ControlPath={path}", address],
                    check=False,
                    capture_output=True,
                )
                path.unlink(missing_ok=True)


def listener(port: int, proc: Path = Path("/proc")) -> str | None:
    """Which program listens on a TCP port of this machine: "nginx (pid 12)", or None.

    Args:
        port: the port.
        proc: where the process table is.
    """
    inodes = set()
    for table in ("net/tcp", "net/tcp6"):
        path = proc / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            # 0A is LISTEN.
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return None
    for process in proc.glob("[0-9]*"):
        try:
            for descriptor in (process / "fd").iterdir():
                if os.readlink(descriptor) in inodes:
                    return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue
    return "a program that cannot be seen from here"


def free_ports(publish: Sequence[str]) -> None:
    """Refuse ports that are taken, and say by whom.

    Raises:
        TestHostsError: one is taken.
    """
    for entry in publish:
        address, port, _ = entry.split(":")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, int(port)))
            except OSError as error:
                who = listener(int(port)) or error.strerror
                raise TestHostsError(
                    f"Port {port} of {address} is taken by {who}: stop it, then run this again."
                ) from error


def scarce(proc: Path = Path("/proc")) -> str:
    """What to do about it when all containers together run out of inotify instances, else nothing.

    systemd needs five or so for each host, and they count for root, across containers.

    Args:
        proc: where the process table is.
    """
    limit = int((proc / "sys/fs/inotify/max_user_instances").read_text())
    used = 0
    for descriptor in proc.glob("[0-9]*/fd/*"):
        with suppress(OSError):
            used += os.readlink(descriptor) == "anon_inode:inotify"
    if used < limit * 0.8:
        return ""
    return (
        f". {used} of {limit} inotify instances of this machine are in use: remove hosts, "
        "or `sysctl -w fs.inotify.max_user_instances=1024`"
    )


def make_room(engine: Engine, limit: Path = INOTIFY_LIMIT) -> None:
    """Raise the machine's limit of inotify instances where it is too low for hosts side by side.

    systemd needs five or so for each host; a kernel's own 128 serve about twenty hosts, of all
    checkouts together. Where the limit cannot be raised, `scarce` names the remedy in need.

    Args:
        engine: how to be root.
        limit: the file that holds it.
    """
    if int(limit.read_text()) < INOTIFY_INSTANCES:
        subprocess.run(
            engine.as_root(["sh", "-c", f"echo {INOTIFY_INSTANCES} >{limit}"]),
            check=False,
            capture_output=True,
        )


class Hosts:
    """The hosts of one scope: what a demo or a test scenario brings up and down together."""

    def __init__(
        self, engine: Engine, scope: str, network: str, say: Callable[[str], None]
    ) -> None:
        """Name the scope.

        Args:
            engine: the engine.
            scope: its name, part of labels.
            network: the network that its hosts share; made when it is not there.
            say: tells the user a line.
        """
        self.engine = engine
        self.scope = scope
        self.network = network
        self.say = say

    def _inspect(self, name: str) -> dict[str, Any] | None:
        done = self.engine.podman("container", "inspect", name, check=False)
        if done.returncode:
            return None
        found: dict[str, Any] = json.loads(done.stdout)[0]
        return found

    def _make_network(self) -> str:
        """Make the network unless it is there, and return its subnet."""
        if self.engine.podman("network", "exists", self.network, check=False).returncode:
            self.engine.podman(
                "network",
                "create",
                f"--label={LABEL_PROJECT}={ROOT}",
                f"--label={LABEL_SCOPE}={self.scope}",
                self.network,
            )
        found = json.loads(self.engine.podman("network", "inspect", self.network).stdout)[0]
        if not found.get("dns_enabled"):
            raise TestHostsError(
                f"Network {self.network} has no name resolution: install netavark and "
                "aardvark-dns (tools/bootstrap does), then `podman network rm` it."
            )
        for subnet in found["subnets"]:
            if ":" not in subnet["subnet"]:
                return str(subnet["subnet"])
        raise TestHostsError(f"Network {self.network} has no IPv4 subnet.")

    def _taken(self) -> set[str]:
        listed = self.engine.podman(
            "ps", "-a", f"--filter=network={self.network}", "--format=json"
        ).stdout
        return {(x.get("Labels") or {}).get(LABEL_ADDRESS, "") for x in json.loads(listed or "[]")}

    def up(self, specs: Sequence[Spec]) -> list[dict[str, Any]]:
        """Have these hosts running, side by side; a host that runs is left alone.

        Returns:
            For each its name, host name, address, port, user, identity file and published ports.

        Raises:
            TestHostsError: with every problem of the specs, or of the first host that failed.
        """
        problems = [x for spec in specs for x in spec.problems()]
        if problems:
            raise TestHostsError("\n".join(problems))
        make_identity()
        make_room(self.engine)
        images.ensure_all(self.engine, (spec.image for spec in specs), self.say)
        if any(spec.share for spec in specs):
            # Of hosts that somebody removed in another way. Refused while a host has it.
            self.engine.podman("volume", "rm", f"{self.scope}-share", check=False)
        with ThreadPoolExecutor(max_workers=4) as pool:
            with locked("network"):
                subnet = self._make_network()
            hosts = list(pool.map(lambda spec: self._up(spec, subnet), specs))
        return hosts

    def _up(self, spec: Spec, subnet: str) -> dict[str, Any]:
        start = time.monotonic()
        full = images.reference(spec.image)
        found = self._inspect(spec.name)
        if found is None:
            address = self._create(spec, full, subnet)
            verb = "made"
        else:
            address = self._recognize(spec, full, found)
            verb = "" if found["State"]["Running"] else "started"
        host = {
            "name": spec.name,
            "hostname": spec.hostname(self.scope),
            "address": address,
            "port": 22,
            "user": USER,
            "identity_file": str(IDENTITY),
            "publish": list(spec.publish),
            "image": spec.image,
            "network": self.network,
        }
        if verb:
            forget_connections(host)
            if found is not None:
                free_ports(spec.publish)
            self.engine.podman("start", spec.name)
        try:
            failed = self._wait(spec.name, address)
        except TestHostsError as error:
            raise TestHostsError(f"{error}\n{self.journal(spec.name)}") from error
        if failed:
            self.say(f"host {spec.name}: degraded, these units failed: {failed}{scarce()}")
        if verb:
            self.say(f"host {spec.name}: {verb} in {time.monotonic() - start:.1f} s")
        return host

    def _create(self, spec: Spec, full: str, subnet: str) -> str:
        free_ports(spec.publish)
        hostname = spec.hostname(self.scope)
        aliases = dict.fromkeys((hostname, *spec.aliases))
        # Two processes would find the same address free.
        with locked("network"):
            address = free_address(subnet, self._taken(), random.choice)
            self.engine.podman(
                "create",
                f"--name={spec.name}",
                f"--hostname={hostname}",
                f"--network={self.network}",
                f"--ip={address}",
                # It stays, as a real card does: a restart would leave others with the old one.
                f"--mac-address={mac_address(address)}",
                *(f"--network-alias={alias}" for alias in aliases),
                *(f"--publish={port}" for port in spec.publish),
                f"--label={LABEL_PROJECT}={ROOT}",
                f"--label={LABEL_SCOPE}={self.scope}",
                f"--label={LABEL_SPEC}={spec.digest(self.network)}",
                f"--label={LABEL_ADDRESS}={address}",
                f"--env=TESTHOST_NAMES={' '.join([spec.name, *aliases, address])}",
                # Units' sandboxes make mount namespaces.
                "--privileged",
                "--systemd=always",
                *self.engine.weight,
                # Otherwise a tmpfs, and the journal would not survive a reboot.
                "--volume=/var/log/journal",
                *([f"--volume={self.scope}-share:{spec.share}"] if spec.share else []),
                full,
            )
        return address

    def _recognize(self, spec: Spec, full: str, found: Mapping[str, Any]) -> str:
        """The address of a host that is there already."""
        labels = found["Config"]["Labels"] or {}
        owner = labels.get(LABEL_PROJECT)
        if owner != str(ROOT):
            raise TestHostsError(
                f"A container {spec.name} exists and belongs to "
                f"{owner or 'somebody else'}: remove it there first."
            )
        if labels.get(LABEL_SPEC) != spec.digest(self.network):
            raise TestHostsError(
                f"Host {spec.name} was made with other settings: remove it with `down` first."
            )
        if found["ImageName"] != full:
            self.say(
                f"host {spec.name}: runs an older {spec.image} image; `down` and `up` renew it"
            )
        return str(labels[LABEL_ADDRESS])

    def _wait(self, name: str, address: str) -> str:
        """Wait until systemd has finished starting and sshd answers.

        Returns:
            The failed units, empty when there are none.

        Raises:
            TestHostsError: it took too long.
        """
        end = time.monotonic() + BOOT_SECONDS
        # Asked too early, systemctl has no systemd to talk to. Its `--wait` hears of the end over
        # D-Bus, and in systemd 257 sits there for 25 s when D-Bus itself starts meanwhile.
        script = f"""
            while :; do
                state=$(systemctl is-system-running 2>/dev/null)
                case $state in running|degraded) break;; esac
                sleep 0.1
            done
            if [ ! -s /home/{USER}/.ssh/authorized_keys ]; then
                install -d -o {USER} -g {USER} -m 0700 /home/{USER}/.ssh
                cat > /home/{USER}/.ssh/authorized_keys
                chown {USER}:{USER} /home/{USER}/.ssh/authorized_keys
            fi
            systemctl list-units --failed --plain --no-legend | cut -d' ' -f1
        """
        try:
            done = self.engine.podman(
                "exec",
                "-i",
                name,
                "sh",
                "-c",
                script,
                text=IDENTITY.with_suffix(".pub").read_text(),
                timeout=BOOT_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise TestHostsError(
                f"Host {name}: systemd had not finished starting after {BOOT_SECONDS} s."
            ) from error
        while True:
            try:
                with socket.create_connection((address, 22), timeout=2) as connection:
                    if connection.recv(4) == b"SSH-":
                        break
            except OSError:
                pass
            if time.monotonic() > end:
                raise TestHostsError(f"Host {name}: sshd on {address} does not answer.")
            time.sleep(0.1)
        return " ".join(done.stdout.split())

    def journal(self, name: str, lines: int = 40) -> str:
        """The end of a host's journal, or of its console when it does not run."""
        done = self.engine.podman(
            "exec", name, "journalctl", "--no-pager", f"--lines={lines}", check=False
        )
        if done.returncode:
            done = self.engine.podman("logs", f"--tail={lines}", name, check=False)
        return f"--- the end of the journal of {name}\n{(done.stdout or done.stderr).rstrip()}"

    def reboot(self, name: str) -> None:
        """Stop a host in an orderly way and start it again.

        Raises:
            TestHostsError: it does not exist or does not come back.
        """
        self._restart(name, "stop", f"--time={STOP_SECONDS}")

    def power_cut(self, name: str) -> None:
        """Kill everything that runs on a host at once, and start it again.

        What was written is on its disk all the same, synchronized or not: the kernel goes on.

        Raises:
            TestHostsError: it does not exist or does not come back.
        """
        self._restart(name, "kill", "--signal=KILL")

    def cut_off(self, name: str) -> None:
        """Kill everything that runs on a host at once, and leave it off until `start`.

        Raises:
            TestHostsError: it does not exist.
        """
        self._stop(name, "kill", "--signal=KILL")

    def start(self, name: str) -> None:
        """Start a host that is off.

        Raises:
            TestHostsError: it does not exist or does not come up.
        """
        host = self._describe(name)
        self.engine.podman("start", name)
        try:
            self._wait(name, host["address"])
        except TestHostsError as error:
            raise TestHostsError(f"{error}\n{self.journal(name)}") from error

    def _restart(self, name: str, *stop: str) -> None:
        self._stop(name, *stop)
        self.start(name)

    def _stop(self, name: str, *stop: str) -> None:
        forget_connections(self._describe(name))
        self.engine.podman(*stop, name)
        # `kill` does not wait for the end.
        self.engine.podman("wait", name)

    def _describe(self, name: str) -> dict[str, Any]:
        found = self._inspect(name)
        if found is None:
            raise TestHostsError(f"There is no host {name}.")
        labels = found["Config"]["Labels"] or {}
        if labels.get(LABEL_PROJECT) != str(ROOT):
            raise TestHostsError(f"Container {name} is not a host of this checkout.")
        published = []
        for inside, outside in (found["HostConfig"]["PortBindings"] or {}).items():
            published += [f"{x['HostIp']}:{x['HostPort']}:{inside.split('/')[0]}" for x in outside]
        return {
            "name": name,
            "image": found["ImageName"],
            "scope": labels.get(LABEL_SCOPE, ""),
            "state": found["State"]["Status"],
            "address": labels[LABEL_ADDRESS],
            "publish": published,
        }

    def listed(self) -> list[dict[str, Any]]:
        """This checkout's hosts, of this scope or of all when it is empty."""
        filters = [f"--filter=label={LABEL_PROJECT}={ROOT}"]
        if self.scope:
            filters.append(f"--filter=label={LABEL_SCOPE}={self.scope}")
        names = self.engine.podman("ps", "-a", *filters, "--format={{.Names}}").stdout.split()
        found = []
        for name in sorted(names):
            # One of another scope may be removed while this looks.
            with contextlib.suppress(TestHostsError):
                found.append(self._describe(name))
        return found

    def down(self, names: Sequence[str] = ()) -> list[str]:
        """Remove hosts with what is in them, and their network when it is empty.

        Args:
            names: which; all of the scope when there are none.

        Returns:
            The names of those that were there.
        """
        there = [x for x in self.listed() if not names or x["name"] in names]
        for host in there:
            forget_connections(host)
        if there:
            # Nothing in them is wanted any more, so they need not shut down in an orderly way.
            self.engine.podman(
                "rm", "--force", "--time=0", "--volumes", *(x["name"] for x in there)
            )
            for scope in {x["scope"] for x in there}:
                # Refused while a host has it, which is then right.
                self.engine.podman("volume", "rm", f"{scope}-share", check=False)
        filters = [f"--filter=label={LABEL_PROJECT}={ROOT}"]
        if self.scope:
            filters.append(f"--filter=label={LABEL_SCOPE}={self.scope}")
        with locked("network"):
            for network in self.engine.podman(
                "network", "ls", *filters, "--format={{.Name}}"
            ).stdout.split():
                # Refused while a host is on it, which is then right.
                self.engine.podman("network", "rm", network, check=False)
        return [x["name"] for x in there]

    def acme_ca(self, name: str) -> Path:
        """Fetch the certificate authority behind an ACME server's own HTTPS.

        Returns:
            The path of a PEM file.

        Raises:
            TestHostsError: the host runs no ACME server, or not yet after a while.
        """
        self._describe(name)
        end = time.monotonic() + 30
        while True:
            done = self.engine.podman("exec", name, "cat", "/etc/pebble/ca.pem", check=False)
            if done.returncode == 0 and "END CERTIFICATE" in done.stdout:
                break
            if time.monotonic() > end:
                raise TestHostsError(
                    f"Host {name} has no /etc/pebble/ca.pem: {done.stderr.strip()}\n"
                    f"{self.journal(name)}"
                )
            time.sleep(0.2)
        path = CACHE / "acme" / name / "ca.pem"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, done.stdout)
        return path

    def acme_root(self, name: str) -> Path:
        """Fetch the root of what an ACME server issues.

        Pebble makes a new root whenever it starts, while certificates of the earlier one are
        still served: the file keeps the roots of this host's earlier starts.

        Returns:
            The path of a PEM file.

        Raises:
            TestHostsError: the host runs no ACME server, or it does not answer.
        """
        ca = self.acme_ca(name)
        address = self._describe(name)["address"]
        context = ssl.create_default_context(cafile=str(ca))
        url = f"https://{address}:{ACME_MANAGEMENT_PORT}/roots/0"
        end = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(url, context=context, timeout=5) as answer:
                    root = answer.read().decode()
                break
            except OSError as error:
                if time.monotonic() > end:
                    raise TestHostsError(f"{url}: {error}\n{self.journal(name)}") from error
            time.sleep(0.2)
        found = self._inspect(name)
        path = ca.parent / f"roots-{found['Id'][:12] if found else ''}.pem"
        known = path.read_text() if path.exists() else ""
        if root.strip() not in known:
            write_whole(path, f"{root.strip()}\n{known}")
        for other in path.parent.glob("roots-*.pem"):
            if other != path:
                other.unlink()
        return path


def write_whole(path: Path, text: str) -> None:
    """Write a file so that tests which run side by side read all of it or what was there before."""
    new = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    new.write_text(text)
    new.replace(path)


def make_identity() -> None:
    """Make this checkout's key pair unless it is there."""
    with locked("identity"):
        if not IDENTITY.exists():
            subprocess.run(
                [
                    *("ssh-keygen", "-q", "-t", "ed25519", "-N", ""),
                    *("-C", f"testhosts-{CHECKOUT}", "-f", str(IDENTITY)),
                ],
                check=True,
            )


def ssh_command(host: Mapping[str, Any]) -> str:
    """What to type for a shell on a host."""
    return shlex.join(
        [
            *("ssh", "-i", host["identity_file"], "-o", "StrictHostKeyChecking=no"),
            *(
                "-o",
                "UserKnownHostsFile=/dev/null",
                f"{host['user']}@{host['address']}",
            ),
        ]
    )
