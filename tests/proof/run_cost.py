"""What a run costs, next to what cannot be avoided. Writes docs/proof/run-cost.md.

    .venv/bin/python tests/proof/run_cost.py [ROUNDS]

Ratios, each from runs that alternate, so that a machine whose speed drifts does not decide:

- the first run of site.yml on a bare host, next to the same packages installed by hand with apt-get
  and the same two archives copied and unpacked;
- a run that changes nothing, next to `ansible -m ping`, as it is and where it looks at everything,
  and next to pyinfra, which keeps the same files, packages and units (by_pyinfra.py);
- the same with more hosts, next to as many times `ssh HOST true` side by side, and the memory that
  the control node needs for it;
- a deploy of a changed application and a rollback, until the other release answers through nginx,
  and the slowest request around a kill -9 of the master, next to the application's own start.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import by_pyinfra
import memory
import yaml
from live import PATIENCE_SECONDS, Site, looking, until_live

PROJECT = Path(__file__).parents[2]
REPORT = PROJECT / "docs" / "proof" / "run-cost.md"
PACKAGES = ("nginx", "logrotate")
FLEETS = (1, 2, 4, 8, 16)
FAR = (100, 1000)
EVERYTHING = ("-e", "application_seal_hours=0")
SSH = (
    "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes "
    "-o LogLevel=ERROR"
)


def hosts(*arguments: str) -> Any:
    """What testhosts.py answers."""
    argv = [sys.executable, str(PROJECT / "testhosts" / "testhosts.py"), *arguments]
    return json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)


def ssh_to(host: Mapping[str, Any]) -> list[str]:
    """The words that a command on a host follows."""
    options = [*SSH.split(), "-p", str(host["port"]), "-i", host["identity_file"]]
    return ["ssh", *options, f"{host['user']}@{host['address']}"]


def fresh(name: str, scope: str, folder: Path) -> tuple[dict[str, Any], Path]:
    """A bare host and an inventory for it."""
    found = hosts("up", name, "--image", "debian13", "--scope", scope)
    host = found[0] if isinstance(found, list) else found
    return host, write_inventory(name, {name: host}, folder)


def write_inventory(name: str, members: dict[str, dict[str, Any]], folder: Path) -> Path:
    """An inventory of hosts, each with a site of its own."""
    told = {each: variables_of(each, host) for each, host in members.items()}
    inventory = folder / f"{name}.yml"
    inventory.write_text(yaml.safe_dump({"web": {"hosts": told}}))
    return inventory


def variables_of(name: str, host: dict[str, Any]) -> dict[str, Any]:
    return {
        "ansible_host": host["address"],
        "ansible_port": host["port"],
        "ansible_user": host["user"],
        "ansible_ssh_private_key_file": host["identity_file"],
        "ansible_ssh_common_args": SSH,
        "applications": {"toll-app": {"role": "toll_app", "domains": [f"{name}.toll.test"]}},
        "certbot_obtain": False,
    }


def newest(name: str) -> Path:
    """The archive that was built last of a bundle for Debian 13's Python."""
    found = [
        path
        for path in (PROJECT / ".cache" / "bundles").glob(f"{name}-*.json")
        if json.loads(path.read_text())["python"] == "3.13"
    ]
    return max(found, key=lambda path: path.stat().st_mtime).with_suffix(".tar.gz")


def timed(action: Callable[[], None]) -> float:
    start = time.monotonic()
    action()
    return time.monotonic() - start


def processor_seconds() -> float:
    """What programs that have ended took of the control node's processors, since it began."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def weighed(action: Callable[[], None]) -> tuple[float, float]:
    """Seconds that something takes, and those of the control node's processors in it."""
    before = processor_seconds()
    seconds = timed(action)
    return seconds, processor_seconds() - before


def ansible(program: str, inventory: Path, *arguments: str) -> Callable[[], None]:
    argv = [str(Path(sys.executable).with_name(program)), "-i", str(inventory), *arguments]

    def run() -> None:
        done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)

    return run


def by_hand(host: dict[str, Any], archives: list[Path]) -> Callable[[], None]:
    """The packages and archives over one SSH connection each, as somebody in a hurry would."""

    def run() -> None:
        # The role refreshes lists that are older than an hour, and so does this.
        install = "apt-get update -q && apt-get install -qy --no-install-recommends"
        script = (
            f"sudo sh -c 'export DEBIAN_FRONTEND=noninteractive; {install} {' '.join(PACKAGES)}'"
        )
        subprocess.run([*ssh_to(host), script], check=True, capture_output=True)
        for number, archive in enumerate(archives):
            unpack = f"sudo sh -c 'mkdir -p /opt/{number} && tar -xzf - -C /opt/{number}'"
            with archive.open("rb") as stream:
                subprocess.run(
                    [*ssh_to(host), unpack], check=True, stdin=stream, capture_output=True
                )

    return run


def each_by_ssh(members: dict[str, dict[str, Any]]) -> Callable[[], None]:
    """`ssh HOST true` for all of them side by side, each with a connection of its own."""
    commands = [[*ssh_to(host), "true"] for host in members.values()]

    def run() -> None:
        for process in [subprocess.Popen(command) for command in commands]:
            if process.wait():
                raise SystemExit("ssh failed")

    return run


class Source:
    """A copy of toll-app that all hosts of an inventory get."""

    def __init__(self, inventory: Path) -> None:
        self.source = inventory.with_suffix(".app")
        if self.source.exists():
            shutil.rmtree(self.source)
        shutil.copytree(PROJECT / "app", self.source, ignore=shutil.ignore_patterns("__pycache__"))
        told = yaml.safe_load(inventory.read_text())
        for variables in told["web"]["hosts"].values():
            variables["applications"]["toll-app"]["source"] = str(self.source)
        inventory.write_text(yaml.safe_dump(told))

    def change(self) -> None:
        """Make another release of it."""
        with (self.source / "toll" / "__init__.py").open("a") as file:
            file.write(f"# {time.time_ns()}\n")


class Host:
    """One host with a copy of toll-app as its application's source."""

    def __init__(self, name: str, host: Mapping[str, Any], folder: Path) -> None:
        self.host, self.site = host, Site(host["address"], f"{name}.toll.test")
        self.change = Source(folder / f"{name}.yml").change

    def ssh(self, command: str) -> str:
        """What a command of root prints."""
        done = subprocess.run(
            [*ssh_to(self.host), f"sudo {command}"], check=True, capture_output=True, text=True
        )
        return done.stdout

    def own_start(self) -> float:
        """Seconds from its process to the service being called started, the last time."""
        names = ("ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic")
        told = self.ssh(f"systemctl show toll-app.service -p {','.join(names)}")
        at = dict(line.split("=") for line in told.split())
        return (int(at[names[1]]) - int(at[names[0]])) / 1e6

    def killed(self) -> float:
        """The slowest request's seconds around a kill -9 of the master."""
        main = self.ssh("systemctl show toll-app.service -p MainPID --value").strip()
        with looking(self.site) as looks:
            time.sleep(1)
            self.ssh(f"kill -9 {main}")
            time.sleep(5)
        if looks.failed or max(looks.seconds) > PATIENCE_SECONDS:
            raise SystemExit(f"kill -9: {looks.failed} requests failed")
        return max(looks.seconds)


def fit(seconds: Mapping[int, Sequence[float]]) -> float:
    """Seconds that each host more takes, by the line of least squares through the medians."""
    medians = [statistics.median(each) for each in seconds.values()]
    return statistics.linear_regression(list(seconds), medians).slope


def far(seconds: Mapping[int, Sequence[float]]) -> str:
    """What the line says for fleets that were not tried."""
    medians = [statistics.median(each) for each in seconds.values()]
    line = statistics.linear_regression(list(seconds), medians)
    return " and ".join(
        f"{size} hosts would take {line.intercept + line.slope * size:.0f} s" for size in FAR
    )


def memory_in_words(needed: Mapping[int, int]) -> str:
    """The most memory of each size of fleet."""
    return ", ".join(f"{most / 1e6:.0f} MB for {size}" for size, most in needed.items()) + " hosts"


def shown(values: Sequence[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def row(name: str, first: list[float], second: list[float]) -> str:
    ratios = [a / b for a, b in zip(first, second, strict=True)]
    cells = [shown(values) for values in (first, second)]
    cells.append(f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    checkout = subprocess.run(
        [sys.executable, str(PROJECT / "testhosts" / "testhosts.py"), "checkout"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    scope = f"cost-{checkout}"
    folder = PROJECT / ".cache" / "proof"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["ANSIBLE_CONFIG"] = str(PROJECT / "ansible.cfg")
    first: list[float] = []
    raw: list[float] = []
    nothing: list[float] = []
    ping: list[float] = []
    everything: list[float] = []
    again: list[float] = []
    ours: list[float] = []
    pyinfras: list[float] = []
    needed: dict[int, int] = {}
    grown: dict[int, list[float]] = {}
    by_ssh: dict[int, list[float]] = {}
    here: dict[int, list[float]] = {}
    here_by_ssh: dict[int, list[float]] = {}
    released: dict[int, list[float]] = {}
    added: dict[int, list[float]] = {}
    deployed: list[tuple[float, float]] = []
    rolled: list[tuple[float, float]] = []
    killed: list[float] = []
    starts: list[float] = []
    try:
        # Builds the bundles, which happens once for all hosts, and warms the control node's caches.
        warm_host, warm = fresh("warm", scope, folder)
        ansible("ansible-playbook", warm, "site.yml")()
        archives = [newest(name) for name in ("certbot", "toll-app")]
        for number in range(rounds):
            _, inventory = fresh(f"site{number}", scope, folder)
            first.append(timed(ansible("ansible-playbook", inventory, "site.yml")))
            host, _ = fresh(f"raw{number}", scope, folder)
            raw.append(timed(by_hand(host, archives)))
        for _ in range(max(rounds, 5)):
            nothing.append(timed(ansible("ansible-playbook", warm, "site.yml")))
            ping.append(timed(ansible("ansible", warm, "all", "-m", "ping")))
        # Not in between: after one of these, the next run has no note of the host to go by.
        for _ in range(max(rounds, 5)):
            everything.append(timed(ansible("ansible-playbook", warm, "site.yml", *EVERYTHING)))
            again.append(timed(ansible("ansible", warm, "all", "-m", "ping")))
        pyinfra_folder = folder / "pyinfra"
        by_pyinfra.prepare(ssh_to(warm_host), pyinfra_folder)
        pyinfra = by_pyinfra.runs(warm_host, pyinfra_folder)
        # Installs it, and brings the host to what its modules make of it.
        pyinfra()
        ansible("ansible-playbook", warm, "site.yml")()
        for _ in range(rounds):
            ours.append(timed(ansible("ansible-playbook", warm, "site.yml")))
            pyinfras.append(timed(pyinfra))
            by_pyinfra.check(pyinfra_folder)
        one = Host("warm", warm_host, folder)
        deploy = ansible("ansible-playbook", warm, "playbooks/deploy.yml")
        rollback = ansible("ansible-playbook", warm, "playbooks/rollback.yml")
        for _ in range(rounds):
            one.change()
            deployed.append(until_live(one.site, deploy))
            starts.append(one.own_start())
            rolled.append(until_live(one.site, rollback))
            killed.append(one.killed())
        for size in FLEETS:
            names = [f"fleet{number}" for number in range(size)]
            members = {name: fresh(name, scope, folder)[0] for name in names}
            inventory = write_inventory(f"fleet-of-{size}", members, folder)
            ansible("ansible-playbook", inventory, "site.yml")()
            for _ in range(rounds):
                run = ansible("ansible-playbook", inventory, "site.yml")
                for action, whole, part in (
                    (run, grown, here),
                    (each_by_ssh(members), by_ssh, here_by_ssh),
                ):
                    seconds, processors = weighed(action)
                    whole.setdefault(size, []).append(seconds)
                    part.setdefault(size, []).append(processors)
            with memory.watching() as seen:
                ansible("ansible-playbook", inventory, "site.yml")()
            needed[size] = seen.peak
            hosts("down", "--scope", scope, "added")
            more = {**members, "added": fresh("added", scope, folder)[0]}
            one_more = write_inventory(f"fleet-of-{size}-and-one", more, folder)
            added[size] = [timed(ansible("ansible-playbook", one_more, "site.yml"))]
            Source(inventory).change()
            deploy = ansible("ansible-playbook", inventory, "playbooks/deploy.yml")
            released[size] = [timed(deploy)]
    finally:
        hosts("down", "--scope", scope)
    megabytes = sum(path.stat().st_size for path in archives) / 1e6
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(
        "# What a run costs\n\n"
        "Made by `.venv/bin/python tests/proof/run_cost.py`; seconds, median (least to most) of\n"
        "runs that alternate; the ratio is taken pair by pair. One Debian 13 host in a container,\n"
        "over SSH.\n\n"
        "| what | this project | next to it | ratio |\n| --- | --- | --- | --- |\n"
        + row("first run on a bare host, next to apt-get and tar by hand", first, raw)
        + "\n"
        + row("a run that changes nothing, next to `ansible -m ping`", nothing, ping)
        + "\n"
        + row("the same with `-e application_seal_hours=0`, next to it", everything, again)
        + "\n"
        + row(
            f"the same, next to {by_pyinfra.PYINFRA.replace('==', ' ')} "
            f"({by_pyinfra.operations(pyinfra_folder)} operations)",
            ours,
            pyinfras,
        )
        + "\n"
        + "".join(
            row(f"changes nothing, hosts: {size}; next to `ssh HOST true` side by side", *pair)
            + "\n"
            for size in FLEETS
            for pair in [(grown[size], by_ssh[size])]
        )
        + f"\nEach host more takes {fit(grown):.2f} s in a run that changes nothing, and "
        f"{fit(by_ssh):.2f} s by SSH, by the line through the medians. By\n"
        f"these lines {far(grown)}. The control node needs {memory_in_words(needed)}.\n\n"
        "The hosts share the control node's processors here, and look at themselves on them. "
        "Of the control node alone each\n"
        f"host more takes {fit(here):.2f} s of a processor, and {fit(here_by_ssh):.2f} s by SSH, "
        "which exchanges keys each time."
        + "\n\n| hosts | site.yml with one host more, which is bare, s | deploy.yml of a changed "
        "application, s |\n| ---: | ---: | ---: |\n"
        + "".join(
            f"| {size} | {added[size][0]:.1f} | {released[size][0]:.1f} |\n" for size in FLEETS
        )
        + f"\nOne run each. A host more takes {fit(added):.2f} s where one is added, and "
        f"{fit(released):.2f} s in a deploy; all of them share these cores."
        + "\n\n## The application\n\n| what | seconds |\n| --- | --- |\n"
        + "".join(
            f"| {what} | {shown(values)} |\n"
            for what, values in (
                ("its own start, until systemd calls it started", starts),
                ("a deploy of a changed application, until it answers", [a for a, _ in deployed]),
                ("the same, until the command ends", [b for _, b in deployed]),
                ("a rollback, until the older release answers", [a for a, _ in rolled]),
                ("the same, until the command ends", [b for _, b in rolled]),
                ("the slowest request around a kill -9 of its master", killed),
            )
        )
        + f"\nBy hand: `apt-get install {' '.join(PACKAGES)}` and {len(archives)} archives, "
        f"{megabytes:.1f} MB together, copied and unpacked.\n"
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, "
        f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}.\n"
    )
    print(REPORT.read_text())


if __name__ == "__main__":
    main()
