"""The host that everything is measured on, what serves on it, and how it is asked."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import secrets
import shlex
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import figures
import images
import settings
from bench import playbook, write_inventory
from engine import CACHE, Engine
from figures import Load, Sent
from hosts import IDENTITY, USER, Hosts, Spec
from openloop import Plan
from settings import Variant

FOLDER = CACHE.parent / "bench"
HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
PACK = PROJECT / "molecule" / "setup" / "pack.py"
OLD_WAYS = HERE / "old_ways"
SCOPE = "bench"
SYSTEM = "debian13"
DOMAIN = "bench.test"
QUOTE = "/api/v1/quote?plaza=harbour-bridge&class=car"
# Share of the processors that others may take during a turn that counts.
MOST_ELSEWHERE = 0.15
# As clients keep connections, of which nginx here and there closes none before a minute.
IDLE_SECONDS = 30.0
# Seconds that wrk waits for an answer.
PATIENCE = 30
TICKS = os.sysconf("SC_CLK_TCK")
FLASK = "/usr/local/sbin/toll-app flask"
CLIENT = ssl.create_default_context()
CLIENT.check_hostname = False
CLIENT.verify_mode = ssl.CERT_NONE


def say(line: str) -> None:
    """Tell the user a line while it goes on."""
    print(line, flush=True)


@dataclass(frozen=True)
class System:
    """One way to serve the application.

    Attributes:
        key: its short name, in what is kept.
        title: what it is called on the page.
        http: port without TLS.
        https: port with TLS, 0 for none.
        units: whose processor time is the service's; the application's is the first.
    """

    key: str
    title: str
    http: int
    https: int
    units: tuple[str, ...]

    def port(self, protocol: str) -> int:
        """The port of a protocol, 0 for none."""
        return self.http if protocol == "http" else self.https


DEVELOPMENT = System("development", "development server", 8082, 0, ("old-development.service",))
TUTORIAL = System("tutorial", "tutorial", 8081, 8444, ("old-tutorial.service", "old-nginx.service"))
PROJECT_WAY = System("project", "this project", 8080, 443, ("toll-app.service", "nginx.service"))
SYSTEMS = (DEVELOPMENT, TUTORIAL, PROJECT_WAY)
BY_KEY = {system.key: system for system in SYSTEMS}


@dataclass(frozen=True)
class Measured:
    """A run of wrk, and what the machine did meanwhile.

    Attributes:
        load: what wrk says.
        cpu: seconds of processor time by unit.
        elsewhere: share of the machine's processors that was used by anything but the host and wrk.
    """

    load: Load
    cpu: dict[str, float]
    elsewhere: float

    def row(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            **asdict(self.load),
            "rate": self.load.rate,
            "cpu": self.cpu,
            "cpu_ms": sum(self.cpu.values()) * 1000 / max(self.load.requests, 1),
            "elsewhere": self.elsewhere,
        }


class Rig:
    """A host of its own, and the three systems on it."""

    def __init__(self, name: str = f"{SCOPE}-{SYSTEM}") -> None:
        """Name the host.

        Args:
            name: of the container.
        """
        self.name = name
        self.engine = Engine()
        self.hosts = Hosts(self.engine, SCOPE, f"toll-{SCOPE}", say)
        self.address = ""
        FOLDER.mkdir(parents=True, exist_ok=True)

    # The host

    def boot(self, fresh: bool = False) -> None:
        """Have the host running, bare if it is fresh."""
        if fresh:
            self.hosts.down([self.name])
        images.ensure_all(self.engine, [SYSTEM], say)
        [host] = self.hosts.up([Spec(self.name, SYSTEM)])
        self.address = host["address"]
        for known in ("key", "static", "_group"):
            self.__dict__.pop(known, None)

    def root(self, command: str, *, given: str | None = None, check: bool = True) -> str:
        """Run a command of the shell on the host, as root; return what it printed."""
        done = self.engine.podman(
            "exec", "-i", self.name, "sh", "-c", command, text=given or "", check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{command[:120]}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def inventory(self) -> Path:
        """Write the host's inventory."""
        path = FOLDER / f"{self.name}.yml"
        variables = {
            "ansible_host": self.address,
            "ansible_user": USER,
            "ansible_ssh_private_key_file": str(IDENTITY),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o LogLevel=ERROR "
            "-o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes",
            # One address asks as much as the host can answer.
            "nginx_unlimited_clients": ["0.0.0.0/0"],
            "applications": {
                "toll-app": {"role": "toll_app", "domains": [DOMAIN], "site": {"default": True}}
            },
            "toll_app_demo": True,
            "certbot_obtain": False,
        }
        write_inventory(path, {self.name: variables})
        return path

    def provision(self) -> float:
        """Run site.yml; return the seconds that it took.

        Raises:
            RuntimeError: it failed.
        """
        done = playbook(self.inventory(), "site").wait(1200)
        if done.returncode:
            raise RuntimeError(f"site.yml failed:\n{done.output[-4000:]}")
        return done.seconds

    def ready(self) -> None:
        """Have the host provisioned, and the old ways beside what the project set up."""
        self.boot()
        self.provision()
        self.root("rm -rf /srv/old_ways")
        self.engine.podman("cp", str(OLD_WAYS), f"{self.name}:/srv/old_ways")
        # Before the copies of the database are made, so that it is the same key everywhere.
        assert self.key
        self.root("sh /srv/old_ways/install.sh")
        for system in SYSTEMS:
            self.wait_for(system)

    def wait_for(self, system: System, seconds: float = 60.0) -> None:
        """Until a system answers.

        Raises:
            RuntimeError: it does not.
        """
        end = time.monotonic() + seconds
        while True:
            protocol = "https" if system.https else "http"
            status, body = self.ask(system, protocol, "/readyz")
            if status == 200:
                return
            if time.monotonic() > end:
                raise RuntimeError(
                    f"{system.title} does not answer: {status} {body!r}\n"
                    + self.root(f"journalctl -n 30 -u {system.units[0]}", check=False)
                )
            time.sleep(0.2)

    def settle(self, system: System, seconds: float = 15.0) -> None:
        """Wait until what an earlier run left behind is answered.

        Clients that went away are still in a server's queue. When a service uses next to no
        processor, it has nothing to do.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            before = sum(self.cpu(system.units).values())
            time.sleep(0.2)
            if sum(self.cpu(system.units).values()) - before < 0.01:
                return

    def url(self, system: System, protocol: str, path: str) -> str:
        """The address of a path."""
        return f"{protocol}://{self.address}:{system.port(protocol)}{path}"

    def ask(self, system: System, protocol: str, path: str) -> tuple[int, bytes]:
        """One request: status and body, status 0 without an answer."""
        try:
            with urllib.request.urlopen(
                self.url(system, protocol, path), timeout=10, context=CLIENT
            ) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError as error:
            return 0, str(error).encode()

    @cached_property
    def key(self) -> str:
        """An API key that may record passages."""
        said = self.root(f"{FLASK} toll key create bench-{secrets.token_hex(4)} --role recorder")
        match = re.search(r"toll_[A-Za-z0-9]+_[A-Za-z0-9_-]+", said)
        if not match:
            raise RuntimeError("toll key create printed no key")
        return match[0]

    @cached_property
    def static(self) -> str:
        """The address of the style sheet, which has the hash of its content."""
        _, page = self.ask(PROJECT_WAY, "https", "/")
        match = re.search(r'href="(/static/[^"]+[.]css)"', page.decode())
        if not match:
            raise RuntimeError("the page names no style sheet")
        return match[1]

    def path(self, workload: str) -> str:
        """What a workload asks for."""
        return {
            "health": "/healthz",
            **dict.fromkeys(("quote", "kept", "mixed"), QUOTE),
            "passage": "/api/v1/passages",
            "page": "/",
            "static": self.static,
            "constant": "/constant",
        }[workload]

    # What the host and the machine spend

    @cached_property
    def _group(self) -> Path:
        """The control group of the host."""
        pid = self.engine.podman("inspect", "--format={{.State.Pid}}", self.name).stdout.strip()
        inside = figures.read_cgroup(Path(f"/proc/{pid}/cgroup").read_text())
        unified = Path("/sys/fs/cgroup/unified")
        root = unified if unified.is_dir() else Path("/sys/fs/cgroup")
        return root / inside.removesuffix("/init.scope").lstrip("/")

    def cpu(self, units: tuple[str, ...] = ()) -> dict[str, float]:
        """Seconds of processor time that units have used, and the host in all ("")."""
        found = {"": figures.read_cpu_stat((self._group / "cpu.stat").read_text())}
        for unit in units:
            file = self._group / "system.slice" / unit / "cpu.stat"
            found[unit] = figures.read_cpu_stat(file.read_text()) if file.exists() else 0.0
        return found

    def kept(self, part: str) -> list[dict[str, Any]]:
        """What an earlier part came to; nothing when it was not measured."""
        path = FOLDER / f"{part}.json"
        return list(json.loads(path.read_text())["rows"]) if path.exists() else []

    def mend(self, system: System) -> None:
        """Start what a fault has ended, by hand."""
        units = " ".join(system.units)
        self.root(
            f"for unit in {units}; do systemctl is-active -q $unit || systemctl restart $unit; done"
        )
        self.wait_for(system)

    def reboot(self) -> None:
        """Stop the host in an orderly way and start it again."""
        self.hosts.reboot(self.name)
        # Its processes, and with them its control group, are others now.
        self.__dict__.pop("_group", None)

    def pack(self) -> str:
        """Bring the project to a bare host, with this machine's way to the package index."""
        archive = FOLDER / "server.tar.gz"
        subprocess.run(
            [sys.executable, str(PACK), str(archive), "/etc/ssl/certs/ca-certificates.crt"],
            env={**os.environ, "PYTHONPATH": str(PROJECT / "collections")},
            check=True,
        )
        self.engine.podman("cp", str(archive), f"{self.name}:/root/server.tar.gz")
        self.root("cd /root && tar -xzf server.tar.gz --no-same-owner && cp pip.conf /etc/pip.conf")
        return str(archive)

    def set_up_by_itself(self) -> None:
        """Run setup-production.sh on the host, as a person does."""
        proxies = " ".join(
            f"{name}={shlex.quote(os.environ[name])}"
            for name in ("HTTPS_PROXY", "NO_PROXY")
            if name in os.environ
        )
        self.root(f"{proxies} /root/toll-app/setup-production.sh --yes")

    def in_process(self, path: str, seconds: float, processes: int) -> dict[str, Any]:
        """Call the application without a server, in so many processes at once."""
        self.engine.podman("cp", str(HERE / "inprocess.py"), f"{self.name}:/srv/inprocess.py")
        settings_of = "$(systemctl show -P Environment old-tutorial.service)"
        call = f"/opt/toll-app/current/bin/python /srv/inprocess.py {shlex.quote(path)} {seconds}"
        out = self.root(
            f"cd /srv/old/tutorial; for n in $(seq {processes}); do "
            f"runuser -u old -- env {settings_of} {call} & done; wait"
        )
        found = [json.loads(line) for line in out.splitlines()]
        if len(found) != processes or any(each["wrong"] for each in found):
            raise RuntimeError(f"the application answered wrong: {out}")
        return {
            "processes": processes,
            "rate": sum(each["calls"] / each["seconds"] for each in found),
            "cpu_ms": sum(each["cpu"] for each in found)
            * 1000
            / sum(each["calls"] for each in found),
        }

    # The project's settings

    def start_variants(self, tried: list[Variant]) -> list[System]:
        """Have a service for each setting run beside the project's."""
        folder = "/srv/bench"
        self.root(f"mkdir -p {folder}; systemctl stop 'bench-*.service' 'bench-*.socket'")
        read = {
            path: self.root(f"cat {path}")
            for path in (
                "/etc/toll-app/gunicorn.conf.py",
                "/etc/systemd/system/toll-app.socket",
                "/etc/systemd/system/toll-app.service",
                "/etc/nginx/snippets/proxy-requests.conf",
            )
        }
        configuration, socket_unit, service_unit, requests = read.values()
        files = {
            f"/etc/nginx/{path}": content
            for path, content in settings.nginx(tried, f"/etc/ssl/sites/{DOMAIN}", requests).items()
        }
        systems = []
        for number, variant in enumerate(tried):
            own = settings.name(number)
            files[f"{folder}/{own}.conf.py"] = variant.gunicorn(configuration)
            units = f"/etc/systemd/system/{own}"
            files[f"{units}.socket"] = settings.socket_unit(socket_unit, number, variant)
            files[f"{units}.service"] = settings.service_unit(service_unit, number, variant, folder)
            port = settings.FIRST_PORT + number
            systems.append(System(own, variant.title, 0, port, (f"{own}.service", "nginx.service")))
        for path, content in files.items():
            self.root(f"cat >{path}", given=content)
        self.root(
            "systemctl daemon-reload; systemctl start 'bench-*.socket' "
            + " ".join(f"{system.key}.socket {system.key}.service" for system in systems)
            + "; nginx -t -q && systemctl reload nginx.service"
        )
        for system in systems:
            self.wait_for(system)
        return systems

    def stop_variants(self) -> None:
        """Remove them."""
        self.root(
            "systemctl stop 'bench-*.service' 'bench-*.socket'; rm -f /etc/systemd/system/bench-* "
            "/etc/nginx/conf.d/bench-variants.conf /etc/nginx/snippets/bench-keepalive.conf; "
            "systemctl daemon-reload; systemctl reload nginx.service"
        )

    def memory(self, system: System) -> dict[str, float]:
        """MiB by unit: what its processes have, with what they share divided among them."""
        script = """
            for unit; do
                total=0
                groups=$(find /sys/fs/cgroup -path "*/system.slice/$unit/cgroup.procs")
                for pid in $(cat $groups | sort -u); do
                    part=$(awk '/^Pss:/ {print $2}' /proc/$pid/smaps_rollup)
                    total=$((total + part))
                done
                echo "$unit $total"
            done
        """
        out = self.root(f"set -- {' '.join(system.units)}; {script}")
        return {unit: int(kib) / 1024 for unit, kib in (line.split() for line in out.splitlines())}

    # Load

    def own_address(self) -> str:
        """The address under which this machine is on the host's network."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # Sends nothing.
            probe.connect((self.address, 9))
            return str(probe.getsockname()[0])

    def wrk(
        self,
        system: System,
        protocol: str,
        workload: str,
        connections: int,
        seconds: float,
        port: int = 0,
    ) -> Measured:
        """A closed loop: so many connections, each asks again when it was answered.

        Raises:
            RuntimeError: the system does not answer as it should before that.
        """
        path = self.path(workload)
        url = f"{protocol}://{self.address}:{port or system.port(protocol)}{path}"
        if workload not in ("passage", "constant"):
            status, body = self.ask(system, protocol, path)
            if status != 200:
                raise RuntimeError(f"{url} answers {status}: {body[:200]!r}")
        command = [
            *("wrk", "--threads", "1", "--connections", str(connections)),
            *("--duration", f"{seconds:g}s", "--timeout", f"{PATIENCE}s"),
            *("--script", str(HERE / "load.lua"), url, "--", workload),
        ]
        stat = Path("/proc/stat")
        before, busy = self.cpu(system.units), figures.busy_seconds(stat.read_text(), TICKS)
        own, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(
            command,
            # Not in the list of processes.
            env={**os.environ, "BENCH_KEY": self.key, "BENCH_RUN": secrets.token_hex(6)},
            capture_output=True,
            text=True,
            check=True,
        )
        took, used = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = used.ru_utime + used.ru_stime - own.ru_utime - own.ru_stime
        after = self.cpu(system.units)
        total = figures.busy_seconds(stat.read_text(), TICKS) - busy
        others = total - (after[""] - before[""]) - spent
        return Measured(
            load=figures.read_wrk(done.stdout),
            cpu={unit: after[unit] - before[unit] for unit in system.units},
            elsewhere=max(others, 0.0) / took / (os.cpu_count() or 1),
        )

    def open_loop(
        self,
        system: System,
        protocol: str,
        rate: float,
        seconds: float,
        passages: int = 0,
        during: Callable[[], None] | None = None,
        time_limit: float = 10.0,
        source: str = "",
        connections: int = 0,
    ) -> list[Sent]:
        """An open loop: so many requests a second, whatever the answers take.

        Args:
            system: which.
            protocol: http or https.
            rate: requests a second.
            seconds: how long.
            passages: every how many requests record a passage, 0 for none.
            during: what is done meanwhile.
            time_limit: seconds until a request is given up.
            source: address of this machine to come from, empty for any.
            connections: how many are open before the first request.
        """
        plan = Plan(
            address=self.address,
            port=system.port(protocol),
            tls=protocol == "https",
            path=QUOTE,
            rate=rate,
            seconds=seconds,
            passages=passages,
            api_key=self.key,
            run=secrets.token_hex(6),
            time_limit=time_limit,
            source=source,
            connections=connections,
            idle=IDLE_SECONDS if connections else Plan.idle,
        )
        thread = threading.Thread(target=during) if during else None
        process = subprocess.Popen(
            [sys.executable, str(HERE / "openloop.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if thread:
            thread.start()
        output, _ = process.communicate(json.dumps(asdict(plan)))
        if thread:
            thread.join()
        if process.returncode:
            raise RuntimeError(f"the sender ended with {process.returncode}")
        return figures.read_sent(output.splitlines())


def machine() -> dict[str, Any]:
    """What all of it ran on."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "processors": os.cpu_count(),
        "model": model[1].strip() if model else platform.machine(),
        "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else 0,
        "linux": platform.release().split("-")[0],
    }


def versions(rig: Rig) -> dict[str, str]:
    """What served."""
    said = rig.root(
        "cd /opt/toll-app/current && bin/python -c '"
        "import platform, sqlite3; from importlib.metadata import version as v; "
        'print("Python", platform.python_version()); print("SQLite", sqlite3.sqlite_version); '
        '[print(n, v(n.lower())) for n in ("gunicorn", "Flask", "Werkzeug", "SQLAlchemy")]'
        "'; nginx -v 2>&1 | sed 's|.*nginx/|nginx |'; openssl version | cut -d' ' -f1,2; "
        "cat /etc/debian_version | sed 's/^/Debian /'"
    )
    found = {}
    for line in said.splitlines():
        name, _, version = line.partition(" ")
        found[name] = version
    return found
