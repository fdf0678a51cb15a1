"""What is tried on a host under load, and what must come of it: docs/proof/releases.md.

Each case starts from a host that serves a healthy release, and must end with a healthy one, old or
new; with no request failed that the case does not say it may fail; and with each acknowledged
passage in the database exactly once.
"""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ledger
from bench import FLASK, FOLDER, PROJECT, RATE, Done, Host, Load, Running, described
from ledger import Record, Summary
from picture import Deploy
from variants import Migration

# Of the deploy, in their order, and of the handover.
DEPLOY_STAGES = ("lock", "build", "ship", "migrate", "handover", "prune")
HANDOVER_STAGES = ("standby", "open", "main", "bake", "commit")
# Whom there is to kill while a stage lasts. In `commit`, which takes milliseconds, the new release
# has been judged and only the records are still to be written.
VICTIMS = {
    "standby": ("handover", "master", "worker", "standby"),
    "open": ("handover", "master", "worker", "standby", "standby worker"),
    "main": ("handover", "master", "standby", "standby worker"),
    "bake": ("handover", "master", "worker"),
    "commit": ("handover",),
}
# The one that every `make test` tries; molecule/gunicorn_systemd has others, without a playbook.
QUICK_KILLS = {("main", "handover"): ("debian12",)}
COPIES = "/var/lib/toll-app/backups"
BUNDLES = PROJECT / ".cache" / "bundles"


def drawn(system: str) -> Path:
    """Where the records of a deploy stay, for its picture."""
    return FOLDER / f"deploy-{system}.json"


@dataclass
class Outcome:
    """What a case came to on one host: a row of the table.

    Attributes:
        case: its title.
        system: the host's.
        wrong: what is not as it must be; nothing when all is well.
        requests: what was sent in all its loads.
        steady: of that, before anything was done.
        during: of that, while it was done.
        acknowledged: passages that are surely there.
        end: what serves in the end.
        seconds: what it took.
        notes: figures of its own.
    """

    case: str
    system: str
    wrong: list[str] = field(default_factory=list)
    requests: Summary = field(default_factory=lambda: Summary(0, 0, 0))
    steady: Summary = field(default_factory=lambda: Summary(0, 0, 0))
    during: Summary = field(default_factory=lambda: Summary(0, 0, 0))
    acknowledged: int = 0
    end: str = ""
    seconds: float = 0.0
    notes: dict[str, str] = field(default_factory=dict)


class Checked:
    """What has to hold in a case, and what did not."""

    wrong: list[str]

    def expect(self, right: bool, otherwise: str) -> None:
        """Note what is wrong, and go on: the other checks say more about it."""
        if not right:
            self.wrong.append(otherwise)

    def succeeded(self, done: Done) -> None:
        """What was started must have gone well."""
        self.expect(done.returncode == 0, f"exit code {done.returncode}:\n{tail(done.output)}")


class Trial(Checked):
    """One case under way on one host."""

    def __init__(self, host: Host, slow_counts: bool = True) -> None:
        """Look at where it starts.

        Args:
            host: where it is tried.
            slow_counts: whether a slow answer is a failure; on a busy machine it says nothing.

        Raises:
            AssertionError: the host is not healthy to begin with.
        """
        self.host = host
        self.measured = slow_counts
        self.before: str = host.settle()["current"]
        self.wrong: list[str] = []
        self.loads: list[Load] = []
        self.notes: dict[str, str] = {}
        self.seconds = 0.0
        # Requests that may fail, because whoever held them was killed, and whether others may wait.
        self.may_fail = 0
        self.may_wait = not slow_counts
        # Marks of releases that must not have answered anything.
        self.broken: list[str] = []

    def mark(self, name: str = "good") -> str:
        """A name for a release that there has not been yet."""
        return f"{name.replace('_', '-')}-{secrets.token_hex(3)}"

    @contextmanager
    def load(self, **given: Any) -> Iterator[Load]:
        """Requests around what is done."""
        with self.host.under_load(**given) as load:
            self.loads.append(load)
            started = time.monotonic()
            try:
                yield load
            finally:
                self.seconds += time.monotonic() - started

    def refused(self, done: Done, *said: str) -> None:
        """It must have failed, and said why."""
        self.expect(done.returncode != 0, "it did not fail")
        for text in said:
            found = re.search(text, " ".join(done.output.split()), re.IGNORECASE)
            self.expect(found is not None, f"it does not say {text!r}:\n{tail(done.output)}")

    def old_is_live(self) -> None:
        """What was live before must be live again."""
        current = self.host.settle()["current"]
        self.expect(current == self.before, f"{current} is live instead of {self.before}")

    def new_is_live(self) -> None:
        """Another release must be live."""
        self.expect(self.host.settle()["current"] != self.before, "the old release is still live")

    def fails(self, record: Record) -> bool:
        """Whether a request counts as one that failed.

        On a machine that is busy with other tests an answer may come late, or be the application's
        own "repeat it later": that many requests waited for SQLite's one writer.
        """
        if not self.may_wait:
            return bool(record.failure)
        return bool(record.error) and (self.measured or '"/api#busy"' not in record.error)

    def outcome(self, title: str) -> Outcome:
        """Everything that holds for every case, and the row."""
        state = self.host.settle()
        self.expect(not state["failed"], f"failed units: {state['failed']}")
        records: list[Record] = []
        steady: list[Record] = []
        during: list[Record] = []
        for load in self.loads:
            records += load.records
            steady += ledger.between(load.records, load.start, load.began)
            during += ledger.between(load.records, load.began, load.ended)
            found = load.reconciliation
            self.expect(found.right, f"the database: {found}")
            self.expect(load.sound, "the database's file is damaged")
            for mark in self.broken:
                self.expect(mark not in load.answered_by, f"{mark} took traffic")
        total = ledger.summarize(records)
        failed = sum(1 for record in records if self.fails(record))
        self.expect(failed <= self.may_fail, f"requests failed: {total.failures}")
        return Outcome(
            case=title,
            system=self.host.name,
            wrong=self.wrong,
            requests=total,
            steady=ledger.summarize(steady),
            during=ledger.summarize(during),
            acknowledged=sum(load.reconciliation.acknowledged for load in self.loads),
            end="old" if state["current"] == self.before else "new",
            seconds=self.seconds,
            notes=self.notes,
        )


def tail(output: str, lines: int = 25) -> str:
    """The end of a program's output."""
    return "\n".join(output.splitlines()[-lines:])


@dataclass(frozen=True)
class Case:
    """One thing that is tried.

    Attributes:
        title: for the table.
        run: tries it.
        quick: the systems on which every `make test` tries it; most are tried on none, some on one.
    """

    title: str
    run: Callable[[Trial], None]
    quick: tuple[str, ...] = ()

    def on(self, host: Host, slow_counts: bool = True) -> Outcome:
        """Try it on a host. What goes wrong is in the outcome."""
        try:
            trial = Trial(host, slow_counts)
        except Exception as error:
            return Outcome(self.title, host.name, [f"to begin with: {error}"], end="NEITHER")
        try:
            self.run(trial)
        except Exception as error:
            trial.wrong.append(f"{type(error).__name__}: {error}")
        try:
            return trial.outcome(self.title)
        except Exception as error:
            wrong = [*trial.wrong, f"{type(error).__name__}: {error}"]
            return Outcome(self.title, host.name, wrong, end="NEITHER")


# Deploys


def changed(trial: Trial) -> None:
    """A changed application."""
    mark = trial.mark()
    source = trial.host.make(mark)
    with trial.load(steady=20.0 if trial.measured else 2.0) as load:
        done = trial.host.deploy(source).wait()
    trial.succeeded(done)
    trial.new_is_live()
    first, alone = ledger.change_of_hands(load.records, mark)
    trial.notes["command to first answer of the new release"] = f"{first - load.began:.1f} s"
    trial.notes["to last of the old one"] = f"{alone - load.began:.1f} s"
    trial.notes["to end"] = f"{done.seconds:.1f} s"
    if trial.measured:
        Deploy(trial.host.name, mark, RATE, load.began, load.ended, load.records).save(
            drawn(trial.host.name)
        )


def unchanged(trial: Trial) -> None:
    """What is live already."""
    source = trial.host.make(trial.mark())
    trial.succeeded(trial.host.deploy(source).wait())
    live = trial.host.settle()["current"]
    with trial.load():
        done = trial.host.deploy(source).wait()
    trial.succeeded(done)
    trial.expect(done.changed == 0, f"changed={done.changed}\n{tail(done.output)}")
    trial.expect(trial.host.settle()["current"] == live, "another release is live")
    trial.notes["command to end"] = f"{done.seconds:.1f} s"


def many(trial: Trial) -> None:
    """Twenty changed applications, one after the other."""
    seconds = []
    with trial.load(steady=20.0, seconds=1500.0):
        for _ in range(20):
            before = trial.host.state()["current"]
            done = trial.host.deploy(trial.host.make(trial.mark())).wait()
            trial.succeeded(done)
            now = trial.host.state()
            trial.expect(now["current"] != before, "a deploy changed nothing")
            seconds.append(done.seconds)
            if trial.wrong:
                break
    trial.notes["each"] = f"{min(seconds):.1f} to {max(seconds):.1f} s"
    kept = trial.host.state()["releases"]
    trial.notes["releases kept"] = str(len(kept))
    trial.expect(len(kept) < 20, f"nothing was pruned: {kept}")


def long_request(trial: Trial) -> None:
    """A request that takes twenty seconds is under way all the time."""
    first = trial.host.make(trial.mark())
    trial.succeeded(trial.host.deploy(first).wait())
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        answers.append(trial.host.ask("/proof/slow?seconds=20", timeout=40.0))

    slow = threading.Thread(target=ask)
    with trial.load():
        slow.start()
        time.sleep(1)
        done = trial.host.deploy(trial.host.make(trial.mark())).wait()
    slow.join()
    trial.succeeded(done)
    trial.expect([status for status, _ in answers] == [200], f"it got {answers}")


def settings(trial: Trial) -> None:
    """Other settings, the same release."""
    wanted = {"TOLL_PROOF": secrets.token_hex(4)}
    with trial.load():
        done = trial.host.playbook("site", **described(environment=wanted)).wait()
    trial.succeeded(done)
    found = trial.host.root("cat /etc/toll-app/environment")
    trial.expect(wanted["TOLL_PROOF"] in found, "the settings are not there")
    master = trial.host.state()["units"]["toll-app.service"]["MainPID"]
    environment = trial.host.root(f"tr '\\0' '\\n' < /proc/{master}/environ")
    trial.expect(wanted["TOLL_PROOF"] in environment, "the service runs without them")


def bad_settings(trial: Trial) -> None:
    """Settings that the application refuses: the old ones are live again, also after a crash."""
    before = trial.host.root("cat /etc/toll-app/environment")
    with trial.load():
        refused = described(environment={"TOLL_PROXIES": "many"})
        done = trial.host.playbook("site", **refused).wait()
        trial.refused(done, "TOLL_PROXIES")
        trial.expect(
            trial.host.root("cat /etc/toll-app/environment") == before,
            "the settings of before are not back",
        )
    trial.host.root("systemctl restart toll-app.service")
    trial.old_is_live()


# Ways back


def rollback(trial: Trial) -> None:
    """One command back, without saying where to."""
    trial.succeeded(trial.host.deploy(trial.host.make(trial.mark())).wait())
    middle = trial.host.settle()["current"]
    with trial.load():
        done = trial.host.playbook("rollback").wait()
    trial.succeeded(done)
    now = trial.host.settle()["current"]
    trial.expect(now == trial.before, f"{now} instead of {trial.before}; from {middle}")
    trial.notes["command to end"] = f"{done.seconds:.1f} s"


def rollback_past_a_bad_one(trial: Trial) -> None:
    """Twice, with a release in between that was judged bad: never onto that one."""
    trial.succeeded(trial.host.deploy(trial.host.make(trial.mark())).wait())
    mark = trial.mark("bad")
    trial.broken.append(mark)
    trial.refused(trial.host.deploy(trial.host.make(mark, "never_ready")).wait())
    bad = {
        name
        for name, record in trial.host.state()["records"].items()
        if record and record.get("verdict") == "bad"
    }
    trial.expect(bool(bad), "no release is noted as bad")
    with trial.load():
        for _ in range(2):
            done = trial.host.playbook("rollback").wait()
            now = trial.host.settle()["current"]
            trial.expect(now not in bad, f"it went back to {now}, which is bad")
    trial.notes["second"] = "went" if done.returncode == 0 else "refused"


def rollback_refused(trial: Trial) -> None:
    """The schema has gone on in a way that the release before does not know."""
    source = trial.host.make(trial.mark(), migration=Migration(works=False))
    trial.succeeded(trial.host.deploy(source).wait())
    live = trial.host.settle()["current"]
    with trial.load():
        done = trial.host.playbook("rollback").wait()
    trial.refused(done, "schema")
    trial.expect(trial.host.settle()["current"] == live, "it went back all the same")


# Releases that are broken


def broken(variant: str, *said: str) -> Callable[[Trial], None]:
    """A release that must not get through."""

    def run(trial: Trial) -> None:
        mark = trial.mark(variant)
        # What goes bad later can only be found out while it serves.
        if variant not in ("fails_in_the_bake", "workers_die_later"):
            trial.broken.append(mark)
        if variant == "workers_die_later":
            # What its workers were working on when they died.
            trial.may_fail = 20
        source = trial.host.make(mark, variant)
        with trial.load():
            done = trial.host.deploy(source).wait()
        trial.refused(done, *said)
        trial.old_is_live()

    return run


def slow_but_good(trial: Trial) -> None:
    """It takes some seconds to start, and nobody waits for it."""
    with trial.load():
        done = trial.host.deploy(trial.host.make(trial.mark(), "takes_its_time")).wait()
    trial.succeeded(done)
    trial.new_is_live()


def migration(trial: Trial) -> None:
    """A release with a migration, and back."""
    source = trial.host.make(trial.mark(), migration=Migration())
    with trial.load():
        done = trial.host.deploy(source).wait()
        trial.succeeded(done)
        trial.expect(trial.host.settle()["current"] != trial.before, "the old release is live")
        trial.succeeded(trial.host.playbook("rollback").wait())
    trial.old_is_live()
    # Later cases bring migrations of their own, which know nothing of this one.
    trial.host.root(f"{FLASK} toll restore $(ls -t {COPIES}/*.sqlite | head -n 1)")


def failing_migration(trial: Trial) -> None:
    """It changes something, and then fails."""
    before = trial.host.root(f"{FLASK} toll schema --json")
    mark = trial.mark("failing-migration")
    trial.broken.append(mark)
    source = trial.host.make(mark, migration=Migration(fails=True))
    with trial.load():
        done = trial.host.deploy(source).wait()
    trial.refused(done, "this migration fails half way")
    trial.old_is_live()
    trial.expect(
        trial.host.root(f"{FLASK} toll schema --json") == before, "the schema is not what it was"
    )


# Killing


def killed(stage: str, victim: str) -> Callable[[Trial], None]:
    """kill -9 at a step of a handover; then the same command again where it was interrupted."""

    def run(trial: Trial) -> None:
        other = previous(trial)
        with trial.load():
            strike = trial.host.strike(stage, victim)
            first = trial.host.handover(other).wait()
            struck = strike()
            state = trial.host.settle()
            trial.expect(state["current"] in (trial.before, other), f"{state['current']} is live")
            trial.expect(bool(struck["killed"]), f"nobody was killed: {struck}")
            trial.notes["exit code"] = str(first.returncode)
            if state["current"] == trial.before:
                trial.succeeded(trial.host.handover(other).wait())
        # What a killed worker was working on, as many as it has threads. Others wait where nobody
        # is left to serve, for as long as a start takes.
        trial.may_fail = {"worker": 2, "standby worker": 2}.get(victim, 0)
        trial.may_wait |= victim != "handover"
        trial.new_is_live()

    return run


def previous(trial: Trial) -> str:
    """A healthy release that is on the host and not live."""
    state = trial.host.state()
    healthy = [
        name
        for name, record in state["records"].items()
        if record
        and record.get("verdict") == "healthy"
        and name != state["current"]
        and name in state["releases"]
    ]
    assert healthy, f"no other healthy release: {state['records']}"
    latest: str = max(healthy, key=lambda name: str(state["records"][name].get("activated_at")))
    return latest


def control_killed(stage: str) -> Callable[[Trial], None]:
    """The control process is killed in a stage of the deploy; then the same command again."""

    def run(trial: Trial) -> None:
        source = trial.host.make(trial.mark())
        with trial.load():
            first = trial.host.deploy(source)
            reached = first.wait_for(rf"TASK \[.*\b{stage} \|")
            trial.expect(reached, f"it never came to {stage}")
            first.kill()
            first.wait()
            done = trial.host.deploy(source).wait()
        trial.succeeded(done)
        trial.new_is_live()

    return run


def two_at_once(trial: Trial) -> None:
    """Two deploys from two shells: one after the other, and both arrive."""
    sources = [trial.host.make(trial.mark()) for _ in range(2)]
    with trial.load():
        runs = [trial.host.deploy(source, application_lock_wait_seconds=120) for source in sources]
        done = [run.wait() for run in runs]
    for one in done:
        trial.succeeded(one)
    trial.new_is_live()


def second_refused(trial: Trial) -> None:
    """Two deploys from two shells, and the second one does not want to wait."""
    first = trial.host.make(trial.mark())
    mark = trial.mark()
    trial.broken.append(mark)
    second = trial.host.make(mark)
    with trial.load():
        running = trial.host.deploy(first)
        trial.expect(running.wait_for(r"TASK \[.*\bship \|"), "the first one never came to ship")
        refused = trial.host.deploy(second, application_lock_wait_seconds=0).wait()
        done = running.wait()
    trial.succeeded(done)
    trial.refused(refused, "lock")
    trial.new_is_live()


def two_handovers(trial: Trial) -> None:
    """The host's own command twice at once: exactly one handover runs."""
    other = previous(trial)
    with trial.load():
        runs: list[Running] = [trial.host.handover(other) for _ in range(2)]
        done = [run.wait() for run in runs]
    codes = sorted(one.returncode for one in done)
    trial.expect(codes in ([0, 0], [0, 2]), f"exit codes {codes}: {[tail(x.output) for x in done]}")
    trial.notes["exit codes"] = " and ".join(str(code) for code in codes)
    trial.new_is_live()


def restarted(stage: str, how: str) -> Callable[[Trial], None]:
    """The host goes down at a step of a handover."""

    def run(trial: Trial) -> None:
        other = previous(trial)
        with trial.load(time_limit=10.0) as load:
            strike = trial.host.strike(stage)
            first = trial.host.handover(other)
            struck = strike()
            trial.expect(struck["reached"], f"it never came to {stage}: {struck}")
            down = time.monotonic()
            if how == "reboot":
                trial.host.reboot()
            else:
                trial.host.power_cut()
            first.kill()
            first.wait()
            state = trial.host.settle()
            trial.notes["back after"] = f"{time.monotonic() - down:.1f} s"
            trial.expect(state["current"] in (trial.before, other), f"{state['current']} is live")
            trial.notes["then live"] = "old" if state["current"] == trial.before else "new"
            trial.succeeded(trial.host.handover(other).wait())
        trial.new_is_live()
        # While the host is down nobody answers. What counts is that nothing acknowledged is lost.
        trial.may_fail = load.summary.failed

    return run


# The disk, and bundles


def full_disk(trial: Trial) -> None:
    """The file system of the releases fills up while one is unpacked."""
    host = trial.host
    mark = trial.mark("disk-full")
    trial.broken.append(mark)
    source = host.make(mark)
    host.root(BORROW)
    try:
        fill = threading.Thread(
            target=host.onhost,
            args=("fill",),
            kwargs={"folder": "/opt/toll-app/releases", "pattern": ".new-*"},
        )
        with trial.load():
            fill.start()
            done = host.deploy(source).wait()
            fill.join()
        trial.refused(done, "space|full")
        trial.old_is_live()
        left = host.root("ls -A /opt/toll-app/releases")
        trial.expect(".new-" not in left, f"half a release is left: {left}")
    finally:
        host.root(GIVE_BACK)
    with trial.load():
        done = host.deploy(source).wait()
    trial.broken.remove(mark)
    trial.succeeded(done)
    trial.notes["with space again"] = "went" if done.returncode == 0 else "failed"


# A file system of their own for the releases, with room for one more; and back.
BORROW = """
set -eu
used=$(du -sm /opt/toll-app/releases | cut -f1)
mkdir -p /mnt/releases
mount -t tmpfs -o size=$((used + 120))m,mode=0755 tmpfs /mnt/releases
cp -a /opt/toll-app/releases/. /mnt/releases/
mount --bind /mnt/releases /opt/toll-app/releases
"""
GIVE_BACK = """
umount -l /opt/toll-app/releases
umount -l /mnt/releases
"""


def built(trial: Trial) -> tuple[str, Path]:
    """A release that is not on the host, as a bundle: its mark and the archive."""
    mark = trial.mark()
    before = set(BUNDLES.glob("toll-app-*.tar.gz"))
    source = trial.host.make(mark)
    running = trial.host.deploy(source, "--tags=build")
    trial.succeeded(running.wait())
    [made] = set(BUNDLES.glob("toll-app-*.tar.gz")) - before
    return mark, made


def bundle(trial: Trial) -> None:
    """A bundle that was built before."""
    _, archive = built(trial)
    with trial.load():
        done = trial.host.playbook("deploy", application_bundle=str(archive)).wait()
    trial.succeeded(done)
    trial.new_is_live()


def wrong_hash(trial: Trial) -> None:
    """A bundle in which one bit has changed since it was built."""
    mark, archive = built(trial)
    trial.broken.append(mark)
    folder = trial.host.folder / "tampered"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    copy = folder / archive.name
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    record = archive.with_name(archive.name.removesuffix(".tar.gz") + ".json")
    shutil.copy(record, folder)
    with trial.load():
        done = trial.host.playbook("deploy", application_bundle=str(copy)).wait()
    trial.refused(done, "sha-256")
    trial.old_is_live()


CASES = (
    Case("a changed application", changed, quick=("debian13",)),
    Case("the same again", unchanged),
    Case("a request of 20 s is under way", long_request),
    Case("other settings", settings),
    Case("settings that the application refuses", bad_settings),
    Case("a migration, and back", migration),
    Case("a bundle built before", bundle),
    Case("rollback", rollback, quick=("debian12",)),
    Case("rollback twice, past a bad release", rollback_past_a_bad_one),
    Case("broken: import error", broken("import_error", "a_module_that_nobody_shipped")),
    Case("broken: exception at start", broken("exception_at_start", "this release cannot start")),
    Case("broken: never ready", broken("never_ready", "503"), quick=("debian13",)),
    Case("broken: never answers", broken("never_answers")),
    Case("broken: ready, then failing in the bake", broken("fails_in_the_bake", "gone bad|503")),
    Case("broken: another release answers", broken("wrong_release", "0123456789ab")),
    Case("broken: does not come to an end of its start", broken("slow_start", "within 180 s")),
    Case("broken: workers die at once", broken("workers_die")),
    Case("broken: workers die after a second", broken("workers_die_later", "workers ended")),
    Case("broken: migration fails half way", failing_migration),
    Case("broken: bundle with a wrong hash", wrong_hash, quick=("debian12",)),
    Case("the disk fills up while shipping", full_disk),
    *(
        Case(
            f"kill -9 of the {victim} in `{stage}`",
            killed(stage, victim),
            quick=QUICK_KILLS.get((stage, victim), ()),
        )
        for stage, victims in VICTIMS.items()
        for victim in victims
    ),
    *(
        Case(f"control process killed in `{stage}`, then again", control_killed(stage))
        for stage in DEPLOY_STAGES
    ),
    Case("two deploys at once", two_at_once),
    Case("two deploys at once, the second does not wait", second_refused),
    Case("two handovers at once on the host", two_handovers),
    *(
        Case(f"{how} in `{stage}`", restarted(stage, how))
        for how in ("reboot", "power cut")
        for stage in HANDOVER_STAGES
    ),
    Case("slow start, but good", slow_but_good),
    Case("20 deploys in a row", many),
    # Last: the host's database stays ahead of the application.
    Case("rollback that the schema forbids", rollback_refused),
)
