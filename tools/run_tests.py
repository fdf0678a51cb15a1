#!/usr/bin/env python3
"""`make test` and its parts: runs them side by side, all of them, and counts.

    tools/run_tests.py [--jobs N] [lint] [unit] [app] [molecule | molecule:SCENARIO]...

Without a part, all are run. A part that fails does not keep the others from running. The output of
each part is shown when it has ended, and kept in .cache/tests/. The closing table says what each
part took, and each stage of a scenario. The last line says how many checks passed and failed: the
tests of pytest, the hooks of pre-commit, and for each Molecule scenario its tests and its sequence.
With KEEP=1 the hosts of a scenario stay.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
LOGS = ROOT / ".cache" / "tests"
sys.path.insert(0, str(ROOT / "testhosts"))

import checks  # noqa: E402
from checks import Result, judge  # noqa: E402
from engine import CHECKOUT, Engine, use_utf8  # noqa: E402
from hosts import Hosts  # noqa: E402

PARTS = ("lint", "unit", "app", "molecule")
# Tests of one file share what is expensive to prepare. Who adds a test sees what it costs.
PARALLEL = ("--numprocesses=auto", "--dist=loadfile", "--durations=15")
# Where an earlier run on this checkout left how long each part takes.
DURATIONS = LOGS / "seconds.json"
# On a clean clone: the parts that take longest, which start first.
LONGEST = (
    "molecule:release",
    "molecule:monitoring",
    "molecule:default",
    # It waits more than it computes, and would be alone at the end.
    "molecule:cluster",
    "molecule:setup",
    "unit",
    "molecule:certbot",
    "molecule:gunicorn_systemd",
    "molecule:application",
    "app",
    "molecule:nginx",
)


class Terminal:
    """What the person at the keyboard sees; parts that run side by side write in turn."""

    def __init__(self) -> None:
        """Start the clock that lines of progress show."""
        self._lock = threading.Lock()
        self._start = time.monotonic()

    def progress(self, text: str) -> None:
        """Say what has just happened, with the minutes since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        with self._lock:
            print(f"[{minutes:3}:{seconds:02}] {text}", flush=True)

    def show(self, heading: str, path: Path) -> None:
        """Show a part's whole output under a heading."""
        with self._lock, path.open(errors="replace") as file:
            print(f"\n=== {heading}", flush=True)
            for line in file:
                sys.stdout.write(line)
            sys.stdout.flush()


class Running:
    """The processes that parts have started, to end them all when the run is stopped."""

    def __init__(self) -> None:
        """Start with none."""
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[str]] = set()
        self.stopped = False

    def add(self, process: subprocess.Popen[str]) -> None:
        """Take note of a process that leads a group of its own."""
        with self._lock:
            self._processes.add(process)
            if self.stopped:
                os.killpg(process.pid, signal.SIGTERM)

    def remove(self, process: subprocess.Popen[str]) -> None:
        """Forget a process that has ended."""
        with self._lock:
            self._processes.discard(process)

    def stop(self) -> None:
        """End what runs, with its children, and whatever is started from now on."""
        with self._lock:
            self.stopped = True
            for process in self._processes:
                os.killpg(process.pid, signal.SIGTERM)


RUNNING = Running()
TERMINAL = Terminal()


class Part:
    """One part while it runs: its log, and the commands that it consists of."""

    def __init__(self, name: str) -> None:
        """Start with an empty log.

        Args:
            name: as in `chosen`, for instance "unit" or "molecule:nginx".
        """
        self.name = name.replace(":", " ")
        LOGS.mkdir(parents=True, exist_ok=True)
        self.path = LOGS / f"{name.replace(':', '-')}.log"
        self.path.write_text("")
        self.stopwatch = checks.Stopwatch()

    def say(self, line: str) -> None:
        """Write a line of our own to the log."""
        with self.path.open("a") as log:
            log.write(f"{line}\n")

    def run(
        self,
        command: Sequence[str | Path],
        cwd: Path = ROOT,
        environment: Mapping[str, str] | None = None,
    ) -> tuple[int, list[str]]:
        """Run a command, with its output in the log.

        Returns:
            Its exit code, and its output's lines without colours.
        """
        lines = []
        with (
            self.path.open("a") as log,
            subprocess.Popen(
                [str(x) for x in command],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # A group of its own, so that nothing of it outlives a run that is stopped.
                start_new_session=True,
                env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **(environment or {})},
            ) as process,
        ):
            RUNNING.add(process)
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                lines.append(checks.plain(line))
                self._follow(lines[-1])
        RUNNING.remove(process)
        return process.returncode, lines

    def _follow(self, line: str) -> None:
        """Say what a line tells somebody who waits: a stage that ended, a test that failed."""
        if stage := self.stopwatch.read(line, time.monotonic()):
            if stage in checks.STAGES:
                seconds = self.stopwatch.seconds[stage]
                TERMINAL.progress(f"{self.name}: {checks.STAGES[stage]} took {seconds:.0f} s")
        elif match := checks.BAD_TEST.match(line):
            TERMINAL.progress(f"{self.name}: FAILED {match['name']}")


def lint(part: Part) -> Result:
    """Everything that looks at the source only."""
    code, lines = part.run([BIN / "pre-commit", "run", "--all-files"])
    return judge("lint", code, checks.count_hooks(lines), lines)


def unit(part: Part) -> Result:
    """The offline tests.

    Modules are tried as root, as on a host. Without root a user namespace is enough for that.
    """
    root = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
    code, lines = part.run([*root, BIN / "python", "-m", "pytest", *PARALLEL, "tests/unit"])
    return judge("unit", code, checks.count_pytest(lines), lines)


def app(part: Part) -> Result:
    """The application's own tests."""
    code, lines = part.run([BIN / "python", "-m", "pytest", *PARALLEL], cwd=ROOT / "app")
    return judge("app", code, checks.count_pytest(lines), lines)


def scenarios() -> list[str]:
    """The Molecule scenarios."""
    return sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))


def molecule(part: Part, scenario: str) -> Result:
    """One Molecule scenario from bare hosts to their removal."""
    environment = {
        # Two checkouts whose folders have the same name would share what Molecule remembers.
        "ANSIBLE_HOME": str(ROOT / ".ansible"),
        # Borders wrap lines, which cannot be searched for then.
        "MOLECULE_COMMAND_BORDERS": "0",
    }
    program = BIN / "molecule"
    hosts = Hosts(Engine(), f"molecule-{CHECKOUT}-{scenario}".replace("_", "-"), "", part.say)
    if ROOT.joinpath(".cache", "molecule", scenario).is_symlink():
        part.say(f"molecule: forgetting an earlier run of {scenario}")
        part.run([program, "destroy", "--scenario-name", scenario], environment=environment)
    # Molecule forgets hosts with the checkout that made them, and would take them for bare ones.
    if left := hosts.down():
        part.say(f"molecule: removed what an earlier run left: {', '.join(left)}")
    code, lines = part.run(
        [program, "test", "--scenario-name", scenario, "--destroy=never"], environment=environment
    )
    counts = checks.count_pytest(lines)
    # A failed test shows its host's journal itself.
    if code and not counts["failed"]:
        for host in hosts.listed():
            part.say(hosts.journal(host["name"]))
    if os.environ.get("KEEP"):
        part.say(f"molecule: the hosts of {scenario} stay (`testhosts/testhosts.py list`)")
    else:
        removed, _ = part.run(
            [program, "destroy", "--scenario-name", scenario], environment=environment
        )
        code = code or removed
    if not code:
        # The sequence: check mode on the bare host, convergence, idempotence, check mode again.
        counts["passed"] += 1
    return judge(f"molecule {scenario}", code, counts, lines)


def chosen(arguments: Sequence[str]) -> list[str]:
    """The parts to run, with `molecule` replaced by its scenarios.

    Raises:
        SystemExit: there is no such part.
    """
    parts = []
    for argument in arguments or PARTS:
        if argument == "molecule":
            parts += [f"molecule:{scenario}" for scenario in scenarios()]
        elif argument in PARTS or argument.removeprefix("molecule:") in scenarios():
            parts.append(argument)
        else:
            known = [*PARTS, *(f"molecule:{scenario}" for scenario in scenarios())]
            raise SystemExit(f"No part {argument!r}: there are {', '.join(known)}.")
    return list(dict.fromkeys(parts))


def durations() -> dict[str, float]:
    """Seconds that each part took when it last ran in this checkout."""
    try:
        return {str(name): float(x) for name, x in json.loads(DURATIONS.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def in_order(parts: Sequence[str], known: Mapping[str, float]) -> list[str]:
    """The order in which parts start: the longest first, so that none of them ends alone.

    Args:
        parts: as `chosen` returns them.
        known: seconds that parts took before; those that are not in it come first.
    """

    def key(part: str) -> tuple[float, int]:
        place = LONGEST.index(part) if part in LONGEST else len(LONGEST)
        return (-known.get(part, float("inf")), place)

    return sorted(parts, key=key)


def run_part(name: str) -> Result:
    """Run one part from its start to its result, and show its output."""
    start = time.monotonic()
    part = Part(name)
    TERMINAL.progress(f"{part.name}: started")
    kind, _, scenario = name.partition(":")
    simple: dict[str, Callable[[Part], Result]] = {"lint": lint, "unit": unit, "app": app}
    try:
        result = molecule(part, scenario) if scenario else simple[kind](part)
    except Exception as error:
        # A fault of this program, or no engine: the other parts go on.
        result = Result(part.name, failed=1, bad=[f"{type(error).__name__}: {error}"])
    result.seconds = time.monotonic() - start
    result.stages = part.stopwatch.seconds
    TERMINAL.show(part.name, part.path)
    verdict = "FAILED" if result.failed else "ok"
    TERMINAL.progress(f"{part.name}: {verdict} after {result.seconds:.0f} s")
    return result


def processor_time() -> tuple[int, int]:
    """Of this machine since it was started, in ticks: how long processors worked, and all of it."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    # The fourth is idle, the fifth waits for a disk.
    return sum(ticks) - sum(ticks[3:5]), sum(ticks)


def jobs() -> int:
    """How many parts run at once: one more than processors, which they then have no rest of.

    With two more, each start of Ansible takes a third more of them, and nothing is done sooner.
    """
    return len(os.sched_getaffinity(0)) + 1


def main(arguments: Sequence[str]) -> int:
    """Run the parts, then say what each took and came to."""
    use_utf8()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument(
        "--jobs",
        type=int,
        default=int(os.environ.get("JOBS") or jobs()),
        help="parts that run at once (default: the variable JOBS, else processors + 1)",
    )
    options = parser.parse_args(arguments)
    parts = chosen(options.parts)
    known = durations()
    start, before = time.monotonic(), processor_time()
    with ThreadPoolExecutor(max_workers=max(1, options.jobs)) as pool:
        results = {}
        try:
            futures = {part: pool.submit(run_part, part) for part in in_order(parts, known)}
            for part in parts:
                results[part] = futures[part].result()
        except KeyboardInterrupt:
            RUNNING.stop()
            pool.shutdown(cancel_futures=True)
            raise
    known |= {part: round(result.seconds, 1) for part, result in results.items()}
    DURATIONS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    print()
    for line in checks.table(results.values()):
        print(line)
    busy, passed = (now - then for now, then in zip(processor_time(), before, strict=True))
    # Where they rest, more parts at once are quicker; where they do not, only less work is.
    print(
        f"{len(parts)} parts, {options.jobs} at once: {time.monotonic() - start:.0f} s, "
        f"processors {100 * busy / max(passed, 1):.0f} % busy"
    )
    # Last, where whoever sees only the end of the output finds it.
    for result in results.values():
        for name in result.bad:
            print(f"{result.name}: {name}")
    line, code = checks.total(results.values())
    print(line, flush=True)
    return code


if __name__ == "__main__":
    # A run that CI stops ends what it started, as one that is interrupted at the keyboard.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
