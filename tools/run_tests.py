#!/usr/bin/env python3
"""`make test` and its parts: runs them one after the other, all of them, and counts.

    tools/run_tests.py [lint] [unit] [app] [molecule | molecule:SCENARIO]...

Without a part, all are run. A part that fails does not keep the others from running. The last line
says how many checks passed and failed: the tests of pytest, the hooks of pre-commit, and for each
Molecule scenario its tests and its sequence. With KEEP=1 the hosts of a scenario stay.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
sys.path.insert(0, str(ROOT / "testhosts"))

from engine import CHECKOUT, Engine, use_utf8  # noqa: E402
from hosts import Hosts  # noqa: E402

PARTS = ("lint", "unit", "app", "molecule")
# Tests of one file share what is expensive to prepare.
PARALLEL = ("--numprocesses=auto", "--dist=loadfile")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
SUMMARY = re.compile(r"^=+ (?P<counts>.*) in [\d.]+s.*=+$")
HOOK = re.compile(r"^(?P<name>\S.*?)\.+(\(no files to check\))?(?P<verdict>Passed|Failed|Skipped)$")
BAD_TEST = re.compile(r"^(?:FAILED|ERROR) (?P<name>\S.*)$")


@dataclass
class Result:
    """What a part came to.

    Attributes:
        name: of the part.
        passed: checks that passed.
        failed: checks that did not.
        skipped: checks that did not run.
        seconds: what it took.
        bad: what failed, by name, with the reason that pytest gives in its summary.
    """

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0
    bad: list[str] = field(default_factory=list)


def count_pytest(lines: Iterable[str]) -> dict[str, int]:
    """Read from pytest's summaries how many tests passed, failed (errors too), were skipped."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for line in lines:
        if match := SUMMARY.match(line.strip()):
            for number, word in re.findall(r"(\d+) (\w+)", match["counts"]):
                kind = "failed" if word in ("failed", "error", "errors") else word
                if kind in counts:
                    counts[kind] += int(number)
    return counts


def count_hooks(lines: Iterable[str]) -> dict[str, int]:
    """Read how many hooks of pre-commit passed, failed and were skipped."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for line in lines:
        if match := HOOK.match(line.strip()):
            counts[match["verdict"].lower()] += 1
    return counts


def failures(lines: Iterable[str]) -> list[str]:
    """Read the names of what failed: tests of pytest, and hooks of pre-commit."""
    bad = []
    for line in lines:
        if match := BAD_TEST.match(line):
            bad.append(match["name"])
        elif (match := HOOK.match(line.strip())) and match["verdict"] == "Failed":
            bad.append(match["name"])
    return bad


def run(
    command: Sequence[str | Path], cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> tuple[int, list[str]]:
    """Run a command, showing its output.

    Returns:
        Its exit code, and its output's lines without colours.
    """
    lines = []
    with subprocess.Popen(
        [str(x) for x in command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **(environment or {})},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(COLOURS.sub("", line.rstrip("\n")))
    return process.returncode, lines


def judge(name: str, code: int, counts: Mapping[str, int], lines: Iterable[str] = ()) -> Result:
    """A part's result: a bad exit code counts, also when no single check failed."""
    result = Result(name, counts["passed"], counts["failed"], counts["skipped"])
    result.bad = failures(lines)
    if code and not result.failed:
        result.failed = 1
        result.bad.append(f"exit code {code}")
    elif not code and not result.passed:
        print(f"{name}: nothing was tested.", file=sys.stderr)
        result.failed = 1
    return result


def lint() -> Result:
    """Everything that looks at the source only."""
    code, lines = run([BIN / "pre-commit", "run", "--all-files"])
    return judge("lint", code, count_hooks(lines), lines)


def unit() -> Result:
    """The offline tests.

    Modules are tried as root, as on a host. Without root a user namespace is enough for that.
    """
    root = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
    code, lines = run([*root, BIN / "python", "-m", "pytest", *PARALLEL, "tests/unit"])
    return judge("unit", code, count_pytest(lines), lines)


def app() -> Result:
    """The application's own tests."""
    code, lines = run([BIN / "python", "-m", "pytest", *PARALLEL], cwd=ROOT / "app")
    return judge("app", code, count_pytest(lines), lines)


def scenarios() -> list[str]:
    """The Molecule scenarios, the whole stack last."""
    found = {path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")}
    return sorted(found, key=lambda name: (name == "default", name))


def molecule(scenario: str) -> Result:
    """One Molecule scenario from bare hosts to their removal."""
    environment = {
        # Two checkouts whose folders have the same name would share what Molecule remembers.
        "ANSIBLE_HOME": str(ROOT / ".ansible"),
        # Borders wrap lines, which cannot be searched for then.
        "MOLECULE_COMMAND_BORDERS": "0",
    }
    program = BIN / "molecule"
    hosts = Hosts(Engine(), f"molecule-{CHECKOUT}-{scenario}".replace("_", "-"), "", print)
    if ROOT.joinpath(".cache", "molecule", scenario).is_symlink():
        print(f"molecule: forgetting an earlier run of {scenario}", flush=True)
        run([program, "destroy", "--scenario-name", scenario], environment=environment)
    # Molecule forgets hosts with the checkout that made them, and would take them for bare ones.
    if left := hosts.down():
        print(f"molecule: removed what an earlier run left: {', '.join(left)}", flush=True)
    code, lines = run(
        [program, "test", "--scenario-name", scenario, "--destroy=never"], environment=environment
    )
    counts = count_pytest(lines)
    # A failed test shows its host's journal itself.
    if code and not counts["failed"]:
        for host in hosts.listed():
            print(hosts.journal(host["name"]), flush=True)
    if os.environ.get("KEEP"):
        print(f"molecule: the hosts of {scenario} stay (`testhosts/testhosts.py list`)", flush=True)
    else:
        removed, _ = run([program, "destroy", "--scenario-name", scenario], environment=environment)
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
    return parts


def total(results: Iterable[Result]) -> tuple[str, int]:
    """The last line, and the exit code."""
    passed = failed = skipped = 0
    for result in results:
        passed += result.passed
        failed += result.failed
        skipped += result.skipped
    line = f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")
    return line, 1 if failed else 0


def main(arguments: Sequence[str]) -> int:
    """Run the parts, then say what each took and came to."""
    use_utf8()
    results = []
    for part in chosen(arguments):
        print(f"\n=== {part.replace(':', ' ')}", flush=True)
        start = time.monotonic()
        kind, _, scenario = part.partition(":")
        result = (
            molecule(scenario) if scenario else {"lint": lint, "unit": unit, "app": app}[kind]()
        )
        result.seconds = time.monotonic() - start
        results.append(result)
    print()
    for result in results:
        verdict = "FAILED" if result.failed else "ok"
        print(
            f"{result.name:32} {verdict:8} {result.passed:5} passed {result.failed:4} failed"
            f" {result.seconds:8.1f} s"
        )
    # Last, where whoever sees only the end of the output finds it.
    for result in results:
        for name in result.bad:
            print(f"{result.name}: {name}")
    line, code = total(results)
    print(line, flush=True)
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
