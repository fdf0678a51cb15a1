"""What is done to a fleet under load, and what must come of it: docs/proof/fleet.md."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import ledger
import variants
from bench import Load, described
from cases import Checked, Outcome
from fleet_hosts import Fleet
from ledger import Record

# How long what was cut off stays so.
AWAY_SECONDS = 25.0
PRIMARY_SECONDS = 15.0


@dataclass
class Faced(Outcome):
    """What a fault came to: a row of the table.

    Attributes:
        planned: whether no request may fail.
        lost: acknowledged passages that are not there.
        doubled: passages that are there twice.
    """

    planned: bool = True
    lost: int = 0
    doubled: int = 0


class Trial(Checked):
    """One case under way."""

    def __init__(self, fleet: Fleet) -> None:
        """Begin with a fleet that is well."""
        self.fleet = fleet
        fleet.healthy()
        self.wrong: list[str] = []
        self.loads: list[Load] = []
        self.notes: dict[str, str] = {}
        self.seconds = 0.0
        # Whether requests may fail, since a part died that nobody could have warned of.
        self.hard = False

    @contextmanager
    def load(self, through: str = "", floating: bool = False) -> Iterator[Load]:
        """Requests around what is done; afterwards the fleet has to be well again."""
        with self.fleet.under_load(through, floating) as load:
            self.loads.append(load)
            started = time.monotonic()
            try:
                yield load
            finally:
                self.seconds += time.monotonic() - started
                self.fleet.healthy()

    def outcome(self, title: str) -> Faced:
        """Everything that holds for every case, and the row."""
        records: list[Record] = []
        steady: list[Record] = []
        during: list[Record] = []
        for load in self.loads:
            records += load.records
            steady += ledger.between(load.records, load.start, load.began)
            during += ledger.between(load.records, load.began, load.ended)
            self.expect(load.reconciliation.right, f"the database: {load.reconciliation}")
        total = ledger.summarize(records)
        errors = [record for record in records if record.error]
        self.expect(self.hard or not errors, f"requests failed: {total.failures}")
        if errors:
            # From the first that was due and failed to the last.
            span = max(x.due for x in errors) - min(x.due for x in errors)
            self.notes["failures due within"] = f"{span:.1f} s"
        again = [record for record in records if record.again]
        if again:
            self.notes["sent again on a new connection"] = str(len(again))
        cut = [record for record in again if record.replayed]
        self.expect(self.hard or not cut, f"{len(cut)} requests were cut after they were done")
        self.notes["longest without a write"] = f"{silence(records):.1f} s"
        return Faced(
            case=title,
            system="",
            wrong=self.wrong,
            requests=total,
            steady=ledger.summarize(steady),
            during=ledger.summarize(during),
            acknowledged=sum(load.reconciliation.acknowledged for load in self.loads),
            end="",
            seconds=self.seconds,
            notes=self.notes,
            planned=not self.hard,
            lost=sum(len(load.reconciliation.lost) for load in self.loads),
            doubled=sum(len(load.reconciliation.doubled) for load in self.loads),
        )


def silence(records: list[Record]) -> float:
    """The longest time in which no passage was acknowledged, in seconds."""
    done = sorted(record.done for record in records if record.acknowledged)
    return max((after - before for before, after in itertools.pairwise(done)), default=0.0)


@dataclass(frozen=True)
class Fault:
    """One thing that is done.

    Attributes:
        title: for the table.
        run: does it.
        planned: whether no request may fail.
        needs: how many hosts of a group there have to be.
    """

    title: str
    run: Callable[[Trial], None]
    planned: bool = True
    needs: dict[str, int] = field(default_factory=dict)

    def fits(self, fleet: Fleet) -> bool:
        """Whether the fleet has what it takes."""
        return all(len(getattr(fleet, group)) >= count for group, count in self.needs.items())

    def on(self, fleet: Fleet) -> Faced:
        """Try it, and say what it came to."""
        trial = Trial(fleet)
        trial.hard = not self.planned
        try:
            self.run(trial)
        except Exception as error:
            trial.wrong.append(f"{type(error).__name__}: {error}")
        return trial.outcome(self.title)


# Planned


def added(trial: Trial) -> None:
    """A line more in the inventory, and site.yml; then it is removed again."""
    fleet = trial.fleet
    name = f"web{len(fleet.web) + 1}"
    fleet.web.append(name)
    fleet.up()
    with trial.load(fleet.web[0]):
        done = fleet.run("site")
    trial.succeeded(done)
    trial.notes["site.yml"] = f"{done.seconds:.0f} s"
    answered = {who: state for who, state in fleet.states().items() if name in who}
    trial.expect(len(answered) == len(fleet.balancers), f"balancers know {answered}")


def removed(trial: Trial) -> None:
    """The last host is drained, taken off the inventory, and its container removed."""
    fleet = trial.fleet
    name = fleet.web[-1]
    with trial.load(fleet.web[0]):
        drained = fleet.run("drain", f"--limit={name}")
        fleet.web.remove(name)
        fleet.write()
        done = fleet.run("site")
        fleet.hosts.down([fleet.container(name)])
    trial.succeeded(drained)
    trial.succeeded(done)


def drained(trial: Trial) -> None:
    """Each host in turn, and back."""
    fleet = trial.fleet
    with trial.load():
        runs = [
            fleet.run(which, f"--limit={name}")
            for name in fleet.web
            for which in ("drain", "undrain")
        ]
    for done in runs:
        trial.succeeded(done)


def deployed(trial: Trial) -> None:
    """A changed application, on all hosts."""
    mark = f"fleet-{secrets.token_hex(3)}"
    source = variants.make(trial.fleet.inventory.parent / "sources", mark)
    with trial.load() as load:
        done = trial.fleet.run("deploy", **described(source=str(source)))
    trial.succeeded(done)
    trial.notes["deploy.yml"] = f"{done.seconds:.0f} s"
    trial.expect(mark in load.answered_by, "the new release has not answered")


def rolled_back(trial: Trial) -> None:
    """And back."""
    with trial.load():
        done = trial.fleet.run("rollback")
    trial.succeeded(done)
    trial.notes["rollback.yml"] = f"{done.seconds:.0f} s"


def broken(trial: Trial) -> None:
    """A release that never gets ready on one of the hosts."""
    mark = f"half-{secrets.token_hex(3)}"
    source = variants.make(trial.fleet.inventory.parent / "sources", mark, "bad_on_one_host")
    before = [trial.fleet.serving(name).state()["current"] for name in trial.fleet.web]
    with trial.load():
        done = trial.fleet.run("deploy", **described(source=str(source)))
    trial.expect(done.returncode != 0, "the deploy did not fail")
    after = [trial.fleet.serving(name).state()["current"] for name in trial.fleet.web]
    trial.expect(after == before, f"{after} is live instead of {before}")


def rebooted(trial: Trial) -> None:
    """reboot.yml over the fleet."""
    fleet = trial.fleet
    booted = {name: boot(fleet, name) for name in fleet.names}
    with fleet.switched_on(), trial.load():
        done = fleet.run("reboot")
    trial.succeeded(done)
    same = [name for name, before in booted.items() if boot(fleet, name) == before]
    trial.notes["not rebooted"] = ", ".join(same) or "none"


def boot(fleet: Fleet, name: str) -> str:
    """When a host was started."""
    return fleet.inside(name, "cut", "-d", " ", "-f", "22", "/proc/1/stat").strip()


# By the group that needs them; what of a suite is older than the newest comes from the same mirror.
UPGRADED = {
    "balancers": ("haproxy",),
    "web": ("nginx", "nginx-common"),
    "databases": ("libxml2",),
}
OLDER = """
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
for package; do
    newest=$(apt-cache policy "$package" | sed -n 's/^  Candidate: //p')
    older=$(apt-cache madison "$package" | awk '{print $3}' | grep -vxF "$newest" | head -n 1)
    chosen="$chosen $package=$older"
done
apt-get -qq install --yes --allow-downgrades -o Dpkg::Options::=--force-confold $chosen >/dev/null
"""
NEWEST = """
for package; do
    apt-cache policy "$package" | awk '/Installed:/ {a = $2} /Candidate:/ {b = $2} END {print a, b}'
done
"""


def upgraded(trial: Trial) -> None:
    """upgrade.yml over the fleet, with a package to upgrade on each host."""
    fleet = trial.fleet
    packages = {
        name: [
            each
            for group, needed in UPGRADED.items()
            if name in getattr(fleet, group)
            for each in needed
        ]
        for name in fleet.names
    }

    def newest(name: str) -> bool:
        told = fleet.inside(name, "sh", "-c", NEWEST, "sh", *packages[name])
        return all(len(set(line.split())) == 1 for line in told.splitlines())

    for name in fleet.names:
        fleet.inside(name, "sh", "-c", OLDER, "sh", *packages[name])
        trial.expect(not newest(name), f"{name} has nothing to upgrade")
    fleet.healthy()
    booted = {name: boot(fleet, name) for name in fleet.names}
    with fleet.switched_on(), trial.load():
        done = fleet.run("upgrade")
    trial.succeeded(done)
    trial.notes["upgrade.yml"] = f"{done.seconds:.0f} s"
    same = [name for name, before in booted.items() if boot(fleet, name) == before]
    trial.notes["not rebooted"] = ", ".join(same) or "none"
    for name in fleet.names:
        trial.expect(newest(name), f"{name} was not upgraded")


def switched_over(trial: Trial) -> None:
    """Another host is made the primary."""
    before = trial.fleet.primary()
    with trial.load():
        done = trial.fleet.run("switchover")
    trial.succeeded(done)
    after = trial.fleet.primary()
    trial.expect(after not in ("", before), f"{after} is primary after {before}")


def nothing(trial: Trial) -> None:
    """What is measured beside: a run that changes nothing."""
    with trial.load():
        done = trial.fleet.run("site")
    trial.succeeded(done)
    trial.expect(done.changed == 0, f"changed={done.changed}")
    trial.notes["site.yml"] = f"{done.seconds:.1f} s"


# Hard


def dies(which: Callable[[Fleet], str]) -> Callable[[Trial], None]:
    """A host loses its power for a while."""

    def run(trial: Trial) -> None:
        fleet = trial.fleet
        name = which(fleet)
        through = next(x for x in fleet.web if x != name)
        primary = fleet.primary()
        if name == primary:
            trial.notes["voters led by"] = fleet.leader()
        with trial.load(through):
            begun = time.monotonic()
            fleet.cut_off(name)
            if name == primary and len(fleet.databases) > 1:
                elected(trial, primary, begun)
            time.sleep(max(AWAY_SECONDS - (time.monotonic() - begun), 0))
            fleet.start(name)

    return run


def holder_dies(trial: Trial) -> None:
    """The balancer with the floating address loses its power, and clients know no other address."""
    fleet = trial.fleet
    name = fleet.holder()
    assert name, "no balancer has the floating address"
    with trial.load(floating=True):
        begun = time.monotonic()
        fleet.cut_off(name)
        known = fleet.balancers
        fleet.balancers = [each for each in known if each != name]
        try:
            while not fleet.holder():
                assert time.monotonic() < begun + AWAY_SECONDS, "nobody takes the address"
                time.sleep(0.2)
        finally:
            fleet.balancers = known
        trial.notes["address taken"] = f"after {time.monotonic() - begun:.1f} s"
        time.sleep(max(AWAY_SECONDS - (time.monotonic() - begun), 0))
        fleet.start(name)


def elected(trial: Trial, before: str, begun: float) -> None:
    """Wait until another host is the primary."""
    while (found := trial.fleet.primary()) in ("", before):
        if time.monotonic() > begun + 4 * PRIMARY_SECONDS:
            trial.expect(False, "no new primary")
            return
        time.sleep(0.2)
    seconds = time.monotonic() - begun
    trial.notes["new primary"] = f"{found} after {seconds:.1f} s"
    trial.expect(seconds <= PRIMARY_SECONDS, f"a new primary took {seconds:.1f} s")


def stopped(trial: Trial) -> None:
    """Everything of the primary is stopped with SIGSTOP, and goes on after it was replaced."""
    fleet = trial.fleet
    primary = fleet.primary()
    container = fleet.container(primary)
    trial.notes["voters led by"] = fleet.leader()
    with trial.load():
        begun = time.monotonic()
        # The freezer of the container's cgroup: a machine that hangs, and comes back.
        fleet.hosts.engine.podman("pause", container)
        try:
            others = [name for name in fleet.databases if name != primary]
            wait_for_primary(trial, others, begun)
            time.sleep(max(AWAY_SECONDS - (time.monotonic() - begun), 0))
        finally:
            fleet.hosts.engine.podman("unpause", container)


def wait_for_primary(trial: Trial, among: list[str], begun: float) -> None:
    """Wait until one of these is the primary, and note how long it took."""
    fleet, known = trial.fleet, trial.fleet.databases
    fleet.databases = among
    try:
        elected(trial, "", begun)
    finally:
        fleet.databases = known


def slow_process(trial: Trial) -> None:
    """Patroni alone is stopped, and PostgreSQL goes on without anybody who watches it."""
    fleet = trial.fleet
    primary = fleet.primary()
    unit = fleet.inside(
        primary, *("systemctl", "list-units", "--plain", "--no-legend", "postgresql@*")
    ).split()[0]
    with trial.load():
        begun = time.monotonic()
        fleet.inside(primary, "systemctl", "kill", "-s", "STOP", "--kill-whom=main", unit)
        others = [name for name in fleet.databases if name != primary]
        wait_for_primary(trial, others, begun)
        # It is not woken: systemd has to end it, and PostgreSQL with it.
        time.sleep(max(AWAY_SECONDS - (time.monotonic() - begun), 0))


# The log gets a file system of its own, since a full disk of a container is that of its machine.
APART = """
set -e
unit=$(systemctl list-units --plain --no-legend 'postgresql@*' | cut -d ' ' -f 1)
log=$(echo /var/lib/postgresql/*/main/pg_wal)
systemctl stop "$unit"
cp -a "$log" /var/lib/postgresql/kept
mount -t tmpfs -o "size=1g,mode=0700,uid=$(id -u postgres),gid=$(id -g postgres)" tmpfs "$log"
cp -a /var/lib/postgresql/kept/. "$log"
rm -rf /var/lib/postgresql/kept
systemctl start --no-block "$unit"
"""
TOGETHER = """
set -e
unit=$(systemctl list-units --all --plain --no-legend 'postgresql@*' | cut -d ' ' -f 1)
log=$(echo /var/lib/postgresql/*/main/pg_wal)
systemctl stop "$unit"
cp -a "$log" /var/lib/postgresql/kept
umount "$log"
find "$log" -mindepth 1 -delete
cp -a /var/lib/postgresql/kept/. "$log"
rm -rf /var/lib/postgresql/kept
systemctl start --no-block "$unit"
"""
FILL = "dd if=/dev/zero of=$(echo /var/lib/postgresql/*/main/pg_wal)/filler bs=1M 2>/dev/null"
FREE = "rm -f /var/lib/postgresql/*/main/pg_wal/filler"
# More than PostgreSQL has files of its log in advance.
MUCH = (
    "SELECT count(pg_logical_emit_message(false, 'fill', repeat('x', 1000000)))"
    " FROM generate_series(1, 400)"
)


def log_disk_full(trial: Trial) -> None:
    """The disk of the primary's write-ahead log is full, those of the others are not."""
    fleet = trial.fleet
    name = next(each for each in fleet.databases if each not in (fleet.primary(), replica(fleet)))
    fleet.inside(name, "sh", "-c", APART)
    try:
        fleet.healthy()
        fleet.inside(name, "postgresql-cluster", "switchover", name)
        fleet.healthy()
        with trial.load():
            begun = time.monotonic()
            fleet.inside(name, "sh", "-c", FILL, check=False)
            words = ("runuser", "-u", "postgres", "--", "psql", "-qAtc", MUCH)
            fleet.inside(name, "timeout", "30", *words, check=False)
            others = [each for each in fleet.databases if each != name]
            wait_for_primary(trial, others, begun)
            time.sleep(max(AWAY_SECONDS - (time.monotonic() - begun), 0))
            fleet.inside(name, "sh", "-c", FREE)
    finally:
        fleet.inside(name, "sh", "-c", FREE)
        fleet.inside(name, "sh", "-c", TOGETHER)


def voters_lost(count: int) -> Callable[[Trial], None]:
    """etcd stops on so many hosts, the primary's among them."""

    def run(trial: Trial) -> None:
        fleet = trial.fleet
        primary = fleet.primary()
        chosen = [primary, *(name for name in fleet.databases if name != primary)][:count]
        with trial.load():
            for name in chosen:
                fleet.inside(name, "systemctl", "kill", "-s", "KILL", "etcd")
                fleet.inside(name, "systemctl", "stop", "etcd")
            time.sleep(AWAY_SECONDS)
            for name in chosen:
                fleet.inside(name, "systemctl", "start", "etcd")

    return run


def parted(
    these: Callable[[Fleet], list[str]], those: Callable[[Fleet], list[str]]
) -> Callable[[Trial], None]:
    """The network between two groups of hosts loses everything, then heals."""

    def run(trial: Trial) -> None:
        fleet = trial.fleet
        one, other = these(fleet), those(fleet)
        with trial.load(fleet.web[-1]):
            fleet.part(one, other)
            try:
                time.sleep(AWAY_SECONDS)
            finally:
                fleet.part(one, other, apart=False)

    return run


def primary(fleet: Fleet) -> str:
    """The primary, which has to be there."""
    found = fleet.primary()
    assert found, "no primary"
    return found


def replica(fleet: Fleet) -> str:
    """A host of the database by which the primary acknowledges."""
    waited_for = "SELECT application_name FROM pg_stat_replication WHERE sync_state <> 'async'"
    return fleet.sql(waited_for).split()[0]


def restarted(trial: Trial) -> None:
    """PostgreSQL is restarted on its only host."""
    fleet = trial.fleet
    with trial.load():
        fleet.inside(fleet.databases[0], "systemctl", "restart", "postgresql@*")


def one_web(fleet: Fleet) -> list[str]:
    """A host that serves."""
    return fleet.web[:1]


CLUSTER = {"databases": 3}
FAULTS = (
    Fault("a run that changes nothing", nothing),
    Fault("add a host", added),
    Fault("drain and undrain each host that serves", drained),
    Fault("deploy", deployed),
    Fault("rollback", rolled_back),
    Fault("deploy of a release that is broken on one host", broken),
    Fault("remove a host", removed, needs={"web": 4}),
    Fault("reboot each host in turn", rebooted),
    Fault("upgrade each host in turn", upgraded),
    Fault("switchover", switched_over, needs=CLUSTER),
    Fault("power cut: a host that serves", dies(lambda fleet: fleet.web[0]), planned=False),
    Fault(
        "power cut: a balancer",
        dies(lambda fleet: fleet.balancers[0]),
        planned=False,
        needs={"balancers": 2},
    ),
    Fault(
        "power cut: the balancer that holds the floating address",
        holder_dies,
        planned=False,
        needs={"balancers": 2},
    ),
    Fault("power cut: the primary", dies(primary), planned=False, needs=CLUSTER),
    Fault("power cut: a replica", dies(replica), planned=False, needs=CLUSTER),
    Fault("the primary's host hangs, and comes back", stopped, planned=False, needs=CLUSTER),
    Fault("Patroni of the primary hangs", slow_process, planned=False, needs=CLUSTER),
    Fault("the disk of the primary's log is full", log_disk_full, planned=False, needs=CLUSTER),
    Fault("one member of etcd lost", voters_lost(1), planned=False, needs=CLUSTER),
    Fault("the majority of etcd lost", voters_lost(2), planned=False, needs=CLUSTER),
    Fault(
        "network cut: a balancer from a host that serves",
        parted(lambda fleet: fleet.balancers[:1], one_web),
        planned=False,
    ),
    Fault(
        "network cut: a host that serves from the database",
        parted(one_web, lambda fleet: fleet.databases),
        planned=False,
    ),
    Fault(
        "network cut: the primary from the other hosts of the database",
        parted(
            lambda fleet: [primary(fleet)],
            lambda fleet: [name for name in fleet.databases if name != primary(fleet)],
        ),
        planned=False,
        needs=CLUSTER,
    ),
    Fault(
        "network cut: the primary from everybody",
        parted(
            lambda fleet: [primary(fleet)],
            lambda fleet: [name for name in fleet.names if name != primary(fleet)],
        ),
        planned=False,
        needs=CLUSTER,
    ),
)
