"""What the tests of every scenario share.

They run under Molecule, and against hosts that are up anyway:

    molecule converge -s nginx
    pytest --hosts=ansible://all molecule/nginx/tests

Fixtures besides Testinfra's `host`: `as_root`, `address`, `reboot`, `acme` and `control`. When a
test fails, the end of its host's journal is printed with it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "testhosts"))

from engine import CACHE, Engine  # noqa: E402
from hosts import CONTROL_PATHS, Hosts, write_whole  # noqa: E402

JOURNAL_LINES = 60


def inventory_of(arguments: list[str]) -> Path | None:
    """The inventory that Molecule wrote for the scenario that `arguments` name, or None."""
    if directory := os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY"):
        return Path(directory, "inventory")
    for argument in arguments:
        path = Path(argument.split("::")[0]).resolve()
        if path.is_relative_to(ROOT / "molecule"):
            scenario = path.relative_to(ROOT / "molecule").parts[:1]
            # Left by shared/create.yml.
            found = ROOT.joinpath(".cache", "molecule", *scenario)
            return found if scenario and found.exists() else None
    return None


def read_inventory(directory: Path) -> dict[str, Any]:
    """All files of an inventory that Molecule wrote, merged at the level of groups' members."""
    merged: dict[str, Any] = {"hosts": {}, "vars": {}, "groups": {}}
    for path in sorted(directory.glob("*.yml")):
        for group, content in (yaml.safe_load(path.read_text()) or {}).items():
            hosts = content.get("hosts") or {}
            merged["groups"].setdefault(group, set()).update(hosts)
            for name, variables in hosts.items():
                merged["hosts"].setdefault(name, {}).update(variables or {})
            if group == "all":
                merged["vars"].update(content.get("vars") or {})
    return merged


def pytest_configure(config: pytest.Config) -> None:
    """Reach the hosts as Ansible does, over one connection that stays open."""
    config.addinivalue_line(
        "markers", "one_system(12 | 13): a behaviour that does not depend on the system"
    )
    config.addinivalue_line("markers", "proof: a further case of a kind that another test shows")
    option = config.option
    if not option.ansible_inventory and (inventory := inventory_of(config.args)):
        option.ansible_inventory = str(inventory)
    if option.hosts is None and option.ansible_inventory:
        # An ACME server is part of the world that is tested in, not of what is tested.
        names = [
            name
            for name in read_inventory(Path(option.ansible_inventory))["hosts"]
            if not name.startswith("acme")
        ]
        option.hosts = ",".join(f"ansible://{name}" for name in sorted(names))
    if option.ssh_config is None:
        CONTROL_PATHS.mkdir(parents=True, exist_ok=True)
        path = CACHE / "ssh_config"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(
            path,
            "Host *\n"
            "  ControlMaster auto\n"
            "  ControlPersist 60s\n"
            f"  ControlPath {CONTROL_PATHS}/test-%h-%p\n"
            "  StrictHostKeyChecking no\n"
            "  UserKnownHostsFile /dev/null\n"
            "  LogLevel ERROR\n",
        )
        option.ssh_config = str(path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--numprocesses=N` each host has its tests in order, beside those of others."""
    from xdist.scheduler import LoadScopeScheduling

    hosts = sorted(str(config.option.hosts).split(","), key=len, reverse=True)

    class ByHost(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            parameters = nodeid.partition("[")[2]
            return next((host for host in hosts if host in parameters), "")

    return ByHost(config, log)


# Where it is set, each test runs on each system, and further cases of one kind do: `make proof`.
EVERY_SYSTEM = bool(os.environ.get("EVERY_SYSTEM"))
# The system is the end of a name: debian12.
SYSTEM = re.compile(r"(12|13)$")


def fits(item: pytest.Item) -> bool:
    """Whether a test is for the host that it was made for.

    A module's `testinfra_hosts` names hosts, which `--hosts` outranks. The mark `one_system` says
    that a behaviour does not depend on the system and on which one it is tried: a scenario that has
    the same hosts of two systems tries it on that one.
    """
    if item.get_closest_marker("proof") and not EVERY_SYSTEM:
        return False
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    backend = getattr(parameters.get("_testinfra_host"), "backend", None)
    if backend is None:
        return True
    named = getattr(getattr(item, "module", None), "testinfra_hosts", None)
    if named is not None and backend.get_pytest_id() not in named:
        return False
    mark = item.get_closest_marker("one_system")
    system = SYSTEM.search(backend.get_pytest_id())
    return EVERY_SYSTEM or mark is None or system is None or system[1] == str(mark.args[0])


def stage(item: pytest.Item, stages: Sequence[str]) -> int:
    """The last of a scenario's stages that a test needs, 0 for the host as it was provisioned."""
    needed = getattr(item, "fixturenames", ())
    return max((number for number, name in enumerate(stages, 1) if name in needed), default=0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the hosts that a test is not for, and order the rest by the scenario's stages.

    A stage is a fixture that changes the hosts for those who come later: a scenario's conftest.py
    lists them in `STAGES`. Within a stage, tests stay in the order of their files, which must not
    matter.
    """
    others = [item for item in items if not fits(item)]
    if others:
        config.hook.pytest_deselected(items=others)
    stages: Sequence[str] = next(
        (
            plugin.STAGES
            for plugin in config.pluginmanager.get_plugins()
            if hasattr(plugin, "STAGES") and hasattr(plugin, "__file__")
        ),
        (),
    )
    items[:] = sorted(filter(fits, items), key=lambda item: stage(item, stages))


# Logins, Ansible's own steps and the tests' among them, and the kernel, which is the machine's.
NOISE = re.compile(r" (kernel|(sudo|sshd|sshd-session|ansible-[\w.]+)\[\d+\]): ")


def journal(host: Any) -> str:
    """The last lines of a host's journal that are about what it does."""
    said = host.run("journalctl --no-pager --lines=500")
    lines = [line for line in said.stdout.splitlines() if not NOISE.search(line)]
    return "\n".join(lines[-JOURNAL_LINES:]) or str(said.stderr)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    """Add the journal's end to the report of a test that failed on a host."""
    report: pytest.TestReport = yield  # type: ignore[misc,assignment]
    host = getattr(item, "funcargs", {}).get("host")
    if report.failed and host is not None:
        try:
            report.sections.append(("The end of the host's journal", journal(host)))
        except Exception as error:
            report.sections.append(("The host's journal cannot be read", repr(error)))
    return report  # type: ignore[return-value]


@dataclass
class Run:
    """What a playbook run came to.

    Attributes:
        returncode: 0 when all went well.
        output: standard output and errors, without colours.
        stats: per host the counts of the recap: `ok`, `changed`, `unreachable`, `failed`, ...
    """

    returncode: int
    output: str
    stats: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """Tasks that changed something, over all hosts."""
        return sum(counts["changed"] for counts in self.stats.values())


RECAP = re.compile(r"^(?P<host>\S+)\s+:\s+(?P<counts>ok=\d+\s.*)$", re.MULTILINE)


def recap(output: str) -> dict[str, dict[str, int]]:
    """Read the counts per host from the last lines of a playbook run."""
    tail = output.rpartition("PLAY RECAP")[2]
    return {
        match["host"]: {
            name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", match["counts"])
        }
        for match in RECAP.finditer(tail)
    }


@dataclass(frozen=True)
class Control:
    """The control node: runs playbooks against the scenario's hosts."""

    inventory: Path
    scenario: Path

    def run_playbook(
        self,
        playbook: str | Path = "converge.yml",
        *,
        check: bool = False,
        variables: Mapping[str, Any] | None = None,
        limit: str | None = None,
        arguments: tuple[str, ...] = (),
        timeout: float = 1800,
    ) -> Run:
        """Run `ansible-playbook --diff` as an operator would.

        Args:
            playbook: its path; a relative one is looked for in the scenario.
            check: in check mode.
            variables: extra variables.
            limit: hosts to limit the run to.
            arguments: further arguments of ansible-playbook.
            timeout: seconds after which it counts as hanging.

        Raises:
            subprocess.TimeoutExpired: it took longer.
        """
        program = shutil.which("ansible-playbook", path=str(Path(sys.executable).parent))
        command = [program or "ansible-playbook", f"--inventory={self.inventory}", "--diff"]
        if check:
            command.append("--check")
        if limit:
            command.append(f"--limit={limit}")
        if variables:
            command += ["--extra-vars", yaml.safe_dump(dict(variables), default_flow_style=True)]
        done = subprocess.run(
            [*command, *arguments, str(self.scenario / playbook)],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            timeout=timeout,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_FORCE_COLOR": "0",
            },
        )
        return Run(done.returncode, done.stdout, recap(done.stdout))

    @cached_property
    def _inventory(self) -> dict[str, Any]:
        return read_inventory(self.inventory)

    def variable(self, name: str, host: str | None = None) -> Any:
        """A plain variable of the inventory: the host's own, else that of all."""
        own = self._inventory["hosts"].get(host, {}) if host else {}
        return own[name] if name in own else self._inventory["vars"][name]


@dataclass(frozen=True)
class Acme:
    """The scenario's ACME server.

    Attributes:
        container: its name for the engine, and one of its names on the network.
        address: its IP address.
    """

    container: str
    address: str
    _hosts: Hosts

    @property
    def directory(self) -> str:
        """The URL of its directory."""
        return f"https://{self.container}:14000/dir"

    @cached_property
    def ca(self) -> Path:
        """PEM file of the authority behind its own HTTPS."""
        return self._hosts.acme_ca(self.container)

    @cached_property
    def root(self) -> Path:
        """PEM file of the roots that it issues from."""
        return self._hosts.acme_root(self.container)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


@pytest.fixture(scope="session")
def testhosts() -> Hosts:
    """This checkout's test hosts."""
    return Hosts(Engine(), scope="", network="", say=_say)


@pytest.fixture(scope="module")
def as_root(host: Any) -> Callable[[str], str]:
    """Runs a command on the host and returns what it printed; fails where it fails."""

    def run(command: str) -> str:
        result = host.run(command)
        assert result.rc == 0, f"{command[:200]}: {result.stderr or result.stdout}"
        return str(result.stdout)

    return run


@pytest.fixture(scope="module")
def address(host: Any) -> str:
    """The host's IP address."""
    if host.backend.get_connection_type() == "ansible":
        return str(host.ansible.get_variables()["ansible_host"])
    return str(host.backend.host.name)


@pytest.fixture(scope="module")
def container(testhosts: Hosts, address: str) -> dict[str, Any]:
    """The container behind the host: `name`, `scope`, `image`, `address`."""
    return next(x for x in testhosts.listed() if x["address"] == address)


@pytest.fixture
def reboot(testhosts: Hosts, container: Mapping[str, Any]) -> Callable[[], None]:
    """Stops the host in an orderly way and starts it again; returns when it has started."""
    return lambda: testhosts.reboot(container["name"])


@pytest.fixture(scope="module")
def acme(testhosts: Hosts, container: Mapping[str, Any]) -> Acme:
    """The ACME server beside the host."""
    for other in testhosts.listed():
        if other["scope"] == container["scope"] and "-acme:" in other["image"]:
            return Acme(other["name"], other["address"], testhosts)
    pytest.fail("This scenario has no platform with the image `acme`.")


@pytest.fixture(scope="module")
def control(request: pytest.FixtureRequest) -> Control:
    """The control node, with the inventory that Molecule wrote."""
    inventory = request.config.getoption("ansible_inventory")
    if not inventory:
        pytest.fail("Say where the inventory is: --ansible-inventory=PATH.")
    return Control(Path(inventory), request.path.parent.parent)
