"""What gunicorn_systemd's tests share: the services of converge.yml, and a client on the host."""

from __future__ import annotations

import base64
import json
import os
import shlex
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from testinfra.host import Host

SCENARIO = Path(__file__).parents[1]
ROLE = SCENARIO.parents[1] / "roles" / "gunicorn_systemd"
PREFIX = "gunicorn_systemd_"
CLIENT = base64.b64encode(zlib.compress((SCENARIO / "tests" / "client.py").read_bytes())).decode()
UNPACK = (
    "import base64, sys, zlib; source = zlib.decompress(base64.b64decode(sys.argv.pop(1))); "
    "exec(compile(source, 'client', 'exec'))"
)


def services() -> dict[str, dict[str, Any]]:
    """What converge.yml tells the role, by service, over the role's defaults."""
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    [play] = yaml.safe_load((SCENARIO / "converge.yml").read_text())
    told = [task["vars"] for task in play["tasks"] if "import_role" in str(list(task))]
    return {given[f"{PREFIX}name"]: {**defaults, **given} for given in told}


SERVICES = services()


@dataclass
class Answer:
    """What a service answered. `headers` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Result:
    """What a load came to: requests, failures by their kind, and the longest answer in seconds."""

    good: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    longest: float = 0.0


@dataclass
class Service:
    """One service on one host."""

    name: str
    host: Host
    as_root: Callable[[str], str]

    def told(self, variable: str) -> Any:
        """What the role was told, or its default; what it computes by itself is not here."""
        return SERVICES[self.name][f"{PREFIX}{variable}"]

    @property
    def unit(self) -> str:
        return f"{self.name}.service"

    @property
    def unix(self) -> str:
        return f"unix:/run/gunicorn/{self.name}.sock"

    @property
    def everywhere(self) -> list[str]:
        """Where it listens."""
        return [self.unix, *self.told("bind")]

    @property
    def user(self) -> str:
        user = str(self.told("user"))
        return self.name if "{{" in user else user

    @property
    def workers(self) -> int:
        """As many as gunicorn is configured to have; tests/unit has what the default comes to."""
        return self._configured("workers")

    @property
    def threads(self) -> int:
        """Of each worker; tests/unit has what the default comes to."""
        return self._configured("threads")

    def _configured(self, name: str) -> int:
        file = f"/etc/{self.name}/gunicorn.conf.py"
        return int(self.as_root(rf"grep -Po '^{name} = \K\d+$' {file}"))

    def client(self, command: str, *, user: str = "", **options: Any) -> Any:
        """Run tests/client.py on the host, as root or as `user`: `name` or `name:group`."""
        argv = ["python3", "-c", UNPACK, CLIENT, command, json.dumps(options)]
        if user:
            name, _, group = user.partition(":")
            argv = ["runuser", "-u", name, *(["-g", group] if group else []), "--", *argv]
        return json.loads(self.as_root(shlex.join(argv)))

    def ask(self, path: str = "/", *, via: str = "", user: str = "", **headers: str) -> Answer:
        """Ask over the unix socket, or over one of `everywhere`. Fails without an answer."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return Answer(**self.client("ask", user=user, to=via or self.unix, path=path, headers=sent))

    def show(self, *properties: str, unit: str = "") -> dict[str, str]:
        """Properties of the service as systemd has them in force."""
        wanted = " ".join(f"--property={name}" for name in properties)
        lines = self.as_root(f"systemctl show {wanted} {unit or self.unit}").splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def master(self) -> int:
        return int(self.show("MainPID")["MainPID"])

    def children(self) -> list[int]:
        """The workers' process numbers."""
        result = self.host.run(f"pgrep --parent {self.master}")
        return [int(line) for line in result.stdout.split()]

    def journal(self, options: str = "") -> str:
        return self.as_root(f"journalctl --output=cat --no-pager --unit={self.unit} {options}")

    def wait(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Until something is so. Fails, with the journal, if that takes longer."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s\n{self.journal('-n 30')}"
            time.sleep(0.2)

    @contextmanager
    def load(
        self,
        path: str = "/slow?seconds=0.02",
        seconds: float = 8,
        to: list[str] | None = None,
        *,
        until: bool = False,
    ) -> Iterator[Result]:
        """Four clients, on all its sockets unless `to`; the result is there after the block.

        The block may end earlier or later than the load, which is bounded by itself. With `until`
        the load ends with the block.
        """
        stop = f"/run/stop-load-{time.monotonic_ns()}" if until else ""
        result = Result()
        failed: list[BaseException] = []

        def run() -> None:
            try:
                found = self.client(
                    "load",
                    to=to or self.everywhere,
                    path=path,
                    clients=4,
                    seconds=300 if until else seconds,
                    until=stop,
                )
                result.__dict__.update(found)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(1)
        try:
            yield result
        finally:
            if until:
                self.as_root(f"touch {stop}")
            thread.join()
        assert not failed, failed
        # There was a load; how many that come to is the machine's affair.
        assert result.good > 10, result


@pytest.fixture(params=sorted(SERVICES))
def service(request: pytest.FixtureRequest, host: Host, as_root: Callable[[str], str]) -> Service:
    """Each service in turn."""
    return Service(request.param, host, as_root)


@pytest.fixture(scope="module")
def plain(host: Host, as_root: Callable[[str], str]) -> Service:
    """The service with the role's defaults."""
    return Service("plain", host, as_root)


@pytest.fixture
def tuned(host: Host, as_root: Callable[[str], str]) -> Service:
    """The service with everything changed."""
    return Service("tuned", host, as_root)


@pytest.fixture(scope="module")
def play(host: Host, control: Any) -> Callable[..., Any]:
    """Runs converge.yml for the service `plain` on this host once more, with other variables."""

    def run(**variables: Any) -> Any:
        name = host.ansible.get_variables()["inventory_hostname"]
        return control.run_playbook(
            variables=variables or None, limit=name, arguments=("--tags=plain",)
        )

    return run


@pytest.fixture(scope="module")
def changes(play: Callable[..., Any], plain: Service) -> Iterator[list[dict[str, Any]]]:
    """What `again` was told since the service was last what it was, which it is afterwards."""
    told: list[dict[str, Any]] = []
    yield told
    if told:
        run = play()
        assert run.returncode == 0, run.output
        assert plain.ask().status == 200


@pytest.fixture
def again(play: Callable[..., Any], changes: list[dict[str, Any]]) -> Iterator[Callable[..., Any]]:
    """As `play`, for what changes the service: each run starts from what the one before left.

    The tests of one host fit that, which saves most of their time. All tests on one host, as
    `make proof` has them, would get in each other's way.
    """

    def run(**variables: Any) -> Any:
        changes.append(variables)
        return play(**variables)

    yield run
    if os.environ.get("EVERY_SYSTEM"):
        back = play()
        assert back.returncode == 0, back.output
        changes.clear()
